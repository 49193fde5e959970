//! Who is assigned something is booted for it.
//!
//! What is still to be done is read off the machine's own state, so that a server that was killed between an assign
//! and its boot goes on where it was.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::{POWERED, boot_mode, whole};
use crate::boot::Fate;
use crate::clock::Timestamp;
use crate::engine::sessions::SILENCE;
use crate::engine::{Engine, EngineError, Result};
use crate::power::{Operation, PowerError, PowerState};
use crate::resource::hardware::Trust;
use crate::resource::power::{PowerOperation, PowerPolicy, PowerStatus};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, condition};
use crate::timeline::What;

/// Who the engine is in events of what it does by itself.
const ENGINE: &str = "dragonfly";
/// How often every machine is looked at; those that were just assigned something are looked at once.
const PERIOD: Duration = Duration::from_secs(10);
/// How many are booted at a time; the dispatcher has a limit of its own for those at work.
const AT_ONCE: usize = 1024;
/// After this many failures a person is needed.
const FAILURES: u32 = 5;
/// The pause after the first failure; each one after it is twice as long.
const PAUSE: Duration = Duration::from_secs(60);
/// What is noted of a machine that is on and is not to be switched.
const LEFT_ON: &str = "left-on";
/// A machine whose firmware was heard a moment ago is on its way here.
const COMING: Duration = Duration::from_secs(30);

/// Machines to look at now.
#[derive(Debug, Default)]
pub(in crate::engine) struct Boots {
    names: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Boots {
    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is known of a machine that may have to be booted.
#[derive(Debug, Clone)]
struct Facts<'a> {
    now: Timestamp,
    /// When this engine began to hear agents.
    started: Timestamp,
    /// It is to boot the agent and run a workflow that has not begun.
    waits_since: Option<Timestamp>,
    policy: PowerPolicy,
    /// Its agent, or its firmware, was heard of lately.
    is_coming: bool,
    powered: Option<PowerState>,
    power: Option<&'a PowerStatus>,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// Boot it if it is off.
    IfOff,
    /// Boot it, whatever it does.
    Boot,
}

fn next(facts: &Facts<'_>) -> Next {
    let Some(since) = facts.waits_since else { return Next::Nothing };
    if facts.is_coming {
        return Next::Nothing;
    }
    // Who waits in the agent has not been heard yet by an engine that has just begun.
    let is_new = facts.now.since(facts.started) < SILENCE && facts.powered != Some(PowerState::Off);
    if is_new && facts.started > since {
        return Next::Nothing;
    }
    if let Some(power) = facts.power
        && let Some(last) = power.last.as_ref().filter(|last| last.at >= since && last.by == ENGINE)
    {
        let pause = PAUSE * (1 << power.failures.saturating_sub(1).min(10));
        let again = last.failure.is_some() && last.may_repeat && power.failures < FAILURES;
        if !again || facts.now.since(last.at) < pause {
            return Next::Nothing;
        }
    }
    match facts.policy {
        PowerPolicy::None => Next::Nothing,
        PowerPolicy::On => Next::IfOff,
        PowerPolicy::Cycle => Next::Boot,
    }
}

impl Engine {
    /// Has a machine looked at now.
    pub(in crate::engine) fn boot_soon(&self, name: &str) {
        self.inner.boots.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        self.inner.boots.news.notify_one();
    }

    /// Boots machines that wait for it, for as long as it is polled.
    pub(in crate::engine) async fn boot_the_assigned(&self) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut at_work = BTreeSet::new();
        let mut boots = FuturesUnordered::new();
        loop {
            let names = tokio::select! {
                _ = tick.tick() => self.those_that_wait().await,
                () = self.inner.boots.news.notified() => self.inner.boots.take(),
                Some(name) = boots.next(), if !boots.is_empty() => {
                    at_work.remove(&name);
                    continue;
                }
            };
            for name in names {
                if at_work.len() < AT_ONCE && self.next_of(&name) != Next::Nothing && at_work.insert(name.clone()) {
                    boots.push(async move {
                        self.boot_for_assignment(&name).await;
                        name
                    });
                }
            }
        }
    }

    async fn those_that_wait(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        if !self.leads_power() {
            return names;
        }
        for piece in self.inner.cache.pieces::<HardwareSpec>() {
            let waiting = piece.iter().filter(|machine| self.next_for(machine) != Next::Nothing);
            names.extend(waiting.map(|machine| machine.name().to_owned()));
            tokio::task::yield_now().await;
        }
        names
    }

