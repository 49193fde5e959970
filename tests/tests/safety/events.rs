//! What can happen, and histories of it.

use dragonfly_core::testing::Rule;

/// How many machines a site has.
pub(crate) const MACHINES: usize = 2;
/// How many cards somebody answers to: the machines' own, and a stranger's.
pub(crate) const CARDS: usize = MACHINES + 1;
/// How many things a stranger says of himself.
pub(crate) const CLAIMS: usize = 8;
/// How many ways there are to write a machine's cards and serial number.
pub(crate) const EDITS: usize = 6;

/// One thing that happens. `machine` is an index; every other index is taken modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The machine is switched on: firmware asks for its fate, and what it is told happens.
    PowerOn { machine: usize },
    /// The machine loses its power.
    PowerOff { machine: usize },
    /// Firmware asks for a boot script and an identity, and nothing comes of it.
    Ask { machine: usize },
    /// The agent does the next things that it has to do.
    Agent { machine: usize, actions: usize, hasty: bool },
    /// As [`Event::Agent`], once, and the answer is lost on its way.
    Unheard { machine: usize },
    /// The agent works to its end, and its hand-over is long on its way.
    SlowHandOver { machine: usize },
    /// The step that the agent is at will fail, for one of two reasons.
    Fails { machine: usize, cause: bool },
    /// Somebody shows a boot token that was given out earlier.
    OldToken { token: usize },
    /// Somebody shows a boot token that this server never gave out, or not for this machine.
    ForgedToken { machine: usize, token: usize, how: usize },
    /// Somebody with a session that was opened earlier asks for work, and reports that it begins.
    OldSession { session: usize },
    /// A report that was sent earlier arrives (again).
    Late { report: usize },
    /// Everything that was ever reported about this machine arrives again, in order.
    Flood { machine: usize },
    /// An operator assigns.
    Assign { machine: usize, all: bool },
    /// An operator asks for a reimage.
    Reimage { machine: usize },
    /// An operator asks for another attempt.
    Retry { machine: usize },
    /// An operator calls the workflow off.
    Abort { machine: usize },
    /// An operator protects the machine, or takes that back.
    Protect { machine: usize, on: bool },
    /// An operator holds the machine.
    Hold { machine: usize },
    /// An operator releases the machine.
    Release { machine: usize },
    /// An operator denies that the machine is who asks.
    Deny { machine: usize },
    /// An operator deletes the machine's record.
    Delete { machine: usize },
    /// An operator deletes a workflow.
    DeleteWorkflow { workflow: usize },
    /// An operator changes the template.
    EditTemplate { content: usize },
    /// Somebody applies a workflow, or a machine, with a status of his own making, or changes one that was authorised.
    Forge { machine: usize, how: usize },
    /// A stranger who answers to a card says hello, and what he likes: see [`Words::claimed`](crate::identity::Words).
    Claims { card: usize, what: usize, works: bool },
    /// The two machines exchange their cards.
    Swap,
    /// A board loses its numbers, or has them again.
    Numbers { machine: usize, on: bool },
    /// An operator writes a machine's cards or its serial number anew, or writes a machine down.
    Edit { machine: usize, what: usize },
    /// Somebody takes a picture of the server's disk.
    Snapshot,
    /// Such a picture is put back, and nobody tells the server.
    Rollback { snapshot: usize },
    /// The store is backed up.
    Backup,
    /// An old backup is put back.
    Restore { backup: usize },
    /// The server is stopped in order and started again.
    Restart,
    /// The server is killed and started again.
    Kill,
    /// The next call on the server is cut off at a write: with it the server, or only the caller.
    Cut { write: u32, after: bool, kill: bool },
    /// The server's clock is set forward or back by so many seconds.
    Clock { seconds: i64 },
    /// The periodic pass.
    Sweep,
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The history of a seed: 12 to 50 events. What leads somewhere comes more often in the order in which it
/// does: a history of independent events would install next to nothing.
pub(crate) fn history(seed: u64) -> Vec<Event> {
    let mut dice = Dice::new(seed);
    let length = 12 + dice.below(25);
    let mut events = Vec::new();
    while events.len() < length {
        // Most of it is about one machine.
        let machine = usize::from(dice.below(5) == 0);
        match dice.below(40) {
            0..11 => story(&mut dice, machine, &mut events),
            11 => intrigue(&mut dice, machine, &mut events),
            12 => rollback(&mut dice, machine, &mut events),
            _ => {
                let event = single(&mut dice, machine);
                events.push(event);
            }
        }
    }
    events
}

/// A machine is ordered to be installed and gets some way, with things between.
fn story(dice: &mut Dice, machine: usize, events: &mut Vec<Event>) {
    let mut push = |dice: &mut Dice, event| {
        events.push(event);
        if dice.below(6) == 0 {
            let other = single(dice, machine);
            events.push(other);
        }
    };
    if dice.below(3) > 0 {
        push(dice, Event::PowerOn { machine });
    }
    match dice.below(3) {
        0 => push(dice, Event::Reimage { machine }),
        _ => push(dice, Event::Assign { machine, all: dice.clone().coin() }),
    }
    if dice.coin() {
        push(dice, Event::PowerOn { machine });
    }
    for _ in 0..1 + dice.below(3) {
        let (actions, hasty) = (1 + dice.below(16), dice.coin());
        push(dice, Event::Agent { machine, actions, hasty });
    }
    match dice.below(6) {
        0 => {
            // Called off when all is done but the hand-over has not come; it comes when another run is at work.
            push(dice, Event::SlowHandOver { machine });
            push(dice, Event::Abort { machine });
            push(dice, Event::Assign { machine, all: true });
            push(dice, Event::Agent { machine, actions: 2 + dice.clone().below(6), hasty: dice.clone().coin() });
            push(dice, Event::Flood { machine });
        }
        1 => {}
        _ => push(dice, Event::Agent { machine, actions: 16, hasty: false }),
    }
}

