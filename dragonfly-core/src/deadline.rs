//! Nothing waits for ever without a word: every state that is not final has an owner, a deadline and a cause.
//!
//! Two tables, one of phases and one of runs. A state that is added without its row does not compile. The
//! engine's periodic pass acts on a deadline that is over: an agent's or a machine's is a failure with that
//! cause; a person's is told, once, by the condition [`OVERDUE`], because no program may decide for them.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::lifecycle::Phase;
use crate::resource::{ConditionStatus, Hardware, condition};
use crate::workflow::RunState;

/// The condition that somebody has been waited for longer than is usual.
pub const OVERDUE: &str = "Overdue";

/// The condition that a person holds the machine: since when, which its spec does not say.
pub const ON_HOLD: &str = "OnHold";

/// An agent that was heard so long ago at most is up: one that waits for work asks every 25 s.
const LIVE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long something may be held before that is told.
const HELD: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is said of a machine that is to run something and whose agent is up.
const GOES_ON: &str = "its agent is up and begins by itself; if it does not, look at the machine's console";

/// Who is to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The machine's firmware: it is to boot from the network.
    Machine,
    /// The agent on it.
    Agent,
    /// The system that was installed.
    System,
    /// A person.
    Operator,
}

/// When a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So long after the state was entered.
    After(Duration),
    /// When the authorisation to install ends.
    Authorisation,
    /// When the agent has been silent for the time that agents have.
    Silence,
    /// When the installed system has not been heard for the time that it has.
    Boot,
}

/// What follows when a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// The run fails with the cause.
    Fail,
    /// It is told; a person decides.
    Tell,
}

/// One row: a state that is not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Who is to do something.
    pub owner: Owner,
    /// By when.
    pub limit: Limit,
    /// What is waited for, and what to do when it does not come.
    pub cause: &'static str,
    /// What follows.
    pub then: Then,
}

/// The row of a machine's phase. `adopted`: it boots a system of its own. `booting`: its installed system
/// has not been heard yet. `None` is rest: nothing is waited for.
pub fn of_phase(phase: Option<Phase>, adopted: bool, booting: bool) -> Option<Row> {
    let row = |owner, limit, then, cause| Some(Row { owner, limit, cause, then });
    match phase {
        None => row(
            Owner::Machine,
            Limit::After(DAY),
            Then::Tell,
            "waits for the machine's first boot from the network; check its power, cable and boot order",
        ),
        Some(Phase::Registered) if adopted => None,
        Some(Phase::Registered) => row(
            Owner::Operator,
            Limit::After(7 * DAY),
            Then::Tell,
            "waits for an assignment; assign a template, hold it or delete it",
        ),
        Some(Phase::Assigned) => row(
            Owner::Machine,
            Limit::Authorisation,
            Then::Fail,
            "the machine did not boot from the network before its authorisation expired; check its boot order and cable, then assign anew",
        ),
        Some(Phase::Provisioning) => row(
            Owner::Agent,
            Limit::Silence,
            Then::Fail,
            "the agent has not been heard for a long time; look at the machine's console and power, then retry",
        ),
        Some(Phase::Ready) if booting => row(
            Owner::System,
            Limit::Boot,
            Then::Tell,
            "it was handed over and has not phoned home; look at its console: does it boot, does it have a network?",
        ),
        Some(Phase::Ready) => None,
        Some(Phase::Error) => {
            row(Owner::Operator, Limit::After(DAY), Then::Tell, "its workflow has failed; retry it, or call it off")
        }
        Some(Phase::Held) => {
            row(Owner::Operator, Limit::After(HELD), Then::Tell, "it is held; settle the reason, then release it")
        }
    }
}

/// The row of a run's state; `None` for those that are final. A run waits for what its machine waits for.
pub fn of_run(state: RunState) -> Option<Row> {
    let phase = match state {
        RunState::Pending => Phase::Assigned,
        RunState::Running => Phase::Provisioning,
        RunState::Failed => Phase::Error,
        RunState::Held => Phase::Held,
        RunState::Succeeded | RunState::Aborted => return None,
    };
    of_phase(Some(phase), false, false)
}

/// How long agents and installed systems have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// An agent's silence.
    pub agent: Duration,
    /// From the hand-over to the first sign of life.
    pub boot: Duration,
}

/// Who is waited for, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// Who is to do something.
    pub owner: Owner,
    /// By when; absent while nothing says since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What is waited for, and what to do when it does not come.
    pub cause: Cow<'static, str>,
    /// What follows.
    pub then: Then,
}

