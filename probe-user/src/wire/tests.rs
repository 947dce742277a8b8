//! What real frames say, and what no frame may do. The corpus holds one frame a file: keepalived 2.2.7, iputils arping
//! and the kernel, caught between two network namespaces.

use std::{fs, path::PathBuf};

use super::{property, *};
use crate::wire::vrrp::Advertisement;

/// Seed and number of the mutated frames; with libFuzzer there are more (`cargo xtask fuzz`).
const SEED: u64 = 0x1e4d_11e5;
const MUTATIONS: usize = 100_000;

/// Bytes from hexadecimal digits; spaces are for the reader.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// What is seen in a whole Ethernet frame.
pub(super) fn seen(frame: &[u8]) -> Observation {
    observe(&Capture::ethernet(frame)).unwrap().expect("one of ours")
}

/// Why a whole Ethernet frame is refused.
pub(super) fn fault(frame: &[u8]) -> (&'static str, &'static str) {
    let malformed = observe(&Capture::ethernet(frame)).unwrap_err();
    (malformed.protocol.as_str(), malformed.reason.as_str())
}

/// A frame of the corpus.
pub(super) fn corpus(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/corpus")
}

fn all() -> Vec<(String, Vec<u8>)> {
    let mut frames: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (name.clone(), corpus(&name)))
        .collect();
    frames.sort();
    frames
}

#[test]
fn every_frame_of_the_corpus_is_what_its_name_says() {
    let frames = all();
    assert!(frames.len() >= 30, "{}", frames.len());
    for (name, frame) in frames {
        let observation =
            observe(&Capture::ethernet(&frame)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let kind = match observation.map(|observation| observation.message) {
            None => "other",
            Some(Message::Arp(_)) => "arp",
            Some(Message::NeighbourAdvertisement(_)) => "na",
            Some(Message::Vrrp(_)) => "vrrp",
        };
        assert_eq!(name.split('-').next(), Some(kind), "{name}");
    }
}

#[test]
fn a_truncated_frame_is_never_taken_for_a_whole_one() {
    for (name, frame) in all() {
        for end in 0..frame.len() {
            let seen = observe(&Capture::ethernet(&frame[..end]));
            assert!(!matches!(seen, Ok(Some(_))), "{name}, {end} bytes: {seen:?}");
        }
    }
}

#[test]
fn padding_behind_a_frame_changes_nothing() {
    for (name, frame) in all() {
        let padded = [frame.clone(), vec![0x5a; 64]].concat();
        assert_eq!(observe(&Capture::ethernet(&padded)), observe(&Capture::ethernet(&frame)), "{name}");
    }
}

#[test]
fn no_flipped_bit_of_a_real_advertisement_is_accepted() {
    for (name, frame) in all() {
        let Ok(Some(Observation { message: Message::Vrrp(advertisement), .. })) =
            observe(&Capture::ethernet(&frame))
        else {
            continue;
        };
        let Advertisement { version, source, address_count, .. } = advertisement;
        let length = vrrp::length(version, source, address_count);
        for bit in 0..length * 8 {
            let seen = observe(&Capture::ethernet(&property::flip(&frame, length, bit)));
            assert!(seen.is_err(), "{name}, bit {bit}: {seen:?}");
        }
    }
}

#[test]
fn the_password_of_a_real_advertisement_is_nowhere_to_be_seen() {
    let frame = corpus("vrrp-v2-pass");
    let password = &frame[frame.len() - 8..];
    assert_eq!(password, b"wirepass");
    let mut damaged = frame.clone();
    damaged[17] ^= 1;
    let capture = Capture::ethernet(&frame);
    let shown = format!("{:?} {capture:?} {:?}", observe(&capture), observe(&Capture::ethernet(&damaged)));
    assert!(shown.contains("SimplePassword") && shown.contains("BadIpChecksum"), "{shown}");
    assert!(!shown.contains("wirepass"), "{shown}");
    assert!(!shown.contains("119, 105, 114, 101") && !shown.contains("77697265"), "{shown}");
}

#[test]
fn mutated_frames_panic_nowhere_and_keep_the_rules() {
    let frames = all();
    let mut random = Random(SEED);
    for _ in 0..MUTATIONS {
        let (_, frame) = &frames[random.below(frames.len())];
        let (_, other) = &frames[random.below(frames.len())];
        property::frame(&mutate(&mut random, frame, other));
    }
}

#[test]
fn messages_survive_being_encoded_and_read() {
    let mut random = Random(SEED);
    for _ in 0..5_000 {
        let bytes: Vec<u8> = (0..random.below(160)).map(|_| random.byte()).collect();
        property::arp(&bytes);
        property::ndp(&bytes);
        property::vrrp(&bytes);
        property::stamp(&bytes);
    }
}

#[test]
fn an_error_names_who_sent_the_frame() {
    let mut frame = corpus("vrrp-v2-none");
    frame[40] ^= 1;
    let error = observe(&Capture::ethernet(&frame)).unwrap_err();
    assert_eq!(error.to_string(), "malformed vrrp frame: bad_checksum, vrid 51, from 192.168.56.11");
    assert_eq!(error.link.source, Some(MacAddress([2, 0, 0, 0, 0x56, 0x11])));
}

#[test]
fn labels_are_distinct_and_plain() {
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let protocols: Vec<&str> = Protocol::ALL.iter().map(|protocol| protocol.as_str()).collect();
    for mut labels in [reasons, protocols] {
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), count);
        assert!(labels.iter().all(|label| label.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }
}

/// Between one and four changes of the kinds that find faults in parsers.
fn mutate(random: &mut Random, frame: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, other.iter().copied().take(random.below(64))).for_each(drop),
            2 => bytes.extend((0..random.below(64)).map(|_| random.byte())),
            kind => {
                let value = random.byte();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match kind {
                        3 => *byte ^ 1 << (value % 8),
                        4 => [0, 1, 0x7f, 0x80, 0xff][usize::from(value % 5)],
                        _ => value,
                    };
                }
            }
        }
    }
    bytes
}

/// Xorshift: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap() % end
    }
}
