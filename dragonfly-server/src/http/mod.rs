//! HTTP: every route, and who may use it. Status codes, pages and event streams live here and
//! nowhere else; whatever a route does is a call on the engine.

mod agent;
mod apply;
mod backup;
mod bodies;
mod clusters;
mod controller;
mod events;
mod extract;
mod guard;
mod health;
mod images;
mod import;
mod kube;
mod machines;
mod openapi;
mod parts;
mod power;
mod problem;
mod route;
mod search;
mod sign_in;
mod transport;
mod ui;
mod warnings;

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use dragonfly_boot::BootFiles;
use dragonfly_core::engine::Engine;
use dragonfly_core::store::redb::RedbStore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::Auth;
use crate::boot::Services;
use crate::config::Mode;
use crate::listen::Connection;
use crate::metrics::Meters;

use bodies::Bodies;
pub use problem::{Problem, chain};
use route::Routes;
pub use route::{Access, Route};

/// The largest body of most routes, in bytes.
pub(crate) const BODY_LIMIT: usize = 1024 * 1024;

/// What the routes work with.
#[derive(Debug)]
pub struct Parts {
    /// What everything is asked of.
    pub engine: Engine,
    /// Who may.
    pub auth: Arc<Auth>,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// What answers under `/boot`, and how it fares.
    pub boot: Services,
    /// The directory behind `/images`.
    pub images: Arc<BootFiles>,
    /// The store, if it is one that this server backs up.
    pub store: Option<RedbStore>,
    /// Host names that are ours.
    pub names: Vec<String>,
    /// How much this server runs.
    pub mode: Mode,
    /// Ends event streams when the server stops.
    pub stop: CancellationToken,
}

/// What the routes work with; a clone is the same.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    /// With these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("App")
    }
}

/// Every route of the server.
///
/// Requests must carry a [`Connection`] extension, as
/// [`listen::serve`](crate::listen::serve) adds it. Whoever serves this router by other means adds it
/// there, and puts TLS before it.
pub fn app(app: App) -> Router {
    finish(routes(&app).0, app)
}

/// The same, with what must be refused on an open port: foreign host names, plain HTTP from afar.
pub(crate) fn guarded(app: App) -> Router {
    let inner = routes(&app).0.layer(from_fn_with_state(app.clone(), transport::admit));
    finish(inner, app)
}

/// The table of every route, as it is served.
pub fn table(app: &App) -> Vec<Route> {
    routes(app).1
}

fn routes(app: &App) -> (Router<App>, Vec<Route>) {
    let mut all = Routes::new(app.clone());
    for part in [
        health::routes,
        agent::routes,
        machines::routes,
        clusters::routes,
        parts::routes,
        power::routes,
        apply::routes,
        import::routes,
        kube::routes,
        events::routes,
        images::routes,
        backup::routes,
        sign_in::routes,
        ui::routes,
        openapi::routes,
    ] {
        all = part(all);
    }
    let (router, table) = all.done();
    let router = router
        .merge(app.boot.router())
        .fallback(|request: Request| async move { nothing(&request) })
        .method_not_allowed_fallback(|request: Request| async move {
            let detail = format!("{} is not something that can be done here", request.method());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        });
    (router, table)
}

/// What an address is answered that is none: to a browser as a page.
fn nothing(request: &Request) -> Response {
    let problem = Problem::not_found("there is nothing at this address");
    let accepts = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if request.method() == Method::GET && accepts.contains("text/html") {
        return ui::problem(&problem, "/");
    }
    problem.into_response()
}

fn finish(router: Router<App>, app: App) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(Extension(Bodies::new(bodies::MOST)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(dress))
        .with_state(app)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(what, "a request handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why").into_response()
}

/// Headers that every answer carries.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: with it browsers send `Origin: null` from our own forms.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers, keeps answers out of caches unless they say otherwise, and turns what the
/// framework says in plain text into a problem.
async fn dress(request: Request, next: Next) -> Response {
    // Firmware parses little: what goes to it goes as the boot services made it.
    let plain = request.uri().path().starts_with("/boot");
    let theirs = kube::is_theirs(request.uri().path());
    let asked = Asked::of(&request);
    let response = next.run(request).await;
    asked.log(response.status());
    if plain {
        return response;
    }
    let mut response = as_problem(response).await;
    if theirs {
        response = kube::translated(response).await;
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What the log says of a request: never its query, which may hold a signature or a sign-in link.
struct Asked {
    method: Method,
    path: String,
    peer: Option<IpAddr>,
    begun: Instant,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let path = request.uri().path();
        // The rest of this path is a proof.
        let path = if path.starts_with("/boot/phone-home/") { "/boot/phone-home/..." } else { path };
        let peer = request.extensions().get::<Connection>().map(|about| about.peer.ip());
        Self { method: request.method().clone(), path: path.to_owned(), peer, begun: Instant::now() }
    }

    fn log(self, status: StatusCode) {
        let Self { method, path, peer, begun } = self;
        let milliseconds = begun.elapsed().as_millis();
        tracing::debug!(%method, path, peer = ?peer, status = status.as_u16(), milliseconds, "answered");
    }
}

async fn as_problem(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !(kind.is_empty() || kind.starts_with("text/plain")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let mut response = Problem::new(status, String::from_utf8_lossy(&text)).into_response();
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}
