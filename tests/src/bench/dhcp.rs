//! Many DHCP clients behind one relay: real packets, one socket, each exchange told by its number.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dragonfly_core::Mac;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::report::Times;
use super::world::{CLIENT, SERVER};

/// How long a client waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it asks at most.
const TRIES: usize = 6;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Who asks, of two that boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// UEFI, by PXE.
    Firmware,
    /// What firmware has loaded.
    Ipxe,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: u8,
    xid: u32,
    pub(crate) address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    pub(crate) boot_file: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        if bytes.first() != Some(&2) || word(236)? != COOKIE {
            return None;
        }
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let mut boot_file = text(bytes.get(108..236)?);
        let (mut kind, mut server) = (0, None);
        let mut rest = bytes.get(240..)?;
        while let [code, tail @ ..] = rest {
            match (code, tail) {
                (0, tail) => rest = tail,
                (255, _) => break,
                (code, [length, tail @ ..]) => {
                    let (data, tail) = tail.split_at_checked(usize::from(*length))?;
                    match code {
                        53 => kind = *data.first()?,
                        54 => server = <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from),
                        67 => boot_file = text(data),
                        _ => {}
                    }
                    rest = tail;
                }
                _ => return None,
            }
        }
        Some(Self { kind, xid: u32::from_be_bytes(word(4)?), address: word(16)?.into(), server, boot_file })
    }
}

/// The relay that all clients are behind.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    socket: Arc<UdpSocket>,
    waiting: Arc<Mutex<HashMap<u32, oneshot::Sender<Reply>>>>,
    next: Arc<AtomicU32>,
    pub(crate) repeated: Arc<AtomicUsize>,
    _reader: Arc<Reader>,
}

#[derive(Debug)]
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    pub(crate) async fn open() -> Result<Self> {
        let socket = std::net::UdpSocket::bind((CLIENT, 67)).context("the relay has no port 67")?;
        socket.set_nonblocking(true)?;
        // As many clients as there are in truth have a socket each: none loses an answer for want of room.
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).context("the relay's socket gets no room")?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let waiting: Arc<Mutex<HashMap<u32, oneshot::Sender<Reply>>>> = Arc::default();
        let (hears, asked) = (Arc::clone(&socket), Arc::clone(&waiting));
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok(length) = hears.recv(&mut buffer).await {
                let Some(reply) = buffer.get(..length).and_then(Reply::read) else { continue };
                let found = asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.xid);
                if let Some(found) = found {
                    // Whoever asked may have asked again.
                    let _ = found.send(reply);
                }
            }
        });
        let next = Arc::new(AtomicU32::new(1));
        Ok(Self { socket, waiting, next, repeated: Arc::default(), _reader: Arc::new(Reader(reader)) })
    }

    async fn ask(&self, kind: u8, mac: Mac, stage: Stage, offer: Option<&Reply>) -> Result<Reply> {
        for _ in 0..TRIES {
            let xid = self.next.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(xid, answer);
            let to = SocketAddr::from((SERVER, 67));
            self.socket.send_to(&message(kind, xid, mac, stage, offer), to).await?;
            if let Ok(Ok(reply)) = tokio::time::timeout(PATIENCE, answered).await {
                return Ok(reply);
            }
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&xid);
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        bail!("{mac} asked {TRIES} times for an answer to message type {kind}")
    }

    /// DISCOVER, OFFER, REQUEST, ACK. How long each of the two answers took goes to `times`.
    pub(crate) async fn lease(&self, mac: Mac, stage: Stage, times: &mut Times) -> Result<Reply> {
        let begin = Instant::now();
        let offer = self.ask(1, mac, stage, None).await?;
        times.add(begin.elapsed());
        ensure!(offer.kind == 2, "{mac}: DISCOVER was answered by type {}", offer.kind);
        let begin = Instant::now();
        let ack = self.ask(3, mac, stage, Some(&offer)).await?;
        times.add(begin.elapsed());
        ensure!(ack.kind == 5 && ack.address == offer.address, "{mac}: REQUEST was answered {ack:?}");
        Ok(ack)
    }
}

fn message(kind: u8, xid: u32, mac: Mac, stage: Stage, offer: Option<&Reply>) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    // BOOTREQUEST, Ethernet, six bytes, one hop.
    bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[24..28].copy_from_slice(&CLIENT.octets());
    bytes[28..34].copy_from_slice(&mac.octets());
    bytes.extend(COOKIE);
    let mut option = |code: u8, data: &[u8]| {
        bytes.extend([code, data.len() as u8]);
        bytes.extend(data);
    };
    option(53, &[kind]);
    if let Some(offer) = offer {
        option(50, &offer.address.octets());
        if let Some(server) = offer.server {
            option(54, &server.octets());
        }
    }
    option(55, &[1, 3, 6, 12, 43, 54, 60, 66, 67]);
    option(57, &1472u16.to_be_bytes());
    option(60, b"PXEClient:Arch:00007:UNDI:003016");
    option(93, &[0, 7]);
    option(94, &[1, 3, 16]);
    if stage == Stage::Ipxe {
        option(77, b"iPXE");
        // Encapsulated: it can do HTTP.
        option(175, &[19, 1, 1]);
    }
    bytes.push(255);
    bytes
}

/// `clients` ask at once, one machine after the other, `each` machines.
pub(crate) async fn storm(
    relay: &Relay,
    clients: usize,
    each: usize,
    mac: impl Fn(usize, usize) -> Mac + Clone + Send + 'static,
) -> Result<(Times, f64)> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (relay, mac) = (relay.clone(), mac.clone());
        tasks.spawn(async move {
            let mut times = Times::default();
            for n in 0..each {
                relay.lease(mac(client, n), Stage::Firmware, &mut times).await?;
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok((times, begin.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_none_is_not() {
        let mut bytes = message(2, 7, Mac::new([2, 0, 0, 0, 0, 1]), Stage::Ipxe, None);
        assert_eq!(Reply::read(&bytes), None, "a question");
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
        bytes[108..112].copy_from_slice(b"x.ef");
        let reply = Reply::read(&bytes).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.address), (2, 7, Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(reply.boot_file, "x.ef");
        bytes.truncate(bytes.len() - 2);
        assert_eq!(Reply::read(&bytes), None, "cut off");
        assert_eq!(Reply::read(&[2; 30]), None);
    }
}
