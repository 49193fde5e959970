//! The boot services over HTTP: a [`BootHttp`] answers everything under `/boot` and can be mounted
//! in any HTTP server.
//!
//! ```text
//! GET /boot/{mac}            what this machine is to do, as an iPXE script; also for unknown machines
//! GET /boot/{mac}/identity   its identity archive, new each time
//! GET /boot/{mac}/mage.efi   the agent as one UEFI program, its identity inside
//! GET /boot/files/...        kernels, RAM disks, loaders
//! ```
//!
//! The server puts a [`PeerAddr`] and a [`LocalAddr`] into each request's extensions: tokens are
//! bound to the address that asks. Forwarding headers are not read.

mod body;
mod file;
mod range;
mod route;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootObserver, BootProvider, BootRequest, Seen, Sighting};
use dragonfly_core::wire::Identity;
use tower_service::Service;
use url::Url;

pub use body::{BootBody, Sent};
pub use file::respond;
pub use route::{Route, RouteError};

use crate::files::{BootFiles, FIRMWARE, FileError, Found, UNIFIED_KERNEL};
use crate::{Base, identity, ipxe};
use body::Overlay;

/// Request extension: who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Request extension: which of our addresses was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddr(pub SocketAddr);

/// Answers everything under `/boot`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BootHttp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    provider: Arc<dyn BootProvider>,
    observer: Arc<dyn BootObserver>,
    files: Arc<BootFiles>,
    public_url: Option<Url>,
}

impl BootHttp {
    /// Joins who decides, who watches and what is served.
    ///
    /// URLs in scripts name `public_url` if it is given; else the host that the machine itself asked,
    /// which it can evidently reach; else the address that its connection came to.
    pub fn new(
        provider: Arc<dyn BootProvider>,
        observer: Arc<dyn BootObserver>,
        files: Arc<BootFiles>,
        public_url: Option<Url>,
    ) -> Self {
        Self { shared: Arc::new(Shared { provider, observer, files, public_url }) }
    }

    /// Answers one request. Its body is not looked at.
    pub async fn answer<B>(&self, request: &Request<B>) -> Response<BootBody> {
        let asked = Asked {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            host: request.uri().authority().map(ToString::to_string),
            headers: request.headers().clone(),
            peer: request.extensions().get().copied(),
            local: request.extensions().get().copied(),
        };
        self.shared.answer(asked).await
    }
}

impl<B> Service<Request<B>> for BootHttp {
    type Response = Response<BootBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<BootBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        let (parts, _) = request.into_parts();
        let asked = Asked {
            path: parts.uri.path().to_owned(),
            host: parts.uri.authority().map(ToString::to_string),
            peer: parts.extensions.get().copied(),
            local: parts.extensions.get().copied(),
            method: parts.method,
            headers: parts.headers,
        };
        Box::pin(async move { Ok(shared.answer(asked).await) })
    }
}

/// What of a request matters.
struct Asked {
    method: Method,
    path: String,
    host: Option<String>,
    headers: HeaderMap,
    peer: Option<PeerAddr>,
    local: Option<LocalAddr>,
}

impl Asked {
    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn from(&self) -> Option<IpAddr> {
        self.peer.map(|p| p.0.ip().to_canonical())
    }

    fn boot_request(&self, mac: Mac) -> BootRequest {
        BootRequest { from: self.from(), to: self.local.map(|l| l.0), ..BootRequest::from_mac(mac) }
    }
}

