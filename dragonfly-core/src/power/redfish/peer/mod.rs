//! A Redfish service that exists in memory, for tests: one or several machines, and the habits of real controllers.
//! The `sushy` library takes it for a real one.

mod door;
mod http;
mod machine;
mod personality;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use machine::{BootSet, Command, Machine};
pub use personality::{Personality, Tags};

/// What has come of a service so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Sessions that were opened.
    pub opened: u32,
    /// Sessions that were given back.
    pub closed: u32,
    /// Passwords that were refused.
    pub refused: u32,
    /// The most requests that were at work at the same time.
    pub parallel: u32,
    /// Requests: method, path and query.
    pub requests: Vec<String>,
}

#[derive(Debug, Default)]
struct Task {
    /// How often it is looked at until it has ended.
    looks: u32,
}

#[derive(Debug)]
struct State {
    is: Personality,
    machines: Vec<Machine>,
    /// Sessions' numbers by their tokens.
    tokens: BTreeMap<String, u32>,
    tasks: Vec<Task>,
    next: u32,
    at_work: u32,
    seen: Seen,
}

/// A service on a TCP port; gone when this is dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// Starts one at this address, which may leave the port open, without TLS.
    pub async fn start(address: SocketAddr, is: Personality) -> std::io::Result<Self> {
        Self::serve(address, is, None).await
    }

    /// With TLS: a certificate and its PKCS #8 key, both as DER.
    pub async fn start_tls(
        address: SocketAddr,
        is: Personality,
        certificate: Vec<u8>,
        key: Vec<u8>,
    ) -> std::io::Result<Self> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config.with_no_client_auth().with_single_cert(vec![CertificateDer::from(certificate)], key)
            })
            .map_err(std::io::Error::other)?;
        Self::serve(address, is, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(address: SocketAddr, is: Personality, tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let machine = Machine { tls_mode: "OneWay".to_owned(), ..Machine::default() };
        let machines = vec![machine; is.systems];
        let (tokens, tasks) = (BTreeMap::new(), vec![]);
        let state = State { is, machines, tokens, tasks, next: 0, at_work: 0, seen: Seen::default() };
        let state = Arc::new(Mutex::new(state));
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Ok(Self { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come of it.
    pub fn seen(&self) -> Seen {
        lock(&self.state).seen.clone()
    }

    /// The first machine behind it.
    pub fn machine(&self) -> Machine {
        lock(&self.state).machines.first().cloned().unwrap_or_default()
    }

    /// Every machine behind it, in order.
    pub fn machines(&self) -> Vec<Machine> {
        lock(&self.state).machines.clone()
    }

    /// Changes something of it and of its machines.
    pub fn change(&self, change: impl FnOnce(&mut Personality, &mut [Machine])) {
        let mut state = lock(&self.state);
        let State { is, machines, .. } = &mut *state;
        change(is, machines);
    }

    /// Forgets every session, as controllers do that restart.
    pub fn forget_sessions(&self) {
        lock(&self.state).tokens.clear();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    // Connections end with the service.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // An error is that of one who has gone.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, state).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(ask)) = http::ask(&mut stream).await {
        let (reply, effect, delay, takes) = {
            let mut state = lock(&state);
            state.at_work += 1;
            state.seen.parallel = state.seen.parallel.max(state.at_work);
            let (reply, effect) = state.answer(&ask);
            (reply, effect, state.is.delay, state.is.takes)
        };
        if let Some((machine, command)) = effect {
            // A reset changes no power.
            match if command == Command::Reset { Duration::ZERO } else { takes } {
                Duration::ZERO => lock(&state).carry_out(machine, command),
                takes => {
                    let state = state.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(takes).await;
                        lock(&state).carry_out(machine, command);
                    });
                }
            }
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        lock(&state).at_work -= 1;
        if http::reply(&mut stream, reply).await.is_err() {
            break;
        }
    }
}

impl State {
    fn carry_out(&mut self, machine: usize, command: Command) {
        // Told twice to switch on, it boots once.
        if let Some(machine) = self.machines.get_mut(machine).filter(|machine| machine.can(command)) {
            machine.carry_out(command);
        }
    }
}
