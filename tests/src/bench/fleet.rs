//! A store full of machines: start, memory, pages, DHCP, watches; then many machines at once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::args::Bench;
use super::client::send;
use super::dhcp::{Relay, storm};
use super::fill::{fill, mac, name};
use super::http::{directory, network};
use super::machines::{self, mebibytes};
use super::peers::Dnsmasq;
use super::report::{Report, Times};
use super::server::Server;
use super::world::{INTERFACE, World};
use super::{pages, watch};
use crate::lab::console::say;

/// Clients that ask for an address at once.
const CLIENTS: usize = 32;
/// Machines that each of them asks for, in one turn.
const LEASES: usize = 40;
/// Objects of one `apply`.
const APPLY: usize = 1000;

pub(crate) async fn run(args: &Bench, world: &World, program: &Path) -> Result<Report> {
    let mut report = Report::new("fleet", "as each case says", args.report.as_deref());
    for &machines in &args.sizes {
        size(args, world, program, machines, &mut report).await?;
        report.keep(&format!("{machines} machines"))?;
    }
    if args.machines > 0 {
        many(args, world, program, &mut report).await?;
        report.keep("many at once")?;
    }
    Ok(report)
}

async fn size(args: &Bench, world: &World, program: &Path, machines: usize, report: &mut Report) -> Result<()> {
    let directory = directory()?;
    let begin = Instant::now();
    let bytes = fill(&directory.path().join("data/dragonfly.redb"), machines).await?;
    let seconds = begin.elapsed().as_secs_f64();
    report.ours(&format!("filling the store with {machines} machines"), "objects/s", machines as f64 / seconds);
    report.ours(&format!("one object as JSON, {machines} machines"), "KiB", bytes as f64 / 1024.0);
    // The first one finds machines that nobody has looked at for months.
    let server = Server::start(world, program, directory.path())?;
    started(report, &server, "first start", machines).await;
    server.stop();
    for _ in 1..args.runs {
        let server = Server::start(world, program, directory.path())?;
        started(report, &server, "start", machines).await;
        server.stop();
    }
    let server = Server::start(world, program, directory.path())?;
    started(report, &server, "start", machines).await;
    report.took_part(
        "dragonfly",
        env!("CARGO_PKG_VERSION"),
        &server.command,
        "objects and leases are on the disk (fsync) before they are answered",
    );
    server.apply(&network("full")).await?;
    pages::run(report, &server, machines).await?;
    watch::run(report, &server, machines).await?;
    apply(report, &server, machines).await?;
    let case = format!("memory after pages, watches and apply, {machines} machines");
    report.ours(&case, "MiB", mebibytes(server.memory("VmRSS")));
    report.ours(&format!("{case}, at most"), "MiB", mebibytes(server.memory("VmHWM")));
    server.kill();
    // Every page is looked at twice then: before the file is opened, and when it is repaired.
    let server = Server::start(world, program, directory.path())?;
    started(report, &server, "start after SIGKILL", machines).await;
    server.stop();
    // The server and its peer have the same port: they take turns.
    for turn in 0..args.runs {
        let server = Server::start(world, program, directory.path())?;
        server_gives_addresses(&server).await?;
        leases(report, "dragonfly", machines, turn).await?;
        server.stop();
        // How many machines are known is nothing to it: once.
        if machines == args.sizes[0] {
            let peer = Dnsmasq::start(world, directory.path())?;
            report.took_part("dnsmasq", &peer.version, &peer.command, "leases are written to a file, without fsync");
            leases(report, "dnsmasq", machines, turn).await?;
            peer.stop();
        }
    }
    Ok(())
}

async fn started(report: &mut Report, server: &Server, which: &str, machines: usize) {
    report.ours(&format!("{which} to ready, {machines} machines"), "ms", server.start.as_secs_f64() * 1e3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    report.ours(&format!("memory after {which}, {machines} machines"), "MiB", mebibytes(server.memory("VmRSS")));
    report.ours(
        &format!("memory after {which}, at most, {machines} machines"),
        "MiB",
        mebibytes(server.memory("VmHWM")),
    );
}

/// Until the network that was applied is served.
async fn server_gives_addresses(server: &Server) -> Result<()> {
    let begin = Instant::now();
    loop {
        let answer = server.get("/readyz").await?;
        if answer.status == 200 && server.get("/metrics").await?.status == 200 {
            // Its sockets are opened by a task of their own.
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Ok(());
        }
        ensure!(begin.elapsed() < Duration::from_secs(30), "{INTERFACE} is not served: {}", server.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn leases(report: &mut Report, who: &str, machines: usize, turn: usize) -> Result<()> {
    let relay = Relay::open().await?;
    // Each client has machines of its own: no machine asks twice at once. Others in every turn where
    // there are enough; the first turn finds an empty file.
    let own = (machines / CLIENTS).max(1);
    let of = move |client: usize, n: usize| mac(client * own + (turn * LEASES + n) % own);
    let (times, seconds) = storm(&relay, CLIENTS, LEASES, of).await?;
    let case = format!("DHCP, {machines} machines");
    report.note(who, &case, "answers/s", times.len() as f64 / seconds);
    report.note(who, &format!("{case}, p50"), "ms", times.part(0.5));
    report.note(who, &format!("{case}, p99"), "ms", times.part(0.99));
    Ok(())
}

/// One text of many objects.
async fn apply(report: &mut Report, server: &Server, machines: usize) -> Result<()> {
    let mut text = String::new();
    for n in machines..machines + APPLY {
        let (name, mac) = (name(n), mac(n));
        text.push_str(&format!(
            "---\napiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {{name: {name}}}\nspec: {{macs: [\"{mac}\"]}}\n"
        ));
    }
    let request = send("POST", "/dragonfly/v1/apply", server.token(), "application/yaml", &text);
    let mut times = Times::default();
    let begin = Instant::now();
    let answer = server.connect()?.ask(&request).await?;
    times.add(begin.elapsed());
    ensure!(answer.status == 200, "apply is answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    report.ours(&format!("apply of {APPLY} objects in one text, {machines} machines"), "ms", times.part(1.0));
    Ok(())
}

async fn many(args: &Bench, world: &World, program: &Path, report: &mut Report) -> Result<()> {
    let directory = directory()?;
    say(format_args!("{} machines at once, from their first packet to Ready", args.machines));
    let server = Server::start(world, program, directory.path())?;
    server.apply(&network("full")).await?;
    server_gives_addresses(&server).await?;
    let relay = Relay::open().await?;
    let door = world.servers().clone();
    machines::run_all(report, &server, door, relay, 0, args.machines, directory.path()).await?;
    server.stop();
    Ok(())
}
