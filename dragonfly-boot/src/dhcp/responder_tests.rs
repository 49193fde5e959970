//! Whole conversations: what a client hears, and what is durable when it does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dragonfly_core::Source;
use dragonfly_core::boot::Fate;

use super::super::lease::{LeaseState, MemoryLeases};
use super::super::packet::option;
use super::super::packet::tests::bytes;
use super::super::segment::Mode;
use super::super::tests::segment;
use super::*;
use crate::testing::{Observer, Provider};

#[derive(Debug)]
pub(super) struct Now(pub(super) Mutex<i64>);

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(*self.0.lock().unwrap())
    }
}

/// A store that can be told to fail, and when.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) rows: MemoryLeases,
    broken: AtomicBool,
    /// How long the next writes take and whether they succeed; those after them are done at once.
    pub(super) fates: Mutex<VecDeque<(Duration, bool)>>,
    pub(super) writes: AtomicUsize,
}

#[async_trait]
impl LeaseStore for Store {
    async fn load(&self) -> Result<Vec<Lease>, LeaseError> {
        self.rows.load().await
    }

    async fn put(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let fate = self.fates.lock().unwrap().pop_front();
        if let Some((after, _)) = fate {
            tokio::time::sleep(after).await;
        }
        if self.broken.load(Ordering::Relaxed) || fate.is_some_and(|(_, succeeds)| !succeeds) {
            return Err(LeaseError { doing: "written", source: Source::from("the disk is full") });
        }
        self.rows.put(lease).await
    }
}

/// Everybody is there.
#[derive(Debug)]
struct Everywhere;

#[async_trait]
impl ConflictProbe for Everywhere {
    async fn in_use(&self, _: Ipv4Addr) -> bool {
        true
    }
}

pub(super) struct Bench {
    pub(super) responder: Arc<Responder>,
    pub(super) store: Arc<Store>,
    observer: Arc<Observer>,
    clock: Arc<Now>,
    pub(super) segment: Segment,
}

impl Bench {
    pub(super) async fn new(mode: Mode, provider: Provider) -> Self {
        Self::with(mode, provider, Arc::default(), None).await
    }

    async fn with(
        mode: Mode,
        provider: Provider,
        store: Arc<Store>,
        conflicts: Option<Arc<dyn ConflictProbe>>,
    ) -> Self {
        let clock = Arc::new(Now(Mutex::new(1_800_000_000)));
        let (observer, files) = (Arc::new(Observer::default()), Arc::new(BootFiles::new("/nonexistent")));
        let (provider, o, c) = (Arc::new(provider), observer.clone(), clock.clone());
        let responder = Responder::load(provider, store.clone(), o, c, files, conflicts).await.unwrap();
        Self { responder: Arc::new(responder), store, observer, clock, segment: segment(mode) }
    }

    pub(super) fn pass(&self, seconds: i64) {
        *self.clock.0.lock().unwrap() += seconds;
    }

    pub(super) async fn say(&self, message: &[u8], unicast: bool) -> Option<(Packet, Destination)> {
        let packet = Packet::decode(message).unwrap();
        let arrival = Arrival { boot_server_port: false, unicast };
        let source = SocketAddrV4::new(packet.ciaddr, 68);
        let received = Received { packet: &packet, segment: &self.segment, source, arrival };
        let (bytes, to) = self.responder.answer(received).await?;
        Some((Packet::decode(&bytes).unwrap(), to))
    }

    /// DISCOVER, OFFER, REQUEST, ACK: the address.
    pub(super) async fn lease(&self, who: u8) -> Option<Ipv4Addr> {
        let offer = self.say(&from(who, &[(53, &[1])]), false).await?.0;
        let address = offer.yiaddr.octets();
        let ack = self.say(&from(who, &[(53, &[3]), (54, &[10, 0, 0, 1]), (50, &address)]), false).await?.0;
        assert_eq!((offer.kind, ack.yiaddr), (Kind::Offer, offer.yiaddr));
        (ack.kind == Kind::Ack).then_some(ack.yiaddr)
    }
}

pub(super) fn from(who: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = bytes(options);
    packet[33] = who;
    packet
}

pub(super) fn mac(who: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, who])
}

pub(super) fn discover() -> Provider {
    Provider::with(Some(Fate::Discover))
}

#[tokio::test]
async fn a_lease_is_durable_before_it_is_acknowledged_and_survives_a_restart() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let address = bench.lease(1).await.unwrap();
    let rows = bench.store.load().await.unwrap();
    assert_eq!((rows.len(), rows[0].address), (1, address));
    assert_eq!(rows[0].expires, Timestamp::from_unix_seconds(1_800_003_600));
    assert_eq!(bench.responder.holder(address), Some(mac(1)));
    // Killed and started again: nobody else is given it, and its owner keeps it.
    let again = Bench::with(Mode::Full, discover(), bench.store.clone(), None).await;
    for who in 2..90 {
        assert_ne!(again.lease(who).await, Some(address));
    }
    let mut renew = from(1, &[(53, &[3])]);
    renew[12..16].copy_from_slice(&address.octets());
    let (ack, to) = again.say(&renew, true).await.unwrap();
    assert_eq!((ack.kind, to), (Kind::Ack, Destination::Host(SocketAddrV4::new(address, 68))));
}

