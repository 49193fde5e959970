//! Mode `auto`: proxy where another server answers, else full.
//!
//! It becomes full only when it may (`allowFull`) and three probes of 10 s brought no offer from
//! anybody else. At the first foreign offer, also later, it becomes proxy: two servers that hand out
//! addresses are worse than one that is missing. There it goes on probing once a minute, and is full
//! again when 15 probes in a row brought nothing: longer than a server takes to start anew, and what
//! one forged offer costs at most.
//!
//! What a client says proves nothing: anybody may send a REQUEST that names a server which is not
//! there. It only makes a full one probe at once, though not within 10 s of the last time.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::packet::{Kind, Packet, option};
use super::segment::Mode;

/// How long each probe waits for an offer.
pub const PROBE: Duration = Duration::from_secs(10);
/// How often it asks again once it is full or proxy: another server may appear on a quiet segment, and
/// one may go.
pub const WATCH: Duration = Duration::from_secs(60);
/// How many probes nobody must answer.
pub const PROBES: u8 = 3;
/// How many in a row, where somebody has answered before.
pub const SILENCES: u8 = 15;

/// What a packet says about another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It hands out addresses here: its own word, on this segment.
    Serves(Ipv4Addr),
    /// Perhaps there is this one.
    Hint(Ipv4Addr),
}

impl Sign {
    /// What follows from a packet that came from this address. What was broadcast comes from this
    /// segment, as all answers to our probes do; what was sent to our own address may come from
    /// anywhere.
    pub fn of(packet: &Packet, from: Ipv4Addr, broadcast: bool) -> Option<Self> {
        let named = packet.address(option::SERVER_ID);
        match packet.kind {
            Kind::Request if packet.is_request && !packet.is_relayed() => named.map(Self::Hint),
            // One that gives no address is a proxy like us.
            Kind::Offer | Kind::Ack if !packet.is_request && !packet.yiaddr.is_unspecified() => {
                let server = named.unwrap_or(from);
                Some(if broadcast { Self::Serves(server) } else { Self::Hint(server) })
            }
            _ => None,
        }
        .filter(|sign| !sign.server().is_unspecified())
    }

    /// Whom it names.
    pub fn server(self) -> Ipv4Addr {
        match self {
            Self::Serves(server) | Self::Hint(server) => server,
        }
    }
}

/// The state of one segment in mode `auto`. Time is what has passed since it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auto {
    state: State,
    /// Whether it may become full: it is allowed to, and hears other servers.
    may: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Probing {
        sent: u8,
        next: Duration,
    },
    Full {
        probed: Duration,
        hinted: bool,
    },
    /// `sent` counts the probes since that server was heard.
    Proxy {
        foreign: Option<Ipv4Addr>,
        sent: u8,
        next: Duration,
    },
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send a DISCOVER, then wait this long.
    Probe(Duration),
    /// Wait this long.
    Wait(Duration),
    /// Nothing any more but listen.
    Listen,
}

impl Auto {
    /// At the start.
    pub fn new(allow_full: bool) -> Self {
        let state = match allow_full {
            true => State::Probing { sent: 0, next: Duration::ZERO },
            false => State::Proxy { foreign: None, sent: 0, next: Duration::ZERO },
        };
        Self { state, may: allow_full }
    }

    /// What is to be done at this time.
    pub fn step(&mut self, now: Duration) -> Step {
        let (due, every, probes) = match self.state {
            State::Proxy { .. } if !self.may => return Step::Listen,
            State::Proxy { next, .. } => (next, WATCH, SILENCES),
            State::Full { probed, hinted } => (probed + if hinted { PROBE } else { WATCH }, WATCH, 0),
            State::Probing { next, .. } => (next, PROBE, PROBES),
        };
        if now < due {
            return Step::Wait(due - now);
        }
        match &mut self.state {
            State::Full { probed, hinted } => (*probed, *hinted) = (now, false),
            // The last one has had its time as well.
            State::Probing { sent, .. } | State::Proxy { sent, .. } if *sent == probes => {
                self.state = State::Full { probed: now, hinted: false };
                return Step::Wait(WATCH);
            }
            State::Probing { sent, next } | State::Proxy { sent, next, .. } => {
                *sent += 1;
                *next = now + every;
            }
        }
        Step::Probe(every)
    }

