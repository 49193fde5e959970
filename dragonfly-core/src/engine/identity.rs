//! Machines whose identity is in doubt: how a conflict is told, how a person settles it, what becomes of cards that moved.

use std::net::IpAddr;
use std::sync::PoisonError;

use super::anchors::Match;
use super::anchors::has_no_board;
use super::proof::{is_foreign, is_own, is_without, unproven};
use super::question::{
    DISAGREE, answer, ask, denied, end, is_asked_about, is_believed, is_forgotten, is_in_conflict, settle, settled,
    whom,
};
use super::strangers::Word;
use super::{Engine, EngineError, Result};
use crate::Mac;
use crate::cache::Owner;
use crate::resource::hardware::{Anchors, Asked};
use crate::resource::{ConditionStatus, ELSEWHERE, Hardware, HardwareSpec, Record};
use crate::wire::Hello;

/// How many other machines are named where there may be many.
const NAMED: usize = 3;

impl Engine {
    /// Whether the card that an agent booted from is a machine's own.
    pub(super) fn is_own_card(&self, machine: &str, card: Mac) -> bool {
        self.inner.cache.get::<HardwareSpec>(machine).is_some_and(|m| is_own(&m, card))
    }

    /// Some of these cards that are another machine's own.
    pub(super) fn others_cards(&self, machine: &str, cards: &[Mac]) -> Vec<Mac> {
        let is_anothers = |card: &&Mac| match self.inner.cache.by_mac(**card) {
            Owner::One(owner) => owner.name() != machine,
            Owner::Several(_) => true,
            Owner::Nobody => false,
        };
        cards.iter().filter(is_anothers).take(NAMED).copied().collect()
    }

