//! Which format and which encoding a client gets. Pure: header values in, a choice out.

use crate::metric::Format;

/// Encodings of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// One element of an `Accept` or `Accept-Encoding` list.
struct Offer<'a> {
    name: &'a str,
    version: Option<&'a str>,
    /// In thousandths; the grammar allows three digits.
    quality: u16,
}

/// How well an element fits a representation; the most specific one decides (RFC 9110, 12.5.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Anything,
    AnySubtype,
    Exact,
}

/// Chooses the text format. What cannot be satisfied gets text 0.0.4, which everything can read.
pub(super) fn decide_format<'a>(accept: impl IntoIterator<Item = &'a str>) -> Format {
    let offers: Vec<Offer<'_>> = accept.into_iter().flat_map(parse_list).collect();
    let open = best(&offers, "application", "openmetrics-text", "1.0.0");
    let text = best(&offers, "text", "plain", "0.0.4");
    match (open, text) {
        // Who accepts anything has not asked for OpenMetrics.
        (Some((Fit::Anything, _) | (_, 0)) | None, _) => Format::Text004,
        (Some((_, open)), Some((_, text))) if open < text => Format::Text004,
        (Some(_), _) => Format::OpenMetrics1,
    }
}

/// The most specific fit and its quality.
fn best(offers: &[Offer<'_>], kind: &str, subtype: &str, version: &str) -> Option<(Fit, u16)> {
    offers.iter().filter_map(|offer| Some((fit(offer, kind, subtype, version)?, offer.quality))).max()
}

fn fit(offer: &Offer<'_>, kind: &str, subtype: &str, version: &str) -> Option<Fit> {
    let (offered_kind, offered_subtype) = offer.name.split_once('/')?;
    if offer.name == "*/*" {
        return Some(Fit::Anything);
    }
    if !offered_kind.eq_ignore_ascii_case(kind) {
        return None;
    }
    if offered_subtype == "*" {
        return Some(Fit::AnySubtype);
    }
    let same = offered_subtype.eq_ignore_ascii_case(subtype) && offer.version.is_none_or(|v| v == version);
    same.then_some(Fit::Exact)
}

/// Chooses the encoding: only one that the client named, the one it likes best, of equal ones the cheapest for both.
///
/// `*` is not taken as an offer of zstd or gzip: scrapers exist that send it and then fail on a compressed body.
pub(super) fn decide_encoding<'a>(accept: impl IntoIterator<Item = &'a str>) -> Encoding {
    let offers: Vec<Offer<'_>> = accept.into_iter().flat_map(parse_list).collect();
    let quality = |names: &[&str]| {
        let named =
            offers.iter().filter(|offer| names.iter().any(|name| offer.name.eq_ignore_ascii_case(name)));
        named.map(|offer| offer.quality).max()
    };
    let candidates = [
        (quality(&["zstd"]).unwrap_or(0), Encoding::Zstd),
        (quality(&["gzip", "x-gzip"]).unwrap_or(0), Encoding::Gzip),
    ];
    // Identity is acceptable unless it is refused, but a client that names something else prefers that.
    let identity = quality(&["identity"]).unwrap_or(0);
    let mut choice = (identity, Encoding::Identity);
    for candidate in candidates.into_iter().rev() {
        if candidate.0 > 0 && candidate.0 >= choice.0 {
            choice = candidate;
        }
    }
    choice.1
}

fn parse_list(header: &str) -> impl Iterator<Item = Offer<'_>> {
    header.split(',').filter_map(parse_offer)
}

/// Reads one element; parameters other than `q` and `version` (such as `escaping`) do not change what we can send.
fn parse_offer(element: &str) -> Option<Offer<'_>> {
    let mut parts = element.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut offer = Offer { name, version: None, quality: 1000 };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim() {
            "q" | "Q" => offer.quality = parse_quality(value.trim())?,
            key if key.eq_ignore_ascii_case("version") => {
                offer.version = Some(value.trim().trim_matches('"'));
            }
            _ => {}
        }
    }
    Some(offer)
}

/// A quality in thousandths; an element whose quality cannot be read is as if it were not there.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &str) -> Format {
        decide_format([accept])
    }

    fn encoding(accept: &str) -> Encoding {
        decide_encoding([accept])
    }

    #[test]
    fn prometheus_gets_open_metrics() {
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics1, "{accept}");
        }
    }

    #[test]
    fn everything_else_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain",
            "image/png",
            "application/openmetrics-text;version=0.0.1,*/*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.4",
            "application/openmetrics-text;q=0.0001",
            ";;;,,q=1",
        ] {
            assert_eq!(format(accept), Format::Text004, "{accept}");
        }
    }

    #[test]
    fn the_most_specific_element_decides() {
        assert_eq!(format("application/*"), Format::OpenMetrics1);
        assert_eq!(format("application/*;q=1,application/openmetrics-text;q=0"), Format::Text004);
        assert_eq!(format("*/*;q=1,application/openmetrics-text;q=0.2"), Format::Text004);
        assert_eq!(format("Application/OpenMetrics-Text; Version=\"1.0.0\""), Format::OpenMetrics1);
    }

    #[test]
    fn several_headers_are_one_list() {
        let headers = ["text/plain;q=0.5", "application/openmetrics-text;q=0.9"];
        assert_eq!(decide_format(headers), Format::OpenMetrics1);
    }

    #[test]
    fn only_named_encodings_are_used() {
        for accept in
            ["", "*", "identity", "br", "deflate, br;q=1.0", "gzip;q=0", "zstd;q=0, gzip;q=0.000", "gzip;q=x"]
        {
            assert_eq!(encoding(accept), Encoding::Identity, "{accept}");
        }
    }

    #[test]
    fn the_best_liked_encoding_wins_and_zstd_breaks_ties() {
        let cases = [
            ("gzip", Encoding::Gzip),
            ("zstd", Encoding::Zstd),
            ("gzip, zstd", Encoding::Zstd),
            ("gzip;q=1.0, zstd;q=0.9", Encoding::Gzip),
            ("gzip;q=0.5, identity;q=0.8", Encoding::Identity),
            ("gzip;q=0.5, identity;q=0.5", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("zstd;q=0, gzip;q=0.1", Encoding::Gzip),
            ("gzip, identity;q=0", Encoding::Gzip),
        ];
        for (accept, expected) in cases {
            assert_eq!(encoding(accept), expected, "{accept}");
        }
    }
}
