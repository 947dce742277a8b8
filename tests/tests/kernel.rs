//! On Linux 6.1, the oldest kernel that the agent promises to run on, on each architecture that it is shipped for: what
//! it does without tcx, and what it says of it.
#![expect(clippy::print_stdout, reason = "the log of a run shows how long each check took")]

mod kernel {
    pub(crate) mod clock;
    pub(crate) mod foreign;
    pub(crate) mod stage;
}

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use kernel::stage::{LIMIT, PEER, Stage, VIRTUAL};
use kernel::{clock, foreign};
use lab::Architecture;

/// A check: what must be true, and the steps that show it.
type Check = (&'static str, fn(&mut Stage) -> Result<()>);

/// In this order, on one machine: each leaves what the next one begins with.
const CHECKS: &[Check] = &[
    ("the agent runs there and says what it can do", it_runs),
    ("traffic is counted", traffic_is_counted),
    ("the tap hangs before the filters of others", the_tap_is_first),
    ("the tap hears who announces an address", announcements_are_heard),
    ("filters that somebody removes are attached again", removed_filters_come_back),
    ("a clsact that somebody removes is made again", a_removed_qdisc_comes_back),
    ("a start after SIGKILL replaces exactly its own filters", leftovers_are_replaced),
    ("SIGTERM leaves nothing but the qdisc", nothing_is_left),
    ("a priority that somebody has taken stays his", a_taken_priority_is_left),
    ("a qdisc for ingress alone is left alone", ingress_alone_is_refused),
    ("probes during which somebody sets the clock say nothing", clock::steps_are_discarded),
];

#[test]
fn the_agent_works_on_linux_6_1() -> Result<()> {
    check_all(Architecture::Amd64)
}

#[test]
fn the_agent_works_on_64_bit_arm() -> Result<()> {
    check_all(Architecture::Arm64)
}

fn check_all(architecture: Architecture) -> Result<()> {
    let started = Instant::now();
    let mut stage = Stage::boot(architecture)?;
    println!("booted in {:.1?}", started.elapsed());
    for (name, check) in CHECKS {
        let began = Instant::now();
        let outcome = check(&mut stage).with_context(|| format!("on Linux 6.1, {name}"));
        outcome.with_context(|| format!("the agent's log:\n{}", stage.log()))?;
        println!("{name}: ok ({:.1?})", began.elapsed());
    }
    println!("all in {:.1?}", started.elapsed());
    Ok(())
}

fn it_runs(stage: &mut Stage) -> Result<()> {
    stage.start_agent()?;
    stage.wait_tapped("eth0", true)?;
    let attached = stage.metrics("leadline_program_attached")?;
    // The device of Flannel is counted on by filters, too.
    for program in ["rx", "tx", "tcp", "resent", "mkdir", "rmdir", "taprx", "taptx", "ovrx", "ovtx"]
        .map(|n| format!("leadline_{n}"))
    {
        ensure!(
            attached.contains(&format!("{{program=\"{program}\"}} 1")),
            "{program} hangs nowhere:\n{attached}"
        );
    }
    let support = stage.metrics("leadline_collector_support")?;
    for collector in ["overlay", "tap", "traffic", "tcp", "tcp_port", "program", "self"] {
        let expected = format!("{{collector=\"{collector}\",level=\"supported\",reason=\"\"}} 1");
        ensure!(support.contains(&expected), "no {expected} in\n{support}");
    }
    // What says no does so for want of something on the network, not in the kernel.
    let vip = "{collector=\"vip\",level=\"no\",reason=\"no virtual IP on this node's links\"} 1";
    ensure!(support.contains(vip), "no {vip} in\n{support}");
    Ok(())
}

fn traffic_is_counted(stage: &mut Stage) -> Result<()> {
    let before = stage.external_packets()?;
    stage.vm.run(&format!("ping -c 20 -i 0.05 {PEER}"))?;
    let after = stage.external_packets()?;
    let counted = [after[0] - before[0], after[1] - before[1]];
    ensure!(counted == [20, 20], "{counted:?} packets received and sent in place of 20 each");
    Ok(())
}

fn the_tap_is_first(stage: &mut Stage) -> Result<()> {
    for (direction, program) in [("ingress", "leadline_taprx"), ("egress", "leadline_taptx")] {
        let filters = stage.filters("eth0", direction)?;
        ensure!(filters.ours == [(1, program.to_owned())], "{direction}: {filters:?}");
        ensure!(filters.foreign == foreign::PRIORITIES, "{direction}: {filters:?}");
    }
    let before = foreign::seen(&mut stage.vm)?;
    stage.vm.run(&format!("ping -c 5 -i 0.05 {PEER}"))?;
    let after = foreign::seen(&mut stage.vm)?;
    ensure!(after >= before + 5, "the filter behind ours saw {} of 5 packets", after - before);
    Ok(())
}

fn announcements_are_heard(stage: &mut Stage) -> Result<()> {
    // An address that two stations announce is a virtual one.
    stage.announce()?;
    let station = stage.announce()?;
    let labels = format!("vip=\"{VIRTUAL}\",source=\"{station}\",protocol=\"arp\"");
    let announced = format!("leadline_vip_announcer{{{labels}}} 1");
    stage.wait_metric("the announcement to be heard", &announced)
}

fn removed_filters_come_back(stage: &mut Stage) -> Result<()> {
    stage.vm.run("tc filter del dev eth0 ingress protocol all prio 1 handle 0x4c440001 bpf")?;
    ensure!(stage.filters("eth0", "ingress")?.ours.is_empty(), "the filter was not removed");
    stage.wait_filters("eth0", 1)?;
    // Without a handle everything of the priority goes; this is told otherwise.
    stage.vm.run("tc filter del dev flannel.1 egress")?;
    stage.wait_filters("flannel.1", 1)?;
    the_tap_is_first(stage)?;
    let log = stage.log();
    ensure!(log.matches("somebody has removed filters").count() == 2, "nothing is said of it");
    announcements_are_heard(stage)
}

fn a_removed_qdisc_comes_back(stage: &mut Stage) -> Result<()> {
    stage.vm.run("tc qdisc del dev eth0 clsact")?;
    stage.wait_filters("eth0", 1)?;
    // It was not in the way of somebody who makes the qdisc anew.
    stage.vm.run("tc qdisc del dev eth0 clsact && tc qdisc add dev eth0 clsact")?;
    foreign::attach(&mut stage.vm)?;
    stage.wait_filters("eth0", 1)?;
    the_tap_is_first(stage)
}

fn leftovers_are_replaced(stage: &mut Stage) -> Result<()> {
    stage.end_agent("KILL")?;
    let left = stage.filters("eth0", "ingress")?;
    ensure!(left.ours.len() == 1, "after SIGKILL: {left:?}");
    stage.vm.run(&format!("ping -c 3 -i 0.05 {PEER}")).context("with what SIGKILL left")?;
    stage.start_agent()?;
    stage.wait_tapped("eth0", true)?;
    the_tap_is_first(stage)?;
    let now = stage.filters("eth0", "ingress")?;
    ensure!(now.programs != left.programs, "the filter of the killed agent is still there: {now:?}");
    announcements_are_heard(stage)
}

fn nothing_is_left(stage: &mut Stage) -> Result<()> {
    ensure!(stage.end_agent("TERM")? == 0, "the agent did not end well");
    for device in ["eth0", "flannel.1"] {
        for direction in ["ingress", "egress"] {
            let left = stage.filters(device, direction)?;
            ensure!(left.ours.is_empty(), "{device} {direction}: {left:?}");
        }
        let disciplines = stage.vm.run(&format!("tc qdisc show dev {device}"))?;
        ensure!(disciplines.contains("clsact"), "the qdisc of {device} is gone: {disciplines}");
    }
    ensure!(stage.filters("eth0", "ingress")?.foreign == foreign::PRIORITIES, "foreign filters are gone");
    Ok(())
}

fn a_taken_priority_is_left(stage: &mut Stage) -> Result<()> {
    stage.vm.run("tc filter add dev eth0 ingress prio 1 matchall action continue")?;
    stage.start_agent()?;
    stage.wait_tapped("eth0", true)?;
    let filters = stage.filters("eth0", "ingress")?;
    ensure!(filters.ours == [(2, "leadline_taprx".to_owned())], "{filters:?}");
    ensure!(filters.foreign == [1, 3, 7], "{filters:?}");
    ensure!(stage.end_agent("TERM")? == 0, "the agent did not end well");
    let left = stage.filters("eth0", "ingress")?;
    ensure!(left.ours.is_empty() && left.foreign == [1, 3, 7], "{left:?}");
    Ok(())
}

/// The older qdisc takes filters for egress and runs them on what comes in.
fn ingress_alone_is_refused(stage: &mut Stage) -> Result<()> {
    stage.vm.run("tc qdisc del dev eth0 clsact && tc qdisc add dev eth0 ingress")?;
    stage.start_agent()?;
    stage.vm.wait_until("the refusal", "grep -q 'has a qdisc of kind ingress' /tmp/log", LIMIT)?;
    stage.wait_tapped("eth0", false)?;
    let filters = stage.filters("eth0", "ingress")?;
    ensure!(filters.ours.is_empty(), "{filters:?}");
    let support = stage.metrics("leadline_collector_support")?;
    ensure!(support.contains("collector=\"vip\",level=\"no\",reason=\"no uplink is tapped\""), "{support}");
    stage.end_agent("TERM").map(drop)
}
