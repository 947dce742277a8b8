//! From one look to the next: what changed, what ended, and what of it is worth an event. Pure: what was found with the
//! time of each look in, events out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::judge::{Standing, judge};
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::certificate::{Certificate, OnDisk, Purpose, Scan};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Locations that are remembered although nothing is there now.
const REMEMBERED: usize = 512;

/// A certificate that a server shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where.
    pub address: SocketAddr,
    /// Which one.
    pub certificate: Arc<Certificate>,
}

impl Served {
    /// What it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        Purpose::of_port(self.address.port())
    }
}

/// What is remembered of a location.
#[derive(Debug)]
struct Memory {
    certificate: Arc<Certificate>,
    /// Whether its end is over and was told, or was before our time.
    has_ended: bool,
}

/// What is remembered of a port.
#[derive(Debug)]
struct Port {
    standing: Standing,
    /// Since when it has been superseded, and whether that was told.
    superseded: Option<(Timestamp, bool)>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct State {
    has_looked: bool,
    files: BTreeMap<String, OnDisk>,
    unreadable: usize,
    omitted: u64,
    served: BTreeMap<u16, Served>,
    ports: BTreeMap<u16, Port>,
    memory: BTreeMap<String, Memory>,
}

impl State {
    /// Whether files and servers have been looked at.
    #[must_use]
    pub const fn has_looked(&self) -> bool {
        self.has_looked
    }

    /// How many files cannot be read.
    #[must_use]
    pub const fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// How many files are left out.
    #[must_use]
    pub const fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Every certificate: where it is, what for, and which.
    pub fn shown(&self) -> impl Iterator<Item = (String, Purpose, &Certificate)> {
        let files = self.files.iter().map(|(path, file)| (path.clone(), file.purpose, &*file.certificate));
        let served = self.served.values();
        files.chain(served.map(|served| (served.address.to_string(), served.purpose(), &*served.certificate)))
    }

    /// Servers, and whether each shows an old certificate; those that can be compared with a file.
    pub fn judged(&self) -> impl Iterator<Item = (&Served, bool)> {
        self.served.iter().filter_map(|(port, served)| match self.ports.get(port)?.standing {
            Standing::Unknown => None,
            Standing::Current => Some((served, false)),
            Standing::Superseded { .. } => Some((served, true)),
        })
    }

    /// Whether another file, or another certificate in one, would be news to those who ask servers.
    #[must_use]
    pub fn differs(&self, scan: &Scan) -> bool {
        self.files != scan.files
    }

    /// Takes what is in the files now.
    pub fn observe_files(&mut self, scan: Scan, now: Timestamp) -> Vec<Occurrence> {
        let mut events = Vec::new();
        for (path, file) in &scan.files {
            if let Some(before) = self.remember(path, &file.certificate, now) {
                let event = Occurrence::now(Kind::CertificateRotated, path).at(now);
                let event = event.with("purpose", file.purpose.as_str());
                let event = event.with("old_not_after", time(before.not_after).to_string());
                events.push(event.with("new_not_after", time(file.certificate.not_after).to_string()));
            }
        }
        (self.files, self.unreadable, self.omitted) = (scan.files, scan.faults.len(), scan.omitted);
        self.forget();
        events
    }

    /// Takes what servers show now; those that show nothing are left out.
    pub fn observe_served(&mut self, served: Vec<Served>, now: Timestamp) -> Vec<Occurrence> {
        let mut events = Vec::new();
        self.has_looked = true;
        self.served = served.into_iter().map(|served| (served.address.port(), served)).collect();
        for (port, served) in self.served.clone() {
            self.remember(&served.address.to_string(), &served.certificate, now);
            let standing = judge(port, &served.certificate, &self.files);
            let port =
                self.ports.entry(port).or_insert(Port { standing: Standing::Unknown, superseded: None });
            port.standing = standing;
            events.extend(port.tell(&served, now));
        }
        self.forget();
        events
    }

    /// Tells which certificates have ended by now.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Occurrence> {
        let mut events = Vec::new();
        let locations: Vec<(String, Purpose)> =
            self.shown().map(|(location, purpose, _)| (location, purpose)).collect();
        for (location, purpose) in locations {
            let Some(memory) = self.memory.get_mut(&location) else { continue };
            if memory.has_ended || !has_ended(&memory.certificate, now) {
                continue;
            }
            memory.has_ended = true;
            let end = time(memory.certificate.not_after);
            let event = Occurrence::now(Kind::CertificateExpired, location).at(end);
            let event = event.with("purpose", purpose.as_str()).with("not_after", end.to_string());
            events.push(event.with("subject", &memory.certificate.subject));
        }
        events
    }

    /// When the next certificate ends, in seconds since 1970.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let here = self.shown().filter_map(|(location, ..)| self.memory.get(&location));
        here.filter(|memory| !memory.has_ended).map(|memory| memory.certificate.not_after).min()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// Remembers what is at a location; gives what was there if that was another one. One that had ended before it was
    /// first seen is no news.
    fn remember(
        &mut self,
        location: &str,
        certificate: &Arc<Certificate>,
        now: Timestamp,
    ) -> Option<Arc<Certificate>> {
        if self.memory.get(location).is_some_and(|memory| memory.certificate.is_same(certificate)) {
            return None;
        }
        let memory = Memory { certificate: Arc::clone(certificate), has_ended: has_ended(certificate, now) };
        self.memory.insert(location.to_owned(), memory).map(|before| before.certificate)
    }

    /// A file that is replaced may be gone for a moment, and a server that is started again: both are remembered, as long
    /// as there is room.
    fn forget(&mut self) {
        if self.memory.len() > REMEMBERED {
            let here: Vec<String> = self.shown().map(|(location, ..)| location).collect();
            self.memory.retain(|location, _| here.contains(location));
        }
    }
}

impl Port {
    /// A server that reads its files again does so within a minute: only what two looks in a row have seen is told.
    fn tell(&mut self, served: &Served, now: Timestamp) -> Option<Occurrence> {
        let event = |kind, at| {
            let event = Occurrence::now(kind, served.address.to_string()).at(at);
            let end = time(served.certificate.not_after).to_string();
            event.with("purpose", served.purpose().as_str()).with("served_not_after", end)
        };
        match (&self.standing, self.superseded) {
            (Standing::Superseded { .. }, None) => {
                self.superseded = Some((now, false));
                None
            }
            (Standing::Superseded { file, not_after }, Some((since, false))) => {
                self.superseded = Some((since, true));
                let event = event(Kind::CertificateRenewedNotServed, since).with("file", file);
                Some(event.with("file_not_after", time(*not_after).to_string()))
            }
            (Standing::Current, before) => {
                self.superseded = None;
                before.filter(|(_, told)| *told).map(|_| event(Kind::CertificateRenewedServed, now))
            }
            _ => None,
        }
    }
}

/// Good are certificates to the end of the second that they name.
fn has_ended(certificate: &Certificate, now: Timestamp) -> bool {
    now.unix_nanos() / SECOND > certificate.not_after
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_unix_nanos(seconds.saturating_mul(SECOND))
}
