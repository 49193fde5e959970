//! An agent says hello: which machine is it, and may this agent speak for it?

use std::net::IpAddr;

use uuid::Uuid;

use super::anchors::{self, Known, Match, Word};
use super::boot::ADOPTED;
use super::newcomers::inventory_bytes;
use super::proof::{is_claimed, is_foreign, is_own, is_proven_by, prove, unproven};
use super::question::{answered, denied, is_believed, moved_to, own_asks};
use super::rules::Rule;
use super::sessions::{HEARTBEAT, SESSION_LIFE, SILENCE, SessionClaims, TOKEN_LIFE, TokenClaims};
use super::{Engine, EngineError, Result};
use crate::boot::{Refusal, Seen, Sighting};
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::hardware::{Anchors, ExistingOs, SessionInfo};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, WAITING, condition, set_condition};
use crate::store::StoreError;
use crate::text;
use crate::wire::{Hello, Versions, Welcome};
use crate::{Mac, name};

/// Why a boot token of ours opens nothing any more.
const STALE: &str = "the boot token is older than ten minutes; boot again";
/// The condition that more was seen of a machine than is kept.
const CUT: &str = "InventoryCut";
/// The longest text about an operating system that is kept, in bytes.
const LONGEST: usize = 512;
/// How far a machine's clock may be off without a word, in seconds.
const CLOCK_TOLERANCE: u64 = 120;

impl Engine {
    /// An agent shows its boot token and says what machine it runs on.
    ///
    /// # Errors
    /// `Unproven` when the token is not ours, is ten minutes old, was made for another card, or asks from elsewhere;
    /// `Forbidden` when it has opened a session already; `Busy` when another agent speaks for this
    /// machine or its identity is in conflict; `TooMany` when it is one of too many new machines or says hello too often;
    /// `Protocol` when no version is shared.
    pub async fn hello(&self, token: &str, mut hello: Hello, from: IpAddr) -> Result<Welcome> {
        let mac = hello.mac;
        let is_claimed = matches!(self.inner.cache.by_mac(mac), Owner::One(machine) if !machine.is_unclaimed());
        // In their place: what it sent is not kept beside what is kept of it while it waits.
        let inventory = std::mem::take(&mut hello.inventory);
        let (inventory, cut) = inventory.bounded(inventory_bytes(is_claimed, self.inner.cache.unclaimed()));
        hello.inventory = inventory;
        hello.existing_os = text::tidy(&hello.existing_os, LONGEST, text::harmless);
        let said = self.greet(token, hello, cut.as_deref(), from).await;
        if let Err(error) = &said {
            // On the timeline of the card that it names: whoever looks for this machine looks there.
            let seen = Seen::AgentRefused { refusal: refusal(error), why: error.to_string() };
            self.witness(Sighting { mac: Some(mac), from: None, seen });
            if let EngineError::Unproven { why } = error {
                self.unproven(mac, from, why);
            }
        }
        said
    }

    /// Whether this is a boot token of ours, be it old or used.
    pub fn is_boot_token(&self, token: &str) -> bool {
        self.inner.tokens.open::<TokenClaims>(token).is_some()
    }

