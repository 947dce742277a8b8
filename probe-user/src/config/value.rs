//! Values of the configuration: one parser each, for the file, the environment and the flags alike.

use std::{net::IpAddr, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

use super::{
    MAX_CONNECTIONS, MAX_PROBE_INTERVAL, MAX_RETENTION, MIN_PROBE_INTERVAL, MIN_RETENTION, Mode,
    NodeAddresses, SERIES_LIMIT, SLOTS, WATCHED_PORTS, certificate_path, nearest,
};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const LEVELS_HELP: &str =
    "It takes off, error, warn, info, debug or trace, per module as in info,leadline::kernel=debug";
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// An address to listen on; without a host it is every address of both families.
///
/// # Errors
/// When it is no IP:PORT.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    whole
        .parse()
        .ok()
        .ok_or_else(|| format!("`{text}` is no IP:PORT such as [::]:9843, 127.0.0.1:9843 or :9843"))
}

/// A log level, or a list of levels per module.
///
/// # Errors
/// When a part of it names no level.
pub fn log_level(text: &str) -> Result<String, String> {
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if LEVELS.contains(&level) {
            continue;
        }
        let meant = nearest(level, LEVELS.into_iter());
        let hint = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        return Err(format!("`{level}` is no level: {hint}{LEVELS_HELP}"));
    }
    Ok(text.to_owned())
}

/// How long a pod that is gone is remembered.
///
/// # Errors
/// When it is no duration, or too short or too long a one.
pub fn retention(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < MIN_RETENTION {
        return Err(format!(
            "`{text}` is shorter than the books of a pod that is gone take: at least {}s",
            MIN_RETENTION.as_secs()
        ));
    }
    if length > MAX_RETENTION {
        return Err(format!("`{text}` is longer than a day: at most 1d"));
    }
    Ok(length)
}

/// The time between two probes.
///
/// # Errors
/// When it is no duration, or too short or too long a one.
pub fn probe_interval(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < MIN_PROBE_INTERVAL {
        return Err(format!("`{text}` is too short: at least {}ms", MIN_PROBE_INTERVAL.as_millis()));
    }
    if length > MAX_PROBE_INTERVAL {
        return Err(format!("`{text}` is too long: at most 1m"));
    }
    Ok(length)
}

/// A duration between two others, of which the smaller is milliseconds and the greater whole seconds.
pub(super) fn within(text: &str, [least, most]: [Duration; 2]) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < least || length > most {
        return Err(format!("`{text}` is not within {}ms to {}s", least.as_millis(), most.as_secs()));
    }
    Ok(length)
}

/// A duration such as 5m, 1h30m or 500ms.
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Some(0_u64);
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| c.is_ascii_alphabetic());
        if unit.is_empty() && !number.is_empty() && number.len() == text.len() {
            return Err(format!("`{text}` has no unit: write {text}s, or use ms, m, h or d"));
        }
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
            return Err(no_duration(text));
        };
        total = number.checked_mul(factor).and_then(|part| total?.checked_add(part));
        rest = after;
    }
    match total {
        Some(milliseconds) if !text.is_empty() => Ok(Duration::from_millis(milliseconds)),
        _ => Err(no_duration(text)),
    }
}

fn no_duration(text: &str) -> String {
    format!("`{text}` is no duration: write a number with ms, s, m, h or d, such as 5m or 1h30m")
}

