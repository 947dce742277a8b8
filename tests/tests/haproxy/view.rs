//! The same facts from three sources: the agent's page, HAProxy's exporter, and `show stat`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use lab::scrape::{Sample, Samples};

/// The frontend of HAProxy's exporter.
const EXPORTER: &str = "metrics";

/// What is known of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) state: String,
    /// HAProxy's word in small letters.
    pub(crate) check: Option<String>,
    pub(crate) downs: Option<u64>,
}

/// What is known of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) up: Option<u64>,
    pub(crate) active: Option<u64>,
    pub(crate) current: Option<u64>,
    pub(crate) sessions: Option<u64>,
}

/// What is known of a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frontend {
    pub(crate) up: Option<u64>,
    pub(crate) current: Option<u64>,
    pub(crate) sessions: Option<u64>,
}

/// All facts; times, which waver by a second, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) servers: BTreeMap<String, Server>,
    pub(crate) backends: BTreeMap<String, Backend>,
    /// But for that of the exporter, which whoever looks changes.
    pub(crate) frontends: BTreeMap<String, Frontend>,
}

/// When each server and backend changed last, in seconds since 1970.
pub(crate) type Changes = BTreeMap<String, u64>;

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_secs())
}

fn name(sample: &Sample, labels: [&str; 2]) -> Option<String> {
    let [backend, server] = labels.map(|label| sample.label(label));
    Some(format!("{}/{}", backend?, server?))
}

/// The label of the one series of each server that is 1, where the others are 0.
fn one_hot(page: &Samples, family: &str, labels: [&str; 2], state: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for sample in page.of(family, |_| true) {
        let (name, word) = (name(sample, labels), sample.label(state));
        let (name, word) = name.zip(word).with_context(|| format!("{family} without labels"))?;
        match sample.count() {
            Some(0) => {}
            Some(1) => {
                let other = found.insert(name.clone(), word.to_owned());
                ensure!(other.is_none(), "{name} is {word} and {other:?}");
            }
            _ => bail!("{family} of {name} is {}", sample.text),
        }
    }
    Ok(found)
}

fn counts(page: &Samples, family: &str, labels: [&str; 2]) -> BTreeMap<String, u64> {
    page.of(family, |_| true).filter_map(|sample| Some((name(sample, labels)?, sample.count()?))).collect()
}

fn plain(page: &Samples, family: &str, label: &str) -> BTreeMap<String, u64> {
    let samples = page.of(family, |_| true);
    samples.filter_map(|sample| Some((sample.label(label)?.to_owned(), sample.count()?))).collect()
}

/// What the agent says.
pub(crate) fn of_agent(page: &Samples) -> Result<(View, Changes)> {
    let labels = ["backend", "server"];
    let mut view = View::default();
    let checks = one_hot(page, "leadline_haproxy_server_check_result", labels, "result")?;
    let downs = counts(page, "leadline_haproxy_server_down_transitions_total", labels);
    for (name, state) in one_hot(page, "leadline_haproxy_server_state", labels, "state")? {
        let (check, downs) = (checks.get(&name).cloned(), downs.get(&name).copied());
        view.servers.insert(name, Server { state, check, downs });
    }
    for sample in page.of("leadline_haproxy_backend_up", |_| true) {
        let backend = sample.label("backend").context("no backend")?;
        let of =
            |family: &str| page.count(&format!("leadline_haproxy_backend_{family}"), &[("backend", backend)]);
        let known = Backend {
            up: of("up"),
            active: of("active_servers"),
            current: of("current_sessions"),
            sessions: of("sessions_total"),
        };
        view.backends.insert(backend.to_owned(), known);
    }
    for sample in page.of("leadline_haproxy_frontend_up", |_| true) {
        let frontend = sample.label("frontend").context("no frontend")?;
        let of = |family: &str| {
            page.count(&format!("leadline_haproxy_frontend_{family}"), &[("frontend", frontend)])
        };
        let known =
            Frontend { up: of("up"), current: of("current_sessions"), sessions: of("sessions_total") };
        view.frontends.insert(frontend.to_owned(), known);
    }
    view.frontends.remove(EXPORTER);
    let mut changes = counts(page, "leadline_haproxy_server_last_change_timestamp_seconds", labels);
    changes.extend(plain(page, "leadline_haproxy_backend_last_change_timestamp_seconds", "backend"));
    Ok((view, changes))
}

