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

/// How long an offered address is kept for the client: edk2 takes 4 s to accept, and asks again
/// after 4, 8 and 16.
const OFFER: Duration = Duration::from_secs(30);
/// How long an address is left alone that somebody else was found to use.
const QUARANTINE: Duration = Duration::from_secs(3600);
/// How many addresses of a pool are looked at for one client.
const SEARCH: u32 = 1 << 16;
/// How many where most of the pool is offered and not accepted.
const FLOODED: u32 = 256;

/// Leases and offers. Every address has at most one of them.
#[derive(Debug, Default)]
pub struct LeaseBook {
    rows: HashMap<Ipv4Addr, Lease>,
    offers: HashMap<Ipv4Addr, Offer>,
    /// The same, those that expire first in front.
    by_age: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// The one offer that a client has open.
    offer_of: HashMap<ClientKey, Ipv4Addr>,
    /// Where a client has rows, to find them without a search.
    of_client: HashMap<ClientKey, Vec<Ipv4Addr>>,
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
    pub fn standing(&self, query: Query<'_>, reserved: impl Fn(Ipv4Addr) -> Option<Mac>) -> Standing {
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
        let before = || self.latest(client, |a| own(*a));
        let candidate = match reservation {
            Some(address) => Some(address).filter(|a| own(*a)),
            None if segment.mode == Mode::Full => held
                .or_else(before)
                .or_else(|| query.asked.filter(|a| own(*a)))
                .or_else(|| self.search(segment, client, now, own))
                .or_else(|| self.by_age.iter().map(|(_, a)| *a).find(|a| spare(*a))),
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
        self.offers.insert(address, Offer { client: client.clone(), expires, contested });
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
        let row = self.rows.get_mut(&address)?;
        if !matches!(&row.state, LeaseState::Bound { client: c } if c == client) {
            return None;
        }
        row.expires = row.expires.min(now);
        Some(row.clone())
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
        let offer = self.offers.remove(&address)?;
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

    /// Sets a row; returns what stood there.
    pub fn write(&mut self, row: Lease) -> Option<Lease> {
        if let LeaseState::Bound { client } = &row.state {
            let of_client = self.of_client.entry(client.clone()).or_default();
            if !of_client.contains(&row.address) {
                of_client.push(row.address);
            }
        }
        let (address, owner) = (row.address, row.state.clone());
        let before = self.rows.insert(address, row);
        if let Some(Lease { state: LeaseState::Bound { client }, .. }) = &before
            && owner != (LeaseState::Bound { client: client.clone() })
        {
            self.unlink(client, address);
        }
        before
    }

    /// Removes a row that was never made durable.
    pub fn erase(&mut self, address: Ipv4Addr) {
        if let Some(Lease { state: LeaseState::Bound { client }, .. }) = self.rows.remove(&address) {
            self.unlink(&client, address);
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

    fn unlink(&mut self, client: &ClientKey, address: Ipv4Addr) {
        if let Some(list) = self.of_client.get_mut(client) {
            list.retain(|a| *a != address);
            if list.is_empty() {
                self.of_client.remove(client);
            }
        }
    }

    /// The address that a client was given last, of those that `meant` means. It may have several on record: one that
    /// it gave back, of which the store did not hear before the power went.
    fn latest(&self, client: &ClientKey, meant: impl Fn(&Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let rows = self.of_client.get(client).into_iter().flatten().copied().filter(meant);
        rows.max_by_key(|address| self.rows.get(address).map(|row| row.expires))
    }

    fn held(&self, query: Query<'_>) -> Option<Ipv4Addr> {
        let Query { segment, client, now, .. } = query;
        let here = |a: &Ipv4Addr| segment.spec.subnet.contains(a);
        let leased = self.latest(client, |a| here(a) && self.is_leased(*a, now));
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
    /// when all records are lost, the first that is free; one that nobody has had before one that
    /// somebody might come back to.
    fn search(
        &self,
        segment: &Segment,
        client: &ClientKey,
        now: Timestamp,
        own: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let pool = segment.spec.pool?;
        let (start, end) = (u32::from(pool.start), u32::from(pool.end));
        let size = u64::from(end.checked_sub(start)?) + 1;
        // Strangers who take no offer fill it: looking at each address for each of them would keep others
        // waiting, and one of theirs will do.
        let steps = if self.offers.len() as u64 * 2 > size { FLOODED } else { SEARCH };
        let first = fnv(client.as_bytes()) % size;
        let mut second_best = None;
        for step in 0..size.min(u64::from(steps)) {
            let offset = u32::try_from((first + step) % size).ok()?;
            let address = Ipv4Addr::from(start.checked_add(offset)?);
            if own(address) {
                match self.rows.get(&address) {
                    None => return Some(address),
                    Some(row) if row.expires <= now => second_best = second_best.or(Some(address)),
                    Some(_) => {}
                }
            }
        }
        second_best
    }
}

/// FNV-1a: even spreading is all that is asked of it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::super::tests::segment;
    use super::*;
    use proptest::prelude::*;

    fn client(n: u8) -> ClientKey {
        ClientKey::of_mac(Mac::new([2, 0, 0, 0, 0, n]))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn ask(book: &LeaseBook, segment: &Segment, who: u8, asked: Option<Ipv4Addr>, now: i64) -> Standing {
        let query = Query { segment, client: &client(who), reservation: None, asked, now: at(now) };
        book.standing(query, |_| None)
    }

    #[test]
    fn a_machine_keeps_its_address_over_offer_lease_release_and_loss() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        let address = ask(&book, &segment, 1, None, 0).candidate.unwrap();
        book.offer(address, &client(1), at(0));
        assert_eq!(ask(&book, &segment, 1, None, 1).held, Some(address));
        book.bind(address, &client(1), at(3600));
        assert_eq!(ask(&book, &segment, 1, None, 60).held, Some(address));
        assert_eq!(book.holder(address, at(60)), Some(Mac::new([2, 0, 0, 0, 0, 1])));
        let row = book.release(address, &client(1), at(100)).unwrap();
        assert_eq!((row.expires, book.holder(address, at(100))), (at(100), None));
        let standing = ask(&book, &segment, 1, Some(ip(199)), 200);
        assert_eq!((standing.held, standing.candidate), (None, Some(address)));
        assert_eq!(ask(&LeaseBook::default(), &segment, 1, None, 0).candidate, Some(address));
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
            let book = LeaseBook::from_rows(rows);
            for (now, held) in [(0, Some(ip(110))), (450, Some(ip(110))), (600, None)] {
                let standing = ask(&book, &segment, 1, None, now);
                assert_eq!((standing.held, standing.candidate), (held, Some(ip(110))), "at {now}, from {first}");
            }
        }
    }

    #[test]
    fn a_reservation_is_its_owners_alone() {
        let segment = segment(Mode::Full);
        let book = LeaseBook::default();
        let owner = Mac::new([2, 0, 0, 0, 0, 9]);
        let reserved = |a: Ipv4Addr| (a == ip(150)).then_some(owner);
        let ask = |who, reservation| {
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
            let address = ask(&book, &segment, n, None, 0).candidate.unwrap();
            book.bind(address, &client(n), at(100 + i64::from(n)));
        }
        assert_eq!(ask(&book, &segment, 200, None, 0).candidate, None);
        let again = ask(&book, &segment, 200, None, 100).candidate;
        assert_eq!(again, ask(&book, &segment, 0, None, 99).held, "the only one that has expired");
    }

    #[test]
    fn offers_that_nobody_takes_keep_no_machine_out() {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        // A machine is offered an address, and before it accepts, strangers are offered all of them, twice.
        let offered = ask(&book, &segment, 250, None, 0).candidate.unwrap();
        book.offer(offered, &client(250), at(0));
        for n in 0..200 {
            let address = ask(&book, &segment, n, None, 1).candidate.unwrap();
            book.offer(address, &client(n), at(1));
            assert!(book.offers.len() <= 100 && book.by_age.len() == book.offers.len());
            assert!(book.offer_of.len() == book.offers.len());
        }
        assert_eq!(ask(&book, &segment, 250, None, 2).held, None, "a stranger has been offered it since");
        assert!(ask(&book, &segment, 250, Some(offered), 2).asked_is_free, "but nobody has taken it");
        book.bind(offered, &client(250), at(3600));
        assert_eq!(ask(&book, &segment, 250, None, 3).held, Some(offered));
        for n in 0..200 {
            let standing = ask(&book, &segment, n, Some(offered), 3);
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
        let address = ask(&book, &segment, 1, None, 0).candidate.unwrap();
        book.offer(address, &client(1), at(0));
        book.quarantine(address, at(0));
        let standing = ask(&book, &segment, 1, Some(address), 1);
        assert!(standing.held.is_none() && !standing.asked_is_free && standing.candidate != Some(address));
        assert!(ask(&book, &segment, 1, Some(address), 4000).asked_is_free);
    }

    proptest! {
        /// Whatever happens in whatever order, and over restarts, no address has two holders.
        #[test]
        fn one_address_one_holder(steps in prop::collection::vec((0u8..12, 0u8..6, 0i64..50), 1..120)) {
            let segment = segment(Mode::Full);
            let mut book = LeaseBook::default();
            let mut holders: HashMap<Ipv4Addr, (u8, i64)> = HashMap::new();
            let mut now = 0;
            for (who, what, wait) in steps {
                now += wait;
                let standing = ask(&book, &segment, who, None, now);
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
