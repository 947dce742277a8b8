//! More messages than there is room for.

use anyhow::{Context as _, Result, ensure};
use lab::frames::FrameSender;
use lab::scrape::Samples;
use lab::{Backend, Place as _, process};
use nix::sys::signal::Signal;

use crate::forged::{Message, frame, station};
use crate::{LIMIT, start, told};

/// Several times what the ring buffer holds.
const FLOOD: u64 = 3_000;

fn lost(page: &Samples) -> Option<u64> {
    page.count("leadline_events_lost_total", &[("source", "tap")])
}

#[test]
fn messages_that_find_no_room_are_counted_as_lost() -> Result<()> {
    let (lab, mut agent) = start(Backend::Vxlan)?;
    let [node, other] = [lab.node(1)?, lab.node(2)?];
    let packet = Message::about(node.address(false)?, other.address(false)?).packet();
    let (sender, frame) = (FrameSender::open(other, "eth0")?, frame(station(node), &[], &packet));
    let before = lost(&agent.scrape()?).context("no losses")?;
    process::freeze(agent.service().pid())?;
    (0..FLOOD).try_for_each(|_| sender.send(&frame))?;
    agent.service().signal(Signal::SIGCONT)?;
    let parts = |page: &Samples| Some((told(page).0?, lost(page)? - before));
    let all = |page: &Samples| parts(page).is_some_and(|(counted, lost)| counted + lost == FLOOD);
    let (page, _) = agent.wait_page("all messages", LIMIT, "leadline_path_too_big", all)?;
    let (counted, lost) = parts(&page).context("no counts")?;
    println!("{FLOOD} messages while the agent stood still: {counted} counted, {lost} lost");
    ensure!(counted > 0 && lost > 0, "{counted} counted, {lost} lost");
    drop(agent);
    lab.shutdown()
}
