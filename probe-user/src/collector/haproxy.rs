//! HAProxy on this node: what it takes its servers for, what the checks said, how many are left.
//!
//! A task of the agent asks HAProxy and puts the answers here; a scrape only shows the last one. `state` compares
//! answers, `events` puts what changed into words. Without an answer there are no series.

mod descriptor;
mod events;
pub mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{Sight, State};
use super::{CollectError, Collector, Support};
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Value};
use crate::source::haproxy::{
    Address, AskError, Backend, Candidates, Cause, CheckResult, ConfigFile, Frontend, Reading, Server,
    ServerName, ServerState,
};

pub use self::descriptor::DESCRIPTORS;

/// The `reason` before the first look.
const NOT_LOOKED: &str = "HAProxy is still being looked for";
/// The `reason` where nothing speaks for an HAProxy.
const NONE: &str = "no HAProxy on this node";
/// The `reason` where HAProxy cannot be asked.
const SILENT: &str = "haproxy.cfg names neither a stats socket nor a prometheus-exporter";
/// The `reason` where the file speaks for an HAProxy that cannot be found.
const NOT_RUNNING: &str = "HAProxy does not run, or its stats socket is inside a container";
/// The `reason` where the file may name a socket.
const FILE_UNREADABLE: &str = "haproxy.cfg cannot be read, see the log";
/// The `reason` where the configured socket is not there.
const GIVEN_MISSING: &str = "the configured stats socket does not exist";
/// The `reason` where permissions forbid to ask.
const DENIED: &str = "the stats socket keeps the agent out: give it `user root` in haproxy.cfg";
/// The `reason` where HAProxy has left its socket behind.
const REFUSED: &str = "nobody listens where HAProxy should: it does not run";
/// The `reason` where HAProxy hangs.
const LATE: &str = "HAProxy does not answer in time";
/// The `reason` where the answer cannot be used.
const FOREIGN: &str = "what answers is not HAProxy, see the log";
/// The `reason` where the system refuses otherwise.
const FAILED: &str = "HAProxy cannot be asked, see the log";
/// The `reason` where there are too many of something.
const OMITTED: &str = "more servers, backends or frontends than are shown";

/// What is known, shared between the task that asks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<State>>);

impl Known {
    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that none of the candidates gave a reading: the gravest of what they said, and which one said it.
#[must_use]
pub fn judge<'a>(candidates: &Candidates, faults: &'a [AskError]) -> (Sight, Option<&'a AskError>) {
    if let Some(fault) = faults.iter().find(|fault| !matches!(fault.cause, Cause::Missing)) {
        return (Sight::Unreadable(reason(&fault.cause)), Some(fault));
    }
    let sight = match candidates.file {
        _ if candidates.are_given => Sight::Unreadable(GIVEN_MISSING),
        ConfigFile::Unreadable(_) => Sight::Unreadable(FILE_UNREADABLE),
        ConfigFile::Read { names_any: true } => Sight::Absent(NOT_RUNNING),
        ConfigFile::Read { names_any: false } => Sight::Absent(SILENT),
        ConfigFile::Absent => Sight::Absent(NONE),
    };
    (sight, faults.first().filter(|_| candidates.are_given))
}

/// The phrase for what happened.
#[must_use]
pub const fn reason(cause: &Cause) -> &'static str {
    match cause {
        Cause::Missing => GIVEN_MISSING,
        Cause::Denied => DENIED,
        Cause::Refused => REFUSED,
        Cause::Late => LATE,
        Cause::TooLong | Cause::Status(_) | Cause::Parse(_) => FOREIGN,
        Cause::Io(_) => FAILED,
    }
}

/// The collector.
#[derive(Debug)]
pub struct Haproxy {
    known: Known,
}

impl Haproxy {
    /// A collector of what is known.
    #[must_use]
    pub const fn new(known: Known) -> Self {
        Self { known }
    }
}

impl Collector for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        match self.known.lock().sight() {
            Sight::Unknown => Support::No(NOT_LOOKED),
            Sight::Absent(reason) => Support::No(reason),
            Sight::Unreadable(reason) => Support::Degraded(reason),
            Sight::Read(_, reading) if !reading.omitted.is_empty() => Support::Degraded(OMITTED),
            Sight::Read(..) => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let state = self.known.lock();
        if let Sight::Read(address, reading) = state.sight() {
            write_info(sink, address);
            write_servers(sink, &reading.servers, &state);
            write_backends(sink, &reading.backends, &state);
            write_frontends(sink, &reading.frontends);
            write_omitted(sink, reading);
        }
        Ok(())
    }
}

