//! A machine's life as one table: what may follow what.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in its life a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Phase {
    /// Its agent has reported its hardware.
    Registered,
    /// A template was assigned: a workflow with its authorisation exists.
    Assigned,
    /// The agent has begun the workflow.
    Provisioning,
    /// Every action has completed and the hand-over is durable.
    Ready,
    /// An action failed; a retry or a person goes on.
    Error,
    /// Identity in conflict, a loop without progress, or a person's word.
    Held,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Registered, Self::Assigned, Self::Provisioning, Self::Ready, Self::Error, Self::Held];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What can happen to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PhaseEvent {
    /// Its agent reported its hardware for the first time.
    Registered,
    /// Somebody assigned a template, or asked for a reimage.
    Assigned,
    /// The agent began the workflow.
    Began,
    /// Every action completed and the agent handed over.
    HandedOver,
    /// An action failed.
    Failed,
    /// Somebody asked for another attempt.
    Retried,
    /// Somebody called the workflow off.
    Aborted,
    /// Identity in conflict, a loop, or a person's word.
    Held,
    /// A person settled it; the machine is looked at anew.
    Released,
}

/// A transition that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a machine that is {} cannot be {event:?}", .from.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
pub struct IllegalPhase {
    /// Where it was.
    pub from: Option<Phase>,
    /// What was to happen.
    pub event: PhaseEvent,
}

/// The table. `None` is a machine whose agent never reported.
pub fn next(from: Option<Phase>, event: PhaseEvent) -> Result<Phase, IllegalPhase> {
    use Phase as P;
    use PhaseEvent as E;
    match (from, event) {
        (None | Some(P::Registered), E::Registered) => Ok(P::Registered),
        // A machine may be assigned before it was ever seen: the order waits for it.
        (None | Some(P::Registered | P::Ready | P::Error), E::Assigned) => Ok(P::Assigned),
        (Some(P::Assigned | P::Provisioning), E::Began) => Ok(P::Provisioning),
        (Some(P::Provisioning), E::HandedOver) => Ok(P::Ready),
        (Some(P::Assigned | P::Provisioning), E::Failed) => Ok(P::Error),
        (Some(P::Error), E::Retried) => Ok(P::Assigned),
        (Some(P::Assigned | P::Provisioning | P::Error), E::Aborted) => Ok(P::Registered),
        (_, E::Held) => Ok(P::Held),
        (Some(P::Held), E::Released) => Ok(P::Registered),
        _ => Err(IllegalPhase { from, event }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PhaseEvent as E;

    const EVENTS: [PhaseEvent; 9] =
        [E::Registered, E::Assigned, E::Began, E::HandedOver, E::Failed, E::Retried, E::Aborted, E::Held, E::Released];

    #[test]
    fn ready_is_left_only_by_assignment_or_hold() {
        for event in EVENTS {
            match next(Some(Phase::Ready), event) {
                Ok(Phase::Assigned) => assert_eq!(event, E::Assigned),
                Ok(Phase::Held) => assert_eq!(event, E::Held),
                Ok(other) => panic!("{event:?} led from Ready to {other}"),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn only_the_agent_of_an_assigned_machine_begins() {
        for from in [None].into_iter().chain(Phase::ALL.map(Some)) {
            let may = matches!(from, Some(Phase::Assigned | Phase::Provisioning));
            assert_eq!(next(from, E::Began).is_ok(), may, "{from:?}");
        }
    }

    #[test]
    fn whatever_happens_a_hold_holds() {
        for from in [None].into_iter().chain(Phase::ALL.map(Some)) {
            assert_eq!(next(from, E::Held), Ok(Phase::Held));
        }
        for event in EVENTS {
            if !matches!(event, E::Held | E::Released) {
                assert!(next(Some(Phase::Held), event).is_err(), "{event:?}");
            }
        }
    }
}
