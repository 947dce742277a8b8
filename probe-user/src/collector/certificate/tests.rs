//! What is found at each moment, replayed, and what the page and the timeline make of it.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::time::Duration;

use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner, Version};
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::{BitString, ObjectIdentifier, UtcTime};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::*;
use crate::event::{Kind, Occurrence, Timestamp};
use crate::metric::Format;
use crate::source::certificate::{Fault, FileFault, OnDisk, Purpose, Scan};

const PATH: &str = "/etc/kubernetes/pki/etcd/server.crt";
const ADDRESS: &str = "127.0.0.1:2379";

/// A certificate with these names and times, in seconds since 1970; nobody has signed it.
pub(super) fn crafted(serial: u8, subject: &str, issuer: &str, from: u64, to: u64) -> Certificate {
    let algorithm = AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
        parameters: None,
    };
    let time = |seconds| Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(seconds)).unwrap());
    let bits = || BitString::from_bytes(&[serial]).unwrap();
    let key = SubjectPublicKeyInfoOwned { algorithm: algorithm.clone(), subject_public_key: bits() };
    let body = TbsCertificateInner::<Raw> {
        version: Version::V3,
        serial_number: SerialNumber::new(&[serial]).unwrap(),
        signature: algorithm.clone(),
        issuer: Name::from_str(issuer).unwrap(),
        validity: Validity { not_before: time(from), not_after: time(to) },
        subject: Name::from_str(subject).unwrap(),
        subject_public_key_info: key,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: None,
    };
    let whole = CertificateInner { tbs_certificate: body, signature_algorithm: algorithm, signature: bits() };
    Certificate::read(&whole.to_der().unwrap()).unwrap()
}

/// The same with alternative names.
pub(super) fn named(mut certificate: Certificate, names: &[&str]) -> Certificate {
    certificate.names = names.iter().map(|name| name.as_bytes().into()).collect();
    certificate
}

fn old() -> Certificate {
    crafted(1, "CN=a", "CN=ca", 100, 200)
}

fn new() -> Certificate {
    crafted(2, "CN=a", "CN=ca", 150, 300)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_nanos(seconds * 1_000_000_000)
}

fn scan(certificate: Certificate) -> Scan {
    let file = OnDisk { purpose: Purpose::EtcdServer, certificate: Arc::new(certificate) };
    Scan { files: BTreeMap::from([(PATH.to_owned(), file)]), ..Scan::default() }
}

fn served(certificate: Certificate) -> Vec<Served> {
    vec![Served { address: ADDRESS.parse().unwrap(), certificate: Arc::new(certificate) }]
}

fn kinds(events: &[Occurrence]) -> Vec<Kind> {
    events.iter().map(|event| event.kind).collect()
}

fn details(event: &Occurrence) -> Vec<(&str, &str)> {
    event.details.iter().map(|(key, value)| (&**key, value.as_str())).collect()
}

fn stale(state: &State) -> Vec<bool> {
    state.judged().map(|(_, is_stale)| is_stale).collect()
}

#[test]
fn a_renewed_certificate_is_told_and_is_stale_until_it_is_served() {
    let mut state = State::default();
    assert_eq!(state.observe_files(scan(old()), at(110)), []);
    assert_eq!(state.observe_served(served(old()), at(110)), []);
    assert_eq!(stale(&state), [false]);

    let events = state.observe_files(scan(new()), at(160));
    assert_eq!(kinds(&events), [Kind::CertificateRotated]);
    assert_eq!((events[0].subject.as_str(), events[0].time), (PATH, at(160)));
    let (before, after) = (at(200).to_string(), at(300).to_string());
    assert_eq!(
        details(&events[0]),
        [("new_not_after", after.as_str()), ("old_not_after", before.as_str()), ("purpose", "etcd_server")]
    );
    // The gauge says so at once, the timeline when it has lasted.
    assert_eq!(state.observe_served(served(old()), at(160)), []);
    assert_eq!(stale(&state), [true]);
    let events = state.observe_served(served(old()), at(170));
    assert_eq!(kinds(&events), [Kind::CertificateRenewedNotServed]);
    assert_eq!((events[0].subject.as_str(), events[0].time), (ADDRESS, at(160)));
    assert_eq!(events[0].details["file"], PATH);
    assert_eq!(
        (&events[0].details["served_not_after"], &events[0].details["file_not_after"]),
        (&before, &after)
    );
    assert_eq!(state.observe_served(served(old()), at(180)), []);

    // A server that is started again is away for a moment.
    assert_eq!(state.observe_served(Vec::new(), at(185)), []);
    assert!(stale(&state).is_empty());
    let events = state.observe_served(served(new()), at(190));
    assert_eq!(kinds(&events), [Kind::CertificateRenewedServed]);
    assert_eq!(events[0].details["served_not_after"], after);
    assert_eq!(stale(&state), [false]);
    assert_eq!(state.observe_served(served(new()), at(195)), []);
}