fn split_while(text: &str, holds: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !holds(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A network in CIDR notation; one with host bits is refused, since either part may be the mistake.
///
/// # Errors
/// When it is none.
pub fn network(text: &str) -> Result<IpNet, String> {
    let parsed: IpNet = text
        .parse()
        .ok()
        .ok_or_else(|| format!("`{text}` is no network such as 10.42.0.0/16 or fd00:42::/56"))?;
    if parsed.trunc() == parsed {
        return Ok(parsed);
    }
    Err(format!("`{text}` is an address, not a network: write {}", parsed.trunc()))
}

/// A node and its addresses as one word: `NAME=ADDRESS,ADDRESS`.
///
/// # Errors
/// When it is not of that form.
pub fn node(text: &str) -> Result<NodeAddresses, String> {
    let example = "write NAME=ADDRESS,ADDRESS such as edge-1=192.0.2.7,2001:db8::7";
    let (name, list) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}`: {example}"))?;
    let addresses = list
        .split(',')
        .map(|part| part.parse::<IpAddr>().ok().ok_or_else(|| format!("`{part}` is no address: {example}")))
        .collect::<Result<_, _>>()?;
    Ok(NodeAddresses { name: name.to_owned(), addresses })
}

/// A section; one whose fields are all commented out reads as null and means its defaults.
pub(super) fn section<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// A scalar as written: `pod_retention: 300` is a number to YAML, and our message about it is the better one.
struct Text<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.1)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }
}

pub(super) fn read_retention<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(Text(retention, "a duration such as 5m"))
}

pub(super) fn read_probe_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(Text(probe_interval, "a duration such as 1s"))
}

pub(super) fn read_log_level<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from.deserialize_any(Text(log_level, "a log level such as info"))
}

/// One parsed value of a list: the place of a mistake is that of the item.
struct Item<T>(T);

trait FromText: Sized {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Result<Self, String>;
}

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "an IP:PORT such as [::]:9843";
    fn from_text(text: &str) -> Result<Self, String> {
        listen_address(text)
    }
}

impl FromText for IpNet {
    const EXPECTED: &'static str = "a network such as 10.42.0.0/16";
    fn from_text(text: &str) -> Result<Self, String> {
        network(text)
    }
}

impl FromText for PathBuf {
    const EXPECTED: &'static str = "a path such as /etc/etcd/server.crt";
    fn from_text(text: &str) -> Result<Self, String> {
        certificate_path(text)
    }
}

impl<'de, T: FromText> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text(T::from_text, T::EXPECTED)).map(Item)
    }
}

fn read_items<'de, D: Deserializer<'de>, T: FromText>(from: D) -> Result<Vec<T>, D::Error> {
    let items = Option::<Vec<Item<T>>>::deserialize(from)?.unwrap_or_default();
    Ok(items.into_iter().map(|item| item.0).collect())
}

pub(super) fn read_networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    read_items(from)
}

pub(super) fn read_certificate_paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    read_items(from)
}

/// A port that something can listen on.
struct Port(u16);

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a port from 1 to 65535")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Port, E> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.map(Port).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PortVisitor)
    }
}

pub(super) fn read_port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    Port::deserialize(from).map(|port| port.0)
}

pub(super) fn read_ports<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    let ports = Option::<Vec<Port>>::deserialize(from)?.unwrap_or_default();
    Ok(ports.into_iter().map(|port| port.0).collect())
}

/// Ports that are watched, in one word: `PORT,PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPorts(pub Vec<u16>);

/// A list of ports to watch.
///
/// # Errors
/// When a part of it is no port, or there are too many.
pub fn watched_ports(text: &str) -> Result<WatchedPorts, String> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let ports =
        text.split(',').map(|text| port(text).ok_or_else(|| format!("`{text}` is no port from 1 to 65535")));
    not_too_many(ports.collect::<Result<_, _>>()?).map(WatchedPorts)
}

fn not_too_many(ports: Vec<u16>) -> Result<Vec<u16>, String> {
    if ports.len() > WATCHED_PORTS {
        return Err(format!("{} ports are more than can be watched: at most {WATCHED_PORTS}", ports.len()));
    }
    Ok(ports)
}

pub(super) fn read_watched_ports<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    not_too_many(read_ports(from)?).map_err(D::Error::custom)
}

/// One address, or a list of them.
struct ListenAddresses;

