//! TFTP with sockets: one listener an interface, one socket and one task a transfer.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootObserver, Ended, Seen, Sighting};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{self, Pace, Standing};
use super::sockets::PacketSocket;
use crate::dhcp::Responder;
use crate::files::FileError;
use crate::tftp::{
    Content, ErrorCode, FileSource, Incoming, Limits, Output, Request, Terms, Transfer, data, error, option_ack,
};

/// How much of a file is read at a time, while few transfers are under way; each keeps as much.
const READ_AHEAD: usize = 512 * 1024;
/// How many count as few.
const FEW: usize = 64;
/// What each of many keeps in memory.
const SMALL: u32 = 64 * 1024;

/// Serves files to whoever asks.
#[derive(Debug)]
pub(super) struct TftpServer {
    pub(super) files: Arc<dyn FileSource>,
    pub(super) observer: Arc<dyn BootObserver>,
    pub(super) limits: Limits,
    pub(super) leases: Arc<Responder>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) open: Mutex<HashMap<SocketAddrV4, Open>>,
    /// How many transfers have begun so far.
    pub(super) begun: AtomicU64,
}

/// How a transfer ended.
#[derive(Debug)]
struct End {
    ended: Ended,
    why: String,
}

impl End {
    fn by_server(why: impl Into<String>) -> Self {
        Self { ended: Ended::ByServer, why: why.into() }
    }
}

/// How far a transfer has come.
#[derive(Debug, Default)]
struct SoFar {
    bytes: u64,
    passed: u64,
    block: u16,
}

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Open {
    request: Request,
    progress: Arc<Progress>,
    stop: CancellationToken,
    number: u64,
}

/// What a transfer under way tells of itself.
#[derive(Debug)]
struct Progress {
    begin: Instant,
    answered: AtomicBool,
    pace: Mutex<Pace>,
}

impl Progress {
    fn new() -> Self {
        Self { begin: Instant::now(), answered: AtomicBool::new(false), pace: Mutex::default() }
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn standing(&self, peer: SocketAddrV4) -> Standing {
        let rate = self.progress.pace().rate(self.progress.begin.elapsed());
        Standing { peer, answered: self.progress.is_answered(), rate, number: self.number }
    }
}

fn standing(open: &HashMap<SocketAddrV4, Open>) -> impl Iterator<Item = Standing> + Clone {
    open.iter().map(|(peer, open)| open.standing(*peer))
}

impl TftpServer {
    /// Takes requests until the socket breaks. `admit` says who may ask.
    pub(super) async fn listen(
        self: &Arc<Self>,
        socket: &PacketSocket,
        admit: impl Fn(Ipv4Addr, u32) -> bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 2048];
        loop {
            let incoming = socket.receive(&mut buffer).await?;
            if !admit(*incoming.from.ip(), incoming.interface) {
                continue;
            }
            let Some(bytes) = buffer.get(..incoming.length) else { continue };
            let refusal = match Incoming::decode(bytes) {
                Ok(Incoming::Read(request)) if request.octet => self.begin(request, incoming.from, incoming.local),
                Ok(Incoming::Read(_)) => Some((ErrorCode::NotDefined, "only mode octet (binary) is served")),
                Ok(Incoming::Write) => Some((ErrorCode::AccessViolation, "files here are read only")),
                // What belongs to a transfer goes to its own port.
                Ok(_) => None,
                Err(_) => Some((ErrorCode::IllegalOperation, "not a TFTP request")),
            };
            if let Some((code, message)) = refusal {
                let _ = socket.send(&error(code, message), incoming.local, incoming.from, 0).await;
            }
        }
    }

