//! The demo as its user sees it: it shows every pod, its pages can be reached, it ends well and leaves nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process;
use nix::sys::signal::Signal;

const PODS: [&str; 9] = [
    "default/crawler",
    "media/camera",
    "shop/web",
    "backup/store",
    "media/screen",
    "shop/cart",
    "backup/dump",
    "dns/resolver",
    "shop/db",
];

/// A running demo, and what it has written so far.
struct Demo {
    child: Child,
    output: Box<dyn BufRead>,
    text: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let mut child = command.arg("demo").args(arguments).stdout(Stdio::piped()).spawn()?;
        let output = Box::new(BufReader::new(child.stdout.take().context("no output")?));
        Ok(Self { child, output, text: String::new() })
    }

    /// Reads up to the line that contains the words.
    fn read_until(&mut self, words: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "{words} did not come in\n{}", self.text);
            self.text += &line;
            if line.contains(words) {
                return Ok(());
            }
        }
    }

    /// Reads to the end, and checks how it ended and that nothing stays.
    fn end(mut self) -> Result<String> {
        self.output.read_to_string(&mut self.text)?;
        let status = process::wait_exit(&mut self.child, "the demo", Duration::from_secs(10))?;
        ensure!(status.success(), "{status}\n{}", self.text);
        let ours = format!("leadline-lab-{}-", self.child.id());
        for directory in [lab::cgroup::v2_root()?, std::env::temp_dir()] {
            let left: Vec<_> = fs::read_dir(&directory)?
                .filter_map(Result::ok)
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours))
                .collect();
            ensure!(left.is_empty(), "left in {}: {left:?}", directory.display());
        }
        for (_, address) in urls(&self.text) {
            ensure!(TcpStream::connect(&address).is_err(), "{address} is still open");
        }
        Ok(std::mem::take(&mut self.text))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended already if the test passed.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// Node and address of the pages.
fn urls(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| {
        let (node, rest) = line.trim().split_once("  http://")?;
        Some((node.to_owned(), rest.strip_suffix("/metrics")?.to_owned()))
    });
    lines.collect()
}

fn page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The fields of the line of a pod in one second: receive, transmit, RTT, retransmits, with their units.
fn row<'a>(text: &'a str, second: u32, pod: &str) -> Option<Vec<&'a str>> {
    let begin = format!("{second} s  node");
    let line = text.lines().find(|line| line.trim_start().starts_with(&begin) && line.contains(pod))?;
    Some(line.split_whitespace().skip(4).collect())
}

/// By how much the agent's bytes exceed the payload that iperf3 tells, in percent.
fn excess(text: &str, end: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(end))?;
    line.strip_suffix(" % more")?.split_whitespace().last()?.parse().ok()
}

#[test]
fn a_demo_shows_every_pod_and_ends_in_time() -> Result<()> {
    let mut demo = Demo::start(&["--for", "6s"])?;
    demo.read_until("shop/db")?;
    let pages = urls(&demo.text);
    assert_eq!(pages.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["node1", "node2", "node3"]);
    for ((_, address), pod) in pages.iter().zip(["camera", "screen", "dump"]) {
        let text = page(address)?;
        let label = format!("pod=\"{pod}\"");
        ensure!(text.starts_with("HTTP/1.1 200 ") && text.contains(&label), "no {pod} at {address}:\n{text}");
    }
    let text = demo.end()?;
    for pod in PODS {
        let fields = row(&text, 2, pod).with_context(|| format!("no second 2 of {pod} in\n{text}"))?;
        ensure!(fields[0] != "-" && fields[2] != "-", "{pod} neither receives nor sends: {fields:?}");
    }
    ensure!(row(&text, 6, "shop/db").is_some() && row(&text, 7, "shop/db").is_none(), "{text}");
    // iperf3 sends 6 Mbit/s in datagrams of 1200 bytes, to which 28 bytes of headers come.
    let camera = row(&text, 2, "media/camera").context("no camera")?;
    let rate: f64 = camera[2].parse()?;
    ensure!(camera[3] == "Mbit/s" && (5.0..8.0).contains(&rate), "{camera:?}");
    // 28 of 1200 bytes are 2.33 %; the rest is the control connection, of some hundred bytes. An interrupted receiver
    // leaves datagrams unread, which the agent has counted.
    for (end, most) in [("UDP camera sent", 2.50), ("UDP screen received", 10.0)] {
        let excess = excess(&text, end).with_context(|| format!("no {end} in\n{text}"))?;
        ensure!((2.33..most).contains(&excess), "{end}: {excess} %");
    }
    Ok(())
}

#[test]
fn losses_on_a_node_show_as_retransmits_of_its_pods() -> Result<()> {
    let text = Demo::start(&["--for", "9s", "--host-gw"])?.end()?;
    ensure!(text.contains("flannel (host-gw)"), "{text}");
    ensure!(text.contains("drops 2 % of what it forwards, 3 s to 6 s of each minute: now"), "{text}");
    let retransmits = |second| -> Option<f64> { row(&text, second, "backup/dump")?.last()?.parse().ok() };
    // A quiet network sends nothing again; 2 % of 1800 segments a second are 36.
    assert_eq!(retransmits(2), Some(0.0), "{text}");
    let disturbed: f64 = [4, 5, 6].into_iter().filter_map(retransmits).sum();
    ensure!(disturbed > 10.0, "{disturbed} in\n{text}");
    Ok(())
}

#[test]
fn signals_end_a_demo_in_order() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // The time only bounds the test.
        let mut demo = Demo::start(&["--for", "60s"])?;
        demo.read_until("2 s  node1")?;
        process::signal(demo.child.id(), signal)?;
        let text = demo.end()?;
        ensure!(row(&text, 30, "shop/db").is_none(), "{signal} was ignored:\n{text}");
        ensure!(text.contains("\nin total") && text.contains("everything is torn down"), "{text}");
    }
    Ok(())
}

#[test]
fn a_reader_that_goes_ends_a_demo_in_order() -> Result<()> {
    let mut demo = Demo::start(&["--for", "60s"])?;
    demo.read_until("1 s  node1")?;
    // Drops the demo's end of the pipe, as `| head` does.
    demo.output = Box::new(std::io::empty());
    demo.end().map(drop)
}
