//! A clock that is set while probes are under way: all namespaces of a machine share it, so that a machine of its own is
//! needed for that.

use anyhow::{Context as _, Result, ensure};
use lab::process::wait_for;
use lab::scrape::{self, Samples};

use super::stage::{LIMIT, PEER, Stage};

/// Probes every 20 ms whose answers wait for 100 ms before the device of the other end, which is none of the network's
/// time: some are always under way.
const PROBES: &str = "--collector.path=on --path.interval=20ms \
    --collector.traffic=off --collector.tcp=off --collector.tcp-port=off --collector.overlay=off --collector.vip=off";
const DELAY: &str = "100ms";
/// No round trip is longer, in seconds.
const LONGEST: &str = "1";
/// Probes after a step: more than two seconds, so that losses would be told.
const AFTER: u64 = 120;

/// What is told of the probes to the peer.
#[derive(Clone, Copy, Debug)]
struct Told {
    sent: u64,
    lost: u64,
    discarded: u64,
    /// Round trips.
    all: u64,
    /// Those of them that the network cannot have made.
    absurd: u64,
}

impl Told {
    fn of(page: &Samples) -> Option<Self> {
        let possible = page.count("leadline_path_rtt_seconds_bucket", &[("le", LONGEST)])?;
        let all = page.count("leadline_path_rtt_seconds_count", &[])?;
        Some(Self {
            sent: page.count("leadline_path_probes_sent_total", &[])?,
            lost: page.sum("leadline_path_probes_lost_total", |_| true)?,
            discarded: page.count("leadline_path_probes_discarded_total", &[("reason", "clock_step")])?,
            all,
            absurd: all - possible,
        })
    }
}

fn told(stage: &mut Stage) -> Option<Told> {
    Told::of(&scrape::parse(&stage.metrics("leadline_path_[a-z_]*").ok()?).ok()?)
}

/// Once so many more probes were sent.
fn after(stage: &mut Stage, probes: u64) -> Result<Told> {
    let goal = told(stage).context("nothing is told of probes")?.sent + probes;
    wait_for(&format!("{probes} more probes"), LIMIT, || told(stage).filter(|told| told.sent >= goal))
}

#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
pub(crate) fn steps_are_discarded(stage: &mut Stage) -> Result<()> {
    stage.vm.run(&format!("tc -n peer qdisc add dev peer0 root netem delay {DELAY}"))?;
    for (name, other) in [("one", PEER), ("two", "192.0.2.1")] {
        let text = format!("peers:\\n  nodes:\\n    - {{name: other, addresses: [{other}]}}\\n");
        stage.vm.run(&format!("printf '{text}' > /tmp/{name}.yaml"))?;
    }
    let other = format!("leadline run --config.file=/tmp/two.yaml {PROBES}");
    stage.vm.run(&format!("nsenter --net=/run/netns/peer {other} > /tmp/other 2>&1 & other=$!"))?;
    stage.start_agent_with(&format!("--config.file=/tmp/one.yaml {PROBES}"))?;
    stage.wait_metric("an answer", "leadline_path_reachable{.*} 1")?;
    let mut before = after(stage, AFTER)?;
    for step in ["+ 3600", "- 3600"] {
        stage.vm.run(&format!("date -s @$(($(date +%s) {step}))"))?;
        let now = after(stage, AFTER)?;
        println!("{step} s: {before:?}, then {now:?}");
        ensure!(now.discarded > before.discarded, "{step} s: nothing was under way");
        ensure!(now.lost == before.lost, "{step} s: {before:?}, then {now:?}");
        ensure!(now.all > before.all && now.absurd == 0, "{step} s: {before:?}, then {now:?}");
        before = now;
    }
    stage.vm.run("kill $other")?;
    stage.end_agent("TERM").map(drop)
}
