//! The file on a real file system: what is appended is read back, whatever happened in between.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prometheus::IntCounter;
use tokio::sync::watch;

use super::*;
use crate::event::{Details, Kind, Occurrence, Timeline, Timestamp};

/// A directory of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("leadline-events-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn event(sequence: u64) -> Event {
    Event {
        sequence,
        time: Timestamp::from_unix_nanos(1_700_000_000_000_000_000 + sequence),
        kind: Kind::VipMoved,
        subject: "192.0.2.7".to_owned(),
        details: Details::from([("to".into(), "a \"quoted\"\nname".to_owned())]),
    }
}

fn open(path: &Path, max_bytes: u64) -> Opened {
    EventFile::open_bounded(path, 100, max_bytes).unwrap()
}

fn numbers(opened: &Opened) -> Vec<u64> {
    opened.earlier.events.iter().map(|event| event.sequence).collect()
}

#[test]
fn what_is_appended_is_read_back() {
    let scratch = Scratch::new();
    let mut first = open(&scratch.file(), MAX_BYTES);
    assert_eq!((numbers(&first), first.earlier.last, first.unreadable), (vec![], 0, 0));
    first.file.append(&[event(1), event(2)]).unwrap();
    first.file.append(&[event(3)]).unwrap();
    drop(first);
    let second = open(&scratch.file(), MAX_BYTES);
    assert_eq!(Vec::from(second.earlier.events), [event(1), event(2), event(3)]);
    assert_eq!((second.earlier.last, second.unreadable), (3, 0));
    let mode = fs::metadata(scratch.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777 & !MODE, 0, "{mode:o}");
}

#[test]
fn a_full_file_becomes_the_older_one() {
    let scratch = Scratch::new();
    let line = serde_json::to_vec(&event(1)).unwrap().len() as u64 + 1;
    let mut opened = open(&scratch.file(), 3 * line);
    for sequence in 1..=8 {
        opened.file.append(&[event(sequence)]).unwrap();
    }
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&rotated(&scratch.file())), lines(&scratch.file())), (3, 2));
    drop(opened);
    let mut opened = open(&scratch.file(), 3 * line);
    assert_eq!((numbers(&opened), opened.unreadable), (vec![4, 5, 6, 7, 8], 0));
    // A batch stays in one file, even one that is too large for any.
    opened.file.append(&[9, 10, 11, 12].map(event)).unwrap();
    assert_eq!((lines(&rotated(&scratch.file())), lines(&scratch.file())), (2, 4));
}

#[test]
fn a_cut_line_is_ended_and_its_number_not_given_out_again() {
    let scratch = Scratch::new();
    let mut opened = open(&scratch.file(), MAX_BYTES);
    opened.file.append(&[event(1), event(2)]).unwrap();
    let text = fs::read(scratch.file()).unwrap();
    fs::write(scratch.file(), &text[..text.len() - 20]).unwrap();
    drop(opened);
    let mut opened = open(&scratch.file(), MAX_BYTES);
    assert_eq!((numbers(&opened), opened.earlier.last, opened.unreadable), (vec![1], 2, 1));
    opened.file.append(&[event(3)]).unwrap();
    drop(opened);
    let opened = open(&scratch.file(), MAX_BYTES);
    assert_eq!((numbers(&opened), opened.earlier.last, opened.unreadable), (vec![1, 3], 3, 1));
}

#[test]
fn a_line_that_lacks_only_its_end_is_whole() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), serde_json::to_vec(&event(1)).unwrap()).unwrap();
    let mut opened = open(&scratch.file(), MAX_BYTES);
    assert_eq!((numbers(&opened), opened.unreadable), (vec![1], 0));
    opened.file.append(&[event(2)]).unwrap();
    drop(opened);
    assert_eq!(numbers(&open(&scratch.file(), MAX_BYTES)), [1, 2]);
}

#[test]
fn of_a_file_that_is_too_long_the_end_is_read() {
    let scratch = Scratch::new();
    open(&scratch.file(), MAX_BYTES).file.append(&(1..=50).map(event).collect::<Vec<_>>()).unwrap();
    let line = serde_json::to_vec(&event(10)).unwrap().len() as u64 + 1;
    let opened = open(&scratch.file(), 3 * line + 5);
    assert_eq!((numbers(&opened), opened.unreadable), (vec![48, 49, 50], 0));
}

#[test]
fn a_file_that_was_taken_away_is_begun_again() {
    let scratch = Scratch::new();
    let mut opened = open(&scratch.file(), MAX_BYTES);
    opened.file.append(&[event(1)]).unwrap();
    fs::rename(scratch.file(), scratch.0.join("kept")).unwrap();
    opened.file.append(&[event(2)]).unwrap();
    drop(opened);
    assert_eq!(numbers(&open(&scratch.file(), MAX_BYTES)), [2]);
    assert_eq!(numbers(&open(&scratch.0.join("kept"), MAX_BYTES)), [1]);
}

