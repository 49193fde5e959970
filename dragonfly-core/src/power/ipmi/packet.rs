//! Packets on the wire: RMCP (ASF 2.0, 3.2.2), the RMCP+ session header (IPMI 2.0, table 13-8) and IPMI
//! messages (13.8).

use subtle::ConstantTimeEq;

use super::suite::Keys;

/// RMCP: version 1.0, no acknowledgement, class IPMI.
const RMCP: [u8; 4] = [0x06, 0x00, 0xff, 0x07];
/// The session header's format that RMCP+ brought.
const RMCP_PLUS: u8 = 0x06;
/// Bits of the payload type.
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// Where a payload begins, of packets without an OEM payload type.
const HEADER: usize = 16;
/// The next header of a session trailer.
const NEXT: u8 = 0x07;

/// What a packet carries (table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Payload {
    /// An IPMI message.
    Ipmi = 0x00,
    OpenRequest = 0x10,
    OpenResponse = 0x11,
    Rakp1 = 0x12,
    Rakp2 = 0x13,
    Rakp3 = 0x14,
    Rakp4 = 0x15,
}

impl Payload {
    const ALL: [Self; 7] =
        [Self::Ipmi, Self::OpenRequest, Self::OpenResponse, Self::Rakp1, Self::Rakp2, Self::Rakp3, Self::Rakp4];

    fn find(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte)
    }
}

/// A packet outside a session.
pub(crate) fn plain(payload: Payload, bytes: &[u8]) -> Vec<u8> {
    let mut packet = header(payload as u8, 0, 0, bytes.len());
    packet.extend(bytes);
    packet
}

fn header(payload: u8, session: u32, sequence: u32, length: usize) -> Vec<u8> {
    let mut packet = RMCP.to_vec();
    packet.extend([RMCP_PLUS, payload]);
    packet.extend(session.to_le_bytes());
    packet.extend(sequence.to_le_bytes());
    packet.extend((length as u16).to_le_bytes());
    packet
}

/// What a packet outside a session carries.
pub(crate) fn open_plain(packet: &[u8]) -> Option<(Payload, &[u8])> {
    if packet.get(..5)? != [&RMCP[..], &[RMCP_PLUS]].concat() {
        return None;
    }
    let payload = Payload::find(*packet.get(5)?)?;
    let length = usize::from(u16::from_le_bytes(packet.get(14..16)?.try_into().ok()?));
    Some((payload, packet.get(HEADER..HEADER + length)?))
}

/// The session that a packet says it belongs to: whose keys open it.
pub(crate) fn session_of(packet: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(packet.get(6..10)?.try_into().ok()?))
}

/// An IPMI message, sealed for a session.
pub(crate) fn seal(keys: &Keys, session: u32, sequence: u32, iv: [u8; 16], message: &[u8]) -> Vec<u8> {
    let body = keys.encrypt(iv, message);
    let mut packet = header(ENCRYPTED | AUTHENTICATED | Payload::Ipmi as u8, session, sequence, body.len());
    packet.extend(body);
    // From the session header to the next header, a multiple of four.
    let pad = (4 - (packet.len() - RMCP.len() + 2) % 4) % 4;
    packet.resize(packet.len() + pad, 0xff);
    packet.extend([pad as u8, NEXT]);
    let code = keys.code(&packet[RMCP.len()..]);
    packet.extend(code);
    packet
}

/// The sequence number and the message of a packet that was sealed with these keys.
pub(crate) fn open(keys: &Keys, packet: &[u8]) -> Option<(u32, Vec<u8>)> {
    let (signed, code) = packet.split_at_checked(packet.len().checked_sub(keys.code_length())?)?;
    let kind = ENCRYPTED | AUTHENTICATED | Payload::Ipmi as u8;
    if signed.get(..6)? != [&RMCP[..], &[RMCP_PLUS, kind]].concat() {
        return None;
    }
    if !bool::from(keys.code(&signed[RMCP.len()..]).ct_eq(code)) {
        return None;
    }
    let sequence = u32::from_le_bytes(signed.get(10..14)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(signed.get(14..HEADER)?.try_into().ok()?));
    Some((sequence, keys.decrypt(signed.get(HEADER..HEADER + length)?)?))
}

/// One request or response between software and controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Network function; odd in a response.
    pub(crate) function: u8,
    pub(crate) command: u8,
    /// Which request a response is to: six bits.
    pub(crate) number: u8,
    /// Of a response, the completion code is its first byte.
    pub(crate) data: Vec<u8>,
}

/// The controller's own address, and that of remote software.
const CONTROLLER: u8 = 0x20;
const SOFTWARE: u8 = 0x81;

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

impl Message {
    /// As it goes to the controller.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (to, from) = if self.function & 1 == 0 { (CONTROLLER, SOFTWARE) } else { (SOFTWARE, CONTROLLER) };
        let mut bytes = vec![to, self.function << 2];
        bytes.push(checksum(&bytes));
        bytes.extend([from, self.number << 2, self.command]);
        bytes.extend(&self.data);
        bytes.push(checksum(&bytes[3..]));
        bytes
    }

    /// `None` if it is too short or a sum is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [_, function, _, _, number, command, data @ .., _] = bytes else { return None };
        let (first, second) = bytes.split_at(3);
        if checksum(first) != 0 || checksum(second) != 0 {
            return None;
        }
        Some(Self { function: function >> 2, command: *command, number: number >> 2, data: data.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::Suite;
    use super::*;
    use proptest::prelude::*;

    fn keys(suite: Suite) -> Keys {
        Keys::derive(suite, b"a session integrity key")
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(data in prop::collection::vec(any::<u8>(), 0..200), session: u32, sequence: u32,
                                    iv: [u8; 16], flip: prop::sample::Index, bit in 0u8..8) {
            for suite in [Suite::Sha1, Suite::Sha256] {
                let message = Message { function: 6, command: 1, number: 7, data: data.clone() };
                let mut packet = seal(&keys(suite), session, sequence, iv, &message.to_bytes());
                prop_assert_eq!((packet.len() - 4 - suite.code_length()) % 4, 0);
                prop_assert_eq!(session_of(&packet), Some(session));
                let (number, bytes) = open(&keys(suite), &packet).unwrap();
                prop_assert_eq!((number, Message::parse(&bytes)), (sequence, Some(message)));
                // No bit of it can be changed.
                let at = flip.index(packet.len());
                packet[at] ^= 1 << bit;
                prop_assert!(open(&keys(suite), &packet).is_none());
            }
        }

        #[test]
        fn anything_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (open_plain(&bytes), session_of(&bytes), Message::parse(&bytes));
            for suite in [Suite::Sha1, Suite::Sha256] {
                let _ = (open(&keys(suite), &bytes), keys(suite).decrypt(&bytes));
            }
        }
    }

    #[test]
    fn a_request_as_the_specification_draws_it() {
        let message = Message { function: 6, command: 0x3b, number: 1, data: vec![4] };
        let bytes = message.to_bytes();
        assert_eq!(bytes, [0x20, 0x18, 0xc8, 0x81, 0x04, 0x3b, 0x04, 0x3c]);
        assert_eq!(Message::parse(&bytes), Some(message));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            assert_eq!(Message::parse(&wrong), None, "byte {at}");
        }
    }
}
