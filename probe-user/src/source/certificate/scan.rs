//! Looks through all places, and reads what has changed since the last time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Content, Fault, Form, Stamp, read};
use super::place::{Place, below, places};
use super::purpose::Purpose;
use super::x509::Certificate;

/// Files that are read at most.
const MOST: usize = 256;

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// What it is for.
    pub purpose: Purpose,
    /// The certificate.
    pub certificate: Arc<Certificate>,
}

/// A file that gave no certificate.
#[derive(Debug)]
pub struct FileFault {
    /// As the node sees it.
    pub path: PathBuf,
    /// Why.
    pub fault: Fault,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Certificates by the path of their file, as the node sees it.
    pub files: BTreeMap<String, OnDisk>,
    /// What could not be read.
    pub faults: Vec<FileFault>,
    /// Files that were left out because there are too many.
    pub omitted: u64,
}

/// Reads certificates below a root, again and again.
#[derive(Debug)]
pub struct Reader {
    root: PathBuf,
    given: Vec<PathBuf>,
    /// What files held, and what they were then.
    read: BTreeMap<PathBuf, (Stamp, Content)>,
}

impl Reader {
    /// A reader of the usual places, and of these files and directories.
    #[must_use]
    pub fn new(root: PathBuf, given: Vec<PathBuf>) -> Self {
        Self { root, given, read: BTreeMap::new() }
    }

    /// Looks at every place.
    pub fn scan(&mut self) -> Scan {
        let (places, faults) = places(&self.root, &self.given);
        let mut scan = Scan { faults, ..Scan::default() };
        let mut waiting = VecDeque::from(places);
        let mut before = std::mem::take(&mut self.read);
        while let Some(place) = waiting.pop_front() {
            if self.read.contains_key(&place.path) {
                continue;
            }
            let stamp = match Stamp::of(&below(&self.root, &place.path)) {
                Ok(stamp) => stamp,
                // A link to nothing, and a file that the administrator or another file named, should be there.
                Err(error) if is_missing(&error) && !place.is_named && !self.is_link(&place.path) => continue,
                Err(error) => {
                    scan.faults.push(FileFault { path: place.path, fault: error.into() });
                    continue;
                }
            };
            if self.read.len() + scan.faults.len() >= MOST {
                scan.omitted += 1;
                continue;
            }
            let known = before.remove(&place.path).filter(|(then, _)| *then == stamp);
            let content = known
                .map_or_else(|| read(&below(&self.root, &place.path), place.form), |(_, known)| Ok(known));
            match content {
                Ok(content) => {
                    follow(&place, &content, &mut waiting, &mut scan.files);
                    self.read.insert(place.path, (stamp, content));
                }
                Err(fault) => scan.faults.push(FileFault { path: place.path, fault }),
            }
        }
        scan
    }

    fn is_link(&self, path: &Path) -> bool {
        below(&self.root, path).is_symlink()
    }
}

/// Takes the certificate, or notes where it is.
fn follow(
    place: &Place,
    content: &Content,
    waiting: &mut VecDeque<Place>,
    files: &mut BTreeMap<String, OnDisk>,
) {
    match content {
        Content::Here(certificate) => {
            let purpose = place.purpose.or_ca(certificate.is_ca);
            let found = OnDisk { purpose, certificate: Arc::clone(certificate) };
            files.insert(place.path.display().to_string(), found);
        }
        Content::At(path) => {
            let path = place.path.parent().unwrap_or(Path::new("/")).join(path);
            waiting.push_back(Place { path, form: Form::Pem, purpose: place.purpose, is_named: true });
        }
        Content::Nothing => {}
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
