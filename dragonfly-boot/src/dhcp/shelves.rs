//! The addresses of a book ordered by what the next client could get: which nobody has had, and of
//! the others the oldest first. What a search costs does not grow with what has been leased.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;
use std::ops::{Bound, RangeInclusive};

use dragonfly_core::clock::Timestamp;

/// An address and until when something holds there.
pub(super) type Aged = (Timestamp, Ipv4Addr);

/// How many shelves are looked at for one client: all of 65,536 addresses.
pub(super) const SHELVES: u32 = 256;

/// Why an address is not free for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It has been leased or found in use, and is not offered.
    Row,
    /// It is offered, whatever else it is.
    Offer,
}

/// 256 addresses that share their first three octets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Shelf {
    taken: [u64; 4],
    rows: BTreeSet<Aged>,
    offers: BTreeSet<Aged>,
}

impl Shelf {
    fn of(&self, taken: Taken) -> &BTreeSet<Aged> {
        match taken {
            Taken::Row => &self.rows,
            Taken::Offer => &self.offers,
        }
    }

    fn set(&mut self, taken: Taken, one: Aged, is_taken: bool) {
        let last = one.1.octets()[3];
        if let Some(word) = self.taken.get_mut(usize::from(last / 64)) {
            let bit = 1 << (last % 64);
            *word = if is_taken { *word | bit } else { *word & !bit };
        }
        let ages = match taken {
            Taken::Row => &mut self.rows,
            Taken::Offer => &mut self.offers,
        };
        if is_taken {
            ages.insert(one);
        } else {
            ages.remove(&one);
        }
    }

    /// The first from `last` on that is not taken.
    fn gap(&self, last: u32) -> Option<u32> {
        let words = (0..).step_by(64).zip(self.taken).skip(last as usize / 64);
        words
            .map(|(first, word)| {
                let before = if last > first { (1 << (last - first)) - 1 } else { 0 };
                (first, (word | before).trailing_ones())
            })
            .find_map(|(first, ones)| (ones < 64).then_some(first + ones))
    }
}

/// All addresses that have a row or an offer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Shelves(BTreeMap<u32, Shelf>);

impl Shelves {
    /// Notes what stands at an address where nothing stood.
    pub(super) fn put(&mut self, taken: Taken, one: Aged) {
        self.0.entry(u32::from(one.1) >> 8).or_default().set(taken, one, true);
    }

    /// Undoes it.
    pub(super) fn take(&mut self, taken: Taken, one: Aged) {
        if let Some(shelf) = self.0.get_mut(&(u32::from(one.1) >> 8)) {
            shelf.set(taken, one, false);
        }
    }

    /// The first address of these that nobody has had. A look at each shelf takes one of `looks`; `None` as soon
    /// as there are none left.
    pub(super) fn gap(&self, addresses: RangeInclusive<u32>, looks: &mut u32) -> Option<u32> {
        let (mut at, end) = addresses.into_inner();
        while at <= end {
            *looks = looks.checked_sub(1)?;
            let gap = self.0.get(&(at >> 8)).map_or(Some(at & 255), |shelf| shelf.gap(at & 255));
            if let Some(gap) = gap {
                return Some((at & !255) | gap).filter(|found| *found <= end);
            }
            at = (at | 255).checked_add(1)?;
        }
        None
    }

    /// Whether both say the same; shelves that nothing stands on count for none.
    #[cfg(test)]
    pub(super) fn same(&self, other: &Self) -> bool {
        let filled = |all: &Self| all.0.clone().into_iter().filter(|(_, s)| *s != Shelf::default()).collect::<Vec<_>>();
        filled(self) == filled(other)
    }

    /// The oldest of what stands on these shelves, but for what is as old as `after` or older.
    pub(super) fn oldest(
        &self,
        taken: Taken,
        shelves: RangeInclusive<u32>,
        after: Option<Aged>,
    ) -> impl Iterator<Item = Aged> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let shelves = self.0.range(shelves).take(SHELVES as usize);
        let mut ranges: Vec<_> = shelves.map(|(_, shelf)| shelf.of(taken).range((from, Bound::Unbounded))).collect();
        let firsts = ranges.iter_mut().enumerate();
        let mut next: BinaryHeap<Reverse<(Aged, usize)>> =
            firsts.filter_map(|(n, range)| Some(Reverse((*range.next()?, n)))).collect();
        std::iter::from_fn(move || {
            let Reverse((one, n)) = next.pop()?;
            next.extend(ranges.get_mut(n).and_then(Iterator::next).map(|following| Reverse((*following, n))));
            Some(one)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What a walk over all addresses would find.
        #[test]
        fn as_a_walk(taken in prop::collection::btree_set(0u32..1024, 0..900), from in 0u32..1024, to in 0u32..1024) {
            let mut shelves = Shelves::default();
            let age = |n: &u32| (Timestamp::from_unix_seconds(i64::from(n * 7 % 10)), Ipv4Addr::from(*n));
            for n in &taken {
                shelves.put(Taken::Row, age(n));
            }
            let walked = (from..=to).find(|n| !taken.contains(n));
            prop_assert_eq!(shelves.gap(from..=to, &mut 5), walked);
            let mut ages: Vec<_> = taken.iter().map(age).collect();
            ages.sort_unstable();
            prop_assert_eq!(&shelves.oldest(Taken::Row, 0..=3, None).collect::<Vec<_>>(), &ages);
            if let Some(middle) = ages.get(ages.len() / 2) {
                let rest: Vec<_> = shelves.oldest(Taken::Row, 0..=3, Some(*middle)).collect();
                prop_assert_eq!(&rest, &ages[ages.len() / 2 + 1..]);
            }
            for n in &taken {
                shelves.take(Taken::Row, age(n));
            }
            prop_assert_eq!(shelves.gap(from..=1024, &mut 5), Some(from));
            prop_assert_eq!(shelves.oldest(Taken::Row, 0..=3, None).count(), 0);
        }
    }
}
