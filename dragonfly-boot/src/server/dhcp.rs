//! DHCP with sockets: ports 67, 4011 and 68 of one interface, or 67 of all for relays.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::sockets::{Incoming, Interface, PacketSocket};
use super::{Served, Shared, outlook};
use crate::dhcp::auto::{Sign, Step};
use crate::dhcp::judge::Arrival;
use crate::dhcp::packet::{Kind, MAX_SIZE, option};
use crate::dhcp::{Client, Destination, Packet, Received, Segment, discover, discover_as};

/// How many questions other servers are asked in a second: a rack that is switched on, but no flood.
const QUESTIONS: u32 = 50;

/// Counts questions, second by second.
#[derive(Debug, Default)]
pub(super) struct Questions {
    since: Option<Instant>,
    count: u32,
}

impl Questions {
    /// Whether one more may be asked now.
    fn may(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= QUESTIONS
    }
}

/// Listens on one interface; without one, for relayed requests on all others.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    pub(super) interface: Option<Interface>,
    pub(super) served: Vec<Arc<Served>>,
    pub(super) dhcp: Arc<PacketSocket>,
    pub(super) boot_server: Option<Arc<PacketSocket>>,
    /// Port 68, where other servers' answers are heard.
    pub(super) client: Option<Arc<PacketSocket>>,
    /// Questions to other servers.
    pub(super) asked: Mutex<Questions>,
    /// Told when there may be a probe to send sooner than was said.
    pub(super) sooner: Notify,
}

impl Listener {
    /// Until a socket breaks.
    pub(super) async fn run(&self) -> io::Result<()> {
        tokio::select! {
            end = self.requests(Some(&self.dhcp), false) => end,
            end = self.requests(self.boot_server.as_ref(), true) => end,
            end = self.replies() => end,
            end = self.probes() => end,
        }
    }

    /// Whether addresses come from us on this interface.
    pub(super) fn owns_addresses(&self) -> bool {
        self.served.iter().any(|s| s.spec.router_advertisements && s.mode().gives_addresses())
    }

    async fn requests(&self, socket: Option<&Arc<PacketSocket>>, boot_server_port: bool) -> io::Result<()> {
        let Some(socket) = socket else { return std::future::pending().await };
        let mut buffer = vec![0; MAX_SIZE + 1];
        loop {
            let incoming = socket.receive(&mut buffer).await?;
            let packet = match buffer.get(..incoming.length).map(Packet::decode) {
                Some(Ok(packet)) if packet.is_request => packet,
                Some(Err(error)) => {
                    tracing::debug!(from = %incoming.from, %error, "not a DHCP message");
                    continue;
                }
                _ => continue,
            };
            // Our own probe, as broadcasts come back to who sent them.
            let own = self.interface.as_ref().and_then(|i| i.mac);
            if own.is_some() && packet.mac() == own {
                continue;
            }
            let unicast = !incoming.to.is_broadcast() && incoming.to == incoming.local;
            let Some(segment) = self.segment(&packet, incoming, unicast) else { continue };
            self.note(Sign::of(&packet, *incoming.from.ip(), !unicast));
            self.ask_other(&packet, &segment).await;
            // A flood costs answers, not memory: what comes meanwhile stays in the socket, as far as it has room.
            let Ok(permit) = self.shared.messages.clone().acquire_owned().await else { continue };
            let (shared, socket) = (self.shared.clone(), socket.clone());
            let index = self.interface.as_ref().map_or(incoming.interface, |i| i.index);
            self.shared.tasks.spawn(async move {
                let _permit = permit;
                let arrival = Arrival { boot_server_port, unicast };
                let received = Received { packet: &packet, segment: &segment, source: incoming.from, arrival };
                let Some((bytes, to)) = shared.responder.answer(received).await else { return };
                let (to, index) = match to {
                    // Routed: a client that renews may be behind a relay.
                    Destination::Host(host) => (host, 0),
                    Destination::Broadcast => (SocketAddrV4::new(Ipv4Addr::BROADCAST, 68), index),
                };
                if let Err(error) = socket.send(&bytes, segment.server, to, index).await {
                    tracing::warn!(%to, %error, "a DHCP answer is not sent");
                }
            });
        }
    }

