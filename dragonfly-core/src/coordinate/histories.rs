//! Candidates whose clocks differ and drift, that stop for a while, die and come again, and whose messages are slow, late
//! or lost: never do two lead at one moment. Ways to get it wrong must each be caught.

use std::collections::BTreeMap;
use std::time::Duration;

use super::election::{Act, Answer, Election};
use super::{Lease, Term, Timing};

const HISTORIES: u64 = 2_000;
/// Of one history, in milliseconds of true time.
const LONG: u64 = 200_000;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How it is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    No,
    /// A leader counts from when it was answered.
    CountsFromTheAnswer,
    /// A leader ceases when its lease is over, not before.
    NoMargin,
    /// A challenger takes what it has seen unchanged for a fifth of the lease.
    Impatient,
    /// The server takes any write.
    BlindWrites,
    /// What was unanswered counts as done.
    LostIsDone,
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Call {
    act: Act,
    sent: Duration,
    /// When it is done at the server, if ever.
    done_at: Option<u64>,
    /// When the answer is there, if ever.
    answer_at: Option<u64>,
    answer: Option<Answer>,
    gives_up_at: Duration,
}

struct Candidate {
    election: Election,
    /// Milliseconds that its clock shows at true time 0, and how many of a thousand pass in a second.
    offset: u64,
    rate: u64,
    call: Option<Call>,
    /// It does nothing before.
    stopped_until: u64,
}

impl Candidate {
    fn clock(&self, now: u64) -> Duration {
        Duration::from_millis(self.offset + now * self.rate / 1000)
    }

    fn leads(&self, now: u64) -> Option<Term> {
        self.election.until().filter(|(until, _)| self.clock(now) < *until).map(|(_, term)| term)
    }
}

#[derive(Default)]
struct Server {
    version: u64,
    lease: Option<Lease>,
}

impl Server {
    fn does(&mut self, act: &Act, blind: bool) -> Answer {
        let (lease, may) = match act {
            Act::Rest(_) | Act::Get => return Answer::Read(self.lease.clone()),
            Act::Create(lease) => (lease, self.lease.is_none()),
            Act::Replace(lease) => (lease, self.lease.as_ref().is_some_and(|is| is.version == lease.version)),
        };
        if !may && !blind {
            return Answer::Conflict;
        }
        self.version += 1;
        let uid = if self.lease.is_none() { format!("u{}", self.version) } else { lease.uid.clone() };
        let written = Lease { uid, version: self.version.to_string(), ..lease.clone() };
        self.lease = Some(written.clone());
        Answer::Written(written)
    }
}

#[derive(Debug, Default)]
struct Seen {
    leaderships: u64,
    led: u64,
    lost: u64,
    late: u64,
}

fn timing(wrong: Wrong) -> Timing {
    let (lease, renew) = (Duration::from_secs(15), Duration::from_secs(4));
    match wrong {
        Wrong::NoMargin => Timing::unchecked(lease, Duration::ZERO, renew),
        _ => Timing::new(lease, Duration::from_secs(3), renew).unwrap(),
    }
}