impl Waits {
    /// Whether it has been waited for long enough.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

/// Whether a machine's agent is up, by when it was heard last.
pub fn is_up(heard: Option<Timestamp>, now: Timestamp) -> bool {
    heard.is_some_and(|heard| now.since(heard) < LIVE)
}

/// What a conflict about a machine's identity waits for. While a run is at work, that goes on and its agent is what
/// is waited for: what it may do was settled before.
fn settlement(machine: &Hardware) -> Option<Waits> {
    let conflict = machine.conflict().filter(|_| machine.status.phase != Some(Phase::Provisioning))?;
    let cause = format!(
        "its identity is in conflict: {}; settle which machine it is, then release it, or delete it if there is no such \
         machine any more",
        conflict.message
    );
    let until = Some(conflict.last_transition_time.plus(DAY));
    Some(Waits { owner: Owner::Operator, until, cause: cause.into(), then: Then::Tell })
}

/// What a machine waits for at this moment. `heard`: when its agent was last heard in this run of the server.
pub fn of(machine: &Hardware, heard: Option<Timestamp>, limits: Limits, now: Timestamp) -> Option<Waits> {
    let status = &machine.status;
    let is = |kind: &str, wanted| condition(&status.conditions, kind).is_some_and(|c| c.status == wanted);
    let booting = is("Booted", ConditionStatus::Unknown);
    if machine.spec.hold.is_some() {
        // Whatever it was to do, a person has stopped it; the periodic pass notes when.
        let held = condition(&status.conditions, ON_HOLD).filter(|held| held.status == ConditionStatus::True);
        let until = held.map(|held| held.last_transition_time.plus(HELD));
        let row = of_phase(Some(Phase::Held), false, false);
        return row.map(|Row { owner, cause, then, .. }| Waits { owner, until, cause: cause.into(), then });
    }
    if let Some(waits) = settlement(machine) {
        return Some(waits);
    }
    let Row { owner, limit, cause, then } = of_phase(status.phase, is("Adopted", ConditionStatus::True), booting)?;
    let since = status.phase_since.or(machine.metadata.creation_timestamp);
    let until = match limit {
        Limit::After(time) => since.map(|since| since.plus(time)),
        Limit::Authorisation => status.authorisation.as_ref().map(|a| a.expires_at),
        Limit::Silence => heard.or(status.last_seen).or(since).map(|heard| heard.plus(limits.agent)),
        Limit::Boot => since.map(|since| since.plus(limits.boot)),
    };
    let (owner, cause) = match status.phase {
        // Between two attempts, or assigned while it waited for that.
        Some(Phase::Assigned) if is_up(heard, now) => (Owner::Agent, GOES_ON),
        _ => (owner, cause),
    };
    Some(Waits { owner, until, cause: cause.into(), then })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CONFLICT, set_condition};

    #[test]
    fn every_state_that_is_not_final_has_an_owner_a_deadline_and_a_cause() {
        let phases = [None].into_iter().chain(Phase::ALL.map(Some)).map(|phase| (phase, of_phase(phase, false, true)));
        for (phase, row) in phases {
            let row = row.unwrap_or_else(|| panic!("{phase:?} waits for nobody"));
            assert!(row.cause.len() > 20, "{phase:?}: {}", row.cause);
        }
        // The only rests: a system that was there before us, and one of ours that has been heard.
        for phase in [None].into_iter().chain(Phase::ALL.map(Some)) {
            let rests = of_phase(phase, true, false).is_none();
            assert_eq!(rests, matches!(phase, Some(Phase::Registered | Phase::Ready)), "{phase:?}");
        }
        use RunState as R;
        for state in [R::Pending, R::Running, R::Succeeded, R::Failed, R::Aborted, R::Held] {
            assert_eq!(of_run(state).is_none(), state.is_final(), "{state:?}");
        }
    }

    #[test]
    fn only_machines_and_agents_are_failed_and_persons_are_told() {
        for phase in [None].into_iter().chain(Phase::ALL.map(Some)) {
            let Some(row) = of_phase(phase, false, true) else { continue };
            let fails = matches!(phase, Some(Phase::Assigned | Phase::Provisioning));
            assert_eq!(row.then == Then::Fail, fails, "{phase:?}");
        }
    }

