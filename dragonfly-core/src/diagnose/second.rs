//! Two agents that speak for one machine.

use std::sync::Arc;
use std::time::Duration;

use super::{Cause, Fault, Patient};
use crate::clock::Timestamp;
use crate::timeline::{Entry, What};

/// How the engine begins to tell of one that it refuses.
const WORDS: &str = "a second agent asked from ";
/// So long after the last one was refused it is not told any more.
const RECENT: Duration = Duration::from_secs(600);
/// So many refusals come from no machine that was restarted: its agent asks every five seconds, and the one of before
/// counts as silent after 45 s at most.
const MANY: u32 = 12;

/// Another asks while the first is heard. The restart of a machine looks like this for half a minute, but then its
/// first agent is not heard any more.
pub(super) fn agent(timeline: &[Arc<Entry>], patient: &Patient<'_>, now: Timestamp) -> Option<Cause> {
    // Whoever was welcomed after that was believed: the first was silent.
    let since = timeline.iter().rposition(|entry| matches!(entry.kind(), "machine.hello" | "machine.registered"));
    let since = timeline.get(since.map_or(0, |greeted| greeted + 1)..).unwrap_or_default();
    let refused: Vec<(&Entry, &str)> = since.iter().filter_map(|entry| Some((&**entry, asked_from(entry)?))).collect();
    let (last, from) = *refused.last()?;
    let times = refused.iter().fold(0, |sum: u32, (entry, _)| sum.saturating_add(entry.times));
    let both_speak = times > 1 && patient.agent_heard.is_some_and(|heard| heard > last.time);
    if now.since(last.time) > RECENT || !(both_speak || times >= MANY) {
        return None;
    }
    let says = format!(
        "its agent is heard, and another asks from {from} to speak for it too: a second machine with the same MAC, or somebody \
         in the network who speaks in its place; it is refused, and nothing of this machine's is given to it"
    );
    let next = format!(
        "find who has {from} (ip neigh; dragonfly get machines), and on which switch ports this MAC is seen: two ports mean a cloned \
         MAC (a copied VM, a bonded or replaced card); give one of them another, or take it off the network"
    );
    let cause = Cause::new(Fault::SecondAgent, says, next).seen(last);
    Some(cause.known(format!("refused {times} times since an agent was last welcomed")))
}

fn asked_from(entry: &Entry) -> Option<&str> {
    match &entry.what {
        What::Told { kind, message } if kind == "identity.refused" => message.strip_prefix(WORDS)?.split(' ').next(),
        _ => None,
    }
}
