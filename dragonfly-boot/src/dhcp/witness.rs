//! What of a DHCP conversation goes on the machine's timeline.

use std::net::Ipv4Addr;

use dragonfly_core::boot::{Asker, DhcpAsk, Seen};

use super::client::Client;
use super::judge::{Verdict, asked_address};
use super::packet::{Kind, Packet, option};
use super::segment::{Mode, Segment};

pub(super) fn asker(client: Client) -> Asker {
    match client {
        Client::Plain => Asker::System,
        Client::Firmware(_) => Asker::Firmware,
        Client::Ipxe { .. } => Asker::Ipxe,
    }
}

fn ask(kind: Kind) -> DhcpAsk {
    match kind {
        Kind::Request => DhcpAsk::Request,
        Kind::Decline => DhcpAsk::Decline,
        Kind::Release => DhcpAsk::Release,
        Kind::Inform => DhcpAsk::Inform,
        // A server's own messages never come so far.
        Kind::Discover | Kind::Offer | Kind::Ack | Kind::Nak => DhcpAsk::Discover,
    }
}

/// Silence, and why.
pub(super) fn silence(kind: Kind, why: &str) -> Seen {
    Seen::DhcpSilence { message: ask(kind), why: why.to_owned() }
}

/// A client that boots and that no program of ours is for.
pub(super) fn no_loader(client: Client) -> Seen {
    let platform = client.platform();
    Seen::NoLoader { firmware: platform.map(|p| p.firmware), arch: platform.and_then(|p| p.arch) }
}

/// What a client asked, and what follows from it when we do not answer.
pub(super) fn asked(packet: &Packet, client: Client, segment: &Segment, verdict: Verdict) -> Vec<Seen> {
    let mut all = Vec::new();
    // A lease that is prolonged every half hour would fill the timeline: its confirmation says it all.
    let renews = !packet.ciaddr.is_unspecified() && matches!(verdict, Verdict::Lease(_) | Verdict::Inform);
    if !renews {
        let platform = client.platform();
        all.push(Seen::DhcpAsked {
            message: ask(packet.kind),
            asker: asker(client),
            firmware: platform.map(|p| p.firmware),
            arch: platform.and_then(|p| p.arch),
            network: segment.name.clone(),
        });
    }
    let other = packet.address(option::SERVER_ID).filter(|server| *server != segment.server);
    if packet.kind == Kind::Request
        && let Some(server) = other
    {
        all.push(Seen::DhcpForeign {
            asker: asker(client),
            server,
            address: asked_address(packet),
            expected: segment.mode == Mode::Proxy || verdict == Verdict::ProxyAck,
        });
    } else if let Verdict::Silent(why) = verdict
        // Beside another server most of what we hear is not for us.
        && (segment.mode != Mode::Proxy || client.boots())
    {
        all.push(silence(packet.kind, why));
    }
    all
}

/// What another server answers.
pub(super) fn other(packet: &Packet, server: Ipv4Addr) -> Seen {
    let given = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
    Seen::DhcpOther { server, address: given(packet.yiaddr), file: packet.boot_file(), from: given(packet.siaddr) }
}

/// What a client was answered.
pub(super) fn answered(client: Client, kind: Kind, address: Ipv4Addr, file: Option<String>) -> Seen {
    let asker = asker(client);
    let address = (!address.is_unspecified()).then_some(address);
    match kind {
        Kind::Offer => Seen::DhcpOffered { asker, address, file },
        _ => Seen::DhcpConfirmed { asker, address, file },
    }
}
