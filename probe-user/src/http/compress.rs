//! Compression of pages. Level 1 of both: for metrics, higher levels cost ten times the time and save a third.

use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};

use super::negotiate::Encoding;

/// Encodes a body.
///
/// # Errors
/// When the encoder fails; writing to memory gives it no reason to.
pub(super) fn compress(body: Vec<u8>, encoding: Encoding) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Zstd => zstd::encode_all(body.as_slice(), 1),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body)?;
            encoder.finish()
        }
    }
}
