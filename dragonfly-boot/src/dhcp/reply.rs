//! Writing an answer, and where it goes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::Encodable as _;
use dhcproto::v4::{DhcpOption, Flags, HType, Message, Opcode, OptionCode, UnknownOption};
use dragonfly_core::Mac;
use dragonfly_core::boot::Firmware;

use super::client::Client;
use super::packet::{Kind, Packet, option};
use super::segment::Segment;

/// BOOTP's smallest message (RFC 1542 section 2.1); some firmware drops shorter ones.
const MIN_SIZE: usize = 300;
/// The header's fields for the server's name and the file, each with a final zero.
const SNAME: usize = 64;
const FILE: usize = 128;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Offer, acknowledgement or refusal.
    pub kind: Kind,
    /// The address given; unspecified when none is.
    pub yiaddr: Ipv4Addr,
    /// Lease time in seconds, when an address is given.
    pub lease_seconds: Option<u32>,
    /// The boot file, for a client that boots.
    pub boot_file: Option<String>,
    /// The host name given.
    pub host_name: Option<String>,
    /// Why it is refused.
    pub message: Option<&'static str>,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a host or relay that has an address.
    Host(SocketAddrV4),
    /// To all on the link, port 68.
    Broadcast,
}

/// Where the answer to a message goes (RFC 2131 section 4.1). A client that has no address yet is
/// reached by broadcast even if it could hear more: sending to an address that nobody answers ARP
/// for takes a link-layer socket, and the RFC allows the broadcast.
pub fn destination(packet: &Packet, reply: Kind, source: SocketAddrV4, boot_server_port: bool) -> Destination {
    if boot_server_port {
        // A PXE client asks from the port that it listens on: 68, or 4011 as edk2 does.
        return match source.ip().is_unspecified() {
            true => Destination::Broadcast,
            false => Destination::Host(source),
        };
    }
    if packet.is_relayed() {
        Destination::Host(SocketAddrV4::new(packet.giaddr, 67))
    } else if reply != Kind::Nak && !packet.ciaddr.is_unspecified() {
        Destination::Host(SocketAddrV4::new(packet.ciaddr, 68))
    } else {
        Destination::Broadcast
    }
}

