//! From the agent's hello to the hand-over: why a run does not get on.

use std::sync::Arc;
use std::time::Duration;

use super::second;
use super::words;
use super::{Cause, Fault, Patient};
use crate::boot::Seen;
use crate::clock::Timestamp;
use crate::lifecycle::Phase;
use crate::timeline::{Entry, What};
use crate::wire::{Failure, FailureKind};
use crate::workflow::RunState;

/// An agent that has been silent for so long while it works is dead or cut off, in seconds.
const SILENCE: u64 = 60;
/// A clock that is off by more than this makes certificates invalid, in seconds.
const CLOCK: u64 = 24 * 3600;

/// Why the run does not get on, as far as its agent came to it.
pub(super) fn causes(
    timeline: &[Arc<Entry>],
    this_boot: &[Arc<Entry>],
    patient: &Patient<'_>,
    now: Timestamp,
) -> Vec<Cause> {
    let rules = [
        restarts(patient),
        failed(timeline, patient),
        silent(timeline, patient, now),
        link(this_boot),
        second::agent(timeline, patient, now),
    ];
    rules.into_iter().flatten().collect()
}

fn restarts(patient: &Patient<'_>) -> Option<Cause> {
    let run = patient.run.filter(|run| run.state == RunState::Held)?;
    // A run is held for other reasons too: a backup that was put back.
    run.failures.last().filter(|last| last.failure.kind == Some(FailureKind::Restarts))?;
    let says = "it restarts in the middle of its workflow again and again, so it is held and boots its own disk";
    let next = "find out why it restarts (power, memory, watchdog, BMC's event log, the console); then release and assign anew";
    Some(Cause::new(Fault::RestartLoop, says, next).known(run.message.clone()))
}

/// The run has failed, and its words say why.
fn failed(timeline: &[Arc<Entry>], patient: &Patient<'_>) -> Option<Cause> {
    let run = patient.run.filter(|_| patient.phase != Some(Phase::Ready))?;
    let last = run.failures.last().filter(|_| run.state == RunState::Failed || run.state == RunState::Pending)?;
    let fault = named(&last.failure)?;
    let step = last.step.as_deref().map(|step| format!(" in step `{step}`")).unwrap_or_default();
    let told =
        std::iter::once(&last.failure.message).chain(&last.failure.causes).map(String::as_str).collect::<Vec<_>>();
    let next = match fault {
        Fault::BadImage => {
            "compare the image's digest with the template's (sha256sum), and its `url`; put the right image or digest there, then retry"
        }
        Fault::FullDisk => {
            "choose a larger disk in the template, a smaller image, or other sizes of the partitions; then assign anew"
        }
        Fault::WrongClock => {
            "set the machine's clock in its firmware and change its battery, or the image server's certificate; then retry"
        }
        Fault::DeadAgent => "look at the machine's console and power; power-cycle it, then retry",
        _ => {
            "let the machine reach the image's server (address, route, firewall, name), or put the image into this server's /images; then retry"
        }
    };
    let cause = Cause::new(fault, format!("attempt {}{step} failed", last.attempt), next);
    let cause = cause.known(told.join(": "));
    Some(match timeline.iter().rev().find(|entry| entry.kind() == "workflow.failed") {
        Some(entry) => cause.seen(entry),
        None => cause,
    })
}

/// Which fault a failure is, if it is one of those that have a name. What an agent that tells no kind says is read.
pub fn named(failure: &Failure) -> Option<Fault> {
    use FailureKind as K;
    match failure.kind {
        None => words::failure(failure),
        Some(K::ImageDigest | K::ImageMissing | K::ImageRefused | K::ImageUnfit) => Some(Fault::BadImage),
        Some(K::TooLarge | K::NoSpace) => Some(Fault::FullDisk),
        Some(K::CertificateTime) => Some(Fault::WrongClock),
        Some(K::Unreachable) => Some(Fault::ServerUnreachable),
        Some(K::AgentSilent) => Some(Fault::DeadAgent),
        Some(K::Restarts) => Some(Fault::RestartLoop),
        Some(K::Other) => None,
    }
}

/// The agent was at work and is not heard any more.
fn silent(timeline: &[Arc<Entry>], patient: &Patient<'_>, now: Timestamp) -> Option<Cause> {
    let heard = patient.agent_heard.filter(|_| patient.phase == Some(Phase::Provisioning))?;
    let quiet = now.since(heard);
    // It asks to boot again: that is another story, told by its boot.
    let back = timeline.iter().any(|entry| entry.seen().is_some() && entry.time > heard);
    if back || quiet < Duration::from_secs(SILENCE) {
        return None;
    }
    let says = format!("its agent has been silent for {} s in the middle of its work", quiet.as_secs());
    let next = "look at the machine's console and power: a crash, a lost link, or switched off. A power cycle lets it go on \
                from the right place";
    let cause = Cause::new(Fault::DeadAgent, says, next).known(format!("last heard at {heard}"));
    Some(match timeline.iter().rev().find(|entry| matches!(entry.what, What::Told { .. } | What::Logged(_))) {
        Some(last) => cause.seen(last),
        None => cause,
    })
}

/// The agent itself writes that a card has no link or driver.
fn link(timeline: &[Arc<Entry>]) -> Option<Cause> {
    let entry = timeline.iter().rev().filter(|entry| matches!(entry.what, What::Logged(_))).take(200);
    let entry = entry.into_iter().find(|entry| words::log_line(&entry.message()).is_some())?;
    let fault = words::log_line(&entry.message())?;
    // It got through after all, with another card or later.
    if timeline.iter().any(|later| later.id > entry.id && later.kind() == "workflow.began") {
        return None;
    }
    let (says, next) = match fault {
        Fault::MissingDriver => (
            "its agent has no driver for the card that it booted from",
            "build the boot files with its driver: dragonfly mage build --modules-from DIR, or another --kernel-package",
        ),
        _ => (
            "its agent says that its card has no link",
            "look at the cable, the transceiver and the switch port (speed, VLAN, spanning tree: set it to edge)",
        ),
    };
    Some(Cause::new(fault, says, next).seen(entry))
}

/// Its clock lies, whatever else is wrong.
pub(super) fn clock(timeline: &[Arc<Entry>], patient: &Patient<'_>) -> Option<Cause> {
    if patient.phase == Some(Phase::Ready) {
        return None;
    }
    let entry = timeline.iter().rev().find(|entry| matches!(entry.seen(), Some(Seen::AgentClock { .. })))?;
    let Some(Seen::AgentClock { offset_seconds }) = entry.seen() else { return None };
    if offset_seconds.unsigned_abs() < CLOCK {
        return None;
    }
    let says = "its clock is off by more than a day. The agent sets it for this boot; what else checks certificates on this \
                machine (its firmware, HTTPS boot, an installed system) fails";
    Some(Cause::new(Fault::WrongClock, says, "set it in the firmware, and change the battery of the board").seen(entry))
}
