//! Asks an address by ICMP echo whether somebody is there (RFC 2131 section 2.2).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::dhcp::ConflictProbe;

/// What is waited for each of two echo requests.
const WAIT: Duration = Duration::from_millis(200);
const IDENTIFIER: u16 = 0x4446;

/// Sends echo requests and waits for their answers.
#[derive(Debug)]
pub(super) struct EchoProbe {
    /// Raw ICMP: only what sends and receives is shared with UDP.
    socket: UdpSocket,
    waiting: Mutex<HashMap<Ipv4Addr, oneshot::Sender<()>>>,
}

impl EchoProbe {
    /// Needs the right to open raw sockets.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, waiting: Mutex::default() })
    }

    /// Takes in the answers, until cancelled.
    pub(super) async fn listen(self: Arc<Self>, cancel: CancellationToken) {
        let mut buffer = [0; 1500];
        loop {
            let length = tokio::select! {
                () = cancel.cancelled() => return,
                read = self.socket.recv(&mut buffer) => read.unwrap_or(0),
            };
            let from = buffer.get(..length).and_then(answer);
            if let Some(waiting) = from.and_then(|from| self.waiting().remove(&from)) {
                let _ = waiting.send(());
            }
            if length == 0 {
                // An error that would come again at once.
                tokio::time::sleep(WAIT).await;
            }
        }
    }

    async fn request(&self, to: Ipv4Addr, sequence: u8) -> io::Result<()> {
        let message = echo_request(sequence);
        self.socket.send_to(&message, SocketAddr::from((to, 0))).await.map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ConflictProbe for EchoProbe {
    async fn in_use(&self, address: Ipv4Addr) -> bool {
        let (sender, mut answered) = oneshot::channel();
        self.waiting().insert(address, sender);
        let mut found = false;
        for sequence in 0..2 {
            // A failure to send is no sign of anybody.
            let _ = self.request(address, sequence).await;
            if let Ok(Ok(())) = tokio::time::timeout(WAIT, &mut answered).await {
                found = true;
                break;
            }
        }
        self.waiting().remove(&address);
        found
    }
}

/// ICMP type 8 (RFC 792), with its checksum.
fn echo_request(sequence: u8) -> [u8; 8] {
    let [high, low] = IDENTIFIER.to_be_bytes();
    let sum = 0x0800 + u32::from(IDENTIFIER) + u32::from(sequence);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    let [c1, c2] = checksum.to_be_bytes();
    [8, 0, c1, c2, high, low, 0, sequence]
}

/// Who sent it, if it is an answer to us: IP header and ICMP type 0.
fn answer(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    match packet.get(header..)? {
        [0, 0, _, _, high, low, ..] if u16::from_be_bytes([*high, *low]) == IDENTIFIER => Some(from.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_right_and_only_answers_to_us_count() {
        for sequence in [0, 1, 255] {
            let message = echo_request(sequence);
            let sum: u32 = message.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
        let mut packet = vec![0x45; 28];
        packet[12..16].copy_from_slice(&[10, 0, 0, 7]);
        packet[20..].copy_from_slice(&[0, 0, 1, 2, 0x44, 0x46, 0, 1]);
        assert_eq!(answer(&packet), Some(Ipv4Addr::new(10, 0, 0, 7)));
        packet[20] = 8;
        assert_eq!(answer(&packet), None);
        assert_eq!(answer(&packet[..20]), None);
        assert_eq!(answer(&[]), None);
    }
}