    fn next_of(&self, name: &str) -> Next {
        self.inner.cache.get::<HardwareSpec>(name).map_or(Next::Nothing, |machine| self.next_for(&machine))
    }

    fn next_for(&self, machine: &Hardware) -> Next {
        let is_ours = machine.spec.bmc.is_some() && self.leads_power_of(machine).is_some();
        let Some(authorisation) = machine.status.authorisation.as_ref().filter(|_| is_ours) else {
            return Next::Nothing;
        };
        let waits = machine.status.phase == Some(crate::lifecycle::Phase::Assigned)
            && matches!(self.decision_for(machine).fate, Fate::Image { .. });
        let waits_since = machine.status.phase_since.filter(|_| waits);
        let now = self.now();
        let powered = condition(&machine.status.conditions, POWERED).and_then(|c| match c.status {
            ConditionStatus::True => Some(PowerState::On),
            ConditionStatus::False => Some(PowerState::Off),
            ConditionStatus::Unknown => None,
        });
        next(&Facts {
            now,
            started: self.inner.started,
            waits_since,
            policy: authorisation.power,
            is_coming: waits_since.is_some() && !must_be_cycled(machine) && self.is_coming(machine, now),
            powered,
            power: machine.status.power.as_ref(),
        })
    }

    /// Whether its agent, or its firmware on the way to it, was heard lately.
    fn is_coming(&self, machine: &Hardware, now: Timestamp) -> bool {
        let name = machine.name();
        if self.inner.sessions.live(name, now).is_some() {
            return true;
        }
        let seen = self.inner.recorder.read(Some(name), &machine.spec.macs, 0);
        let last = seen.iter().rev().find(|entry| matches!(entry.what, What::Seen(_)));
        last.is_some_and(|entry| now.since(entry.time) < COMING)
    }

    /// Keeps what was decided without an operation, so that it is not decided again at every look.
    async fn note_decided(&self, name: &str, word: &str, failure: Option<String>, may_repeat: bool) {
        let now = self.now();
        let noted = self
            .change_status::<HardwareSpec, _>(name, |m| {
                let power = m.status.power.get_or_insert_default();
                power.failures = if failure.is_some() { power.failures.saturating_add(1) } else { 0 };
                let (operation, by, failure) = (word.to_owned(), ENGINE.to_owned(), failure.clone());
                power.last = Some(PowerOperation { operation, at: now, by, failure, may_repeat });
                Ok(())
            })
            .await;
        match (noted, failure) {
            (Err(error), _) => {
                tracing::warn!(
                    machine = name,
                    error = &error as &dyn std::error::Error,
                    "its power could not be noted"
                );
            }
            (Ok(_), Some(failure)) => self.tell("power.failed", name, None, format!("{ENGINE}: {word}: {failure}")),
            (Ok(_), None) => {
                self.tell(
                    "power.done",
                    name,
                    None,
                    "it is on, and its power was not to be changed: boot it from the network",
                );
            }
        }
    }

    /// Whether it is this instance that boots it, now. Among several that is settled in the store: no agent of it lives
    /// elsewhere, it still waits, and no later leader has begun with it.
    async fn may_boot(&self, name: &str) -> Result<bool> {
        if !self.is_shared() {
            return Ok(true);
        }
        let Some(machine) = self.fresh::<HardwareSpec>(name).await? else { return Ok(false) };
        let is_off = condition(&machine.status.conditions, POWERED).is_some_and(|c| c.status == ConditionStatus::False);
        if !is_off && !must_be_cycled(&machine) && !self.is_silent(name).await? {
            return Ok(false);
        }
        let (_, may) = self
            .change_status::<HardwareSpec, _>(name, |m| {
                let Some(term) = self.leads_power_of(m).filter(|_| self.next_for(m) != Next::Nothing) else {
                    return Ok(false);
                };
                let power = m.status.power.get_or_insert_default();
                let may = power.term <= term.0;
                power.term = power.term.max(term.0);
                Ok(may)
            })
            .await?;
        Ok(may)
    }

