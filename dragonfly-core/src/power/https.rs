//! HTTP to controllers and hypervisors, with TLS as their address says.
//!
//! Controllers come with certificates that they signed themselves, so the `tls` of an address chooses:
//!
//! | `tls` | what is trusted |
//! |---|---|
//! | (absent) | what the driver's certificate authorities vouch for, by name and date |
//! | `sha256:HEX` | the one certificate with this SHA-256; its name and dates do not matter |
//! | `insecure` | everything: who answers is not known, and it is told the password |
//! | `off` | plain HTTP: everybody on the way reads the password |
//!
//! TLS is 1.2 or 1.3, with keys that are agreed on anew for each connection; controllers that know only what was
//! before are not reached.

mod trust;

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

pub(crate) use trust::{Roots, Trust};

use super::{PowerError, Result};
use crate::secret::SecretString;

/// More than any answer has that is wanted; a whole event log is read in parts.
const LONGEST_ANSWER: usize = 8 << 20;
/// To a controller in the same network.
const CONNECT: Duration = Duration::from_secs(10);
/// Services send from `/redfish/v1` to `/redfish/v1/`, and from there nowhere.
const REDIRECTS: usize = 3;
/// Shorter than controllers keep a connection that nobody uses.
const IDLE: Duration = Duration::from_secs(4);

/// A client for one controller.
#[derive(Debug, Clone)]
pub(crate) struct Https {
    client: reqwest::Client,
    base: Url,
    request: Duration,
}

/// One request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Absolute, or relative to the controller: `/redfish/v1/Systems`.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, SecretString)>,
    pub(crate) body: Option<(&'static str, Vec<u8>)>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: vec![], body: None }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: SecretString) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        Self { body: Some(("application/json", body.to_string().into_bytes())), ..self }
    }

    /// `a=1&b=2`, escaped.
    #[must_use]
    // Redfish has none.
    #[allow(dead_code)]
    pub(crate) fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Self { body: Some(("application/x-www-form-urlencoded", body.into_bytes())), ..self }
    }
}

/// What came back, whatever its status. Its headers may be a key to the next request.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The words of the status line, if they are not the ones that go without saying.
    #[cfg_attr(not(feature = "proxmox"), allow(dead_code))]
    pub(crate) reason: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("length", &self.body.len()).finish_non_exhaustive()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| PowerError::Malformed { reason: format!("{what} cannot be read: {error}") })
    }
}

impl Https {
    /// `base` is the controller's scheme, host and port: `https://10.0.0.6/`. A request may take so long.
    pub(crate) fn new(base: Url, trust: &Trust, roots: &Roots, request: Duration) -> Result<Self> {
        Self::pooled(base, trust, roots, request, 1)
    }

    /// One that keeps so many connections open: more than one for those who bear parallel requests.
    pub(crate) fn pooled(base: Url, trust: &Trust, roots: &Roots, request: Duration, kept: usize) -> Result<Self> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| PowerError::Unreachable { source: error };
        let tls = trust.client_config(roots).map_err(|error| unusable(error.into()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("dragonfly/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(request))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(kept)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| unusable(error.into()))?;
        Ok(Self { client, base, request })
    }

    /// Sends a request and reads its whole answer. Statuses are the caller's to judge.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let late = PowerError::TimedOut { after: self.request };
        tokio::time::timeout(self.request, self.follow(request)).await.unwrap_or(Err(late))
    }

    async fn follow(&self, request: &Request) -> Result<Answer> {
        let mut at = self.resolve(&request.path)?;
        for _ in 0..=REDIRECTS {
            let answer = match self.one(request, at.clone()).await {
                // It closed a connection that we had kept, at the moment when we used it again.
                Err(Failed::Broken(_)) if request.method == Method::GET => self.one(request, at.clone()).await,
                answer => answer,
            };
            let answer = answer.map_err(Failed::because)?;
            let is_elsewhere = answer.status.is_redirection() && answer.status != StatusCode::NOT_MODIFIED;
            // Only what may be asked twice is asked elsewhere.
            let (true, &Method::GET, Some(to)) = (is_elsewhere, &request.method, answer.header(LOCATION.as_str()))
            else {
                return Ok(answer);
            };
            at = self.resolve_from(&at, to)?;
        }
        Err(PowerError::Malformed { reason: format!("`{}` leads in a circle", request.path) })
    }

    fn resolve(&self, path: &str) -> Result<Url> {
        self.resolve_from(&self.base, path)
    }

    /// An address on this controller, and on no other: it gets the password.
    fn resolve_from(&self, at: &Url, path: &str) -> Result<Url> {
        let malformed = |reason: String| PowerError::Malformed { reason };
        let to = at.join(path).map_err(|error| malformed(format!("`{path}` is no address: {error}")))?;
        if to.origin() != self.base.origin() {
            return Err(malformed(format!("it sends to another host: {}", to.origin().ascii_serialization())));
        }
        Ok(to)
    }

    async fn one(&self, request: &Request, at: Url) -> Result<Answer, Failed> {
        let mut sent = self.client.request(request.method.clone(), at).header(ACCEPT, "application/json");
        for (name, value) in &request.headers {
            let mut value = reqwest::header::HeaderValue::from_str(value.reveal()).map_err(|_| {
                let reason = format!("what goes into the header {name} is no text");
                Failed::Power(PowerError::InvalidCredential { reason })
            })?;
            value.set_sensitive(true);
            sent = sent.header(name, value);
        }
        if let Some((kind, body)) = &request.body {
            sent = sent.header(CONTENT_TYPE, *kind).body(body.clone());
        }
        let mut answer = sent.send().await.map_err(|error| self.because(error))?;
        let reason = answer.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.because(error))? {
            if body.len() + part.len() > LONGEST_ANSWER {
                let reason = format!("the answer to `{}` is longer than {} MiB", request.path, LONGEST_ANSWER >> 20);
                return Err(Failed::Power(PowerError::Malformed { reason }));
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer { status, reason, headers, body })
    }

    fn because(&self, error: reqwest::Error) -> Failed {
        // An address may tell more than it should.
        let error = error.without_url();
        if let Some(distrust) = trust::find(&error) {
            return Failed::Power(PowerError::NotTrusted { reason: distrust.to_string() });
        }
        if error.is_timeout() {
            return Failed::Power(PowerError::TimedOut { after: self.request });
        }
        if error.is_connect() {
            return Failed::Power(PowerError::Unreachable { source: error.into() });
        }
        Failed::Broken(words(&error))
    }
}

/// A request went wrong.
#[derive(Debug)]
enum Failed {
    /// In the middle, and nobody knows how far it had come.
    Broken(String),
    Power(PowerError),
}

impl Failed {
    fn because(self) -> PowerError {
        match self {
            // It may have been carried out: this is not the error of one that was never reached.
            Self::Broken(why) => PowerError::Malformed { reason: format!("it broke off: {why}") },
            Self::Power(error) => error,
        }
    }
}

/// An error with all that is behind it.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        words = format!("{words}: {error}");
        behind = error.source();
    }
    words
}

#[cfg(test)]
mod tests;