#[test]
fn a_rotation_that_fails_is_made_up_for() {
    let scratch = Scratch::new();
    let mut opened = open(&scratch.file(), 10);
    opened.file.append(&[event(1)]).unwrap();
    let obstacle = rotated(&scratch.file());
    fs::create_dir(&obstacle).unwrap();
    assert!(opened.file.append(&[event(2)]).is_err());
    assert!(opened.file.flush().is_err());
    fs::remove_dir(&obstacle).unwrap();
    opened.file.flush().unwrap();
    drop(opened);
    assert_eq!(numbers(&open(&scratch.file(), MAX_BYTES)), [1, 2]);
}

/// A disk that takes so many bytes.
struct Disk {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room);
        if fits == 0 {
            return Err(Errno::ENOSPC.into());
        }
        self.taken.extend_from_slice(&bytes[..fits]);
        self.room -= fits;
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_cuts_a_line_and_the_rest_follows_later() {
    let mut disk = Disk { taken: Vec::new(), room: 4 };
    let (mut pending, mut is_begun) = (b"one\ntwo\n".to_vec(), false);
    let error = drain(&mut pending, &mut is_begun, &mut disk).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOSPC as i32));
    assert_eq!((pending.as_slice(), is_begun), (b"two\n".as_slice(), true));
    disk.room = 2;
    assert!(drain(&mut pending, &mut is_begun, &mut disk).is_err());
    disk.room = 100;
    drain(&mut pending, &mut is_begun, &mut disk).unwrap();
    assert_eq!((pending.len(), disk.taken.as_slice()), (0, b"one\ntwo\n".as_slice()));
}

#[test]
fn a_file_that_cannot_be_opened_names_path_and_fix() {
    let scratch = Scratch::new();
    let refused = |path: &Path| EventFile::open(path, 1).unwrap_err().to_string();
    let missing = scratch.0.join("no/events");
    let prefix = format!("event file {}: ", missing.display());
    assert_eq!(
        refused(&missing),
        format!("{prefix}cannot be opened: create its directory, or give events.file another path")
    );
    assert!(refused(&scratch.0).contains("it is a directory"), "{}", refused(&scratch.0));
    let link = scratch.0.join("link");
    symlink(scratch.file(), &link).unwrap();
    assert!(refused(&link).contains("it is a symbolic link"), "{}", refused(&link));
    nix::unistd::mkfifo(&scratch.0.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refused(&scratch.0.join("pipe")).contains("is no regular file"));
}

#[test]
fn two_agents_do_not_share_a_file() {
    let scratch = Scratch::new();
    let first = open(&scratch.file(), MAX_BYTES);
    let error = EventFile::open(&scratch.file(), 1).unwrap_err().to_string();
    assert!(error.contains("another agent writes it"), "{error}");
    drop(first);
    open(&scratch.file(), MAX_BYTES);
}

#[test]
fn an_older_file_that_cannot_be_read_is_done_without() {
    let scratch = Scratch::new();
    fs::create_dir(rotated(&scratch.file())).unwrap();
    fs::set_permissions(rotated(&scratch.file()), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(numbers(&open(&scratch.file(), MAX_BYTES)), Vec::<u64>::new());
}

fn counter() -> IntCounter {
    IntCounter::new("count", "count").unwrap()
}

#[tokio::test]
async fn the_file_follows_the_timeline_over_a_restart() {
    let scratch = Scratch::new();
    let run = async |count: u64| -> (FileMetrics, Vec<Event>) {
        let opened = EventFile::open(&scratch.file(), 100).unwrap();
        let position = opened.earlier.last;
        let timeline = Arc::new(Timeline::resume(100, counter(), opened.earlier));
        for number in 0..count {
            timeline.record(Occurrence::now(Kind::PodStarted, format!("pod-{number}")).with("key", "value"));
        }
        let metrics = FileMetrics { lost: counter(), failures: counter() };
        let (sender, mut written) = watch::channel(position);
        let keeper = tokio::spawn(opened.file.keep(Arc::clone(&timeline), position, metrics.clone(), sender));
        let all = written.wait_for(|written| *written == timeline.last());
        let _last = tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().unwrap();
        keeper.abort();
        // The file is free when the task is gone.
        assert!(keeper.await.unwrap_err().is_cancelled());
        (metrics, timeline.since(0, 1_000).events)
    };
    run(3).await;
    let (metrics, events) = run(40).await;
    let lines: Vec<Event> = fs::read_to_string(scratch.file())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, events);
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=43).collect::<Vec<_>>());
    assert_eq!((metrics.lost.get(), metrics.failures.get()), (0, 0));
}

#[tokio::test]
async fn what_was_overwritten_before_it_could_be_written_is_counted() {
    let scratch = Scratch::new();
    let opened = EventFile::open(&scratch.file(), 100).unwrap();
    let timeline = Arc::new(Timeline::new(5, counter()));
    for _ in 0..12 {
        timeline.record(Occurrence::now(Kind::PodStarted, "pod"));
    }
    let metrics = FileMetrics { lost: counter(), failures: counter() };
    let (sender, mut written) = watch::channel(0);
    let keeper = tokio::spawn(opened.file.keep(timeline, 0, metrics.clone(), sender));
    let all = written.wait_for(|written| *written == 12);
    let _last = tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().unwrap();
    keeper.abort();
    assert_eq!((metrics.lost.get(), metrics.failures.get()), (7, 0));
    assert_eq!(fs::read_to_string(scratch.file()).unwrap().lines().count(), 5);
}
