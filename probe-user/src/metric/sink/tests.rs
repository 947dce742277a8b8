//! What a page looks like, in both formats, and what happens to samples that do not belong on it.

use super::*;
use crate::metric::Profile;

static BYTES: Descriptor = Descriptor {
    name: "leadline_test_receive_bytes_total",
    kind: Kind::Counter,
    unit: Some("bytes"),
    help: "Bytes \"received\" \\ per\nline.",
    labels: &["pod", "peer_class"],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};
static HELD: Descriptor = Descriptor {
    name: "leadline_test_held",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether it is held.",
    labels: &[],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};
static RTT: Descriptor = RTT_TEMPLATE;
const RTT_TEMPLATE: Descriptor = Descriptor {
    name: "leadline_test_rtt_seconds",
    kind: Kind::Histogram,
    unit: Some("seconds"),
    help: "Round trip.",
    labels: &["pod"],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};

fn page(format: Format, max: usize, fill: impl FnOnce(&mut Sink<'_>)) -> (String, Tally) {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, format).with_max_series(max);
    fill(&mut sink);
    let tally = sink.tally().clone();
    sink.finish();
    (String::from_utf8(out).unwrap(), tally)
}

fn write_all(sink: &mut Sink<'_>) {
    let mut bytes = sink.family(&BYTES);
    bytes.value(&["web", "node"], Value::Integer(9_007_199_254_740_993));
    bytes.value(&["d\"b", "host"], Value::Integer(0));
    sink.family(&HELD).value(&[], Value::Float(1.0));
    let buckets = Buckets { bounds: &[0.0625, 1.0], counts: &[3, 4, 5], sum: 12.5 };
    sink.family(&RTT).histogram(&["web"], &buckets);
}

#[test]
fn text_page() {
    let (text, tally) = page(Format::Text004, 10, write_all);
    assert_eq!(
        text,
        concat!(
            "# HELP leadline_test_receive_bytes_total Bytes \"received\" \\\\ per\\nline.\n",
            "# TYPE leadline_test_receive_bytes_total counter\n",
            "leadline_test_receive_bytes_total{pod=\"web\",peer_class=\"node\"} 9007199254740993\n",
            "leadline_test_receive_bytes_total{pod=\"d\\\"b\",peer_class=\"host\"} 0\n",
            "# HELP leadline_test_held Whether it is held.\n",
            "# TYPE leadline_test_held gauge\n",
            "leadline_test_held 1\n",
            "# HELP leadline_test_rtt_seconds Round trip.\n",
            "# TYPE leadline_test_rtt_seconds histogram\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"0.0625\"} 3\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"1\"} 7\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"+Inf\"} 12\n",
            "leadline_test_rtt_seconds_sum{pod=\"web\"} 12.5\n",
            "leadline_test_rtt_seconds_count{pod=\"web\"} 12\n",
        )
    );
    assert_eq!(tally, Tally::default());
}

#[test]
fn open_metrics_page() {
    let (text, _) = page(Format::OpenMetrics1, 10, write_all);
    assert_eq!(
        text,
        concat!(
            "# HELP leadline_test_receive_bytes Bytes \\\"received\\\" \\\\ per\\nline.\n",
            "# TYPE leadline_test_receive_bytes counter\n",
            "# UNIT leadline_test_receive_bytes bytes\n",
            "leadline_test_receive_bytes_total{pod=\"web\",peer_class=\"node\"} 9007199254740993\n",
            "leadline_test_receive_bytes_total{pod=\"d\\\"b\",peer_class=\"host\"} 0\n",
            "# HELP leadline_test_held Whether it is held.\n",
            "# TYPE leadline_test_held gauge\n",
            "leadline_test_held 1\n",
            "# HELP leadline_test_rtt_seconds Round trip.\n",
            "# TYPE leadline_test_rtt_seconds histogram\n",
            "# UNIT leadline_test_rtt_seconds seconds\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"0.0625\"} 3\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"1.0\"} 7\n",
            "leadline_test_rtt_seconds_bucket{pod=\"web\",le=\"+Inf\"} 12\n",
            "leadline_test_rtt_seconds_sum{pod=\"web\"} 12.5\n",
            "leadline_test_rtt_seconds_count{pod=\"web\"} 12\n",
            "# EOF\n",
        )
    );
}

#[test]
fn a_histogram_without_labels_has_its_bounds_alone() {
    static DELAY: Descriptor =
        Descriptor { name: "leadline_test_delay_seconds", labels: &[], ..RTT_TEMPLATE };
    let (text, _) = page(Format::Text004, 10, |sink| {
        sink.family(&DELAY).histogram(&[], &Buckets { bounds: &[1.0], counts: &[2, 1], sum: 4.5 });
    });
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = ["_bucket{le=\"1\"} 2", "_bucket{le=\"+Inf\"} 3", "_sum 4.5", "_count 3"]
        .map(|end| format!("{}{end}", DELAY.name));
    assert_eq!(samples, expected);
}

#[test]
fn labels_rendered_before_make_the_same_page() {
    let (values, buckets) = (["d\"b", "host"], Buckets { bounds: &[1.0], counts: &[2, 1], sum: 4.5 });
    let (plain, _) = page(Format::OpenMetrics1, 10, |sink| {
        sink.family(&BYTES).value(&values, Value::Integer(7));
        sink.family(&RTT).histogram(&values[..1], &buckets);
    });
    let (rendered, _) = page(Format::OpenMetrics1, 10, |sink| {
        let pod = Labels::new(&["pod"], &values[..1]);
        let class = Labels::new(&["peer_class"], &values[1..]);
        sink.family(&BYTES).value_with(&pod, &class, Value::Integer(7));
        sink.family(&RTT).histogram_with(&pod, &buckets);
    });
    assert_eq!(rendered, plain);
}

#[test]
fn a_family_without_samples_has_no_header() {
    let (text, _) = page(Format::Text004, 10, |sink| {
        sink.family(&BYTES);
    });
    assert_eq!(text, "");
}

#[test]
fn series_above_the_cap_become_one_other() {
    let (text, tally) = page(Format::Text004, 2, |sink| {
        let mut bytes = sink.family(&BYTES);
        for (pod, value) in [("a", 1), ("b", 2), ("c", 4), ("d", 8)] {
            bytes.value(&[pod, "node"], Value::Integer(value));
        }
    });
    assert!(text.ends_with(concat!(
        "{pod=\"b\",peer_class=\"node\"} 2\n",
        "leadline_test_receive_bytes_total{pod=\"other\",peer_class=\"other\"} 12\n"
    )));
    assert_eq!(tally.folded, [("leadline_test_receive_bytes_total", 2)]);
}

#[test]
fn histograms_above_the_cap_become_one_other() {
    let (text, tally) = page(Format::Text004, 1, |sink| {
        let mut rtt = sink.family(&RTT);
        for (pod, count) in [("a", 1), ("b", 2), ("c", 4)] {
            rtt.histogram(&[pod], &Buckets { bounds: &[1.0], counts: &[count, 10 * count], sum: 0.5 });
        }
    });
    assert!(text.contains("{pod=\"other\",le=\"1\"} 6\n"), "{text}");
    assert!(text.contains("_count{pod=\"other\"} 66\n"), "{text}");
    assert_eq!(tally.folded, [("leadline_test_rtt_seconds", 2)]);
}

#[test]
fn a_collectors_own_other_joins_the_folded_one() {
    let (text, tally) = page(Format::Text004, 1, |sink| {
        let mut bytes = sink.family(&BYTES);
        bytes.value(&["other", "other"], Value::Integer(1));
        bytes.value(&["a", "node"], Value::Integer(2));
        bytes.value(&["b", "node"], Value::Integer(4));
    });
    assert_eq!(text.matches("other").count(), 2, "{text}");
    assert!(text.ends_with("{pod=\"other\",peer_class=\"other\"} 5\n"), "{text}");
    assert_eq!(tally.folded, [("leadline_test_receive_bytes_total", 1)]);
}

#[test]
fn rollback_forgets_samples_headers_and_tallies() {
    let (text, tally) = page(Format::Text004, 1, |sink| {
        sink.family(&HELD).value(&[], Value::Integer(1));
        let mark = sink.mark();
        let mut bytes = sink.family(&BYTES);
        bytes.value(&["a", "node"], Value::Integer(1));
        bytes.value(&["b", "node"], Value::Integer(1));
        sink.rollback(mark);
        sink.family(&BYTES).value(&["c", "node"], Value::Integer(3));
    });
    assert!(text.ends_with("counter\nleadline_test_receive_bytes_total{pod=\"c\",peer_class=\"node\"} 3\n"));
    assert_eq!(tally, Tally::default());
}

/// What does not fit is a panic in development and a counted gap in production.
fn rejects(fill: impl FnOnce(&mut Sink<'_>) + std::panic::UnwindSafe) {
    let outcome = std::panic::catch_unwind(|| page(Format::Text004, 10, fill));
    match outcome {
        Err(cause) if !cfg!(debug_assertions) => std::panic::resume_unwind(cause),
        Err(_panic) => {}
        Ok((_, tally)) => assert_eq!(tally.rejected, 1),
    }
}

#[test]
fn wrong_label_count_is_rejected() {
    rejects(|sink| sink.family(&BYTES).value(&["a"], Value::Integer(1)));
}

#[test]
fn wrong_kind_is_rejected() {
    rejects(|sink| sink.family(&RTT).value(&["a"], Value::Integer(1)));
}

#[test]
fn wrong_bucket_count_is_rejected() {
    rejects(|sink| {
        sink.family(&RTT).histogram(&["a"], &Buckets { bounds: &[1.0], counts: &[1], sum: 1.0 });
    });
}

#[test]
fn a_family_started_twice_is_rejected() {
    rejects(|sink| {
        sink.family(&HELD).value(&[], Value::Integer(1));
        sink.family(&HELD).value(&[], Value::Integer(1));
    });
}

#[test]
fn cost_of_sixty_thousand_series() {
    static POD: Descriptor = Descriptor {
        name: "leadline_pod_receive_bytes_total",
        labels: &["namespace", "pod", "peer_class"],
        help: "Bytes.",
        ..BYTES_TEMPLATE
    };
    const BYTES_TEMPLATE: Descriptor = Descriptor {
        name: "",
        kind: Kind::Counter,
        unit: Some("bytes"),
        help: "",
        labels: &[],
        profile: Profile::Minimal,
        source: "",
        witness: "",
    };
    let pods: Vec<String> = (0..60_000).map(|n| format!("frontend-7c9d8b6f5-{n:05}")).collect();
    let mut best = std::time::Duration::MAX;
    let mut size = 0;
    for _ in 0..7 {
        let mut out = Vec::new();
        let start = std::time::Instant::now();
        let mut sink = Sink::new(&mut out, Format::Text004).with_max_series(usize::MAX);
        let mut family = sink.family(&POD);
        for (value, pod) in (123_456_789_000..).zip(&pods) {
            family.value(&["default", pod, "pod_remote"], Value::Integer(value));
        }
        sink.finish();
        best = best.min(start.elapsed());
        size = out.len();
    }
    assert!(size > 60_000 * 100);
    println!("60,000 series: {best:?}, {size} bytes");
}
