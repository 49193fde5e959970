//! Boot scripts, beside a web server that sends a file of the same size.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};

use super::args::Bench;
use super::client::{Connection, Load, get, load};
use super::fill::{fill, mac};
use super::peers::Nginx;
use super::report::Report;
use super::server::{self, Server, address};
use super::world::{INTERFACE, SUBNET, World};

/// Connections that ask at once.
const CONNECTIONS: usize = 16;
/// Requests over each, in one turn.
const EACH: usize = 1000;
const CASE: &str = "boot script";

/// A directory for one measurement, on the disk that the workspace is on.
pub(crate) fn directory() -> Result<tempfile::TempDir> {
    let place = server::target()?.join("bench");
    std::fs::create_dir_all(&place)?;
    Ok(tempfile::tempdir_in(place)?)
}

/// A network on which machines are provisioned, without DHCP unless told.
pub(crate) fn network(dhcp: &str) -> String {
    let (first, last) = super::world::POOL;
    format!(
        "apiVersion: dragonfly.computer/v1\nkind: Network\nmetadata: {{name: bench}}\nspec:\n  interface: {INTERFACE}\n  \
         dhcp: {dhcp}\n  allowFull: true\n  subnet: {SUBNET}\n  pool: {{start: {first}, end: {last}}}\n"
    )
}

/// Which of `machines` the `n`th question is about: all over the fleet, the same in every run.
pub(crate) fn somewhere(n: usize, machines: usize) -> usize {
    // 64-bit multiplicative hashing: neighbours end far apart.
    let spread = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    usize::try_from(spread % machines.max(1) as u64).unwrap_or(0)
}

async fn ask(to: SocketAddr, request: impl Fn(usize) -> Vec<u8> + Clone + Send + 'static) -> Result<Load> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(to).await?);
    }
    load(connections, EACH, request).await
}

fn note(report: &mut Report, who: &str, machines: usize, load: &Load) {
    let case = format!("{CASE}, {machines} machines");
    report.note(who, &case, "requests/s", load.rate());
    report.note(who, &format!("{case}, p50"), "ms", load.times.part(0.5));
    report.note(who, &format!("{case}, p99"), "ms", load.times.part(0.99));
}

pub(crate) async fn run(args: &Bench, world: &World, program: &Path) -> Result<Report> {
    let mut report = Report::new("http", "requests/s, and ms at the 50th and 99th percentile", args.report.as_deref());
    for &machines in &args.sizes {
        let directory = directory()?;
        fill(&directory.path().join("data/dragonfly.redb"), machines).await?;
        let server = Server::start(world, program, directory.path())?;
        server.apply(&network("off")).await?;
        report.took_part("dragonfly", env!("CARGO_PKG_VERSION"), &server.command, "asks nothing of the disk");
        let script = Connection::open(address()).await?.ask(&get(&format!("/boot/{}", mac(0)), "")).await?;
        ensure!(script.status == 200 && script.body.starts_with(b"#!ipxe"), "no boot script");
        let nginx = Nginx::start(world, directory.path(), &script.body)?;
        report.took_part("nginx", &nginx.version, &nginx.command, "asks nothing of the disk");
        for _ in 0..args.runs {
            let scripts = ask(address(), move |n| get(&format!("/boot/{}", mac(somewhere(n, machines))), "")).await?;
            note(&mut report, "dragonfly", machines, &scripts);
            let files = ask(Nginx::address(), |_| get("/script", "")).await?;
            note(&mut report, "nginx", machines, &files);
        }
        let case = format!("{CASE}, {machines} machines: bytes");
        report.note("dragonfly", &case, "bytes", script.body.len() as f64);
        server.stop();
        report.keep(&format!("{machines} machines"))?;
    }
    Ok(report)
}
