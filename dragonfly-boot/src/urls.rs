//! Where a machine reaches the boot services by HTTP.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dragonfly_core::Mac;
use url::Url;

/// The address under which one machine reaches us: `http://192.168.77.1:3000`, without a final slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(String);

impl Base {
    /// Plain HTTP at an address and port.
    pub fn at(address: SocketAddr) -> Self {
        // An IPv4 address that came in on a socket of both families reads better, and is what
        // IPv4-only firmware understands.
        Self(format!("http://{}", SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    /// The same, in two parts.
    pub fn new(address: IpAddr, port: u16) -> Self {
        Self::at(SocketAddr::new(address, port))
    }

    /// What a client wrote into its `Host` header, if it is nothing but a host and a port. It goes
    /// back to that client only.
    pub fn from_host(host: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
        let fits = !host.is_empty() && host.len() <= 255 && host.chars().all(plain);
        (fits && host.parse::<::http::uri::Authority>().is_ok()).then(|| Self(format!("http://{host}")))
    }

    /// A configured URL; a path in it is kept.
    pub fn from_url(url: &Url) -> Self {
        Self(url.as_str().trim_end_matches('/').to_owned())
    }

    /// A machine's boot script.
    pub fn script(&self, mac: Mac) -> String {
        format!("{self}/boot/{mac}")
    }

    /// A machine's identity archive.
    pub fn identity(&self, mac: Mac) -> String {
        format!("{self}/boot/{mac}/identity")
    }

    /// A machine's unified kernel image, its identity inside.
    pub fn unified_kernel(&self, mac: Mac) -> String {
        format!("{self}/boot/{mac}/mage.efi")
    }

    /// A boot file that is the same for every machine.
    pub fn file(&self, name: &str) -> String {
        format!("{self}/boot/files/{name}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_header_is_a_host_and_nothing_else() {
        for good in ["192.168.77.1:3000", "boot.example.org", "[fd00::1]:3000"] {
            assert_eq!(Base::from_host(good).map(|b| b.to_string()), Some(format!("http://{good}")));
        }
        for bad in ["", "a b", "x\nkernel evil", "${evil}", "user@host", "host/path", &"a".repeat(300)] {
            assert_eq!(Base::from_host(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_make_urls() {
        let mac = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);
        let base = Base::at("[::ffff:192.168.77.1]:3000".parse().unwrap());
        assert_eq!(base.script(mac), "http://192.168.77.1:3000/boot/52:54:00:ab:cd:01");
        assert_eq!(Base::at("[fd00::1]:80".parse().unwrap()).file("a"), "http://[fd00::1]:80/boot/files/a");
        let url = "https://boot.example.org/df/".parse().unwrap();
        assert_eq!(Base::from_url(&url).identity(mac), "https://boot.example.org/df/boot/52:54:00:ab:cd:01/identity");
    }
}
