//! What is checked and documented about metrics: the naming rules of Prometheus, and the text of METRICS.md.

use super::{Descriptor, Kind, Profile};

/// Base units of the Prometheus naming rules that a name may end in.
const BASE_UNITS: &[&str] =
    &["seconds", "bytes", "ratio", "celsius", "meters", "volts", "amperes", "joules", "grams"];

/// Units that the rules forbid because a base unit says the same.
const OTHER_UNITS: &[&str] = &[
    "nanoseconds",
    "microseconds",
    "milliseconds",
    "minutes",
    "hours",
    "days",
    "ns",
    "us",
    "ms",
    "bits",
    "kilobytes",
    "megabytes",
    "kibibytes",
    "mebibytes",
    "percent",
    "percentage",
];

/// Suffixes that a histogram, a summary or OpenMetrics adds by itself.
const RESERVED_SUFFIXES: &[&str] = &["count", "sum", "bucket", "created"];

/// Labels that a scraper or its configuration adds, and those the rules advise against.
const FORBIDDEN_LABELS: &[&str] = &[
    "instance", "job", "node", "cluster", "type", "region", "zone", "dc", "owner", "stage", "service", "env",
    "le", "quantile",
];

/// The names every client library gives to facts about the process itself.
const PROCESS_NAMES: &[&str] = &[
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

/// Checks a descriptor against the naming rules and against what METRICS.md needs.
///
/// # Errors
/// Says which rule is broken, naming the metric.
pub fn check_name(descriptor: &Descriptor) -> Result<(), String> {
    let checks = [check_prefix, check_characters, check_suffix, check_unit, check_labels, check_texts];
    for check in checks {
        check(descriptor).map_err(|broken| format!("{}: {broken}", descriptor.name))?;
    }
    Ok(())
}

fn check_prefix(descriptor: &Descriptor) -> Result<(), String> {
    let known = descriptor.name.starts_with("leadline_") || PROCESS_NAMES.contains(&descriptor.name);
    ensure(known, "the name must start with leadline_")
}

fn check_characters(descriptor: &Descriptor) -> Result<(), String> {
    ensure(
        is_snake_case(descriptor.name),
        "the name must be words of a-z and 0-9 joined by single underscores",
    )
}

fn check_suffix(descriptor: &Descriptor) -> Result<(), String> {
    let name = descriptor.name;
    let counter = descriptor.kind == Kind::Counter;
    ensure(counter == name.ends_with("_total"), "counters end in _total, and nothing else does")?;
    ensure(
        !name.ends_with("_info") || descriptor.kind == Kind::Gauge,
        "_info is for gauges that are always 1",
    )?;
    let last = last_word(name);
    ensure(!RESERVED_SUFFIXES.contains(&last), "_count, _sum, _bucket and _created are added by formats")?;
    ensure(!OTHER_UNITS.contains(&last), "the unit must be a base unit such as seconds, bytes or ratio")
}

fn check_unit(descriptor: &Descriptor) -> Result<(), String> {
    let last = last_word(descriptor.name);
    match descriptor.unit {
        Some(unit) if !BASE_UNITS.contains(&unit) => Err(format!("{unit} is not a base unit")),
        Some(unit) => ensure(unit == last, "the name must end in the unit (before _total)"),
        None => {
            ensure(!BASE_UNITS.contains(&last), "the name ends in a unit that the descriptor does not give")
        }
    }
}

fn check_labels(descriptor: &Descriptor) -> Result<(), String> {
    for (index, label) in descriptor.labels.iter().enumerate() {
        if !is_snake_case(label) {
            return Err(format!("label {label} must be words of a-z and 0-9 joined by single underscores"));
        }
        if FORBIDDEN_LABELS.contains(label) || label.starts_with("exported_") {
            return Err(format!("label {label} belongs to the scraper or to the format"));
        }
        if descriptor.labels[..index].contains(label) {
            return Err(format!("label {label} is there twice"));
        }
    }
    Ok(())
}

fn check_texts(descriptor: &Descriptor) -> Result<(), String> {
    let help = descriptor.help;
    ensure(!help.is_empty() && help.trim() == help && !help.contains('\n'), "help must be one trimmed line")?;
    ensure(help.ends_with('.'), "help must be a sentence that ends in a full stop")?;
    let is_said = descriptor.profile < Profile::Detailed || help.contains("detailed profile");
    ensure(is_said, "help must say that only the detailed profile has the family")?;
    ensure(!descriptor.source.is_empty(), "source must say where the number comes from")?;
    ensure(!descriptor.witness.is_empty(), "witness must say what the number was compared with")
}

fn ensure(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

fn is_snake_case(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.split('_').all(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// The last word of a name, not counting `_total`.
fn last_word(name: &str) -> &str {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    stem.rsplit('_').next().unwrap_or(stem)
}

const INTRODUCTION: &str = "\
# Metrics

Generated from the metric catalogue; do not edit.

Names follow the Prometheus rules: base units, `_total` on counters only, one series per state with the value 0 or 1.
A value that could not be read is absent, never 0. Counters start at 0 when the agent starts. A family holds at most
the configured number of label sets; what exceeds it is summed in one series whose labels are all `other`, and counted
in `leadline_series_limited_total`.

*Profile* is the smallest of the configured profiles that has the family. `minimal` has the totals of the node and what
the agent says of itself; `standard`, the default, adds traffic per pod and host unit, and per pod the TCP families that
alerts are made of; `detailed` adds the other TCP families, and the label `protocol` to the traffic of pods and units.
Only pods have TCP families of their own: the TCP of host units is in `leadline_tcp_node_rtt_seconds`.

*Source* is where a number comes from. *Witness* is the independent source that a test compares it with, and the
difference found there.

Fixed words in labels:

| label | values |
|---|---|
| `peer_class` | `loopback`; `pod_local` and `pod_remote`: a pod of this and of another node; `host`: an address of this node; `node`: an address of another node; `service`: a service address before translation; `multicast`; `external`; `unknown` |
| `peer_node` | the Kubernetes node name where it is known, else the node's underlay address |
| `namespace`, `pod` | as in Kubernetes; scrape with `honorLabels: true`, as the shipped monitors do |
| `unit` | a systemd service or slice of the host, scopes folded into their slice; `kernel`: the kernel's own sockets |
| `result` | what HAProxy says of a check, in small letters: `ini` and `unk`: none yet; `sockerr`: no socket; `l4ok`, `l6ok`, `l7ok`, `procok`: good, as far as was asked; `l4con`: refused or no route; `l4tout`, `l6tout`, `l7tout`, `proctout`: no connection, TLS, answer, end of the program in time; `l6rsp`, `l7rsp`: no valid answer; `l7sts`: an answer that says no, as HTTP 500; `l7okc`: an answer that asks for no new connections; `procerr`: the program failed; `hana`: requests of clients failed; `other` |
| `collector` | the name of a section below |
| `level` | `supported`; `degraded` and `no`: `reason` says why |
";

/// Renders METRICS.md: one section per collector, in the order given.
#[must_use]
pub fn render_markdown(collectors: &[(&str, &[&'static Descriptor])]) -> String {
    let mut page = String::from(INTRODUCTION);
    for (collector, descriptors) in collectors {
        page.push_str("\n## ");
        page.push_str(collector);
        page.push_str(
            "\n\n| name | kind | unit | labels | profile | help | source | witness |\n|---|---|---|---|---|---|---|---|\n",
        );
        for descriptor in *descriptors {
            page.push_str(&render_row(descriptor));
        }
    }
    page
}

fn render_row(descriptor: &Descriptor) -> String {
    let kind = match descriptor.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = descriptor.labels.iter().map(|label| format!("`{label}`")).collect();
    let name = format!("`{}`", descriptor.name);
    let [help, source, witness] = [descriptor.help, descriptor.source, descriptor.witness].map(escape_cell);
    let (unit, profile) = (descriptor.unit.unwrap_or(""), descriptor.profile.as_str());
    let cells = [name.as_str(), kind, unit, &labels.join(", "), profile, &help, &source, &witness];
    format!("| {} |\n", cells.join(" | "))
}

/// A table cell must stay one cell on one line, and `<name>` must not become a tag.
fn escape_cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Descriptor = Descriptor {
        name: "leadline_pod_receive_bytes_total",
        kind: Kind::Counter,
        unit: Some("bytes"),
        help: "Bytes received | by a pod.",
        labels: &["namespace", "pod"],
        profile: Profile::Minimal,
        source: "cgroup_skb",
        witness: "iperf3 <difference 0>",
    };

    fn broken(descriptor: &Descriptor) -> String {
        check_name(descriptor).unwrap_err()
    }

    #[test]
    fn names_of_the_design_pass() {
        let gauge = |name, unit| Descriptor { name, unit, kind: Kind::Gauge, ..GOOD };
        let all = [
            GOOD,
            gauge("leadline_vip_held", None),
            gauge("leadline_overlay_mtu_bytes", Some("bytes")),
            gauge("leadline_pod_info", None),
            gauge("leadline_certificate_not_after_timestamp_seconds", Some("seconds")),
            Descriptor { name: "leadline_pod_receive_packets_total", unit: None, ..GOOD },
            Descriptor {
                name: "leadline_tcp_rtt_seconds",
                unit: Some("seconds"),
                kind: Kind::Histogram,
                ..GOOD
            },
            Descriptor { name: "process_cpu_seconds_total", unit: Some("seconds"), ..GOOD },
        ];
        for descriptor in &all {
            assert_eq!(check_name(descriptor), Ok(()));
        }
    }

    #[test]
    fn broken_names_are_named_with_the_rule() {
        let cases = [
            (Descriptor { name: "pod_receive_bytes_total", ..GOOD }, "leadline_"),
            (Descriptor { name: "leadline_Pod_bytes_total", ..GOOD }, "a-z"),
            (Descriptor { name: "leadline__bytes_total", ..GOOD }, "single underscores"),
            (Descriptor { name: "leadline_receive_bytes", ..GOOD }, "_total"),
            (Descriptor { kind: Kind::Gauge, ..GOOD }, "_total"),
            (Descriptor { name: "leadline_rtt_ms", kind: Kind::Gauge, unit: None, ..GOOD }, "base unit"),
            (
                Descriptor { name: "leadline_pod_count", kind: Kind::Gauge, unit: None, ..GOOD },
                "added by formats",
            ),
            (Descriptor { name: "leadline_x_info", kind: Kind::Histogram, unit: None, ..GOOD }, "always 1"),
            (Descriptor { unit: None, ..GOOD }, "does not give"),
            (Descriptor { unit: Some("seconds"), ..GOOD }, "must end in the unit"),
            (Descriptor { unit: Some("packets"), ..GOOD }, "not a base unit"),
            (Descriptor { labels: &["node"], ..GOOD }, "label node"),
            (Descriptor { labels: &["__name"], ..GOOD }, "label __name"),
            (Descriptor { labels: &["a", "b", "a"], ..GOOD }, "twice"),
            (Descriptor { help: "No stop", ..GOOD }, "full stop"),
            (Descriptor { help: "Two\nlines.", ..GOOD }, "one trimmed line"),
            (Descriptor { profile: Profile::Detailed, ..GOOD }, "detailed profile"),
            (Descriptor { source: "", ..GOOD }, "source"),
            (Descriptor { witness: "", ..GOOD }, "witness"),
        ];
        for (descriptor, rule) in &cases {
            let text = broken(descriptor);
            assert!(text.starts_with(descriptor.name) && text.contains(rule), "{text}");
        }
    }

    #[test]
    fn a_row_keeps_its_eight_cells() {
        static METRIC: Descriptor = GOOD;
        let page = render_markdown(&[("traffic", &[&METRIC])]);
        let row = page.lines().last().unwrap();
        assert_eq!(
            row,
            "| `leadline_pod_receive_bytes_total` | counter | bytes | `namespace`, `pod` | minimal | \
             Bytes received \\| by a pod. | cgroup_skb | iperf3 &lt;difference 0> |"
        );
        assert!(page.contains("\n## traffic\n"));
    }
}
