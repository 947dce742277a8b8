//! Which processes stand behind the virtual addresses that this node holds: who would get a connection, and whether two
//! programs want the same port.
//!
//! The listing comes from elsewhere, some seconds old at most; here is what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CollectError, Collector, Support};
use crate::kernel::Listener;
use crate::metric::sink::Sink;
use crate::metric::{Descriptor, Kind, Profile, Value};

/// Series of each family.
const MAX_ROWS: usize = 64;

/// The `reason` where there is nobody to ask for.
const NO_VIP: &str = "this node holds no virtual IP";
/// The `reason` where the listing failed; the log has the kernel's words.
const NOT_LISTED: &str = "listeners could not be listed";
/// The `reason` where only some processes are seen.
const OWN_NAMESPACE: &str = "agent has a PID namespace of its own: processes outside are not seen";
/// The `reason` where there is more than is shown.
const TOO_MANY: &str = "more than 64 ports: some that are bound to every address are left out";

const WALK: &str = "BPF iterator over the open files of all processes, at most 10 s old";

static INFO: Descriptor = Descriptor {
    name: "leadline_vip_listener_info",
    kind: Kind::Gauge,
    unit: None,
    help: "1 for a process that gets connections to a port of a virtual IP that this node holds, with the address that \
           it is bound to: the VIP, else 0.0.0.0, else :: unless that takes IPv6 only, as the kernel prefers them. A port \
           that is forwarded (NAT, IPVS) has no process here; that a socket may be bound to one device is not looked at.",
    labels: &["vip", "port", "process", "local_address"],
    profile: Profile::Minimal,
    source: WALK,
    witness: "`ss -ltnp` in the host's namespaces: the same processes, ports and addresses",
};

static SHARED: Descriptor = Descriptor {
    name: "leadline_vip_port_shared",
    kind: Kind::Gauge,
    unit: None,
    help: "Whether several programs listen on the port, each with a socket of its own and on whatever address: then one \
           of them cannot start where their addresses overlap, or answers in place of the other when the VIP leaves, such \
           as HAProxy on the VIP and kube-apiserver on the node's address.",
    labels: &["vip", "port"],
    profile: Profile::Minimal,
    source: WALK,
    witness: "`ss -ltnpe` in the host's namespaces: sockets and processes of the port",
};

/// What the collector describes.
pub static DESCRIPTORS: &[&Descriptor] = &[&INFO, &SHARED];

/// A port of a virtual address.
pub type Port = (IpAddr, u16);

/// What follows from one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Who gets connections: address, port, process and what it is bound to, the most specific first.
    accepting: Vec<(Port, String, IpAddr)>,
    /// Every port of them, and its programs if it is shared.
    ports: BTreeMap<Port, Option<BTreeSet<String>>>,
}

impl Table {
    /// Who stands behind these addresses.
    #[must_use]
    pub fn of(vips: &BTreeSet<IpAddr>, listeners: &[Listener]) -> Self {
        let mut by_port: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
        for listener in listeners {
            by_port.entry(listener.port).or_default().push(listener);
        }
        let mut accepting = BTreeSet::new();
        let mut ports = BTreeMap::new();
        for (port, listeners) in &by_port {
            for vip in vips {
                let ranks = listeners.iter().filter_map(|listener| Some((rank(listener, *vip)?, listener)));
                let Some(best) = ranks.clone().map(|(rank, _)| rank).min() else { continue };
                for (rank, listener) in ranks.filter(|(rank, _)| *rank == best) {
                    accepting.insert((rank, (*vip, *port), listener.command.clone(), listener.address));
                }
                ports.insert((*vip, *port), programs_apart(listeners));
            }
        }
        let accepting = accepting.into_iter().map(|(_, port, command, address)| (port, command, address));
        Self { accepting: accepting.collect(), ports }
    }

    /// The ports that are shared, and by which programs.
    pub fn shared(&self) -> impl Iterator<Item = (Port, &BTreeSet<String>)> {
        self.ports.iter().filter_map(|(port, programs)| Some((*port, programs.as_ref()?)))
    }

    fn is_too_long(&self) -> bool {
        self.accepting.len() > MAX_ROWS || self.ports.len() > MAX_ROWS
    }

    /// Ports and whether they are shared, those that are first.
    fn rows(&self) -> impl Iterator<Item = (Port, bool)> {
        let shared = self.shared().map(|(port, _)| (port, true));
        let others = self.ports.iter().filter(|(_, programs)| programs.is_none());
        shared.chain(others.map(|(port, _)| (*port, false)))
    }
}