    /// Holds the machine whose card asks, and tells what settles it. Who asks is not told: it may be anybody.
    pub(super) async fn conflict(
        &self,
        hello: &Hello,
        said: &Anchors,
        machines: &[String],
        why: &str,
        from: IpAddr,
    ) -> EngineError {
        let (now, card) = (self.now(), hello.mac);
        let reason = if machines.len() > 1 { ELSEWHERE } else { DISAGREE };
        let mut asked = Vec::new();
        for name in machines {
            // Only the machine whose card asks is held and told: the others have done nothing.
            let Some(machine) = self.inner.cache.get::<HardwareSpec>(name).filter(|m| is_own(m, card)) else {
                continue;
            };
            // One whose agent lives goes on: it is who asks that is doubtful.
            let lives = match self.may_speak(name, hello.boot_id, said, false, now).await {
                Ok((is_free, _)) => !is_free,
                Err(error) => return error,
            };
            if lives && !(machines.len() > 1 && is_without(&machine, card)) {
                return self.second_agent(name, from);
            }
            let status = if lives { ConditionStatus::Unknown } else { ConditionStatus::True };
            let elsewhere = machines.iter().filter(|other| *other != name);
            let elsewhere = elsewhere.filter_map(|other| self.inner.cache.get::<HardwareSpec>(other)?.metadata.uid);
            let asks = Asked { said: said.clone(), others: Vec::new(), elsewhere: elsewhere.collect() };
            let written = self
                .change_status::<HardwareSpec, _>(name, |m| {
                    Ok(is_own(m, card).then(|| ask(m, &asks, status, reason, why, now)))
                })
                .await;
            match written {
                Ok((_, is_open)) => asked.extend(is_open.map(|is_open| (name.as_str(), lives, is_open))),
                Err(error) => tracing::warn!(machine = %name, %error, "an identity conflict could not be written down"),
            }
        }
        let others = machines.iter().map(String::as_str).filter(|name| asked.iter().all(|(held, ..)| held != name));
        let others: Vec<&str> = others.take(NAMED).collect();
        let yes = |name: &str| match self.inner.cache.get::<HardwareSpec>(name) {
            Some(machine) => answer("release", &machine),
            None => format!("dragonfly release {name}"),
        };
        let out_of = |name: &str| {
            format!("write the cards that {name} has now in its spec.macs by dragonfly apply, {card} not among them")
        };
        let settles = match (&asked[..], &others[..]) {
            ([(one, _, false)], _) => self.asked_before(one),
            // What is written down is wrong, or the machine is: whom it is said of is no question.
            ([(one, ..)], []) if self.is_other_serial(one, said) => {
                format!("correct spec.serial of {one} by dragonfly apply, or put the right machine in its place")
            }
            ([(one, ..)], []) => {
                format!("{} if {one} has this board now; if its card was moved, {}", yes(one), out_of(one))
            }
            ([(one, true, _)], others) => {
                format!("{} if its card was moved to {}", yes(one), others.join(" and "))
            }
            ([(one, ..)], others) if self.inner.cache.get::<HardwareSpec>(one).is_some_and(|m| m.is_unclaimed()) => {
                let others = others.join(" or ");
                format!(
                    "dragonfly delete machine {one}, which wrote itself down, if this is {others}; \
                     {} if its card was moved to {others}",
                    yes(one)
                )
            }
            ([(one, ..)], others) => {
                let others = others.join(" and ");
                format!(
                    "{} if its card was moved to {others}; if this is {one} with another board, delete {others}",
                    yes(one)
                )
            }
            ([], others) => format!(
                "if it is {}, add {card} to its spec.macs by dragonfly apply, and take its other cards from all others",
                others.join(" or "),
            ),
            _ => {
                let all: Vec<&str> = asked.iter().map(|(name, ..)| *name).collect();
                format!("take the addresses from all but one of {} (spec.macs, by dragonfly apply)", all.join(", "))
            }
        };
        // Where nobody is held they have done nothing, and are told no more than is told of strangers.
        let is_told = !asked.is_empty()
            || !matches!(
                self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).one_more(None, now),
                Word::LeaveOut
            );
        let words = format!("{card} says it is this machine, but {why}; what settles it: {settles}");
        for (name, _, is_open) in &asked {
            match is_open {
                true => self.tell("identity.conflict", name, None, words.clone()),
                false => self.tell_refused(name, words.clone()),
            }
        }
        for name in others.iter().filter(|_| is_told) {
            match &asked[..] {
                [] => self.tell("identity.conflict", name, None, words.clone()),
                // Whoever looks for the machine that it says it runs on looks there.
                [(whose, ..), ..] => {
                    let words = format!("{card} says it is on its board, and is a card of {whose}; {settles}");
                    self.tell_refused(name, words);
                }
            }
        }
        let why =
            "identity in conflict; an operator must settle it: `dragonfly why` with this machine's address tells how";
        EngineError::Busy { why: why.to_owned() }
    }

    /// What is to be done where a person is asked about another, or has answered.
    fn asked_before(&self, machine: &str) -> String {
        let known = self.inner.cache.get::<HardwareSpec>(machine);
        match known.as_deref() {
            Some(m) if settled(m).is_some() => {
                format!("a person has said so of {}; nobody else is asked about within 15 minutes of that", whom(m))
            }
            Some(m) if denied(m).is_some() => {
                format!(
                    "a person has denied that it is {}, and nobody else is asked about within 15 minutes of that; \
                     {} takes it back",
                    whom(m),
                    answer("release", m)
                )
            }
            Some(m) => {
                format!("first whether {machine} is {}: {} if it is not", whom(m), answer("deny", m))
            }
            None => "boot it again".to_owned(),
        }
    }

    fn is_other_serial(&self, machine: &str, said: &Anchors) -> bool {
        let known = self.inner.cache.get::<HardwareSpec>(machine);
        let written = known.as_ref().and_then(|m| m.spec.serial.as_ref());
        written.zip(said.serial.as_ref()).is_some_and(|(written, is)| written != is)
    }

    /// Writes down a card as a machine's: a person has said so.
    pub(super) async fn own_card(&self, machine: &str, card: Mac) -> Result<()> {
        let known = self.inner.cache.get::<HardwareSpec>(machine);
        if known.is_some_and(|m| m.spec.macs.contains(&card)) {
            return Ok(());
        }
        self.change_spec::<HardwareSpec>(machine, |m| {
            if !m.spec.macs.contains(&card) {
                m.spec.macs.push(card);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// An agent speaks for a machine that is to be installed, and it is not certain enough that it runs on it: nothing is
    /// written before a person has said so. The machine is held where it asks from the machine's own card.
    pub(super) async fn doubt(&self, machine: &str, why: &str) -> Result<()> {
        let _guard = self.lock(machine).await;
        let now = self.now();
        let (asked, news) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let Some(session) = &m.status.session else { return Ok(None) };
                let said = session.said.clone();
                let others = if has_no_board(&said) { session.others.clone() } else { Vec::new() };
                let asks = Asked { said, others, elsewhere: Vec::new() };
                let said = &asks.said;
                // Of whom a person has said it already: it is to boot again.
                if unproven(m).is_none() || is_believed(m, said) {
                    return Ok(None);
                }
                let is_asked_before = m.status.in_doubt.as_ref() == Some(&asks)
                    && (is_in_conflict(m) || is_asked_about(m) || denied(m).is_some());
                let status = if is_foreign(m) { ConditionStatus::Unknown } else { ConditionStatus::True };
                let is_open = ask(m, &asks, status, DISAGREE, why, now);
                Ok((!is_asked_before).then_some((is_open, said.macs.first().copied())))
            })
            .await?;
        match news {
            Some((true, _)) => {
                let words = format!(
                    "its agent may run on another machine: {why}; if it is right, {}, and boot it again",
                    answer("release", &asked)
                );
                self.tell("identity.conflict", machine, None, words);
            }
            Some((false, card)) => {
                let card = card.map(|card| card.to_string()).unwrap_or_default();
                let words = format!(
                    "an agent on {card} may run on another machine: {why}; what settles it: {}",
                    self.asked_before(machine)
                );
                self.tell_refused(machine, words);
            }
            None => {}
        }
        Ok(())
    }

    /// Takes a card from machines that gave way: it is in another now.
    pub(super) async fn move_card(&self, card: Mac, from: &[String], to: &str) -> Result<()> {
        for name in from {
            let _guard = self.lock(name).await;
            let words = format!("its card {card} is in {to} now");
            self.change_spec::<HardwareSpec>(name, |m| {
                m.spec.macs.retain(|mac| *mac != card);
                Ok(())
            })
            .await?;
            let now = self.now();
            self.change_status::<HardwareSpec, _>(name, |m| {
                // Without a card it is not one that was written down by its serial number alone: the next agent is asked about.
                let proven = m.status.proven.get_or_insert_default();
                for anchors in [Some(proven), m.status.anchors.as_mut()].into_iter().flatten() {
                    anchors.macs.retain(|mac| *mac != card);
                }
                end(m, &words, now);
                Ok(())
            })
            .await?;
            self.tell("machine.cards-moved", name, None, words);
        }
        Ok(())
    }

    /// Ends questions whether a card was moved to a machine that is no more, or is known by something else by now, whatever
    /// was answered; and answers that nobody has used.
    pub(super) async fn judge_anew(&self) -> Result<()> {
        let is_past = |m: &Hardware| self.why_past(m).is_some();
        self.of_machines(is_past, |machine| async move {
            let _guard = self.lock(machine.name()).await;
            let now = self.now();
            self.change_status::<HardwareSpec, _>(machine.name(), |m| {
                if let Some(why) = self.why_past(m) {
                    end(m, why, now);
                }
                Ok(())
            })
            .await?;
            Ok(())
        })
        .await
    }

    fn why_past(&self, machine: &Hardware) -> Option<&'static str> {
        if is_forgotten(machine, self.now()) {
            return Some("whom a person has believed has not asked again within a day");
        }
        let is_there = machine.is_asked_about() || settled(machine).is_some() || denied(machine).is_some();
        let is_past = is_there && machine.is_seen_elsewhere() && !self.is_elsewhere_still(machine);
        is_past.then_some("the other machine is no more, or is known by something else")
    }

    fn is_elsewhere_still(&self, machine: &Hardware) -> bool {
        let Some(Asked { said, elsewhere, .. }) = &machine.status.in_doubt else { return false };
        let Some(card) = said.macs.first() else { return false };
        let is_asked = |name: &String| {
            let other = self.inner.cache.get::<HardwareSpec>(name).and_then(|m| m.metadata.uid);
            other.is_some_and(|uid| elsewhere.contains(&uid))
        };
        match self.recognise(said, said, *card) {
            Match::Conflict { machines, .. } => machines.iter().any(is_asked),
            Match::Moved { machine, .. } => is_asked(&machine),
            Match::Known(_) | Match::New => false,
        }
    }

    /// A person has changed a machine's cards or serial number: a card that was taken from it is not its own for having
    /// been seen in it, and what was in conflict is to be judged anew.
    pub(super) async fn identity_edited(&self, old: &Record, new: &Record, by: &str) -> Result<()> {
        let (Ok(old), Ok(new)) = (old.decode::<HardwareSpec>(), new.decode::<HardwareSpec>()) else { return Ok(()) };
        // Written in another order they are the same cards.
        let has_all = |one: &[Mac], other: &[Mac]| one.iter().all(|card| other.contains(card));
        let same_cards = has_all(&old.spec.macs, &new.spec.macs) && has_all(&new.spec.macs, &old.spec.macs);
        let is_same = same_cards && old.spec.serial == new.spec.serial;
        let taken: Vec<_> = old.spec.macs.iter().filter(|mac| !new.spec.macs.contains(mac)).collect();
        let is_doubted =
            |m: &Hardware| is_in_conflict(m) || is_asked_about(m) || denied(m).is_some() || settled(m).is_some();
        let said = [&new.status.anchors, &new.status.proven];
        let is_taken = said.into_iter().flatten().any(|anchors| anchors.macs.iter().any(|mac| taken.contains(&mac)));
        if is_same || !(is_doubted(&new) || is_taken) {
            return Ok(());
        }
        let now = self.now();
        self.change_status::<HardwareSpec, _>(new.name(), |m| {
            for anchors in [&mut m.status.anchors, &mut m.status.proven].into_iter().flatten() {
                anchors.macs.retain(|mac| !taken.contains(&mac));
            }
            if is_doubted(m) {
                let asked = m.status.in_doubt.as_ref().map(|asked| &asked.said);
                // What was written down now is what asks: that one is meant.
                let is_added = |card: &Mac| m.spec.macs.contains(card) && !old.spec.macs.contains(card);
                let is_corrected = old.spec.serial != m.spec.serial && m.spec.serial.is_some();
                let is_denied = denied(m).is_some();
                let is_meant = asked.filter(|_| !is_denied).is_some_and(|asked| {
                    // A serial number that is right says nothing of who says it from a card that is not the machine's.
                    let is_of_own_card = asked.macs.iter().any(|card| is_own(m, *card));
                    // Nor of who contradicts something else.
                    let proven = m.status.proven.as_ref().and_then(|proven| proven.serial.as_ref());
                    let is_of_serial =
                        old.spec.serial.is_some() || proven.is_some_and(|was| asked.serial.as_ref() != Some(was));
                    asked.macs.iter().any(is_added)
                        || (is_of_own_card && is_of_serial && is_corrected && asked.serial == m.spec.serial)
                });
                if is_meant {
                    // Of this machine it is said, and not of another one's board.
                    m.status.in_doubt.iter_mut().for_each(|asked| asked.elsewhere.clear());
                    settle(m, &format!("{by} changed its cards or its serial number: whoever asked is believed"), now);
                } else {
                    end(m, &format!("{by} changed its cards or its serial number"), now);
                }
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}
