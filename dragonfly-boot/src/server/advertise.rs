//! Sends router advertisements on one interface (RFC 4861 section 6.2).

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::sockets::Interface;
use crate::radvertise::{advertisement, is_solicitation};

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

    /// Advertises for ever, as long as `wanted` says so: at once, when asked, and now and then.
    pub(super) async fn run(&self, wanted: impl Fn() -> bool) {
        let mut buffer = [0; 1500];
        let mut next = Instant::now();
        let mut last: Option<Instant> = None;
        loop {
            let length = tokio::select! {
                () = sleep_until(next) => None,
                read = self.socket.recv(&mut buffer) => Some(read.unwrap_or(0)),
            };
            match length {
                Some(0) => tokio::time::sleep(SPACING).await,
                // To all at once, but not sooner than allowed after the last.
                Some(length) if buffer.get(..length).is_some_and(is_solicitation) => {
                    next = next.min(last.map_or_else(Instant::now, |last| last + SPACING));
                }
                Some(_) => {}
                None => {
                    if wanted()
                        && let Err(error) = self.send().await
                    {
                        tracing::debug!(interface = self.interface.name, %error, "router advertisement not sent");
                    }
                    let now = Instant::now();
                    (last, next) = (Some(now), now + INTERVAL);
                }
            }
        }
    }

    async fn send(&self) -> io::Result<()> {
        let message = advertisement(self.interface.mac);
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.interface.index);
        self.socket.send_to(&message, std::net::SocketAddr::V6(to)).await.map(drop)
    }
}
