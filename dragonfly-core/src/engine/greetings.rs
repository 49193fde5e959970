//! How often one machine may say hello.
//!
//! Each hello that is heard is a write of the machine's whole record, under a lock that other machines share. Whoever may
//! say it without an end takes the disk and keeps others waiting; an agent says it once for each boot, and again where an
//! answer was lost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::newcomers::{Bucket, Rate};
use super::rules::Rule;
use super::sessions::TokenClaims;
use super::{Engine, EngineError, Result};
use crate::Mac;
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::event::NewEvent;
use crate::resource::HardwareSpec;

/// Of one machine: one more every five seconds.
const OF_ONE: Rate = Rate { at_once: 5, per_minute: 12 };
/// From how many machines on it is looked which need not be remembered any more.
const FEW: usize = 1024;

/// Who said hello lately.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    each: HashMap<String, Bucket>,
    /// How many there may be before it is looked again.
    most: usize,
}

impl Greetings {
    /// Hears one more, of a machine; or says how long it is until that may be.
    fn one_more(&mut self, machine: &str, now: Timestamp) -> Option<Duration> {
        if self.each.len() >= self.most.max(FEW) && !self.each.contains_key(machine) {
            self.each.retain(|_, bucket| {
                bucket.wait(OF_ONE, now);
                !bucket.is_full()
            });
            self.most = self.each.len() * 2;
        }
        let bucket = self.each.entry(machine.to_owned()).or_default();
        let wait = bucket.wait(OF_ONE, now);
        if wait.is_zero() {
            bucket.take();
        }
        (!wait.is_zero()).then_some(wait)
    }
}

impl Engine {
    /// Whether a machine's hello is heard now: asked before its lock is taken.
    pub(super) fn may_greet(&self, machine: &str) -> Result<()> {
        let now = self.now();
        let wait = self.inner.greetings.lock().unwrap_or_else(PoisonError::into_inner).one_more(machine, now);
        let Some(wait) = wait else { return Ok(()) };
        Err(EngineError::TooMany { why: "this machine says hello too often".to_owned(), wait })
    }

    /// Whether a token may open a session of a machine still, by what is known without a lock or a look at the store.
    pub(super) fn may_open(&self, machine: &str, claims: &TokenClaims, boot_id: Uuid, from: IpAddr) -> Result<()> {
        // What was used stays used: what is remembered may be behind what is stored, never before it.
        let known = self.inner.cache.get::<HardwareSpec>(machine);
        let Some(stored) = known.as_ref().and_then(|known| known.status.session.as_ref()) else { return Ok(()) };
        if !stored.used_tokens.is_used(claims.mac, claims.order()) || !self.keeps(Rule::TokenOnce) {
            return Ok(());
        }
        // That another speaks is the better answer, where it is known.
        let lives = self.inner.sessions.live(machine, self.now()) == Some(stored.id);
        let is_another = lives && stored.boot_id != boot_id;
        Err(if is_another { self.second_agent(machine, from) } else { self.used_token(machine, from) })
    }

    /// Tells that an agent was refused, as often as a machine's hellos are heard: each is on its timeline.
    pub(super) fn tell_refused(&self, machine: &str, words: String) {
        if self.may_tell_refused(machine, self.now()) {
            self.tell("identity.refused", machine, None, words);
        }
    }

    fn may_tell_refused(&self, machine: &str, now: Timestamp) -> bool {
        self.inner.refusals.lock().unwrap_or_else(PoisonError::into_inner).one_more(machine, now).is_none()
    }

    /// Tells for the machine whose card it is that a hello came without a good token.
    pub(super) fn unproven(&self, card: Mac, from: IpAddr, why: &str) {
        let Owner::One(machine) = self.inner.cache.by_mac(card) else { return };
        let now = self.now();
        if !self.may_tell_refused(machine.name(), now) {
            return;
        }
        // Whoever can invent a machine can have it register itself.
        let claimed = (!machine.is_unclaimed()).then(|| machine.name());
        if self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).has_room(claimed, now) {
            let message = format!("somebody at {from} said hello as {card} without a good boot token: {why}");
            let (machine, data) = (Some(machine.name().to_owned()), json!({ "mac": card, "from": from }));
            let event = NewEvent { kind: "identity.refused", machine, workflow: None, message, data };
            self.inner.events.publish(now, event);
        }
    }

    pub(super) fn used_token(&self, machine: &str, from: IpAddr) -> EngineError {
        self.tell_refused(machine, format!("a boot token was used a second time, from {from}"));
        EngineError::Forbidden { why: "this boot token has been used; boot again".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn lost_answers_are_repeated_and_a_flood_is_not_heard() {
        let mut greetings = Greetings::default();
        for _ in 0..5 {
            assert_eq!(greetings.one_more("a", at(0)), None);
        }
        assert_eq!(greetings.one_more("a", at(0)), Some(Duration::from_secs(5)));
        assert_eq!(greetings.one_more("a", at(3)), Some(Duration::from_secs(2)));
        assert_eq!(greetings.one_more("b", at(3)), None, "another's are its own");
        let heard = (5..605).filter(|second| greetings.one_more("a", at(*second)).is_none()).count();
        assert_eq!(heard, 120);
        assert_eq!((0..9).filter(|_| greetings.one_more("a", at(700)).is_none()).count(), 5);
    }

    #[test]
    fn machines_are_not_remembered_for_ever() {
        let mut greetings = Greetings::default();
        for n in 0..100_000_u64 {
            // A hundred each second, of which each is remembered for five.
            greetings.one_more(&n.to_string(), at(n / 100));
            assert!(greetings.each.len() <= 2 * FEW, "{}", greetings.each.len());
        }
    }
}
