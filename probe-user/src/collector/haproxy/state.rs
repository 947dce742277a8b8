//! From one reading to the next: when something changed, and what of it is worth an event. Pure: readings with the
//! time of each in, events out.

use std::collections::BTreeMap;

use super::events::{Change, SECOND};
use crate::event::{Kind, Occurrence, Timestamp};
use crate::source::haproxy::{Address, Backend, Reading, Server, ServerName, ServerState};

/// What the agent sees of HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is none; why.
    Absent(&'static str),
    /// There is one, but it cannot be read; why.
    Unreadable(&'static str),
    /// It is read here.
    Read(Address, Reading),
}

/// What is remembered of a server or a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    /// The value of the `state` label.
    state: &'static str,
    /// When that began, as HAProxy says, in seconds since 1970.
    changed: Option<u64>,
    /// Whether the last thing to be said of it is that it is down. Maintenance in between says nothing of that.
    is_down: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct State {
    sight: Sight,
    servers: BTreeMap<ServerName, Memory>,
    backends: BTreeMap<String, Memory>,
}

/// What a change means to those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    WentDown,
    CameUp,
}

impl State {
    /// What is seen now.
    #[must_use]
    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    /// Takes a reading, made at that time.
    pub fn observe(&mut self, address: Address, reading: Reading, now: Timestamp) -> Vec<Occurrence> {
        let mut found = Vec::new();
        for (name, server) in &reading.servers {
            let seen = Seen {
                state: server.state.as_str(),
                is_down: server_is_down(server),
                changed_ago: server.changed_ago,
            };
            let (memory, turn) = follow(self.servers.get(name), &seen, now);
            found.extend(turn.map(|(turn, was)| {
                let kind = match turn {
                    Turn::WentDown => Kind::HaproxyServerDown,
                    Turn::CameUp => Kind::HaproxyServerUp,
                };
                Change { kind, was, since: memory.changed, noticed: now }.of_server(name, server)
            }));
            self.servers.insert(name.clone(), memory);
        }
        for (name, backend) in &reading.backends {
            let seen = Seen {
                state: backend_state(backend),
                is_down: backend.is_up.map(|up| !up),
                changed_ago: backend.changed_ago,
            };
            let (memory, turn) = follow(self.backends.get(name), &seen, now);
            found.extend(turn.map(|(turn, was)| {
                let kind = match turn {
                    Turn::WentDown => Kind::HaproxyBackendDown,
                    Turn::CameUp => Kind::HaproxyBackendUp,
                };
                let servers = reading.servers.keys().filter(|server| server.backend == *name).count();
                Change { kind, was, since: memory.changed, noticed: now }.of_backend(name, backend, servers)
            }));
            self.backends.insert(name.clone(), memory);
        }
        self.servers.retain(|name, _| reading.servers.contains_key(name));
        self.backends.retain(|name, _| reading.backends.contains_key(name));
        self.sight = Sight::Read(address, reading);
        found
    }

    /// Takes note that there is no reading. What was remembered stays: HAProxy may have been restarted.
    pub fn miss(&mut self, sight: Sight) {
        self.sight = sight;
    }

    /// When the state of a server began, in seconds since 1970.
    #[must_use]
    pub fn server_changed(&self, name: &ServerName) -> Option<u64> {
        self.servers.get(name)?.changed
    }

    /// When a backend came up or went down, in seconds since 1970.
    #[must_use]
    pub fn backend_changed(&self, name: &str) -> Option<u64> {
        self.backends.get(name)?.changed
    }
}

/// Whether a server is down or up; nothing where it is neither by its own doing.
fn server_is_down(server: &Server) -> Option<bool> {
    match server.state {
        ServerState::Down => Some(true),
        ServerState::Up | ServerState::NoCheck => Some(false),
        ServerState::Maintenance | ServerState::Drain | ServerState::Unknown => None,
    }
}

fn backend_state(backend: &Backend) -> &'static str {
    match backend.is_up {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    }
}

/// What a reading says of a server or a backend.
struct Seen {
    state: &'static str,
    /// None for what is neither down nor up.
    is_down: Option<bool>,
    changed_ago: Option<u64>,
}

