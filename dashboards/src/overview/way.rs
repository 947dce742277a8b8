//! The layers at the bottom: the path between nodes, and the tunnel that it may lead through.

use crate::board::{Colour, Kind, Panel, Row, Text, Unit, WIDTH, each};
use crate::path::board::{MANY_LOSSES, MEDIAN, OFF, lost};
use crate::{path, tunnel};

pub(super) fn tunnels() -> Row {
    Row {
        title: "Tunnel: does it reach its peers, and by which way?",
        height: 6,
        panels: vec![tunnel::board::ways().wide(WIDTH).more(tunnel::board::UID, None)],
    }
}

pub(super) fn paths() -> Row {
    let rtt = Text {
        shows: "The slowest pair of nodes on each layer: the median of its last 64 round trips.",
        normal: "flat; the overlay some microseconds above what carries it, the tunnel some hundred.",
        otherwise: "all layers rise: the network is slow. Only one does, and what it carries: that layer is.",
    };
    let loss = Text {
        shows: "Probes lost of those sent, by layer and direction.",
        normal: "0.",
        otherwise: "one direction only: look at what filters or queues there; a round trip does not show which side it is.",
    };
    let layer: &'static [&'static str] = &["cluster", "layer"];
    Row {
        title: "Path: is the underlay between the nodes well?",
        height: 6,
        panels: vec![
            Panel::new("Round trip of the slowest pair", Kind::Lines, Unit::Seconds, rtt)
                .nothing(OFF)
                .ask(each(MEDIAN, &[]).max_by(layer), "{{layer}}")
                .wide(12)
                .more(path::board::UID, None),
            Panel::new("Lost probes", Kind::Lines, Unit::Share, loss)
                .nothing(OFF)
                .ask(lost(layer, &["direction"]), "{{layer}} {{direction}}")
                .from(&[(MANY_LOSSES, Colour::Red)])
                .wide(12)
                .more(path::board::UID, None),
        ],
    }
}