    #[test]
    fn a_wait_is_counted_from_what_it_waits_for() {
        let at = Timestamp::from_unix_seconds;
        let limits = Limits { agent: Duration::from_secs(900), boot: Duration::from_secs(1800) };
        let mut machine = Hardware::new("m", Default::default());
        let now = at(5010);
        let of = |machine: &Hardware, heard| super::of(machine, heard, limits, now);
        assert_eq!(of(&machine, None).map(|w| (w.owner, w.until)), Some((Owner::Machine, None)));
        (machine.status.phase, machine.status.phase_since) = (Some(Phase::Provisioning), Some(at(1000)));
        let until = |machine: &Hardware, heard| of(machine, heard).and_then(|w| w.until);
        assert_eq!(until(&machine, None), Some(at(1900)));
        assert_eq!(until(&machine, Some(at(5000))), Some(at(5900)));
        machine.status.phase = Some(Phase::Error);
        assert_eq!(until(&machine, Some(at(5000))), Some(at(1000 + 24 * 3600)));
        let waits = of(&machine, None);
        let held = {
            let mut held = machine.clone();
            held.spec.hold = Some("fan".to_owned());
            of(&held, None)
        };
        assert_eq!(held.as_ref().map(|w| (w.owner, w.until)), Some((Owner::Operator, None)), "until it is noted");
        assert!(held.as_ref().is_some_and(|w| w.cause.contains("release it")), "{held:?}");
        assert!(waits.is_some_and(|w| w.is_over(at(1000 + 24 * 3600)) && !w.is_over(at(1000))));
    }

    /// Not only the table: what is told of a machine, in every phase, held or in conflict or neither.
    #[test]
    fn no_machine_waits_without_an_end() {
        let at = Timestamp::from_unix_seconds;
        let limits = Limits { agent: Duration::from_secs(900), boot: Duration::from_secs(1800) };
        for phase in [None].into_iter().chain(Phase::ALL.map(Some)) {
            for (hold, conflict) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut machine = Hardware::new("m", Default::default());
                machine.metadata.creation_timestamp = Some(at(500));
                machine.status.phase = phase;
                machine.status.phase_since = phase.map(|_| at(1000));
                machine.status.authorisation = Some(
                    serde_json::from_value(serde_json::json!({
                        "workflow": "w", "workflowUid": uuid::Uuid::nil(), "generation": 1,
                        "grantedAt": at(1000), "grantedBy": "admin", "expiresAt": at(90_000),
                    }))
                    .unwrap(),
                );
                let conditions = &mut machine.status.conditions;
                let yes = ConditionStatus::True;
                if hold {
                    machine.spec.hold = Some("fan".to_owned());
                    set_condition(conditions, ON_HOLD, yes, "Held", "fan", at(1500));
                }
                if conflict {
                    set_condition(conditions, CONFLICT, yes, "AnchorsDisagree", "its card is in m2", at(1500));
                }
                set_condition(conditions, "Booted", ConditionStatus::Unknown, "HandedOver", "", at(1000));
                let waits = of(&machine, None, limits, at(2000));
                let waits = waits.unwrap_or_else(|| panic!("{phase:?}, hold {hold}, conflict {conflict}: nobody"));
                assert!(waits.until.is_some(), "{phase:?}, hold {hold}, conflict {conflict}: {waits:?}");
                assert!(waits.is_over(at(8 * 24 * 3600 + 90_000)), "{phase:?}: {waits:?}");
            }
        }
    }

    #[test]
    fn a_conflict_waits_for_a_person_and_an_agent_that_is_up_for_nobody_else() {
        let at = Timestamp::from_unix_seconds;
        let limits = Limits { agent: Duration::from_secs(900), boot: Duration::from_secs(1800) };
        let phases = [None].into_iter().chain(Phase::ALL.map(Some));
        for phase in phases {
            let mut machine = Hardware::new("m", Default::default());
            (machine.status.phase, machine.status.phase_since) = (phase, Some(at(1000)));
            let of = |machine: &Hardware, heard| of(machine, heard, limits, at(2000)).map(|w| (w.owner, w.cause));
            let up = of(&machine, Some(at(1990)));
            let goes_on = up.is_some_and(|(owner, cause)| owner == Owner::Agent && cause.contains("by itself"));
            assert_eq!(goes_on, phase == Some(Phase::Assigned), "{phase:?}");
            let silent = of(&machine, Some(at(1960)));
            assert!(silent.is_none_or(|(_, cause)| !cause.contains("by itself")), "{phase:?}");
            let conditions = &mut machine.status.conditions;
            set_condition(
                conditions,
                CONFLICT,
                ConditionStatus::True,
                "AnchorsDisagree",
                "its card is in m2",
                at(1500),
            );
            let (owner, cause) = of(&machine, Some(at(1990))).unwrap_or_else(|| panic!("{phase:?} waits for nobody"));
            let told = owner == Owner::Operator && cause.contains("its card is in m2");
            assert_eq!(told, phase != Some(Phase::Provisioning), "{phase:?}: {cause}");
        }
    }
}
