//! One port for TLS and plain HTTP, told apart by the first byte a client sends.
//!
//! A TLS record of a handshake begins with 22 (RFC 8446 section 5.1); no HTTP method does.
//! Everything a stranger can make us hold is bounded: connections, the wait for a first byte, for a
//! handshake, for headers, and for a reader that stops reading. When all places are taken, whoever
//! has the most of them makes room.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::libc;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::crowd::{Answering, Crowd, Guest};
use crate::stall::Stalling;

/// What a connection is, for handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Who asks.
    pub peer: SocketAddr,
    /// Which of our addresses was asked.
    pub local: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// What strangers may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Wait for the first byte and for the TLS handshake.
    pub handshake: Duration,
    /// Wait for a whole request head, from the last answer on.
    pub head: Duration,
    /// Wait for a peer that does not take what we send.
    pub stall: Duration,
    /// Wait for open requests when the server stops.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            stop: Duration::from_secs(10),
        }
    }
}

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 22;
/// The longest head of a request, in bytes: also what is kept of an answer that is not taken.
const HEAD: usize = 16 * 1024;
/// The most header fields of a request.
const FIELDS: usize = 64;
/// How often the log says that there are more callers than places.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Why there is no listener, and what to do.
pub(crate) fn refused(wanted: SocketAddr, error: io::Error) -> anyhow::Error {
    let (ip, port) = (wanted.ip(), wanted.port());
    let advice = match error.kind() {
        io::ErrorKind::AddrNotAvailable => format!(
            "{ip} is not an address of this machine: give one of its own with --host (`ip address` lists them), or \
             0.0.0.0 for all"
        ),
        io::ErrorKind::AddrInUse => "is another server running? Take another with --port".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("this user may not listen on port {port}: take another with --port, 1024 or above")
        }
        _ => "take another address with --host, or another port with --port".to_owned(),
    };
    anyhow::Error::new(error).context(format!("cannot listen on {wanted}; {advice}"))
}

/// Serves until `cancel`, then lets open requests end, for a while.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    cancel: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let (places, crowd) = (Arc::new(Semaphore::new(limits.connections)), Crowd::default());
    let (tasks, mut full) = (TaskTracker::new(), Complaint::default());
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Never a reason to end: those who are in are answered.
                if is_out_of_files(&error) {
                    crowd.make_room(limits.connections);
                    full.say(&format!("no file descriptor is left ({error}); raise the limit of open files"));
                } else {
                    tracing::debug!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                crowd.make_room(limits.connections);
                full.say(&format!("all {} connections are in use", limits.connections));
                // Those who were asked leave at once; new clients wait in the kernel's queue.
                let place = tokio::select! {
                    () = cancel.cancelled() => break,
                    place = Arc::clone(&places).acquire_owned() => place,
                };
                let Ok(place) = place else { break };
                place
            }
        };
        let (guest, acceptor, router, cancel) =
            (crowd.enter(canonical(peer).ip()), acceptor.clone(), router.clone(), cancel.clone());
        tasks.spawn(async move {
            let ended = tokio::select! {
                ended = connection(stream, peer, acceptor, router, limits, &guest, cancel) => ended,
                () = guest.must_leave() => Err("its place was needed".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
            drop((guest, place));
        });
    }
    drop(listener);
    tasks.close();
    if timeout(limits.stop, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Something that is said again only after a while.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    fn say(&mut self, what: &str) {
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            self.last = Some(Instant::now());
            tracing::warn!("{what}: whoever has the most connections loses some");
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    guest: &Guest,
    cancel: CancellationToken,
) -> Result<(), dragonfly_core::Source> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let mut first = [0u8; 1];
    let peeked = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        peeked = timeout(limits.handshake, stream.peek(&mut first)) => peeked??,
    };
    if peeked == 0 {
        return Ok(());
    }
    let tls = first == [TLS_HANDSHAKE];
    let about = Connection { peer: canonical(peer), local: canonical(local), tls };
    let stream = Stalling::new(stream, limits.stall);
    if tls {
        let stream = timeout(limits.handshake, acceptor.accept(stream)).await??;
        http(stream, about, router, limits, guest, cancel).await
    } else {
        http(stream, about, router, limits, guest, cancel).await
    }
}

/// A listener on `[::]` sees IPv4 clients under mapped addresses; the rest of the program never does.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn http<S>(
    stream: S,
    about: Connection,
    router: Router,
    limits: Limits,
    guest: &Guest,
    cancel: CancellationToken,
) -> Result<(), dragonfly_core::Source>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answers = guest.answers();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(about);
        let (answering, router) = (answers(), router.clone());
        async move {
            let response = router.oneshot(request.map(Body::new)).await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _answering: answering }))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(FIELDS).max_buf_size(HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// A body, and word of it for as long as it is being sent.
#[derive(Debug)]
struct Answer {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_listen_is_told_what_to_change() {
        use io::ErrorKind as E;
        let table = [
            (E::AddrNotAvailable, "10.9.9.9 is not an address of this machine: give one of its own with --host"),
            (E::AddrInUse, "is another server running? Take another with --port"),
            (E::PermissionDenied, "may not listen on port 80: take another with --port"),
            (E::Unsupported, "take another address with --host"),
        ];
        for (kind, wanted) in table {
            let said = refused("10.9.9.9:80".parse().unwrap(), kind.into()).to_string();
            assert!(said.starts_with("cannot listen on 10.9.9.9:80; ") && said.contains(wanted), "{said}");
        }
    }
}
