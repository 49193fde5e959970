//! The boot services as this server runs them, and how they fare.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use dragonfly_boot::http::{BootHttp, LocalAddr, PeerAddr};
use dragonfly_boot::server::NetworkStatus;
use dragonfly_core::resource::Network;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::listen::Connection;

/// What answers under `/boot`, and how each Network fares.
#[derive(Debug, Clone)]
pub struct Services {
    http: BootHttp,
    networks: Arc<OnceLock<watch::Receiver<Vec<NetworkStatus>>>>,
}

impl Services {
    /// Over the service that answers under `/boot`. Without DHCP and TFTP until it is told of them.
    pub fn new(http: BootHttp) -> Self {
        Self { http, networks: Arc::default() }
    }

    /// Tells of DHCP and TFTP that run.
    pub(crate) fn running(&self, networks: watch::Receiver<Vec<NetworkStatus>>) {
        // They start once; a second telling could only be of the same.
        let _ = self.networks.set(networks);
    }

    /// How each Network fares.
    pub fn networks(&self) -> Vec<NetworkStatus> {
        self.networks.get().map(|networks| networks.borrow().clone()).unwrap_or_default()
    }

    /// What a person must mend; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let failing = self.networks().into_iter().filter(|network| network.mode.is_none());
        failing.map(|network| format!("network {} is not answered: {}", network.network, network.reason)).collect()
    }

    /// What a person should know of each of these Networks before it is answered: its name and a warning.
    pub fn warnings(&self, networks: &[Network]) -> Vec<(String, String)> {
        dragonfly_boot::server::warnings(networks)
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
