//! What a page holds when collectors succeed, fail, panic or cannot work at all.

use std::sync::atomic::AtomicU8;

use super::*;
use crate::metric::{Kind, Profile, catalogue::check_name};

static GOOD: Descriptor = Descriptor {
    name: "leadline_good_total",
    kind: Kind::Counter,
    unit: None,
    help: "Good.",
    labels: &["pod"],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};
static BAD: Descriptor = Descriptor { name: "leadline_bad_total", ..TEMPLATE };
const TEMPLATE: Descriptor = Descriptor {
    name: "",
    kind: Kind::Counter,
    unit: None,
    help: "Bad.",
    labels: &["pod"],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};

struct Good;

impl Collector for Good {
    fn name(&self) -> &'static str {
        "good"
    }
    fn descriptors(&self) -> &'static [&'static Descriptor] {
        const ALL: &[&Descriptor] = &[&GOOD];
        ALL
    }
    fn support(&self) -> Support {
        Support::Degraded("half of it")
    }
    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let mut family = sink.family(&GOOD);
        for pod in ["a", "b", "c"] {
            family.value(&[pod], Value::Integer(5));
        }
        Ok(())
    }
}

/// 0 works, 1 fails, 2 panics, 3 cannot.
struct Moody(AtomicU8);

impl Collector for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }
    fn descriptors(&self) -> &'static [&'static Descriptor] {
        const ALL: &[&Descriptor] = &[&BAD];
        ALL
    }
    fn support(&self) -> Support {
        if self.0.load(Ordering::Relaxed) == 3 { Support::No("no cgroup v2") } else { Support::Yes }
    }
    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        sink.family(&BAD).value(&["a"], Value::Integer(7));
        match self.0.load(Ordering::Relaxed) {
            1 => Err(CollectError("disk on fire".into())),
            2 => panic!("index out of range"),
            _ => Ok(()),
        }
    }
}

fn runner(mood: u8, max_series: usize) -> (Runner, Arc<Moody>) {
    let moody = Arc::new(Moody(AtomicU8::new(mood)));
    (Runner::new(vec![moody.clone(), Arc::new(Good)], Limits { max_series }), moody)
}

fn page(runner: &Runner) -> String {
    String::from_utf8(runner.scrape(Format::Text004)).unwrap()
}

#[track_caller]
fn has(page: &str, line: &str) {
    assert!(page.lines().any(|found| found == line), "no line {line} in\n{page}");
}

#[test]
fn own_descriptors_follow_the_rules() {
    for descriptor in DESCRIPTORS {
        assert_eq!(check_name(descriptor), Ok(()));
    }
}

#[test]
fn every_collector_is_accounted_for() {
    let page = page(&runner(0, 10).0);
    has(&page, "leadline_bad_total{pod=\"a\"} 7");
    has(&page, "leadline_collector_success{collector=\"moody\"} 1");
    has(&page, "leadline_collector_success{collector=\"good\"} 1");
    has(&page, "leadline_collector_support{collector=\"good\",level=\"degraded\",reason=\"half of it\"} 1");
    has(&page, "leadline_collector_support{collector=\"moody\",level=\"supported\",reason=\"\"} 1");
    has(&page, "leadline_collector_rejected_samples_total{collector=\"good\"} 0");
    has(&page, "leadline_series_limited_total{metric=\"leadline_good_total\"} 0");
    assert!(page.contains("leadline_collector_duration_seconds{collector=\"good\"} "));
}

#[test]
fn a_failed_collector_leaves_no_series_and_spares_the_others() {
    for mood in [1, 2] {
        let page = page(&runner(mood, 10).0);
        assert!(!page.contains("leadline_bad_total{"), "{page}");
        has(&page, "leadline_collector_success{collector=\"moody\"} 0");
        has(&page, "leadline_good_total{pod=\"c\"} 5");
    }
}

#[test]
fn a_collector_that_cannot_work_is_not_run() {
    let page = page(&runner(3, 10).0);
    assert!(!page.contains("leadline_bad_total{"), "{page}");
    assert!(!page.contains("leadline_collector_success{collector=\"moody\"}"), "{page}");
    has(&page, "leadline_collector_support{collector=\"moody\",level=\"no\",reason=\"no cgroup v2\"} 1");
}

#[test]
fn status_tells_the_cause_until_it_is_gone() {
    let (runner, moody) = runner(1, 10);
    let failure = || runner.status()[0].failure.clone();
    assert_eq!(failure(), None);
    let _ = page(&runner);
    assert_eq!(failure().as_deref(), Some("disk on fire"));
    moody.0.store(2, Ordering::Relaxed);
    let _ = page(&runner);
    assert_eq!(failure().as_deref(), Some("panicked: index out of range"));
    moody.0.store(0, Ordering::Relaxed);
    let _ = page(&runner);
    assert_eq!(failure(), None);
}

#[test]
fn folded_series_are_counted_on_the_same_page() {
    let (runner, _) = runner(0, 1);
    has(&page(&runner), "leadline_series_limited_total{metric=\"leadline_good_total\"} 2");
    has(&page(&runner), "leadline_series_limited_total{metric=\"leadline_good_total\"} 4");
}

#[test]
fn open_metrics_ends_with_its_mark() {
    let page = String::from_utf8(runner(0, 10).0.scrape(Format::OpenMetrics1)).unwrap();
    assert!(page.ends_with("\n# EOF\n"));
    has(&page, "# TYPE leadline_good counter");
}
