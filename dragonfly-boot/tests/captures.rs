//! Requests of real firmware, as captured, are understood and answered with what it can boot.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dragonfly_boot::dhcp::judge::Arrival;
use dragonfly_boot::dhcp::packet::{Kind, option};
use dragonfly_boot::dhcp::{Client, Destination, MemoryLeases, Mode, Packet, Platform, Received, Responder, Segment};
use dragonfly_boot::tftp::{Incoming, Limits, Transfer};
use dragonfly_boot::{Base, BootFiles};
use dragonfly_core::boot::{
    Arch, BootError, BootObserver, BootProvider, BootRequest, Decision, Fate, Firmware, Sighting,
};
use dragonfly_core::clock::SystemClock;
use dragonfly_core::wire::Identity;

/// UDP datagrams of a capture file: source, destination, payload.
fn datagrams(pcap: &[u8]) -> Vec<(SocketAddrV4, SocketAddrV4, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 1), "little-endian, Ethernet");
    let (mut at, mut found) = (24, Vec::new());
    while at + 16 <= pcap.len() {
        let length = word(at + 8);
        let frame = &pcap[at + 16..at + 16 + length];
        at += 16 + length;
        if frame[12..14] != [8, 0] || frame[23] != 17 {
            continue;
        }
        let ip = &frame[14..];
        let udp = &ip[usize::from(ip[0] & 15) * 4..];
        let address = |at: usize, port: usize| {
            let octets: [u8; 4] = ip[at..at + 4].try_into().unwrap();
            SocketAddrV4::new(octets.into(), u16::from_be_bytes([udp[port], udp[port + 1]]))
        };
        let size = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        found.push((address(12, 0), address(16, 2), udp[8..size].to_vec()));
    }
    found
}

#[derive(Debug)]
struct Discover;

#[async_trait]
impl BootProvider for Discover {
    async fn decide(&self, _: &BootRequest) -> Result<Decision, BootError> {
        let reason = String::new();
        Ok(Decision { fate: Fate::Discover, reason, machine: None, address: None, hostname: None, console: None })
    }
    async fn identity(&self, _: &BootRequest) -> Result<Option<Identity>, BootError> {
        Ok(None)
    }
}

impl BootObserver for Discover {
    fn saw(&self, _: Sighting) {}
}

fn segment(mode: Mode) -> Segment {
    let server = Ipv4Addr::new(192, 168, 77, 2);
    let spec = serde_json::json!({
        "interface": "eth0", "dhcp": "full", "subnet": "192.168.77.0/24",
        "pool": {"start": "192.168.77.100", "end": "192.168.77.199"},
    });
    let spec = serde_json::from_value(spec).unwrap();
    Segment { name: "lab".into(), spec, mode, server, base: Base::new(server.into(), 3000) }
}

#[tokio::test]
async fn captured_firmware_is_answered() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/pxe-captures");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/pxe-captures");
    let Some(dir) = [dir, own].into_iter().find(|dir| dir.is_dir()) else {
        println!("skipped: the captures are not at hand");
        return;
    };
    let x86 = Some(Arch::X86_64);
    let uefi = Client::Firmware(Platform { firmware: Firmware::Uefi, arch: x86 });
    let http = Client::Firmware(Platform { firmware: Firmware::UefiHttp, arch: x86 });
    let bios_ipxe = Client::Ipxe { platform: Platform { firmware: Firmware::Bios, arch: x86 }, http: true };
    let table: [(&str, &[Client]); 7] = [
        ("bios-A_nosiaddr", &[bios_ipxe]),
        ("lk-ifall2.ipxe-A", &[bios_ipxe]),
        ("uefi-A", &[uefi]),
        ("uefi-B", &[uefi]),
        ("uefi-B_no4011", &[uefi]),
        ("uefi-H", &[uefi, http]),
        ("uefi-SUP", &[uefi]),
    ];
    for (name, clients) in table {
        let pcap = std::fs::read(dir.join(format!("{name}.pcap"))).unwrap();
        let (mut seen, mut tftp) = (0, 0);
        for (from, to, payload) in datagrams(&pcap) {
            match to.port() {
                67 | 4011 if from.port() != 67 && *from.ip() != Ipv4Addr::new(192, 168, 77, 2) => {
                    let packet = Packet::decode(&payload).unwrap_or_else(|e| panic!("{name}: {e}"));
                    let client = Client::of(&packet);
                    let ipxe = matches!(client, Client::Ipxe { .. });
                    assert!(clients.contains(&client) || ipxe, "{name}: {client:?}");
                    answered(name, &packet, client, from, to.port() == 4011).await;
                    seen += 1;
                }
                69 => {
                    let Ok(Incoming::Read(request)) = Incoming::decode(&payload) else {
                        panic!("{name}: not a read request")
                    };
                    assert!(request.octet && request.block_size == Some(1468) && request.window == Some(4), "{name}");
                    assert!(!Transfer::new(&request, 1, &Limits::default()).options().is_empty());
                    tftp += 1;
                }
                _ => {}
            }
        }
        assert!(seen >= 2, "{name}: {seen} requests");
        println!("{name}: {seen} DHCP requests, {tftp} TFTP requests");
    }
}

async fn answered(name: &str, packet: &Packet, client: Client, source: SocketAddrV4, boot_server_port: bool) {
    let files = Arc::new(BootFiles::new("/nonexistent"));
    for mode in [Mode::Full, Mode::Proxy] {
        let provider = Arc::new(Discover);
        let (leases, clock) = (Arc::new(MemoryLeases::default()), Arc::new(SystemClock));
        let responder = Responder::load(provider.clone(), leases, provider, clock, files.clone(), None).await;
        let (responder, segment) = (Arc::new(responder.unwrap()), segment(mode));
        let arrival = Arrival { boot_server_port, unicast: boot_server_port };
        let answer = responder.answer(Received { packet, segment: &segment, source, arrival }).await;
        if packet.kind != Kind::Discover && !boot_server_port {
            // It accepts what the other server on that bench had offered.
            assert!(answer.is_none(), "{name}: {mode:?}: a REQUEST to another server is answered");
            continue;
        }
        let (bytes, to) = answer.unwrap_or_else(|| panic!("{name}: {mode:?}: no answer to {:?}", packet.kind));
        let reply = Packet::decode(&bytes).unwrap();
        assert_eq!(reply.xid, packet.xid);
        assert_eq!(reply.option(option::CLIENT_UUID), packet.option(option::CLIENT_UUID), "{name}");
        let (class, file) = match client {
            Client::Firmware(Platform { firmware: Firmware::UefiHttp, .. }) => {
                ("HTTPClient", "http://192.168.77.2:3000/boot/files/ipxe.efi".to_owned())
            }
            Client::Firmware(_) => ("PXEClient", "snponly.efi".to_owned()),
            _ => ("PXEClient", "http://192.168.77.2:3000/boot/52:54:00:aa:bb:cc".to_owned()),
        };
        assert_eq!(reply.option(option::VENDOR_CLASS), Some(class.as_bytes()), "{name}");
        assert_eq!(reply.option(option::BOOT_FILE), Some(file.as_bytes()), "{name}");
        let address = mode == Mode::Full && !boot_server_port;
        assert_eq!(!reply.yiaddr.is_unspecified(), address, "{name}: {mode:?}");
        // edk2 asks from port 4011 and listens there.
        let want = if boot_server_port { Destination::Host(source) } else { Destination::Broadcast };
        assert_eq!(to, want, "{name}");
    }
}
