//! What the timeline keeps of virtual addresses.

use std::net::IpAddr;
use std::time::Duration;

use crate::collector::vip::happening::{Conflict, Happening, Nanos};
use crate::collector::vip::place::Notice;
use crate::event::{Clock, Kind, Occurrence, milliseconds};

fn between(from: Nanos, to: Nanos) -> String {
    milliseconds(Duration::from_nanos(to.saturating_sub(from)))
}

/// What the timeline keeps of what happened to one address; a router that gave way at once is only counted.
pub(super) fn occurrence(notice: &Notice, address: IpAddr, clock: &Clock) -> Option<Occurrence> {
    let event = event(notice, address, clock)?.with("interface", &*notice.place.interface);
    Some(match notice.place.vrid {
        Some(vrid) => event.with("vrid", vrid.to_string()),
        None => event,
    })
}

fn event(notice: &Notice, address: IpAddr, clock: &Clock) -> Option<Occurrence> {
    let event = |kind| Occurrence::now(kind, address.to_string());
    let event = match notice.happening {
        Happening::Owned { source } => event(Kind::VipOwned).with("source", source.to_string()),
        Happening::Moved(failover) => {
            let event = event(Kind::VipMoved).at(clock.to_utc(failover.first));
            let event = event.with("from", failover.from.to_string()).with("to", failover.to.to_string());
            let event = event.with("cause", failover.cause.as_str());
            let detect = failover.last.map(|last| ("detect_ms", between(last, failover.first)));
            let announce =
                failover.announced.map(|announced| ("announce_ms", between(failover.first, announced)));
            with_times(event, [detect, announce])
        }
        Happening::Served(service) => {
            let event = event(Kind::VipConverged).at(clock.to_utc(service.first));
            let event = event.with("to", service.to.to_string());
            let converge =
                service.announced.map(|announced| ("converge_ms", between(announced, service.first)));
            let total = service.last.map(|last| ("total_ms", between(last, service.first)));
            with_times(event, [converge, total])
        }
        Happening::ConflictOpened(conflict) => {
            disputed(event(Kind::VipConflictOpened), &conflict).at(clock.to_utc(conflict.since))
        }
        Happening::ConflictClosed(conflict, until) => disputed(event(Kind::VipConflictClosed), &conflict)
            .at(clock.to_utc(until))
            .with("lasted_ms", between(conflict.since, until)),
        Happening::Lost { source, last } => {
            event(Kind::VipLost).at(clock.to_utc(last)).with("source", source.to_string())
        }
        Happening::Returned { source, last, first } => event(Kind::VipReturned)
            .at(clock.to_utc(first))
            .with("source", source.to_string())
            .with("silent_ms", between(last, first)),
        Happening::Foreign { source } => event(Kind::VrrpForeignRouter).with("source", source.to_string()),
        Happening::Duplicated { station, time } => {
            event(Kind::VipDuplicated).at(clock.to_utc(time)).with("station", station.to_string())
        }
        Happening::BriefDouble { .. } | Happening::Suspected => return None,
    };
    Some(event)
}

fn with_times<const N: usize>(event: Occurrence, times: [Option<(&'static str, String)>; N]) -> Occurrence {
    times.into_iter().flatten().fold(event, |event, (phase, time)| event.with(phase, time))
}

fn disputed(event: Occurrence, conflict: &Conflict) -> Occurrence {
    event.with("owner", conflict.owner.to_string()).with("rival", conflict.rival.to_string())
}