/// Plays one history; an error is the moment at which two lead.
fn play(seed: u64, wrong: Wrong, seen: &mut Seen) -> Result<(), String> {
    let mut dice = Dice(seed);
    let (mut server, mut terms) = (Server::default(), BTreeMap::<u64, u64>::new());
    let (mut born, mut deleted) = (0, false);
    let mut new = |dice: &mut Dice, now: u64| {
        born += 1;
        // Clocks that differ in speed by five in a hundred: far more than any do.
        let (offset, rate) = (dice.below(1 << 40), 975 + dice.below(50));
        let election = Election::new(format!("c_{born}"), timing(wrong));
        let mut one = Candidate { election, offset, rate, call: None, stopped_until: now + dice.below(3000) };
        // Its clock began at zero with it.
        one.offset += 1;
        one
    };
    let mut all: Vec<Candidate> = (0..2 + dice.below(2)).map(|_| new(&mut dice, 0)).collect();
    // Writes that nobody waits for any more, and when they are done.
    let mut strays: Vec<(u64, Act)> = Vec::new();
    // Times of trouble and times of peace.
    let (mut trouble, mut now) = (1, 0);
    while now < LONG {
        now += 1 + dice.below(200);
        if dice.one_in(150) {
            trouble = [1, 3, 3, 40][dice.below(4) as usize];
        }
        if dice.one_in(4_000) {
            server.lease = None;
            deleted = true;
        }
        strays.retain(|(at, act)| {
            let is_late = *at <= now;
            if is_late {
                seen.late += u64::from(matches!(server.does(act, wrong == Wrong::BlindWrites), Answer::Written(_)));
            }
            !is_late
        });
        for one in &mut all {
            if dice.one_in(700) {
                one.stopped_until = now + dice.below(40_000);
            }
            if dice.one_in(2_000) {
                *one = new(&mut dice, now);
            }
            // What is on its way arrives whoever waits for it.
            if let Some(call) = &mut one.call
                && call.done_at.is_some_and(|at| at <= now)
            {
                call.done_at = None;
                call.answer = Some(server.does(&call.act, wrong == Wrong::BlindWrites));
            }
            if now < one.stopped_until {
                continue;
            }
            let clock = one.clock(now);
            if let Some(call) = one.call.clone() {
                let is_there = call.answer_at.is_some_and(|at| at <= now);
                if let Some(answer) = call.answer.clone().filter(|_| is_there) {
                    let sent = if wrong == Wrong::CountsFromTheAnswer { clock } else { call.sent };
                    let is_read = matches!(answer, Answer::Read(_));
                    let hasty = if wrong == Wrong::Impatient && is_read { 12 } else { 0 };
                    one.election.answered(sent, clock.saturating_sub(Duration::from_secs(hasty)), answer);
                    one.call = None;
                } else if clock >= call.gives_up_at {
                    seen.lost += 1;
                    let answer = match &call.act {
                        Act::Create(lease) | Act::Replace(lease) if wrong == Wrong::LostIsDone => {
                            Answer::Written(lease.clone())
                        }
                        _ => Answer::Lost,
                    };
                    one.election.answered(call.sent, clock, answer);
                    // It may yet be done, long after.
                    if call.done_at.is_some() {
                        strays.push((now + dice.below(30_000), call.act));
                    }
                    one.call = None;
                }
                continue;
            }
            match one.election.act(clock) {
                Act::Rest(_) => {}
                act => {
                    let slow = |dice: &mut Dice| if dice.one_in(trouble) { dice.below(9_000) } else { dice.below(50) };
                    let lost = |dice: &mut Dice| trouble < 40 && dice.one_in(12);
                    let arrives = now + slow(&mut dice);
                    let (done_at, answer_at) = (
                        (!lost(&mut dice)).then_some(arrives),
                        (!lost(&mut dice)).then_some(arrives + slow(&mut dice)),
                    );
                    let gives_up_at = clock + Duration::from_secs(5);
                    one.call = Some(Call { act, sent: clock, done_at, answer_at, answer: None, gives_up_at });
                }
            }
        }
        let leaders: Vec<(usize, u64)> =
            all.iter().enumerate().filter_map(|(n, one)| Some((n, one.leads(now)?.0))).collect();
        match leaders[..] {
            [] => {}
            [(n, term)] => {
                seen.led += 1;
                let id = all[n].offset;
                let is_new = !terms.contains_key(&term);
                if is_new && !deleted && terms.keys().next_back().is_some_and(|last| *last > term) {
                    return Err(format!("at {now} ms term {term} begins after {terms:?}"));
                }
                seen.leaderships += u64::from(is_new);
                let owner = *terms.entry(term).or_insert(id);
                if !deleted && owner != id {
                    return Err(format!("at {now} ms term {term} is another's already"));
                }
            }
            _ => return Err(format!("at {now} ms they lead all: {leaders:?}")),
        }
    }
    Ok(())
}

#[test]
fn never_do_two_lead() {
    let mut seen = Seen::default();
    for seed in 0..HISTORIES {
        if let Err(told) = play(seed, Wrong::No, &mut seen) {
            panic!("seed {seed}: {told}");
        }
    }
    println!("{seen:?} in {HISTORIES} histories");
    assert!(seen.leaderships > HISTORIES * 3 / 2 && seen.lost > HISTORIES && seen.late > HISTORIES / 20, "{seen:?}");
    assert!(seen.led > 400 * HISTORIES, "somebody leads most of the time: {seen:?}");
}

#[test]
fn every_way_to_get_it_wrong_is_caught() {
    for wrong in [Wrong::CountsFromTheAnswer, Wrong::NoMargin, Wrong::Impatient, Wrong::BlindWrites, Wrong::LostIsDone]
    {
        let caught = (0..HISTORIES).find_map(|seed| play(seed, wrong, &mut Seen::default()).err().map(|e| (seed, e)));
        let (seed, told) = caught.unwrap_or_else(|| panic!("{wrong:?} survived {HISTORIES} histories"));
        println!("{wrong:?}: seed {seed}: {told}");
    }
}
