//! How many machines may write themselves down.
//!
//! Whoever can boot from the network can invent network cards, and each has a record that lasts. So there is a bound to
//! how fast records come, wide enough for a hall that is switched on at once behind one relay, and one to how many there
//! are that nobody has had anything to do with. Both cost a hello the same however many machines there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Engine, EngineError, Result};
use crate::clock::Timestamp;

/// How many at once, and how many more each minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) at_once: u64,
    pub(super) per_minute: u64,
}

/// Of one address: many machines may stand behind one that translates for them.
const OF_ONE: Rate = Rate { at_once: 2000, per_minute: 600 };
const OF_ALL: Rate = Rate { at_once: 5000, per_minute: 3000 };
/// How many addresses are remembered. Fewer than that have ever something left to give back.
const ADDRESSES: usize = 16_384;
/// How long a machine waits that is refused because there are too many.
const FULL: Duration = Duration::from_secs(60);
/// How often it is told that machines are refused.
const TOLD: Duration = Duration::from_secs(600);

/// What an inventory may take as JSON, in bytes: of machines that somebody has claimed and of the first so many of the
/// others; and of these when there are more.
const INVENTORY: usize = 128 * 1024;
const FEW: usize = 1000;
const SMALL_INVENTORY: usize = 32 * 1024;

/// What an inventory may take, as JSON.
pub(super) fn inventory_bytes(is_claimed: bool, unclaimed: usize) -> usize {
    if is_claimed || unclaimed < FEW { INVENTORY } else { SMALL_INVENTORY }
}

/// What one is counted as: so many a minute are as many parts a nanosecond.
const ONE: u64 = 60_000_000_000;

/// How much was taken of a rate, less what time has given back.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    taken: u64,
    since: Option<Timestamp>,
}

impl Bucket {
    /// How long until there is room for one; nothing if there is now.
    pub(super) fn wait(&mut self, rate: Rate, now: Timestamp) -> Duration {
        // A clock that was put back gives nothing back, and counts on from where it is.
        let passed = self.since.map_or(0, |since| now.since(since).as_nanos());
        self.since = Some(now);
        let back = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(rate.per_minute);
        self.taken = self.taken.saturating_sub(back);
        let over = (self.taken + ONE).saturating_sub(rate.at_once * ONE);
        Duration::from_nanos(over.div_ceil(rate.per_minute))
    }

    pub(super) fn take(&mut self) {
        self.taken += ONE;
    }

    /// Whether all of it is there, by when it was last looked at.
    pub(super) fn is_full(&self) -> bool {
        self.taken == 0
    }
}

/// Who was let in lately.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    all: Bucket,
    each: HashMap<IpAddr, Bucket>,
    told: Option<Timestamp>,
}

/// Why one is not let in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// So many nobody has had anything to do with.
    Full,
    /// Too many came from its address, or from all, lately.
    OfOne(Duration),
    OfAll(Duration),
}

impl Newcomers {
    /// Lets one more in, of an address, while there are so many of at most so many.
    fn one_more(&mut self, from: IpAddr, unclaimed: usize, most: usize, now: Timestamp) -> Option<Refused> {
        if unclaimed >= most {
            return Some(Refused::Full);
        }
        let wait = self.all.wait(OF_ALL, now);
        if !wait.is_zero() {
            return Some(Refused::OfAll(wait));
        }
        if self.each.len() >= ADDRESSES && !self.each.contains_key(&from) {
            self.each.retain(|_, bucket| {
                bucket.wait(OF_ONE, now);
                !bucket.is_full()
            });
        }
        let bucket = self.each.entry(from).or_default();
        let wait = bucket.wait(OF_ONE, now);
        if !wait.is_zero() {
            return Some(Refused::OfOne(wait));
        }
        bucket.take();
        self.all.take();
        None
    }

