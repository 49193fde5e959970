//! From a message to its answer: asks who decides, looks into the book, makes the lease durable.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootObserver, BootProvider, BootRequest, Decision, Seen, Sighting};
use dragonfly_core::clock::{Clock, Timestamp};
use tokio::sync::watch;

use super::book::{LeaseBook, Query};
use super::bootfile::boot_file;
use super::client::{Client, smbios_uuid};
use super::judge::{Arrival, Verdict, asked_address, judge};
use super::lease::{ClientKey, Lease, LeaseError, LeaseStore};
use super::packet::{Kind, Packet};
use super::reply::{Destination, Reply, destination};
use super::segment::Segment;
use super::turns::{Turn, Turns};
use super::witness;
use crate::BootFiles;
use crate::files::LoaderCache;

/// How long a REQUEST waits for a probe of its address that is still under way. A neighbour answers
/// within a millisecond; most firmware takes seconds to accept an offer.
const PROBE_PATIENCE: Duration = Duration::from_millis(50);
/// How many addresses are probed at one time. Beyond that, offers go out unprobed.
const MAX_PROBES: usize = 64;
/// How long a machine counts as booting after it asked, and how many are remembered.
const BOOTING: Duration = Duration::from_secs(120);
const MAX_BOOTING: usize = 4096;

/// Finds out whether an address that we are about to give is used by somebody already.
#[async_trait]
pub trait ConflictProbe: fmt::Debug + Send + Sync + 'static {
    /// Whether a host answers there. Comes back within a second or so.
    async fn in_use(&self, address: Ipv4Addr) -> bool;
}

/// Answers DHCP messages on all segments.
#[derive(Debug)]
pub struct Responder {
    provider: Arc<dyn BootProvider>,
    store: Arc<dyn LeaseStore>,
    observer: Arc<dyn BootObserver>,
    clock: Arc<dyn Clock>,
    conflicts: Option<Arc<dyn ConflictProbe>>,
    loaders: LoaderCache,
    book: Mutex<LeaseBook>,
    /// Whoever changes a row of the book has the turn of its address.
    turns: Turns,
    probes: Mutex<HashMap<Ipv4Addr, watch::Receiver<bool>>>,
    /// When each card last asked to boot.
    booting: Mutex<HashMap<Mac, Timestamp>>,
}

/// A message, where it was received and how.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The message.
    pub packet: &'a Packet,
    /// The segment that it is about.
    pub segment: &'a Segment,
    /// Who sent it: the client, or a relay.
    pub source: SocketAddrV4,
    /// How it came.
    pub arrival: Arrival,
}

impl Responder {
    /// Reads all leases. Without `conflicts`, addresses are given unprobed.
    pub async fn load(
        provider: Arc<dyn BootProvider>,
        store: Arc<dyn LeaseStore>,
        observer: Arc<dyn BootObserver>,
        clock: Arc<dyn Clock>,
        files: Arc<BootFiles>,
        conflicts: Option<Arc<dyn ConflictProbe>>,
    ) -> Result<Self, LeaseError> {
        let book = Mutex::new(LeaseBook::from_rows(store.load().await?));
        let loaders = LoaderCache::new(files);
        Ok(Self {
            provider,
            store,
            observer,
            clock,
            conflicts,
            loaders,
            book,
            turns: Turns::default(),
            probes: Mutex::default(),
            booting: Mutex::default(),
        })
    }

