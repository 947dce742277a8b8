//! Two owners at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::keepalived::Spec;
use lab::witness::tcpdump::adverts;
use lab::{Firewall, Place as _, wait_until};

use crate::stage::{LIMIT, Stage};

#[test]
fn owners_that_do_not_hear_each_other_are_a_conflict_until_they_do() -> Result<()> {
    let lab = Stage::lab()?;
    // Whole seconds: no stall of a busy machine is taken for silence.
    let mut stage = Stage::new(&lab, &Spec::v2())?;
    let (vip, vip_text) = (stage.vip, stage.vip.to_string());
    let (two, three) = (lab.node(2)?, lab.node(3)?);
    let deaf = [Firewall::deaf(two)?, Firewall::deaf(three)?];
    for observer in &stage.observers {
        wait_until("the conflict", LIMIT, || {
            let page = observer.agent.scrape();
            page.is_ok_and(|page| page.count("leadline_vip_conflict", &[("vip", &vip_text)]) == Some(1))
        })
        .with_context(|| format!("node{}", observer.node))?;
    }
    for node in [lab.node(1)?, two, three] {
        let holds = || node.holding(vip).is_ok_and(|held| held.is_some());
        wait_until("the address", LIMIT, holds).with_context(|| node.name().to_owned())?;
    }
    drop(deaf);
    for observer in &mut stage.observers {
        wait_until("the end of the conflict", LIMIT, || {
            let page = observer.agent.scrape();
            page.is_ok_and(|page| page.count("leadline_vip_conflict", &[("vip", &vip_text)]) == Some(0))
        })
        .with_context(|| format!("node{}", observer.node))?;
        let page = observer.agent.scrape()?;
        let all = adverts(&observer.capture.frames()?);
        let span = |mac: String| -> Result<Duration> {
            let of: Vec<_> = all.iter().filter(|advert| advert.mac == mac).collect();
            let (first, last) = (of.first().context("never")?, of.last().context("never")?);
            last.time.checked_sub(first.time).context("time went back")
        };
        let truth = (span(two.mac())? + span(three.mac())?).as_secs_f64();
        let lasted =
            page.value("leadline_vip_conflict_seconds_total", &[("vip", &vip_text)]).context("none")?;
        println!("node{}: {lasted:.4} s, tcpdump {truth:.4} s", observer.node);
        ensure!((lasted - truth).abs() <= 0.01, "{lasted} and {truth}");
        assert_eq!(page.count("leadline_vip_conflicts_total", &[("vip", &vip_text)]), Some(2));
        assert_eq!(page.sum("leadline_vip_failovers_total", |_| true), Some(0));
    }
    Ok(())
}
