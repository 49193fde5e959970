//! TFTP messages as bytes (RFC 1350 section 5, options RFC 2347, 2348, 2349, 7440).

use std::fmt;

/// The largest request that is looked at (RFC 2347: 512 bytes).
pub const MAX_REQUEST: usize = 512;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// It wants to read a file.
    Read(Request),
    /// It wants to write one; refused always.
    Write,
    /// It has this block, and all before it.
    Ack(u16),
    /// It gives up. OVMF does so on purpose after it has learned the size.
    Error {
        /// As in [`ErrorCode`].
        code: u16,
        /// Its words, cut to 80 characters.
        message: String,
    },
}

/// A read request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The file's name.
    pub name: String,
    /// Whether the mode is `octet`; any other is refused.
    pub octet: bool,
    /// `blksize`: bytes a block.
    pub block_size: Option<u16>,
    /// Whether it asks for the size.
    pub size: bool,
    /// `timeout`: seconds between retransmissions.
    pub timeout: Option<u8>,
    /// `windowsize`: blocks between acknowledgements.
    pub window: Option<u16>,
}

/// Error codes (RFC 1350 appendix, RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorCode {
    NotDefined = 0,
    NotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
    BadOption = 8,
}

/// Bytes that are no TFTP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TFTP message of a client")]
pub struct NotTftp;

impl Incoming {
    /// Reads a message. Unknown options are ignored, and so are known ones with values out of range
    /// (RFC 2347: what is not acknowledged is not in effect).
    pub fn decode(bytes: &[u8]) -> Result<Self, NotTftp> {
        match bytes {
            [0, 1, rest @ ..] if bytes.len() <= MAX_REQUEST => Request::decode(rest).map(Self::Read),
            [0, 2, ..] => Ok(Self::Write),
            [0, 4, high, low, ..] => Ok(Self::Ack(u16::from_be_bytes([*high, *low]))),
            [0, 5, high, low, rest @ ..] => {
                let text = rest.split(|b| *b == 0).next().unwrap_or_default();
                let message = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(80).collect();
                Ok(Self::Error { code: u16::from_be_bytes([*high, *low]), message })
            }
            _ => Err(NotTftp),
        }
    }
}

impl Request {
    fn decode(bytes: &[u8]) -> Result<Self, NotTftp> {
        // Each field ends with a zero; some firmware leaves it out after the last.
        let mut fields = bytes.split(|b| *b == 0).map(|field| std::str::from_utf8(field).map_err(|_| NotTftp));
        let mut next = || fields.next().transpose();
        let (Some(name), Some(mode)) = (next()?, next()?) else { return Err(NotTftp) };
        let mut request = Self { name: name.to_owned(), octet: mode.eq_ignore_ascii_case("octet"), ..Self::default() };
        while let (Ok(Some(option)), Ok(Some(value))) = (next(), next()) {
            match option.to_ascii_lowercase().as_str() {
                "blksize" => request.block_size = value.parse().ok().filter(|n| (8..=65464).contains(n)),
                "tsize" => request.size = value.parse::<u64>().is_ok(),
                "timeout" => request.timeout = value.parse().ok().filter(|n| *n > 0),
                "windowsize" => request.window = value.parse().ok().filter(|n| *n > 0),
                _ => {}
            }
        }
        Ok(request)
    }
}

/// A block of the file.
pub fn data(block: u16, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + content.len());
    out.extend([0, 3]);
    out.extend(block.to_be_bytes());
    out.extend(content);
    out
}

/// An error; it ends the transfer.
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut out = vec![0, 5, 0, code as u8];
    out.extend(message.bytes().filter(|b| *b != 0).take(200));
    out.push(0);
    out
}

/// An acknowledgement of options.
pub fn option_ack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = vec![0, 6];
    for (name, value) in options {
        out.extend(name.bytes());
        out.push(0);
        out.extend(value.to_string().bytes());
        out.push(0);
    }
    out
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = self.name.chars().map(|c| if c.is_control() { '_' } else { c }).take(120).collect();
        f.write_str(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests() {
        let read = |bytes: &[u8]| match Incoming::decode(bytes) {
            Ok(Incoming::Read(request)) => Some(request),
            _ => None,
        };
        // As OVMF sends it.
        let ovmf = b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
        let want = Request {
            name: "snponly.efi".into(),
            octet: true,
            block_size: Some(1468),
            size: true,
            timeout: None,
            window: Some(4),
        };
        assert_eq!(read(ovmf), Some(want));
        let plain = read(b"\0\x01a\0NETASCII\0").unwrap();
        assert!(!plain.octet && plain.block_size.is_none());
        let odd = read(b"\0\x01a\0OcTeT\0BLKSIZE\x007\0timeout\x00300\0windowsize\x000\0x\0y\0tsize").unwrap();
        assert_eq!(odd, Request { name: "a".into(), octet: true, ..Request::default() });
        assert_eq!(read(b"\0\x01a"), None);
        assert_eq!(read(b"\0\x01\xff\xfe\0octet\0"), None);
        assert_eq!(read(&[b"\0\x01".as_slice(), &[b'a'; 600]].concat()), None);
        assert_eq!(Incoming::decode(b"\0\x02a\0octet\0"), Ok(Incoming::Write));
        assert_eq!(Incoming::decode(b"\0\x04\x01\x02"), Ok(Incoming::Ack(0x102)));
        let error = Incoming::Error { code: 8, message: "User aborted".into() };
        assert_eq!(Incoming::decode(b"\0\x05\0\x08User\n aborted\0junk"), Ok(error));
        for bad in [&b""[..], b"\0", b"\0\x03\0\x01x", b"\0\x04\0", b"GET / HTTP/1.1"] {
            assert_eq!(Incoming::decode(bad), Err(NotTftp), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Incoming::decode(&bytes);
        }
    }
}
