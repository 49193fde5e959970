//! Many machines at once, from their first packet to Ready. Only the disks are left out: the network is
//! real, and from hello on it is the agent's own code that speaks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dragonfly_core::action::{Action, ActionContext, ActionError, Actions, Resume};
use dragonfly_core::wire::{Hello, Identity, Versions};
use mage::client::{Link, Reports, chain};
use mage::console::Console;
use mage::images::HttpImages;
use mage::journal::Journal;
use mage::run::Runner;
use mage::session::{Leave, serve};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::{Connection, get, send};
use super::dhcp::{Relay, Stage};
use super::drops::dropped;
use super::fill::{anchors, inventory, mac};
use super::report::{Report, Times};
use super::server::{Server, address};
use super::tftp;

/// Steps of the way, in order.
const STEPS: [&str; 8] = [
    "DHCP of the firmware",
    "loader by TFTP",
    "DHCP of iPXE",
    "boot script",
    "identity",
    "hello by TLS",
    "assign",
    "run to Ready",
];
/// How many assignments an operator's program has under way at once.
const OPERATORS: usize = 8;
/// How long the slowest machine may take.
const PATIENCE: Duration = Duration::from_secs(600);

const TEMPLATE: &str = r#"apiVersion: dragonfly.computer/v1
kind: Template
metadata: {name: bench}
spec:
  values: {nonce: unset}
  actions:
    - name: image
      action: image2disk
      with: {url: /images/bench.raw, digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
    - name: hostname
      action: writefile
      with: {target: {label: root}, path: /etc/hostname, content: "{{ machine.name }}"}
    - name: reboot
      action: reboot
"#;

/// An action that has nothing to do: the disks are left out.
macro_rules! done {
    ($($name:ident $word:literal)+) => {$(
        #[derive(Debug)]
        struct $name;

        impl Action for $name {
            const NAME: &'static str = $word;
            const RESUME: Resume = Resume::Restart;
            type Params = Value;

            fn check(&self, _: &Value) -> Vec<(String, String)> {
                Vec::new()
            }

            async fn run(&self, _: Value, _: &ActionContext) -> Result<(), ActionError> {
                Ok(())
            }
        }
    )+};
}
done! { Image "image2disk" Write "writefile" Reboot "reboot" }

/// Times of each step, over all machines.
#[derive(Debug, Default)]
struct Steps(BTreeMap<usize, Times>);

struct Site {
    relay: Relay,
    token: String,
    operators: Semaphore,
    door: crate::lab::namespace::Door,
    journal: Journal,
}

/// A console that nobody looks at.
fn silent(directory: &Path) -> Result<Console> {
    let place = directory.join("class/tty/console");
    std::fs::create_dir_all(&place)?;
    std::fs::write(place.join("active"), "null\n")?;
    Ok(Console::of_the_kernel(directory, Path::new("/dev")))
}

impl Site {
    /// One machine's way. What each step took, in their order.
    async fn boot(&self, n: usize) -> Result<Vec<Duration>> {
        let card = mac(n);
        let mut took = Vec::new();
        let mut begin = Instant::now();
        let mut step = |took: &mut Vec<Duration>| {
            took.push(begin.elapsed());
            begin = Instant::now();
        };
        let mut unused = Times::default();
        let lease = self.relay.lease(card, Stage::Firmware, &mut unused).await?;
        step(&mut took);
        ensure!(tftp::fetch(&lease.boot_file).await? > 0, "{card}: an empty loader");
        step(&mut took);
        let ipxe = self.relay.lease(card, Stage::Ipxe, &mut unused).await?;
        ensure!(ipxe.address == lease.address, "{card}: two addresses, {} and {}", lease.address, ipxe.address);
        step(&mut took);
        let path = ipxe.boot_file.strip_prefix(&format!("http://{}", address())).map(str::to_owned);
        let path = path.with_context(|| format!("{card}: iPXE is told to boot {}", ipxe.boot_file))?;
        let mut web = Connection::open(address()).await?;
        let script = web.ask(&get(&path, "")).await?;
        ensure!(script.status == 200 && script.body.starts_with(b"#!ipxe"), "{card}: no boot script at {path}");
        step(&mut took);
        let archive = web.ask(&get(&format!("/boot/{card}/identity"), "")).await?;
        let file = mage::cpio::find(&archive.body, "dragonfly/identity.json");
        let identity: Identity = serde_json::from_slice(file.with_context(|| format!("{card}: no identity"))?)?;
        drop(web);
        step(&mut took);

        let hello = Hello {
            protocol: Versions::OURS,
            agent: mage::VERSION.to_owned(),
            boot_id: Uuid::from_u128(n as u128 + 1),
            mac: card,
            anchors: anchors(n),
            inventory: inventory(n),
            existing_os: None,
            uptime_seconds: None,
            clock_offset_seconds: None,
        };
        let pin = identity.pin.parse().map_err(|_| anyhow::anyhow!("{card}: the pin is none"))?;
        let images = HttpImages::new(mage::client::servers(&identity), pin, Path::new("/nonexistent"));
        let images = images.map_err(|error| anyhow::anyhow!("{card}: {error}"))?;
        let link = Arc::new(Link::new(identity, hello, self.journal.clone()).map_err(said)?);
        let welcome = link.connect().await.map_err(said)?;
        step(&mut took);
        // The agent waits for work while an operator decides.
        let agent = tokio::spawn(run(Arc::clone(&link), images, self.journal.clone()));
        self.assign(&welcome.machine).await?;
        step(&mut took);
        match agent.await? {
            Leave::HandOver(action) if action == "reboot" => {}
            other => bail!("{card}: its agent leaves by {other:?}"),
        }
        step(&mut took);
        Ok(took)
    }

    async fn assign(&self, machine: &str) -> Result<()> {
        let _turn = self.operators.acquire().await?;
        let path = format!("/dragonfly/v1/machines/{machine}/assign");
        let request = send("POST", &path, &self.token, "application/json", r#"{"template":"bench"}"#);
        let answer = Connection::inside(&self.door, super::server::inside())?.ask(&request).await?;
        ensure!(
            answer.status == 201,
            "assign is answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(())
    }
}

fn said(error: mage::client::CallError) -> anyhow::Error {
    anyhow::anyhow!(chain(&error))
}

async fn run(link: Arc<Link>, images: HttpImages, journal: Journal) -> Leave {
    let runner = Runner {
        actions: Actions::new().with(Image).with(Write).with(Reboot),
        images: Arc::new(images.with_session(Arc::clone(&link))),
        reports: Arc::clone(&link) as Arc<dyn Reports>,
        journal: journal.clone(),
        heartbeat: Duration::from_secs(10),
        is_hand_over: |action| action == "reboot",
        handed_over: std::sync::Arc::new(|_| Ok(())),
    };
    serve(&link, &runner, &journal, &|| {}).await
}

/// Sends `machines` machines on their way at once and waits until all are Ready.
pub(crate) async fn run_all(
    report: &mut Report,
    server: &Server,
    door: crate::lab::namespace::Door,
    relay: Relay,
    first: usize,
    machines: usize,
    directory: &Path,
) -> Result<()> {
    server.apply(TEMPLATE).await?;
    let site = Arc::new(Site {
        relay,
        token: server.token().to_owned(),
        operators: Semaphore::new(OPERATORS),
        door,
        journal: Journal::new(silent(&directory.join("sys"))?),
    });
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in first..first + machines {
        let site = Arc::clone(&site);
        tasks.spawn(async move { tokio::time::timeout(PATIENCE, site.boot(n)).await? });
    }
    let mut steps = Steps::default();
    while let Some(done) = tasks.join_next().await {
        for (step, took) in done??.into_iter().enumerate() {
            steps.0.entry(step).or_default().add(took);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let answer = server.get("/dragonfly/v1/machines").await?;
    let list: Value = serde_json::from_slice(&answer.body)?;
    let items = list["items"].as_array().context("no list of machines")?;
    let ready = items.iter().filter(|item| item["phase"] == "Ready").count();
    ensure!(ready == machines, "{ready} of {machines} are Ready\n{}", server.said());

    let case = format!("{machines} machines from power-on to Ready");
    report.ours(&format!("{case}: all of it"), "s", seconds);
    report.ours(&format!("{case}: Ready"), "machines", ready as f64);
    report.ours(&format!("{case}: server's memory at most"), "MiB", mebibytes(server.memory("VmHWM")));
    report.ours(
        &format!("{case}: DHCP asked again"),
        "messages",
        site.relay.repeated.load(std::sync::atomic::Ordering::Relaxed) as f64,
    );
    let lost = [("the server's", server.dropped(67)?), ("the clients'", dropped("thread-self", 67)?)];
    for (whose, packets) in lost {
        let case = format!("{case}: DHCP messages for which {whose} socket had no room");
        report.ours(&case, "messages", packets as f64);
    }
    for (step, times) in &steps.0 {
        let name = STEPS.get(*step).copied().unwrap_or_default();
        for (word, part) in [("p50", 0.5), ("p99", 0.99), ("slowest", 1.0)] {
            report.ours(&format!("{case}: {}. {name}, {word}", step + 1), "ms", times.part(part));
        }
    }
    Ok(())
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
