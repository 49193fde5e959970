//! What operators asked for and what the promise allows of it, kept from outside: from calls and
//! their answers alone, never from what the engine keeps.

use std::collections::BTreeSet;
use std::time::Duration;

use dragonfly_core::clock::Timestamp;

use crate::events::MACHINES;
use crate::identity::{Place, Words};

/// How long an authorisation lasts.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How many attempts a run makes without being asked.
const ATTEMPTS: usize = 3;
/// How long a boot token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// The promise was broken: which part of it, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) told: String,
}

pub(crate) type Kept<T = ()> = Result<T, Broken>;

pub(crate) fn broken<T>(promise: &'static str, told: impl Into<String>) -> Kept<T> {
    Err(Broken { promise, told: told.into() })
}

/// An operator's own word that a machine may be wiped: one assign or reimage.
#[derive(Debug, Clone)]
struct Grant {
    /// The record that it was given for.
    machine: usize,
    /// Unknown while the call that asked for it was cut off.
    workflow: Option<String>,
    given_at: Timestamp,
    /// Whether disks that carry data may be overwritten.
    all: bool,
    /// The part of the promise that it would break to use it now.
    void: Option<&'static str>,
    /// Its hand-over was acknowledged.
    done: bool,
    /// A hand-over was sent and its answer never came: it may have ended so.
    perhaps_done: bool,
    /// Attempts that were acknowledged, with their sessions, as far as the server can remember.
    begun: BTreeSet<(u32, String)>,
    /// How many were, those included that it has forgotten.
    ever_begun: usize,
    /// The machines whose disks say that what was written for it was handed over.
    on_disks: BTreeSet<usize>,
    /// The server was set back to a moment at which this was given.
    set_back: bool,
    /// The server was set back to a moment at which this was not given yet, and knows nothing of it.
    unknown: bool,
    /// How often what is on the disk was destroyed for it.
    wipes: usize,
    /// Retries that operators asked for.
    retries: usize,
    generation: Option<u64>,
}

/// What an operator knows of a machine. `None`: the call that would tell was cut off.
#[derive(Debug, Clone)]
struct Known {
    protected: Option<bool>,
    held: Option<bool>,
    /// Its hand-over was acknowledged, and nobody has asked for anything since.
    ready: bool,
    place: Place,
}

#[derive(Debug, Clone)]
struct Token {
    made_at: Timestamp,
    /// The records for which it opened a session: a use is written there.
    used: BTreeSet<usize>,
}

/// What an operator knew when a backup was made.
#[derive(Debug, Clone)]
pub(crate) struct Memory([Known; MACHINES]);

/// What the server knew when a picture of its disk was taken.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    known: [Known; MACHINES],
    grants: Vec<Grant>,
    tokens: Vec<Token>,
    latest: [Option<uuid::Uuid>; MACHINES],
    epoch: [usize; MACHINES],
}

/// The model.
#[derive(Debug)]
pub(crate) struct Oracle {
    grants: Vec<Grant>,
    known: [Known; MACHINES],
    tokens: Vec<Token>,
    /// The boot whose session was opened last, if that is known.
    latest: [Option<uuid::Uuid>; MACHINES],
    /// Only grants from here on are of this record of the machine.
    epoch: [usize; MACHINES],
    pub(crate) seen: Seen,
}

/// How much has happened: a test in which nothing does proves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) granted: u64,
    pub(crate) begun: u64,
    pub(crate) wiped: u64,
    pub(crate) installed: u64,
    pub(crate) stopped: u64,
    pub(crate) restored: u64,
    pub(crate) held: u64,
    pub(crate) cut: u64,
    pub(crate) tokens_refused: u64,
    pub(crate) marks_refused: u64,
    pub(crate) rolled_back: u64,
    pub(crate) claims_believed: u64,
    pub(crate) claims_refused: u64,
    pub(crate) settled: u64,
    pub(crate) denied: u64,
    pub(crate) elsewhere: u64,
    pub(crate) ends_refused: u64,
}

