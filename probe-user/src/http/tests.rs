//! The server from outside: a real socket, a client that says exactly what the test wants, and clients that misbehave.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    collector::{
        CollectError, Collector, Support,
        agent_self::{AgentSelf, Build, DropReason, EventSource},
        runner,
    },
    event::{Kind as EventKind, Occurrence},
    metric::{Descriptor, Kind, Profile, Value, sink::Sink},
};

const PATIENCE: Duration = Duration::from_secs(20);

static SAMPLE: Descriptor = Descriptor {
    name: "leadline_sample_total",
    kind: Kind::Counter,
    unit: None,
    help: "The number of the run that wrote the page.",
    labels: &["pod"],
    profile: Profile::Minimal,
    source: "a test",
    witness: "this test",
};

/// Writes the number of its run into many series: a page that mixes two runs shows.
#[derive(Default)]
struct Numbered {
    series: usize,
    runs: AtomicU64,
}

impl Collector for Numbered {
    fn name(&self) -> &'static str {
        "numbered"
    }
    fn descriptors(&self) -> &'static [&'static Descriptor] {
        const ALL: &[&Descriptor] = &[&SAMPLE];
        ALL
    }
    fn support(&self) -> Support {
        Support::Degraded("it is a test")
    }
    fn collect(&self, sink: &mut Sink<'_>) -> Result<(), CollectError> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let mut family = sink.family(&SAMPLE);
        for pod in 0..self.series {
            family.value(&[&format!("pod-{pod}")], Value::Integer(run));
        }
        Ok(())
    }
}

/// A running server and everything behind it.
struct Fixture {
    address: SocketAddr,
    content: Content,
    numbered: Arc<Numbered>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn start(series: usize, limits: Limits) -> Fixture {
    let metrics = SelfMetrics::new(&Build { version: "1.2.3", revision: "" }).unwrap();
    let numbered = Arc::new(Numbered { series, ..Numbered::default() });
    let collectors: Vec<Arc<dyn Collector>> =
        vec![numbered.clone(), Arc::new(AgentSelf::new(metrics.clone()))];
    let content = Content {
        runner: Arc::new(Runner::new(collectors, runner::Limits { max_series: usize::MAX })),
        timeline: Arc::new(Timeline::new(8, metrics.events_lost(EventSource::Timeline))),
        readiness: Readiness::new(&["programs attached", "peers known"]),
        metrics,
        version: "1.2.3",
    };
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ended = stopped.await;
    };
    let server = serve(listener, content.clone(), limits, shutdown).unwrap();
    Fixture { address, content, numbered, stop, server }
}

/// Limits short enough for a test that waits for them.
fn hasty() -> Limits {
    Limits {
        connections: 2,
        queue: Duration::from_millis(100),
        head: Duration::from_millis(200),
        request: Duration::from_millis(400),
        follow: Duration::from_millis(50),
        stop: Duration::from_millis(500),
    }
}

impl Fixture {
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// One request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        let mut stream = self.send(&request).await;
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        parse(&bytes)
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, headers).await
    }

    async fn dropped(&self, reason: DropReason, count: u64) {
        let counter = self.content.metrics.http_dropped(reason);
        eventually(|| counter.get() >= count).await;
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a complete head");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let headers = headers.lines().map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    });
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
}

async fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "the condition did not come true in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn metrics_are_text_unless_asked_otherwise() {
    let fixture = start(1, Limits::default());
    let answer = fixture.get("/metrics", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("vary"), "Accept, Accept-Encoding");
    assert_eq!(answer.header("content-encoding"), "");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert!(
        answer
            .text()
            .contains("# TYPE leadline_sample_total counter\nleadline_sample_total{pod=\"pod-0\"} 1\n")
    );
}

