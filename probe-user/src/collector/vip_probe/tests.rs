//! Outcomes in, series and changes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{Target, decide_targets};
use super::state::{Change, ChangeKind};
use super::*;
use crate::config::{ProbeKind, service};
use crate::metric::Format;
use crate::source::vip_probe::Outcome;

const PLACE: &str = "192.0.2.1:6443";
const SECOND: u64 = 1_000_000_000;

fn place() -> SocketAddr {
    PLACE.parse().unwrap()
}

fn outcome(verdict: Verdict) -> Outcome {
    let is_accepted = !matches!(verdict, Verdict::Refused | Verdict::Unreachable | Verdict::LocalError);
    let is_ok = (verdict == Verdict::Ok).then_some(Duration::from_millis(4));
    Outcome {
        verdict,
        connect: is_accepted.then_some(Duration::from_millis(1)),
        tls: is_ok,
        http: is_ok,
        not_after: is_ok.map(|_| 1_798_859_045),
    }
}

fn listed() -> Probes {
    let probes = Probes::default();
    let plan =
        decide_targets(&[service("https://192.0.2.1:6443").unwrap()], &BTreeSet::new(), &[], |_| false);
    probes.lock().follow(&plan, |_| true);
    probes
}

fn tried() -> Probes {
    let probes = Probes::default();
    let plan = decide_targets(&[], &BTreeSet::from([place().ip()]), &[6443], |_| false);
    probes.lock().follow(&plan, |_| true);
    probes
}

/// Records outcomes, one a second from 1 on.
fn record(probes: &Probes, verdicts: &[Verdict], is_held: Option<bool>) -> Vec<Change> {
    let mut state = probes.lock();
    let times = (1..).map(|second| second * SECOND);
    verdicts
        .iter()
        .zip(times)
        .flat_map(|(verdict, begun)| state.record(&place(), &outcome(*verdict), is_held, begun))
        .collect()
}

/// The page without comments; the network's state was never read.
fn page(probes: &Probes) -> Vec<String> {
    let mut page = Vec::new();
    let mut sink = Sink::new(&mut page, Format::Text004);
    VipProbe::new(probes.clone(), &NetworkState::default()).collect(&mut sink).unwrap();
    sink.finish();
    let lines = String::from_utf8(page).unwrap();
    lines.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_listed_service_is_there_from_the_start_with_all_its_results_at_0() {
    let lines = page(&listed());
    let results = lines.iter().filter(|line| line.starts_with("leadline_vip_probes_total{"));
    assert_eq!(results.clone().filter(|line| line.ends_with(" 0")).count(), Verdict::ALL.len());
    assert!(lines.contains(
        &r#"leadline_vip_probe_seconds_count{vip="192.0.2.1",port="6443",phase="http"} 0"#.to_owned()
    ));
    assert!(!lines.iter().any(|line| line.starts_with("leadline_vip_reachable")), "not probed yet");
}

#[test]
fn nothing_is_said_of_a_tried_port_until_it_has_accepted() {
    let probes = tried();
    assert_eq!(record(&probes, &[Verdict::Refused; 5], Some(true)), []);
    assert_eq!(page(&probes), ["leadline_vip_probe_ignored_targets 0"]);
    assert_eq!(probes.lock().failures(&place()), 5);
    // It accepted, if nothing else: what it does from now on is news.
    record(&probes, &[Verdict::TlsFailed], Some(true));
    assert!(page(&probes).contains(&r#"leadline_vip_reachable{vip="192.0.2.1",port="6443"} 0"#.to_owned()));
    record(&probes, &[Verdict::Refused], Some(true));
    assert_eq!(probes.lock().failures(&place()), 0);
}

#[test]
fn two_probes_in_a_row_make_a_change() {
    use Verdict::{Ok, Refused, Timeout};
    assert_eq!(record(&listed(), &[Ok, Timeout, Ok, Timeout, Ok], Some(false)), []);
    let changes = record(&listed(), &[Ok, Timeout, Refused, Refused, Ok, Refused, Ok, Ok, Ok], Some(false));
    let change = |kind, at: u64, verdict, lasted: Option<u64>| Change {
        kind,
        at: at * SECOND,
        verdict,
        lasted: lasted.map(|lasted| lasted * SECOND),
    };
    assert_eq!(
        changes,
        [change(ChangeKind::Unreachable, 2, Refused, None), change(ChangeKind::Reachable, 7, Ok, Some(5)),]
    );
}

#[test]
fn only_the_holder_says_that_an_address_is_not_served() {
    use ChangeKind::{Reachable, Served, Unreachable, Unserved};
    let kinds = |is_held| -> Vec<ChangeKind> {
        let verdicts = [Verdict::Refused, Verdict::Refused, Verdict::Ok, Verdict::Ok];
        record(&listed(), &verdicts, is_held).iter().map(|change| change.kind).collect()
    };
    assert_eq!(kinds(Some(true)), [Unreachable, Unserved, Reachable, Served]);
    assert_eq!(kinds(Some(false)), [Unreachable, Reachable]);
    assert_eq!(kinds(None), [Unreachable, Reachable]);
}

#[test]
fn an_address_that_has_left_takes_its_trouble_along() {
    let probes = listed();
    record(&probes, &[Verdict::Refused; 2], Some(true));
    record(&probes, &[Verdict::Refused], Some(false));
    let kinds: Vec<_> =
        record(&probes, &[Verdict::Ok; 2], Some(true)).iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Reachable]);
}

#[test]
fn a_probe_that_was_not_made_says_nothing() {
    let probes = listed();
    assert_eq!(record(&probes, &[Verdict::Ok, Verdict::LocalError, Verdict::LocalError], Some(true)), []);
    let lines = page(&probes);
    assert!(!lines.iter().any(|line| line.starts_with("leadline_vip_reachable")), "{lines:?}");
    assert!(lines.contains(
        &r#"leadline_vip_probes_total{vip="192.0.2.1",port="6443",result="local_error"} 2"#.to_owned()
    ));
    // The certificate is that of the last handshake.
    assert!(lines.contains(
        &r#"leadline_vip_certificate_not_after_timestamp_seconds{vip="192.0.2.1",port="6443"} 1798859045"#.to_owned()
    ));
}

#[test]
fn what_others_probe_has_no_series_here() {
    let probes = listed();
    let target = Target { kind: ProbeKind::Https, is_listed: true };
    let plan = plan::Plan { targets: BTreeMap::from([(place(), target)]), ignored: 0 };
    probes.lock().follow(&plan, |_| false);
    assert_eq!(record(&probes, &[Verdict::Refused; 3], Some(true)), []);
    assert_eq!(page(&probes), ["leadline_vip_probe_ignored_targets 0"]);
    let support = |probes: &Probes| VipProbe::new(probes.clone(), &NetworkState::default()).support();
    assert_eq!(support(&probes), Support::No(OTHERS));
    assert_eq!(support(&tried()), Support::No(NO_SERVICE));
    assert_eq!(support(&listed()), Support::Degraded(NETWORK_UNREAD));
    assert_eq!(support(&Probes::default()), Support::No(NO_TARGET));
}