#[tokio::test]
async fn a_lease_that_cannot_be_kept_is_not_given() {
    let bench = Bench::new(Mode::Full, discover()).await;
    bench.store.broken.store(true, Ordering::Relaxed);
    assert_eq!(bench.lease(1).await, None);
    assert_eq!(bench.responder.book().rows().count(), 0);
    bench.store.broken.store(false, Ordering::Relaxed);
    assert!(bench.lease(1).await.is_some());
}

#[tokio::test]
async fn nobody_decides_nobody_answers() {
    let bench = Bench::new(Mode::Full, Provider::with(None)).await;
    assert!(bench.say(&from(1, &[(53, &[1])]), false).await.is_none());
}

#[tokio::test]
async fn a_reservation_is_given_in_both_modes_and_only_to_its_owner() {
    let reserved = || Provider { reserved: vec![(mac(9), Ipv4Addr::new(10, 0, 0, 42))], ..discover() };
    for mode in [Mode::Full, Mode::Reservation] {
        let bench = Bench::new(mode, reserved()).await;
        assert_eq!(bench.lease(9).await, Some(Ipv4Addr::new(10, 0, 0, 42)));
        assert_eq!(bench.lease(1).await.is_some(), mode == Mode::Full);
    }
}

#[tokio::test]
async fn a_declined_address_is_left_alone_for_an_hour() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let address = bench.lease(1).await.unwrap();
    let decline = from(1, &[(53, &[4]), (54, &[10, 0, 0, 1]), (50, &address.octets())]);
    assert!(bench.say(&decline, false).await.is_none());
    let rows = bench.store.load().await.unwrap();
    assert_eq!(rows[0].state, LeaseState::Quarantined);
    assert_ne!(bench.lease(1).await.unwrap(), address);
    let wish = from(2, &[(53, &[1]), (50, &address.octets())]);
    assert_ne!(bench.say(&wish, false).await.unwrap().0.yiaddr, address);
    *bench.clock.0.lock().unwrap() += 2 * 3600;
    assert_eq!(bench.say(&from(3, &[(53, &[1]), (50, &address.octets())]), false).await.unwrap().0.yiaddr, address);
}

#[tokio::test]
async fn a_released_address_is_free_and_its_owner_gets_it_back() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let address = bench.lease(1).await.unwrap();
    let mut release = from(1, &[(53, &[7]), (54, &[10, 0, 0, 1])]);
    release[12..16].copy_from_slice(&address.octets());
    assert!(bench.say(&release, true).await.is_none());
    assert_eq!(bench.responder.holder(address), None);
    assert_eq!(bench.lease(1).await, Some(address));
}

#[tokio::test]
async fn an_address_that_somebody_uses_is_offered_and_then_withdrawn() {
    let bench = Bench::with(Mode::Full, discover(), Arc::default(), Some(Arc::new(Everywhere))).await;
    let offer = bench.say(&from(1, &[(53, &[1])]), false).await.unwrap().0;
    let accept = from(1, &[(53, &[3]), (54, &[10, 0, 0, 1]), (50, &offer.yiaddr.octets())]);
    let answer = bench.say(&accept, false).await.unwrap().0;
    assert_eq!(answer.kind, Kind::Nak);
    let rows = bench.store.load().await.unwrap();
    assert_eq!((rows[0].address, &rows[0].state), (offer.yiaddr, &LeaseState::Quarantined));
}

#[tokio::test]
async fn anothers_client_is_left_alone() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let offer = bench.say(&from(1, &[(53, &[1])]), false).await.unwrap().0;
    let other = from(1, &[(53, &[3]), (54, &[10, 0, 0, 2]), (50, &[10, 0, 0, 77])]);
    assert!(bench.say(&other, false).await.is_none());
    // And our offer is free again.
    assert!(!bench.responder.book().is_only_offered(offer.yiaddr, &ClientKey::of_mac(mac(1)), bench.clock.now()));
}

#[tokio::test]
async fn boot_information_comes_with_every_acknowledgement() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let offer = bench.say(&from(1, &[(53, &[1]), (60, b"PXEClient"), (93, &[0, 7])]), false).await.unwrap().0;
    // Some firmware drops option 60 from its REQUEST.
    let accept = [(53, &[3][..]), (54, &[10, 0, 0, 1]), (50, &offer.yiaddr.octets()), (93, &[0, 7])];
    let ack = bench.say(&from(1, &accept), false).await.unwrap().0;
    for packet in [&offer, &ack] {
        assert_eq!(packet.option(option::BOOT_FILE), Some(&b"snponly.efi"[..]));
    }
    assert_eq!(bench.observer.whats(), ["dhcp.discover", "dhcp.offer", "dhcp.request", "dhcp.ack"]);
}

#[tokio::test]
async fn a_proxy_speaks_only_to_what_boots() {
    let bench = Bench::new(Mode::Proxy, discover()).await;
    assert!(bench.say(&from(1, &[(53, &[1]), (60, b"udhcp")]), false).await.is_none());
    let pxe = from(1, &[(53, &[1]), (60, b"PXEClient"), (93, &[0, 0])]);
    let (offer, to) = bench.say(&pxe, false).await.unwrap();
    assert_eq!((offer.kind, offer.yiaddr, to), (Kind::Offer, Ipv4Addr::UNSPECIFIED, Destination::Broadcast));
    // A processor that we have no loader for.
    assert!(bench.say(&from(1, &[(53, &[1]), (60, b"PXEClient"), (93, &[0, 6])]), false).await.is_none());
    assert!(bench.store.load().await.unwrap().is_empty());
}
