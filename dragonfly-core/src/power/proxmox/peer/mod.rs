//! A Proxmox VE cluster that exists in memory, for tests. Every request is judged by the published [`Schema`] of the
//! API, which the caller brings, and so is every answer. `proxmoxer` takes it for a real one.

mod calls;
mod http;
mod schema;
mod task;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, BufStream};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use calls::{Refusal, refusal};
use http::Request;
use schema::Parameters;

pub use schema::Schema;
pub use world::{Account, Machine, World};

/// What has come of a cluster so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Every request: verb and path.
    pub requests: Vec<String>,
    /// Logins for a ticket that went well.
    pub logins: u32,
    /// Connections that were made.
    pub connections: u32,
    /// The most requests that were answered at the same time.
    pub parallel: u32,
    /// Requests that the schema does not know or allow.
    pub strange: Vec<String>,
    /// Answers of this server's that the schema does not allow: faults of its own.
    pub faults: Vec<String>,
}

#[derive(Debug)]
struct State {
    world: World,
    schema: Schema,
    seen: Seen,
    at_work: u32,
}

/// A cluster's API on a TCP port; gone when this is dropped.
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
    /// Starts one at this address, which may leave the port open: with TLS if there are a certificate and its key, as
    /// PEM.
    pub async fn start(
        address: SocketAddr,
        world: World,
        schema: Schema,
        tls: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        let acceptor = tls.map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { world, schema, seen: Seen::default(), at_work: 0 }));
        let task = tokio::spawn(serve(listener, acceptor, state.clone()));
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

    /// One of its VMs.
    pub fn vm(&self, vmid: u32) -> Option<Machine> {
        let mut state = lock(&self.state);
        state.world.settle();
        state.world.vms.get(&vmid).cloned()
    }

    /// Changes something of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut state = lock(&self.state);
        state.world.settle();
        change(&mut state.world)
    }

    /// Moves a VM to another node, whether it runs or not.
    pub fn migrate(&self, vmid: u32, to: &str) {
        self.change(|world| {
            if let Some(vm) = world.vms.get_mut(&vmid) {
                vm.node = to.to_owned();
            }
        });
    }
}