#[tokio::test]
async fn open_metrics_when_preferred() {
    let fixture = start(1, Limits::default());
    let accept = "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6\r\n\
                  Accept: text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
    let answer = fixture.get("/metrics", accept).await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text().contains("# TYPE leadline_sample counter\n"));
    assert!(answer.text().ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn pages_are_compressed_as_offered() {
    let fixture = start(1_000, Limits::default());
    let gzip = fixture.get("/metrics", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(gzip.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("leadline_sample_total{pod=\"pod-999\"} 1\n"));

    let zstd = fixture.get("/metrics", "Accept-Encoding: gzip;q=0.9, zstd\r\n").await;
    assert_eq!(zstd.header("content-encoding"), "zstd");
    let text = String::from_utf8(::zstd::decode_all(zstd.body.as_slice()).unwrap()).unwrap();
    assert!(text.contains("leadline_sample_total{pod=\"pod-999\"} 2\n"));

    let plain = fixture.get("/metrics", "Accept-Encoding: *, br\r\n").await;
    assert_eq!(plain.header("content-encoding"), "");
    assert!(gzip.body.len() < plain.body.len() / 4 && zstd.body.len() < plain.body.len() / 4);
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let fixture = start(1, Limits::default());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = fixture.ask(method, "/metrics", "Content-Length: 0\r\n").await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    }
    let head = fixture.ask("HEAD", "/healthz", "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "3", 0));
}

#[tokio::test]
async fn unknown_paths_get_a_hint_and_one_label() {
    let fixture = start(1, Limits::default());
    let answer = fixture.get("/metrix", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain; charset=utf-8"));
    assert!(answer.text().contains("/metrics"));
    let answer = fixture.get("/api/v2/events", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"));
    assert!(answer.text().contains("/api/v1/events"));
    let page = fixture.get("/metrics", "").await;
    assert!(page.text().contains("leadline_http_requests_total{path=\"other\",code=\"404\"} 2\n"));
}

#[tokio::test]
async fn health_never_touches_the_collectors() {
    let fixture = start(1, Limits::default());
    for path in ["/healthz", "/readyz", "/api/v1/events"] {
        fixture.get(path, "").await;
    }
    assert_eq!(fixture.get("/healthz", "").await.text(), "ok\n");
    assert_eq!(fixture.numbered.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let fixture = start(1, Limits::default());
    let answer = fixture.get("/readyz", "").await;
    assert_eq!((answer.status, answer.text()), (503, "waiting for: programs attached, peers known\n"));
    fixture.content.readiness.latch("programs attached").unwrap().set();
    assert_eq!(fixture.get("/readyz", "").await.text(), "waiting for: peers known\n");
    fixture.content.readiness.latch("peers known").unwrap().set();
    assert_eq!(fixture.get("/readyz", "").await.status, 200);
}

#[tokio::test]
async fn the_front_page_lists_collectors() {
    let fixture = start(1, Limits::default());
    let answer = fixture.get("/", "").await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.text().contains("<td>numbered</td><td>degraded</td><td>it is a test</td>"));
}

#[tokio::test]
async fn events_are_paged() {
    let fixture = start(1, Limits::default());
    for pod in ["a/x", "a/y", "a/z"] {
        fixture.content.timeline.record(Occurrence::now(EventKind::PodStarted, pod));
    }
    let answer = fixture.get("/api/v1/events?since=1&limit=1", "").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(page["events"][0]["subject"], "a/y");
    assert_eq!((&page["next"], &page["lost"]), (&2.into(), &0.into()));
    let wrong = fixture.get("/api/v1/events?limit=none", "").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("1 to 4096"), "{}", wrong.text());
}

#[tokio::test]
async fn a_follower_gets_the_next_event_at_once() {
    let fixture = start(1, Limits::default());
    let mut stream = fixture.send("GET /api/v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually(|| fixture.content.metrics.http_connections().get() == 1).await;
    fixture.content.timeline.record(Occurrence::now(EventKind::PodStopped, "a/x"));
    let mut bytes = vec![0; 4096];
    let size = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
    assert!(parse(&bytes[..size]).text().contains("\"kind\":\"pod_stopped\""));
}

#[tokio::test]
async fn following_ends_after_a_while() {
    let fixture = start(1, hasty());
    let answer = fixture.get("/api/v1/events?follow=true", "").await;
    assert_eq!(answer.text(), "{\"events\":[],\"next\":0,\"lost\":0}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_scrapes_get_whole_pages() {
    let fixture = Arc::new(start(2_000, Limits::default()));
    let scrape = |fixture: Arc<Fixture>| async move {
        // Kept alive: more clients than places, none of which says that it is done.
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n";
        let mut stream = fixture.send(request).await;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\n# EOF\n") {
            assert!(timeout(PATIENCE, stream.read_buf(&mut bytes)).await.unwrap().unwrap() > 0, "cut short");
        }
        (stream, parse(&bytes))
    };
    let scrapes: Vec<_> = (0..100).map(|_| tokio::spawn(scrape(fixture.clone()))).collect();
    let start = Instant::now();
    let mut pages = BTreeMap::<String, Vec<u8>>::new();
    for scrape in scrapes {
        let (_stream, answer) = scrape.await.unwrap();
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let samples =
            answer.text().lines().filter_map(|line| line.strip_prefix("leadline_sample_total{pod="));
        let mut runs: Vec<&str> = samples.filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(runs.len(), 2_000);
        let run = runs[0].to_owned();
        runs.dedup();
        assert_eq!(runs.len(), 1, "a page of two runs");
        assert_eq!(pages.entry(run).or_insert_with(|| answer.body.clone()), &answer.body);
    }
    assert!(start.elapsed() < Duration::from_secs(4), "clients waited for idle connections to time out");
    assert_eq!(fixture.content.metrics.http_dropped(DropReason::Limit).get(), 0);
}

#[tokio::test]
async fn a_slow_head_is_cut_and_counted() {
    let fixture = start(1, hasty());
    let mut stream = fixture.send("GET /metrics HTTP/1.1\r\nHost: ").await;
    let mut bytes = Vec::new();
    let dripping = async {
        // One byte at a time, each well within any per-read timeout.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dripping).await.unwrap();
    let _reset = stream.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
    fixture.dropped(DropReason::Timeout, 1).await;
}

#[tokio::test]
async fn silence_after_a_response_is_not_a_timeout() {
    let fixture = start(1, hasty());
    let mut stream = fixture.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(parse(&bytes).status, 200);
    eventually(|| fixture.content.metrics.http_connections().get() == 0).await;
    assert_eq!(fixture.content.metrics.http_dropped(DropReason::Timeout).get(), 0);
}

#[tokio::test]
async fn a_slow_reader_is_cut_and_counted() {
    let fixture = start(400_000, hasty());
    let _unread = fixture.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    fixture.dropped(DropReason::Timeout, 1).await;
    eventually(|| fixture.content.metrics.http_connections().get() == 0).await;
}

#[tokio::test]
async fn too_many_connections_are_closed_and_counted() {
    let fixture = start(1, Limits { head: PATIENCE, ..hasty() });
    let _silent = [fixture.send("G").await, fixture.send("G").await];
    let mut third = fixture.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut bytes = Vec::new();
    let _reset = timeout(PATIENCE, third.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty());
    fixture.dropped(DropReason::Limit, 1).await;
}

#[tokio::test]
async fn idle_connections_make_room() {
    let limits = Limits { head: PATIENCE, queue: PATIENCE, connections: 1, ..Limits::default() };
    let fixture = start(1, limits);
    let mut idle = fixture.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut bytes = [0; 1024];
    let size = idle.read(&mut bytes).await.unwrap();
    assert_eq!(parse(&bytes[..size]).header("connection"), "close");
    let start = Instant::now();
    assert_eq!(fixture.get("/healthz", "").await.status, 200);
    assert!(start.elapsed() < PATIENCE / 4);
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let fixture = start(1, Limits::default());
    let answer = fixture.get("/metrics", &format!("X-Padding: {}\r\n", "x".repeat(20_000))).await;
    assert_eq!(answer.status, 431);
    let answer = fixture.get("/metrics", &"A: b\r\n".repeat(100)).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn stopping_lets_followers_go_and_closes_the_door() {
    let fixture = start(1, Limits::default());
    let mut follower = fixture.send("GET /api/v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually(|| fixture.content.metrics.http_connections().get() == 1).await;
    let mut greeting = fixture.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut bytes = [0; 1024];
    assert!(greeting.read(&mut bytes).await.unwrap() > 0);
    fixture.stop.send(()).unwrap();
    timeout(Duration::from_secs(4), fixture.server).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    follower.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(parse(&bytes).text(), "{\"events\":[],\"next\":0,\"lost\":0}\n");
    assert!(TcpStream::connect(fixture.address).await.is_err());
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_client_that_never_ends() {
    let fixture = start(400_000, Limits { request: PATIENCE, ..hasty() });
    let _unread = fixture.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually(|| fixture.numbered.runs.load(Ordering::SeqCst) == 1).await;
    fixture.stop.send(()).unwrap();
    timeout(PATIENCE / 2, fixture.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_address_is_named_with_what_to_do() {
    let fixture = start(1, Limits::default());
    let error = bind(fixture.address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}; ", fixture.address)), "{error}");
    assert!(error.ends_with("stop it or choose another port"), "{error}");
    let error = bind("192.0.2.1:9843".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no interface of this host has that address"), "{error}");
}