/// A family, and which part of a `T` it shows.
type Column<T> = (&'static Descriptor, fn(&T) -> Option<u64>);

fn write_info(sink: &mut Sink<'_>, address: &Address) {
    let labels = [address.through(), &address.to_string()];
    sink.family(&descriptor::INFO).value(&labels, Value::Integer(1));
}

fn write_servers(sink: &mut Sink<'_>, servers: &BTreeMap<ServerName, Server>, state: &State) {
    let mut family = sink.family(&descriptor::SERVER_STATE);
    for (name, server) in servers {
        let told = |of: &ServerState| server.tells_no_check || *of != ServerState::NoCheck;
        for of in ServerState::ALL.into_iter().filter(told) {
            let labels = [name.backend.as_str(), &name.server, of.as_str()];
            family.value(&labels, Value::Integer((server.state == of).into()));
        }
    }
    let mut family = sink.family(&descriptor::CHECK_RESULT);
    for (name, check) in servers.iter().filter_map(|(name, server)| Some((name, server.check?))) {
        for of in CheckResult::ALL {
            let labels = [name.backend.as_str(), &name.server, of.as_str()];
            family.value(&labels, Value::Integer((check == *of).into()));
        }
    }
    let mut family = sink.family(&descriptor::SERVER_CHANGE);
    for name in servers.keys() {
        if let Some(changed) = state.server_changed(name) {
            family.value(&[&name.backend, &name.server], Value::Integer(changed));
        }
    }
    let mut family = sink.family(&descriptor::SERVER_DOWNS);
    for (name, server) in servers {
        if let Some(downs) = server.downs {
            family.value(&[&name.backend, &name.server], Value::Integer(downs));
        }
    }
}

fn write_backends(sink: &mut Sink<'_>, backends: &BTreeMap<String, Backend>, state: &State) {
    let columns: [Column<Backend>; 4] = [
        (&descriptor::BACKEND_UP, |backend| backend.is_up.map(u64::from)),
        (&descriptor::BACKEND_ACTIVE, |backend| backend.active_servers),
        (&descriptor::BACKEND_CURRENT, |backend| backend.current_sessions),
        (&descriptor::BACKEND_SESSIONS, |backend| backend.sessions),
    ];
    write_columns(sink, &columns, backends);
    let mut family = sink.family(&descriptor::BACKEND_CHANGE);
    for name in backends.keys() {
        if let Some(changed) = state.backend_changed(name) {
            family.value(&[name], Value::Integer(changed));
        }
    }
}

fn write_frontends(sink: &mut Sink<'_>, frontends: &BTreeMap<String, Frontend>) {
    let columns: [Column<Frontend>; 3] = [
        (&descriptor::FRONTEND_UP, |frontend| frontend.is_up.map(u64::from)),
        (&descriptor::FRONTEND_CURRENT, |frontend| frontend.current_sessions),
        (&descriptor::FRONTEND_SESSIONS, |frontend| frontend.sessions),
    ];
    write_columns(sink, &columns, frontends);
}

fn write_columns<T>(sink: &mut Sink<'_>, columns: &[Column<T>], named: &BTreeMap<String, T>) {
    for (descriptor, read) in columns {
        let mut family = sink.family(descriptor);
        for (name, of) in named {
            if let Some(value) = read(of) {
                family.value(&[name], Value::Integer(value));
            }
        }
    }
}

fn write_omitted(sink: &mut Sink<'_>, reading: &Reading) {
    let omitted = reading.omitted;
    let mut family = sink.family(&descriptor::OMITTED);
    for (subject, count) in
        [("backend", omitted.backends), ("frontend", omitted.frontends), ("server", omitted.servers)]
    {
        family.value(&[subject], Value::Integer(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatsSocket;
    use crate::event::Timestamp;
    use crate::metric::Format;
    use crate::source::haproxy::Omitted;

    fn page(known: &Known) -> String {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        Haproxy::new(known.clone()).collect(&mut sink).unwrap();
        sink.finish();
        String::from_utf8(out).unwrap()
    }

    fn address() -> Address {
        Address::Socket(StatsSocket::Unix("/run/h.sock".into()))
    }

    fn fault(cause: Cause) -> AskError {
        AskError { address: address(), cause }
    }

    fn read(server: Server, omitted: Omitted) -> Known {
        let known = Known::default();
        let mut reading = Reading { omitted, ..Reading::default() };
        let name = ServerName { backend: "api".to_owned(), server: "one".to_owned() };
        reading.servers.insert(name, server);
        reading.backends.insert("api".to_owned(), Backend { is_up: Some(true), ..Backend::default() });
        known.lock().observe(address(), reading, Timestamp::from_unix_nanos(100_000_000_000));
        known
    }

    #[test]
    fn a_state_is_one_of_six_and_a_check_one_of_nineteen() {
        let server = Server {
            state: ServerState::Down,
            tells_no_check: true,
            check: Some(CheckResult::L4Con),
            downs: Some(3),
            changed_ago: Some(40),
            ..Server::default()
        };
        let page = page(&read(server, Omitted::default()));
        let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        let states = of("leadline_haproxy_server_state{");
        assert_eq!(states.len(), 6);
        let set: Vec<_> = states.into_iter().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(set, [r#"leadline_haproxy_server_state{backend="api",server="one",state="down"} 1"#]);
        assert_eq!(of("leadline_haproxy_server_check_result{").len(), 19);
        assert!(page.contains(r#"result="l4con"} 1"#));
        assert!(page.contains(r#"down_transitions_total{backend="api",server="one"} 3"#), "{page}");
        assert!(page.contains(r#"last_change_timestamp_seconds{backend="api",server="one"} 60"#), "{page}");
    }

    #[test]
    fn what_haproxy_does_not_say_is_absent() {
        let page = page(&read(Server { state: ServerState::Up, ..Server::default() }, Omitted::default()));
        for absent in
            ["check_result{", "=\"no_check", "down_transitions_total{", "sessions", "active_servers"]
        {
            assert!(!page.contains(absent), "{absent} in {page}");
        }
        assert!(page.contains(r#"leadline_haproxy_backend_up{backend="api"} 1"#));
        assert!(page.contains(r#"leadline_haproxy_info{through="stats_socket",address="/run/h.sock"} 1"#));
    }

    #[test]
    fn without_a_reading_there_are_no_series_but_a_reason() {
        let known = Known::default();
        let collector = Haproxy::new(known.clone());
        assert_eq!(collector.support(), Support::No(NOT_LOOKED));
        known.lock().miss(Sight::Absent(NONE));
        assert_eq!(collector.support(), Support::No("no HAProxy on this node"));
        known.lock().miss(Sight::Unreadable(DENIED));
        assert_eq!(collector.support(), Support::Degraded(DENIED));
        assert!(!page(&known).contains("leadline_haproxy_"));
    }

    #[test]
    fn what_is_left_out_is_said() {
        let known = read(Server::default(), Omitted { servers: 7, ..Omitted::default() });
        assert_eq!(Haproxy::new(known.clone()).support(), Support::Degraded(OMITTED));
        assert!(page(&known).contains(r#"leadline_haproxy_omitted{subject="server"} 7"#));
        let whole = read(Server::default(), Omitted::default());
        assert_eq!(Haproxy::new(whole.clone()).support(), Support::Yes);
        assert!(page(&whole).contains(r#"leadline_haproxy_omitted{subject="server"} 0"#));
    }

    #[test]
    fn the_gravest_answer_is_the_reason() {
        let found = |file| Candidates { addresses: Vec::new(), are_given: false, file };
        let missing = || fault(Cause::Missing);
        let sight = |file, faults: &[AskError]| judge(&found(file), faults).0;
        assert_eq!(sight(ConfigFile::Absent, &[missing()]), Sight::Absent(NONE));
        let names = |names_any| ConfigFile::Read { names_any };
        assert_eq!(sight(names(true), &[missing()]), Sight::Absent(NOT_RUNNING));
        assert_eq!(sight(names(false), &[missing()]), Sight::Absent(SILENT));
        assert_eq!(
            sight(names(true), &[missing(), fault(Cause::Denied), fault(Cause::Refused)]),
            Sight::Unreadable(DENIED)
        );
        assert_eq!(
            sight(ConfigFile::Unreadable(std::io::Error::other("x")), &[missing()]),
            Sight::Unreadable(FILE_UNREADABLE)
        );
        let given = Candidates { are_given: true, ..Candidates::default() };
        let faults = [missing()];
        let (sight, told) = judge(&given, &faults);
        assert_eq!(sight, Sight::Unreadable(GIVEN_MISSING));
        assert!(told.is_some());
    }
}