fn acceptor(certificate: &str, key: &str) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config).into())
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    // An error is that of a client that has gone again.
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn(async move {
            match acceptor {
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    converse(stream, state).await
                }
                None => converse(stream, state).await,
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    lock(&state).seen.connections += 1;
    while let Some(request) = Request::read(&mut stream).await? {
        let delay = {
            let mut state = lock(&state);
            state.at_work += 1;
            state.seen.parallel = state.seen.parallel.max(state.at_work);
            state.world.delay
        };
        tokio::time::sleep(delay).await;
        let (status, reason, body) = {
            let mut state = lock(&state);
            state.at_work -= 1;
            state.answer(&request)
        };
        http::write(&mut stream, status, &reason, &body).await?;
    }
    Ok(())
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, String, String) {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        self.seen.requests.push(format!("{} {path}", request.method));
        let done = self.call(request, path, query);
        if let Err(Refusal { status: 400 | 501, words, errors }) = &done {
            self.seen.strange.push(format!("{} {path}: {words} {errors:?}", request.method));
        }
        match done {
            Ok(data) => (200, "OK".to_owned(), json!({ "data": data }).to_string()),
            // It is refused before there is anything that formats an answer.
            Err(Refusal { status: 401, words, .. }) => (401, words, String::new()),
            Err(Refusal { status, words, errors }) => {
                let mut body = json!({ "data": Value::Null });
                if !self.world.is_terse {
                    body["message"] = format!("{words}\n").into();
                }
                if !errors.is_empty() {
                    body["errors"] = json!(errors);
                }
                (status, words, body.to_string())
            }
        }
    }

    fn call(&mut self, request: &Request, path: &str, query: &str) -> Result<Value, Refusal> {
        let unknown = || refusal(501, format!("Method '{} {path}' not implemented", request.method));
        let path = path.strip_prefix("/api2/json/").ok_or_else(unknown)?;
        let parts: Vec<String> = path.split('/').map(decoded).collect();
        let found = self.schema.find(&request.method, &parts);
        let is_open = found.as_ref().is_some_and(|(method, _)| method.user.as_deref() == Some("world"));
        // Who is nobody does not learn what there is.
        let account = if is_open { None } else { Some(self.account(request)?) };
        let (method, mut given) = found.map(|(method, given)| (method.clone(), given)).ok_or_else(unknown)?;
        let is_form = request.header("content-type").is_some_and(|kind| kind.contains("x-www-form-urlencoded"));
        if !request.body.is_empty() && !is_form {
            return Err(refusal(501, "this server reads forms alone"));
        }
        given.extend(pairs(query.as_bytes()));
        given.extend(pairs(&request.body));
        let data = match account {
            Some(account) => self.world.call(&method, &account, &given)?,
            None => {
                let errors = method.check_parameters(&given);
                if !errors.is_empty() {
                    return Err(Refusal { errors, ..refusal(400, "Parameter verification failed.") });
                }
                self.log_in(&given)?
            }
        };
        if let Err(fault) = method.check_answer(&data) {
            self.seen.faults.push(fault);
        }
        Ok(data)
    }

    /// Who asks.
    fn account(&self, request: &Request) -> Result<Account, Refusal> {
        let named = |name: &str| self.world.accounts.iter().find(|account| account.name == name).cloned();
        if let Some(token) = request.header("authorization") {
            let token = token.strip_prefix("PVEAPIToken=").and_then(|token| token.split_once('='));
            let (name, secret) = token.ok_or_else(|| refusal(401, "No ticket"))?;
            let account = named(name).ok_or_else(|| refusal(401, format!("no such token '{name}'")))?;
            let is_right = account.secret == secret && name.contains('!');
            return if is_right { Ok(account) } else { Err(refusal(401, "invalid token value!")) };
        }
        let cookies = request.header("cookie").unwrap_or_default().split(';');
        let ticket = cookies.filter_map(|cookie| cookie.trim().strip_prefix("PVEAuthCookie=")).next();
        let ticket = decoded(ticket.ok_or_else(|| refusal(401, "No ticket"))?);
        let (user, csrf) =
            self.world.tickets.get(&ticket).ok_or_else(|| refusal(401, "permission denied - invalid PVE ticket"))?;
        if request.method != "GET" && request.header("csrfpreventiontoken") != Some(csrf) {
            return Err(refusal(401, "Permission denied - invalid csrf token"));
        }
        named(user).ok_or_else(|| refusal(401, "No ticket"))
    }

    fn log_in(&mut self, given: &Parameters) -> Result<Value, Refusal> {
        let (user, password) = (given.get("username"), given.get("password"));
        let account = self.world.accounts.iter().find(|account| Some(&account.name) == user);
        let account = account.filter(|account| Some(&account.secret) == password && !account.name.contains('!'));
        let user = account.ok_or_else(|| refusal(401, "authentication failure"))?.name.clone();
        self.seen.logins += 1;
        let number = self.seen.logins;
        // Signatures are base64: with signs that a cookie cannot have as they are.
        let ticket = format!("PVE:{user}:66A1B2{number:02X}::c2lnbmF0dXJl+/{number}==");
        let csrf = format!("66A1B2{number:02X}:Y3NyZg+/{number}");
        let mut data = json!({ "username": user, "ticket": ticket, "CSRFPreventionToken": csrf });
        if let Some(cluster) = &self.world.cluster {
            data["clustername"] = cluster.as_str().into();
        }
        self.world.tickets.insert(ticket, (user, csrf));
        Ok(data)
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// `%2B` as `+`; a `+` stays one.
fn decoded(text: &str) -> String {
    let text = text.replace('+', "%2B");
    pairs(format!("x={text}").as_bytes()).pop().map(|(_, text)| text).unwrap_or_default()
}
