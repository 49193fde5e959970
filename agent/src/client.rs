//! Talking to the server: one session, kept through restarts of the server.
//!
//! Every call goes over TLS to the pinned key and is asked again until the server answers: a server
//! that is away for an hour costs an hour, not an installation.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dragonfly_core::secret::SecretString;
use dragonfly_core::wire::{Ask, BmcAccountReport, Heard, Hello, Identity, Orders, Problem, Report, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::backoff::{Backoff, random};
use crate::journal::Journal;
use crate::pin;

/// The longest answer that is read, in bytes. A workflow with every value filled in stays far below.
const LONGEST_ANSWER: usize = 8 * 1024 * 1024;
/// How long the server may hold a question for work.
const WAIT_SECONDS: u32 = 25;

/// Why a call was not answered as wished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer, or one that says to come again.
    #[error("the server does not answer")]
    Away {
        /// The cause.
        #[source]
        source: dragonfly_core::Source,
    },
    /// The session or token is not known any more.
    #[error("the server does not know this agent: {detail}")]
    Unknown {
        /// What the server says.
        detail: String,
    },
    /// Somebody else speaks for this machine.
    #[error("{detail}")]
    Conflict {
        /// What the server says.
        detail: String,
    },
    /// The server refuses, and asking again does not help.
    #[error("the server refuses ({status}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the server says.
        detail: String,
    },
    /// The server does not want an agent on this machine now.
    #[error("the server wants no agent on this machine now")]
    NotWanted,
}

impl CallError {
    fn away(source: impl Into<dragonfly_core::Source>) -> Self {
        Self::Away { source: source.into() }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// Who hears reports. The server, or a test.
#[async_trait]
pub trait Reports: Send + Sync {
    /// Sends one report and waits until it is answered, however long that takes.
    async fn report(&self, report: &Report) -> Result<Heard, CallError>;
    /// Sends one report that is overtaken by the next: tried once.
    async fn report_once(&self, report: &Report) -> Result<Heard, CallError>;
}

/// The connection to one server, in the name of one machine.
#[derive(Debug)]
pub struct Link {
    /// The server's instances, the one that gave the identity first.
    servers: Vec<Url>,
    /// Which of them is asked.
    at: AtomicUsize,
    pinned: reqwest::Client,
    plain: reqwest::Client,
    journal: Journal,
    state: tokio::sync::Mutex<State>,
    sessions: AtomicU64,
    /// The key of the session in force and its number: read also while a new one is asked for.
    key: Mutex<Option<(u64, SecretString)>>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    hello: Hello,
    session: Option<Session>,
}

#[derive(Debug, Clone)]
struct Session {
    key: SecretString,
    welcome: Welcome,
}

impl Link {
    /// A link that has not said anything yet.
    pub fn new(identity: Identity, hello: Hello, journal: Journal) -> Result<Self, CallError> {
        let refused = |detail: String| CallError::Refused { status: 0, detail };
        let pin: pin::Pin = identity.pin.parse().map_err(|e: pin::BadPin| refused(e.to_string()))?;
        let tls = pin::client_config(pin).map_err(|e| refused(e.to_string()))?;
        let pinned = client().tls_backend_preconfigured(tls).https_only(true).build();
        let plain = plain_client();
        Ok(Self {
            servers: servers(&identity),
            at: AtomicUsize::new(0),
            pinned: pinned.map_err(|e| refused(chain(&e)))?,
            plain: plain.map_err(|e| refused(chain(&e)))?,
            journal,
            state: tokio::sync::Mutex::new(State { identity, hello, session: None }),
            sessions: AtomicU64::new(0),
            key: Mutex::default(),
        })
    }

    /// Says hello until the server welcomes this machine.
    pub async fn connect(&self) -> Result<Welcome, CallError> {
        Ok(self.session(0).await?.1.welcome)
    }

    /// How many sessions there have been; the log begins anew with each.
    pub fn session_number(&self) -> u64 {
        self.sessions.load(Ordering::Acquire)
    }

    /// The key of the session in force and the session's number, if there has been one. Waits for nobody.
    pub(crate) fn session_key(&self) -> Option<(u64, SecretString)> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key of a later session than this one, which the server has refused.
    pub(crate) async fn session_key_after(&self, refused: u64) -> Result<(u64, SecretString), CallError> {
        self.session(refused).await.map(|(number, session)| (number, session.key))
    }

    /// Asks for something to do; the server answers when there is something, or after a while.
    pub async fn work(&self) -> Result<Orders, CallError> {
        let ask = Ask { wait_seconds: WAIT_SECONDS };
        let limit = Duration::from_secs(u64::from(WAIT_SECONDS) + 15);
        self.until_answered("dragonfly/v1/agent/work", &ask, limit).await
    }

    /// Says what came of the account on the management controller, and waits until that is answered.
    pub async fn bmc_account(&self, report: &BmcAccountReport) -> Result<Heard, CallError> {
        self.until_answered("dragonfly/v1/agent/bmc-account", report, Duration::from_secs(20)).await
    }

    /// Sends a part of the log, once.
    pub async fn log(&self, offset: u64, text: Bytes) -> Result<(), CallError> {
        let (_, session) = self.session(0).await?;
        let (at, mut url) = self.url("dragonfly/v1/agent/log")?;
        url.query_pairs_mut().append_pair("offset", &offset.to_string());
        let request = self
            .pinned
            .post(url)
            .bearer_auth(session.key.reveal())
            .header("content-type", "text/plain; charset=utf-8")
            .timeout(Duration::from_secs(30))
            .body(text);
        self.heard(at, answer(request).await.map(drop))
    }

    /// The instance that is asked now, and its number.
    fn server(&self) -> (usize, &Url) {
        let at = self.at.load(Ordering::Acquire) % self.servers.len();
        // The list is never empty, and the number is below its length.
        (at, &self.servers[at])
    }

    /// This one does not answer: the next is asked from now on. Of several calls that find out, one moves on.
    fn move_on(&self, from: usize) {
        if self.servers.len() > 1
            && self
                .at
                .compare_exchange(from, (from + 1) % self.servers.len(), Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            self.journal.say(format!("{} does not answer; asking {}", self.servers[from], self.server().1));
        }
    }

    fn url(&self, path: &str) -> Result<(usize, Url), CallError> {
        let (at, server) = self.server();
        let url = server.join(path).map_err(|e| CallError::Refused { status: 0, detail: e.to_string() })?;
        Ok((at, url))
    }

    /// The same result; who was away is not asked next.
    fn heard<T>(&self, from: usize, result: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(CallError::Away { .. }) = &result {
            self.move_on(from);
        }
        result
    }

    /// The session in force and its number. When the caller's own (`not`) has been refused, a new
    /// one is opened; of several callers one does, the others wait for it.
    async fn session(&self, not: u64) -> Result<(u64, Session), CallError> {
        let mut state = self.state.lock().await;
        let number = self.sessions.load(Ordering::Acquire);
        if let Some(session) = &state.session
            && number > not
        {
            return Ok((number, session.clone()));
        }
        let welcome = self.hello(&mut state).await?;
        let session = Session { key: welcome.session.clone(), welcome };
        state.session = Some(session.clone());
        let number = number + 1;
        self.sessions.store(number, Ordering::Release);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, session.key.clone()));
        Ok((number, session))
    }

