//! All leases, in memory: who has what, and what the next client may get. No clock, no store: time
//! comes in, rows to be written come out.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::clock::Timestamp;

use super::lease::{ClientKey, Lease, LeaseState};
use super::segment::{Mode, Segment};
use super::shelves::{Aged, SHELVES, Shelves, Taken};

/// How long an offered address is kept for the client: edk2 takes 4 s to accept, and asks again
/// after 4, 8 and 16.
const OFFER: Duration = Duration::from_secs(30);
/// How long an address is left alone that somebody else was found to use.
const QUARANTINE: Duration = Duration::from_secs(3600);
/// A pool of no more addresses than this is looked at one by one.
const SMALL: u32 = 256;
/// How many addresses of a larger one are looked at for one client each time: from where its name points to, and
/// from where the last such search ended; that nobody has had, that are free again, and that are offered.
const LOOKS: usize = 40;
/// How many rows of one client are looked at: there is one, or a few.
const OWN: usize = 64;
/// How many offers that have lapsed are forgotten for one message. A message makes one at most.
const SWEEP: usize = 16;

/// Leases and offers. Every address has at most one of them.
#[derive(Debug, Default)]
pub struct LeaseBook {
    rows: HashMap<Ipv4Addr, Lease>,
    offers: HashMap<Ipv4Addr, Offer>,
    /// The same, those that expire first in front.
    by_age: BTreeSet<Aged>,
    /// The one offer that a client has open.
    offer_of: HashMap<ClientKey, Ipv4Addr>,
    /// Where a client has rows, to find them without a search.
    of_client: HashMap<ClientKey, BTreeSet<Aged>>,
    /// What the next client of a large pool could get.
    shelves: Shelves,
    /// Where the last search of the large pool that begins here ended.
    cursors: HashMap<Ipv4Addr, Cursor>,
}

/// Where a search ended that did not look at everything.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    gap: u32,
    row: Option<Aged>,
    offer: Option<Aged>,
    /// The first shelf to look at, of a pool that has more than are looked at.
    shelf: u32,
}

#[derive(Debug)]
struct Offer {
    client: ClientKey,
    expires: Timestamp,
    /// Somebody else was offered it before and may still ask for it: the first who does has it.
    contested: bool,
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
    /// The book that a store remembers.
    pub fn from_rows(rows: Vec<Lease>) -> Self {
        let mut book = Self::default();
        for row in rows {
            book.write(row);
        }
        book
    }

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

    /// Keeps an address for a client until it accepts.
    pub fn offer(&mut self, address: Ipv4Addr, client: &ClientKey, now: Timestamp) {
        let again = self.offers.get(&address).is_some_and(|offer| offer.client == *client && offer.contested);
        self.forget_offers(client);
        // What stood there was this client's, has expired, or was taken because the pool is full of offers.
        let old = self.forget_offer(address);
        let contested = again || old.is_some_and(|old| old.expires > now);
        let expires = now.plus(OFFER);
        self.unshelve(address);
        self.offers.insert(address, Offer { client: client.clone(), expires, contested });
        self.shelve(address);
        self.by_age.insert((expires, address));
        self.offer_of.insert(client.clone(), address);
    }

    /// Gives a client an address. Returns the row to make durable, and what to put back with
    /// [`write`](Self::write) if that fails.
    pub fn bind(&mut self, address: Ipv4Addr, client: &ClientKey, until: Timestamp) -> (Lease, Option<Lease>) {
        let row = Lease { address, expires: until, state: LeaseState::Bound { client: client.clone() } };
        let before = self.write(row.clone());
        self.forget_offers(client);
        // Who else was offered it must ask anew.
        self.forget_offer(address);
        (row, before)
    }

    /// Ends a client's lease now, if it has this one. Returns the row to make durable. It stays on
    /// record, so that the client gets the same address again if nobody else needed it.
    pub fn release(&mut self, address: Ipv4Addr, client: &ClientKey, now: Timestamp) -> Option<Lease> {
        self.forget_offers(client);
        let mut row = self.rows.get(&address)?.clone();
        if !matches!(&row.state, LeaseState::Bound { client: c } if c == client) {
            return None;
        }
        row.expires = row.expires.min(now);
        self.write(row.clone());
        Some(row)
    }

