//! The neighbour on a link: LLDP frames (IEEE 802.1AB), listened to in passing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use dragonfly_core::inventory::Lldp;

/// Ethertype of LLDP.
const ETHERTYPE: [u8; 2] = [0x88, 0xcc];

/// What was heard so far, by interface index.
#[derive(Debug, Clone, Default)]
pub struct Neighbours(Arc<Mutex<BTreeMap<u32, Lldp>>>);

impl Neighbours {
    /// Listens on a thread of its own for as long as the agent runs.
    pub fn listen() -> Self {
        let heard = Self::default();
        let ours = heard.clone();
        std::thread::spawn(move || {
            // Without it there is no neighbour in the inventory, and that is all.
            let _ = ours.receive();
        });
        heard
    }

    /// The neighbour on an interface, if it has spoken.
    pub fn on(&self, interface: &str) -> Option<Lldp> {
        let index = nix::net::if_::if_nametoindex(interface).ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    fn receive(&self) -> nix::Result<()> {
        use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};
        use std::os::fd::AsRawFd;
        let all = SockProtocol::EthAll;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
        let mut frame = [0u8; 2048];
        loop {
            let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame)?;
            let (Some(from), Some(frame)) = (from, frame.get(..length)) else { continue };
            if let Some(neighbour) = parse(frame) {
                let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() < 256 {
                    heard.insert(from.ifindex() as u32, neighbour);
                }
            }
        }
    }
}

/// Reads a whole Ethernet frame; `None` when it is not LLDP.
///
/// After the header come TLVs: 7 bits of type, 9 bits of length, the value.
pub fn parse(frame: &[u8]) -> Option<Lldp> {
    if frame.get(12..14)? != ETHERTYPE {
        return None;
    }
    let mut rest = frame.get(14..)?;
    let mut lldp = Lldp::default();
    while let Some((head, tail)) = rest.split_first_chunk::<2>() {
        let head = u16::from_be_bytes(*head);
        let (kind, length) = (head >> 9, usize::from(head & 0x1ff));
        let value = tail.get(..length)?;
        rest = tail.get(length..)?;
        match kind {
            0 => break,
            1 => lldp.chassis = identifier(value, 4, 5),
            2 => lldp.port = identifier(value, 3, 4),
            5 => lldp.system = crate::inventory::clean(value),
            _ => {}
        }
    }
    (lldp != Lldp::default()).then_some(lldp)
}

/// An identifier by its subtype: a MAC address, a network address, else text (802.1AB tables 8-2, 8-3).
fn identifier(value: &[u8], mac: u8, address: u8) -> Option<String> {
    let (subtype, body) = value.split_first()?;
    if *subtype == mac
        && let Ok(octets) = <[u8; 6]>::try_from(body)
    {
        return Some(dragonfly_core::Mac::new(octets).to_string());
    }
    if *subtype == address {
        // An address family number, then the address; 1 is IPv4.
        if let Some((1, ip)) = body.split_first()
            && let Ok(octets) = <[u8; 4]>::try_from(ip)
        {
            return Some(IpAddr::V4(Ipv4Addr::from(octets)).to_string());
        }
    }
    crate::inventory::clean(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tlvs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc];
        for (kind, value) in tlvs {
            out.extend((kind << 9 | value.len() as u16).to_be_bytes());
            out.extend(*value);
        }
        out
    }

    #[test]
    fn reads_chassis_port_and_name() {
        let frame = frame(&[
            (1, b"\x04\x02\0\0\0\0\x01"),
            (2, b"\x05Ethernet1/7"),
            (3, b"\0\x78"),
            (5, b"leaf-1\x1b[2J"),
            (0, b""),
        ]);
        let lldp = parse(&frame).unwrap();
        assert_eq!(lldp.chassis.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(lldp.port.as_deref(), Some("Ethernet1/7"));
        assert_eq!(lldp.system.as_deref(), Some("leaf-1[2J"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = vec![0; 12];
            frame.extend(ETHERTYPE);
            frame.extend(&bytes);
            let _ = (parse(&frame), parse(&bytes));
        }
    }
}