impl Reply {
    /// The bytes.
    ///
    /// A client that boots is told its file in every way that some firmware looks for it: header and
    /// options 66 and 67, with 43.6=8 (no boot server discovery), 60, 54 and siaddr. Each of these is
    /// there because some firmware does not boot without it.
    pub fn encode(&self, packet: &Packet, client: Client, segment: &Segment) -> Vec<u8> {
        let mut message = Message::new_with_id(
            packet.xid,
            match self.kind {
                Kind::Ack => packet.ciaddr,
                _ => Ipv4Addr::UNSPECIFIED,
            },
            self.yiaddr,
            Ipv4Addr::UNSPECIFIED,
            packet.giaddr,
            packet.chaddr.get(..usize::from(packet.hlen)).unwrap_or_default(),
        );
        let broadcast = if self.kind == Kind::Nak && packet.is_relayed() { 0x8000 } else { 0 };
        message.set_opcode(Opcode::BootReply).set_htype(HType::from(packet.htype));
        message.set_flags(Flags::new(packet.flags | broadcast));
        let mut options = Options::default();
        options.put(option::MESSAGE_TYPE, [self.kind.code()]);
        options.put(option::SERVER_ID, segment.server.octets());
        if self.kind == Kind::Nak {
            options.put(option::MESSAGE, self.message.unwrap_or_default());
        } else {
            self.settings(&mut options, segment);
            self.boot(&mut message, &mut options, client, segment);
            options.echo(packet, option::CLIENT_UUID);
        }
        // Echoed (RFC 6842), so that a client among several on one card knows its own.
        options.echo(packet, option::CLIENT_ID);
        // Echoed as it came, and last (RFC 3046 section 2.2); the encoder sees to the latter.
        options.echo(packet, option::RELAY_AGENT);
        for (code, data) in options.0 {
            message.opts_mut().insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), data)));
        }
        // Nothing in it can fail to be written: every field has its size. Should that change, an
        // empty answer is one that no client takes.
        let mut bytes = message.to_vec().unwrap_or_default();
        if bytes.len() < MIN_SIZE {
            bytes.resize(MIN_SIZE, 0);
        }
        bytes
    }

    fn settings(&self, options: &mut Options, segment: &Segment) {
        if !segment.mode.gives_addresses() {
            return;
        }
        let spec = &segment.spec;
        options.put(option::SUBNET_MASK, spec.subnet.netmask().octets());
        options.put(option::BROADCAST, spec.subnet.broadcast().octets());
        if let Some(router) = spec.router {
            options.put(option::ROUTER, router.octets());
        }
        options.put(option::DNS, octets(&spec.dns));
        options.put(option::NTP, octets(&spec.ntp));
        options.put(option::DOMAIN, spec.domain.as_deref().unwrap_or_default());
        options.put(option::HOST_NAME, self.host_name.as_deref().unwrap_or_default());
        if let Some(seconds) = self.lease_seconds {
            options.put(option::LEASE_TIME, seconds.to_be_bytes());
            options.put(option::RENEWAL_TIME, (seconds / 2).to_be_bytes());
            options.put(option::REBINDING_TIME, (seconds - seconds / 8).to_be_bytes());
        }
    }

    fn boot(&self, message: &mut Message, options: &mut Options, client: Client, segment: &Segment) {
        let (Some(file), Some(platform)) = (&self.boot_file, client.platform()) else { return };
        let server = segment.next_server();
        let name = server.to_string();
        message.set_siaddr(server);
        if name.len() < SNAME {
            message.set_sname(name.as_bytes());
        }
        if file.len() < FILE {
            message.set_fname(file.as_bytes());
        }
        options.put(option::BOOT_FILE, file.as_str());
        options.put(option::TFTP_SERVER, name);
        if matches!(client, Client::Firmware(_)) && platform.firmware == Firmware::UefiHttp {
            options.put(option::VENDOR_CLASS, "HTTPClient");
            return;
        }
        options.put(option::VENDOR_CLASS, "PXEClient");
        // PXE_DISCOVERY_CONTROL = 8: load the file that is named, ask no boot server.
        options.put(option::VENDOR, [6, 1, 8, 255]);
        if matches!(client, Client::Ipxe { .. }) && segment.mode.gives_addresses() {
            // no-pxedhcp: saves the 3 s in which it would wait for a proxy.
            options.put(option::IPXE, [176, 1, 1]);
        }
    }
}

/// A client's DISCOVER from one of our cards, to find out who else answers. `since` makes its
/// transaction differ from the last.
pub fn discover(mac: Mac, since: Duration) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac.octets();
    question(mac, u32::from_be_bytes([c ^ a, d ^ b, e, f]).wrapping_add(since.subsec_nanos()), &[])
}

/// The DISCOVER that this client would send, to find out what another server offers it.
pub fn discover_as(packet: &Packet, mac: Mac) -> Vec<u8> {
    let same = [
        option::PARAMETERS,
        option::VENDOR_CLASS,
        option::CLIENT_ID,
        option::USER_CLASS,
        option::CLIENT_ARCH,
        option::CLIENT_NDI,
        option::CLIENT_UUID,
        option::IPXE,
    ];
    let options: Vec<_> = same.iter().filter_map(|code| Some((*code, packet.option(*code)?))).collect();
    // Another transaction than its own: what is answered is for us.
    question(mac, !packet.xid, &options)
}

fn question(mac: Mac, xid: u32, options: &[(u8, &[u8])]) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &mac.octets());
    // The answer must be heard although the interface has an address already.
    message.set_opcode(Opcode::BootRequest).set_htype(HType::Eth).set_flags(Flags::new(0x8000));
    for (code, data) in [(option::MESSAGE_TYPE, [Kind::Discover.code()].as_slice())].iter().chain(options) {
        let one = UnknownOption::new(OptionCode::from(*code), data.to_vec());
        message.opts_mut().insert(DhcpOption::Unknown(one));
    }
    let mut bytes = message.to_vec().unwrap_or_default();
    bytes.resize(bytes.len().max(MIN_SIZE), 0);
    bytes
}

#[derive(Default)]
struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Empty values are not sent.
    fn put(&mut self, code: u8, data: impl Into<Vec<u8>>) {
        let data = data.into();
        if !data.is_empty() {
            self.0.push((code, data));
        }
    }

    fn echo(&mut self, packet: &Packet, code: u8) {
        self.put(code, packet.option(code).unwrap_or_default());
    }
}

