//! A server without sockets: its routes, a store in memory, and callers of every kind.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use dragonfly_boot::BootFiles;
use dragonfly_boot::http::BootHttp;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootProvider as _, BootRequest};
use dragonfly_core::clock::{Clock as _, SystemClock};
use dragonfly_core::engine::{Engine, Settings};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::secret::{SealingKey, SecretString};
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::testing::ManualClock;
use dragonfly_core::wire::{Hello, Versions, Welcome};
use dragonfly_server::auth::Auth;
use dragonfly_server::boot::Services;
use dragonfly_server::config::Mode;
use dragonfly_server::http::{self, App, Parts};
use dragonfly_server::images::Images;
use dragonfly_server::listen::Connection;
use dragonfly_server::metrics::{Counted, Meters};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

pub const TOKEN: &str = "an admin token for tests that is long enough";
pub const MAC: &str = "52:54:00:ab:cd:01";
pub const NAME: &str = "censusablequalityparent";

pub const NETWORK: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: lab }
spec: { interface: lab0, dhcp: full, subnet: 10.9.0.0/24, pool: { start: 10.9.0.100, end: 10.9.0.199 } }
";

pub const TEMPLATE: &str = "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: small }
spec:
  description: One disk, one image
  actions:
    - name: disk
      action: image2disk
      with:
        disk: { smallest: true }
        url: /images/small.raw
        digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
";

pub struct Bench {
    pub app: App,
    pub router: Router,
    pub dir: TempDir,
    /// Shows the real time until it is turned.
    pub clock: Arc<ManualClock>,
}

/// A server with a network, a template, and nothing else.
pub async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let auth = Arc::new(Auth::new(TOKEN.as_bytes(), b"key", Arc::clone(&clock) as _));
    for name in ["boot", "images"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("images/small.raw"), b"an image").unwrap();
    let images = Arc::new(Images::new(Arc::clone(&auth), dir.path().join("images")));
    let settings = Settings { server_pin: "00".repeat(32), ..Settings::default() };
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock) as _));
    let engine = Engine::builder(store, SealingKey::generate().unwrap(), dragonfly_server::serve::checker())
        .settings(settings)
        .clock(Arc::clone(&clock) as _)
        .images(Arc::clone(&images) as _)
        .logs(dir.path().join("logs"))
        .build()
        .await
        .unwrap();
    engine.apply(NETWORK, "test").await.unwrap();
    engine.apply(TEMPLATE, "test").await.unwrap();
    let meters = Meters::new(engine.now());
    let counted = Arc::new(Counted { engine: engine.clone(), meters: Arc::clone(&meters) });
    let files = Arc::new(BootFiles::new(dir.path().join("boot")));
    let app = App::new(Parts {
        store: None,
        engine,
        auth,
        meters,
        boot: Services::new(BootHttp::new(Arc::clone(&counted) as _, counted, files, None)),
        images: images.files(),
        names: Vec::new(),
        mode: Mode::Simple,
        stop: CancellationToken::new(),
    });
    Bench { router: http::app(app.clone()), app, dir, clock }
}

impl Bench {
    /// Sends a request as if it came from a machine of the lab network, over TLS.
    pub async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        let about = Connection { peer: peer(), local: "10.9.0.1:3000".parse().unwrap(), tls: true };
        request.extensions_mut().insert(about);
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends as the administrator and reads JSON.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let response = self.send(with_json(request, body)).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// A cookie of a signed-in browser.
    pub fn cookie(&self) -> String {
        format!("dragonfly_session={}", self.app.auth.new_session().unwrap().reveal())
    }

    /// The token of a boot of the machine.
    pub async fn boot_token(&self) -> SecretString {
        self.token_of(MAC.parse().unwrap()).await
    }

    /// The token of a boot of the machine with this card.
    pub async fn token_of(&self, mac: Mac) -> SecretString {
        let request = BootRequest {
            from: Some(peer().ip()),
            to: Some("10.9.0.1:3000".parse().unwrap()),
            ..BootRequest::from_mac(mac)
        };
        self.app.engine.identity(&request).await.unwrap().unwrap().token
    }

    /// A session of the machine's agent.
    pub async fn session(&self) -> SecretString {
        self.session_of(MAC.parse().unwrap()).await
    }

    /// A session of the agent of the machine with this card.
    pub async fn session_of(&self, mac: Mac) -> SecretString {
        // Tokens are told apart by their time.
        self.clock.advance(Duration::from_secs(40));
        let token = self.token_of(mac).await;
        self.app.engine.hello(token.reveal(), hello_of(mac), peer().ip()).await.unwrap().session
    }
}

pub fn with_json(request: axum::http::request::Builder, body: Option<Value>) -> Request<Body> {
    match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string().into()),
        None => request.body(Body::empty()),
    }
    .unwrap()
}

pub fn peer() -> SocketAddr {
    "10.9.0.100:4711".parse().unwrap()
}

pub fn hello() -> Hello {
    hello_of(MAC.parse().unwrap())
}

/// What the agent of the machine with this card says.
pub fn hello_of(mac: Mac) -> Hello {
    let inventory: Inventory = serde_json::from_value(json!({
        "system": { "vendor": "<script>alert(1)</script>", "product": "Rack & Stack", "serial": "$(reboot)\n#!ipxe" },
        "cpu": { "model": "Some CPU", "cores": 8, "threads": 16 },
        "memory": { "total": 17179869184_u64, "modules": [{ "locator": "DIMM 0", "size": 17179869184_u64 }] },
        "disks": [
            { "name": "nvme0n1", "size": 480103981056_u64, "serial": "NV1", "bus": "nvme", "blank": true },
            { "name": "sda", "size": 8001563222016_u64, "serial": "SA1", "bus": "sata", "blank": false, "signatures": ["gpt", "ext4"] }
        ],
        "nics": [{ "name": "eth0", "mac": mac, "link": true, "speed": 10000 }],
        "bmc": {
            "interface": "KCS", "address": "10.9.0.6",
            "users": [
                { "slot": 2, "name": "ADMIN", "enabled": true, "privilege": "administrator" },
                { "slot": 3, "name": "ops", "enabled": false, "privilege": "operator" },
            ],
        },
    }))
    .unwrap();
    Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: Uuid::now_v7(),
        mac,
        anchors: Anchors { macs: vec![mac], ..Anchors::default() },
        inventory,
        existing_os: None,
        uptime_seconds: Some(3.0),
        clock_offset_seconds: None,
    }
}

pub async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub fn welcome(text: &str) -> Welcome {
    serde_json::from_str(text).unwrap()
}
