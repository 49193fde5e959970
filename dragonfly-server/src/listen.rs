//! One port for TLS and plain HTTP, told apart by the first byte a client sends.
//!
//! A TLS record of a handshake begins with 22 (RFC 8446 section 5.1); no HTTP method does.
//! Everything a stranger can make us hold is bounded: connections, the wait for a first byte, for a
//! handshake, for headers, and for a reader that stops reading.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

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

/// Serves until `cancel`, then lets open requests end, for a while.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    limits: Limits,
    cancel: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    loop {
        // A place first: when all are taken, new clients wait in the kernel's queue.
        let place = tokio::select! {
            () = cancel.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a client that left already. Never a reason to end.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, router, cancel) = (acceptor.clone(), router.clone(), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = connection(stream, peer, acceptor, router, limits, cancel).await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(limits.stop, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
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
        http(stream, about, router, limits, cancel).await
    } else {
        http(stream, about, router, limits, cancel).await
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
    cancel: CancellationToken,
) -> Result<(), dragonfly_core::Source>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(about);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(64).max_buf_size(64 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
