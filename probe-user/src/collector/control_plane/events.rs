//! The events of the control plane, in the words of the timeline.

use super::trouble::Turn;
use crate::event::{Kind, Occurrence, milliseconds};
use crate::source::control_plane::{Checks, Outcome, Report, Target};

/// Names in the details of one event.
const MOST_NAMES: usize = 16;

/// A component went down or came up.
pub(super) fn of_life(target: &Target, report: &Report, turn: &Turn) -> Occurrence {
    // Of a component with one question for both there is one list.
    let checks = report.health_checks.as_ref().or(report.checks.as_ref());
    event([Kind::ControlPlaneDown, Kind::ControlPlaneUp], target, report.health, checks, turn)
}

/// A component is not ready, or is so again.
pub(super) fn of_readiness(target: &Target, report: &Report, turn: &Turn) -> Occurrence {
    let readiness = report.readiness.unwrap_or(Ok(()));
    event(
        [Kind::ControlPlaneUnready, Kind::ControlPlaneReady],
        target,
        readiness,
        report.checks.as_ref(),
        turn,
    )
}

fn event(
    [opened, closed]: [Kind; 2],
    target: &Target,
    outcome: Outcome,
    checks: Option<&Checks>,
    turn: &Turn,
) -> Occurrence {
    let kind = if turn.lasted.is_some() { closed } else { opened };
    let event = Occurrence::now(kind, target.component.as_str()).at(turn.at.time);
    let event = event.with("endpoint", target.endpoint());
    if let Some(lasted) = turn.lasted {
        return event.with("lasted_ms", milliseconds(lasted));
    }
    let event = match outcome {
        Err(failure) => event.with("reason", failure.as_str()),
        Ok(()) => event,
    };
    match checks.and_then(failing) {
        Some(names) => event.with("failing", names),
        None => event,
    }
}

/// The checks that fail, with commas between.
fn failing(checks: &Checks) -> Option<String> {
    let names: Vec<&str> = checks
        .iter()
        .filter(|(_, passes)| !**passes)
        .map(|(name, _)| name.as_str())
        .take(MOST_NAMES)
        .collect();
    (!names.is_empty()).then(|| names.join(","))
}
