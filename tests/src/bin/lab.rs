//! The lab as a program: it starts labs, shows the demo, and builds what both need.

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::showcase::Event;
use lab::{Backend, Flannel, Kubernetes, Lab, LabOptions, Showcase, demo, prometheus};

const USAGE: &str = "usage: lab up [--host-gw] [--ipv6] [--no-flannel]   ends with its standard input
       lab kubernetes                                 a lab with all of Kubernetes; ends likewise
       lab boards                                     a lab with all that the boards show; a line of standard input
                                                      each makes leader, failover, agent, quorum, vip or heal happen
       lab demo [--for SECONDSs] [--host-gw]          ends after that time, or by Ctrl-C
       lab prepare                                    builds the components that are not there yet
       lab clean                                      removes what killed labs left
       lab exchange ...                               what the demo runs inside its pods";

/// A build prints hundreds of lines; one in this time is shown.
const PROGRESS: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"up", flags)) => up(flags),
        Some((&"kubernetes", [])) => kubernetes(),
        Some((&"boards", [])) => boards(),
        Some((&"demo", flags)) => demo::run(demo_options(flags)?),
        Some((&"prepare", [])) => prepare(),
        Some((&"clean", [])) => say(&format!("removed: {}", lab::clean_stale()?.join(" "))),
        Some((&"exchange", words)) => demo::exchange::run(words),
        _ => bail!("{USAGE}"),
    }
}

fn demo_options(flags: &[&str]) -> Result<demo::Options> {
    let mut options = demo::Options::default();
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        match *flag {
            "--host-gw" => options.host_gw = true,
            "--for" => options.length = Some(seconds(flags.next().copied().unwrap_or_default())?),
            _ => bail!("unknown argument {flag}\n{USAGE}"),
        }
    }
    Ok(options)
}

fn seconds(word: &str) -> Result<Duration> {
    let number = word.strip_suffix('s').and_then(|number| number.parse().ok());
    let number: u64 = number.with_context(|| format!("`{word}` is no time: write 60s, for example"))?;
    ensure!(number > 0, "a demo of no time shows nothing");
    Ok(Duration::from_secs(number))
}

/// Builds the components, with a sign of life now and then.
fn prepare() -> Result<()> {
    let (mut last, mut lines) = (None::<Instant>, 0_u32);
    lab::tools::prepare(&mut |line| {
        lines += 1;
        if last.is_none_or(|last| last.elapsed() >= PROGRESS) {
            last = Some(Instant::now());
            // That nobody reads it stops no build.
            drop(say(&format!("{line} [{lines}]")));
        }
    })
}

fn up(flags: &[&str]) -> Result<()> {
    let (mut flannel, mut wanted) = (Flannel::default(), true);
    for flag in flags {
        match *flag {
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
    stay(lab)
}

fn kubernetes() -> Result<()> {
    lab::tools::prepare(&mut |line| drop(say(line)))?;
    let start = Instant::now();
    let lab = Lab::start_for_containers(&LabOptions { nodes: 3, flannel: None })?;
    let cluster = Kubernetes::start(&lab)?;
    say(&format!("up in {:.2?}", start.elapsed()))?;
    let (switch, kubectl) = (lab.switch()?.holder_pid(), lab::tools::kubectl()?);
    let kubeconfig = cluster.admin_kubeconfig().display();
    say(&format!("nsenter -t {switch} -n {} --kubeconfig {kubeconfig} get nodes", kubectl.display()))?;
    stay(lab)
}

fn boards() -> Result<()> {
    lab::tools::prepare(&mut |line| drop(say(line)))?;
    let start = Instant::now();
    let lab = Lab::start(&LabOptions::default())?;
    let mut showcase = Showcase::start(&lab)?;
    say(&format!("up in {:.2?}", start.elapsed()))?;
    say(&format!("prometheus: nsenter -t {} -n, {}", lab.switch()?.holder_pid(), prometheus::ADDRESS))?;
    introduce(&lab)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        // A wrong word or a fault that is there already ends nothing.
        match Event::parse(line.trim()).and_then(|event| showcase.happen(event)) {
            Ok(()) => say(&format!("{line}: done"))?,
            Err(error) => say(&format!("{line}: {error:#}"))?,
        }
    }
    drop(showcase);
    end(lab)
}

/// Says how to look into a lab, and shuts it down at the end of standard input.
fn stay(lab: Lab) -> Result<()> {
    introduce(&lab)?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    end(lab)
}

fn introduce(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let pid = node.machine().holder_pid();
        say(&format!("node{}: nsenter -t {pid} -n -m -u -i -C", node.index()))?;
    }
    // Whoever reads this line knows that all is there, and by which names.
    let keeper = lab.keeper_pid().unwrap_or_default();
    say(&format!("ready {} keeper {keeper}", lab.name()))
}

fn end(lab: Lab) -> Result<()> {
    let start = Instant::now();
    lab.shutdown()?;
    say(&format!("down in {:.2?}", start.elapsed()))
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_knows_its_time_and_its_backend() {
        let expected = demo::Options { length: Some(Duration::from_secs(7)), host_gw: true };
        assert_eq!(demo_options(&["--for", "7s", "--host-gw"]).unwrap(), expected);
        assert_eq!(demo_options(&[]).unwrap(), demo::Options::default());
    }

    #[test]
    fn a_wrong_time_is_shown() {
        for word in ["", "7", "0.5s", "-1s"] {
            let error = demo_options(&["--for", word]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{word}` is no time")), "{error}");
        }
        assert!(demo_options(&["--for", "0s"]).is_err());
        assert!(demo_options(&["--form"]).unwrap_err().to_string().contains("unknown argument --form"));
    }
}