    /// `cut` is what was left out of its inventory.
    async fn greet(&self, token: &str, hello: Hello, cut: Option<&str>, from: IpAddr) -> Result<Welcome> {
        let now = self.now();
        let claims: TokenClaims = self
            .inner
            .tokens
            .open(token)
            .ok_or(EngineError::Unproven { why: "this is not a boot token of this server" })?;
        if now.since(claims.made_at) > TOKEN_LIFE {
            return Err(EngineError::Unproven { why: STALE });
        }
        if !hello.mac.is_unicast() {
            return Err(EngineError::Unproven { why: "a group address, or all zeros, is no network card's" });
        }
        if claims.mac != hello.mac {
            return Err(EngineError::Unproven { why: "the boot token was made for another network card" });
        }
        // The agent's DHCP client may have been given another address than its firmware was.
        if claims.from.is_some_and(|asked| !self.same_network(asked, from)) {
            return Err(EngineError::Unproven { why: "the boot token was given to another address" });
        }
        let protocol = Versions::OURS
            .pick(hello.protocol)
            .ok_or(EngineError::Protocol { min: hello.protocol.min, max: hello.protocol.max })?;
        let anchors = {
            let mut said = hello.anchors.clone();
            // The card that booted is an anchor, whatever the list says.
            said.macs.push(hello.mac);
            anchors::clean(&said)
        };
        let mut moved = false;
        let said = Anchors { macs: vec![hello.mac], ..anchors.clone() };
        let found = self.recognise(&anchors, &said, hello.mac);
        // A used token is refused before it is counted: whoever shows it again and again keeps nobody from being heard.
        match &found {
            Match::Known(name) => self.may_open(name, &claims, hello.boot_id, from)?,
            Match::Conflict { machines, .. } => {
                for name in machines.iter().filter(|name| self.is_own_card(name, hello.mac)) {
                    self.may_open(name, &claims, hello.boot_id, from)?;
                }
            }
            // Of the same card in the machines that it leaves, too.
            Match::Moved { machine, from: others } => {
                for name in others.iter().chain([machine]) {
                    self.may_open(name, &claims, hello.boot_id, from)?;
                }
            }
            Match::New => {}
        }
        let proves = |name: &str| {
            let known = self.inner.cache.get::<HardwareSpec>(name);
            let others = self.others_cards(name, &anchors.macs);
            known.is_some_and(|m| is_proven_by(&m, &said, &own_cards(&m, &anchors.macs), &others))
        };
        if let Match::Known(name) = &found
            && !proves(name)
            && let Some(known) = self.inner.cache.get::<HardwareSpec>(name)
            && let Some(denied) = denied(&known)
            && denied.said == said
            && (!anchors::has_no_board(&said) || denied.others == self.others_cards(name, &anchors.macs))
        {
            self.tell_refused(
                name,
                format!("an agent asked again from {from} of which a person has denied that it is this"),
            );
            let why = "a person has denied that this is the machine; `dragonfly why` tells how that is taken back";
            return Err(EngineError::Busy { why: why.to_owned() });
        }
        let mut has_right = false;
        match &found {
            Match::Known(name) | Match::Moved { machine: name, .. }
                if self.is_own_card(name, hello.mac) || proves(name) =>
            {
                has_right = true;
                self.may_greet(name)?;
            }
            // Those who say that they are a machine, from cards of others, have one measure together, and not that of the
            // machine's own cards.
            Match::Known(name) | Match::Moved { machine: name, .. } => {
                self.may_greet(&format!("{name} by its board"))?
            }
            // Not counted as the machine's own: who it is is what is in question.
            Match::Conflict { .. } => self.may_greet(&hello.mac.to_string())?,
            Match::New => {}
        }
        let machine = match found {
            Match::New => {
                self.admit(from)?;
                self.discover(&hello).await?
            }
            Match::Known(name) => name,
            Match::Moved { machine, from: others } => {
                // Whoever is refused has moved nothing: what a person settled is not used up.
                if !self.may_speak(&machine, hello.boot_id, &said, true, now).await?.0 {
                    return Err(self.second_agent(&machine, from));
                }
                self.move_card(hello.mac, &others, &machine).await?;
                moved = true;
                machine
            }
            Match::Conflict { machines, why } => return Err(self.conflict(&hello, &said, &machines, &why, from).await),
        };
        let others = self.others_cards(&machine, &anchors.macs);
        let guard = self.lock(&machine).await;
        let (free, before) = self.may_speak(&machine, hello.boot_id, &said, has_right || moved, now).await?;
        if !free {
            return Err(self.second_agent(&machine, from));
        }
        let session = Uuid::now_v7();
        let adopt = self.inner.settings.discovery == crate::boot::Discovery::Local;
        let (object, greeted) = self
            .change_status::<HardwareSpec, _>(&machine, |m| {
                let stored = m.status.session.as_ref();
                let mut used_tokens = stored.map(|s| s.used_tokens.clone()).unwrap_or_default();
                if used_tokens.is_used(hello.mac, claims.order()) && self.keeps(Rule::TokenOnce) {
                    return Ok(Greeted::Used);
                }
                // Another was faster, at another instance: whether it lives is a new question.
                if stored.is_some_and(|s| Some(s.id) != before && s.boot_id != hello.boot_id) {
                    return Ok(Greeted::Late);
                }
                // The same boot of the same agent, which lost its session key, is the same session: what it
                // runs goes on.
                let again = m.status.session.as_ref().filter(|s| s.boot_id == hello.boot_id);
                let (session, opened_at) = again.map_or((session, now), |s| (s.id, s.opened_at));
                let first = m.status.phase.is_none();
                if matches!(m.status.phase, None | Some(Phase::Registered)) {
                    m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Registered)?);
                    if first {
                        m.status.phase_since = Some(now);
                    }
                }
                used_tokens.add(hello.mac, claims.order());
                let meant = answered(m, &said, now);
                let believed = meant.is_some();
                let mut accepted = m.status.session.take().map(|s| s.accepted).unwrap_or_default();
                if let Some(meant) = meant {
                    accepted = meant;
                } else if moved {
                    accepted.clone_from(&others);
                }
                // What it is without by now may come back in another board.
                accepted.retain(|card| anchors.macs.contains(card));
                prove(m, &said, believed, moved);
                m.status.last_seen = Some(now);
                m.status.session = Some(SessionInfo {
                    id: session,
                    boot_id: hello.boot_id,
                    used_tokens,
                    opened_at,
                    said: said.clone(),
                    named: own_cards(m, &anchors.macs),
                    others: others.iter().filter(|card| !accepted.contains(card)).copied().collect(),
                    accepted,
                    doubt: None,
                    ended: false,
                });
                own_asks(m, now);
                // What somebody sees who only says that it is this machine is not this machine's.
                if m.status.inventory.is_none() || !is_foreign(m) || unproven(m).is_none() {
                    if m.status.phase == Some(Phase::Registered) {
                        note_existing(m, hello.existing_os.as_ref(), adopt, now);
                    }
                    m.status.anchors = Some(merged(m.status.anchors.as_ref(), &anchors));
                    m.status.inventory = Some(hello.inventory.clone());
                    note_cut(m, cut, now);
                    m.status.address = Some(from);
                }
                Ok(Greeted::As { session, first, by_word: believed || moved })
            })
            .await?;
        let (session, first, by_word) = match greeted {
            Greeted::As { session, first, by_word } => (session, first, by_word),
            Greeted::Late => return Err(self.second_agent(&machine, from)),
            Greeted::Used => return Err(self.used_token(&machine, from)),
        };
        self.inner.sessions.heard(&machine, session, now);
        if by_word {
            self.own_card(&machine, hello.mac).await?;
        }
        self.inner.recorder.adopt(&machine, &object.spec.macs);
        self.remember_address(Some(from), hello.mac);
        if let Some(offset_seconds) = hello.clock_offset_seconds.filter(|s| s.unsigned_abs() > CLOCK_TOLERANCE) {
            let seen = Seen::AgentClock { offset_seconds };
            self.witness(Sighting { mac: Some(hello.mac), from: Some(from), seen });
        }
        let words = object.status.message.clone();
        if first {
            self.tell("machine.registered", &machine, None, format!("registered from {from}. {words}"));
        } else {
            self.tell("machine.hello", &machine, None, format!("its agent is up, at {from}"));
        }
        if let Some(cut) = cut {
            self.tell("machine.cut", &machine, None, format!("more than is kept of a machine, left out: {cut}"));
        }
        // A Secret may be written, under a lock of its own.
        drop(guard);
        let bmc_account = self.account_for(&object).await;
        let claims = SessionClaims {
            machine: machine.clone(),
            machine_uid: object.metadata.uid.unwrap_or_default(),
            id: session,
            server: claims.server,
            opened_at: now,
        };
        Ok(Welcome {
            protocol,
            display_name: if object.spec.display_name.is_empty() {
                machine.clone()
            } else {
                object.spec.display_name.clone()
            },
            machine,
            session: self.inner.session_keys.sign(&claims),
            time: now,
            heartbeat_seconds: HEARTBEAT.as_secs() as u32,
            bmc_account,
        })
    }

    /// Whether the agent of this boot may speak for a machine, for no other lives; and whose session is on record.
    /// `has_right`: before one of whom it is in doubt, for it boots from a card of the machine's own, is on its board with
    /// one of its cards, or a person has said so.
    pub(super) async fn may_speak(
        &self,
        machine: &str,
        boot_id: Uuid,
        said: &Anchors,
        has_right: bool,
        now: Timestamp,
    ) -> Result<(bool, Option<Uuid>)> {
        let known = self.fresh::<HardwareSpec>(machine).await?;
        let before = known.as_ref().and_then(|m| m.status.session.clone());
        // Who only says that it is this machine makes way for who booted from its card, and anybody for whom a person has
        // said it of. And nobody has spoken for one that was made anew under its name.
        let makes_way = |m: &Hardware| {
            let has_right = has_right || said.macs.iter().any(|card| is_own(m, *card));
            is_believed(m, said) || (has_right && is_claimed(m)) || m.status.session.as_ref().is_none_or(|s| s.ended)
        };
        if known.as_ref().is_some_and(|m| makes_way(m)) {
            return Ok((true, before.map(|session| session.id)));
        }
        let same_boot = before.as_ref().is_some_and(|s| s.boot_id == boot_id);
        // Alone, what it remembers is more than what is stored: a session ends with its machine.
        let free = if self.is_shared() {
            same_boot || self.is_silent(machine).await?
        } else {
            let live = self.inner.sessions.live(machine, now).or_else(|| self.not_heard_yet(before.as_ref(), now));
            live.is_none_or(|live| same_boot && before.as_ref().is_some_and(|s| s.id == live))
        };
        Ok((free, before.map(|session| session.id)))
    }

    /// The session that spoke for a machine before this server started, for as long as its agent may not have
    /// found it again: until then nobody can say that it is silent.
    fn not_heard_yet(&self, stored: Option<&SessionInfo>, now: Timestamp) -> Option<Uuid> {
        let is_new = now >= self.inner.started && now.since(self.inner.started) < SILENCE;
        stored.filter(|session| is_new && !session.ended).map(|session| session.id)
    }

    pub(super) fn second_agent(&self, machine: &str, from: IpAddr) -> EngineError {
        let words = format!("a second agent asked from {from} while another speaks for this machine");
        self.tell_refused(machine, words);
        let seconds = self.silence().as_secs();
        EngineError::Busy {
            why: format!("another agent speaks for this machine; it must be silent for {seconds} s before another may"),
        }
    }

    pub(super) fn recognise(&self, anchors: &Anchors, said: &Anchors, booted: Mac) -> Match {
        // The others cannot match, and there may be very many.
        let machines = self.inner.cache.alike(anchors);
        let known: Vec<Known<'_>> = machines
            .iter()
            .map(|m| {
                let mut macs = m.spec.macs.clone();
                macs.extend(m.status.proven.iter().flat_map(|a| a.macs.iter().copied()));
                let proven = m.status.proven.as_ref();
                let believed = match moved_to(m, said) {
                    [] if is_believed(m, said) => Word::IsIt,
                    [] => Word::None,
                    to => Word::MovedTo(to),
                };
                Known {
                    name: m.name(),
                    uid: m.metadata.uid,
                    macs,
                    expected: m.spec.serial.as_deref(),
                    proven,
                    believed,
                    unclaimed: m.is_unclaimed(),
                }
            })
            .collect();
        anchors::find(anchors, booted, &known)
    }

    /// Writes down a machine that nobody has seen, under its memorable name, with the card that it booted from. What it
    /// says of others is in its anchors.
    async fn discover(&self, hello: &Hello) -> Result<String> {
        let macs = vec![hello.mac];
        let made = |name: &str| Hardware::new(name, HardwareSpec { macs: macs.clone(), ..HardwareSpec::default() });
        self.write_down(&name::memorable(hello.mac), Some(hello.mac), made).await
    }

    /// Writes a machine down under this name, with a number if it is taken by one without this card.
    pub(super) async fn write_down(
        &self,
        display_name: &str,
        card: Option<Mac>,
        made: impl Fn(&str) -> Hardware + Send + Sync,
    ) -> Result<String> {
        for number in 1..100 {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let mut machine = made(&format!("{}{suffix}", display_name.to_lowercase()));
            machine.spec.display_name = format!("{display_name}{suffix}");
            for (key, value) in self.labels_here() {
                machine.metadata.labels.entry(key).or_insert(value);
            }
            let _cards = match self.claim_cards(&machine) {
                Ok(claim) => claim,
                // Two hellos of one machine at once: the first wrote it down. Or somebody else did, under another name: who
                // asks again is found.
                Err(_) => match card.map(|card| self.inner.cache.by_mac(card)) {
                    Some(Owner::One(known)) if known.name() == machine.name() => return Ok(known.name().to_owned()),
                    _ => {
                        let why = "its network card is being written down as another machine's; ask again".to_owned();
                        return Err(EngineError::Busy { why });
                    }
                },
            };
            match self.create(&machine).await {
                Ok(created) => return Ok(created.name().to_owned()),
                Err(EngineError::Store(StoreError::AlreadyExists { key })) => {
                    // Two hellos of one machine at once: the first wrote it down.
                    let taken = self.fresh::<HardwareSpec>(&key.name).await?;
                    if taken.zip(card).is_some_and(|(taken, card)| taken.spec.macs.contains(&card)) {
                        return Ok(key.name);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Err(EngineError::Busy { why: format!("a hundred machines are called {display_name}") })
    }

    /// The machine that a session key speaks for.
    pub(super) fn claimed(&self, key: &str) -> Result<(SessionClaims, std::sync::Arc<Hardware>)> {
        let now = self.now();
        let claims: SessionClaims = self
            .inner
            .session_keys
            .open(key)
            .ok_or(EngineError::Unauthenticated { why: "this is not a session key of this server" })?;
        if now.since(claims.opened_at) > SESSION_LIFE {
            return Err(EngineError::Unauthenticated { why: "the session is older than a week; boot again" });
        }
        let gone = EngineError::Unauthenticated { why: "the machine of this session has been deleted" };
        let machine = self.inner.cache.get::<HardwareSpec>(&claims.machine).ok_or(gone)?;
        if machine.metadata.uid != Some(claims.machine_uid) {
            return Err(EngineError::Unauthenticated { why: "the machine of this session has been deleted" });
        }
        if machine.status.session.as_ref().map(|s| s.id) != Some(claims.id) && self.keeps(Rule::LatestSession) {
            return Err(EngineError::Unauthenticated { why: "a later agent speaks for this machine" });
        }
        Ok((claims, machine))
    }

    /// Whether this is a session key of ours, and its agent still speaks for its machine.
    pub fn is_session(&self, key: &str) -> bool {
        self.claimed(key).is_ok()
    }

    /// The name of the machine that a session key speaks for.
    ///
    /// # Errors
    /// `Unauthenticated` when it is no session key, has ended, or another agent has taken over.
    pub async fn session_machine(&self, key: &str) -> Result<String> {
        self.speaker(key).await.map(|(claims, _)| claims.machine)
    }
}

/// What came of a hello.
enum Greeted {
    /// It speaks for the machine from now on; for the first time, or not; a person has said it of it, or not.
    As { session: Uuid, first: bool, by_word: bool },
    /// Its token has opened a session already.
    Used,
    /// Another agent has opened a session meanwhile.
    Late,
}

fn own_cards(machine: &Hardware, cards: &[Mac]) -> Vec<Mac> {
    cards.iter().copied().filter(|card| is_own(machine, *card)).collect()
}

fn refusal(error: &EngineError) -> Refusal {
    match error {
        EngineError::Unproven { why } if *why == STALE => Refusal::StaleToken,
        EngineError::Unproven { .. } => Refusal::ForeignToken,
        EngineError::Forbidden { .. } => Refusal::UsedToken,
        EngineError::Busy { .. } => Refusal::Busy,
        EngineError::Protocol { .. } => Refusal::Protocol,
        _ => Refusal::Other,
    }
}

/// What a machine had and has: a card that was taken out stays known, so that it is not taken for a
/// new machine elsewhere without a question.
fn merged(old: Option<&Anchors>, new: &Anchors) -> Anchors {
    let mut all = new.clone();
    if let Some(old) = old {
        all.smbios_uuid = all.smbios_uuid.or(old.smbios_uuid);
        all.serial = all.serial.or_else(|| old.serial.clone());
        all.product = all.product.or_else(|| old.product.clone());
    }
    all
}

fn note_cut(m: &mut Hardware, cut: Option<&str>, now: crate::clock::Timestamp) {
    let conditions = &mut m.status.conditions;
    match cut {
        Some(cut) => {
            let words = format!("its agent saw more than is kept; left out: {cut}");
            set_condition(conditions, CUT, ConditionStatus::True, "TooLarge", &words, now);
        }
        None if condition(conditions, CUT).is_some() => {
            set_condition(conditions, CUT, ConditionStatus::False, "Whole", "all that its agent saw is kept", now);
        }
        None => {}
    }
}

fn note_existing(m: &mut Hardware, found: Option<&ExistingOs>, adopt: bool, now: crate::clock::Timestamp) {
    m.status.existing_os = found.cloned();
    match found {
        Some(os) => {
            let words = format!("{} found on {} by its {}", os.name, os.disk, os.evidence);
            set_condition(&mut m.status.conditions, ADOPTED, ConditionStatus::True, "ForeignSystemFound", &words, now);
            m.status.message = if adopt {
                format!("adopted: {words}; it boots from its disk, unchanged")
            } else {
                format!("{words}; {WAITING}")
            };
        }
        None => {
            if condition(&m.status.conditions, ADOPTED).is_some() {
                let words = "no operating system was found this time";
                set_condition(&mut m.status.conditions, ADOPTED, ConditionStatus::False, "NoSystemFound", words, now);
            }
            WAITING.clone_into(&mut m.status.message);
        }
    }
}
