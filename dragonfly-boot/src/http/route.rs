//! Which of the boot services' resources a path names.

use dragonfly_core::Mac;

/// A resource under `/boot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/boot/{mac}`: a machine's boot script.
    Script(Mac),
    /// `/boot/{mac}/identity`: its identity archive.
    Identity(Mac),
    /// `/boot/{mac}/mage.efi`: its unified kernel image.
    UnifiedKernel(Mac),
    /// `/boot/files/...`: a file that is the same for all.
    File(String),
}

/// Why a path names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// It is not under `/boot`, or under no branch of it.
    #[error(
        "no such resource; there are /boot/{{mac}}, /boot/{{mac}}/identity, /boot/{{mac}}/mage.efi and /boot/files/..."
    )]
    Unknown,
    /// A machine was meant, and this is no MAC address.
    #[error("`{text}` is not a MAC address; write six pairs of hex digits, as in /boot/52:54:00:ab:cd:01")]
    BadMac {
        /// What stands there, cut to 40 characters, with strange ones left out.
        text: String,
    },
    /// An address that no network card has: of a group (IEEE 802, the lowest bit of the first octet), or all zeros.
    #[error("{mac} is no network card's address: it is a group's, or all zeros")]
    NoCard {
        /// The address.
        mac: Mac,
    },
    /// A `%` without two hex digits, or bytes that are no text.
    #[error("the path is not well-formed UTF-8 in percent-encoding")]
    BadEncoding,
}

impl Route {
    /// Reads the path of a request, still percent-encoded.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let rest = path.strip_prefix("/boot/").ok_or(RouteError::Unknown)?;
        if let Some(name) = rest.strip_prefix("files/") {
            return decode(name).map(Self::File);
        }
        let (mac, what) = match rest.split_once('/') {
            Some((mac, what)) => (mac, Some(what)),
            None => (rest, None),
        };
        let text = decode(mac)?;
        let mac = text.parse::<Mac>().map_err(|_| {
            let printable = text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
            RouteError::BadMac { text: printable }
        })?;
        if !mac.is_unicast() {
            return Err(RouteError::NoCard { mac });
        }
        match what {
            None | Some("") => Ok(Self::Script(mac)),
            Some("identity") => Ok(Self::Identity(mac)),
            Some("mage.efi") => Ok(Self::UnifiedKernel(mac)),
            Some(_) => Err(RouteError::Unknown),
        }
    }
}

/// Percent-decoding (RFC 3986 section 2.1), once.
fn decode(text: &str) -> Result<String, RouteError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digit = |b: &u8| char::from(*b).to_digit(16);
        match tail {
            [a, b, tail @ ..] => match (digit(a), digit(b)) {
                (Some(high), Some(low)) => {
                    out.push((high << 4 | low) as u8);
                    rest = tail;
                }
                _ => return Err(RouteError::BadEncoding),
            },
            _ => return Err(RouteError::BadEncoding),
        }
    }
    String::from_utf8(out).map_err(|_| RouteError::BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths() {
        let mac = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);
        let good = [
            ("/boot/52:54:00:ab:cd:01", Route::Script(mac)),
            ("/boot/52-54-00-AB-CD-01", Route::Script(mac)),
            ("/boot/52%3A54%3a00:ab:cd:01", Route::Script(mac)),
            ("/boot/525400abcd01/", Route::Script(mac)),
            ("/boot/52:54:00:ab:cd:01/identity", Route::Identity(mac)),
            ("/boot/52:54:00:ab:cd:01/mage.efi", Route::UnifiedKernel(mac)),
            ("/boot/files/arm64/vmlinuz", Route::File("arm64/vmlinuz".into())),
            ("/boot/files/a%20b", Route::File("a b".into())),
            // Decoded once; whether the name is a good one is the files' business.
            ("/boot/files/%2e%2e/x", Route::File("../x".into())),
            ("/boot/files/%252e", Route::File("%2e".into())),
        ];
        for (path, want) in good {
            assert_eq!(Route::parse(path), Ok(want), "{path}");
        }
        for path in ["", "/", "/boot", "/bootx/y", "/boot/52:54:00:ab:cd:01/other"] {
            assert_eq!(Route::parse(path), Err(RouteError::Unknown), "{path}");
        }
        for path in ["/boot/", "/boot/hello", "/boot/files", "/boot/../etc/passwd"] {
            assert!(matches!(Route::parse(path), Err(RouteError::BadMac { .. })), "{path}");
        }
        for path in ["/boot/01:00:5e:00:00:01", "/boot/ff-ff-ff-ff-ff-ff/identity", "/boot/000000000000/mage.efi"] {
            assert!(matches!(Route::parse(path), Err(RouteError::NoCard { .. })), "{path}");
        }
        for path in ["/boot/files/%", "/boot/files/%g0", "/boot/files/%ff", "/boot/%f"] {
            assert_eq!(Route::parse(path), Err(RouteError::BadEncoding), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_an_answer(path in "(/boot/)?(files/)?[ -~%]{0,60}") {
            let _ = Route::parse(&path);
        }
    }
}
