//! The shipped boards over real Prometheuses that scrape real agents, Debian's and 3.x: every panel has something to show,
//! and the word for a layer is that of what broke.
#![expect(clippy::print_stdout, reason = "the log of a run shows how much was found")]

mod boards {
    pub(crate) mod board;
}

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use boards::board::{Asked, Board};
use lab::prometheus::Release;
use lab::showcase::Event;
use lab::{Lab, LabOptions, Prometheus, Showcase, wait_until};

/// For what is scraped every five seconds and looked back on for thirty.
const LIMIT: Duration = Duration::from_mins(3);

const BOARDS: [&str; 3] = ["leadline-overview", "leadline-vip", "leadline-etcd"];

/// What has nothing to show here, and why.
const EMPTY: [(&str, &str); 2] = [
    ("leadline-overview, Tunnel, A", "no node is part of a tailnet"),
    ("leadline-overview, Way to each peer, A", "no node is part of a tailnet"),
];

/// What is to be well at the beginning.
const LAYERS: [&str; 5] = ["Pods", "Overlay", "Path", "Virtual addresses", "Quorum"];

/// What annotations are about: another leader, another holder, another agent.
const STIR: [Event; 3] = [Event::Leader, Event::Failover, Event::Agent];

/// Waits until everything has shown something once; answers with how much there was.
fn wait_all(prometheus: &Prometheus, asked: &[&Asked]) -> Result<usize> {
    let (mut pending, mut failed, mut series) = (asked.to_vec(), None, 0);
    let waited = wait_until("every panel to have something to show", LIMIT, || {
        pending.retain(|one| match one.series(prometheus) {
            Ok(found) => {
                series += found;
                found == 0
            }
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        pending.is_empty() || failed.is_some()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let names = || pending.iter().map(|one| format!("{}: {}", one.name, one.expression)).collect::<Vec<_>>();
    waited.with_context(|| format!("nothing to show: {:#?}", names()))?;
    Ok(series)
}

fn wait_word(prometheus: &Prometheus, board: &Board, panel: &str, word: &str) -> Result<()> {
    let mut last = None;
    let waited = wait_until(&format!("{panel} to be {word}"), LIMIT, || {
        last = Some(board.word(prometheus, panel));
        matches!(&last, Some(Ok(now)) if now == word)
    });
    waited.with_context(|| format!("last seen: {last:?}"))
}

fn check_choices(prometheus: &Prometheus, boards: &[Board]) -> Result<()> {
    for board in boards {
        let choices = board.choices(prometheus)?;
        ensure!(choices["cluster"] == ["lab"] && choices["job"] == ["leadline"], "{choices:?}");
        ensure!(choices["node"] == ["node1", "node2", "node3"], "{choices:?}");
        let vips = choices.get("vip").into_iter().flatten().collect::<Vec<_>>();
        ensure!(board.asked()?.len() > 10 && (vips.is_empty() || vips == ["192.168.56.50"]), "{choices:?}");
    }
    Ok(())
}

fn check_queries(prometheus: &Prometheus, boards: &[Board]) -> Result<()> {
    let asked = boards.iter().map(Board::asked).collect::<Result<Vec<_>>>()?.into_iter().flatten();
    let asked = asked.collect::<Vec<_>>();
    let (empty, filled): (Vec<_>, Vec<_>) =
        asked.iter().partition(|one| EMPTY.iter().any(|(name, _)| *name == one.name));
    ensure!(empty.len() == EMPTY.len(), "{EMPTY:?} names what no board has");
    println!("{} queries have {} series", filled.len(), wait_all(prometheus, &filled)?);
    for one in empty {
        if one.series(prometheus)? > 0 {
            bail!("{} has something to show: take it from the list", one.name);
        }
    }
    Ok(())
}

#[test]
fn every_panel_has_something_to_show_and_a_word_for_what_broke() -> Result<()> {
    let lab = Lab::start(&LabOptions::default())?;
    let mut showcase = Showcase::start(&lab)?;
    let newer = Prometheus::start_release(&lab, Release::Three)?;
    let on_both = |showcase: &Showcase, check: &dyn Fn(&Prometheus) -> Result<()>| -> Result<()> {
        for prometheus in [&showcase.prometheus, &newer] {
            check(prometheus).with_context(|| format!("Prometheus {:?}", prometheus.version()))?;
        }
        Ok(())
    };
    let all = BOARDS.iter().map(|uid| Board::read(uid)).collect::<Result<Vec<_>>>()?;
    let overview = &all[0];
    on_both(&showcase, &|prometheus| check_choices(prometheus, &all))?;
    for (layer, word) in LAYERS.into_iter().map(|layer| (layer, "healthy")).chain([("Tunnel", "not seen")]) {
        on_both(&showcase, &|prometheus| wait_word(prometheus, overview, layer, word))?;
    }

    STIR.into_iter().try_for_each(|event| showcase.happen(event))?;
    on_both(&showcase, &|prometheus| check_queries(prometheus, &all))?;

    showcase.kill_members(1)?;
    on_both(&showcase, &|prometheus| wait_word(prometheus, overview, "Quorum", "no spare"))?;
    showcase.stop_daemons()?;
    on_both(&showcase, &|prometheus| wait_word(prometheus, overview, "Virtual addresses", "nobody has it"))?;
    drop((showcase, newer));
    lab.shutdown()
}