    /// A packet says something about another server. Whether there may be something to do sooner than
    /// [`step`](Self::step) said.
    pub fn note(&mut self, sign: Sign, now: Duration) -> bool {
        match (sign, &mut self.state) {
            (Sign::Serves(server), state) => {
                *state = State::Proxy { foreign: Some(server), sent: 0, next: now + WATCH };
                false
            }
            // In the other states it probes anyway, and more probes in less time would be no stronger proof.
            (Sign::Hint(_), State::Full { hinted, .. }) => !std::mem::replace(hinted, true),
            (Sign::Hint(_), State::Probing { .. } | State::Proxy { .. }) => false,
        }
    }

    /// Whether an answer of a server that a client names would decide something: there are servers that
    /// answer those only whom they know.
    pub fn doubts(&self) -> bool {
        match self.state {
            State::Probing { .. } | State::Full { .. } => true,
            State::Proxy { sent, .. } => self.may && sent > 1,
        }
    }

    /// Foreign offers cannot be heard: it must not become full.
    pub fn deaf(&mut self) {
        self.may = false;
        if !matches!(self.state, State::Proxy { .. }) {
            self.state = State::Proxy { foreign: None, sent: 0, next: Duration::ZERO };
        }
    }

    /// What DHCP does meanwhile: while it probes it gives boot information only.
    pub fn mode(&self) -> Mode {
        match self.state {
            State::Full { .. } => Mode::Full,
            State::Probing { .. } | State::Proxy { .. } => Mode::Proxy,
        }
    }