impl Oracle {
    pub(crate) fn new() -> Self {
        Self {
            grants: Vec::new(),
            known: std::array::from_fn(|machine| Known {
                protected: Some(false),
                held: Some(false),
                ready: false,
                place: Place::new(machine),
            }),
            tokens: Vec::new(),
            latest: [None; MACHINES],
            epoch: [0; MACHINES],
            seen: Seen::default(),
        }
    }

    // What operators do.

    /// An assign or reimage was accepted, or cut off.
    pub(crate) fn granted(
        &mut self,
        machine: usize,
        workflow: Option<String>,
        all: bool,
        is_assign: bool,
        now: Timestamp,
    ) -> Kept {
        let known = &mut self.known[machine];
        if workflow.is_some() {
            if known.protected == Some(true) {
                return broken("nothing on a protected machine", "an assign or reimage of it was accepted");
            }
            if known.held == Some(true) {
                return broken("nothing on a held machine", "an assign or reimage of it was accepted");
            }
            if known.ready && is_assign {
                return broken("a Ready machine is imaged only by reimage", "an assign of it was accepted");
            }
            self.seen.granted += 1;
            self.void(machine, "nothing but the latest authorisation");
        }
        self.known[machine].ready = false;
        self.grants.push(Grant {
            machine,
            workflow,
            given_at: now,
            all,
            void: None,
            done: false,
            perhaps_done: false,
            begun: BTreeSet::new(),
            ever_begun: 0,
            on_disks: BTreeSet::new(),
            set_back: false,
            unknown: false,
            wipes: 0,
            retries: 0,
            generation: None,
        });
        Ok(())
    }

    fn void(&mut self, machine: usize, promise: &'static str) {
        for grant in self.grants.iter_mut().filter(|g| g.machine == machine) {
            grant.void.get_or_insert(promise);
        }
    }

    /// A retry was accepted, or cut off.
    pub(crate) fn retried(&mut self, machine: usize, done: bool) -> Kept {
        if done && self.known[machine].protected == Some(true) {
            return broken("nothing on a protected machine", "a retry of it was accepted");
        }
        for grant in self.grants.iter_mut().filter(|g| g.machine == machine) {
            grant.retries += 1;
        }
        Ok(())
    }

    pub(crate) fn aborted(&mut self, machine: usize) {
        self.void(machine, "nothing after it was called off");
        // Only what was under way is called off: it had not ended.
        self.grants.iter_mut().filter(|g| g.machine == machine).for_each(|g| g.perhaps_done = false);
    }

    pub(crate) fn protected(&mut self, machine: usize, on: Option<bool>) {
        self.known[machine].protected = on;
    }

    pub(crate) fn held(&mut self, machine: usize, on: Option<bool>) {
        self.known[machine].held = on;
    }

    /// The machine's record is gone, or may be: nobody knows any more what it was.
    pub(crate) fn deleted(&mut self, machine: usize, done: bool) {
        self.latest[machine] = None;
        self.epoch[machine] = self.grants.len();
        // The use of a token is written on the machine.
        for token in &mut self.tokens {
            token.used.remove(&machine);
        }
        // A record made anew is neither protected nor held; one that stayed is what it was.
        let gone = |known: Option<bool>| if done { Some(false) } else { known.filter(|on| !on) };
        let known = &mut self.known[machine];
        (known.protected, known.held, known.ready) = (gone(known.protected), gone(known.held), false);
        if done {
            known.place = Place::new(machine);
        } else {
            known.place.perhaps_gone();
        }
        if done {
            self.void(machine, "nothing that a deleted machine was allowed");
        }
    }

    pub(crate) fn remember(&self) -> Memory {
        Memory(self.known.clone())
    }

    /// The server stands on an old backup.
    pub(crate) fn restored(&mut self, memory: &Memory) {
        self.seen.restored += 1;
        self.known = memory.0.clone();
        for machine in 0..MACHINES {
            self.epoch[machine] = self.grants.len();
        }
        // Whatever else was said of them: the server has forgotten it.
        self.grants.iter_mut().for_each(|g| g.void = Some("nothing that only a restored backup allows"));
        self.latest = [None; MACHINES];
        // A machine that the backup does not know has nothing to write a token's use on.
        self.tokens.iter_mut().for_each(|t| t.used.clear());
    }

