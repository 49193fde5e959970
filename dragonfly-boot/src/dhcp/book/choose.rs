//! Which address a client has, and which it would be offered.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use dragonfly_core::Mac;
use dragonfly_core::clock::Timestamp;

use super::LeaseBook;
use crate::dhcp::lease::ClientKey;
use crate::dhcp::segment::{Mode, Segment};
use crate::dhcp::shelves::{Aged, SHELVES, Taken};

/// A pool of no more addresses than this is looked at one by one.
const SMALL: u32 = 256;
/// How many addresses of a larger one are looked at for one client each time: from where its name points to, and
/// from where the last such search ended; that nobody has had, that are free again, and that are offered.
const LOOKS: usize = 40;

/// Where a search ended that did not look at everything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    gap: u32,
    row: Option<Aged>,
    offer: Option<Aged>,
    /// The first shelf to look at, of a pool that has more than are looked at.
    shelf: u32,
}

/// What the book says about one client on one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The address that it has leased or been offered, if that still holds.
    pub held: Option<Ipv4Addr>,
    /// What a DISCOVER from it would be offered.
    pub candidate: Option<Ipv4Addr>,
    /// Whether the address that it asks for is its own or free for it.
    pub asked_is_free: bool,
}

/// Who asks the book, and about what.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Where.
    pub segment: &'a Segment,
    /// Who.
    pub client: &'a ClientKey,
    /// The address reserved for it, if any.
    pub reservation: Option<Ipv4Addr>,
    /// The address that it names, if any.
    pub asked: Option<Ipv4Addr>,
    /// When.
    pub now: Timestamp,
}

impl LeaseBook {
    /// What stands about a client. `reserved` names the card that an address is kept for.
    pub fn standing(&mut self, query: Query<'_>, reserved: impl Fn(Ipv4Addr) -> Option<Mac>) -> Standing {
        self.sweep(query.now);
        let mut cursor = query.segment.spec.pool.and_then(|pool| self.cursors.get(&pool.start).copied());
        let standing = self.look(query, reserved, &mut cursor);
        if let (Some(pool), Some(cursor)) = (query.segment.spec.pool, cursor) {
            self.cursors.insert(pool.start, cursor);
        }
        standing
    }

    fn look(
        &self,
        query: Query<'_>,
        reserved: impl Fn(Ipv4Addr) -> Option<Mac>,
        cursor: &mut Option<Cursor>,
    ) -> Standing {
        let Query { segment, client, now, .. } = query;
        // The reservation may lie inside or outside the pool, and only its owner may have it.
        let reservation = query.reservation.filter(|a| segment.usable(*a));
        let own = |a: Ipv4Addr| {
            let anothers = reserved(a).is_some_and(|mac| Some(mac) != client.mac());
            let allowed = Some(a) == reservation || (segment.mode == Mode::Full && segment.pooled(a));
            allowed && !anothers && self.is_free_for(a, client, now)
        };
        // Free but for an offer that nobody has accepted.
        let spare = |a: Ipv4Addr| {
            segment.mode == Mode::Full && segment.pooled(a) && reserved(a).is_none() && !self.is_leased(a, now)
        };
        let held = self.held(query).filter(|a| own(*a));
        let before = || self.latest(client).map(|(_, a)| a).find(|a| own(*a));
        let candidate = match reservation {
            Some(address) => Some(address).filter(|a| own(*a)),
            None if segment.mode == Mode::Full => held
                .or_else(before)
                .or_else(|| query.asked.filter(|a| own(*a)))
                .or_else(|| self.search(query, own, spare, cursor)),
            None => None,
        };
        let contested = |a: Ipv4Addr| spare(a) && self.offers.get(&a).is_some_and(|offer| offer.contested);
        Standing { held, candidate, asked_is_free: query.asked.is_some_and(|a| own(a) || contested(a)) }
    }

    fn held(&self, query: Query<'_>) -> Option<Ipv4Addr> {
        let Query { segment, client, now, .. } = query;
        let here = |a: &Ipv4Addr| segment.spec.subnet.contains(a);
        let leased = self.latest(client).filter(|(expires, _)| *expires > now).map(|(_, a)| a).find(here);
        let open = |a: &Ipv4Addr| self.offers.get(a).is_some_and(|offer| offer.expires > now);
        let offered = || self.offer_of.get(client).copied().filter(|a| here(a) && open(a));
        leased.or_else(offered)
    }

