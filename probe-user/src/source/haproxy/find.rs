//! Where HAProxy may be asked on this node: what its configuration file says, and usual places of its socket.
//!
//! Of the file only the stats sockets and a prometheus-exporter are looked for; the rest is HAProxy's business.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::Address;
use crate::config::{Haproxy, MetricsUrl, StatsSocket};

/// Path of the file below the root.
const CONFIG: &str = "etc/haproxy/haproxy.cfg";
/// What is read of the file.
const LONGEST: u64 = 4 << 20;
/// Below directories that only root writes to: whoever else could make a socket there would tell us anything.
const USUAL: [&str; 4] =
    ["run/haproxy/admin.sock", "run/haproxy.sock", "var/run/haproxy.sock", "var/lib/haproxy/stats"];
const PAGE: &str = "/metrics";
/// What is tried of a kind that the file has: each may keep us waiting.
const TRIED: usize = 8;

/// Where to ask, the best first.
#[derive(Debug, Default)]
pub struct Candidates {
    /// All of them.
    pub addresses: Vec<Address>,
    /// Whether the administrator gave them: then nothing else is tried, and one that is not there is a fault.
    pub are_given: bool,
    /// What is known of the configuration file.
    pub file: ConfigFile,
}

/// HAProxy's own configuration file.
#[derive(Debug, Default)]
pub enum ConfigFile {
    /// There is none, or nobody looked.
    #[default]
    Absent,
    /// It was read; whether it names a stats socket or an exporter that can be asked.
    Read {
        /// Whether it does.
        names_any: bool,
    },
    /// It is there and could not be read.
    Unreadable(io::Error),
}

/// Everything that may be asked on this node.
#[must_use]
pub fn candidates(root: &Path, given: &Haproxy) -> Candidates {
    let socket = given.stats_socket.clone().map(Address::Socket);
    let mut addresses: Vec<Address> =
        socket.into_iter().chain(given.metrics_url.clone().map(Address::Page)).collect();
    if !addresses.is_empty() {
        return Candidates { addresses, are_given: true, file: ConfigFile::Absent };
    }
    let (found, file) = match read_config(root) {
        Ok(Some(text)) => {
            let found = parse(&text);
            let names_any = !found.sockets.is_empty() || !found.pages.is_empty();
            (found, ConfigFile::Read { names_any })
        }
        Ok(None) => (Found::default(), ConfigFile::Absent),
        Err(error) => (Found::default(), ConfigFile::Unreadable(error)),
    };
    let usual = USUAL.iter().filter(|path| is_socket(&root.join(path)));
    let usual = usual.map(|path| StatsSocket::Unix(Path::new("/").join(path)));
    for socket in found.sockets.into_iter().take(TRIED).chain(usual) {
        let address = Address::Socket(socket);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.extend(found.pages.into_iter().take(TRIED).map(Address::Page));
    Candidates { addresses, are_given: false, file }
}

/// Whether a socket is seen there. A directory that is closed to us says nothing of an HAProxy.
fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn read_config(root: &Path) -> io::Result<Option<String>> {
    let file = match File::open(root.join(CONFIG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What a configuration names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    sockets: Vec<StatsSocket>,
    pages: Vec<MetricsUrl>,
}

/// A section that takes connections, as far as it has been read.
#[derive(Debug, Default)]
struct Section {
    binds: Vec<SocketAddr>,
    page: Option<String>,
}

impl Section {
    /// The page, once both its address and its rule were seen; a section has either of them first.
    fn finish(self, found: &mut Found) {
        if let (Some(address), Some(path)) = (self.binds.first(), self.page) {
            found.pages.push(MetricsUrl { authority: address.to_string(), path });
        }
    }
}

fn parse(text: &str) -> Found {
    let mut found = Found::default();
    let mut section = Section::default();
    let mut is_global = false;
    for line in text.lines() {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["global", ..] => is_global = true,
            [
                "defaults" | "frontend" | "backend" | "listen" | "peers" | "resolvers" | "userlist" | "cache"
                | "program" | "mailers" | "ring" | "http-errors" | "log-forward" | "fcgi-app" | "crt-store"
                | "traces",
                ..,
            ] => {
                is_global = false;
                std::mem::take(&mut section).finish(&mut found);
            }
            ["stats", "socket", address, ..] if is_global => found.sockets.extend(stats_address(address)),
            ["bind", addresses, options @ ..] if !options.contains(&"ssl") => {
                section.binds.extend(addresses.split(',').filter_map(tcp_address));
            }
            ["http-request", "use-service", "prometheus-exporter", condition @ ..] => {
                section.page = Some(page_of(condition).to_owned());
            }
            _ => {}
        }
    }
    section.finish(&mut found);
    found
}

/// The words of a line: separated by blanks, in quotes or with backslashes where they hold some, up to a `#`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// An address of a stats socket. Inherited descriptors (`fd@`), abstract names and variables cannot be asked at.
fn stats_address(text: &str) -> Option<StatsSocket> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    if path.starts_with('/') {
        return Some(StatsSocket::Unix(path.into()));
    }
    tcp_address(text).map(StatsSocket::Tcp)
}

/// An address to connect to for one that is bound: that of this machine where it is bound to all.
fn tcp_address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (host, port) = bare.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = match host {
        "" | "*" | "0.0.0.0" => Ipv4Addr::LOCALHOST.into(),
        "::" => Ipv6Addr::LOCALHOST.into(),
        host => host.parse().ok()?,
    };
    Some(SocketAddr::new(address, port))
}