    pub(crate) fn picture(&self) -> Picture {
        let Self { known, grants, tokens, latest, epoch, .. } = self;
        Picture { known: known.clone(), grants: grants.clone(), tokens: tokens.clone(), latest: *latest, epoch: *epoch }
    }

    /// The server's disk is what it was when this picture was taken, and nobody has told it. What was called off,
    /// protected, held, retried, authorised or used up since, it cannot know: of that nothing can be asked. What was
    /// under way then is done again, by as many attempts as were left of it then. Whatever an operator allowed before
    /// the picture is asked for still, and that nothing is wiped which its disk says was handed over: see
    /// [`wiped`](Self::wiped).
    pub(crate) fn rolled_back(&mut self, then: &Picture) {
        self.seen.rolled_back += 1;
        self.known = then.known.clone();
        self.latest = then.latest;
        self.epoch = then.epoch;
        for (n, grant) in self.grants.iter_mut().enumerate() {
            let Some(was) = then.grants.get(n) else {
                grant.void = Some("nothing that the server has never heard of");
                grant.unknown = true;
                continue;
            };
            grant.begun.clone_from(&was.begun);
            grant.workflow = grant.workflow.take().or_else(|| was.workflow.clone());
            grant.void = was.void;
            grant.retries = was.retries;
            grant.generation = was.generation;
            (grant.set_back, grant.unknown) = (true, was.unknown);
        }
        for (n, token) in self.tokens.iter_mut().enumerate() {
            token.used = then.tokens.get(n).map(|was| was.used.clone()).unwrap_or_default();
        }
    }

    // Who is whom.

    /// An agent was welcomed as the machine of this record.
    pub(crate) fn welcomed(&mut self, record: usize, machine: usize, said: Words) {
        let mut known = self.known.iter().enumerate();
        let lent = known.any(|(n, known)| n != record && known.place.settled == Some(said.unnamed()));
        self.known[record].place.welcomed(machine, said, lent);
    }

    /// A hello was cut off.
    pub(crate) fn perhaps_welcomed(&mut self) {
        self.known.iter_mut().for_each(|known| known.place.perhaps_welcomed());
    }

    /// An operator has settled the conflict of a machine, as far as anybody knows.
    pub(crate) fn settled(&mut self, record: usize, meant: Words) {
        self.seen.settled += 1;
        self.known[record].place.settled = Some(meant);
    }

    /// What was asked of a machine is over, and nobody was said to be right.
    pub(crate) fn asked_no_more(&mut self, record: usize) {
        self.known[record].place.settled = None;
    }

    /// An operator has denied that a machine is who asks, and it was heard.
    pub(crate) fn denied(&mut self, record: usize) {
        self.seen.denied += 1;
        self.asked_no_more(record);
    }

    /// An operator has said which cards a machine has, as far as anybody knows.
    pub(crate) fn has_cards(&mut self, record: usize, cards: &[usize], heard: bool) {
        let place = &mut self.known[record].place;
        let has_own = cards.contains(&record);
        if heard {
            place.cards.clear();
            place.at_home = has_own;
        }
        place.at_home &= has_own;
        place.cards.extend(cards);
    }

    /// Whether this card is that of its own record still.
    pub(crate) fn is_at_home(&self, card: usize) -> bool {
        self.known[card].place.at_home
    }

    /// Is what is meant for a record done to the machine that it is?
    pub(crate) fn in_its_place(&self, record: usize, machine: usize, said: Words, told: &str) -> Kept {
        let place = &self.known[record].place;
        if place.is(machine, said) {
            return Ok(());
        }
        broken(
            "nobody is installed in another's place",
            format!("{told} for {record} on {machine}, which says {said:?}; it is {place:?}"),
        )
    }

    // What the server says.