    /// Starts a transfer. One request may come several times; a machine that was reset asks anew from
    /// the same port while its old transfer still runs.
    fn begin(
        self: &Arc<Self>,
        request: Request,
        peer: SocketAddrV4,
        local: Ipv4Addr,
    ) -> Option<(ErrorCode, &'static str)> {
        let (stop, progress) = (self.cancel.child_token(), Arc::new(Progress::new()));
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let limits = {
            let mut open = self.open();
            match open.get(&peer) {
                Some(old) if old.request == request && !old.progress.is_answered() => return None,
                Some(old) => old.stop.cancel(),
                None if admission::is_flooding(standing(&open), *peer.ip(), self.limits.transfers) => return None,
                None if open.len() >= self.limits.transfers => {
                    let all = standing(&open);
                    match admission::gives_way(all, *peer.ip(), self.limits.transfers).and_then(|p| open.remove(&p)) {
                        Some(old) => old.stop.cancel(),
                        None => return Some((ErrorCode::NotDefined, "too many transfers; ask again")),
                    }
                }
                None => {}
            }
            let limits = self.limits_beside(open.len());
            let entry = Open { request: request.clone(), progress: progress.clone(), stop: stop.clone(), number };
            open.insert(peer, entry);
            limits
        };
        let this = self.clone();
        self.tasks.spawn(async move {
            let limit = limits.duration;
            let mut so_far = SoFar::default();
            let begin = Instant::now();
            let end = tokio::select! {
                () = stop.cancelled() => End::by_server("stopped: the client asked anew, others need its place, or the server stops"),
                done = tokio::time::timeout(limit, this.transfer(&request, (peer, local), limits, &progress, &mut so_far)) => {
                    match done {
                        Ok(Ok(end)) => end,
                        Ok(Err(error)) => End::by_server(error.to_string()),
                        Err(_) => End::by_server(format!("it took longer than {} s", limit.as_secs())),
                    }
                }
            };
            tracing::debug!(%peer, file = %request, ?end, "TFTP transfer ended");
            let seen = Seen::TftpEnded {
                file: request.name.clone(),
                bytes: so_far.bytes,
                passed: so_far.passed,
                block: so_far.block,
                milliseconds: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
                ended: end.ended,
                why: end.why,
            };
            this.saw(peer, seen);
            let mut open = this.open();
            if open.get(&peer).is_some_and(|entry| entry.number == number) {
                open.remove(&peer);
            }
        });
        None
    }

    async fn transfer(
        &self,
        request: &Request,
        (peer, local): (SocketAddrV4, Ipv4Addr),
        limits: Limits,
        progress: &Progress,
        so_far: &mut SoFar,
    ) -> io::Result<End> {
        // From the address that was asked: clients compare, and firewalls too.
        let socket = UdpSocket::bind(SocketAddr::from((local, 0))).await?;
        socket.connect(SocketAddr::V4(peer)).await?;
        let content = match self.files.open(&request.name).await {
            Ok(content) => content,
            Err(e) => {
                let (code, said) = match &e {
                    FileError::NotFound { .. } => (ErrorCode::NotFound, "file not found"),
                    FileError::BadName { .. } => (ErrorCode::AccessViolation, "not a file name"),
                    FileError::Io { .. } => (ErrorCode::NotDefined, "the file cannot be read"),
                };
                tracing::info!(%peer, file = %request, error = &e as &dyn std::error::Error, "TFTP file not served");
                socket.send(&error(code, said)).await?;
                return Ok(End { ended: Ended::Refused, why: said.to_owned() });
            }
        };
        let length = content.length();
        let mut transfer = Transfer::new(request, length, &limits);
        let mut reader = Reader::new(content, transfer.terms(), limits.window_bytes);
        *so_far = SoFar { bytes: length, passed: 0, block: transfer.terms().block_size };
        let begin = Instant::now();
        let mut buffer = vec![0; 1024];
        let mut output = Some(transfer.start(Duration::ZERO));
        let mut told = false;
        loop {
            match output.take() {
                None => {}
                Some(Output::OptionAck) => send(&socket, &option_ack(transfer.options())).await?,
                Some(Output::Blocks(blocks)) => {
                    reader.is_trusted = transfer.is_answered();
                    if !told {
                        told = true;
                        let Terms { block_size: block, window } = transfer.terms();
                        self.saw(peer, Seen::TftpBegan { file: request.name.clone(), bytes: length, block, window });
                    }
                    for block in blocks {
                        let content = reader.block(block).await?;
                        // Block numbers begin at 1 and wrap to 0.
                        send(&socket, &data((block + 1) as u16, &content)).await?;
                    }
                }
                Some(Output::Done) => {
                    so_far.passed = length;
                    return Ok(End { ended: Ended::Whole, why: String::new() });
                }
                Some(Output::Aborted(why)) => {
                    // Common, and often meant: a size is asked this way.
                    return Ok(End { ended: Ended::ByClient, why });
                }
                Some(Output::Lost) => {
                    return Ok(End { ended: Ended::Lost, why: "the client does not answer any more".to_owned() });
                }
            }
            let received = tokio::select! {
                received = socket.recv(&mut buffer) => Some(received),
                () = sleep_until(begin + transfer.deadline()) => None,
            };
            let now = begin.elapsed();
            output = match received {
                None => Some(transfer.late(now)),
                Some(Ok(length)) => {
                    let packet = buffer.get(..length).and_then(|bytes| Incoming::decode(bytes).ok());
                    packet.and_then(|packet| transfer.packet(&packet, now))
                }
                // Its port is closed: it has gone, perhaps with all it wanted.
                Some(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    return Ok(End { ended: Ended::ByClient, why: "its port is closed".to_owned() });
                }
                Some(Err(e)) => return Err(e),
            };
            so_far.passed = transfer.passed(length);
            if transfer.is_answered() {
                progress.answered.store(true, Ordering::Relaxed);
                progress.pace().passed(so_far.passed, progress.begin.elapsed());
            }
        }
    }

