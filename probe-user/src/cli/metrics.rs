//! `leadline metrics`: the catalogue, for people.

use std::io::{self, Write};

use clap::Args;

use crate::metric::{Descriptor, Kind, Profile};

/// Arguments of `leadline metrics`.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Only metrics whose names contain this
    pub filter: Option<String>,

    /// Print the page METRICS.md instead: also where each number comes from, and what it was compared with
    #[arg(long, conflicts_with = "filter")]
    pub markdown: bool,
}

/// Lists metrics by collector: name and labels, kind, profile, and what it says.
///
/// # Errors
/// When the output cannot be written.
pub fn list(
    arguments: &Arguments,
    catalogue: &[(&str, &[&'static Descriptor])],
    out: &mut impl Write,
) -> io::Result<()> {
    let wanted = |descriptor: &&&Descriptor| {
        arguments.filter.as_ref().is_none_or(|part| descriptor.name.contains(part.as_str()))
    };
    let mut first = true;
    for (collector, descriptors) in catalogue {
        let mut shown = descriptors.iter().filter(wanted).peekable();
        if shown.peek().is_none() {
            continue;
        }
        let gap = if first { "" } else { "\n" };
        first = false;
        writeln!(out, "{gap}{collector}")?;
        for descriptor in shown {
            let (name, kind, profile) = (series(descriptor), kind(descriptor.kind), profile(descriptor));
            writeln!(out, "  {name}  {kind}{profile}\n      {}", descriptor.help)?;
        }
    }
    Ok(())
}

fn series(descriptor: &Descriptor) -> String {
    if descriptor.labels.is_empty() {
        return descriptor.name.to_owned();
    }
    format!("{}{{{}}}", descriptor.name, descriptor.labels.join(","))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// Nothing for what every profile has.
fn profile(descriptor: &Descriptor) -> String {
    if descriptor.profile == Profile::Minimal {
        return String::new();
    }
    format!("  from profile {} on", descriptor.profile.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: Descriptor = Descriptor {
        name: "leadline_overlay_mtu_bytes",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        help: "MTU of the device.",
        labels: &["device", "backend"],
        profile: Profile::Standard,
        source: "netlink",
        witness: "ip link",
    };
    const LOST: Descriptor = Descriptor {
        name: "leadline_lost_total",
        kind: Kind::Counter,
        unit: None,
        help: "Records lost.",
        labels: &[],
        profile: Profile::Minimal,
        source: "ring buffer",
        witness: "none",
    };
    const CATALOGUE: &[(&str, &[&Descriptor])] = &[("overlay", &[&MTU]), ("self", &[&LOST])];

    fn listed(filter: Option<&str>) -> String {
        let arguments = Arguments { filter: filter.map(str::to_owned), markdown: false };
        let mut out = Vec::new();
        list(&arguments, CATALOGUE, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_metric_is_listed_below_its_collector() {
        assert_eq!(
            listed(None),
            "overlay\n  leadline_overlay_mtu_bytes{device,backend}  gauge  from profile standard on\n      MTU of the device.\n\n\
             self\n  leadline_lost_total  counter\n      Records lost.\n"
        );
    }

    #[test]
    fn a_filter_leaves_out_the_others_and_their_collectors() {
        assert_eq!(listed(Some("lost")), "self\n  leadline_lost_total  counter\n      Records lost.\n");
        assert_eq!(listed(Some("absent")), "");
    }
}