/// A stranger makes a machine out to be the other, one word after the other, and that other one boots; or a
/// person has moved cards.
fn intrigue(dice: &mut Dice, machine: usize, events: &mut Vec<Event>) {
    let other = 1 - machine;
    if dice.coin() {
        events.push(Event::Edit { machine, what: dice.below(EDITS) });
    }
    if dice.below(3) == 0 {
        events.push(Event::Swap);
    } else {
        for _ in 0..1 + dice.below(3) {
            events.push(Event::Claims { card: machine, what: dice.below(CLAIMS), works: dice.coin() });
        }
    }
    if dice.coin() {
        events.push(Event::Release { machine });
    }
    events.push(Event::Assign { machine, all: true });
    if dice.below(4) == 0 {
        events.push(single(dice, machine));
    }
    let boots = if dice.coin() { machine } else { other };
    events.push(Event::PowerOn { machine: boots });
    events.push(Event::Agent { machine: boots, actions: 4 + dice.below(16), hasty: dice.coin() });
}

/// A machine is on its way, perhaps to its end, and the server is set back to some moment of that.
fn rollback(dice: &mut Dice, machine: usize, events: &mut Vec<Event>) {
    events.push(Event::PowerOn { machine });
    let at = dice.below(4);
    let mut push = |n: usize, event| {
        events.extend((n == at).then_some(Event::Snapshot));
        events.push(event);
    };
    push(0, Event::Reimage { machine });
    push(1, Event::Agent { machine, actions: 1 + dice.below(4), hasty: false });
    push(2, Event::Agent { machine, actions: 1 + dice.below(6), hasty: dice.coin() });
    push(3, Event::Agent { machine, actions: 4 + dice.below(16), hasty: false });
    if dice.coin() {
        events.push(single(dice, machine));
    }
    events.push(Event::Rollback { snapshot: if dice.coin() { usize::MAX } else { dice.below(8) } });
    if dice.coin() {
        events.push(Event::PowerOn { machine });
    }
    events.push(Event::Agent { machine, actions: 4 + dice.below(16), hasty: dice.coin() });
}

fn single(dice: &mut Dice, machine: usize) -> Event {
    let any = dice.below(64);
    let on = dice.below(3) > 0;
    match dice.below(66) {
        0..6 => Event::PowerOn { machine },
        6 => Event::PowerOff { machine },
        7 => Event::Ask { machine },
        8..14 => Event::Agent { machine, actions: 1 + any % 12, hasty: dice.coin() },
        14 => Event::Unheard { machine },
        15 => Event::SlowHandOver { machine },
        16..18 => Event::Fails { machine, cause: dice.coin() },
        18..20 => Event::OldToken { token: any },
        20 => Event::ForgedToken { machine, token: any, how: dice.below(4) },
        21 => Event::OldSession { session: any },
        22..25 => Event::Late { report: any },
        25..27 => Event::Flood { machine },
        27..29 => Event::Assign { machine, all: dice.coin() },
        29..31 => Event::Reimage { machine },
        31..33 => Event::Retry { machine },
        33..36 => Event::Abort { machine },
        36 => Event::Protect { machine, on: true },
        37..39 => Event::Protect { machine, on: on && dice.coin() },
        39 => Event::Hold { machine },
        40..42 => Event::Release { machine },
        42 => Event::Delete { machine },
        43 => Event::DeleteWorkflow { workflow: any },
        44 => Event::EditTemplate { content: any },
        45..47 => Event::Forge { machine, how: dice.below(6).min(4) },
        47..49 => Event::Backup,
        49 => Event::Restore { backup: any },
        50 => Event::Restart,
        51 => Event::Kill,
        52..55 => Event::Cut { write: dice.below(4) as u32, after: dice.coin(), kill: dice.coin() },
        55 => Event::Sweep,
        56 => Event::Deny { machine },
        58..61 => Event::Claims { card: dice.below(CARDS), what: dice.below(CLAIMS), works: on },
        61 => Event::Swap,
        62 => Event::Numbers { machine, on },
        63 => Event::Edit { machine, what: dice.below(EDITS) },
        64 => Event::Snapshot,
        65 => Event::Rollback { snapshot: any },
        _ => {
            let leaps = [1, 31, 31, 61, 601, 1000, 14_500, 25 * 3600, -1, -30, -1200, -25 * 3600];
            Event::Clock { seconds: leaps[dice.below(leaps.len())] }
        }
    }
}

/// What a broken engine is caught by, in the words of the promise.
pub(crate) fn promise(rule: Rule) -> &'static str {
    match rule {
        Rule::Generation => "each authorisation has a higher number than those before it",
        Rule::RetryLimit => "no more attempts than operators and the limit allow",
        Rule::LateReport => "what is over stays over",
        Rule::TokenOnce => "a boot token opens one session",
        Rule::LatestSession => "only the latest session is answered",
        Rule::AppliedIsInert => "an operator stands behind every wipe",
        Rule::EndsWithSuccess => "nothing after the hand-over",
        Rule::EndsWithAbort => "nothing after it was called off",
        Rule::Expiry => "nothing after the authorisation expired",
        Rule::Protection => "nothing on a protected machine",
        Rule::Hold => "nothing on a held machine",
        Rule::HoldRestored => "nothing that only a restored backup allows",
        Rule::Proven => "nobody is installed in another's place",
        Rule::AsMade => "nothing but what was authorised",
        other => panic!("say what the promise is that {other:?} stands for"),
    }
}