    /// What one more transfer may take: what is in memory stays bounded however many there are.
    fn limits_beside(&self, others: usize) -> Limits {
        let window_bytes = if others < FEW { self.limits.window_bytes } else { self.limits.window_bytes.min(SMALL) };
        Limits { window_bytes, ..self.limits }
    }

    fn saw(&self, peer: SocketAddrV4, seen: Seen) {
        let mac: Option<Mac> = self.leases.holder(*peer.ip());
        self.observer.saw(Sighting { mac, from: Some((*peer.ip()).into()), seen });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SocketAddrV4, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends; a full queue below is a loss like any other, which the transfer repairs.
async fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    match socket.send(bytes).await {
        Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => other.map(drop),
    }
}

/// Blocks of a file, read in larger pieces off the async threads.
struct Reader {
    content: Content,
    block_size: u64,
    /// What is read at a time for a client that has answered; before, no more than is sent.
    piece_size: usize,
    window_size: usize,
    is_trusted: bool,
    offset: u64,
    piece: Bytes,
}

impl Reader {
    fn new(content: Content, Terms { block_size, window }: Terms, most: u32) -> Self {
        let window_size = usize::from(block_size) * usize::from(window);
        let piece_size = usize::try_from(most).unwrap_or(usize::MAX).min(READ_AHEAD).max(window_size);
        let (offset, piece) = (0, Bytes::new());
        Self { content, block_size: block_size.into(), piece_size, window_size, is_trusted: false, offset, piece }
    }

    async fn block(&mut self, number: u64) -> io::Result<Bytes> {
        let start = number * self.block_size;
        let end = (start + self.block_size).min(self.content.length());
        if start >= end {
            return Ok(Bytes::new());
        }
        if start < self.offset || end > self.offset + self.piece.len() as u64 {
            let size = if self.is_trusted { self.piece_size } else { self.window_size };
            let content = self.content.clone();
            self.piece = tokio::task::spawn_blocking(move || content.read(start, size)).await??;
            self.offset = start;
        }
        let from = usize::try_from(start - self.offset).unwrap_or(usize::MAX);
        let to = usize::try_from(end - self.offset).unwrap_or(usize::MAX);
        if to > self.piece.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.piece.slice(from..to))
    }
}

#[cfg(test)]
#[path = "tftp_tests.rs"]
mod tests;