    /// The card that has leased an address from us, if that holds.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Mac> {
        self.book().holder(address, self.clock.now())
    }

    /// Whether a card asked to boot a short while ago.
    pub fn is_booting(&self, mac: Mac) -> bool {
        let now = self.clock.now();
        self.booting().get(&mac).is_some_and(|at| now.since(*at) < BOOTING)
    }

    /// The bytes to send in answer, and where; `None` for silence.
    pub async fn answer(self: &Arc<Self>, received: Received<'_>) -> Option<(Vec<u8>, Destination)> {
        let Received { packet, segment, source, arrival } = received;
        if !packet.is_request {
            return None;
        }
        let client = Client::of(packet);
        let key = ClientKey::of(packet)?;
        let decision = match packet.mac() {
            Some(mac) => match self.decide(packet, mac, client, source).await {
                Some(decision) => Some(decision),
                None => {
                    self.saw(packet, witness::silence(packet.kind, "no boot decision could be made"));
                    return None;
                }
            },
            None => None,
        };
        let reservation = decision.as_ref().and_then(|d| d.address).filter(|a| segment.spec.subnet.contains(a));
        let asked = asked_address(packet);
        if packet.kind == Kind::Request
            && let Some(address) = asked
        {
            self.await_probe(address).await;
        }
        let came = self.clock.now();
        let judged = || {
            let mut book = self.book();
            let query = Query { segment, client: &key, reservation, asked, now: self.clock.now() };
            let standing = book.standing(query, |address| self.provider.reserved_for(address));
            judge(packet, client, segment, arrival, standing, reservation.is_some())
        };
        let (mut verdict, mut turn) = (judged(), None);
        if let Some(address) = verdict.row() {
            if self.turns.is_crowded(address) {
                verdict = Verdict::Silent("too many messages about that address come at one time");
            } else {
                turn = Some(self.turns.take(address).await);
                // Whoever had it before has changed the row, or taken back what this was judged by.
                verdict = judged();
            }
        }
        for seen in witness::asked(packet, client, segment, verdict) {
            self.saw(packet, seen);
        }
        if let Some(turn) = turn {
            self.change(turn, verdict, &key, segment, came).await?;
        }
        let reply = self.carry_out(verdict, received, &key, decision.as_ref(), client).await?;
        let to = destination(packet, reply.kind, source, arrival.boot_server_port);
        Some((reply.encode(packet, client, segment), to))
    }

    async fn decide(&self, packet: &Packet, mac: Mac, client: Client, source: SocketAddrV4) -> Option<Decision> {
        let platform = client.platform();
        let request = BootRequest {
            firmware: platform.map(|p| p.firmware),
            arch: platform.and_then(|p| p.arch),
            from: (!source.ip().is_unspecified() && !packet.is_relayed()).then_some(IpAddr::V4(*source.ip())),
            smbios_uuid: smbios_uuid(packet),
            ..BootRequest::from_mac(mac)
        };
        match self.provider.decide(&request).await {
            Ok(decision) => Some(decision),
            Err(error) => {
                // Firmware asks again.
                tracing::warn!(%mac, error = &error as &dyn std::error::Error, "no boot decision: no DHCP answer");
                None
            }
        }
    }

    /// Does what a verdict says to the row of an address. `None` if nothing is to be answered.
    async fn change(
        &self,
        _turn: Turn<'_>,
        verdict: Verdict,
        key: &ClientKey,
        segment: &Segment,
        came: Timestamp,
    ) -> Option<()> {
        match verdict {
            Verdict::Lease(address) => self.lease(address, key, segment, came).await,
            Verdict::Decline(address) => {
                tracing::warn!(client = %key, %address, "DHCP address declined: somebody else uses it");
                let row = self.book().quarantine(address, self.clock.now());
                self.keep(&row).await;
                None
            }
            Verdict::Release(address) => {
                let row = self.book().release(address, key, self.clock.now());
                if let Some(row) = row {
                    self.keep(&row).await;
                }
                None
            }
            // Judged otherwise when its turn came.
            _ => Some(()),
        }
    }

    /// Does what a verdict says to the offers, and builds the answer.
    async fn carry_out(
        self: &Arc<Self>,
        verdict: Verdict,
        received: Received<'_>,
        key: &ClientKey,
        decision: Option<&Decision>,
        client: Client,
    ) -> Option<Reply> {
        let Received { packet, segment, .. } = received;
        if packet.kind == Kind::Discover
            && client.boots()
            && let Some(mac) = packet.mac()
        {
            self.note_booting(mac);
        }
        let reply = match verdict {
            Verdict::Silent(why) => {
                tracing::debug!(client = %key, network = segment.name, kind = ?packet.kind, why, "no DHCP answer");
                return None;
            }
            Verdict::Forget => {
                self.book().forget_offers(key);
                return None;
            }
            Verdict::Offer(address) => {
                let now = self.clock.now();
                let is_new = {
                    let mut book = self.book();
                    let known = book.holder(address, now).is_some() || book.is_only_offered(address, key, now);
                    book.offer(address, key, now);
                    !known
                };
                if is_new && !packet.is_relayed() {
                    self.probe(address, key.clone());
                }
                Reply { yiaddr: address, lease_seconds: Some(segment.lease_seconds()), ..Reply::of(Kind::Offer) }
            }
            Verdict::Lease(address) => {
                Reply { yiaddr: address, lease_seconds: Some(segment.lease_seconds()), ..Reply::of(Kind::Ack) }
            }
            Verdict::Refuse(why) => {
                tracing::info!(client = %key, network = segment.name, asked = ?asked_address(packet), why, "DHCP refused");
                self.saw(packet, Seen::DhcpRefused { why: why.to_owned() });
                return Some(Reply { message: Some(why), ..Reply::of(Kind::Nak) });
            }
            Verdict::Inform | Verdict::ProxyAck => Reply::of(Kind::Ack),
            Verdict::ProxyOffer => Reply::of(Kind::Offer),
            Verdict::Decline(_) | Verdict::Release(_) => return None,
        };
        let reply = Reply { host_name: decision.and_then(host_name), ..reply };
        let boot_file = match (packet.mac(), decision) {
            (Some(mac), Some(decision)) if client.boots() => {
                let loaders = self.loaders.loaders().await;
                boot_file(client, mac, decision, segment.spec.unified_kernel, &loaders, &segment.base)
            }
            _ => None,
        };
        if boot_file.is_none() && client.boots() {
            self.saw(packet, witness::no_loader(client));
            // A proxy that names no file has nothing to say.
            if matches!(verdict, Verdict::ProxyOffer | Verdict::ProxyAck) {
                return None;
            }
        }
        self.saw(packet, witness::answered(client, reply.kind, reply.yiaddr, boot_file.clone()));
        Some(Reply { boot_file, ..reply })
    }

    /// Leases an address: in memory at once, so that nobody else is offered it, and durable before this
    /// returns. If the store fails there was no lease, and the client hears nothing.
    ///
    /// Only for who has the turn of the address, as [`keep`](Self::keep): what it puts back is then what it found.
    async fn lease(&self, address: Ipv4Addr, key: &ClientKey, segment: &Segment, came: Timestamp) -> Option<()> {
        let life = Duration::from_secs(segment.lease_seconds().into());
        let (row, before) = {
            let (mut book, now) = (self.book(), self.clock.now());
            // One who repeated itself while it waited needs no second write. In this turn, what the book says
            // is durable.
            if book.is_bound(address, key, came.plus(life)..=now.plus(life)) {
                book.forget_offers(key);
                return Some(());
            }
            // From now, not from when it came: enough for all that wait meanwhile.
            book.bind(address, key, now.plus(life))
        };
        if self.keep(&row).await {
            return Some(());
        }
        let mut book = self.book();
        match before {
            Some(before) => drop(book.write(before)),
            None => book.erase(address),
        }
        None
    }

    /// Makes a row durable. In the turn of its address there is no other write of it under way, so the store
    /// has in the end what the book has.
    async fn keep(&self, row: &Lease) -> bool {
        let put = self.store.put(row).await;
        if let Err(error) = &put {
            let error = error as &dyn std::error::Error;
            tracing::error!(address = %row.address, error, "a lease is not kept");
        }
        put.is_ok()
    }

    /// Probes an address while the client considers our offer.
    fn probe(self: &Arc<Self>, address: Ipv4Addr, key: ClientKey) {
        let Some(conflicts) = self.conflicts.clone() else { return };
        let done = {
            let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
            if probes.len() >= MAX_PROBES || probes.contains_key(&address) {
                return;
            }
            let (done, waiting) = watch::channel(false);
            probes.insert(address, waiting);
            done
        };
        let this = self.clone();
        tokio::spawn(async move {
            if conflicts.in_use(address).await {
                let _turn = this.turns.take(address).await;
                let row = {
                    let (mut book, now) = (this.book(), this.clock.now());
                    // Once it is leased, the answer may be the client's own.
                    book.is_only_offered(address, &key, now).then(|| book.quarantine(address, now))
                };
                if let Some(row) = row {
                    tracing::warn!(%address, "an address of the pool is in use by a host that has no lease");
                    this.keep(&row).await;
                }
            }
            this.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
            done.send_replace(true);
        });
    }

    async fn await_probe(&self, address: Ipv4Addr) {
        let waiting = self.probes.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned();
        if let Some(mut waiting) = waiting {
            let _ = tokio::time::timeout(PROBE_PATIENCE, waiting.wait_for(|done| *done)).await;
        }
    }

    fn note_booting(&self, mac: Mac) {
        let now = self.clock.now();
        let mut booting = self.booting();
        if booting.len() >= MAX_BOOTING {
            booting.retain(|_, at| now.since(*at) < BOOTING);
        }
        if booting.len() < MAX_BOOTING {
            booting.insert(mac, now);
        }
    }

    fn booting(&self) -> MutexGuard<'_, HashMap<Mac, Timestamp>> {
        self.booting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, LeaseBook> {
        // Each change of the book is whole before anything in it could panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server's answer, to this client or to our question in its name. What concerns nobody who boots
    /// is not taken down.
    pub fn overheard(&self, packet: &Packet, server: Ipv4Addr) {
        if packet.mac().is_some_and(|mac| self.is_booting(mac)) {
            self.saw(packet, witness::other(packet, server));
        }
    }

    fn saw(&self, packet: &Packet, seen: Seen) {
        let from = (!packet.ciaddr.is_unspecified()).then_some(IpAddr::V4(packet.ciaddr));
        self.observer.saw(Sighting { mac: packet.mac(), from, seen });
    }
}

impl Reply {
    fn of(kind: Kind) -> Self {
        let yiaddr = Ipv4Addr::UNSPECIFIED;
        Self { kind, yiaddr, lease_seconds: None, boot_file: None, host_name: None, message: None }
    }
}

/// A host name for option 12, if it is one (RFC 1123 section 2.1).
fn host_name(decision: &Decision) -> Option<String> {
    let name = decision.hostname.as_deref()?;
    let fits =
        (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    fits.then(|| name.to_owned())
}

#[cfg(test)]
#[path = "responder_races.rs"]
mod races;
#[cfg(test)]
#[path = "responder_tests.rs"]
mod tests;
