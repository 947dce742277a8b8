//! The key that the agents of a cluster share for their probes, from its file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::wire::stamp::Key;

/// Bytes of a file at most.
const LONGEST: u64 = 1_024;
/// Bytes of a key at least: as many as its codes have.
const LEAST: usize = 16;
/// The rights of everybody.
const EVERYBODY: u32 = 0o007;

/// A file that gives no key.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {fault}", path.display())]
pub struct KeyError {
    path: PathBuf,
    fault: KeyFault,
}

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The system refuses.
    #[error("cannot be read ({0}): `openssl rand -hex 32` makes a key; the file must be root's")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a pipe or a device.
    #[error("is no regular file: name the file itself")]
    NotAFile,
    /// The key is no secret.
    #[error(
        "is open to everybody (mode {0:04o}): `chmod o=` it, or mount its Secret with `defaultMode: 0400`"
    )]
    Open(u32),
    /// It is much more than a key.
    #[error("is longer than {LONGEST} bytes: it must have the key in hex and nothing else")]
    TooLong,
    /// It has something else.
    #[error("has no pairs of hex digits: `openssl rand -hex 32` makes a key")]
    NotHex,
    /// The key could be guessed.
    #[error("has a key of {0} bytes, which must be {LEAST} at least: `openssl rand -hex 32` makes one of 32")]
    TooShort(usize),
}

impl KeyError {
    /// The same in few words, without the file.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self.fault {
            KeyFault::Unreadable(_) | KeyFault::NotAFile => "the key file of the probes cannot be read",
            KeyFault::Open(_) => "the key file of the probes is open to everybody",
            KeyFault::TooLong | KeyFault::NotHex | KeyFault::TooShort(_) => {
                "the key file of the probes has no key in hex, of 16 bytes at least"
            }
        }
    }
}

/// The key in a file.
///
/// # Errors
/// When it cannot be read, is open to everybody, or has no key.
pub fn read_key(path: &Path) -> Result<Key, KeyError> {
    let key = read(path).and_then(|text| decode(&text));
    key.map(|bytes| Key::new(&bytes)).map_err(|fault| KeyError { path: path.to_owned(), fault })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    // Opening a pipe would wait for somebody to write to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(KeyFault::NotAFile);
    }
    if found.mode() & EVERYBODY != 0 {
        return Err(KeyFault::Open(found.mode() & 0o7777));
    }
    // With room for more than is read: a buffer that grew would leave a copy behind that is not wiped.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * 1_024));
    file.take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(KeyFault::TooLong);
    }
    Ok(text)
}

/// The bytes that a text has in hex, whatever white space is around it.
fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let (pairs, rest) = text.trim_ascii().as_chunks::<2>();
    let mut key = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        key.push(digit(*high)? << 4 | digit(*low)?);
    }
    match key.len() {
        _ if !rest.is_empty() || pairs.is_empty() => Err(KeyFault::NotHex),
        0..LEAST => Err(KeyFault::TooShort(key.len())),
        _ => Ok(key),
    }
}

fn digit(letter: u8) -> Result<u8, KeyFault> {
    match letter {
        b'0'..=b'9' => Ok(letter - b'0'),
        b'a'..=b'f' => Ok(letter - b'a' + 10),
        b'A'..=b'F' => Ok(letter - b'A' + 10),
        _ => Err(KeyFault::NotHex),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0F";

    /// What a file of that mode says; the error without the name of the file.
    fn told(name: &str, text: &str, mode: u32) -> Result<(), (String, &'static str)> {
        let path = std::env::temp_dir().join(format!("leadline-key-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let key = read_key(&path);
        fs::remove_file(&path).unwrap();
        key.map(drop).map_err(|error| {
            let whole = error.to_string();
            let rest = whole.strip_prefix(&format!("key file {}: ", path.display()));
            (rest.expect("the error names the file").to_owned(), error.reason())
        })
    }

    #[test]
    fn a_key_is_hex_with_white_space_around() {
        let bytes: Vec<u8> = (0..16).collect();
        for text in [TEXT.to_owned(), format!("\n {TEXT}\r\n"), TEXT.to_uppercase()] {
            assert_eq!(*decode(text.as_bytes()).unwrap(), bytes, "{text:?}");
        }
        assert_eq!(told("right", TEXT, 0o440), Ok(()));
    }

    #[test]
    fn what_is_no_key_is_named_with_what_helps() {
        for (text, problem) in [
            (String::new(), "has no pairs of hex digits"),
            (TEXT.replace("00", "0x"), "has no pairs of hex digits"),
            (format!("{TEXT}0"), "has no pairs of hex digits"),
            (TEXT.replace("0405", "04 05"), "has no pairs of hex digits"),
            (TEXT[2..].to_owned(), "has a key of 15 bytes, which must be 16 at least"),
            ("0".repeat(1_026), "is longer than 1024 bytes"),
        ] {
            let (whole, reason) = told("wrong", &text, 0o400).unwrap_err();
            assert!(whole.starts_with(problem) && whole.contains(": "), "{whole}");
            assert!(text.is_empty() || !whole.contains(&text), "the key is in {whole}");
            assert_eq!(reason, "the key file of the probes has no key in hex, of 16 bytes at least");
        }
    }

    #[test]
    fn a_key_that_everybody_has_is_none() {
        for mode in [0o604, 0o602, 0o601, 0o644] {
            let (whole, reason) = told("open", TEXT, mode).unwrap_err();
            assert!(whole.contains(&format!("(mode {mode:04o}): `chmod o=` it")), "{whole}");
            assert_eq!(reason, "the key file of the probes is open to everybody");
        }
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        for (path, problem) in
            [("/nonexistent/key", "cannot be read (No such file"), ("/dev", "is no regular")]
        {
            let error = read_key(Path::new(path)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("key file {path}: {problem}")), "{error}");
            assert_eq!(error.reason(), "the key file of the probes cannot be read");
        }
    }
}
