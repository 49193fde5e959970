//! Any bytes are a message or an error; what is answered is a message again.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;

use dragonfly_boot::Base;
use dragonfly_boot::dhcp::judge::{Arrival, Verdict, asked_address, judge};
use dragonfly_boot::dhcp::packet::Kind;
use dragonfly_boot::dhcp::{Client, ClientKey, LeaseBook, Mode, Packet, Query, Reply, Segment, destination};
use dragonfly_core::clock::Timestamp;

static SEGMENTS: LazyLock<[Segment; 3]> = LazyLock::new(|| {
    [Mode::Full, Mode::Reservation, Mode::Proxy].map(|mode| {
        let spec = serde_json::json!({
            "interface": "eth0", "dhcp": "full", "subnet": "192.168.77.0/24",
            "pool": {"start": "192.168.77.100", "end": "192.168.77.199"},
        });
        let server = Ipv4Addr::new(192, 168, 77, 2);
        let spec = serde_json::from_value(spec).expect("the settings");
        Segment { name: "fuzz".into(), spec, mode, server, base: Base::new(server.into(), 3000) }
    })
});

/// One input.
pub(crate) fn dhcp(bytes: &[u8]) {
    let Ok(packet) = Packet::decode(bytes) else { return };
    let client = Client::of(&packet);
    let (mac, key) = (packet.mac(), ClientKey::of(&packet));
    let _ = packet.link_selection();
    let Some(key) = key else { return };
    let (now, mut book) = (Timestamp::from_unix_seconds(1_800_000_000), LeaseBook::default());
    for segment in SEGMENTS.iter() {
        for boot_server_port in [false, true] {
            let query = Query { segment, client: &key, reservation: None, asked: asked_address(&packet), now };
            let standing = book.standing(query, |_| None);
            let arrival = Arrival { boot_server_port, unicast: false };
            let (kind, yiaddr) = match judge(&packet, client, segment, arrival, standing, mac.is_some()) {
                Verdict::Offer(address) => {
                    book.offer(address, &key, now);
                    (Kind::Offer, address)
                }
                Verdict::Lease(address) => {
                    book.bind(address, &key, now);
                    (Kind::Ack, address)
                }
                Verdict::Refuse(_) => (Kind::Nak, Ipv4Addr::UNSPECIFIED),
                _ => (Kind::Ack, Ipv4Addr::UNSPECIFIED),
            };
            let boot_file = Some("http://192.168.77.2:3000/boot/x".to_owned());
            let reply =
                Reply { kind, yiaddr, lease_seconds: Some(60), boot_file, host_name: None, message: Some("no") };
            let answer = Packet::decode(&reply.encode(&packet, client, segment));
            // Options of a stranger that are echoed may be long; everything else is ours.
            match answer {
                Ok(answer) => assert_eq!((answer.xid, answer.kind), (packet.xid, kind)),
                Err(error) => assert!(bytes.len() > 2000, "{error}"),
            }
            let _ = destination(&packet, kind, SocketAddrV4::new(packet.ciaddr, 68), boot_server_port);
        }
    }
}
