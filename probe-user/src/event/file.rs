//! The events on disk: a file that survives a restart of the agent and a crash of the node.
//!
//! One event is one line of JSON, the same as in the answer of the API. A line is only ever appended; a file that is
//! full becomes `FILE.1` in place of the one before. What stands in the files is read once, by [`EventFile::open`];
//! from then on [`keep`](EventFile::keep) follows the timeline, so that whoever records never waits for a disk.

mod earlier;
mod keep;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{Event, timeline::Earlier};

pub use keep::FileMetrics;

/// A file that would grow beyond this is rotated; with the one before, that is 16 MiB of disk.
const MAX_BYTES: u64 = 8 << 20;

/// For the agent, and for a group that the administrator may give the file to.
const MODE: u32 = 0o640;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be opened, created or read.
    #[error("event file {}: cannot be opened: {}", path.display(), advice(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("event file {}: is no regular file: give events.file another path", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("event file {}: another agent writes it: end that one, or give events.file another path", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
}

/// What to do about a file that cannot be opened.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => "create its directory, or give events.file another path",
        Some(Errno::EACCES | Errno::EPERM) => {
            "the agent is root without capabilities: let root own the directory and the file"
        }
        Some(Errno::ELOOP) => "it is a symbolic link: give events.file the path that it leads to",
        Some(Errno::EISDIR) => "it is a directory: give events.file the path of a file",
        Some(Errno::EROFS) => "give events.file a path on a file system that can be written",
        Some(Errno::ENOSPC | Errno::EDQUOT) => "make room, or give events.file another path",
        _ => "give events.file a path that can be written",
    }
}

/// A file that was opened, and what stood in it.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: EventFile,
    /// What the timeline goes on after.
    pub earlier: Earlier,
    /// Lines that were no events: cut by a crash, of a newer version, or not ours.
    pub unreadable: u64,
}

/// An open file and what is still to be written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    max_bytes: u64,
    file: File,
    /// Bytes that are not in the file yet.
    pending: Vec<u8>,
    /// Whether what came before the pending bytes is in the file, so that they must follow it there.
    is_begun: bool,
}

impl EventFile {
    /// Opens a file, or creates it, and reads the newest `capacity` events.
    ///
    /// # Errors
    /// When it cannot be opened, is no regular file, or belongs to another agent.
    pub fn open(path: &Path, capacity: usize) -> Result<Opened, FileError> {
        Self::open_bounded(path, capacity, MAX_BYTES)
    }

    fn open_bounded(path: &Path, capacity: usize, max_bytes: u64) -> Result<Opened, FileError> {
        let failed = |source| FileError::Open { path: path.to_owned(), source };
        let file = open_for_append(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(FileError::Kind { path: path.to_owned() });
        }
        // Where a file system has no locks, two agents are the administrator's to prevent.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(FileError::Taken { path: path.to_owned() });
        }
        let mut past = earlier::Past::new(capacity, max_bytes);
        // Without the older file there is less to look back at, which is no reason not to observe.
        match open_for_reading(&rotated(path)).and_then(|older| past.read(&older)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %rotated(path).display(), %error, "older events could not be read");
            }
            _ => {}
        }
        past.read(&file).map_err(failed)?;
        let mut opened =
            Self { path: path.to_owned(), max_bytes, file, pending: Vec::new(), is_begun: false };
        opened.end_cut_line().map_err(failed)?;
        sync_directory(path);
        let (earlier, unreadable) = past.into_parts();
        Ok(Opened { file: opened, earlier, unreadable })
    }

    /// Appends events and waits until they are on the disk. After an error they are kept, for [`flush`](Self::flush).
    fn append(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            serde_json::to_writer(&mut self.pending, event)?;
            self.pending.push(b'\n');
        }
        self.flush()
    }

    /// Writes what is pending, going on where the last attempt ended.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_begun {
            self.make_room()?;
        }
        drain(&mut self.pending, &mut self.is_begun, &mut &self.file)?;
        self.is_begun = false;
        self.file.sync_data()
    }

    /// Sees to it that the path leads to our file, and that the file has room.
    fn make_room(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        if !self.is_in_place(&ours)? {
            // Somebody took it away, or an earlier attempt to rotate ended half way.
            return self.begin_file();
        }
        if ours.len() > 0 && ours.len() + self.pending.len() as u64 > self.max_bytes {
            fs::rename(&self.path, rotated(&self.path))?;
            self.begin_file()?;
        }
        Ok(())
    }

    fn is_in_place(&self, ours: &fs::Metadata) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn begin_file(&mut self) -> io::Result<()> {
        let file = open_for_append(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("what is there now is no regular file"));
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another agent writes it")),
            Ok(()) | Err(TryLockError::Error(_)) => self.file = file,
        }
        sync_directory(&self.path);
        // What ended a line of the file before has none to end here.
        if self.pending.first() == Some(&b'\n') {
            self.pending.remove(0);
        }
        self.end_cut_line()
    }

    /// Lets the next event begin on a line of its own. What is there is never taken away: it may not be ours.
    fn end_cut_line(&mut self) -> io::Result<()> {
        let mut file = &self.file;
        if file.metadata()?.len() > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                self.pending.insert(0, b'\n');
            }
        }
        Ok(())
    }
}

/// Writes as much as can be written, and takes that away.
fn drain(pending: &mut Vec<u8>, is_begun: &mut bool, out: &mut impl Write) -> io::Result<()> {
    while !pending.is_empty() {
        match out.write(pending) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                pending.drain(..written);
                *is_begun = true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The name of the older file.
fn rotated(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    PathBuf::from(name)
}

/// The standard library adds `O_CLOEXEC`.
fn open_for_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(MODE).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// `O_NONBLOCK` so that a pipe of that name does not hold up the start.
fn open_for_reading(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Makes a name that was created or changed survive a crash. Some file systems cannot, and a directory may be closed to
/// readers: the events are in the file all the same.
fn sync_directory(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = File::open(parent).and_then(|directory| directory.sync_all()) {
        tracing::debug!(path = %parent.display(), %error, "directory of the event file could not be synchronised");
    }
}

#[cfg(test)]
mod tests;
