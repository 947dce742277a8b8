//! The bytes of the two text formats: header lines, label values, numbers. Nothing here allocates per sample.
//!
//! The formats differ in four places: names of counter families, escaping of HELP, UNIT lines and the spelling of
//! bucket bounds.

use std::{fmt, io::Write as _};

use super::{Descriptor, Format, Kind, sample::Value};

/// Writes HELP, TYPE and UNIT of a family.
pub(super) fn write_header(out: &mut Vec<u8>, descriptor: &Descriptor, format: Format) {
    let name = family_name(descriptor, format);
    let kind = match descriptor.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    for part in ["# HELP ", name, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    // Only OpenMetrics escapes the double quote in HELP; the 0.0.4 parser would keep the backslash.
    write_escaped(out, descriptor.help, format == Format::OpenMetrics1);
    for part in ["\n# TYPE ", name, " ", kind, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(unit) =
        descriptor.unit.filter(|unit| format == Format::OpenMetrics1 && has_suffix(name, unit))
    {
        for part in ["# UNIT ", name, " ", unit, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// The name on header lines: OpenMetrics keeps `_total` for the sample.
fn family_name(descriptor: &Descriptor, format: Format) -> &'static str {
    match (descriptor.kind, format) {
        (Kind::Counter, Format::OpenMetrics1) => {
            descriptor.name.strip_suffix("_total").unwrap_or(descriptor.name)
        }
        _ => descriptor.name,
    }
}

/// A UNIT that is not the suffix of the name makes a parser refuse the whole page, so it is left out.
fn has_suffix(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
}

/// Writes `a="x"`.
pub(super) fn write_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    write_escaped(out, value, true);
    out.push(b'"');
}

/// Writes text with backslash, line feed and, where asked, the double quote escaped.
fn write_escaped(out: &mut Vec<u8>, text: &str, quote: bool) {
    let mut rest = text.as_bytes();
    // Nearly no text has any of them; a fold without an early exit is what the compiler turns into vector code.
    let special = |b: u8| u8::from(b == b'\\') | u8::from(b == b'\n') | u8::from(b == b'"');
    if rest.iter().fold(0, |found, byte| found | special(*byte)) == 0 {
        return out.extend_from_slice(rest);
    }
    while let Some(at) = rest.iter().position(|&b| b == b'\\' || b == b'\n' || (quote && b == b'"')) {
        let (clean, tail) = rest.split_at(at);
        out.extend_from_slice(clean);
        out.push(b'\\');
        out.push(if tail[0] == b'\n' { b'n' } else { tail[0] });
        rest = &tail[1..];
    }
    out.extend_from_slice(rest);
}

/// Writes a sample value.
pub(super) fn write_value(out: &mut Vec<u8>, value: Value) {
    match value {
        Value::Integer(number) => write_integer(out, number),
        Value::Float(number) => write_float(out, number),
    }
}

/// Writes all digits of an integer.
pub(super) fn write_integer(out: &mut Vec<u8>, mut number: u64) {
    if let (Ok(digit), true) = (u8::try_from(number), number < 10) {
        return out.push(b'0' + digit);
    }
    let mut digits = [0_u8; 20]; // u64::MAX has 20
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes the shortest text that reads back as the same float.
pub(super) fn write_float(out: &mut Vec<u8>, number: f64) {
    let size = number.abs();
    if let Some(millionths) = whole_millionths(number) {
        write_millionths(out, millionths);
    } else if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if size == 0.0 || (1e-6..1e17).contains(&size) {
        write_formatted(out, format_args!("{number}"));
    } else {
        write_formatted(out, format_args!("{number:e}"));
    }
}

/// The number in millionths where it is a whole number of them with at most 15 digits, as the sums of durations are.
/// No two such decimals are the same float, so that theirs is the shortest text.
fn whole_millionths(number: f64) -> Option<u64> {
    if !(1e-6..1e9).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below 1e15")]
    let millionths = (number * 1e6).round() as u64;
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let is_whole = (millionths as f64 / 1e6).to_bits() == number.to_bits();
    is_whole.then_some(millionths)
}

fn write_millionths(out: &mut Vec<u8>, millionths: u64) {
    write_integer(out, millionths / 1_000_000);
    let mut rest = millionths % 1_000_000;
    if rest > 0 {
        out.push(b'.');
    }
    let mut unit = 100_000;
    while rest > 0 {
        write_integer(out, rest / unit);
        rest %= unit;
        unit /= 10;
    }
}

/// A bucket bound as the reference implementations spell it: an exponent below 1e-4 and from 1e6 on, and a decimal
/// point where OpenMetrics demands one. Servers compare the text, so every exporter must agree on it.
pub(super) fn render_bound(bound: f64, format: Format) -> Vec<u8> {
    if !bound.is_finite() {
        return b"+Inf".to_vec();
    }
    let scientific = format!("{bound:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()).into_bytes();
    }
    let mut plain = format!("{bound}");
    if format == Format::OpenMetrics1 && !plain.contains('.') {
        plain.push_str(".0");
    }
    plain.into_bytes()
}

fn write_formatted(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    // Writing into a Vec has no way to fail.
    out.write_fmt(arguments).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_keep_every_digit() {
        for number in [0, 7, 10, 9_007_199_254_740_993, u64::MAX] {
            assert_eq!(written(|out| write_integer(out, number)), number.to_string());
        }
    }

    #[test]
    fn floats_read_back_as_themselves() {
        for number in
            [0.0, 0.1, 1.0 / 3.0, 123_456_789.25, 1e16, 1e17, 1e300, 1e-6, 1e-7, f64::MIN_POSITIVE, -2.5]
        {
            let text = written(|out| write_float(out, number));
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{text}");
            assert!(text.len() < 25, "{text}");
        }
    }

    #[test]
    fn sums_of_microseconds_have_the_shortest_text() {
        for sum in
            [0.000_001, 0.000_023, 0.1, 0.999_999, 1.0, 12.5, 7.000_001, 86_400.000_03, 999_999_999.999_999]
        {
            assert!(whole_millionths(sum).is_some());
            assert_eq!(written(|out| write_float(out, sum)), sum.to_string());
        }
        for other in [1.0 / 3.0, 0.000_000_5, 1e9, -1.0, 0.0, 0.1 + 0.2] {
            assert_eq!(whole_millionths(other), None);
        }
    }

    #[test]
    fn special_floats_have_their_names() {
        let all = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|n| written(|out| write_float(out, n)));
        assert_eq!(all, ["NaN", "+Inf", "-Inf"]);
    }

    #[test]
    fn bounds_are_spelled_like_the_reference() {
        let cases = [
            (0.000_061_035_156_25, "6.103515625e-05", "6.103515625e-05"),
            (0.0001, "0.0001", "0.0001"),
            (0.25, "0.25", "0.25"),
            (1.0, "1", "1.0"),
            (100_000.0, "100000", "100000.0"),
            (1_000_000.0, "1e+06", "1e+06"),
            (f64::INFINITY, "+Inf", "+Inf"),
        ];
        for (bound, text, open) in cases {
            assert_eq!(render_bound(bound, Format::Text004), text.as_bytes());
            assert_eq!(render_bound(bound, Format::OpenMetrics1), open.as_bytes());
        }
    }
}
