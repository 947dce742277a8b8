//! The shipped boards and rules over real Prometheuses that scrape real agents, Debian's and 3.x, in four states: every
//! query has something where it must and nothing where it must not, the rules that are true are just those of what
//! broke, and the word for a layer is that of it.
#![expect(clippy::print_stdout, reason = "the log of a run shows how much was found")]

mod boards {
    pub(crate) mod board;
    pub(crate) mod state;
}

use anyhow::{Context as _, Result, ensure};
use boards::board::Board;
use boards::state::{self, LEAST, LIMIT, State};
use lab::prometheus::Release;
use lab::showcase::Event;
use lab::{Lab, LabOptions, Prometheus, Showcase, wait_until};

const BOARDS: [&str; 5] =
    ["leadline-overview", "leadline-path", "leadline-tunnel", "leadline-vip", "leadline-etcd"];

/// The states, in the order in which they are made: what is kept of a failover is seen from then on.
const STATES: [State; 4] = [
    State {
        name: "healthy",
        by: &[],
        words: &[
            ("Path", "healthy"),
            ("Tunnel", "healthy"),
            ("Overlay", "healthy"),
            ("Pods", "healthy"),
            ("Virtual addresses", "healthy"),
            ("Quorum", "healthy"),
        ],
        empty: &[
            "Failovers",
            "Leader changes",
            "Last failover, without service, A",
            "Phases of the last failover, A",
            "Failover times, 95th percentile, A",
        ],
        alerts: &[],
    },
    State {
        name: "failing over",
        by: &[Event::Leader, Event::Failover],
        words: &[("Virtual addresses", "healthy"), ("Quorum", "healthy")],
        empty: &[],
        alerts: &[],
    },
    State {
        name: "split brain",
        by: &[Event::SplitBrain],
        words: &[("Virtual addresses", "split brain"), ("Quorum", "healthy")],
        empty: &["Failover times, 95th percentile, A"],
        alerts: &["VipSplitBrain"],
    },
    State {
        name: "quorum lost",
        by: &[Event::Quorum],
        // The API server behind the address is not ready without etcd.
        words: &[("Quorum", "quorum lost"), ("Virtual addresses", "unreachable")],
        empty: &["Leader, A", "Leader changes", "Failovers", "Failover times, 95th percentile, A"],
        alerts: &["EtcdQuorumLost", "VipUnreachable"],
    },
];

fn wait_word(prometheus: &Prometheus, board: &Board, panel: &str, word: &str) -> Result<()> {
    let mut last = None;
    let waited = wait_until(&format!("{panel} to be {word}"), LIMIT, || {
        last = Some(board.word(prometheus, panel));
        matches!(&last, Some(Ok(now)) if now == word)
    });
    waited.with_context(|| format!("last seen: {last:?}"))
}

fn wait_mark(prometheus: &Prometheus, board: &Board, name: &str) -> Result<()> {
    let all = board.asked()?;
    let mark = all.iter().find(|one| one.name.ends_with(name)).with_context(|| format!("no {name}"))?;
    wait_until(&format!("a mark of {name}"), LIMIT, || {
        mark.series(prometheus, LEAST).is_ok_and(|series| series == 1)
    })
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

#[test]
fn every_panel_and_every_rule_has_in_four_states_what_it_should_and_nothing_else() -> Result<()> {
    let lab = Lab::start(&LabOptions::default())?;
    let mut showcase = Showcase::start(&lab)?;
    let newer = Prometheus::start_release(&lab, Release::Three)?;
    let boards = BOARDS.iter().map(|uid| Board::read(uid)).collect::<Result<Vec<_>>>()?;
    let on_both = |showcase: &Showcase, check: &dyn Fn(&Prometheus) -> Result<()>| -> Result<()> {
        for prometheus in [&showcase.prometheus, &newer] {
            check(prometheus).with_context(|| format!("Prometheus {:?}", prometheus.version()))?;
        }
        Ok(())
    };
    on_both(&showcase, &|prometheus| check_choices(prometheus, &boards))?;
    for state in &STATES {
        if !state.by.is_empty() {
            state::heal(&mut showcase, &boards)?;
        }
        state.check(&mut showcase, &[&newer], &boards)?;
    }
    state::heal(&mut showcase, &boards)?;
    showcase.happen(Event::Agent)?;
    on_both(&showcase, &|prometheus| wait_mark(prometheus, &boards[0], "Agent restarts"))?;

    showcase.kill_members(1)?;
    on_both(&showcase, &|prometheus| wait_word(prometheus, &boards[0], "Quorum", "no spare"))?;
    showcase.stop_daemons()?;
    on_both(&showcase, &|prometheus| {
        wait_word(prometheus, &boards[0], "Virtual addresses", "nobody has it")
    })?;
    drop((showcase, newer));
    lab.shutdown()
}
