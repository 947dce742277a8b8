//! What a client sees of a failover, against what is told of it: real HAProxy on every node that may have the address, in
//! front of servers of its own, and requests in flight all the time.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::haproxy::{BACKEND, Haproxy, Health, SERVERS, Server, Spec as Balancer};
use lab::keepalived::Spec;
use lab::witness::{ensure_precise, measured};
use lab::{Lab, Place as _, wait_until};

use crate::stage::{BYSTANDER, LIMIT, Observer, PORT, Stage};

/// Workers that take turns: together they ask every five milliseconds.
const WORKERS: u32 = 40;
const PERIOD: Duration = Duration::from_millis(200);
/// A request that takes longer has failed: a packet was lost, and nobody waits for it to be sent again. A worker that
/// gives up has its next turn when it is due.
const PATIENCE: Duration = Duration::from_millis(180);
/// How much longer the client may see the outage: until its next turn, and a whole exchange instead of the first segment.
const SLACK: f64 = 0.03;
/// How much shorter: its last answer may have been under way.
const EARLY: f64 = 0.002;

struct Balanced {
    _balancers: Vec<Haproxy>,
    /// Of node1.
    servers: Vec<Server>,
    _others: Vec<Server>,
}

/// A balancer with three servers on each node that may have the address.
fn balance(lab: &Lab) -> Result<Balanced> {
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
    let (mut balancers, mut servers, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for index in 1..BYSTANDER {
        let node = lab.node(index)?;
        for (_, address) in SERVERS {
            let server = Server::start(node, address)?;
            if index == 1 { servers.push(server) } else { others.push(server) }
        }
        balancers.push(Haproxy::start(node, &Balancer { frontend: everywhere, ..Balancer::default() })?);
    }
    Ok(Balanced { _balancers: balancers, servers, _others: others })
}

/// One request through the address; whether it was answered with 200.
fn request(to: SocketAddr) -> bool {
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    exchange().unwrap_or(false)
}

/// What the client saw: when each good answer was there, and how many requests failed.
struct Seen {
    answers: Vec<Instant>,
    failed: usize,
}

impl Seen {
    /// The longest time without an answer.
    fn outage(&self) -> Option<f64> {
        let gaps = self.answers.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64());
        gaps.max_by(f64::total_cmp)
    }
}

/// Asks until told to stop; on threads of the calling one's network namespace.
fn ask(to: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Seen {
    let begun = Instant::now();
    let work = |number: u32| {
        let (mut answers, mut failed) = (Vec::new(), 0);
        let mut due = begun + PERIOD * number / WORKERS;
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if request(to) {
                answers.push(Instant::now());
                answered.fetch_add(1, Ordering::Relaxed);
            } else {
                failed += 1;
            }
            while due <= Instant::now() {
                due += PERIOD;
            }
        }
        (answers, failed)
    };
    let seen: Vec<(Vec<Instant>, usize)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || work(number))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let failed = seen.iter().map(|(_, failed)| failed).sum();
    let mut answers: Vec<Instant> = seen.into_iter().flat_map(|(answers, _)| answers).collect();
    answers.sort_unstable();
    Seen { answers, failed }
}

/// Has the client ask while something is done that moves the address, and until the new owner has served.
fn during(lab: &Lab, stage: &mut Stage, act: impl FnOnce(&mut Stage) -> Result<()>) -> Result<(Seen, f64)> {
    let (to, stop) = (SocketAddr::new(stage.vip, PORT), AtomicBool::new(false));
    let answered = AtomicUsize::new(0);
    let more = |what: &str| {
        let enough = answered.load(Ordering::Relaxed) + 2 * WORKERS as usize;
        wait_until(what, LIMIT, || answered.load(Ordering::Relaxed) >= enough)
    };
    let client = lab.node(BYSTANDER)?;
    thread::scope(|scope| {
        let asking = scope.spawn(|| client.net(|| ask(to, &stop, &answered)));
        let told = (|| -> Result<f64> {
            let vip = stage.vip;
            more("the client to be answered")?;
            act(stage)?;
            let observer = stage.observers.last().context("no observer")?;
            let mut total = None;
            wait_until("the end of the failover", LIMIT, || {
                total =
                    observer.agent.scrape().ok().and_then(|page| Observer::phase(&page, vip, "total").ok());
                total.is_some()
            })?;
            more("the client to be answered again")?;
            total.context("no total")
        })();
        stop.store(true, Ordering::Relaxed);
        let seen = asking.join().ok().context("the client panicked")??;
        Ok((seen, told?))
    })
}

fn check(what: &str, seen: &Seen, told: f64) -> Result<()> {
    let outage = seen.outage().context("no answers")?;
    println!(
        "{what}: {} answers and {} failures, without an answer for {outage:.4} s, told {told:.4} s",
        seen.answers.len(),
        seen.failed
    );
    ensure_precise((told - EARLY..=told + SLACK).contains(&outage), || {
        format!("{outage} s without an answer, told {told} s")
    })
}

fn shutdown() -> Result<()> {
    let lab = Stage::lab()?;
    let _balanced = balance(&lab)?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let (seen, told) = during(&lab, &mut stage, |stage| stage.trio.daemon(1)?.terminate().map(drop))?;
    check("shutdown", &seen, told)
}

#[test]
fn a_client_sees_the_outage_that_is_told() -> Result<()> {
    measured(shutdown)
}

fn lost_link() -> Result<()> {
    let lab = Stage::lab()?;
    let _balanced = balance(&lab)?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let (seen, told) = during(&lab, &mut stage, |_| lab.node(1)?.ip("link set eth0 down"))?;
    // The last advertisement was up to a second before the link went.
    ensure!(told > 2.0, "an outage of {told} s");
    check("link", &seen, told)
}

#[test]
fn a_client_sees_a_lost_link_for_as_long_as_is_told() -> Result<()> {
    measured(lost_link)
}

fn dead_backend() -> Result<()> {
    let lab = Stage::lab()?;
    let mut balanced = balance(&lab)?;
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let down = [("backend", BACKEND), ("server", SERVERS[0].0), ("state", "down")];
    let (seen, told) = during(&lab, &mut stage, |stage| {
        balanced.servers[0].set(Health::Dead)?;
        let owner = stage.observers.first().context("no observer")?;
        wait_until("the dead server", LIMIT, || {
            let page = owner.agent.scrape();
            page.is_ok_and(|page| page.count("leadline_haproxy_server_state", &down) == Some(1))
        })?;
        let page = owner.agent.scrape()?;
        ensure!(page.sum("leadline_vip_failovers_total", |_| true) == Some(0), "the address has moved");
        stage.trio.daemon(1)?.terminate().map(drop)
    })?;
    check("dead backend, then shutdown", &seen, told)?;
    let events = stage.observers.first().context("no observer")?.agent.get("/api/v1/events", &[])?;
    let events: serde_json::Value = serde_json::from_str(events.text()?).context("the events are no JSON")?;
    let kinds = events["events"].as_array().context("no list of events")?.iter();
    let kinds: Vec<&str> = kinds.filter_map(|event| event["kind"].as_str()).collect();
    let position = |kind: &str| kinds.iter().position(|known| *known == kind);
    let (down, moved) = (position("haproxy_server_down"), position("vip_moved"));
    ensure!(down.is_some() && down < moved, "{kinds:?}");
    Ok(())
}

#[test]
fn a_backend_that_dies_is_told_apart_from_the_address_that_moves() -> Result<()> {
    measured(dead_backend)
}