impl Shared {
    async fn answer(&self, asked: Asked) -> Response<BootBody> {
        if asked.method != Method::GET && asked.method != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let mut response = match Route::parse(&asked.path) {
            Ok(Route::Script(mac)) => self.script(&asked, mac).await,
            Ok(Route::Identity(mac)) => self.identity(&asked, mac).await,
            Ok(Route::UnifiedKernel(mac)) => self.unified_kernel(&asked, mac).await,
            Ok(Route::File(name)) => self.file(&asked, name).await,
            Err(error @ RouteError::Unknown) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        if asked.is_head() {
            // The headers are those of a GET; the body is not sent.
            *response.body_mut() = BootBody::bytes("");
        }
        response
    }

    async fn script(&self, asked: &Asked, mac: Mac) -> Response<BootBody> {
        let decision = match self.provider.decide(&asked.boot_request(mac)).await {
            Ok(decision) => decision,
            Err(error) => return unavailable(mac, &error),
        };
        if !asked.is_head() {
            let (fate, reason) = (decision.fate.word().to_owned(), decision.reason.clone());
            self.saw(asked, Some(mac), Seen::Script { fate, reason });
        }
        let files = self.files.clone();
        let firmware = blocking(move || Ok(files.has_firmware())).await.unwrap_or(false);
        fresh(text(StatusCode::OK, ipxe::render(&decision, mac, &self.base(asked), firmware)))
    }

    async fn identity(&self, asked: &Asked, mac: Mac) -> Response<BootBody> {
        let identity = match self.give_identity(asked, mac).await {
            Ok(identity) => identity,
            Err(refusal) => return *refusal,
        };
        let archive = match identity::archive(&identity) {
            Ok(archive) => archive,
            Err(error) => return broken(&error),
        };
        if !asked.is_head() {
            self.saw(asked, Some(mac), Seen::Identity { how: "identity archive".to_owned() });
        }
        let mut response = fresh(text(StatusCode::OK, archive));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }

    async fn unified_kernel(&self, asked: &Asked, mac: Mac) -> Response<BootBody> {
        let files = self.files.clone();
        let opened = blocking(move || Ok((files.open(UNIFIED_KERNEL)?, files.manifest()?))).await;
        let (found, manifest) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.missing(asked, Some(mac), UNIFIED_KERNEL.to_owned(), &error),
        };
        let area = match manifest.uki_identity {
            Some(area) if area.offset.checked_add(area.length).is_some_and(|end| end <= found.length) => area,
            _ => {
                let why = "manifest.json names no room for an identity inside mage.efi; build both anew\n";
                return text(StatusCode::INTERNAL_SERVER_ERROR, why);
            }
        };
        let identity = match self.give_identity(asked, mac).await {
            Ok(identity) => identity,
            Err(refusal) => return *refusal,
        };
        let bytes = match identity::fill(&identity, area.length) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => return broken(&error),
        };
        if !asked.is_head() {
            self.saw(asked, Some(mac), Seen::Identity { how: "inside mage.efi".to_owned() });
        }
        let overlay = Overlay { offset: area.offset, bytes };
        let response = file::respond_over(&asked.method, &asked.headers, found, overlay).await;
        fresh(self.followed(asked, Some(mac), UNIFIED_KERNEL, response))
    }

    async fn file(&self, asked: &Asked, name: String) -> Response<BootBody> {
        let (files, wanted) = (self.files.clone(), name.clone());
        let found: Found = match blocking(move || files.open(&wanted)).await {
            Ok(found) => found,
            // Most cards need no firmware: nothing is missing there.
            Err(error @ FileError::NotFound { .. }) if is_firmware(&name) => return missing(&error),
            Err(error) => return self.missing(asked, None, name, &error),
        };
        if !asked.is_head() {
            self.saw(asked, None, Seen::FileBegan { file: name.clone(), bytes: found.length });
        }
        let response = file::respond(&asked.method, &asked.headers, found).await;
        self.followed(asked, None, &name, response)
    }

    fn missing(&self, asked: &Asked, mac: Option<Mac>, path: String, error: &FileError) -> Response<BootBody> {
        let refusal = missing(error);
        let (status, why) = (refusal.status().as_u16(), error.to_string());
        self.saw(asked, mac, Seen::HttpRefused { path, status, why });
        refusal
    }

    /// The same response, whose end is told.
    fn followed(
        &self,
        asked: &Asked,
        mac: Option<Mac>,
        name: &str,
        response: Response<BootBody>,
    ) -> Response<BootBody> {
        if asked.is_head() {
            return response;
        }
        let (observer, file, from) = (self.observer.clone(), name.to_owned(), asked.from());
        response.map(|body| {
            body.when_over(move |Sent { bytes, passed, milliseconds }| {
                let seen = Seen::FileEnded { file, bytes, passed, milliseconds };
                observer.saw(Sighting { mac, from, seen });
            })
        })
    }

    /// An identity for the agent that `mac` is about to boot, or what to answer instead.
    async fn give_identity(&self, asked: &Asked, mac: Mac) -> Result<Identity, Box<Response<BootBody>>> {
        match self.provider.identity(&asked.boot_request(mac)).await {
            Ok(Some(identity)) => Ok(identity),
            Ok(None) => {
                let path = format!("{mac}/identity");
                let why = "its fate is not to boot the agent, or it asks from outside every provisioning network";
                self.saw(asked, Some(mac), Seen::HttpRefused { path, status: 404, why: why.to_owned() });
                let why = format!("no identity for {mac}: {why}\n");
                Err(Box::new(fresh(text(StatusCode::NOT_FOUND, why))))
            }
            Err(error) => Err(Box::new(unavailable(mac, &error))),
        }
    }

    fn base(&self, asked: &Asked) -> Base {
        let host = || asked.headers.get(HOST).and_then(|v| v.to_str().ok()).or(asked.host.as_deref());
        match &self.public_url {
            Some(url) => Base::from_url(url),
            None => host().and_then(Base::from_host).unwrap_or_else(|| {
                Base::at(asked.local.map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 80)), |local| local.0))
            }),
        }
    }

    fn saw(&self, asked: &Asked, mac: Option<Mac>, seen: Seen) {
        self.observer.saw(Sighting { mac, from: asked.from(), seen });
    }
}

fn is_firmware(name: &str) -> bool {
    name.strip_prefix(FIRMWARE).is_some_and(|rest| rest.starts_with('/'))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(FileError::Io { name: String::new(), source: std::io::Error::other(error) }),
    }
}

/// A plain answer.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<BootBody> {
    let body = BootBody::bytes(body);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Never to be kept by anybody between us and the machine.
fn fresh(mut response: Response<BootBody>) -> Response<BootBody> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn missing(error: &FileError) -> Response<BootBody> {
    match error {
        FileError::BadName { .. } => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        FileError::NotFound { .. } => text(StatusCode::NOT_FOUND, format!("{error}\n")),
        error => broken(error),
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Response<BootBody> {
    tracing::warn!(error, "a boot file or identity cannot be served");
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn unavailable(mac: Mac, error: &(dyn std::error::Error + 'static)) -> Response<BootBody> {
    tracing::warn!(%mac, error, "no boot decision");
    fresh(text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; ask again\n")))
}
