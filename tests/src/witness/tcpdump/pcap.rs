//! The classic pcap file format, in either byte order and with either resolution of time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

const HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
/// Packets of a TUN device, which begin with the header of IP.
const RAW: u32 = 101;

/// A frame as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel saw it: real time since the epoch.
    pub time: Duration,
    /// Its first bytes from the Ethernet header on, where the device has one, without the frame check sequence.
    pub bytes: Vec<u8>,
    /// Its length; more than there are bytes if it was cut.
    pub original_len: u32,
}

/// The frames of a file, and how many bytes at its end are no whole record: those of one that is being written.
pub(super) fn read(file: &[u8]) -> Result<(Vec<Frame>, usize)> {
    if file.len() < HEADER {
        return Ok((Vec::new(), file.len()));
    }
    let layout = Layout::of(file)?;
    let mut frames = Vec::new();
    let mut rest = &file[HEADER..];
    while let Some((frame, length)) = layout.record(rest)? {
        frames.push(frame);
        rest = &rest[length..];
    }
    Ok((frames, rest.len()))
}

/// How the numbers of a file are written, and what a fraction of a second is counted in.
struct Layout {
    big_endian: bool,
    nanoseconds_per_tick: u32,
}

impl Layout {
    fn of(file: &[u8]) -> Result<Self> {
        let magic = |big_endian| Self { big_endian, nanoseconds_per_tick: 1 }.word(file, 0);
        let (little, big) = (magic(false), magic(true));
        let layout = match (little, big) {
            (Some(NANOSECONDS), _) => Self { big_endian: false, nanoseconds_per_tick: 1 },
            (Some(MICROSECONDS), _) => Self { big_endian: false, nanoseconds_per_tick: 1_000 },
            (_, Some(NANOSECONDS)) => Self { big_endian: true, nanoseconds_per_tick: 1 },
            (_, Some(MICROSECONDS)) => Self { big_endian: true, nanoseconds_per_tick: 1_000 },
            _ => bail!("no pcap file: it begins with {:02x?}", &file[..4]),
        };
        let link = layout.word(file, 20).context("the header is cut")?;
        let is_known = [ETHERNET, RAW].contains(&link);
        ensure!(is_known, "frames of link type {link}, neither of Ethernet ({ETHERNET}) nor of IP ({RAW})");
        Ok(layout)
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    /// The first record and its length in the file; none if it is not all there.
    fn record(&self, bytes: &[u8]) -> Result<Option<(Frame, usize)>> {
        let header = [0, 4, 8, 12].map(|at| self.word(bytes, at));
        let [Some(seconds), Some(ticks), Some(length), Some(original_len)] = header else { return Ok(None) };
        let nanoseconds = ticks.checked_mul(self.nanoseconds_per_tick).filter(|ns| *ns < 1_000_000_000);
        let nanoseconds = nanoseconds.with_context(|| format!("a frame has {ticks} ticks in a second"))?;
        let end = RECORD_HEADER + usize::try_from(length).context("length of a frame")?;
        let frame = bytes.get(RECORD_HEADER..end).map(|bytes| Frame {
            time: Duration::new(u64::from(seconds), nanoseconds),
            bytes: bytes.to_vec(),
            original_len,
        });
        Ok(frame.map(|frame| (frame, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one frame of three bytes, cut from nine, at second 5 and tick 7.
    fn file(magic: u32, to_bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let words = [magic, 0x0002_0004, 0, 0, 512, 1, 5, 7, 3, 9];
        words.into_iter().flat_map(to_bytes).chain([1, 2, 3]).collect()
    }

    fn frame(nanoseconds: u32) -> Frame {
        Frame { time: Duration::new(5, nanoseconds), bytes: vec![1, 2, 3], original_len: 9 }
    }

    #[test]
    fn both_byte_orders_are_read() {
        for to_bytes in [u32::to_le_bytes, u32::to_be_bytes] {
            assert_eq!(read(&file(NANOSECONDS, to_bytes)).unwrap(), (vec![frame(7)], 0));
        }
    }

    #[test]
    fn both_resolutions_are_read() {
        for to_bytes in [u32::to_le_bytes, u32::to_be_bytes] {
            assert_eq!(read(&file(MICROSECONDS, to_bytes)).unwrap(), (vec![frame(7_000)], 0));
        }
    }

    #[test]
    fn a_record_that_is_being_written_is_left_out() {
        let whole = file(NANOSECONDS, u32::to_le_bytes);
        for (length, rest) in [(42, 18), (39, 15), (24, 0), (23, 23), (0, 0)] {
            assert_eq!(read(&whole[..length]).unwrap(), (vec![], rest));
        }
    }

    #[test]
    fn another_file_is_refused() {
        let error = read(&[7; 30]).unwrap_err().to_string();
        assert_eq!(error, "no pcap file: it begins with [07, 07, 07, 07]");
    }

    #[test]
    fn another_link_type_is_refused() {
        let mut other = file(NANOSECONDS, u32::to_le_bytes);
        other[20] = 113;
        assert!(read(&other).unwrap_err().to_string().contains("link type 113"));
    }

    #[test]
    fn an_impossible_time_is_refused() {
        let mut other = file(MICROSECONDS, u32::to_le_bytes);
        other[28..32].copy_from_slice(&1_000_000_u32.to_le_bytes());
        assert!(read(&other).unwrap_err().to_string().contains("1000000 ticks"));
    }
}
