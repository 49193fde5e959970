//! What a message is answered, before anything is written or sent (RFC 2131 section 4.3).

use std::net::Ipv4Addr;

use dragonfly_core::boot::silence;

use super::book::Standing;
use super::client::Client;
use super::packet::{Kind, Packet, option};
use super::segment::{Mode, Segment};

/// What to do about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, and why.
    Silent(&'static str),
    /// Offer this address.
    Offer(Ipv4Addr),
    /// Lease this address.
    Lease(Ipv4Addr),
    /// Tell the client that it cannot have what it asks for, and why.
    Refuse(&'static str),
    /// Tell a client that has an address the rest.
    Inform,
    /// Offer boot information and no address.
    ProxyOffer,
    /// Confirm boot information and no address.
    ProxyAck,
    /// The client takes another server's offer: forget ours.
    Forget,
    /// The client found this address in use.
    Decline(Ipv4Addr),
    /// The client needs this address no longer.
    Release(Ipv4Addr),
}

impl Verdict {
    /// The address whose row it changes. For one message that is always the same.
    pub fn row(self) -> Option<Ipv4Addr> {
        match self {
            Self::Lease(address) | Self::Decline(address) | Self::Release(address) => Some(address),
            _ => None,
        }
    }
}

/// How a message reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// On port 4011, where PXE clients ask a proxy again.
    pub boot_server_port: bool,
    /// To our own address, not to all.
    pub unicast: bool,
}

/// The address that a message is about.
pub fn asked_address(packet: &Packet) -> Option<Ipv4Addr> {
    let current = (!packet.ciaddr.is_unspecified()).then_some(packet.ciaddr);
    packet.address(option::REQUESTED_ADDRESS).or(current)
}

/// Decides. `reserved` says whether the machine has a reservation on this segment.
pub fn judge(
    packet: &Packet,
    client: Client,
    segment: &Segment,
    arrival: Arrival,
    standing: Standing,
    reserved: bool,
) -> Verdict {
    if arrival.boot_server_port {
        return match packet.kind {
            Kind::Discover | Kind::Request | Kind::Inform if client.boots() => Verdict::ProxyAck,
            _ => Verdict::Silent("not a PXE request on port 4011"),
        };
    }
    let to_us = packet.address(option::SERVER_ID).map(|server| server == segment.server);
    if segment.mode == Mode::Proxy {
        return match (packet.kind, to_us) {
            (Kind::Discover, _) if client.boots() => Verdict::ProxyOffer,
            // The other server's address is not ours to confirm; but a client may take us for one.
            (Kind::Request, Some(true)) if client.boots() => Verdict::ProxyAck,
            _ => Verdict::Silent("proxy: only network boot is answered"),
        };
    }
    if segment.mode == Mode::Reservation && !reserved {
        return Verdict::Silent(silence::NO_RESERVATION);
    }
    match packet.kind {
        Kind::Discover => match standing.candidate {
            Some(address) => Verdict::Offer(address),
            None if reserved => Verdict::Silent("its reserved address is in use by another, or not usable here"),
            None => Verdict::Silent(silence::POOL_EMPTY),
        },
        Kind::Request => request(packet, segment, arrival, standing, to_us),
        // Only who holds an address may have it taken out of use, or a stranger could empty the pool.
        Kind::Decline => match (asked_address(packet), to_us) {
            (Some(address), Some(true)) if standing.held == Some(address) => Verdict::Decline(address),
            _ => Verdict::Silent("DECLINE of what it does not hold from us"),
        },
        Kind::Release => match to_us {
            Some(true) if standing.held == Some(packet.ciaddr) => Verdict::Release(packet.ciaddr),
            _ => Verdict::Silent("RELEASE of what it does not hold from us"),
        },
        Kind::Inform if segment.spec.subnet.contains(&packet.ciaddr) => Verdict::Inform,
        Kind::Inform => Verdict::Silent("INFORM from an address of another subnet"),
        _ => Verdict::Silent("a server's message"),
    }
}