    /// Takes an address out of use for a while. Returns the row to make durable.
    pub fn quarantine(&mut self, address: Ipv4Addr, now: Timestamp) -> Lease {
        let row = Lease { address, expires: now.plus(QUARANTINE), state: LeaseState::Quarantined };
        self.write(row.clone());
        self.forget_offer(address);
        row
    }

    /// Drops what is offered to a client: it has it now, or has taken another server's.
    pub fn forget_offers(&mut self, client: &ClientKey) {
        if let Some(address) = self.offer_of.get(client).copied() {
            self.forget_offer(address);
        }
    }

    fn forget_offer(&mut self, address: Ipv4Addr) -> Option<Offer> {
        if !self.offers.contains_key(&address) {
            return None;
        }
        self.unshelve(address);
        let offer = self.offers.remove(&address);
        self.shelve(address);
        let offer = offer?;
        self.by_age.remove(&(offer.expires, address));
        self.offer_of.remove(&offer.client);
        Some(offer)
    }

    /// Whether the address is only offered to this client, not yet leased.
    pub fn is_only_offered(&self, address: Ipv4Addr, client: &ClientKey, now: Timestamp) -> bool {
        self.offers.get(&address).is_some_and(|offer| offer.client == *client) && !self.is_leased(address, now)
    }

    /// Whether a client has leased an address until one of these moments.
    pub fn is_bound(&self, address: Ipv4Addr, client: &ClientKey, until: RangeInclusive<Timestamp>) -> bool {
        let row = self.rows.get(&address).filter(|row| until.contains(&row.expires));
        row.is_some_and(|row| matches!(&row.state, LeaseState::Bound { client: c } if c == client))
    }