/// How well a listener fits an address, 0 best; `None` if it gets no connections to it (`compute_score` of the kernel).
fn rank(listener: &Listener, vip: IpAddr) -> Option<u8> {
    match listener.address {
        address if address == vip => Some(0),
        address if !address.is_unspecified() => None,
        address if address.is_ipv4() == vip.is_ipv4() => Some(1),
        IpAddr::V6(_) if !listener.v6only => Some(2),
        _ => None,
    }
}

/// The programs of a port, if two sockets have no program in common. Processes that share one socket, as a service does
/// with the manager that opened it, are not in each other's way, nor are the workers of one program.
fn programs_apart(listeners: &[&Listener]) -> Option<BTreeSet<String>> {
    let mut sockets: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for listener in listeners {
        sockets.entry(listener.socket).or_default().insert(&listener.command);
    }
    let programs: BTreeSet<&BTreeSet<&str>> = sockets.values().collect();
    let is_apart = programs.iter().any(|one| programs.iter().any(|other| one.is_disjoint(other)));
    is_apart.then(|| listeners.iter().map(|listener| listener.command.clone()).collect())
}

/// What is known now.
#[derive(Debug, Default)]
enum Known {
    /// Nobody was asked for.
    #[default]
    Nothing,
    /// The last listing.
    Table(Table),
    /// The last listing failed.
    Failed,
}

/// What was listed, shared between the task that asks and the collector.
#[derive(Clone, Debug, Default)]
pub struct Listening(Arc<Mutex<Known>>);

impl Listening {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a new listing.
    pub fn set(&self, table: Table) {
        *self.lock() = Known::Table(table);
    }

    /// There is nobody to ask for.
    pub fn clear(&self) {
        *self.lock() = Known::Nothing;
    }

    /// A listing failed: what was known before is old.
    pub fn fail(&self) {
        *self.lock() = Known::Failed;
    }
}

/// The collector.
pub struct VipListener {
    listening: Listening,
    /// Whether all processes of the node are seen.
    sees_all: bool,
}

impl VipListener {
    /// A collector of what was listed.
    #[must_use]
    pub fn new(listening: Listening, sees_all: bool) -> Self {
        Self { listening, sees_all }
    }
}