impl<'de> Visitor<'de> for ListenAddresses {
    type Value = Vec<SocketAddr>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an IP:PORT such as [::]:9843, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        listen_address(text).map(|address| vec![address]).map_err(E::custom)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut addresses = Vec::new();
        while let Some(Item(address)) = items.next_element::<Item<SocketAddr>>()? {
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(A::Error::custom("the list is empty: give an IP:PORT such as [::]:9843"));
        }
        Ok(addresses)
    }
}

pub(super) fn read_listen_addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    from.deserialize_any(ListenAddresses)
}

/// A number within bounds.
struct Bounded(RangeInclusive<u32>);

impl Visitor<'_> for Bounded {
    type Value = u32;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a number from {} to {}", self.0.start(), self.0.end())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        u32::try_from(number)
            .ok()
            .filter(|number| self.0.contains(number))
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        Err(E::invalid_value(Unexpected::Signed(number), &self))
    }
}

pub(super) fn read_max_connections<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    from.deserialize_any(Bounded(MAX_CONNECTIONS))
}

pub(super) fn read_slots<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    from.deserialize_any(Bounded(SLOTS))
}

pub(super) fn read_series_limit<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    from.deserialize_any(Bounded(SERIES_LIMIT))
}

/// A mode; tools that still speak YAML 1.1, Helm among them, write `on` and `off` as booleans.
struct ModeVisitor;

impl Visitor<'_> for ModeVisitor {
    type Value = Mode;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("auto, on or off")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Mode, E> {
        match text {
            "auto" => Ok(Mode::Auto),
            "on" => Ok(Mode::On),
            "off" => Ok(Mode::Off),
            _ => Err(E::unknown_variant(text, &["auto", "on", "off"])),
        }
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Mode, E> {
        Ok(if on { Mode::On } else { Mode::Off })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ModeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_every_unit_and_sums() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("7s", 7_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "m", "5 m", "5x", "-5m", "5m3", "1.5h", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(duration(text), Err(no_duration(text)), "{text}");
        }
    }

    #[test]
    fn retention_is_ten_seconds_to_a_day() {
        assert_eq!(retention("10s"), Ok(MIN_RETENTION));
        assert_eq!(retention("24h"), Ok(MAX_RETENTION));
        for text in ["0s", "9s", "9999ms"] {
            assert!(retention(text).unwrap_err().ends_with("at least 10s"), "{text}");
        }
        assert_eq!(retention("25h"), Err("`25h` is longer than a day: at most 1d".to_owned()));
    }

    #[test]
    fn a_port_alone_listens_everywhere() {
        assert_eq!(listen_address(":9843"), Ok("[::]:9843".parse().unwrap()));
        assert_eq!(listen_address("192.0.2.1:80"), Ok("192.0.2.1:80".parse().unwrap()));
        assert!(listen_address("9843").is_err());
    }

    #[test]
    fn ports_to_watch_are_at_most_eight() {
        assert_eq!(watched_ports("2379,2380"), Ok(WatchedPorts(vec![2379, 2380])));
        let eight = "1,2,3,4,5,6,7,8";
        assert_eq!(watched_ports(eight).map(|ports| ports.0.len()), Ok(8));
        assert!(watched_ports(&format!("{eight},9")).unwrap_err().ends_with("at most 8"));
        for text in ["", "0", "65536", "a", "1, 2"] {
            assert!(watched_ports(text).unwrap_err().ends_with("is no port from 1 to 65535"), "{text}");
        }
    }

    #[test]
    fn levels_may_differ_per_module() {
        assert_eq!(log_level("warn,leadline::kernel=trace"), Ok("warn,leadline::kernel=trace".to_owned()));
        assert!(log_level("").is_err());
        assert!(
            log_level("info,leadline=verbose")
                .unwrap_err()
                .starts_with("`verbose` is no level: It takes off")
        );
    }

    #[test]
    fn a_node_is_one_word() {
        let expected = NodeAddresses {
            name: "b".to_owned(),
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        };
        assert_eq!(node("b=192.0.2.7,2001:db8::7"), Ok(expected));
        for wrong in ["b", "=192.0.2.7", "b=", "b=host"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }
}