    /// Forgets some of the offers that have lapsed.
    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            let Some((_, address)) = self.by_age.first().copied().filter(|(expires, _)| *expires <= now) else {
                return;
            };
            self.forget_offer(address);
        }
    }

    /// Sets a row; returns what stood there.
    pub fn write(&mut self, row: Lease) -> Option<Lease> {
        let address = row.address;
        self.unshelve(address);
        let before = self.rows.insert(address, row);
        self.shelve(address);
        before
    }

    /// Removes a row that was never made durable.
    pub fn erase(&mut self, address: Ipv4Addr) {
        self.unshelve(address);
        self.rows.remove(&address);
        self.shelve(address);
    }

    /// Before anything changes at an address: takes it out of what is kept to find it.
    fn unshelve(&mut self, address: Ipv4Addr) {
        let (row, offer) = (self.rows.get(&address), self.offers.get(&address));
        match (row, offer) {
            (_, Some(offer)) => self.shelves.take(Taken::Offer, (offer.expires, address)),
            (Some(row), None) => self.shelves.take(Taken::Row, (row.expires, address)),
            (None, None) => {}
        }
        if let Some(Lease { expires, state: LeaseState::Bound { client }, .. }) = row
            && let Some(list) = self.of_client.get_mut(client)
        {
            list.remove(&(*expires, address));
            if list.is_empty() {
                self.of_client.remove(client);
            }
        }
    }

    /// After it has changed.
    fn shelve(&mut self, address: Ipv4Addr) {
        let (row, offer) = (self.rows.get(&address), self.offers.get(&address));
        match (row, offer) {
            (_, Some(offer)) => self.shelves.put(Taken::Offer, (offer.expires, address)),
            (Some(row), None) => self.shelves.put(Taken::Row, (row.expires, address)),
            (None, None) => {}
        }
        if let Some(Lease { expires, state: LeaseState::Bound { client }, .. }) = row {
            self.of_client.entry(client.clone()).or_default().insert((*expires, address));
        }
    }

    /// The card that has leased an address, if that holds.
    pub fn holder(&self, address: Ipv4Addr, now: Timestamp) -> Option<Mac> {
        match self.rows.get(&address) {
            Some(Lease { expires, state: LeaseState::Bound { client }, .. }) if *expires > now => client.mac(),
            _ => None,
        }
    }

    /// The row of an address.
    pub fn row(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.rows.get(&address)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &Lease> {
        self.rows.values()
    }

    /// The addresses that a client was given, the last first. It may have several on record: one that it gave back,
    /// of which the store did not hear before the power went.
    fn latest(&self, client: &ClientKey) -> impl Iterator<Item = Aged> {
        self.of_client.get(client).into_iter().flatten().rev().copied().take(OWN)
    }

    fn held(&self, query: Query<'_>) -> Option<Ipv4Addr> {
        let Query { segment, client, now, .. } = query;
        let here = |a: &Ipv4Addr| segment.spec.subnet.contains(a);
        let leased = self.latest(client).filter(|(expires, _)| *expires > now).map(|(_, a)| a).find(here);
        let open = |a: &Ipv4Addr| self.offers.get(a).is_some_and(|offer| offer.expires > now);
        let offered = || self.offer_of.get(client).copied().filter(|a| here(a) && open(a));
        leased.or_else(offered)
    }

    /// Whether somebody has it and its time is not over.
    fn is_leased(&self, address: Ipv4Addr, now: Timestamp) -> bool {
        self.rows.get(&address).is_some_and(|row| row.expires > now)
    }

    fn is_free_for(&self, address: Ipv4Addr, client: &ClientKey, now: Timestamp) -> bool {
        let leased = self.rows.get(&address).is_some_and(|row| {
            let own = matches!(&row.state, LeaseState::Bound { client: c } if c == client);
            row.expires > now && !own
        });
        let offered = self.offers.get(&address).is_some_and(|offer| offer.expires > now && offer.client != *client);
        !leased && !offered
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
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use dragonfly_core::resource::network::Pool;
    use proptest::prelude::*;

    use super::super::tests::segment;
    use super::*;

    fn client(n: u8) -> ClientKey {
        ClientKey::of_mac(Mac::new([2, 0, 0, 0, 0, n]))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn ask(book: &mut LeaseBook, segment: &Segment, who: u8, asked: Option<Ipv4Addr>, now: i64) -> Standing {
        let query = Query { segment, client: &client(who), reservation: None, asked, now: at(now) };
        book.standing(query, |_| None)
    }

    #[test]
    fn a_machine_keeps_its_address_over_offer_lease_release_and_loss() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        let address = ask(&mut book, &segment, 1, None, 0).candidate.unwrap();
        book.offer(address, &client(1), at(0));
        assert_eq!(ask(&mut book, &segment, 1, None, 1).held, Some(address));
        book.bind(address, &client(1), at(3600));
        assert_eq!(ask(&mut book, &segment, 1, None, 60).held, Some(address));
        assert_eq!(book.holder(address, at(60)), Some(Mac::new([2, 0, 0, 0, 0, 1])));
        let row = book.release(address, &client(1), at(100)).unwrap();
        assert_eq!((row.expires, book.holder(address, at(100))), (at(100), None));
        let standing = ask(&mut book, &segment, 1, Some(ip(199)), 200);
        assert_eq!((standing.held, standing.candidate), (None, Some(address)));
        assert_eq!(ask(&mut LeaseBook::default(), &segment, 1, None, 0).candidate, Some(address));
    }

    #[test]
    fn of_several_addresses_on_record_the_one_given_last_is_a_machines() {
        let segment = segment(Mode::Full);
        let row = |last, until| Lease {
            address: ip(last),
            expires: at(until),
            state: LeaseState::Bound { client: client(1) },
        };
        let rows = [row(120, 300), row(110, 500), row(130, 400)];
        for first in 0..rows.len() {
            let mut rows = rows.to_vec();
            rows.rotate_left(first);
            let mut book = LeaseBook::from_rows(rows);
            for (now, held) in [(0, Some(ip(110))), (450, Some(ip(110))), (600, None)] {
                let standing = ask(&mut book, &segment, 1, None, now);
                assert_eq!((standing.held, standing.candidate), (held, Some(ip(110))), "at {now}, from {first}");
            }
        }
    }

    #[test]
    fn a_reservation_is_its_owners_alone() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        let owner = Mac::new([2, 0, 0, 0, 0, 9]);
        let reserved = |a: Ipv4Addr| (a == ip(150)).then_some(owner);
        let mut ask = |who, reservation| {
            let query =
                Query { segment: &segment, client: &client(who), reservation, asked: Some(ip(150)), now: at(0) };
            book.standing(query, reserved)
        };
        assert_eq!(ask(9, Some(ip(150))).candidate, Some(ip(150)));
        let other = ask(1, None);
        assert!(!other.asked_is_free && other.candidate.is_some_and(|a| a != ip(150)));
        // Outside the pool, and where no pool is.
        assert_eq!(ask(9, Some(ip(20))).candidate, Some(ip(20)));
        // One that cannot be used here counts as none.
        let elsewhere = ask(9, Some(Ipv4Addr::new(192, 168, 9, 9))).candidate;
        assert!(elsewhere.is_some_and(|a| segment.pooled(a)));
    }

    #[test]
    fn a_pool_ends_and_begins_again() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        for n in 0..100 {
            let address = ask(&mut book, &segment, n, None, 0).candidate.unwrap();
            book.bind(address, &client(n), at(100 + i64::from(n)));
        }
        assert_eq!(ask(&mut book, &segment, 200, None, 0).candidate, None);
        let again = ask(&mut book, &segment, 200, None, 100).candidate;
        assert_eq!(again, ask(&mut book, &segment, 0, None, 99).held, "the only one that has expired");
    }

    #[test]
    fn offers_that_nobody_takes_keep_no_machine_out() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        // A machine is offered an address, and before it accepts, strangers are offered all of them, twice.
        let offered = ask(&mut book, &segment, 250, None, 0).candidate.unwrap();
        book.offer(offered, &client(250), at(0));
        for n in 0..200 {
            let address = ask(&mut book, &segment, n, None, 1).candidate.unwrap();
            book.offer(address, &client(n), at(1));
            assert!(book.offers.len() <= 100 && book.by_age.len() == book.offers.len());
            assert!(book.offer_of.len() == book.offers.len());
        }
        assert_eq!(ask(&mut book, &segment, 250, None, 2).held, None, "a stranger has been offered it since");
        assert!(ask(&mut book, &segment, 250, Some(offered), 2).asked_is_free, "but nobody has taken it");
        book.bind(offered, &client(250), at(3600));
        assert_eq!(ask(&mut book, &segment, 250, None, 3).held, Some(offered));
        for n in 0..200 {
            let standing = ask(&mut book, &segment, n, Some(offered), 3);
            assert!(!standing.asked_is_free && standing.held != Some(offered) && standing.candidate != Some(offered));
        }
        // A lease is never taken for it, nor what is kept for another.
        let reserved = |a: Ipv4Addr| (a == ip(150)).then_some(Mac::new([2, 0, 0, 0, 0, 251]));
        let query = Query { segment: &segment, client: &client(249), reservation: None, asked: None, now: at(3) };
        for _ in 0..100 {
            let address = book.standing(query, reserved).candidate.unwrap();
            assert!(address != offered && address != ip(150));
            book.offer(address, &client(249), at(3));
        }
    }

    #[test]
    fn what_somebody_else_uses_is_left_alone_for_a_while() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        let address = ask(&mut book, &segment, 1, None, 0).candidate.unwrap();
        book.offer(address, &client(1), at(0));
        book.quarantine(address, at(0));
        let standing = ask(&mut book, &segment, 1, Some(address), 1);
        assert!(standing.held.is_none() && !standing.asked_is_free && standing.candidate != Some(address));
        assert!(ask(&mut book, &segment, 1, Some(address), 4000).asked_is_free);
    }

    fn big(n: u16) -> Ipv4Addr {
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 1, high, low)
    }

    /// A pool of as many addresses and one, and a book in which each is leased until then, if it is.
    fn full(last: u16, until: impl Fn(u16) -> Option<i64>) -> (Segment, LeaseBook) {
        let mut segment = segment(Mode::Full);
        segment.spec.subnet = "10.0.0.0/8".parse().unwrap();
        segment.spec.pool = Some(Pool { start: big(0), end: big(last) });
        let row = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let client = ClientKey::of_mac(Mac::new([2, 1, 0, 0, high, low]));
            Some(Lease { address: big(n), expires: at(until(n)?), state: LeaseState::Bound { client } })
        };
        (segment, LeaseBook::from_rows((0..=last).filter_map(row).collect()))
    }

    /// What is offered to a stranger, and how many addresses were looked at for it.
    fn discover(
        book: &mut LeaseBook,
        segment: &Segment,
        who: u8,
        now: i64,
        reserved: impl Fn(u16) -> bool,
    ) -> (Option<u16>, usize) {
        let looks = Cell::new(0);
        let query = Query { segment, client: &client(who), reservation: None, asked: None, now: at(now) };
        let standing = book.standing(query, |a| {
            looks.set(looks.get() + 1);
            let [_, _, high, low] = a.octets();
            reserved(u16::from_be_bytes([high, low])).then_some(Mac::new([2, 9, 9, 9, 9, 9]))
        });
        let [_, _, high, low] = standing.candidate.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        (standing.candidate.map(|_| u16::from_be_bytes([high, low])), looks.get())
    }

    #[test]
    fn a_full_large_pool_costs_few_looks() {
        type Case = (&'static str, fn(u16) -> Option<i64>, fn(u16) -> bool, usize, Option<u16>);
        // How many messages it takes at most until one is found, and which.
        let cases: [Case; 7] = [
            ("all leased", |_| Some(100), |_| false, 20, None),
            ("one never used", |n| (n != 40_000).then_some(100), |_| false, 1, Some(40_000)),
            ("one expired", |n| Some(if n == 50_000 { 0 } else { 100 }), |_| false, 1, Some(50_000)),
            ("all expired", |n| Some(-i64::from(n ^ 0x1234)), |_| false, 1, Some(!0x1234)),
            ("kept for others but one", |_| None, |n| n != 7, 65536 / 40, Some(7)),
            ("expired and kept for others", |n| Some(i64::from(n) - 70_000), |n| n < 5000, 5000 / 40, Some(5000)),
            ("all kept for others", |n| Some(i64::from(n) - 70_000), |_| true, 20, None),
        ];
        for (name, until, reserved, most, want) in cases {
            let (segment, mut book) = full(u16::MAX, until);
            let tried = (0..most).map(|_| discover(&mut book, &segment, 1, 1, reserved));
            let tried: Vec<_> = tried.collect();
            let worst = tried.iter().map(|(_, looks)| *looks).max();
            assert!(worst <= Some(256), "{name}: {worst:?}");
            let found = tried.iter().find_map(|(found, _)| *found);
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn a_flood_over_a_large_pool_costs_few_looks_and_ends() {
        for used in [None, Some(0), Some(100)] {
            let (segment, mut book) = full(4095, |n| if n < 3000 { used } else { None });
            let mut given = HashMap::new();
            for n in 0..5000u32 {
                let [_, a, b, c] = n.to_be_bytes();
                let who = ClientKey::of_mac(Mac::new([2, 5, 0, a, b, c]));
                let now = at(1).plus(Duration::from_micros(u64::from(n) * 100));
                let looks = Cell::new(0);
                let query = Query { segment: &segment, client: &who, reservation: None, asked: None, now };
                let standing = book.standing(query, |_| {
                    looks.set(looks.get() + 1);
                    None
                });
                assert!(looks.get() <= 256, "{n}: {}", looks.get());
                let address = standing.candidate.unwrap();
                *given.entry(address).or_insert(0) += 1;
                book.offer(address, &who, now);
            }
            // Each of those that may be given is given once before any is given twice.
            let free = if used == Some(100) { 1096 } else { 4096 };
            let often = 5000_usize.div_ceil(free);
            assert!(given.len() == free && given.values().all(|count| *count <= often), "{used:?}");
            // They lapse, and somebody gets the first again that nobody has had.
            for _ in 0..300 {
                book.sweep(at(60));
            }
            assert!(book.offers.is_empty() && book.offer_of.is_empty() && book.by_age.is_empty());
            let (found, _) = discover(&mut book, &segment, 1, 60, |_| false);
            assert!(found.is_some_and(|n| book.row(big(n)).is_none()), "{used:?}");
        }
    }

    #[test]
    fn one_that_leases_the_whole_pool_costs_no_more() {
        let (segment, mut book) = full(u16::MAX, |_| None);
        for n in 0..=u16::MAX {
            book.bind(big(n), &client(1), at(100 + i64::from(n)));
        }
        let (found, looks) = discover(&mut book, &segment, 1, 1, |_| false);
        assert_eq!((found, looks), (Some(u16::MAX), 1), "the one leased last is held, and offered");
        let (found, looks) = discover(&mut book, &segment, 1, 100_000, |n| n > 100);
        assert!(found.is_some_and(|n| n <= 100) && looks <= 256, "{looks}");
    }

    /// The rule as it was, address by address.
    fn walked(book: &LeaseBook, segment: &Segment, who: &ClientKey, now: Timestamp) -> Option<Ipv4Addr> {
        let first = (fnv(who.as_bytes()) % 100) as u8;
        let all = || (0..100).map(|n| ip(100 + (first + n) % 100)).filter(|a| segment.pooled(*a));
        let free = || all().filter(|a| book.is_free_for(*a, who, now));
        let mut old: Vec<_> = book.offers.iter().map(|(a, offer)| (offer.expires, *a)).collect();
        old.sort_unstable();
        let mut offered = old.into_iter().map(|(_, a)| a).filter(|a| segment.pooled(*a) && !book.is_leased(*a, now));
        free().find(|a| !book.rows.contains_key(a)).or_else(|| free().next()).or_else(|| offered.next())
    }

    proptest! {
        /// What is kept to find an address says what the rows and offers say, and a small pool is given as it was.
        #[test]
        fn the_index_agrees_and_small_pools_are_as_before(
            steps in prop::collection::vec((0u8..=255, 0u8..7, 0u8..=255, 0i64..9), 1..400),
        ) {
            let segment = segment(Mode::Full);
            let (mut book, mut now) = (LeaseBook::default(), 0);
            for (who, what, last, wait) in steps {
                now += wait;
                // Some addresses of each kind outside the pool.
                let address = ip(last / 2 + 90);
                match what {
                    0..3 => if let Some(address) = ask(&mut book, &segment, who, None, now).candidate {
                        book.offer(address, &client(who), at(now));
                    },
                    3 => drop(book.bind(address, &client(who), at(now + i64::from(last)))),
                    4 => drop(book.release(address, &client(who), at(now))),
                    5 => drop(book.quarantine(address, at(now - 3590))),
                    _ => book.erase(address),
                }
                let stranger = ClientKey::of_mac(Mac::new([2, 7, 0, 0, who, last]));
                let query = Query { segment: &segment, client: &stranger, reservation: None, asked: None, now: at(now) };
                let want = walked(&book, &segment, &stranger, at(now));
                prop_assert_eq!(book.standing(query, |_| None).candidate, want);
                let mut anew = LeaseBook::from_rows(book.rows().cloned().collect());
                prop_assert_eq!(&anew.of_client, &book.of_client);
                for (address, offer) in &book.offers {
                    anew.unshelve(*address);
                    let Offer { client, expires, contested } = offer;
                    let offer = Offer { client: client.clone(), expires: *expires, contested: *contested };
                    anew.offers.insert(*address, offer);
                    anew.shelve(*address);
                }
                prop_assert!(anew.shelves.same(&book.shelves));
            }
        }

        /// Whatever happens in whatever order, and over restarts, no address has two holders.
        #[test]
        fn one_address_one_holder(steps in prop::collection::vec((0u8..12, 0u8..6, 0i64..50), 1..120)) {
            let segment = segment(Mode::Full);
            let mut book = LeaseBook::default();
            let mut holders: HashMap<Ipv4Addr, (u8, i64)> = HashMap::new();
            let mut now = 0;
            for (who, what, wait) in steps {
                now += wait;
                let standing = ask(&mut book, &segment, who, None, now);
                match what {
                    0 | 1 => if let Some(address) = standing.candidate {
                        book.offer(address, &client(who), at(now));
                    },
                    2 | 3 => if let Some(address) = standing.held {
                        if let Some((holder, until)) = holders.get(&address) {
                            prop_assert!(*holder == who || *until <= now, "{address} has two holders");
                        }
                        book.bind(address, &client(who), at(now + 100));
                        holders.insert(address, (who, now + 100));
                    },
                    4 => if let Some(address) = standing.held
                        && book.release(address, &client(who), at(now)).is_some()
                    {
                        holders.remove(&address);
                    },
                    _ => book = LeaseBook::from_rows(book.rows().cloned().collect()),
                }
            }
        }
    }
}