/// The path of a condition such as `if { path /metrics }`.
fn page_of<'a>(condition: &[&'a str]) -> &'a str {
    let paths = condition.windows(2).filter(|pair| pair[0] == "path").map(|pair| pair[1]);
    paths.into_iter().find(|path| path.starts_with('/')).unwrap_or(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: &Found) -> (Vec<String>, Vec<String>) {
        (
            found.sockets.iter().map(ToString::to_string).collect(),
            found.pages.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn stats_sockets_of_every_form_are_found() {
        let text = r#"
global   # stats socket /commented
    stats timeout 30s
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
	stats  socket	unix@/run/two.sock user root
    stats socket ipv4@127.0.0.1:9999 level user
    stats socket *:9998
    stats socket [::]:9997
    stats socket "/run/with space.sock"
    stats socket /run/with\ another.sock
    stats socket fd@3
    stats socket abns@name
    stats socket "$SOCKET"
    # stats socket /commented
defaults
    stats socket /not/global
"#;
        let (sockets, pages) = shown(&parse(text));
        let expected = [
            "/run/haproxy/admin.sock",
            "/run/two.sock",
            "127.0.0.1:9999",
            "127.0.0.1:9998",
            "[::1]:9997",
            "/run/with space.sock",
            "/run/with another.sock",
        ];
        assert_eq!(sockets, expected);
        assert!(pages.is_empty());
    }

    #[test]
    fn an_exporter_is_found_with_its_address_and_path() {
        let text = "frontend api\n  bind :6443\nfrontend metrics\n  bind 192.168.56.11:8405\n  mode http\n  \
            http-request use-service prometheus-exporter if { path /own }\nlisten stats\n  \
            http-request use-service prometheus-exporter\n  bind *:8404,:8406\nfrontend tls\n  \
            bind :8443 ssl crt /x.pem\n  http-request use-service prometheus-exporter if { path /metrics }\n";
        let (sockets, pages) = shown(&parse(text));
        assert!(sockets.is_empty());
        assert_eq!(pages, ["http://192.168.56.11:8405/own", "http://127.0.0.1:8404/metrics"]);
    }

    #[test]
    fn words_end_at_blanks_and_comments() {
        assert_eq!(words(r"a 'b # c' d\#e f#g"), ["a", "b # c", "d#e", "f"]);
        assert_eq!(words(r#"'' "a\"b" 'unfinished"#), ["", "a\"b", "unfinished"]);
        assert!(words("  # nothing").is_empty());
    }

    #[test]
    fn the_file_comes_before_usual_places_and_what_is_given_before_all() {
        let root = std::env::temp_dir().join(format!("leadline-find-{}", std::process::id()));
        for directory in ["etc/haproxy", "run/haproxy", "var/lib/haproxy"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let text = "global\n stats socket /own.sock\nlisten m\n bind :8405\n http-request use-service prometheus-exporter\n";
        fs::write(root.join(CONFIG), text).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(root.join("run/haproxy/admin.sock")).unwrap();
        fs::write(root.join("var/lib/haproxy/stats"), "no socket").unwrap();
        let found = candidates(&root, &Haproxy::default());
        let given = Haproxy { stats_socket: Some(StatsSocket::Unix("/given".into())), metrics_url: None };
        let explicit = candidates(&root, &given);
        fs::remove_dir_all(&root).unwrap();
        let shown: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/own.sock", "/run/haproxy/admin.sock", "http://127.0.0.1:8405/metrics"]);
        assert!(!found.are_given && matches!(found.file, ConfigFile::Read { names_any: true }));
        assert_eq!(explicit.addresses, [Address::Socket(StatsSocket::Unix("/given".into()))]);
        assert!(explicit.are_given);
    }

    #[test]
    fn a_node_without_haproxy_has_nothing_to_try() {
        let found = candidates(Path::new("/nonexistent/root"), &Haproxy::default());
        assert!(found.addresses.is_empty() && matches!(found.file, ConfigFile::Absent));
    }
}
