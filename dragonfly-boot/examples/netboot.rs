//! The boot services alone, with one fate for every machine: to try firmware against.
//!
//! ```text
//! cargo run -p dragonfly-boot --example netboot -- br0 192.168.77.0/24 full DIR [discover|local|hold]
//! ```
//!
//! Needs the right to bind low ports and raw sockets. HTTP is on port 3000; what it sees and sends is
//! printed. Run it in a network namespace of its own, or it answers everybody on your network.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use async_trait::async_trait;
use dragonfly_boot::dhcp::MemoryLeases;
use dragonfly_boot::http::{BootHttp, LocalAddr, PeerAddr};
use dragonfly_boot::{BootConfig, BootFiles, BootServer};
use dragonfly_core::boot::{BootError, BootObserver, BootProvider, BootRequest, Decision, Fate, Sighting};
use dragonfly_core::clock::{Clock as _, SystemClock};
use dragonfly_core::resource::network::Network;
use dragonfly_core::wire::Identity;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

const PORT: u16 = 3000;

#[derive(Debug)]
struct OneFate(Fate);

#[async_trait]
impl BootProvider for OneFate {
    async fn decide(&self, request: &BootRequest) -> Result<Decision, BootError> {
        let address = std::env::var("RESERVE").ok().and_then(|text| {
            let (mac, address) = text.split_once('=')?;
            (mac.parse() == Ok(request.mac)).then(|| address.parse::<Ipv4Addr>().ok())?
        });
        let reason = "the command line says so".to_owned();
        Ok(Decision { fate: self.0.clone(), reason, machine: None, address, hostname: None, console: None })
    }

    async fn identity(&self, request: &BootRequest) -> Result<Option<Identity>, BootError> {
        Ok((self.0 == Fate::Discover).then(|| Identity {
            server: "https://192.0.2.1:3000".parse().expect("a URL"),
            also: Vec::new(),
            pin: "00".repeat(32),
            token: "example".to_owned().into(),
            mac: request.mac,
            time: SystemClock.now(),
        }))
    }
}

#[derive(Debug)]
struct Printer(Instant);

impl BootObserver for Printer {
    fn saw(&self, sighting: Sighting) {
        let mac = sighting.mac.map(|m| m.to_string()).unwrap_or_default();
        let from = sighting.from.map(|a| a.to_string()).unwrap_or_default();
        let seconds = self.0.elapsed().as_secs_f32();
        say(&format!("{seconds:8.2} {:14} {mac:17} {from:15} {}", sighting.seen.kind(), sighting.seen));
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn say(line: &str) {
    println!("{line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [interface, subnet, mode, dir, rest @ ..] = words.as_slice() else {
        anyhow::bail!("usage: netboot INTERFACE SUBNET full|reservation|proxy|auto DIR [discover|local|hold]");
    };
    let fate = match rest.first().map(String::as_str) {
        None | Some("discover") => Fate::Discover,
        Some("local") => Fate::Local,
        Some("hold") => Fate::Hold,
        Some(other) => anyhow::bail!("no such fate: {other}"),
    };
    let net: ipnet::Ipv4Net = subnet.parse().context("SUBNET, as in 192.168.77.0/24")?;
    let first = u32::from(net.network());
    let size = u32::from(net.broadcast()) - first;
    let pool = |part: u32| Ipv4Addr::from(first + size / 4 * part);
    let spec = serde_json::json!({
        "interface": interface, "dhcp": mode, "subnet": subnet, "allowFull": true,
        "pool": {"start": pool(1), "end": pool(3)},
    });
    let network = Network::new("example", serde_json::from_value(spec).context("the network's settings")?);
    let (_networks, receiver) = watch::channel(vec![network]);

    let provider = Arc::new(OneFate(fate));
    let observer = Arc::new(Printer(Instant::now()));
    let files = Arc::new(BootFiles::new(dir).with_ipxe_package());
    let cancel = CancellationToken::new();
    let config = BootConfig::new(receiver, PORT);
    let leases = Arc::new(MemoryLeases::default());
    let (p, o, f) = (provider.clone(), observer.clone(), files.clone());
    let server = BootServer::start(config, p, leases, o, f, cancel.clone()).await?;
    let mut status = server.status();
    // The first status may have been there before we looked; it is news to whoever reads this.
    status.mark_changed();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            say(&format!("{:?}", *status.borrow_and_update()));
        }
    });

    let http = BootHttp::new(provider, observer, files, None);
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let local = stream.local_addr()?;
        let http = http.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request.extensions_mut().insert(LocalAddr(local));
            http.clone().call(request)
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
    cancel.cancel();
    server.join().await;
    Ok(())
}
