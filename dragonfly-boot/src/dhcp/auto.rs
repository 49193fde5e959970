//! Mode `auto`: proxy where another server answers, else full.
//!
//! It becomes full only when it may (`allowFull`) and three probes of 10 s brought no offer from
//! anybody else. At the first foreign offer, also later, it becomes proxy and stays that: two
//! servers that hand out addresses are worse than one that is missing, and a person can apply the
//! Network again.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::segment::Mode;

/// How long each probe waits for an offer.
pub const PROBE: Duration = Duration::from_secs(10);
/// How often it asks again once it is full: another server may appear on a quiet segment.
pub const WATCH: Duration = Duration::from_secs(60);
/// How many probes nobody must answer.
pub const PROBES: u8 = 3;

/// The state of one segment in mode `auto`. Time is what has passed since it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auto {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Probing { sent: u8, next: Duration },
    Full { next: Duration },
    Proxy { foreign: Option<Ipv4Addr> },
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
            false => State::Proxy { foreign: None },
        };
        Self { state }
    }

    /// What is to be done at this time.
    pub fn step(&mut self, now: Duration) -> Step {
        let (next, every) = match &mut self.state {
            State::Proxy { .. } => return Step::Listen,
            State::Full { next } => (next, WATCH),
            State::Probing { next, .. } => (next, PROBE),
        };
        if now < *next {
            return Step::Wait(*next - now);
        }
        *next = now + every;
        match &mut self.state {
            State::Probing { sent, .. } if *sent == PROBES => {
                self.state = State::Full { next: now + WATCH };
                Step::Wait(WATCH)
            }
            State::Probing { sent, .. } => {
                *sent += 1;
                Step::Probe(PROBE)
            }
            _ => Step::Probe(WATCH),
        }
    }

    /// Another server offered an address, or a client accepted one from it.
    pub fn foreign(&mut self, server: Ipv4Addr) {
        self.state = State::Proxy { foreign: Some(server) };
    }

    /// Foreign offers cannot be heard: it must not become full.
    pub fn deaf(&mut self) {
        if !matches!(self.state, State::Proxy { foreign: Some(_) }) {
            self.state = State::Proxy { foreign: None };
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
            State::Full { .. } => format!("no other server answered {PROBES} probes"),
            State::Proxy { foreign: Some(server) } => format!("{server} hands out addresses here"),
            State::Proxy { foreign: None } => "allowFull is not set, or other servers could not be heard".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    #[test]
    fn full_after_three_silent_probes_and_never_again_after_an_offer() {
        let at = Duration::from_secs;
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
        auto.foreign(OTHER);
        assert_eq!((auto.step(at(1000)), auto.mode()), (Step::Listen, Mode::Proxy));
        assert!(auto.reason().contains("10.0.0.9"));
    }

    #[test]
    fn an_offer_ends_the_probing() {
        let mut auto = Auto::new(true);
        auto.step(Duration::ZERO);
        auto.foreign(OTHER);
        assert_eq!((auto.step(PROBE), auto.mode()), (Step::Listen, Mode::Proxy));
    }

    #[test]
    fn without_leave_it_never_probes() {
        let mut auto = Auto::new(false);
        assert_eq!((auto.step(Duration::ZERO), auto.mode()), (Step::Listen, Mode::Proxy));
    }
}