#[test]
fn a_server_that_reads_its_file_again_is_no_event() {
    let mut state = State::default();
    state.observe_files(scan(old()), at(110));
    state.observe_served(served(old()), at(110));
    state.observe_files(scan(new()), at(160));
    assert_eq!(state.observe_served(served(old()), at(160)), []);
    assert_eq!(state.observe_served(served(new()), at(170)), []);
    // What was seen once long ago is not the first of two.
    state.observe_files(scan(crafted(3, "CN=a", "CN=ca", 175, 400)), at(176));
    assert_eq!(state.observe_served(served(new()), at(176)), []);
    assert_eq!(stale(&state), [true]);
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_still_compared() {
    let mut state = State::default();
    state.observe_files(scan(old()), at(110));
    assert_eq!(state.observe_files(Scan::default(), at(120)), []);
    assert_eq!(state.shown().count(), 0);
    assert_eq!(kinds(&state.observe_files(scan(new()), at(160))), [Kind::CertificateRotated]);
    assert_eq!(state.observe_files(scan(new()), at(170)), []);
}

#[test]
fn the_end_of_a_certificate_is_told_once_at_its_time() {
    let mut state = State::default();
    state.observe_files(scan(old()), at(110));
    assert_eq!(state.next_end(), Some(200));
    // It is good to the end of the second that it names.
    assert_eq!(state.expire(at(200)), []);
    let events = state.expire(at(201));
    assert_eq!(kinds(&events), [Kind::CertificateExpired]);
    assert_eq!((events[0].subject.as_str(), events[0].time), (PATH, at(200)));
    assert_eq!(details(&events[0])[1..], [("purpose", "etcd_server"), ("subject", "CN=a")]);
    assert_eq!(state.expire(at(202)), []);
    assert_eq!(state.next_end(), None);
    // The next one has an end of its own.
    state.observe_files(scan(new()), at(250));
    assert_eq!(state.next_end(), Some(300));
}

#[test]
fn what_had_ended_at_first_sight_is_no_news_and_what_is_gone_waits_for_nothing() {
    let mut state = State::default();
    state.observe_files(scan(old()), at(500));
    assert_eq!(state.expire(at(501)), []);
    assert_eq!(state.next_end(), None);
    let mut state = State::default();
    state.observe_files(scan(old()), at(110));
    state.observe_files(Scan::default(), at(120));
    assert_eq!((state.next_end(), state.expire(at(500))), (None, Vec::new()));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut state = State::default();
    for number in 0..2_000 {
        let file = OnDisk { purpose: Purpose::Other, certificate: Arc::new(old()) };
        let files = BTreeMap::from([(format!("/{number}.crt"), file)]);
        state.observe_files(Scan { files, ..Scan::default() }, at(110));
        assert!(state.remembered() <= 513);
    }
}

fn page(known: &Known) -> String {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, Format::Text004);
    Certificates::new(known.clone()).collect(&mut sink).unwrap();
    sink.finish();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_page_has_each_location_and_what_was_compared() {
    let known = Known::default();
    known.lock().observe_files(scan(new()), at(160));
    let mut all = served(old());
    all.push(Served { address: "[2001:db8::1]:10257".parse().unwrap(), certificate: Arc::new(old()) });
    known.lock().observe_served(all, at(160));
    let page = page(&known);
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let name = "leadline_certificate_not_after_timestamp_seconds";
    assert_eq!(
        samples,
        [
            &format!("{name}{{purpose=\"etcd_server\",location=\"{PATH}\"}} 300"),
            &format!("{name}{{purpose=\"etcd_server\",location=\"{ADDRESS}\"}} 200"),
            &format!("{name}{{purpose=\"controller_manager_server\",location=\"[2001:db8::1]:10257\"}} 200"),
            &format!(
                "{}{{purpose=\"etcd_server\",location=\"{PATH}\"}} 150",
                name.replace("after", "before")
            ),
            &format!(
                "{}{{purpose=\"etcd_server\",location=\"{ADDRESS}\"}} 100",
                name.replace("after", "before")
            ),
            &format!(
                "{}{{purpose=\"controller_manager_server\",location=\"[2001:db8::1]:10257\"}} 100",
                name.replace("after", "before")
            ),
            &format!("leadline_certificate_served_stale{{purpose=\"etcd_server\",location=\"{ADDRESS}\"}} 1"),
            &"leadline_certificate_omitted 0".to_owned(),
        ]
    );
}

#[test]
fn how_far_it_can_work_is_said() {
    let known = Known::default();
    let collector = Certificates::new(known.clone());
    assert_eq!(collector.support(), Support::No(NOT_LOOKED));
    known.lock().observe_served(Vec::new(), at(1));
    assert_eq!((collector.support(), page(&known)), (Support::No(NONE), String::new()));
    known.lock().observe_files(scan(old()), at(1));
    assert_eq!(collector.support(), Support::Yes);
    let fault = || FileFault { path: "/x".into(), fault: Fault::Empty };
    known.lock().observe_files(Scan { faults: vec![fault()], ..scan(old()) }, at(1));
    assert_eq!(collector.support(), Support::Degraded(UNREADABLE));
    known.lock().observe_files(Scan { omitted: 7, faults: vec![fault()], ..scan(old()) }, at(1));
    assert_eq!(collector.support(), Support::Degraded(OMITTED));
    assert!(page(&known).ends_with("leadline_certificate_omitted 7\n"));
}
