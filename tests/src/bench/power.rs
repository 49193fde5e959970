//! Many controllers at once, over real IPMI on loopback, beside a loop over `ipmitool`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dragonfly_core::power::ipmi::Ipmi;
use dragonfly_core::power::{
    Credential, Dispatcher, Limits, Operation, Outcome, PowerDrivers, PowerError, PowerState, Target,
};
use dragonfly_core::testing::power::ipmi::{Peer, Personality};
use futures_util::future::join_all;
use tokio::net::UdpSocket;

use super::args::Bench;
use super::report::Report;
use crate::lab::console::say;

const CONTROLLERS: usize = 500;
/// How many of them `ipmitool` is run against, one after the other.
const LOOP: usize = 40;
const PASSWORD: &str = "secret";

/// What a controller of the rack is like: 2 % are dead, 2 % slow, 1 % lie, 1 % have another password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dead,
    Slow,
    Lying,
    OtherPassword,
    Healthy,
}

fn kind(number: usize) -> Kind {
    match number % 100 {
        0 | 1 => Kind::Dead,
        2 | 3 => Kind::Slow,
        4 => Kind::Lying,
        5 => Kind::OtherPassword,
        _ => Kind::Healthy,
    }
}

enum Controller {
    /// Hears everything and answers nothing.
    Dead(UdpSocket),
    Answers(Peer),
}

impl Controller {
    async fn start(number: usize) -> Result<Self> {
        let at: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let honest = Personality::default();
        let is = match kind(number) {
            Kind::Dead => return Ok(Self::Dead(UdpSocket::bind(at).await?)),
            Kind::Slow => Personality { delay: Duration::from_secs(4), ..honest },
            Kind::Lying => Personality { lies: true, ..honest },
            Kind::OtherPassword => Personality { password: "another".to_owned(), ..honest },
            Kind::Healthy => honest,
        };
        Ok(Self::Answers(Peer::start(at, is).await?))
    }

    fn target(&self) -> Result<Target> {
        let address = match self {
            Self::Dead(socket) => socket.local_addr()?,
            Self::Answers(peer) => peer.address(),
        };
        let credential = Credential { username: "admin".to_owned(), password: PASSWORD.to_owned().into() };
        Ok(Target { address: format!("ipmi://{address}").parse()?, credential: Some(credential) })
    }
}

pub(crate) async fn run(args: &Bench) -> Result<Report> {
    let mut report = Report::new("power", "mixed", args.report.as_deref());
    let version = String::from_utf8(tokio::process::Command::new("ipmitool").arg("-V").output().await?.stdout)?;
    report.took_part("dragonfly", env!("CARGO_PKG_VERSION"), "Dispatcher, default limits, cipher suite 17", "none");
    report.took_part("ipmitool", version.trim(), "one process after the other, -I lanplus -C 17", "none");
    let mut controllers = Vec::new();
    for number in 0..CONTROLLERS {
        controllers.push(Controller::start(number).await?);
    }
    bulk(&mut report, &controllers).await?;
    report.keep("bulk")?;
    let secret = tempfile::NamedTempFile::new()?;
    std::fs::write(secret.path(), PASSWORD)?;
    let healthy: Vec<&Controller> =
        controllers.iter().enumerate().filter(|(n, _)| kind(*n) == Kind::Healthy).map(|(_, one)| one).collect();
    for _ in 0..args.runs {
        let dispatcher = dispatcher();
        let begin = Instant::now();
        let asked = healthy.iter().map(async |one| {
            dispatcher.carry_out(&one.target()?, Operation::Status).await.map_err(anyhow::Error::from)
        });
        for done in join_all(asked).await {
            ensure!(matches!(done?, Outcome::State(_)), "a status without a state");
        }
        report.ours("status, all sessions anew", "operations/s", healthy.len() as f64 / begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        for one in healthy.iter().take(LOOP) {
            let target = one.target()?;
            let port = target.address.port().context("no port")?.to_string();
            let done = tokio::process::Command::new("ipmitool")
                .args(["-I", "lanplus", "-C", "17", "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-f"])
                .arg(secret.path())
                .args(["chassis", "power", "status"])
                .output()
                .await?;
            ensure!(done.status.success(), "ipmitool: {}", String::from_utf8_lossy(&done.stderr));
        }
        report.note(
            "ipmitool",
            "status, all sessions anew",
            "operations/s",
            LOOP as f64 / begin.elapsed().as_secs_f64(),
        );
    }
    report.keep("status")?;
    Ok(report)
}

fn dispatcher() -> Dispatcher {
    Dispatcher::new(PowerDrivers::new().with(Ipmi::default()), Limits::default())
}

/// All of them are booted from the network at once: each has the outcome that it must have, and none is held up by
/// those that are dead.
async fn bulk(report: &mut Report, controllers: &[Controller]) -> Result<()> {
    let dispatcher = dispatcher();
    let begin = Instant::now();
    let all = controllers.iter().map(async |one| {
        let done = dispatcher.carry_out(&one.target()?, Operation::NetworkBoot(None)).await;
        anyhow::Ok((done, begin.elapsed()))
    });
    let all = join_all(all).await;
    let whole = begin.elapsed();
    let (mut healthy, mut slow) = (Duration::ZERO, Duration::ZERO);
    for (number, (one, result)) in controllers.iter().zip(all).enumerate() {
        let (done, after) = result?;
        match (kind(number), &done) {
            (Kind::Healthy, Ok(Outcome::Done)) => healthy = healthy.max(after),
            (Kind::Slow, Ok(Outcome::Done)) => slow = slow.max(after),
            (Kind::Dead, Err(PowerError::TimedOut { .. } | PowerError::Unreachable { .. }))
            | (Kind::OtherPassword, Err(PowerError::Unauthorised)) => {}
            (Kind::Lying, Err(PowerError::NotDone { wanted: PowerState::On, .. })) => {}
            (kind, done) => bail!("controller {number}, {kind:?}: {done:?}"),
        }
        if let Controller::Answers(peer) = one {
            let parallel = peer.seen().parallel;
            ensure!(parallel <= 1, "controller {number} saw {parallel} sessions at once");
        }
    }
    let memory = std::fs::read_to_string("/proc/self/status")?;
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    say(format_args!("{CONTROLLERS} controllers: each outcome as it must be, none saw two sessions"));
    report.ours("500 controllers, network boot: the last healthy one", "s", healthy.as_secs_f64());
    report.ours("500 controllers, network boot: the last that answers 4 s late", "s", slow.as_secs_f64());
    report.ours("500 controllers, network boot: all, those that fail too", "s", whole.as_secs_f64());
    report.ours(
        "500 controllers: memory at most, the simulated controllers included",
        "MiB",
        memory.unwrap_or(0.0) / 1024.0,
    );
    Ok(())
}