/// REQUEST means four things, told apart by what it carries (RFC 2131 section 4.3.2, table 4).
fn request(packet: &Packet, segment: &Segment, arrival: Arrival, standing: Standing, to_us: Option<bool>) -> Verdict {
    let Some(asked) = asked_address(packet) else {
        return Verdict::Silent("REQUEST for no address");
    };
    let held = standing.held == Some(asked);
    let has_address = !packet.ciaddr.is_unspecified();
    match to_us {
        // SELECTING another server: never ours to refuse.
        Some(false) => Verdict::Forget,
        // SELECTING us. The offer may have been forgotten over a restart; the address may still be free.
        Some(true) if held || standing.asked_is_free => Verdict::Lease(asked),
        Some(true) => Verdict::Refuse("that address was not offered to you or is taken"),
        None if held => Verdict::Lease(asked),
        // INIT-REBOOT: it remembers an address from before.
        None if !has_address => {
            if !segment.spec.subnet.contains(&asked) {
                Verdict::Refuse("that address belongs to another network")
            } else if standing.held.is_some() {
                Verdict::Refuse("you have another address")
            } else {
                // Another server's lease, perhaps: silence lets the client ask afresh.
                Verdict::Silent("INIT-REBOOT by a client without a record")
            }
        }
        // RENEWING comes to our own address, so the client had it from us.
        None if arrival.unicast && standing.asked_is_free => Verdict::Lease(asked),
        None if arrival.unicast => Verdict::Refuse("that address is not yours"),
        // REBINDING asks everybody: only who knows the client may answer.
        None if standing.held.is_some() => Verdict::Refuse("you have another address"),
        None => Verdict::Silent("REBINDING by a client without a record"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::bytes;
    use super::super::tests::segment;
    use super::*;

    const BROADCAST: Arrival = Arrival { boot_server_port: false, unicast: false };
    const UNICAST: Arrival = Arrival { boot_server_port: false, unicast: true };
    const PXE: Arrival = Arrival { boot_server_port: true, unicast: true };

    const OURS: [u8; 4] = [10, 0, 0, 1];
    const OTHER: [u8; 4] = [10, 0, 0, 2];
    const HELD: [u8; 4] = [10, 0, 0, 150];
    const FREE: [u8; 4] = [10, 0, 0, 160];
    const FAR: [u8; 4] = [192, 168, 0, 5];

    struct Case<'a> {
        mode: Mode,
        options: &'a [(u8, &'a [u8])],
        ciaddr: [u8; 4],
        arrival: Arrival,
        standing: Standing,
        reserved: bool,
    }

    fn run(case: Case<'_>) -> Verdict {
        let mut packet = bytes(case.options);
        packet[12..16].copy_from_slice(&case.ciaddr);
        let packet = Packet::decode(&packet).unwrap();
        let segment = segment(case.mode);
        judge(&packet, Client::of(&packet), &segment, case.arrival, case.standing, case.reserved)
    }

    #[test]
    fn request_in_its_four_meanings() {
        use Verdict::{Forget, Lease, Refuse, Silent};
        let holds = |a: [u8; 4]| Standing { held: Some(a.into()), candidate: None, asked_is_free: false };
        let nothing = Standing::default();
        let free = Standing { asked_is_free: true, ..nothing };
        let none = [0; 4];
        let sel = |server: [u8; 4], asked: [u8; 4]| [(54, server.to_vec()), (50, asked.to_vec())];
        let table = [
            // SELECTING
            ("ours, offered", sel(OURS, HELD).to_vec(), none, BROADCAST, holds(HELD), Lease(HELD.into())),
            ("ours, forgotten but free", sel(OURS, FREE).to_vec(), none, BROADCAST, free, Lease(FREE.into())),
            ("ours, taken", sel(OURS, FREE).to_vec(), none, BROADCAST, nothing, Refuse("")),
            ("another's", sel(OTHER, HELD).to_vec(), none, BROADCAST, holds(HELD), Forget),
            // INIT-REBOOT
            ("known, right", vec![(50, HELD.to_vec())], none, BROADCAST, holds(HELD), Lease(HELD.into())),
            ("known, wrong", vec![(50, FREE.to_vec())], none, BROADCAST, holds(HELD), Refuse("")),
            ("unknown", vec![(50, FREE.to_vec())], none, BROADCAST, free, Silent("")),
            ("from afar", vec![(50, FAR.to_vec())], none, BROADCAST, nothing, Refuse("")),
            // RENEWING
            ("renew", vec![], HELD, UNICAST, holds(HELD), Lease(HELD.into())),
            ("renew after our loss", vec![], FREE, UNICAST, free, Lease(FREE.into())),
            ("renew of another's", vec![], FREE, UNICAST, nothing, Refuse("")),
            // REBINDING
            ("rebind", vec![], HELD, BROADCAST, holds(HELD), Lease(HELD.into())),
            ("rebind, has another", vec![], FREE, BROADCAST, holds(HELD), Refuse("")),
            ("rebind, another server's", vec![], FREE, BROADCAST, free, Silent("")),
            ("nothing asked", vec![], none, BROADCAST, nothing, Silent("")),
        ];
        for (name, options, ciaddr, arrival, standing, want) in table {
            let mut all: Vec<(u8, &[u8])> = vec![(53, &[3])];
            all.extend(options.iter().map(|(code, data)| (*code, data.as_slice())));
            let got = run(Case { mode: Mode::Full, options: &all, ciaddr, arrival, standing, reserved: false });
            let same = match (got, want) {
                (Silent(_), Silent(_)) | (Refuse(_), Refuse(_)) => true,
                (got, want) => got == want,
            };
            assert!(same, "{name}: {got:?}, not {want:?}");
        }
    }

    #[test]
    fn modes_answer_whom_they_are_for() {
        let pxe: &[(u8, &[u8])] = &[(53, &[1]), (60, b"PXEClient"), (93, &[0, 7])];
        let plain: &[(u8, &[u8])] = &[(53, &[1])];
        let candidate = Some(Ipv4Addr::from(FREE));
        let standing = Standing { candidate, ..Standing::default() };
        let ask = |mode, options, arrival, standing, reserved| {
            run(Case { mode, options, ciaddr: [0; 4], arrival, standing, reserved })
        };
        let offer = Verdict::Offer(FREE.into());
        assert_eq!(ask(Mode::Full, plain, BROADCAST, standing, false), offer);
        assert_eq!(ask(Mode::Reservation, plain, BROADCAST, standing, true), offer);
        assert!(matches!(ask(Mode::Reservation, pxe, BROADCAST, standing, false), Verdict::Silent(_)));
        assert!(matches!(ask(Mode::Full, pxe, BROADCAST, Standing::default(), false), Verdict::Silent(_)));
        assert_eq!(ask(Mode::Proxy, pxe, BROADCAST, Standing::default(), false), Verdict::ProxyOffer);
        assert!(matches!(ask(Mode::Proxy, plain, BROADCAST, standing, true), Verdict::Silent(_)));
        let request: &[(u8, &[u8])] = &[(53, &[3]), (60, b"PXEClient"), (54, &OTHER), (50, &FREE)];
        assert!(matches!(ask(Mode::Proxy, request, BROADCAST, standing, false), Verdict::Silent(_)));
        for mode in [Mode::Full, Mode::Reservation, Mode::Proxy] {
            assert_eq!(ask(mode, request, PXE, standing, false), Verdict::ProxyAck);
            assert!(matches!(ask(mode, plain, PXE, standing, false), Verdict::Silent(_)));
        }
    }

    #[test]
    fn nobody_gives_back_what_is_not_his() {
        let held = Standing { held: Some(HELD.into()), ..Standing::default() };
        let ask = |options: &[(u8, &[u8])], ciaddr, standing| {
            run(Case { mode: Mode::Full, options, ciaddr, arrival: UNICAST, standing, reserved: false })
        };
        let decline =
            |server, address: &'static [u8]| -> Vec<(u8, &[u8])> { vec![(53, &[4]), (54, server), (50, address)] };
        assert_eq!(ask(&decline(&OURS, &HELD), [0; 4], held), Verdict::Decline(HELD.into()));
        assert!(matches!(ask(&decline(&OURS, &FREE), [0; 4], held), Verdict::Silent(_)));
        assert!(matches!(ask(&decline(&OTHER, &HELD), [0; 4], held), Verdict::Silent(_)));
        assert_eq!(ask(&[(53, &[7]), (54, &OURS)], HELD, held), Verdict::Release(HELD.into()));
        assert!(matches!(ask(&[(53, &[7]), (54, &OURS)], FREE, held), Verdict::Silent(_)));
        assert_eq!(ask(&[(53, &[8])], FREE, Standing::default()), Verdict::Inform);
        assert!(matches!(ask(&[(53, &[8])], FAR, held), Verdict::Silent(_)));
        assert!(matches!(ask(&[(53, &[2])], FREE, held), Verdict::Silent(_)));
    }
}