/// The agent's word for what HAProxy says first; the page of its exporter has the same words as the socket but one.
fn state(status: &str, through_page: bool) -> &'static str {
    match status.split(' ').next() {
        Some("UP") => "up",
        Some("DOWN") => "down",
        Some("MAINT") => "maintenance",
        Some("DRAIN" | "NOLB") => "drain",
        Some("no") if through_page => "up",
        Some("no") => "no_check",
        _ => "unknown",
    }
}

/// What the exporter says, as the agent would from the socket.
pub(crate) fn of_page(page: &Samples) -> Result<(View, Changes)> {
    let labels = ["proxy", "server"];
    let mut view = View::default();
    let checks = one_hot(page, "haproxy_server_check_status", labels, "state")?;
    let downs = counts(page, "haproxy_server_check_up_down_total", labels);
    for (name, word) in one_hot(page, "haproxy_server_status", labels, "state")? {
        let check = checks.get(&name).map(|word| word.to_lowercase());
        let downs = downs.get(&name).copied();
        // The test knows what the exporter does not say: which server is not checked.
        let is_unchecked = name == format!("{}/plain", lab::haproxy::UNCHECKED);
        let state = if is_unchecked { "no_check" } else { state(&word, true) };
        view.servers.insert(name, Server { state: state.to_owned(), check, downs });
    }
    for sample in page.of("haproxy_backend_active_servers", |_| true) {
        let backend = sample.label("proxy").context("no proxy")?;
        let of = |family: &str| page.count(&format!("haproxy_backend_{family}"), &[("proxy", backend)]);
        let up = page.count("haproxy_backend_status", &[("proxy", backend), ("state", "UP")]);
        let known = Backend {
            up,
            active: of("active_servers"),
            current: of("current_sessions"),
            sessions: of("sessions_total"),
        };
        view.backends.insert(backend.to_owned(), known);
    }
    for sample in page.of("haproxy_frontend_sessions_total", |_| true) {
        let frontend = sample.label("proxy").context("no proxy")?;
        let of = |family: &str| page.count(&format!("haproxy_frontend_{family}"), &[("proxy", frontend)]);
        let up = page.count("haproxy_frontend_status", &[("proxy", frontend), ("state", "UP")]);
        let known = Frontend { up, current: of("current_sessions"), sessions: of("sessions_total") };
        view.frontends.insert(frontend.to_owned(), known);
    }
    view.frontends.remove(EXPORTER);
    let mut ago = counts(page, "haproxy_server_check_last_change_seconds", labels);
    ago.extend(plain(page, "haproxy_backend_check_last_change_seconds", "proxy"));
    let now = now()?;
    Ok((view, ago.into_iter().map(|(name, ago)| (name, now.saturating_sub(ago))).collect()))
}

/// What the stats socket says, as the agent would from the page.
pub(crate) fn of_stat(answer: &str) -> Result<(View, Changes)> {
    let mut lines = answer.lines().filter(|line| !line.is_empty());
    let header: Vec<&str> = lines.next().context("no answer")?.trim_start_matches("# ").split(',').collect();
    let (mut view, mut changes, now) = (View::default(), Changes::new(), now()?);
    for line in lines {
        let row: BTreeMap<&str, &str> = header.iter().copied().zip(line.split(',')).collect();
        let count = |column: &str| row.get(column).and_then(|text| text.parse::<u64>().ok());
        let [backend, server, status] = ["pxname", "svname", "status"].map(|column| row[column]);
        match server {
            "FRONTEND" => {
                let up = Some(u64::from(status == "OPEN"));
                let known = Frontend { up, current: count("scur"), sessions: count("stot") };
                view.frontends.insert(backend.to_owned(), known);
            }
            "BACKEND" => {
                let (up, active) = (Some(u64::from(status == "UP")), count("act"));
                let known = Backend { up, active, current: count("scur"), sessions: count("stot") };
                view.backends.insert(backend.to_owned(), known);
                let ago = count("lastchg").with_context(|| format!("lastchg of {backend}"))?;
                changes.insert(backend.to_owned(), now.saturating_sub(ago));
            }
            _ => {
                let name = format!("{backend}/{server}");
                let check = Some(row["check_status"].trim_start_matches("* ").to_lowercase());
                let check = check.filter(|check| !check.is_empty());
                let state = state(status, true).to_owned();
                view.servers.insert(name.clone(), Server { state, check, downs: count("chkdown") });
                let ago = count("lastchg").with_context(|| format!("lastchg of {name}"))?;
                changes.insert(name, now.saturating_sub(ago));
            }
        }
    }
    view.frontends.remove(EXPORTER);
    Ok((view, changes))
}