    /// May this workflow be carried out on this machine now?
    fn covered(&mut self, machine: usize, workflow: &str, now: Timestamp, told: &str) -> Kept<usize> {
        let known = self.known[machine].clone();
        let named = self.grants.iter().position(|g| g.workflow.as_deref() == Some(workflow));
        // Of a call that was cut off, the workflow is learned here; each such call stands for one. It is the latest's:
        // had an earlier one come to anything, this one would have been refused.
        let doubtful =
            || self.grants.iter().rposition(|g| g.workflow.is_none() && g.machine == machine && g.void.is_none());
        let Some(index) = named.or_else(doubtful) else {
            return broken("an operator stands behind every wipe", format!("{told}: nobody asked for {workflow}"));
        };
        let grant = &mut self.grants[index];
        grant.workflow = Some(workflow.to_owned());
        if grant.machine != machine {
            return broken(
                "an operator stands behind every wipe",
                format!("{told}: {workflow} is for another machine"),
            );
        }
        if let Some(promise) = grant.void {
            return broken(promise, format!("{told}: {workflow}"));
        }
        if now >= grant.given_at.plus(LIFE) {
            return broken("nothing after the authorisation expired", format!("{told}: {workflow}"));
        }
        if known.protected == Some(true) {
            return broken("nothing on a protected machine", format!("{told}: {workflow}"));
        }
        if known.held == Some(true) {
            return broken("nothing on a held machine", format!("{told}: {workflow}"));
        }
        Ok(index)
    }

    /// Firmware was told to boot the agent for this workflow, or something else.
    pub(crate) fn fated(&mut self, machine: usize, image: Option<&str>, word: &str, now: Timestamp) -> Kept {
        match image {
            Some(workflow) => self.covered(machine, workflow, now, "the fate is Image").map(drop),
            None if self.known[machine].ready && !matches!(word, "local" | "hold") => {
                broken("a Ready machine boots from its disk", format!("the fate is {word}"))
            }
            None => Ok(()),
        }
    }

    /// An agent was ordered to carry a workflow out.
    pub(crate) fn ordered(&mut self, machine: usize, workflow: &str, generation: u64, now: Timestamp) -> Kept {
        let index = self.covered(machine, workflow, now, "the order is Execute")?;
        let first = self.epoch[machine];
        let before = self.grants.iter().enumerate().skip(first).filter(|(n, g)| *n != index && g.machine == machine);
        let (older, newer): (Vec<_>, Vec<_>) = before
            .filter(|(_, g)| !g.unknown)
            .filter_map(|(n, g)| Some((n, g.generation?)))
            .partition(|(n, _)| *n < index);
        let told = || format!("{workflow} has number {generation}; others are {older:?} and {newer:?}");
        if older.iter().any(|(_, g)| *g >= generation) {
            return broken("each authorisation has a higher number than those before it", told());
        }
        if self.grants[index].generation.is_some_and(|g| g != generation) {
            return broken("an authorisation keeps its number", told());
        }
        self.grants[index].generation = Some(generation);
        Ok(())
    }

    /// The server acknowledged that an attempt begins: from here on the agent may wipe. Returns what stands
    /// behind it, and whether it was said for the first time.
    pub(crate) fn began(
        &mut self,
        machine: usize,
        workflow: &str,
        attempt: u32,
        session: &str,
        now: Timestamp,
    ) -> Kept<(usize, bool)> {
        let index = self.covered(machine, workflow, now, "Began was acknowledged")?;
        let grant = &mut self.grants[index];
        let is_first = grant.begun.insert((attempt, session.to_owned()));
        grant.ever_begun += usize::from(is_first);
        self.seen.begun += 1;
        if grant.begun.len() > ATTEMPTS + grant.retries {
            let told = format!("{} attempts of {workflow} began, with {} retries", grant.begun.len(), grant.retries);
            return broken("no more attempts than operators and the limit allow", told);
        }
        Ok((index, is_first))
    }