    async fn hello(&self, state: &mut State) -> Result<Welcome, CallError> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(20));
        loop {
            state.hello.uptime_seconds = crate::journal::uptime();
            let token = state.identity.token.reveal().to_owned();
            let (at, url) = self.url("dragonfly/v1/agent/hello")?;
            let result =
                call::<_, Welcome>(self.pinned.post(url).timeout(Duration::from_secs(20)), &token, &state.hello).await;
            let why = match self.heard(at, result) {
                Ok(welcome) => return Ok(welcome),
                // The token was used, is too old, or was given to an address that is not ours any
                // more. A new one is had as the firmware had the first.
                Err(CallError::Unknown { .. } | CallError::Refused { status: 403, .. }) => {
                    match self.fresh_identity(state).await {
                        Ok(()) => "asked for a new identity".to_owned(),
                        Err(CallError::NotWanted) => return Err(CallError::NotWanted),
                        Err(error) => chain(&error),
                    }
                }
                Err(CallError::Refused { status, detail }) if (400..500).contains(&status) => {
                    format!("the server refuses this agent ({status}): {detail}")
                }
                Err(error) => chain(&error),
            };
            if backoff.tries().is_multiple_of(8) {
                self.journal.say(format!("hello: {why}; trying again"));
            }
            tokio::time::sleep(backoff.next_wait(random())).await;
        }
    }

    async fn fresh_identity(&self, state: &mut State) -> Result<(), CallError> {
        let (at, mut url) = self.url(&format!("boot/{}/identity", state.identity.mac))?;
        // The plain half of the same port: the token is bound to this address, and the key that it
        // will be shown to stays the one we were started with.
        let port = url.port_or_known_default();
        let _ = url.set_scheme("http");
        let _ = url.set_port(port);
        let given = answer(self.plain.get(url).timeout(Duration::from_secs(20))).await;
        let archive = match self.heard(at, given) {
            Err(CallError::Refused { status: 404, .. }) => return Err(CallError::NotWanted),
            other => other?,
        };
        let text = crate::cpio::find(&archive, "dragonfly/identity.json")
            .ok_or_else(|| CallError::away("the server's answer is not an identity"))?;
        let identity: Identity =
            serde_json::from_slice(text).map_err(|_| CallError::away("the server's identity cannot be read"))?;
        if identity.pin != state.identity.pin || identity.mac != state.identity.mac {
            return Err(CallError::away("the identity offered is for another key or card"));
        }
        state.identity.token = identity.token;
        Ok(())
    }

    /// Asks until there is an answer; opens a new session when this one has ended.
    async fn until_answered<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<A, CallError> {
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(15));
        let mut ended = 0;
        let mut lost = false;
        loop {
            let (number, session) = self.session(ended).await?;
            let (at, url) = self.url(path)?;
            let answered = call(self.pinned.post(url).timeout(limit), session.key.reveal(), body).await;
            match self.heard(at, answered) {
                Ok(answer) => {
                    if lost {
                        self.journal.say("the server answers again");
                    }
                    return Ok(answer);
                }
                Err(CallError::Unknown { detail }) => {
                    self.journal.say(format!("the session has ended ({detail}); saying hello again"));
                    ended = number;
                    tokio::time::sleep(backoff.next_wait(random())).await;
                }
                Err(error @ CallError::Away { .. }) => {
                    if !lost {
                        self.journal.say(format!("{}; asking again until it does", chain(&error)));
                        lost = true;
                    }
                    tokio::time::sleep(backoff.next_wait(random())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Reports for Link {
    async fn report(&self, report: &Report) -> Result<Heard, CallError> {
        self.until_answered("dragonfly/v1/agent/report", report, Duration::from_secs(20)).await
    }

    async fn report_once(&self, report: &Report) -> Result<Heard, CallError> {
        let (_, session) = self.session(0).await?;
        let (at, url) = self.url("dragonfly/v1/agent/report")?;
        let request = self.pinned.post(url).timeout(Duration::from_secs(10));
        self.heard(at, call(request, session.key.reveal(), report).await)
    }
}

/// Every instance that an identity names, the one that gave it first.
pub fn servers(identity: &Identity) -> Vec<Url> {
    let mut all = vec![identity.server.clone()];
    all.extend(identity.also.iter().filter(|other| **other != identity.server).cloned());
    all
}

/// A client with the limits that every connection of the agent has.
pub(crate) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("mage/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(15))
        .no_proxy()
}

/// A client for plain HTTP: it trusts no certificate at all.
pub(crate) fn plain_client() -> reqwest::Result<reqwest::Client> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = client();
    match rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(tls) => {
            let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            builder.tls_backend_preconfigured(tls).build()
        }
        Err(_) => builder.build(),
    }
}

async fn call<B: Serialize, A: DeserializeOwned>(
    request: reqwest::RequestBuilder,
    bearer: &str,
    body: &B,
) -> Result<A, CallError> {
    let bytes = answer(request.bearer_auth(bearer).json(body)).await?;
    serde_json::from_slice(&bytes).map_err(|e| CallError::away(format!("its answer cannot be read: {e}")))
}

/// Sends a request and reads the whole answer, sorted by what can be done about it.
async fn answer(request: reqwest::RequestBuilder) -> Result<Bytes, CallError> {
    let mut response = request.send().await.map_err(|e| {
        let e = e.without_url();
        // What the pin's check says, for a person.
        if chain(&e).contains("ApplicationVerificationFailure") {
            return CallError::away(
                "whoever answers there holds another key than the server of this boot; it was told nothing",
            );
        }
        CallError::away(e)
    })?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| CallError::away(e.without_url()))? {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Err(CallError::away("its answer is too long"));
        }
        body.extend_from_slice(&part);
    }
    if status.is_success() {
        return Ok(body.into());
    }
    let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
    let detail = [problem.detail, problem.title].into_iter().find(|t| !t.is_empty()).unwrap_or_default();
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(500).collect();
    Err(match status.as_u16() {
        401 => CallError::Unknown { detail },
        409 => CallError::Conflict { detail },
        408 | 425 | 429 | 500.. => CallError::away(format!("it answers {status} {detail}")),
        // A redirect means a proxy or another program on this port.
        300..=399 => CallError::away(format!("it answers {status}: is this the right port?")),
        status => CallError::Refused { status, detail },
    })
}
