//! `lab up`: starts a lab and keeps it until its standard input ends or it is killed.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};
use lab::{Backend, Flannel, Lab, LabOptions};

const USAGE: &str = "usage: lab up [--host-gw] [--ipv6] [--no-flannel]   ends with its standard input
       lab clean                                      removes what killed labs left";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, flags) = match arguments.split_first() {
        Some((command, flags)) => (command.as_str(), flags),
        None => bail!("{USAGE}"),
    };
    match command {
        "up" => up(flags),
        "clean" if flags.is_empty() => say(&format!("removed: {}", lab::clean_stale()?.join(" "))),
        _ => bail!("{USAGE}"),
    }
}

fn up(flags: &[String]) -> Result<()> {
    let (mut flannel, mut wanted) = (Flannel::default(), true);
    for flag in flags {
        match flag.as_str() {
            "--host-gw" => flannel.backend = Backend::HostGw,
            "--ipv6" => flannel.ipv6 = true,
            "--no-flannel" => wanted = false,
            _ => bail!("unknown argument {flag}\n{USAGE}"),
        }
    }
    lab::tools::prepare(&mut |line| drop(say(line)))?;
    let start = Instant::now();
    let lab = Lab::start(&LabOptions { flannel: wanted.then_some(flannel), ..LabOptions::default() })?;
    say(&format!("up in {:.2?}", start.elapsed()))?;
    for node in lab.nodes() {
        let pid = node.machine().holder_pid();
        say(&format!("node{}: nsenter -t {pid} -n -m -u -i -C", node.index()))?;
    }
    // Whoever reads this line knows that all is there, and by which names.
    let keeper = lab.keeper_pid().unwrap_or_default();
    say(&format!("ready {} keeper {keeper}", lab.name()))?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let start = Instant::now();
    lab.shutdown()?;
    say(&format!("down in {:.2?}", start.elapsed()))
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
