//! Ethernet hardware addresses.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 48-bit Ethernet hardware address (IEEE 802, EUI-48).
///
/// Parses `52:54:00:ab:cd:01`, `52-54-00-AB-CD-01` and `525400abcd01`; prints lower case with
/// colons.
///
/// ```
/// use dragonfly_core::Mac;
/// let mac: Mac = "52-54-00-AB-CD-01".parse().unwrap();
/// assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// Text that is not a hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a MAC address; write six pairs of hex digits, as in 52:54:00:ab:cd:01")]
pub struct ParseMacError {
    /// What was given, cut to 40 characters.
    pub text: String,
}

impl Mac {
    /// The address with these octets, the first sent first.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, the first sent first.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this can be the address of one interface: neither all zeros nor a group address.
    pub const fn is_unicast(self) -> bool {
        let zero = self.0[0] | self.0[1] | self.0[2] | self.0[3] | self.0[4] | self.0[5];
        zero != 0 && self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let bad = || ParseMacError { text: text.chars().take(40).collect() };
        let bytes = text.as_bytes();
        let step = match bytes.len() {
            12 => 2,
            17 => 3,
            _ => return Err(bad()),
        };
        let mut octets = [0u8; 6];
        for (i, octet) in octets.iter_mut().enumerate() {
            let at = i * step;
            let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
            let (Some(high), Some(low)) = (digit(bytes[at]), digit(bytes[at + 1])) else {
                return Err(bad());
            };
            if step == 3 && i < 5 && bytes[at + 2] != bytes[2] {
                return Err(bad());
            }
            *octet = high << 4 | low;
        }
        if step == 3 && !matches!(bytes[2], b':' | b'-') {
            return Err(bad());
        }
        Ok(Self(octets))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Mac {
    fn schema_name() -> Cow<'static, str> {
        "Mac".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9a-fA-F]{2}[:-]?){5}[0-9a-fA-F]{2}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_common_spelling() {
        let want = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);
        for text in ["52:54:00:ab:cd:01", "52-54-00-AB-CD-01", "525400ABcd01"] {
            assert_eq!(text.parse::<Mac>().unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for text in ["", "52:54:00:ab:cd", "52:54-00:ab:cd:01", "52.54.00.ab.cd.01", "zz:54:00:ab:cd:01", "5254é0abcd0"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