    /// Whether it is time to say that machines are refused.
    fn is_to_be_told(&mut self, now: Timestamp) -> bool {
        let is_due = self.told.is_none_or(|told| now.since(told) >= TOLD);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

impl Engine {
    /// Whether one more machine may write itself down now.
    pub(super) fn admit(&self, from: IpAddr) -> Result<()> {
        let (now, most) = (self.now(), self.inner.settings.unclaimed);
        let unclaimed = self.inner.cache.unclaimed();
        let (refused, is_news) = {
            let mut newcomers = self.inner.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
            match newcomers.one_more(from, unclaimed, most, now) {
                None => return Ok(()),
                Some(refused) => (refused, newcomers.is_to_be_told(now)),
            }
        };
        let (why, wait) = match refused {
            Refused::Full => {
                (format!("there are {unclaimed} machines that nobody has claimed, and {most} may be"), FULL)
            }
            Refused::OfOne(wait) => (format!("too many new machines registered from {from} in a short time"), wait),
            Refused::OfAll(wait) => ("too many new machines registered in a short time".to_owned(), wait),
        };
        if is_news {
            let to_do = match refused {
                Refused::Full => {
                    "Delete those that were not heard for an hour: dragonfly delete machines --unclaimed; or label or \
                     assign to those that are yours; or start the server with a greater --unclaimed"
                }
                Refused::OfOne(_) | Refused::OfAll(_) => {
                    "They are asked to come again and do so by themselves; if nobody has switched on as many, somebody \
                     on a provisioning network invents them"
                }
            };
            tracing::warn!(%from, "new machines are refused: {why}");
            self.tell("machines.refused", "", None, format!("new machines are refused: {why}. {to_do}"));
        }
        Err(EngineError::TooMany { why, wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    /// How many of so many that ask each second are let in.
    fn let_in(newcomers: &mut Newcomers, seconds: std::ops::Range<u64>, each: u32, from: fn(u32) -> IpAddr) -> usize {
        let asked = seconds.flat_map(|second| (0..each).map(move |n| (second, n)));
        asked.filter(|(second, n)| newcomers.one_more(from(*n), 0, 1, at(*second)).is_none()).count()
    }

    #[test]
    fn halls_register_at_once_and_a_flood_trickles() {
        let one = |_: u32| address(1);
        // Asked in the first second, how many; in the ten minutes after, how many each second; how many were let in.
        type Row = (&'static str, fn(u32) -> IpAddr, u32, usize, u32, usize);
        let table: [Row; 5] = [
            ("a rack behind one relay", one, 1000, 1000, 0, 0),
            ("five halls at addresses of their own", address, 5000, 5000, 0, 0),
            ("a flood from one address", one, 10_000, 2000, 100, 6000),
            ("a flood from many", address, 10_000, 5000, 1000, 30_000),
            ("many, none of which asks often", |n| address(n * 7), 100, 100, 40, 24_000),
        ];
        for (what, from, first, let_first, then, let_then) in table {
            let mut newcomers = Newcomers::default();
            assert_eq!(let_in(&mut newcomers, 0..1, first, from), let_first, "{what}");
            assert_eq!(let_in(&mut newcomers, 1..601, then, from), let_then, "{what}: then");
        }
    }

    #[test]
    fn who_is_refused_is_told_when_there_is_room() {
        let mut newcomers = Newcomers::default();
        assert_eq!(let_in(&mut newcomers, 0..1, 2000, |_| address(1)), 2000);
        let mut ask = |from, unclaimed, seconds| newcomers.one_more(address(from), unclaimed, 10, at(seconds));
        let tenth = Duration::from_millis(100);
        assert_eq!(ask(1, 0, 0), Some(Refused::OfOne(tenth)));
        assert_eq!(ask(2, 0, 0), None, "another is not");
        assert_eq!(ask(2, 10, 0), Some(Refused::Full));
        assert_eq!(ask(1, 9, 1), None);
        // The clock is put back: nothing is given back for that, and it counts on.
        assert_eq!((0..9).filter(|_| ask(1, 0, 1).is_none()).count(), 9);
        assert_eq!(ask(1, 0, 0), Some(Refused::OfOne(tenth)));
        assert_eq!((0..20).filter(|_| ask(1, 0, 1).is_none()).count(), 10);
    }

    #[test]
    fn addresses_are_not_remembered_for_ever() {
        let mut newcomers = Newcomers::default();
        for n in 0..100_000 {
            newcomers.one_more(address(n), 0, 1, at(u64::from(n / 50)));
            assert!(newcomers.each.len() <= ADDRESSES);
        }
        assert!(
            newcomers.is_to_be_told(at(0)) && !newcomers.is_to_be_told(at(599)) && newcomers.is_to_be_told(at(600))
        );
    }

    #[test]
    fn inventories_are_small_where_there_are_many_that_nobody_claims() {
        for (is_claimed, unclaimed, kib) in [(false, 0, 128), (false, 999, 128), (false, 1000, 32), (true, 1000, 128)] {
            assert_eq!(inventory_bytes(is_claimed, unclaimed), kib << 10);
        }
    }
}