/// The next memory, and whether that is news, with the state before. What is seen for the first time is none: when it
/// came to be so is before our time.
fn follow(before: Option<&Memory>, seen: &Seen, now: Timestamp) -> (Memory, Option<(Turn, &'static str)>) {
    let was_down = before.is_some_and(|before| before.is_down);
    let is_down = seen.is_down.unwrap_or(was_down);
    let turn = match (was_down, is_down) {
        (false, true) => Some(Turn::WentDown),
        (true, false) => Some(Turn::CameUp),
        _ => None,
    };
    let turn = before.and_then(|before| Some((turn?, before.state)));
    let known = before.filter(|before| before.state == seen.state).and_then(|before| before.changed);
    let derived = seen.changed_ago.map(|ago| (now.unix_nanos() / SECOND).saturating_sub(ago));
    let changed = derived.map(|derived| steady(known, derived));
    (Memory { state: seen.state, changed, is_down }, turn)
}

/// HAProxy counts whole seconds, and asking takes time: the moment that follows from them wavers by a second. The first
/// one holds until another differs by more.
fn steady(known: Option<u64>, derived: u64) -> u64 {
    known.filter(|known| known.abs_diff(derived) <= 1).unwrap_or(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatsSocket;
    use crate::source::haproxy::CheckResult;

    const START: u64 = 1_700_000_000;

    fn at(seconds: f64) -> Timestamp {
        let since = std::time::Duration::from_secs_f64(seconds).as_nanos();
        Timestamp::from_unix_nanos(START * SECOND + u64::try_from(since).unwrap())
    }

    fn name() -> ServerName {
        ServerName { backend: "api".to_owned(), server: "one".to_owned() }
    }

    fn reading(state: ServerState, ago: u64, is_up: bool) -> Reading {
        let check = (state == ServerState::Down).then_some(CheckResult::L7Sts);
        let server =
            Server { state, check, check_code: Some(500), changed_ago: Some(ago), ..Server::default() };
        let backend = Backend {
            is_up: Some(is_up),
            active_servers: Some(is_up.into()),
            changed_ago: Some(ago),
            ..Backend::default()
        };
        let mut reading = Reading::default();
        reading.servers.insert(name(), server);
        reading.backends.insert("api".to_owned(), backend);
        reading
    }

    fn observe(state: &mut State, reading: Reading, seconds: f64) -> Vec<Occurrence> {
        let address = Address::Socket(StatsSocket::Unix("/run/h.sock".into()));
        state.observe(address, reading, at(seconds))
    }

    fn kinds(events: &[Occurrence]) -> Vec<Kind> {
        events.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn a_failure_and_its_end_are_told_once_with_haproxys_own_time() {
        let mut state = State::default();
        assert_eq!(observe(&mut state, reading(ServerState::Up, 100, true), 0.2), []);
        let events = observe(&mut state, reading(ServerState::Down, 3, false), 10.9);
        assert_eq!(kinds(&events), [Kind::HaproxyServerDown, Kind::HaproxyBackendDown]);
        assert_eq!(events[0].time, at(7.0));
        assert_eq!(events[0].subject, "api/one");
        let details: Vec<_> = events[0].details.iter().map(|(key, value)| (&**key, value.as_str())).collect();
        let since = at(7.0).to_string();
        assert_eq!(details, [("check", "l7sts"), ("code", "500"), ("since", since.as_str()), ("was", "up")]);
        assert_eq!(observe(&mut state, reading(ServerState::Down, 4, false), 11.9), []);
        let events = observe(&mut state, reading(ServerState::Up, 0, true), 12.0);
        assert_eq!(kinds(&events), [Kind::HaproxyServerUp, Kind::HaproxyBackendUp]);
        assert_eq!(events[1].details["servers"], "1 of 1");
    }

    #[test]
    fn what_is_down_at_first_sight_is_no_news_and_its_recovery_is() {
        let mut state = State::default();
        assert_eq!(observe(&mut state, reading(ServerState::Down, 9, false), 0.0), []);
        let events = observe(&mut state, reading(ServerState::Up, 0, true), 1.0);
        assert_eq!(kinds(&events), [Kind::HaproxyServerUp, Kind::HaproxyBackendUp]);
    }

    #[test]
    fn maintenance_is_neither_down_nor_up() {
        let mut state = State::default();
        observe(&mut state, reading(ServerState::Up, 9, true), 0.0);
        assert_eq!(observe(&mut state, reading(ServerState::Maintenance, 0, true), 1.0), []);
        assert_eq!(observe(&mut state, reading(ServerState::Up, 0, true), 2.0), []);
        let events = observe(&mut state, reading(ServerState::Down, 0, true), 3.0);
        assert_eq!(kinds(&events), [Kind::HaproxyServerDown]);
        for other in [ServerState::Maintenance, ServerState::Drain, ServerState::Unknown, ServerState::Down] {
            assert_eq!(observe(&mut state, reading(other, 0, true), 4.0), []);
        }
        let events = observe(&mut state, reading(ServerState::NoCheck, 0, true), 5.0);
        assert_eq!(kinds(&events), [Kind::HaproxyServerUp]);
    }

    #[test]
    fn a_server_that_fails_while_haproxy_is_not_read_is_told_afterwards() {
        let mut state = State::default();
        observe(&mut state, reading(ServerState::Up, 9, true), 0.0);
        state.miss(Sight::Unreadable("gone"));
        assert_eq!(state.sight(), &Sight::Unreadable("gone"));
        let events = observe(&mut state, reading(ServerState::Down, 1, true), 5.0);
        assert_eq!(kinds(&events), [Kind::HaproxyServerDown]);
    }

    #[test]
    fn the_time_of_a_change_does_not_waver() {
        let mut state = State::default();
        let mut seen = Vec::new();
        for (seconds, ago) in [(10.0, 4), (10.99, 4), (12.0, 5), (13.0, 7), (13.0, 8)] {
            observe(&mut state, reading(ServerState::Up, ago, true), seconds);
            seen.push(state.server_changed(&name()).unwrap() - START);
        }
        // Derived are 6, 6, 7, 6 and 5.
        assert_eq!(seen, [6; 5]);
        observe(&mut state, reading(ServerState::Up, 0, true), 20.0);
        assert_eq!(state.server_changed(&name()), Some(START + 20));
        // Another state begins anew, however close.
        observe(&mut state, reading(ServerState::Down, 0, true), 21.0);
        assert_eq!(state.server_changed(&name()), Some(START + 21));
        assert_eq!(state.backend_changed("api"), Some(START + 20));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut state = State::default();
        observe(&mut state, reading(ServerState::Up, 9, true), 0.0);
        assert_eq!(observe(&mut state, Reading::default(), 1.0), []);
        assert_eq!((state.server_changed(&name()), state.backend_changed("api")), (None, None));
        assert_eq!(observe(&mut state, reading(ServerState::Down, 0, false), 2.0), []);
    }
}
