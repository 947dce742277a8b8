//! Compression of pages. Level 1 of both: for metrics, higher levels cost ten times the time and save a third.

use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;

use super::negotiate::Encoding;

/// 128 KiB: lines of a page resemble their neighbours, and a larger window only costs memory.
const WINDOW_LOG: u32 = 17;

/// Encodes a body.
///
/// # Errors
/// When the encoder fails; writing to memory gives it no reason to.
pub(super) fn compress(body: impl AsRef<[u8]> + Send + 'static, encoding: Encoding) -> io::Result<Bytes> {
    match encoding {
        Encoding::Identity => Ok(Bytes::from_owner(body)),
        Encoding::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
            encoder.window_log(WINDOW_LOG)?;
            encoder.write_all(body.as_ref())?;
            encoder.finish().map(Bytes::from)
        }
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body.as_ref())?;
            encoder.finish().map(Bytes::from)
        }
    }
}
