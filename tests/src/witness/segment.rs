//! Segments and round trips of the connections of one port in what tcpdump captured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::tcpdump::Frame;

const ETHERNET: usize = 14;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Which end of the connections a capture is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end that connects to the port.
    Client,
    /// The end that has it.
    Server,
}

/// A segment of a connection of the port.
struct Segment {
    time: Duration,
    sent: bool,
    /// The other port of the connection.
    connection: u16,
    flags: u8,
    /// Sequence number behind the segment.
    end: u32,
    acknowledged: u32,
    length: u32,
}

impl Segment {
    fn read(frame: &Frame, port: u16, end: End) -> Option<Self> {
        let packet = frame.bytes.get(ETHERNET..)?;
        let (header, length) = match packet.first()? >> 4 {
            4 => (
                usize::from(packet[0] & 15) * 4,
                usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?])),
            ),
            6 => (40, 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]))),
            _ => return None,
        };
        let tcp = packet.get(header..)?;
        let short = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let long = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let (source, destination) = (short(0)?, short(2)?);
        let from_client = destination == port;
        let flags = *tcp.get(13)?;
        let length = u32::try_from(length - header - usize::from(tcp.get(12)? >> 4) * 4).ok()?;
        let whole = length + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        Some(Self {
            time: frame.time,
            sent: from_client == (end == End::Client),
            connection: if from_client { source } else { destination },
            flags,
            end: long(4)?.wrapping_add(whole),
            acknowledged: long(8)?,
            length: whole,
        })
    }

    fn is_syn_ack(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }
}

fn segments(frames: &[Frame], port: u16, end: End) -> Result<Vec<Segment>> {
    let read =
        frames.iter().map(|frame| Segment::read(frame, port, end).context("a frame that is no segment"));
    read.collect()
}

/// Segments that this end sent, but for those that answer a SYN.
pub fn sent(frames: &[Frame], port: u16, end: End) -> Result<u64> {
    let segments = segments(frames, port, end)?;
    let count = segments.iter().filter(|segment| segment.sent && !segment.is_syn_ack()).count();
    Ok(u64::try_from(count)?)
}

/// Segments that were sent again, by their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// As large as a segment may be.
    pub full: u64,
    /// All others.
    pub smaller: u64,
}

/// What this end sent again, where a full segment has so many bytes: all that does not go beyond what was sent before. A
/// frame may hold several segments.
pub fn again(frames: &[Frame], port: u16, end: End, full_size: u32) -> Result<Again> {
    let mut reached: BTreeMap<u16, u32> = BTreeMap::new();
    let mut again = Again::default();
    for segment in segments(frames, port, end)?.iter().filter(|segment| segment.sent && segment.length > 0) {
        let reached = reached.entry(segment.connection).or_insert(segment.end.wrapping_sub(segment.length));
        // Half of all numbers are before another one.
        if segment.end.wrapping_sub(*reached).wrapping_sub(1) < u32::MAX / 2 {
            *reached = segment.end;
            continue;
        }
        let flags = [SYN, FIN].into_iter().filter(|flag| segment.flags & flag != 0).count();
        let payload = segment.length - u32::try_from(flags)?;
        let count = payload.div_ceil(full_size).max(1);
        // Options take up to 40 bytes of a segment that is full all the same.
        let smaller = u32::from(payload + 40 * count < full_size * count);
        again.full += u64::from(count - smaller);
        again.smaller += u64::from(smaller);
    }
    Ok(again)
}

/// What became of the segments that this end sent and that take a sequence number.
#[derive(Debug, Default)]
pub struct Answered {
    /// Times from a segment to the acknowledgement of exactly it. A segment that was sent twice tells none.
    pub round_trips: Vec<Duration>,
    /// Segments that are not acknowledged.
    pub unanswered: usize,
}

/// What became of what this end sent.
pub fn answered(frames: &[Frame], port: u16, end: End) -> Result<Answered> {
    Ok(follow(segments(frames, port, end)?))
}

/// Round trips of handshakes: at the client from a SYN to its answer, at the server from the answer to what acknowledges
/// it. One that was sent twice tells none.
pub fn handshakes(frames: &[Frame], port: u16, end: End) -> Result<Vec<Duration>> {
    let mut segments = segments(frames, port, end)?;
    segments.retain(|segment| !segment.sent || segment.flags & SYN != 0);
    Ok(follow(segments).round_trips)
}

fn follow(segments: Vec<Segment>) -> Answered {
    // By connection and last sequence number: when it was sent, none where it was sent twice.
    let mut waiting: BTreeMap<(u16, u32), Option<Duration>> = BTreeMap::new();
    let mut round_trips = Vec::new();
    for segment in segments {
        if segment.sent {
            if segment.length > 0 {
                let place = (segment.connection, segment.end);
                let is_first = !waiting.contains_key(&place);
                waiting.insert(place, is_first.then_some(segment.time));
            }
        } else if segment.flags & ACK != 0 {
            let exact = waiting.get(&(segment.connection, segment.acknowledged)).copied().flatten();
            round_trips.extend(exact.and_then(|sent| segment.time.checked_sub(sent)));
            // Half of all numbers are before another one.
            let is_behind = |end: u32| segment.acknowledged.wrapping_sub(end) > u32::MAX / 2;
            waiting.retain(|(connection, end), _| *connection != segment.connection || is_behind(*end));
        }
    }
    Answered { round_trips, unanswered: waiting.len() }
}