    /// From a place that the client's name points to, so that a machine gets the same address even
    /// when all records are lost, the first that nobody has had; else one that somebody might come back to; else
    /// the one offered first, as strangers who take no offer must not fill the pool.
    fn search(
        &self,
        query: Query<'_>,
        own: impl Fn(Ipv4Addr) -> bool,
        spare: impl Fn(Ipv4Addr) -> bool,
        cursor: &mut Option<Cursor>,
    ) -> Option<Ipv4Addr> {
        let Query { segment, client, now, .. } = query;
        let pool = segment.spec.pool?;
        let (start, end) = (u32::from(pool.start), u32::from(pool.end));
        let size = end.checked_sub(start)?.saturating_add(1);
        let place = start + u32::try_from(fnv(client.as_bytes()) % u64::from(size)).ok()?;
        if size > SMALL {
            return self.search_large(start..=end, place, now, (own, spare), cursor.get_or_insert_default());
        }
        let mut second_best = None;
        for address in (place..=end).chain(start..place).map(Ipv4Addr::from).filter(|a| own(*a)) {
            match self.rows.get(&address) {
                None => return Some(address),
                Some(row) if row.expires <= now => second_best = second_best.or(Some(address)),
                Some(_) => {}
            }
        }
        let offers = || self.shelves.oldest(Taken::Offer, start >> 8..=end >> 8, None);
        second_best.or_else(|| offers().map(|(_, a)| a).find(|a| spare(*a)))
    }

    /// The same of a pool in which not every address can be looked at: that would keep all others waiting. Of those
    /// that somebody has had, the one that has been free for longest. What is not for this client (kept for
    /// another, or not in the pool) may stand in front of what is, so each search also goes on where the last
    /// one ended.
    fn search_large(
        &self,
        pool: RangeInclusive<u32>,
        place: u32,
        now: Timestamp,
        (own, spare): (impl Fn(Ipv4Addr) -> bool, impl Fn(Ipv4Addr) -> bool),
        cursor: &mut Cursor,
    ) -> Option<Ipv4Addr> {
        let (start, end) = pool.into_inner();
        // One way round, and where it stopped if it could not end.
        let gaps = |from: u32| {
            let (mut looks, mut asked) = (2 * SHELVES, 0);
            for (mut at, end) in [(from, end), (start, from.saturating_sub(1))] {
                while let Some(gap) = self.shelves.gap(at..=end, &mut looks) {
                    if asked == LOOKS {
                        return Err(gap);
                    }
                    asked += 1;
                    if own(gap.into()) {
                        return Ok(Some(Ipv4Addr::from(gap)));
                    }
                    let Some(next) = gap.checked_add(1) else { break };
                    at = next;
                }
                if looks == 0 {
                    return Err(from.saturating_add((2 * SHELVES) << 8));
                }
            }
            Ok(None)
        };
        let found = gaps(place).or_else(|_| gaps(cursor.gap.clamp(start, end)));
        match found {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(stopped) => cursor.gap = if stopped > end { start } else { stopped },
        }
        let (first, last) = (start >> 8, end >> 8);
        let from = if last - first < SHELVES { first } else { cursor.shelf.clamp(first, last) };
        let shelves = from..=last.min(from.saturating_add(SHELVES - 1));
        cursor.shelf = if *shelves.end() < last { shelves.end() + 1 } else { first };
        let rows =
            |after| self.shelves.oldest(Taken::Row, shelves.clone(), after).take_while(|(expires, _)| *expires <= now);
        let offers = |after| self.shelves.oldest(Taken::Offer, shelves.clone(), after);
        first_meant(rows, own, &mut cursor.row).or_else(|| first_meant(offers, spare, &mut cursor.offer))
    }
}

/// The first that is meant, of a few from the beginning and a few from where the last search ended.
fn first_meant<I: Iterator<Item = Aged>>(
    from: impl Fn(Option<Aged>) -> I,
    meant: impl Fn(Ipv4Addr) -> bool,
    mark: &mut Option<Aged>,
) -> Option<Ipv4Addr> {
    let mut last = None;
    for (_, address) in from(None).take(LOOKS).inspect(|one| last = Some(*one)) {
        if meant(address) {
            return Some(address);
        }
    }
    last?;
    let mut looked = (0, last.max(*mark));
    let found = from(looked.1).take(LOOKS).inspect(|one| looked = (looked.0 + 1, Some(*one))).find(|(_, a)| meant(*a));
    // At the end it begins again.
    *mark = looked.1.filter(|_| looked.0 == LOOKS || found.is_some());
    found.map(|(_, address)| address)
}

/// FNV-1a: even spreading is all that is asked of it.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
