//! Which TFTP transfer ends so that another can begin, when there is room for no more.
//!
//! Opening one costs a stranger a single packet from an address that he need not have. So transfers that
//! were never acknowledged give way first, of the address that has the most; then those that hardly go on.
//! Of those that do go on, whoever has the most gives way to one that has at least two fewer, so that a few
//! addresses cannot take all places. A packet may come from an invented address, though, and must not end
//! what goes on while there is something else: so it does only where an address has a sixteenth of all
//! places, or nothing else is left.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Bytes a second below which a transfer gives way to anybody: a block of the smallest usual size (512) a
/// second, also one at a time. Firmware that gets less would have 900 KiB when its half hour ends.
const SLOW: u64 = 512;
/// Over how long that is measured: a cable that is pulled and put back, or a minute of bad radio, ends none. It is
/// also how long each is given at the beginning.
const WINDOW: Duration = Duration::from_secs(60);

/// How fast a transfer goes on. Time is what has passed since it began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    since: Duration,
    from: u64,
    passed: u64,
    before: Option<u64>,
}

impl Pace {
    /// The client has acknowledged so many bytes in all.
    pub(super) fn passed(&mut self, passed: u64, now: Duration) {
        self.passed = passed;
        if let Some(rate) = self.current(now) {
            *self = Self { since: now, from: passed, passed, before: Some(rate) };
        }
    }

    fn current(&self, now: Duration) -> Option<u64> {
        let span = now.saturating_sub(self.since);
        (span >= WINDOW).then(|| (self.passed - self.from).saturating_mul(1000) / (span.as_millis() as u64).max(1))
    }

    /// Bytes a second of the last whole minute or more; `None` before there was one.
    pub(super) fn rate(&self, now: Duration) -> Option<u64> {
        self.current(now).or(self.before)
    }
}

/// A transfer as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) peer: SocketAddrV4,
    /// Whether its client has answered anything.
    pub(super) answered: bool,
    /// Bytes a second, once that can be told.
    pub(super) rate: Option<u64>,
    /// Transfers that began before have lower ones.
    pub(super) number: u64,
}

/// Whether an address has opened so many transfers and answered none of them that it is heard again only when
/// they are over: looking at what a flood asks for would keep the others waiting.
pub(super) fn is_flooding(mut open: impl Iterator<Item = Standing>, asker: Ipv4Addr, places: usize) -> bool {
    let most = (places / 16).max(8);
    open.by_ref().filter(|one| *one.peer.ip() == asker && !one.answered).nth(most - 1).is_some()
}