fn octets(addresses: &[Ipv4Addr]) -> Vec<u8> {
    addresses.iter().flat_map(|a| a.octets()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::bytes;
    use super::super::segment::Mode;
    use super::super::tests::segment;
    use super::*;

    fn reply(kind: Kind) -> Reply {
        Reply {
            kind,
            yiaddr: Ipv4Addr::new(10, 0, 0, 150),
            lease_seconds: Some(3600),
            boot_file: Some("undionly.kpxe".into()),
            host_name: None,
            message: None,
        }
    }

    fn answer(reply: &Reply, options: &[(u8, &[u8])], mode: Mode) -> (Packet, Vec<u8>) {
        let packet = Packet::decode(&bytes(options)).unwrap();
        let out = reply.encode(&packet, Client::of(&packet), &segment(mode));
        (Packet::decode(&out).unwrap(), out)
    }

    #[test]
    fn another_server_is_asked_as_the_client_would_ask() {
        let uuid = [7u8; 17];
        let said: &[(u8, &[u8])] =
            &[(53, &[3]), (54, &[10, 0, 0, 66]), (50, &[10, 0, 0, 9]), (60, b"PXEClient"), (93, &[0, 7]), (97, &uuid)];
        let client = Packet::decode(&bytes(said)).unwrap();
        let asked = Packet::decode(&discover_as(&client, client.mac().unwrap())).unwrap();
        assert!(asked.is_request && asked.kind == Kind::Discover && asked.wants_broadcast());
        assert_eq!((asked.mac(), Client::of(&asked)), (client.mac(), Client::of(&client)));
        assert_ne!(asked.xid, client.xid, "the machine takes the answer for nobody's");
        for code in [option::SERVER_ID, option::REQUESTED_ADDRESS] {
            assert_eq!(asked.option(code), None, "{code}: it is to be offered anew");
        }
        assert_eq!(asked.option(option::CLIENT_UUID), Some(uuid.as_slice()));
    }

    #[test]
    fn a_server_names_the_boot_file_in_its_option_or_in_the_header() {
        let (packet, mut out) = answer(&reply(Kind::Offer), &[(53, &[1]), (60, b"PXEClient")], Mode::Full);
        assert_eq!((packet.boot_file().as_deref(), packet.siaddr.octets()), (Some("undionly.kpxe"), [10, 0, 0, 1]));
        let at = out.windows(2).position(|pair| pair == [option::BOOT_FILE, 13]).unwrap();
        out[at] = 224;
        assert_eq!(Packet::decode(&out).unwrap().boot_file().as_deref(), Some("undionly.kpxe"));
        out[108..236].fill(0);
        assert_eq!(Packet::decode(&out).unwrap().boot_file(), None);
    }

    #[test]
    fn firmware_gets_the_superset() {
        let uuid = [0u8; 17];
        let asked: &[(u8, &[u8])] = &[(53, &[1]), (60, b"PXEClient:Arch:00000"), (93, &[0, 0]), (97, &uuid)];
        let (packet, out) = answer(&reply(Kind::Offer), asked, Mode::Full);
        assert!(!packet.is_request && packet.kind == Kind::Offer && packet.xid == 0x0102_0304);
        assert_eq!(out[20..24], [10, 0, 0, 1], "siaddr");
        assert!(out[44..].starts_with(b"10.0.0.1\0"), "sname");
        assert!(out[108..].starts_with(b"undionly.kpxe\0"), "file");
        let want: [(u8, &[u8]); 12] = [
            (1, &[255, 255, 255, 0]),
            (3, &[10, 0, 0, 254]),
            (43, &[6, 1, 8, 255]),
            (51, &3600u32.to_be_bytes()),
            (54, &[10, 0, 0, 1]),
            (58, &1800u32.to_be_bytes()),
            (59, &3150u32.to_be_bytes()),
            (60, b"PXEClient"),
            (66, b"10.0.0.1"),
            (67, b"undionly.kpxe"),
            (97, &uuid),
            (28, &[10, 0, 0, 255]),
        ];
        for (code, data) in want {
            assert_eq!(packet.option(code), Some(data), "option {code}");
        }
        assert_eq!(packet.option(option::IPXE), None);
    }

    #[test]
    fn a_proxy_gives_no_address_settings() {
        let offer = Reply { yiaddr: Ipv4Addr::UNSPECIFIED, lease_seconds: None, ..reply(Kind::Offer) };
        let (packet, _) = answer(&offer, &[(53, &[1]), (60, b"PXEClient"), (93, &[0, 7])], Mode::Proxy);
        for code in [1, 3, 6, 51, 58, 59] {
            assert_eq!(packet.option(code), None, "option {code}");
        }
        assert_eq!(packet.option(60), Some(&b"PXEClient"[..]));
    }

    #[test]
    fn http_boot_is_told_as_http_boot() {
        let url = format!("http://10.0.0.1:3000/{}", "x".repeat(200));
        let offer = Reply { boot_file: Some(url.clone()), ..reply(Kind::Offer) };
        let (packet, out) = answer(&offer, &[(53, &[1]), (60, b"HTTPClient"), (93, &[0, 16])], Mode::Full);
        assert_eq!(packet.option(60), Some(&b"HTTPClient"[..]));
        assert_eq!(packet.option(67), Some(url.as_bytes()));
        assert_eq!((out[108], packet.option(43)), (0, None), "a URL that is too long stays out of the header");
    }

    #[test]
    fn ipxe_need_not_wait_for_a_proxy_where_we_give_addresses() {
        let asked: &[(u8, &[u8])] = &[(53, &[1]), (175, &[19, 1, 1])];
        assert_eq!(answer(&reply(Kind::Ack), asked, Mode::Full).0.option(175), Some(&[176, 1, 1][..]));
        assert_eq!(answer(&reply(Kind::Ack), asked, Mode::Proxy).0.option(175), None);
    }

    #[test]
    fn ordinary_clients_hear_nothing_of_booting() {
        let (packet, out) = answer(&reply(Kind::Ack), &[(53, &[3])], Mode::Full);
        assert_eq!(out.len(), 300);
        assert_eq!((out[108], out[44], &out[20..24]), (0, 0, &[0, 0, 0, 0][..]));
        assert!([43, 60, 66, 67, 175].iter().all(|code| packet.option(*code).is_none()));
    }

    #[test]
    fn the_relays_option_comes_back_last_and_untouched() {
        let circuit = [1, 4, 9, 9, 9, 9, 151, 2, 0, 1];
        let (_, out) = answer(&reply(Kind::Offer), &[(53, &[1]), (82, &circuit), (97, &[0; 17])], Mode::Full);
        let end = out.iter().rposition(|b| *b == 255).unwrap();
        assert_eq!(out[end - circuit.len()..end], circuit);
        assert_eq!(out[end - circuit.len() - 2..end - circuit.len()], [82, 10]);
    }

    #[test]
    fn a_refusal_says_only_that() {
        let nak = Reply { message: Some("why"), yiaddr: Ipv4Addr::UNSPECIFIED, ..reply(Kind::Nak) };
        let (packet, _) = answer(&nak, &[(53, &[3]), (60, b"PXEClient"), (93, &[0, 7])], Mode::Full);
        assert_eq!(packet.option(56), Some(&b"why"[..]));
        assert!([1, 43, 51, 60, 67].iter().all(|code| packet.option(*code).is_none()));
    }

    #[test]
    fn answers_go_where_the_client_hears_them() {
        let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 150), 4011);
        let host = |ip: [u8; 4], port| Destination::Host(SocketAddrV4::new(ip.into(), port));
        let go = |ciaddr: [u8; 4], giaddr: [u8; 4], kind, boot| {
            let mut packet = bytes(&[(53, &[3])]);
            packet[12..16].copy_from_slice(&ciaddr);
            packet[24..28].copy_from_slice(&giaddr);
            destination(&Packet::decode(&packet).unwrap(), kind, source, boot)
        };
        let (client, relay, none) = ([10, 0, 0, 150], [10, 9, 0, 1], [0; 4]);
        assert_eq!(go(none, none, Kind::Offer, false), Destination::Broadcast);
        assert_eq!(go(client, none, Kind::Ack, false), host(client, 68));
        assert_eq!(go(client, none, Kind::Nak, false), Destination::Broadcast);
        assert_eq!(go(client, relay, Kind::Ack, false), host(relay, 67));
        assert_eq!(go(none, relay, Kind::Nak, false), host(relay, 67));
        assert_eq!(go(none, none, Kind::Ack, true), host(client, 4011));
    }
}
