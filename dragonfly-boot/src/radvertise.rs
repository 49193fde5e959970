//! One IPv6 router advertisement that says: there is no router here (RFC 4861 section 4.2).
//!
//! iPXE waits 13 to 16 s for a router on a segment that has none. Router lifetime 0 makes us nobody's
//! default router and no prefix gives nobody an address, so hosts are not changed by it.

use dragonfly_core::Mac;

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 134;

/// The ICMPv6 message. Its checksum is the kernel's to fill in (RFC 3542 section 3.1); it must leave
/// with hop limit 255, or it is ignored.
pub fn advertisement(mac: Option<Mac>) -> Vec<u8> {
    let mut out = vec![
        ADVERTISEMENT,
        0, // code
        0,
        0, // checksum
        0, // hop limit: not said
        0, // neither managed nor other configuration: no DHCPv6
        0,
        0, // router lifetime
        0,
        0,
        0,
        0, // reachable time: not said
        0,
        0,
        0,
        0, // retransmission timer: not said
    ];
    if let Some(mac) = mac {
        // Source link-layer address (RFC 4861 section 4.6.1): type 1, one unit of eight bytes.
        out.extend([1, 1]);
        out.extend(mac.octets());
    }
    out
}

/// Whether bytes are a router solicitation (RFC 4861 section 4.1).
pub fn is_solicitation(message: &[u8]) -> bool {
    message.len() >= 8 && message.starts_with(&[SOLICITATION, 0])
}

/// The card that a solicitation says it comes from: its source link-layer address (RFC 4861 section
/// 4.6.1).
pub fn solicitor(message: &[u8]) -> Option<Mac> {
    let mut rest = message.get(8..).filter(|_| is_solicitation(message))?;
    while let [kind, units, ..] = rest {
        // A length of 0 would go round for ever (section 4.6).
        let (option, tail) = rest.split_at_checked(usize::from(*units) * 8).filter(|_| *units > 0)?;
        if *kind == 1 {
            return option.get(2..8).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).map(Mac::new);
        }
        rest = tail;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_promises_nothing() {
        let message = advertisement(Some(Mac::new([2, 0, 0, 0, 0, 1])));
        assert_eq!(message.len(), 24);
        assert_eq!(message[..2], [134, 0]);
        assert!(message[2..16].iter().all(|b| *b == 0));
        assert_eq!(message[16..], [1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(advertisement(None).len(), 16);
    }

    #[test]
    fn solicitations_are_known() {
        assert!(is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!is_solicitation(&[133, 0, 0, 0]));
        assert!(!is_solicitation(&[134, 0, 0, 0, 0, 0, 0, 0]));
        let from = |options: &[u8]| solicitor(&[&[133, 0, 0, 0, 0, 0, 0, 0], options].concat());
        let nonce = [14, 1, 9, 9, 9, 9, 9, 9];
        let source = [1, 1, 2, 0, 0, 0, 0, 5];
        assert_eq!(from(&[nonce, source].concat()), Some(Mac::new([2, 0, 0, 0, 0, 5])));
        for bad in [&[][..], &nonce, &[1, 0, 2, 0], &[1, 1, 2, 0], &[14, 9, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(from(bad), None, "{bad:?}");
        }
    }
}
