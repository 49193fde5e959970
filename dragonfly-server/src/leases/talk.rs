//! DHCP clients that talk to a server with leases in a store.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use dragonfly_boot::dhcp::judge::Arrival;
use dragonfly_boot::dhcp::{ClientKey, LeaseError, LeaseStore, Mode, Packet, Received, Responder, Segment};
use dragonfly_boot::{Base, BootFiles};
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootError, BootProvider, BootRequest, Decision, Fate};
use dragonfly_core::clock::Clock;
use dragonfly_core::resource::network::{NetworkSpec, Pool};
use dragonfly_core::testing::FakeObserver;
use dragonfly_core::wire::Identity;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Until when a lease holds.
pub(super) const LEASE: u64 = 3600;

/// Everybody is to be discovered.
#[derive(Debug)]
struct Anybody;

#[async_trait]
impl BootProvider for Anybody {
    async fn decide(&self, _: &BootRequest) -> Result<Decision, BootError> {
        let (fate, reason) = (Fate::Discover, "a test".to_owned());
        Ok(Decision { fate, reason, machine: None, address: None, hostname: None, console: None })
    }

    async fn identity(&self, _: &BootRequest) -> Result<Option<Identity>, BootError> {
        Ok(None)
    }
}

/// A server, as its clients hear it.
pub(super) struct Talk {
    responder: Arc<Responder>,
    segment: Segment,
}

fn mac(who: u16) -> Mac {
    let [high, low] = who.to_be_bytes();
    Mac::new([2, 0, 0, 0, high, low])
}

pub(super) fn key(who: u16) -> ClientKey {
    ClientKey::of_mac(mac(who))
}

/// `10.0.1.0` and those that follow.
pub(super) fn address(n: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + u32::from(n))
}

impl Talk {
    /// A server that has so many addresses to give.
    pub(super) async fn with(
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        addresses: u16,
    ) -> Result<Self, LeaseError> {
        let pool = Pool { start: address(0), end: address(addresses - 1) };
        let spec = serde_json::json!({
            "interface": "lab0", "dhcp": "full", "subnet": "10.0.0.0/16", "leaseSeconds": LEASE,
        });
        let spec = NetworkSpec { pool: Some(pool), ..serde_json::from_value(spec).unwrap() };
        let base = Base::new(SERVER.into(), 3000);
        let segment = Segment { name: "lab".to_owned(), spec, mode: Mode::Full, server: SERVER, base };
        let (observer, files) = (Arc::new(FakeObserver::new()), Arc::new(BootFiles::new("/nonexistent")));
        let responder = Responder::load(Arc::new(Anybody), store, observer, clock, files, None).await?;
        Ok(Self { responder: Arc::new(responder), segment })
    }

    async fn say(&self, who: u16, kind: u8, ciaddr: Ipv4Addr, options: &[(u8, [u8; 4])]) -> Option<Packet> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[12..16].copy_from_slice(&ciaddr.octets());
        bytes[28..34].copy_from_slice(&mac(who).octets());
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend([53, 1, kind]);
        for (code, data) in options {
            bytes.extend([*code, 4]);
            bytes.extend(data);
        }
        bytes.push(255);
        let packet = Packet::decode(&bytes).unwrap();
        let arrival = Arrival { boot_server_port: false, unicast: !ciaddr.is_unspecified() };
        let source = SocketAddrV4::new(ciaddr, 68);
        let received = Received { packet: &packet, segment: &self.segment, source, arrival };
        let (answer, _) = self.responder.answer(received).await?;
        Some(Packet::decode(&answer).unwrap())
    }

    /// DISCOVER, OFFER, REQUEST: the address that was acknowledged.
    pub(super) async fn lease(&self, who: u16, wish: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let wish: Vec<_> = wish.map(|wish| (50, wish.octets())).into_iter().collect();
        let offer = self.say(who, 1, Ipv4Addr::UNSPECIFIED, &wish).await?.yiaddr;
        let request = [(54, SERVER.octets()), (50, offer.octets())];
        let answer = self.say(who, 3, Ipv4Addr::UNSPECIFIED, &request).await?;
        (answer.kind == dragonfly_boot::dhcp::packet::Kind::Ack).then_some(answer.yiaddr)
    }

    pub(super) async fn release(&self, who: u16, address: Ipv4Addr) {
        self.say(who, 7, address, &[(54, SERVER.octets())]).await;
    }
}