impl Collector for VipListener {
    fn name(&self) -> &'static str {
        "vip_listener"
    }

    fn descriptors(&self) -> &'static [&'static Descriptor] {
        DESCRIPTORS
    }

    fn support(&self) -> Support {
        match &*self.listening.lock() {
            Known::Nothing => Support::No(NO_VIP),
            Known::Failed => Support::No(NOT_LISTED),
            Known::Table(_) if !self.sees_all => Support::Degraded(OWN_NAMESPACE),
            Known::Table(table) if table.is_too_long() => Support::Degraded(TOO_MANY),
            Known::Table(_) => Support::Yes,
        }
    }

    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let known = self.listening.lock();
        let Known::Table(table) = &*known else { return Ok(()) };
        let mut family = sink.family(&INFO);
        for ((vip, port), process, address) in table.accepting.iter().take(MAX_ROWS) {
            let labels = [vip.to_string(), port.to_string(), process.clone(), address.to_string()];
            family.value(&labels.each_ref().map(String::as_str), Value::Integer(1));
        }
        let mut family = sink.family(&SHARED);
        for ((vip, port), is_shared) in table.rows().take(MAX_ROWS) {
            family.value(&[&vip.to_string(), &port.to_string()], Value::Integer(is_shared.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Format;

    fn listener(socket: u64, command: &str, address: &str, port: u16) -> Listener {
        Listener {
            port,
            address: address.parse().unwrap(),
            process: u32::try_from(socket).unwrap(),
            command: command.to_owned(),
            socket,
            v6only: false,
            reuseport: false,
        }
    }

    fn table(listeners: &[Listener]) -> Table {
        Table::of(&BTreeSet::from(["192.0.2.7".parse().unwrap()]), listeners)
    }

    fn accepting(listeners: &[Listener]) -> Vec<String> {
        let table = table(listeners);
        let rows = table.accepting.iter();
        rows.map(|((_, port), process, address)| format!("{process} {address} {port}")).collect()
    }

    fn shared(listeners: &[Listener]) -> Vec<String> {
        table(listeners)
            .shared()
            .map(|((_, port), programs)| {
                format!("{port} {}", programs.iter().cloned().collect::<Vec<_>>().join(" "))
            })
            .collect()
    }

    #[test]
    fn the_most_specific_address_gets_the_connections() {
        let six = listener(1, "six", "::", 80);
        let four = listener(2, "four", "0.0.0.0", 80);
        let exact = listener(3, "exact", "192.0.2.7", 80);
        let other = listener(4, "other", "192.0.2.8", 80);
        assert_eq!(accepting(&[six.clone(), other.clone()]), ["six :: 80"]);
        assert_eq!(accepting(&[six.clone(), four.clone()]), ["four 0.0.0.0 80"]);
        assert_eq!(accepting(&[six.clone(), four, exact]), ["exact 192.0.2.7 80"]);
        assert!(accepting(&[other, Listener { v6only: true, ..six }]).is_empty());
    }

    #[test]
    fn an_ipv6_address_is_never_behind_an_ipv4_socket() {
        let vips = BTreeSet::from(["2001:db8::7".parse().unwrap()]);
        let four = listener(1, "four", "0.0.0.0", 80);
        let six = Listener { v6only: true, ..listener(2, "six", "::", 80) };
        assert!(Table::of(&vips, std::slice::from_ref(&four)).accepting.is_empty());
        assert_eq!(Table::of(&vips, &[four, six]).accepting[0].1, "six");
    }

    #[test]
    fn a_port_is_shared_by_programs_with_sockets_of_their_own() {
        let haproxy = listener(1, "haproxy", "192.0.2.7", 6443);
        let server = listener(2, "kube-apiserver", "192.0.2.1", 6443);
        assert_eq!(shared(&[haproxy.clone(), server.clone()]), ["6443 haproxy kube-apiserver"]);
        // Another port, or nothing on the virtual address.
        assert!(shared(&[haproxy.clone(), Listener { port: 6444, ..server.clone() }]).is_empty());
        assert!(shared(&[server.clone(), listener(3, "x", "192.0.2.1", 6443)]).is_empty());
        // Workers of one program, and a socket that was handed on.
        assert!(shared(&[haproxy.clone(), listener(4, "haproxy", "192.0.2.7", 6443)]).is_empty());
        let manager = Listener { command: "systemd".to_owned(), process: 9, ..server };
        let service = Listener { command: "sshd".to_owned(), address: haproxy.address, ..manager.clone() };
        assert!(shared(&[manager, service]).is_empty());
    }

    #[test]
    fn every_port_says_whether_it_is_shared() {
        let table = table(&[
            listener(1, "a", "192.0.2.7", 80),
            listener(2, "b", "0.0.0.0", 443),
            listener(3, "c", "127.0.0.1", 443),
        ]);
        let rows: Vec<(u16, bool)> = table.rows().map(|((_, port), is_shared)| (port, is_shared)).collect();
        assert_eq!(rows, [(443, true), (80, false)]);
    }

    fn collect(listening: &Listening) -> (String, Support) {
        let collector = VipListener::new(listening.clone(), true);
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out, Format::Text004);
        collector.collect(&mut sink).unwrap();
        sink.finish();
        (String::from_utf8(out).unwrap(), collector.support())
    }

    #[test]
    fn the_page_has_what_is_known_and_no_more() {
        let listening = Listening::default();
        assert_eq!(collect(&listening), (String::new(), Support::No(NO_VIP)));
        listening.set(table(&[listener(1, "haproxy", "192.0.2.7", 443)]));
        let (text, support) = collect(&listening);
        assert_eq!(support, Support::Yes);
        for line in [
            "leadline_vip_listener_info{vip=\"192.0.2.7\",port=\"443\",process=\"haproxy\",local_address=\"192.0.2.7\"} 1",
            "leadline_vip_port_shared{vip=\"192.0.2.7\",port=\"443\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        listening.fail();
        assert_eq!(collect(&listening), (String::new(), Support::No(NOT_LISTED)));
    }

    #[test]
    fn beyond_the_limit_what_is_bound_to_the_address_stays() {
        let mut listeners: Vec<Listener> =
            (1..=70).map(|number| listener(number.into(), "any", "0.0.0.0", number)).collect();
        listeners.push(listener(99, "exact", "192.0.2.7", 9_000));
        let listening = Listening::default();
        listening.set(table(&listeners));
        let (text, support) = collect(&listening);
        assert_eq!(support, Support::Degraded(TOO_MANY));
        assert!(text.contains("process=\"exact\""), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("leadline_vip_listener_info")).count(), 64);
    }
}
