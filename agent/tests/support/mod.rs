//! A server for agents: real TLS on loopback, scripted answers, everything heard is kept.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dragonfly_core::clock::{Clock, SystemClock};
use dragonfly_core::wire::{BmcAccountReport, Heard, Hello, Identity, Orders, Report, ReportKind, Versions};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A server's key and certificate: they survive its restart.
pub struct Keys {
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: Vec<u8>,
    pub pin: String,
}

impl Keys {
    pub fn new() -> Arc<Self> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["dragonfly".into()]).unwrap().self_signed(&key).unwrap();
        let pin = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
        let pin = pin.iter().map(|b| format!("{b:02x}")).collect();
        Arc::new(Self { certificate: certificate.der().clone(), key: key.serialize_der(), pin })
    }
}

/// Answers what an agent says: path, bearer and body. None: the script answers.
pub type Relay = Arc<dyn Fn(String, String, Bytes) -> BoxFuture<'static, Option<Response<Full<Bytes>>>> + Send + Sync>;

#[derive(Default)]
pub struct Script {
    /// Who is asked before anything else here.
    pub relay: Option<Relay>,
    /// Answers to questions for work, in order; then "wait".
    pub orders: Vec<Orders>,
    /// The next this many calls of an agent with a session are told that it has ended.
    pub end_sessions: u32,
    /// The next this many hellos are refused with this status.
    pub refuse_hellos: (u32, u16),
    /// Answer to reports of progress from now on.
    pub stop: Option<String>,
    pub hellos: Vec<Hello>,
    pub reports: Vec<ReportKind>,
    pub accounts: Vec<BmcAccountReport>,
    pub log: Vec<(u64, String)>,
    pub identities_given: u32,
    pub tokens: Vec<String>,
    pub files: Vec<(String, Vec<u8>)>,
    /// What opens the files; none: anybody may have them.
    pub files_for: Option<String>,
    /// Paths, and where they lead.
    pub redirects: Vec<(String, String)>,
    /// What was shown for each file that was asked for.
    pub shown: Vec<String>,
}

pub type Shared = Arc<Mutex<Script>>;

pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(keys: &Arc<Keys>, script: &Shared, address: Option<SocketAddr>) -> Self {
        let listener = {
            let mut tries = 0;
            loop {
                match TcpListener::bind(address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap())).await {
                    Ok(listener) => break listener,
                    Err(error) => {
                        tries += 1;
                        assert!(tries < 100, "{error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        let address = listener.local_addr().unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(keys.key.clone()));
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![keys.certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let script = Arc::clone(script);
        let keys = Arc::clone(keys);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, script, keys) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&keys));
                connections.spawn(async move {
                    let mut first = [0u8; 1];
                    if !matches!(stream.peek(&mut first).await, Ok(1)) {
                        return;
                    }
                    let service = hyper::service::service_fn(move |request| {
                        let (script, keys) = (Arc::clone(&script), Arc::clone(&keys));
                        async move { Ok::<_, Infallible>(answer(request, &script, &keys, address).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    if first[0] == 0x16 {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    } else {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { address, task }
    }

    /// As a crash: the port closes and every connection breaks.
    pub async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }

    pub fn identity(&self, keys: &Keys, token: &str) -> Identity {
        identity(self.address, keys, token)
    }
}

pub fn identity(address: SocketAddr, keys: &Keys, token: &str) -> Identity {
    Identity {
        server: format!("https://{address}").parse().unwrap(),
        also: Vec::new(),
        pin: keys.pin.clone(),
        token: token.to_owned().into(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        time: SystemClock.now(),
    }
}

pub fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

pub fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    reply(200, serde_json::to_vec(value).unwrap())
}

async fn answer(
    request: Request<Incoming>,
    script: &Shared,
    keys: &Keys,
    address: SocketAddr,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (bearer, range, if_range) = (header("authorization"), header("range"), header("if-range"));
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let relay = script.lock().unwrap().relay.clone();
    if let Some(relay) = relay
        && let Some(answer) = relay(path.clone(), bearer.trim_start_matches("Bearer ").to_owned(), body.clone()).await
    {
        return answer;
    }
    let mut s = script.lock().unwrap();
    if path.starts_with("/images/") {
        s.shown.push(bearer.clone());
    }
    match path.as_str() {
        "/boot/52:54:00:00:00:01/identity" => {
            s.identities_given += 1;
            let token = format!("fresh-{}", s.identities_given);
            let text = serde_json::to_vec(&identity(address, keys, &token)).unwrap();
            reply(200, cpio("dragonfly/identity.json", &text))
        }
        "/dragonfly/v1/agent/hello" => {
            s.tokens.push(bearer);
            if s.refuse_hellos.0 > 0 {
                s.refuse_hellos.0 -= 1;
                let status = s.refuse_hellos.1;
                return reply(status, format!("{{\"status\":{status},\"title\":\"no\",\"detail\":\"not now\"}}"));
            }
            s.hellos.push(serde_json::from_slice(&body).unwrap());
            let session = format!("session-{}", s.hellos.len());
            json(&serde_json::json!({
                "protocol": Versions::OURS.max, "machine": "m", "displayName": "CensusAbleQualityParent",
                "session": session, "time": SystemClock.now(), "heartbeatSeconds": 2
            }))
        }
        _ if path.starts_with("/dragonfly/") && s.end_sessions > 0 => {
            s.end_sessions -= 1;
            reply(401, "{}")
        }
        "/dragonfly/v1/agent/work" => {
            let orders =
                if s.orders.is_empty() { Orders::Wait { reason: "nothing to do".into() } } else { s.orders.remove(0) };
            json(&orders)
        }
        "/dragonfly/v1/agent/report" => {
            let report: Report = serde_json::from_slice(&body).unwrap();
            s.reports.push(report.what);
            json(&match &s.stop {
                Some(reason) => Heard::Stop { reason: reason.clone() },
                None => Heard::GoOn,
            })
        }
        "/dragonfly/v1/agent/bmc-account" => {
            s.accounts.push(serde_json::from_slice(&body).unwrap());
            json(&Heard::GoOn)
        }
        "/dragonfly/v1/agent/log" => {
            let offset = query.trim_start_matches("offset=").parse().unwrap();
            s.log.push((offset, String::from_utf8_lossy(&body).into_owned()));
            reply(204, "")
        }
        _ if s.redirects.iter().any(|(from, _)| *from == path) => {
            let to = s.redirects.iter().find(|(from, _)| *from == path).map(|(_, to)| to.clone()).unwrap();
            Response::builder().status(307).header("location", to).body(Full::default()).unwrap()
        }
        _ if s.files_for.as_ref().is_some_and(|opens| *opens != bearer) => reply(401, "{}"),
        _ => match s.files.iter().find(|(name, _)| *name == path) {
            None => reply(404, "no"),
            Some((_, bytes)) => {
                let tag = format!("\"{:x}\"", bytes.iter().map(|b| u64::from(*b)).sum::<u64>());
                let first = range.strip_prefix("bytes=").and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
                let builder = Response::builder().header("etag", tag.clone());
                match first.filter(|_| if_range.is_empty() || if_range == tag) {
                    Some(first) if first >= bytes.len() => reply(416, ""),
                    Some(first) => builder
                        .status(206)
                        .header("content-range", format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len()))
                        .body(Full::new(Bytes::copy_from_slice(&bytes[first..])))
                        .unwrap(),
                    None => builder.body(Full::new(Bytes::copy_from_slice(bytes))).unwrap(),
                }
            }
        },
    }
}

/// A newc archive with one file.
pub fn cpio(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in [(name, data), ("TRAILER!!!", &[][..])] {
        out.extend(b"070701");
        for n in [1, 0o100_400, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            out.extend(format!("{n:08x}").bytes());
        }
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
