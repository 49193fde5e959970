//! Looking at machines' power now and then: gently, for controllers break when they are asked too often.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::power::{Operation, PowerError};
use crate::resource::{Hardware, HardwareSpec};

/// How often it is looked who is to be asked.
const TICK: Duration = Duration::from_secs(5);
/// How many are asked at a time: half of what the dispatcher talks to, so that a person never waits for these.
const AT_ONCE: usize = 64;
/// The longest pause between two questions, as a multiple of the first.
const MOST: u32 = 12;

/// When a controller is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at: Timestamp,
    /// How many periods passed before it.
    periods: u32,
}

impl Due {
    /// The first time: spread over a period, so that a server that begins does not ask all at once.
    fn first(name: &str, started: Timestamp, period: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let part = (hasher.finish() % 1000) as u32;
        Self { at: started.plus(period * part / 1000), periods: 1 }
    }

    /// The next time. One that did not answer is asked ever less often.
    fn after(self, now: Timestamp, period: Duration, answered: bool) -> Self {
        let periods = if answered { 1 } else { (self.periods * 2).min(MOST) };
        Self { at: now.plus(period * periods), periods }
    }
}

impl Engine {
    /// Asks controllers whether their machines are on, for as long as it is polled.
    pub(in crate::engine) async fn watch_power(&self) {
        let period = self.inner.settings.power_period;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known: HashMap<String, Option<Due>> = HashMap::new();
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if !self.leads_power() {
                        known.clear();
                        continue;
                    }
                    let mut seen = HashMap::with_capacity(known.len());
                    for piece in self.inner.cache.pieces::<HardwareSpec>() {
                        for machine in piece.iter().filter(|machine| self.is_to_be_asked(machine)) {
                            let name = machine.name();
                            let due = known
                                .get(name)
                                .copied()
                                .unwrap_or_else(|| Some(Due::first(name, self.inner.started, period)));
                            let now = self.now();
                            let due = match due {
                                Some(due) if due.at <= now && asked.len() < AT_ONCE => {
                                    let name = name.to_owned();
                                    asked.push(async move {
                                        let answered = self.glance(&name).await;
                                        (name, due, answered)
                                    });
                                    None
                                }
                                other => other,
                            };
                            seen.insert(name.to_owned(), due);
                        }
                        tokio::task::yield_now().await;
                    }
                    known = seen;
                }
                Some((name, due, answered)) = asked.next(), if !asked.is_empty() => {
                    if let Some(place) = known.get_mut(&name) {
                        *place = Some(due.after(self.now(), period, answered));
                    }
                }
            }
        }
    }

    /// Whether its controller is asked: it has one, and nobody else tells.
    fn is_to_be_asked(&self, machine: &Hardware) -> bool {
        #[cfg(feature = "proxmox")]
        if self.inner.clusters.tells_power_of(machine) {
            return false;
        }
        machine.spec.bmc.is_some() && self.leads_power_of(machine).is_some()
    }

    /// Asks one controller. Whether it answered.
    async fn glance(&self, name: &str) -> bool {
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name) else { return true };
        let done = match self.target(&machine) {
            Ok(Ok(target)) => self.inner.power.glance(&target).await,
            Ok(Err(error)) => Err(error),
            // It has none any more.
            Err(_) => return true,
        };
        if matches!(done, Err(PowerError::NotAble { .. })) {
            return false;
        }
        if let Err(error) = self.note_power(name, &Operation::Status, "dragonfly", None, &done).await {
            tracing::warn!(machine = name, %error, "what is known of its power could not be written");
        }
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_asked_gently() {
        let period = Duration::from_secs(300);
        let start = Timestamp::from_unix_seconds(0);
        let firsts: Vec<u64> =
            (0..1000).map(|n| Due::first(&format!("m{n}"), start, period).at.since(start).as_secs()).collect();
        assert!(firsts.iter().all(|first| *first < 300));
        let soon = firsts.iter().filter(|first| **first < 60).count();
        assert!((100..300).contains(&soon), "{soon} of 1000 in the first fifth");

        let mut due = Due { at: start, periods: 1 };
        let mut pauses = Vec::new();
        for _ in 0..6 {
            due = due.after(start, period, false);
            pauses.push(due.at.since(start).as_secs() / 300);
        }
        assert_eq!(pauses, [2, 4, 8, 12, 12, 12]);
        assert_eq!(due.after(start, period, true).periods, 1);
    }
}