    async fn boot_for_assignment(&self, name: &str) {
        match self.may_boot(name).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(machine = name, error, "whether it is to be booted could not be settled");
                return;
            }
        }
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name) else { return };
        let operation = Operation::NetworkBoot(boot_mode(&machine));
        if self.next_for(&machine) == Next::IfOff {
            match self.operate(&machine, Operation::Status, ENGINE, || true).await {
                Ok(crate::power::Outcome::State(PowerState::Off)) => {}
                // One that cannot tell is told to be on, which leaves alone what is on.
                Err(EngineError::Power { source: PowerError::NotAble { .. }, .. }) => {}
                // It was not to be changed then.
                Ok(_) => return self.note_decided(name, LEFT_ON, None, false).await,
                Err(EngineError::Power { source, .. }) => {
                    let (failure, again) = (whole(&source), source.is_retryable());
                    return self.note_decided(name, operation.word(), Some(failure), again).await;
                }
                Err(error) => {
                    tracing::warn!(
                        machine = name,
                        error = &error as &dyn std::error::Error,
                        "it could not be looked at"
                    );
                    return;
                }
            }
        }
        // It may have begun by itself while it waited for its turn: nothing that has begun is cycled.
        let wanted = || self.next_of(name) != Next::Nothing;
        match self.operate(&machine, operation, ENGINE, wanted).await {
            Ok(_) | Err(EngineError::Power { source: PowerError::Withdrawn, .. }) => {}
            Err(error) => {
                tracing::warn!(machine = name, error = &error as &dyn std::error::Error, "it could not be booted");
            }
        }
    }
}

/// Whether an agent that waits there already is not enough, because its secrets go to a machine that was cycled.
fn must_be_cycled(machine: &Hardware) -> bool {
    machine.spec.trust == Trust::Bmc
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(AT + seconds)
    }

    fn power(seconds: i64, by: &str, failure: Option<&str>, may_repeat: bool, failures: u32) -> PowerStatus {
        let failure = failure.map(str::to_owned);
        let last =
            PowerOperation { operation: "network-boot".into(), at: at(seconds), by: by.into(), failure, may_repeat };
        PowerStatus { last: Some(last), failures, ..PowerStatus::default() }
    }

    #[test]
    fn who_is_booted_and_when() {
        let waits = Facts {
            now: at(100),
            started: at(-1000),
            waits_since: Some(at(99)),
            policy: PowerPolicy::Cycle,
            is_coming: false,
            powered: None,
            power: None,
        };
        assert_eq!(next(&waits), Next::Boot);
        assert_eq!(next(&Facts { policy: PowerPolicy::On, ..waits.clone() }), Next::IfOff);
        assert_eq!(next(&Facts { policy: PowerPolicy::None, ..waits.clone() }), Next::Nothing);
        assert_eq!(next(&Facts { waits_since: None, ..waits.clone() }), Next::Nothing, "nothing is assigned");
        assert_eq!(next(&Facts { is_coming: true, ..waits.clone() }), Next::Nothing, "it comes by itself");

        // After a restart of the server its agent has a while to be heard; one that is off has none to be heard.
        let restarted = Facts { started: at(99), waits_since: Some(at(0)), ..waits.clone() };
        assert_eq!(next(&restarted), Next::Nothing);
        assert_eq!(next(&Facts { powered: Some(PowerState::Off), ..restarted.clone() }), Next::Boot);
        assert_eq!(next(&Facts { now: at(130), ..restarted }), Next::Boot);
        let young = Facts { started: at(90), ..waits.clone() };
        assert_eq!(next(&young), Next::Boot, "it heard the assignment itself");

        // Once for each assignment; what somebody else did is not that.
        let done = power(99, ENGINE, None, false, 0);
        assert_eq!(next(&Facts { power: Some(&done), ..waits.clone() }), Next::Nothing);
        let before = power(98, ENGINE, None, false, 0);
        assert_eq!(next(&Facts { power: Some(&before), ..waits.clone() }), Next::Boot);
        let other = power(99, "admin", None, false, 0);
        assert_eq!(next(&Facts { power: Some(&other), ..waits.clone() }), Next::Boot);

        // Failures that may pass are tried again, ever later, and not for ever.
        for (failures, pause) in [(1, 60), (2, 120), (3, 240), (4, 480)] {
            let failed = power(100, ENGINE, Some("no answer"), true, failures);
            let soon = Facts { now: at(100 + pause - 1), power: Some(&failed), ..waits.clone() };
            assert_eq!(next(&soon), Next::Nothing, "{failures}");
            assert_eq!(next(&Facts { now: at(100 + pause), ..soon }), Next::Boot, "{failures}");
        }
        let last = power(100, ENGINE, Some("no answer"), true, FAILURES);
        assert_eq!(next(&Facts { now: at(100_000), power: Some(&last), ..waits.clone() }), Next::Nothing);
        let refused = power(100, ENGINE, Some("wrong password"), false, 1);
        assert_eq!(next(&Facts { now: at(100_000), power: Some(&refused), ..waits }), Next::Nothing);
    }
}
