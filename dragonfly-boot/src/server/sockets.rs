//! Sockets that know which of our addresses a packet was sent to, and answer from it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use dragonfly_core::Mac;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What a socket holds of packets that nobody has looked at yet, in bytes.
const ROOM: usize = 4 << 20;

/// A network interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    pub(super) addresses: Vec<Ipv4Addr>,
}

/// Every interface that is up.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        if !entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) {
            continue;
        }
        let at = match found.iter().position(|i| i.name == entry.interface_name) {
            Some(at) => at,
            None => {
                let Ok(index) = nix::net::if_::if_nametoindex(entry.interface_name.as_str()) else { continue };
                let name = entry.interface_name.clone();
                found.push(Interface { name, index, mac: None, addresses: Vec::new() });
                found.len() - 1
            }
        };
        let (Some(interface), Some(address)) = (found.get_mut(at), entry.address) else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.push(v4.ip());
        } else if let Some(octets) = address.as_link_addr().and_then(|link| link.addr()) {
            interface.mac = Some(Mac::new(octets)).filter(|mac| mac.is_unicast());
        }
    }
    Ok(found)
}

/// A UDP socket for one interface, or for all.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: UdpSocket,
}

/// A packet, and how it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    pub(super) length: usize,
    pub(super) from: SocketAddrV4,
    /// The address that it was sent to; may be a broadcast.
    pub(super) to: Ipv4Addr,
    /// Our address on the interface that it came in by.
    pub(super) local: Ipv4Addr,
    pub(super) interface: u32,
}

impl PacketSocket {
    /// Listens on a port of one interface, beside others that do the same.
    pub(super) fn on(interface: Option<&Interface>, port: u16) -> io::Result<Self> {
        Self::open(interface, port).map_err(|e| io::Error::new(e.kind(), format!("UDP port {port}: {e}")))
    }

    fn open(interface: Option<&Interface>, port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        // A rack that is switched on asks all at once. What the system grants everybody is room for some 300
        // messages; whoever may administer the network gets as much as is asked for.
        if setsockopt(&socket, sockopt::RcvBufForce, &ROOM).is_err() {
            let _ = socket.set_recv_buffer_size(ROOM);
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.name.as_bytes()))?;
        }
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    #[cfg(test)]
    pub(super) fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |a| a.port())
    }

    /// Waits for a packet.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        self.socket.async_io(Interest::READABLE, || self.receive_now(buffer)).await
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        let mut control = nix::cmsg_space!(libc::in_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let message = recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let info = message.cmsgs()?.find_map(|m| match m {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let (Some(from), Some(info)) = (message.address, info) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet without its addresses"));
        };
        let address = |a: libc::in_addr| Ipv4Addr::from(u32::from_be(a.s_addr));
        Ok(Incoming {
            length: message.bytes,
            from: SocketAddrV4::new(from.ip(), from.port()),
            to: address(info.ipi_addr),
            local: address(info.ipi_spec_dst),
            interface: u32::try_from(info.ipi_ifindex).unwrap_or(0),
        })
    }

    /// Sends from one of our addresses by one interface; 0 leaves that to routing.
    pub(super) async fn send(&self, bytes: &[u8], from: Ipv4Addr, to: SocketAddrV4, interface: u32) -> io::Result<()> {
        let info = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(interface).unwrap_or(0),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let (parts, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
        let send = || {
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to)).map_err(io::Error::from)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}