    /// Why, for a person.
    pub fn reason(&self) -> String {
        match &self.state {
            State::Probing { sent, .. } => format!("probing for other servers, {sent} of {PROBES}"),
            State::Full { .. } => "no other server answered our probes".to_owned(),
            State::Proxy { foreign: Some(server), sent: 2.., .. } if self.may => format!(
                "{server} handed out addresses here and is silent; after {} minutes of that, addresses come from us",
                u64::from(SILENCES) * WATCH.as_secs() / 60
            ),
            State::Proxy { foreign: Some(server), .. } => format!("{server} hands out addresses here"),
            State::Proxy { foreign: None, .. } => {
                "allowFull is not set, or other servers could not be heard".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::bytes;
    use super::*;

    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn full() -> Auto {
        let mut auto = Auto::new(true);
        for now in [0, 10, 20, 30] {
            auto.step(at(now));
        }
        assert_eq!(auto.mode(), Mode::Full);
        auto
    }

    #[test]
    fn full_after_three_silent_probes_and_not_after_an_offer() {
        let mut auto = Auto::new(true);
        for (now, want) in [
            (0, Step::Probe(PROBE)),
            (4, Step::Wait(at(6))),
            (10, Step::Probe(PROBE)),
            (20, Step::Probe(PROBE)),
            (29, Step::Wait(at(1))),
        ] {
            assert_eq!((auto.step(at(now)), auto.mode()), (want, Mode::Proxy), "{now} s");
        }
        assert_eq!((auto.step(at(30)), auto.mode()), (Step::Wait(WATCH), Mode::Full));
        assert_eq!((auto.step(at(90)), auto.mode()), (Step::Probe(WATCH), Mode::Full));
        auto.note(Sign::Serves(OTHER), at(95));
        assert_eq!((auto.step(at(96)), auto.mode()), (Step::Wait(at(59)), Mode::Proxy));
        assert!(auto.reason().contains("10.0.0.9"));
    }

    #[test]
    fn an_offer_ends_the_probing() {
        let mut auto = Auto::new(true);
        auto.step(Duration::ZERO);
        auto.note(Sign::Serves(OTHER), at(1));
        assert_eq!((auto.step(PROBE), auto.mode()), (Step::Wait(at(51)), Mode::Proxy));
    }

    #[test]
    fn a_server_that_has_gone_is_followed_after_fifteen_silent_probes() {
        let (mut auto, mut now) = (full(), 100);
        auto.note(Sign::Serves(OTHER), at(now));
        // Heard once more in between, by a probe or by its answer to another: the count begins anew.
        for (probes, heard) in [(14, true), (15, true), (15, false)] {
            for n in 1..=probes {
                now += 60;
                assert_eq!((auto.step(at(now)), auto.mode()), (Step::Probe(WATCH), Mode::Proxy), "probe {n}");
                assert_eq!((auto.doubts(), auto.reason().contains("silent")), (n > 1, n > 1), "probe {n}");
            }
            if heard {
                now += 59;
                auto.note(Sign::Serves(OTHER), at(now));
            }
        }
        assert_eq!(auto.step(at(now + 59)), Step::Wait(at(1)));
        assert_eq!((auto.step(at(now + 60)), auto.mode()), (Step::Wait(WATCH), Mode::Full));
        auto.note(Sign::Serves(OTHER), at(now + 61));
        assert_eq!(auto.mode(), Mode::Proxy);
    }

    #[test]
    fn what_clients_say_makes_it_probe_and_nothing_else() {
        let hint = Sign::Hint(OTHER);
        // Full since 30, by a probe at 20; (time, whether hinted, what to do).
        let mut auto = full();
        for (now, wakes, want) in [
            (32, Some(true), Step::Wait(at(8))),
            (33, Some(false), Step::Wait(at(7))),
            (40, None, Step::Probe(WATCH)),
            (41, None, Step::Wait(at(59))),
            (70, Some(true), Step::Probe(WATCH)),
            (71, Some(true), Step::Wait(at(9))),
            (80, Some(false), Step::Probe(WATCH)),
            (139, None, Step::Wait(at(1))),
        ] {
            assert_eq!(wakes.map(|_| auto.note(hint, at(now))), wakes, "{now} s");
            assert_eq!((auto.step(at(now)), auto.mode(), auto.doubts()), (want, Mode::Full, true), "{now} s");
        }
        // A flood of them: six probes a minute.
        let probes = (200_000..260_000).filter(|ms| {
            auto.note(hint, Duration::from_millis(*ms));
            matches!(auto.step(Duration::from_millis(*ms)), Step::Probe(_))
        });
        assert_eq!(probes.count(), 6);
        // They bring nothing forward where silence is counted, and hold nothing up.
        let (mut hinted, mut quiet) = (Auto::new(true), Auto::new(true));
        for now in 0..1200 {
            assert!(now > 30 || !hinted.note(hint, at(now)));
            if now == 15 {
                hinted.note(Sign::Serves(OTHER), at(now));
                quiet.note(Sign::Serves(OTHER), at(now));
            }
            if now < 900 {
                assert!(!hinted.note(hint, at(now)));
                assert_eq!((hinted.step(at(now)), hinted.mode()), (quiet.step(at(now)), quiet.mode()), "{now} s");
            }
        }
    }

    #[test]
    fn only_a_servers_own_word_counts_and_only_from_this_segment() {
        let packet = |op: u8, kind: u8, yiaddr: u8, server: Option<u8>| {
            let id = server.map(|last| [10, 0, 0, last]);
            let mut options: Vec<(u8, &[u8])> = vec![(53, std::slice::from_ref(&kind))];
            options.extend(id.as_ref().map(|id| (54, id.as_slice())));
            let mut bytes = bytes(&options);
            (bytes[0], bytes[19]) = (op, yiaddr);
            Packet::decode(&bytes).unwrap()
        };
        let (serves, hint) = (Some(Sign::Serves(OTHER)), Some(Sign::Hint(OTHER)));
        for (packet, broadcast, want) in [
            // REQUEST, DISCOVER, INFORM.
            (packet(1, 3, 0, Some(9)), true, hint),
            (packet(1, 3, 0, None), true, None),
            (packet(1, 1, 0, Some(9)), true, None),
            (packet(1, 8, 0, Some(9)), true, None),
            // OFFER, ACK, NAK.
            (packet(2, 2, 7, Some(9)), true, serves),
            (packet(2, 5, 7, Some(9)), true, serves),
            (packet(2, 5, 7, None), true, Some(Sign::Serves(Ipv4Addr::new(10, 0, 0, 8)))),
            (packet(2, 2, 7, Some(9)), false, hint),
            // A proxy's.
            (packet(2, 2, 0, Some(9)), true, None),
            (packet(2, 6, 0, Some(9)), true, None),
            // What pretends to be both.
            (packet(2, 3, 7, Some(9)), true, None),
            (packet(1, 2, 7, Some(9)), true, None),
        ] {
            let got = Sign::of(&packet, Ipv4Addr::new(10, 0, 0, 8), broadcast);
            assert_eq!(got, want, "{packet:?}");
        }
    }

    #[test]
    fn without_leave_or_ears_it_never_probes() {
        let mut auto = Auto::new(false);
        assert_eq!((auto.step(Duration::ZERO), auto.mode()), (Step::Listen, Mode::Proxy));
        auto.note(Sign::Serves(OTHER), at(1));
        assert_eq!((auto.step(at(10_000)), auto.mode(), auto.doubts()), (Step::Listen, Mode::Proxy, false));
        for heard in [false, true] {
            let mut auto = full();
            if heard {
                auto.note(Sign::Serves(OTHER), at(31));
            }
            auto.deaf();
            assert_eq!((auto.step(at(10_000)), auto.mode(), auto.doubts()), (Step::Listen, Mode::Proxy, false));
            assert_eq!(auto.reason().contains("10.0.0.9"), heard);
        }
    }
}
