//! Sends router advertisements on one interface (RFC 4861 section 6.2).

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use dragonfly_core::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::sockets::Interface;
use crate::radvertise::{advertisement, is_solicitation, solicitor};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Between two that nobody asked for.
const INTERVAL: Duration = Duration::from_secs(300);
/// Between any two to all nodes (MIN_DELAY_BETWEEN_RAS).
const SPACING: Duration = Duration::from_secs(3);

/// A socket for advertisements on one interface.
#[derive(Debug)]
pub(super) struct Advertiser {
    /// Raw ICMPv6: only what sends and receives is shared with UDP.
    socket: UdpSocket,
    interface: Interface,
}

impl Advertiser {
    /// Needs the right to open raw sockets, and IPv6 on the interface.
    pub(super) fn open(interface: &Interface) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(interface.index)?;
        socket.join_multicast_v6(&ALL_ROUTERS, interface.index)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, interface: interface.clone() })
    }

    /// Advertises for ever: where the network is ours (`owned`) to all, at once, when asked, and now and
    /// then; elsewhere only to a machine that is booting through us, when it asks, and to it alone.
    pub(super) async fn run(&self, owned: impl Fn() -> bool, booting: impl Fn(Mac) -> bool) {
        let mut buffer = [0; 1500];
        let mut next = Instant::now();
        let mut last: Option<Instant> = None;
        loop {
            let received = tokio::select! {
                () = sleep_until(next) => None,
                received = self.socket.recv_from(&mut buffer) => Some(received),
            };
            match received {
                Some(Ok((length, from))) => {
                    let message = buffer.get(..length).unwrap_or_default();
                    if !is_solicitation(message) {
                        continue;
                    }
                    if owned() {
                        // To all at once, but not sooner than allowed after the last.
                        next = next.min(last.map_or_else(Instant::now, |last| last + SPACING));
                    } else if solicitor(message).is_some_and(&booting) && !from.ip().is_unspecified() {
                        self.send(from).await;
                    }
                }
                // One that would come again at once.
                Some(Err(_)) => tokio::time::sleep(SPACING).await,
                None => {
                    if owned() {
                        self.send(SocketAddrV6::new(ALL_NODES, 0, 0, self.interface.index).into()).await;
                    }
                    let now = Instant::now();
                    (last, next) = (Some(now), now + INTERVAL);
                }
            }
        }
    }

    async fn send(&self, to: SocketAddr) {
        if let Err(error) = self.socket.send_to(&advertisement(self.interface.mac), to).await {
            tracing::debug!(interface = self.interface.name, %error, "router advertisement not sent");
        }
    }
}
