//! Wake-on-LAN: `wol://52-54-00-12-34-56`, for machines that have no controller. It can switch on and nothing else,
//! and nobody answers: that a packet was sent is all that is known.
//!
//! The magic packet goes to the broadcast address of the server's networks; `?to=10.0.3.255` sends it to another
//! address (a directed broadcast, or a host that relays it), `?port=7` to another port than 9, and
//! `?interface=eth1` out of one interface alone. A SecureOn password is the Secret's `password`, written as a MAC.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::UdpSocket;
use url::Url;

use super::{Abilities, Credential, PowerControl, PowerDriver, PowerError, Result};
use crate::Mac;

/// The discard port, which most listen on; the card looks at the content alone.
const PORT: u16 = 9;
/// A packet may be lost, and nobody would say so.
const TIMES: u32 = 3;

/// The driver for `wol://`.
#[derive(Debug, Clone, Copy, Default)]
pub struct WakeOnLan;

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    mac: Mac,
    to: SocketAddr,
    interface: Option<String>,
}

impl Address {
    fn parse(address: &Url) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidAddress { address: address.to_string(), reason };
        let like = "expected wol://MAC with dashes, as wol://52-54-00-12-34-56";
        let mac = address.host_str().and_then(|host| host.parse().ok()).ok_or_else(|| wrong(like.to_owned()))?;
        if !matches!(address.path(), "" | "/") || address.port().is_some() {
            return Err(wrong(format!("nothing goes behind the MAC but ?to=, ?port= and ?interface=; {like}")));
        }
        let mut parsed = Self { mac, to: (Ipv4Addr::BROADCAST, PORT).into(), interface: None };
        for (key, value) in address.query_pairs() {
            match &*key {
                "to" => {
                    let to: IpAddr = value.parse().map_err(|_| wrong(format!("`to={value}` is no IP address")))?;
                    parsed.to.set_ip(to);
                }
                "port" => {
                    let port = value.parse().ok().filter(|port| *port != 0);
                    parsed.to.set_port(port.ok_or_else(|| wrong(format!("`port={value}` is no port")))?);
                }
                "interface" => parsed.interface = Some(value.into_owned()),
                other => return Err(wrong(format!("`{other}` is not known; there are to, port and interface"))),
            }
        }
        Ok(parsed)
    }
}

/// Six times FFh, the address sixteen times, and the password (AMD, "Magic Packet Technology", 1995).
fn magic_packet(mac: Mac, password: Option<Mac>) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    (0..16).for_each(|_| packet.extend(mac.octets()));
    packet.extend(password.iter().flat_map(|password| password.octets()));
    packet
}

impl WakeOnLan {
    fn waker(address: &Url, credential: Option<&Credential>) -> Result<Waker> {
        let Address { mac, to, interface } = Address::parse(address)?;
        let password = credential.map(|credential| credential.password.reveal().parse()).transpose();
        let password = password.map_err(|_| PowerError::InvalidCredential {
            reason: "a SecureOn password is six bytes, written as a MAC".to_owned(),
        })?;
        Ok(Waker { packet: magic_packet(mac, password), to, interface })
    }
}

#[async_trait]
impl PowerDriver for WakeOnLan {
    fn scheme(&self) -> &'static str {
        "wol"
    }

    fn check(&self, address: &Url) -> Result<()> {
        Address::parse(address).map(drop)
    }

    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(Self::waker(address, credential)?))
    }
}

struct Waker {
    /// Its end may be a password.
    packet: Vec<u8>,
    to: SocketAddr,
    interface: Option<String>,
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").field("to", &self.to).field("interface", &self.interface).finish_non_exhaustive()
    }
}

#[async_trait]
impl PowerControl for Waker {
    async fn on(&self) -> Result<()> {
        let unreachable = |error: std::io::Error| PowerError::Unreachable { source: error.into() };
        let any: SocketAddr = if self.to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
        socket.set_broadcast(true).map_err(unreachable)?;
        #[cfg(target_os = "linux")]
        if let Some(interface) = &self.interface {
            let bound = socket.bind_device(Some(interface.as_bytes()));
            bound.map_err(|error| PowerError::Unreachable {
                source: format!("it cannot send out of interface {interface}: {error}").into(),
            })?;
        }
        #[cfg(not(target_os = "linux"))]
        if self.interface.is_some() {
            return Err(PowerError::Unreachable { source: "`interface` is known on Linux only".into() });
        }
        for _ in 0..TIMES {
            socket.send_to(&self.packet, self.to).await.map_err(unreachable)?;
        }
        Ok(())
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| Address::parse(&text.parse().unwrap());
        let plain = parse("wol://52-54-00-12-34-56").unwrap();
        assert_eq!(plain.to, "255.255.255.255:9".parse().unwrap());
        let whole = parse("wol://52-54-00-12-34-56?to=10.0.3.255&port=7&interface=eth1").unwrap();
        assert_eq!((whole.to, whole.interface.as_deref()), ("10.0.3.255:7".parse().unwrap(), Some("eth1")));
        for (text, why) in [
            ("wol://10.0.0.1", "expected wol://MAC"),
            ("wol://52-54-00-12-34", "expected wol://MAC"),
            ("wol://52-54-00-12-34-56/x", "nothing goes behind the MAC"),
            ("wol://52-54-00-12-34-56:9", "nothing goes behind the MAC"),
            ("wol://52-54-00-12-34-56?to=gateway", "`to=gateway` is no IP address"),
            ("wol://52-54-00-12-34-56?port=0", "`port=0` is no port"),
            ("wol://52-54-00-12-34-56?via=eth1", "`via` is not known"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_magic_packet_arrives_byte_for_byte() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let address: Url = format!("wol://52-54-00-12-34-56?to=127.0.0.1&port={port}").parse().unwrap();
        let credential = Credential { username: String::new(), password: "01:02:03:04:05:06".to_owned().into() };
        for (credential, behind) in [(None, &[][..]), (Some(&credential), &[1, 2, 3, 4, 5, 6])] {
            let waker = WakeOnLan.open(&address, credential).await.unwrap();
            assert_eq!(waker.abilities().words(), ["on"]);
            waker.on().await.unwrap();
            for _ in 0..TIMES {
                let mut packet = [0; 200];
                let length = socket.recv(&mut packet).await.unwrap();
                let wanted = [&[0xff; 6], &[0x52, 0x54, 0x00, 0x12, 0x34, 0x56].repeat(16)[..], behind].concat();
                assert_eq!(packet[..length], wanted);
            }
        }
        let wrong = Credential { password: "secret".to_owned().into(), ..credential };
        let error = WakeOnLan.open(&address, Some(&wrong)).await.unwrap_err();
        assert!(matches!(error, PowerError::InvalidCredential { .. }), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
}