/// The transfer that ends for one of `asker`; `None` when that one must wait.
pub(super) fn gives_way(
    open: impl Iterator<Item = Standing> + Clone,
    asker: Ipv4Addr,
    places: usize,
) -> Option<SocketAddrV4> {
    let mut of_address: HashMap<Ipv4Addr, usize> = HashMap::new();
    for one in open.clone() {
        *of_address.entry(*one.peer.ip()).or_default() += 1;
    }
    let of = |address: &Ipv4Addr| of_address.get(address).copied().unwrap_or_default();
    let own = of(&asker);
    let rank = |one: &Standing| {
        let count = of(one.peer.ip());
        let has_more = count >= own + 2;
        let order = match (one.answered, one.rate) {
            (false, _) if count > 1 => 0,
            (true, Some(..SLOW)) => 1,
            (true, _) if has_more && count * 16 > places => 2,
            (false, _) => 3,
            (true, _) if has_more => 4,
            (true, _) => return None,
        };
        Some((order, Reverse(count), one.rate.unwrap_or(u64::MAX), one.number))
    };
    open.filter_map(|one| Some((rank(&one)?, one.peer))).min_by_key(|(rank, _)| *rank).map(|(_, peer)| peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(number: u64, host: u8, answered: bool) -> Standing {
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 1000 + u16::try_from(number).unwrap());
        Standing { peer, answered, rate: None, number }
    }

    #[test]
    fn an_address_that_answers_nothing_is_not_heard_for_a_while() {
        let asker = Ipv4Addr::new(10, 0, 0, 5);
        let open = |silent: u64, answered: u64, others: u64| {
            let own = (0..silent).map(|n| standing(n, 5, false)).chain((0..answered).map(|n| standing(n, 5, true)));
            own.chain((0..others).map(|n| standing(n, 6, false))).collect::<Vec<_>>()
        };
        for (all, want) in
            [(open(0, 1000, 0), false), (open(63, 900, 0), false), (open(64, 0, 0), true), (open(10, 0, 1000), false)]
        {
            assert_eq!(is_flooding(all.iter().copied(), asker, 1024), want, "{}", all.len());
        }
    }

    #[test]
    fn who_never_answers_gives_way_and_who_has_the_most_of_them_first() {
        let asker = Ipv4Addr::new(10, 0, 0, 5);
        let way =
            |open: &[Standing], places| gives_way(open.iter().copied(), asker, places).map(|peer| peer.port() - 1000);
        let (going, silent) = (|n, host| standing(n, host, true), |n, host| standing(n, host, false));
        let at = |n, host, rate| Standing { rate: Some(rate), ..standing(n, host, true) };
        for (open, want) in [
            (vec![], None),
            (vec![going(1, 1), going(2, 2), going(3, 3), going(4, 4)], None),
            // The oldest of those that stay silent.
            (vec![going(1, 1), silent(2, 2), silent(3, 3)], Some(2)),
            // A machine that has only just asked is not pushed out by somebody with many.
            (vec![silent(1, 1), silent(2, 9), silent(3, 9), silent(4, 9)], Some(2)),
            // An address with two more gives way, though its transfers go on.
            (vec![going(1, 1), going(2, 9), going(3, 9), going(4, 3)], Some(2)),
            // Its slowest first, and one that hardly goes on before all, even the asker's own.
            (vec![at(1, 9, 9000), at(2, 9, 900), at(3, 9, 2000), at(4, 3, 512)], Some(2)),
            (vec![going(1, 9), going(2, 9), going(3, 9), at(4, 3, 511)], Some(4)),
            (vec![going(1, 5), at(2, 5, 100), going(3, 5), at(4, 6, 700)], Some(2)),
            // Not one fewer: they would push each other out for ever.
            (vec![going(1, 5), going(2, 9), going(3, 9), going(4, 3)], None),
            // One that has only just asked stays while somebody has many, who goes on.
            (vec![silent(1, 1), going(2, 9), going(3, 9), going(4, 9)], Some(2)),
            // Not to itself.
            (vec![going(1, 5), going(2, 5), going(3, 5), going(4, 3)], None),
        ] {
            assert_eq!(way(&open, 4), want, "{open:?}");
        }
    }

    /// Six addresses that fill all places with transfers that go on: whoever comes gets in, until all have as many.
    #[test]
    fn a_few_addresses_do_not_take_all_places() {
        let mut open: Vec<_> = (0..1024).map(|n| standing(n, 100 + (n % 6) as u8, true)).collect();
        for n in 1024..2048 {
            let host = (n % 94) as u8;
            let asker = Ipv4Addr::new(10, 0, 0, host);
            let Some(out) = gives_way(open.iter().copied(), asker, 1024) else {
                let least =
                    (0..94).chain(100..106).map(|h| open.iter().filter(|o| o.peer.ip().octets()[3] == h).count());
                assert!(n > 1900 && least.min() >= Some(10), "{n}");
                return;
            };
            open.retain(|one| one.peer != out);
            open.push(standing(n, host, true));
        }
        panic!("they push each other out for ever");
    }

    /// A packet from an invented address ends nothing that goes on, while there is something else.
    #[test]
    fn invented_addresses_cost_themselves() {
        let going = (0..60).map(|n| standing(n, 9, true));
        let mut open: Vec<_> = going.chain((60..1024).map(|n| standing(n, 10 + (n % 200) as u8, false))).collect();
        for n in 1024..5000u64 {
            let [.., a, b] = n.to_be_bytes();
            let asker = Ipv4Addr::new(10, 9, a, b);
            let out = gives_way(open.iter().copied(), asker, 1024).unwrap();
            open.retain(|one| one.peer != out);
            open.push(Standing { peer: SocketAddrV4::new(asker, 1), ..standing(n, 0, false) });
        }
        assert_eq!(open.iter().filter(|one| one.answered).count(), 60);
    }

    #[test]
    fn a_transfer_is_slow_after_a_minute_below_a_block_a_second() {
        // How many bytes are acknowledged each so many milliseconds, for how long, and what that is.
        for (bytes, every, seconds, slow) in [
            // Its first minute.
            (1, 1000, 59, None),
            (1, 1000, 61, Some(true)),
            // A satellite, one block at a time; a bad link, where each block is repeated.
            (512, 650, 600, Some(false)),
            (512, 1000, 600, Some(false)),
            (512, 1020, 600, Some(true)),
            (65464, 55_000, 600, Some(false)),
            // Not a single one.
            (0, 1000, 70, Some(true)),
        ] {
            let (mut pace, mut passed) = (Pace::default(), 0);
            for now in (every..=seconds * 1000).step_by(every as usize) {
                passed += bytes;
                pace.passed(passed, Duration::from_millis(now));
            }
            let rate = pace.rate(Duration::from_secs(seconds));
            assert_eq!(rate.map(|rate| rate < SLOW), slow, "{bytes} each {every} ms: {rate:?}");
        }
        // What was fast in the beginning does not count for ever, nor does a minute in which nothing came.
        let at = Duration::from_secs;
        let mut pace = Pace::default();
        pace.passed(100 << 20, at(5));
        assert!(pace.rate(at(65)) > Some(SLOW));
        pace.passed((100 << 20) + 512, at(65));
        assert!(pace.rate(at(124)) > Some(SLOW), "its last whole minute");
        assert_eq!(pace.rate(at(125)), Some(0));
        pace.passed((100 << 20) + 1024, at(126));
        assert!(pace.rate(at(127)) < Some(SLOW));
        pace.passed(110 << 20, at(187));
        assert!(pace.rate(at(188)) > Some(SLOW));
    }
}
