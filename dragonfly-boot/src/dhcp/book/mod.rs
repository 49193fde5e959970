//! All leases, in memory: who has what, and what the next client may get. No clock, no store: time
//! comes in, rows to be written come out.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::clock::Timestamp;

use super::lease::{ClientKey, Lease, LeaseState};
use super::shelves::{Aged, Shelves, Taken};

mod choose;

use choose::Cursor;
pub use choose::{Query, Standing};

/// How long an offered address is kept for the client: edk2 takes 4 s to accept, and asks again
/// after 4, 8 and 16.
const OFFER: Duration = Duration::from_secs(30);
/// How long an address is left alone that somebody else was found to use.
const QUARANTINE: Duration = Duration::from_secs(3600);
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

#[derive(Debug)]
struct Offer {
    client: ClientKey,
    expires: Timestamp,
    /// Somebody else was offered it before and may still ask for it: the first who does has it.
    contested: bool,
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
}

#[cfg(test)]
mod tests;