    /// The agent destroys what is on the disk.
    pub(crate) fn wiped(&mut self, machine: usize, grant: usize, carries_data: bool) -> Kept {
        self.seen.wiped += 1;
        self.seen.elsewhere += u64::from(self.grants[grant].machine != machine);
        let says_so = self.grants[grant].on_disks.contains(&machine);
        // What the disk said is gone with it.
        for grant in &mut self.grants {
            grant.on_disks.remove(&machine);
        }
        let grant = &mut self.grants[grant];
        grant.wipes += 1;
        let grant = &*grant;
        let told = || format!("{:?} wipes", grant.workflow);
        // Each attempt that a session was let begin destroys once.
        if grant.wipes > grant.ever_begun {
            let told = format!("{:?} wipes {} times, and {:?} began", grant.workflow, grant.wipes, grant.begun);
            return broken("no more wipes than attempts that began", told);
        }
        // A server that was set back to before the end cannot know of it; the disk does, from the moment at which the
        // agent that wrote it has heard that it was. Another machine's disk, as an operator settled it, does not.
        if grant.done && (says_so || !grant.set_back) {
            return broken("nothing after the hand-over", told());
        }
        if carries_data && !grant.all {
            return broken("a disk with data is overwritten only when an operator says so", told());
        }
        Ok(())
    }

    /// The server acknowledged a hand-over, or the answer was lost.
    pub(crate) fn handed_over(&mut self, machine: usize, workflow: &str, heard: bool, finished: bool) -> Kept {
        let Some(grant) = self.grants.iter_mut().find(|g| g.workflow.as_deref() == Some(workflow)) else {
            return broken("an operator stands behind every wipe", format!("{workflow} was handed over"));
        };
        if !heard {
            grant.perhaps_done = true;
            return Ok(());
        }
        if grant.perhaps_done || grant.done {
            // Said again; what has become of the disk since is not its affair.
            grant.done = true;
            grant.void.get_or_insert("nothing after the hand-over");
            return Ok(());
        }
        if grant.void == Some("nothing after it was called off") {
            return broken("what is over stays over", format!("the hand-over of {workflow}, called off, was accepted"));
        }
        // Set back, the server takes what was reported then for what is on the disk now.
        if !finished && !grant.set_back {
            return broken(
                "Ready only when its disk was finished",
                format!("the hand-over of {workflow} was accepted"),
            );
        }
        let first = grant.void.is_none();
        grant.done = true;
        grant.void.get_or_insert("nothing after the hand-over");
        if first {
            self.known[machine].ready = true;
            self.seen.installed += 1;
        }
        Ok(())
    }

    /// The agent has heard that its hand-over was acknowledged, and its disk says so.
    pub(crate) fn ended_on_disk(&mut self, machine: usize, workflow: &str) {
        let grant = self.grants.iter_mut().find(|g| g.workflow.as_deref() == Some(workflow));
        if let Some(grant) = grant {
            grant.on_disks.insert(machine);
        }
    }

    // Who may speak.

    pub(crate) fn token_made(&mut self, now: Timestamp) -> usize {
        self.tokens.push(Token { made_at: now, used: BTreeSet::new() });
        self.tokens.len() - 1
    }

    /// A session was opened with this token for this record, if it is one of ours.
    pub(crate) fn token_used(&mut self, token: usize, record: Option<usize>, boot: uuid::Uuid, now: Timestamp) -> Kept {
        let token = &mut self.tokens[token];
        if record.is_some_and(|record| token.used.contains(&record)) {
            return broken("a boot token opens one session", "it opened a second one");
        }
        if now.since(token.made_at) > TOKEN_LIFE {
            return broken("a boot token lasts ten minutes", format!("it is {:?} old", now.since(token.made_at)));
        }
        if let Some(record) = record {
            token.used.insert(record);
            self.latest[record] = Some(boot);
        }
        Ok(())
    }

    /// A hello was cut off: whoever it was of, somebody else may speak for that by now.
    pub(crate) fn perhaps_used(&mut self) {
        self.latest = [None; MACHINES];
    }

    /// A session was answered.
    pub(crate) fn session_answered(&self, machine: usize, boot: uuid::Uuid) -> Kept {
        match self.latest[machine] {
            Some(latest) if latest != boot => {
                broken("only the latest session is answered", "an agent that was overtaken is answered")
            }
            _ => Ok(()),
        }
    }
}
