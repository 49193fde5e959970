//! A DHCPv4 message as it came (RFC 2131 section 2, options RFC 2132), with every guard that bytes
//! from a stranger need.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dragonfly_core::Mac;

/// The largest message that is looked at. Clients may announce more, none sends more.
pub const MAX_SIZE: usize = 4096;

/// Option numbers, as IANA lists them.
pub mod option {
    #![allow(missing_docs)]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY_AGENT: u8 = 82;
    pub const CLIENT_ARCH: u8 = 93;
    pub const CLIENT_NDI: u8 = 94;
    pub const CLIENT_UUID: u8 = 97;
    pub const IPXE: u8 = 175;
}

/// Type of a message: option 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Kind {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Discover,
            Self::Offer,
            Self::Request,
            Self::Decline,
            Self::Ack,
            Self::Nak,
            Self::Release,
            Self::Inform,
        ];
        all.get(usize::from(code.checked_sub(1)?)).copied()
    }

    /// Its number in option 53.
    pub fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// Why bytes are no DHCP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than the fixed part, or longer than [`MAX_SIZE`].
    #[error("{0} bytes: a DHCP message has 240 to {MAX_SIZE}")]
    Size(usize),
    /// Neither a request nor a reply.
    #[error("operation code {0}: neither BOOTREQUEST (1) nor BOOTREPLY (2)")]
    Operation(u8),
    /// A hardware address longer than its field.
    #[error("hardware address length {0}: the field holds 16")]
    HardwareLength(u8),
    /// BOOTP without the magic cookie, or without a message type that we know.
    #[error("no DHCP message type: plain BOOTP, or unknown")]
    NotDhcp,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Whether a client sent it (BOOTREQUEST) or a server (BOOTREPLY).
    pub is_request: bool,
    /// Message type.
    pub kind: Kind,
    /// Hardware type (1 is Ethernet).
    pub htype: u8,
    /// Length of the hardware address: 16 at most.
    pub hlen: u8,
    /// Transaction.
    pub xid: u32,
    /// Bit 15 asks for a reply by broadcast.
    pub flags: u16,
    /// The address that the client has already.
    pub ciaddr: Ipv4Addr,
    /// The address that it is given.
    pub yiaddr: Ipv4Addr,
    /// Where the boot file is, in a server's message.
    pub siaddr: Ipv4Addr,
    /// The relay that passed it on.
    pub giaddr: Ipv4Addr,
    /// The whole field; the first `hlen` bytes count.
    pub chaddr: [u8; 16],
    /// The field for the boot file's name, unless it holds options.
    file: String,
    options: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    /// Reads a message. Options that occur several times are joined (RFC 3396); those in the file and
    /// server name fields count when option 52 says so; a broken one ends its field, and what came
    /// before it counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let size = Err(DecodeError::Size(bytes.len()));
        let message = match Message::new(bytes) {
            Ok(message) if bytes.len() <= MAX_SIZE => message,
            _ => return size,
        };
        // Before anything else: the decoder slices by this length without looking.
        let hlen = message.hlen();
        if hlen > 16 {
            return Err(DecodeError::HardwareLength(hlen));
        }
        let (Some(&operation), Some(&htype)) = (bytes.first(), bytes.get(1)) else { return size };
        let (Some(sname), Some(file), Some(field)) = (bytes.get(44..108), bytes.get(108..236), bytes.get(28..44))
        else {
            return size;
        };
        if !matches!(operation, 1 | 2) {
            return Err(DecodeError::Operation(operation));
        }
        let mut options = Vec::with_capacity(16);
        gather(&mut options, message.opts());
        let overload = match find(&options, option::OVERLOAD) {
            Some([bits]) => *bits,
            _ => 0,
        };
        if overload & 1 != 0 {
            gather(&mut options, DhcpOptionIterator::new(file));
        }
        if overload & 2 != 0 {
            gather(&mut options, DhcpOptionIterator::new(sname));
        }
        let file = if overload & 1 == 0 { text(file) } else { String::new() };
        let kind = match find(&options, option::MESSAGE_TYPE) {
            Some([code]) => Kind::from_code(*code).ok_or(DecodeError::NotDhcp)?,
            _ => return Err(DecodeError::NotDhcp),
        };
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(field);
        Ok(Self {
            is_request: operation == 1,
            kind,
            htype,
            hlen,
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            siaddr: message.siaddr(),
            giaddr: message.giaddr(),
            chaddr,
            file,
            options,
        })
    }

    /// What an option holds.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        find(&self.options, code)
    }

    /// An option that holds one address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code).and_then(|data| <[u8; 4]>::try_from(data).ok()).map(Ipv4Addr::from)
    }

    /// Which file to boot, in a server's message: from its option, else from the header's field.
    pub fn boot_file(&self) -> Option<String> {
        let named = self.option(option::BOOT_FILE).map(text).unwrap_or_else(|| self.file.clone());
        (!named.is_empty()).then_some(named)
    }

    /// The client's Ethernet address, if it has one.
    pub fn mac(&self) -> Option<Mac> {
        let [a, b, c, d, e, f, ..] = self.chaddr;
        let mac = Mac::new([a, b, c, d, e, f]);
        (self.htype == 1 && self.hlen == 6 && mac.is_unicast()).then_some(mac)
    }

    /// Whether a relay agent passed it on.
    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Whether the client can only hear broadcasts.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// The link that a relay asks for when it is not that of its own address: option 82, sub-option 5
    /// (RFC 3527).
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        let mut rest = self.option(option::RELAY_AGENT)?;
        while let [code, length, tail @ ..] = rest {
            let (data, tail) = tail.split_at_checked(usize::from(*length))?;
            if *code == 5 {
                return <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
            }
            rest = tail;
        }
        None
    }
}