    /// The segment that a message is about: that of the relay, or of the link that it names; that of the
    /// address which its client has and writes to us from; else that of the interface.
    fn segment(&self, packet: &Packet, incoming: Incoming, unicast: bool) -> Option<Segment> {
        if packet.is_relayed() {
            let link = packet.link_selection().unwrap_or(packet.giaddr);
            let served = self.shared.served();
            let found = served.iter().find(|s| s.spec.subnet.contains(&link));
            if found.is_none() {
                tracing::debug!(relay = %packet.giaddr, %link, "relayed from a subnet that no Network names");
            }
            return found.map(|served| self.shared.segment(served, incoming.local));
        }
        let of_client = |s: &&Arc<Served>| s.spec.subnet.contains(&packet.ciaddr);
        if unicast && let Some(served) = self.shared.served().iter().find(of_client) {
            return Some(self.shared.segment(served, incoming.local));
        }
        let interface = self.interface.as_ref()?;
        let lead = || self.served.get(outlook::leads(&self.served, |s| &s.spec, &interface.addresses)?);
        let served = self.served.iter().find(of_client).or_else(lead)?;
        let own = interface.addresses.iter().find(|a| served.spec.subnet.contains(*a));
        Some(self.shared.segment(served, own.or_else(|| interface.addresses.first()).copied()?))
    }

    /// What is said about another server than this one.
    fn note(&self, sign: Option<Sign>) {
        let own = |server: Ipv4Addr| self.interface.as_ref().is_some_and(|i| i.addresses.contains(&server));
        if let Some(sign) = sign.filter(|sign| !own(sign.server())) {
            for served in &self.served {
                if served.with_auto(|auto, now| auto.note(sign, now)) == Some(true) {
                    self.sooner.notify_one();
                }
            }
        }
    }

    /// Asks the server whose offer a machine takes what it offers, as that machine: only there it stands whether it
    /// is to boot something else. Its answer comes back by broadcast, and says nothing to the machine. So is it asked
    /// while an `auto` doubts that there is another: some servers answer only those whom they know.
    async fn ask_other(&self, packet: &Packet, segment: &Segment) {
        let other = packet.address(option::SERVER_ID).filter(|server| *server != segment.server);
        let (Some(socket), Some(interface), Some(other)) = (&self.client, &self.interface, other) else { return };
        let Some(mac) = packet.mac().filter(|_| packet.kind == Kind::Request) else { return };
        let doubts = || self.served.iter().any(|served| served.with_auto(|auto, _| auto.doubts()) == Some(true));
        let wanted = (segment.mode.gives_addresses() && Client::of(packet).boots()) || doubts();
        if packet.is_relayed() || other.is_unspecified() || !wanted {
            return;
        }
        if !self.asked.lock().unwrap_or_else(PoisonError::into_inner).may(Instant::now()) {
            return;
        }
        let to = SocketAddrV4::new(other, 67);
        if let Err(error) = socket.send(&discover_as(packet, mac), segment.server, to, interface.index).await {
            tracing::debug!(%other, %error, "the other DHCP server is not asked");
        }
    }

    /// Hears what other servers answer, to us and to others.
    async fn replies(&self) -> io::Result<()> {
        let Some(socket) = &self.client else { return std::future::pending().await };
        let mut buffer = vec![0; MAX_SIZE + 1];
        loop {
            let incoming = socket.receive(&mut buffer).await?;
            let Some(Ok(packet)) = buffer.get(..incoming.length).map(Packet::decode) else { continue };
            let Some(sign) = Sign::of(&packet, *incoming.from.ip(), incoming.to.is_broadcast()) else { continue };
            self.note(Some(sign));
            let server = sign.server();
            let ours = self.interface.as_ref().is_some_and(|i| i.addresses.contains(&server));
            if !packet.is_request && !ours && self.served.iter().any(|served| served.mode().gives_addresses()) {
                self.shared.responder.overheard(&packet, server);
            }
        }
    }

    /// Asks whether there are others, as long as some `auto` wants to know.
    async fn probes(&self) -> io::Result<()> {
        let (Some(socket), Some(interface)) = (&self.client, &self.interface) else {
            return std::future::pending().await;
        };
        loop {
            let mut wait = Duration::from_secs(3600);
            for served in &self.served {
                match served.with_auto(|auto, now| auto.step(now)) {
                    Some(Step::Probe(next)) => {
                        wait = wait.min(next);
                        // Our own address as a client's: whoever answers is another server.
                        let (Some(mac), Some(from)) = (interface.mac, interface.addresses.first()) else { continue };
                        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
                        socket.send(&discover(mac, served.since.elapsed()), *from, to, interface.index).await?;
                    }
                    Some(Step::Wait(next)) => wait = wait.min(next),
                    Some(Step::Listen) | None => {}
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.sooner.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_bounded_number_of_questions() {
        let mut questions = Questions::default();
        let now = Instant::now();
        let asked = (0..1000).filter(|_| questions.may(now)).count();
        assert_eq!(asked, QUESTIONS as usize);
        assert!(questions.may(now + Duration::from_secs(1)), "the next second");
    }
}
