//! Alert rules and boards over the metrics of the agent, as data.
//!
//! One subject a file, named as the collectors are: `vip`, `etcd`, `path`, `tunnel`, `agent`; their boards are below
//! them, that of all layers is `overview`. An [`expression`] names families by the
//! catalogue of the agent, so that a renamed metric does not compile; a label that a family does not have fails the
//! tests. `rule` says what an alert is, `board` what a board is, `render` makes the files. What an alert
//! means and what to do stands in `runbooks/`, what it fires for in `tests/`.

pub mod agent;
pub mod board;
pub mod etcd;
pub mod expression;
pub mod overview;
pub mod path;
pub mod render;
pub mod rule;
pub mod tunnel;
pub mod vip;

use board::Board;
use rule::Group;

/// All alert rules, one group a subject.
#[must_use]
pub fn groups() -> Vec<Group> {
    vec![vip::rules(), etcd::rules(), path::rules(), tunnel::rules(), agent::rules()]
}

/// All boards, the one to begin with first.
#[must_use]
pub fn boards() -> Vec<Board> {
    vec![
        overview::board(),
        path::board::board(),
        tunnel::board::board(),
        vip::board::board(),
        etcd::board::board(),
    ]
}
