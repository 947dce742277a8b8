//! The archive that a kernel unpacks into its first file system: cpio with new ASCII headers.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that is being written. Everything in it belongs to root.
pub(super) struct Archive<W> {
    output: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, entries: 0 }
    }

    /// Adds a directory; those above it must be there.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds an executable file.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, content)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.output.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::other(format!("{path} is too large for an archive"));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name = u32::try_from(path.len() + 1).map_err(too_large)?;
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        write!(self.output, "070701")?;
        for field in fields {
            write!(self.output, "{field:08x}")?;
        }
        self.padded(path.as_bytes(), 6 + 8 * fields.len(), 1)?;
        self.padded(content, 0, 0)
    }

    /// Writes bytes and zeros after them: at least `least`, and up to a multiple of four counted with what is before.
    fn padded(&mut self, bytes: &[u8], before: usize, least: usize) -> io::Result<()> {
        self.output.write_all(bytes)?;
        let length = before + bytes.len() + least;
        let zeros = least + length.next_multiple_of(4) - length;
        self.output.write_all(&[0; 5][..zeros])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_begin_at_multiples_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory("bin").unwrap();
        archive.file("bin/sh", b"12345").unwrap();
        archive.finish().unwrap();
        assert_eq!(&bytes[110..116], b"bin\0\0\0", "the directory's name, and zeros up to byte 116");
        let file = &bytes[116..];
        assert_eq!((&file[..6], &file[54..62]), (&b"070701"[..], &b"00000005"[..]));
        assert_eq!(&file[110..128], b"bin/sh\0\0\0\x0012345\0\0\0");
        assert!(bytes[116 + 128..].starts_with(b"070701"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