/// Text up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn find(options: &[(u8, Vec<u8>)], code: u8) -> Option<&[u8]> {
    options.iter().find(|(c, _)| *c == code).map(|(_, data)| data.as_slice())
}

fn gather(options: &mut Vec<(u8, Vec<u8>)>, found: DhcpOptionIterator<'_>) {
    for one in found {
        let code = u8::from(one.code());
        match options.iter_mut().find(|(c, _)| *c == code) {
            // Each of these stands once (RFC 2132), and joined they would mean nothing: the first counts.
            Some(_) if matches!(code, option::MESSAGE_TYPE | option::SERVER_ID | option::REQUESTED_ADDRESS) => {}
            Some((_, data)) => data.extend_from_slice(one.data()),
            None => options.push((code, one.data().to_vec())),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client's message with these options, as bytes.
    pub(crate) fn bytes(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; 240];
        out[..4].copy_from_slice(&[1, 1, 6, 0]);
        out[4..8].copy_from_slice(&0x0102_0304u32.to_be_bytes());
        out[28..34].copy_from_slice(&[0x52, 0x54, 0, 0xab, 0xcd, 1]);
        out[236..240].copy_from_slice(&[99, 130, 83, 99]);
        for (code, data) in options {
            out.extend([*code, data.len() as u8]);
            out.extend(*data);
        }
        out.push(255);
        out
    }

    #[test]
    fn a_long_hardware_address_is_refused() {
        let mut packet = bytes(&[(53, &[1])]);
        packet[2] = 17;
        assert_eq!(Packet::decode(&packet), Err(DecodeError::HardwareLength(17)));
        packet[2] = 16;
        assert_eq!(Packet::decode(&packet).unwrap().mac(), None);
    }

    /// An owned decoder stops at a host name that is no UTF-8 and loses the architecture behind it.
    #[test]
    fn a_broken_option_hides_no_other() {
        let packet = Packet::decode(&bytes(&[(53, &[1]), (12, &[0xff, 0xfe]), (80, &[1]), (93, &[0, 7])])).unwrap();
        assert_eq!(packet.option(option::CLIENT_ARCH), Some(&[0, 7][..]));
    }

    #[test]
    fn options_are_joined_and_overloaded_fields_are_read() {
        let mut packet = bytes(&[(53, &[3]), (60, b"PXE"), (52, &[3]), (60, b"Cli")]);
        packet[108..113].copy_from_slice(&[60, 2, b'e', b'n', 255]);
        packet[44..48].copy_from_slice(&[60, 1, b't', 255]);
        let packet = Packet::decode(&packet).unwrap();
        assert_eq!(packet.option(option::VENDOR_CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(packet.kind, Kind::Request);
    }

    #[test]
    fn what_is_not_dhcp_is_said() {
        assert_eq!(Packet::decode(&[0; 239]), Err(DecodeError::Size(239)));
        assert_eq!(Packet::decode(&vec![0; 5000]), Err(DecodeError::Size(5000)));
        assert_eq!(Packet::decode(&[0; 300]), Err(DecodeError::Operation(0)));
        assert_eq!(Packet::decode(&bytes(&[])), Err(DecodeError::NotDhcp));
        assert_eq!(Packet::decode(&bytes(&[(53, &[99])])), Err(DecodeError::NotDhcp));
        let mut bootp = bytes(&[(53, &[1])]);
        bootp[236] = 0;
        assert_eq!(Packet::decode(&bootp), Err(DecodeError::NotDhcp));
    }

    #[test]
    fn link_selection_is_found_among_sub_options() {
        let packet = |data: &[u8]| Packet::decode(&bytes(&[(53, &[1]), (82, data)])).unwrap().link_selection();
        assert_eq!(packet(&[1, 2, 9, 9, 5, 4, 10, 0, 0, 1]), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(packet(&[1, 200, 9]), None);
        assert_eq!(packet(&[5, 3, 1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(mut packet in prop::collection::vec(any::<u8>(), 0..700), like: bool) {
            if like && packet.len() > 240 {
                packet[0] = 1;
                packet[2] %= 17;
                packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
            }
            if let Ok(packet) = Packet::decode(&packet) {
                let _ = (packet.mac(), packet.link_selection());
            }
        }
    }
}
