//! The boot services as this server runs them, and how they fare.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use dragonfly_boot::http::{BootHttp, LocalAddr, PeerAddr};
use tower::ServiceExt as _;

use crate::listen::Connection;

/// What answers under `/boot`, and what is wrong with the boot services.
#[derive(Debug, Clone)]
pub struct Services {
    http: BootHttp,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Services {
    /// Over the service that answers under `/boot`.
    pub fn new(http: BootHttp) -> Self {
        Self { http, problems: Arc::default() }
    }

    /// What a person must mend; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that something is wrong.
    pub fn complain(&self, problem: String) {
        tracing::error!("{problem}");
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    /// Everything under `/boot`.
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let http = self.http.clone();
        let answer = any(move |request: Request| answer(http, request));
        Router::new().route("/boot", answer.clone()).route("/boot/{*path}", answer)
    }
}

async fn answer(http: BootHttp, mut request: Request) -> Response {
    if let Some(about) = request.extensions().get::<Connection>().copied() {
        request.extensions_mut().insert(PeerAddr(about.peer));
        request.extensions_mut().insert(LocalAddr(about.local));
    }
    match http.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
