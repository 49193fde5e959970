//! Everything around the machines: the network, the server, the listeners. Goes away with its owner.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::args::{Dhcp, FirmwareChoice, Store};
use super::artifacts::{self, Artifacts, Program};
use super::cluster::Cluster;
use super::events::{Follower, Timeline};
use super::image::OsImage;
use super::interrupt::Interrupt;
use super::machine::Machine;
use super::namespace::{self, Namespace, SERVER};
use super::peer::Peer;
use super::process::Process;
use super::qemu::{self, Accel};
use super::server::{self, Launch, Server};
use super::standby::{self, Standby};
use super::{capture, echo, manifest};

/// The Debian kernel that machines boot into the agent with: without decompressing itself slowly.
pub(crate) const CLOUD_KERNEL: &str = "linux-image-cloud-amd64";
/// The one with every driver.
pub(crate) const GENERIC_KERNEL: &str = "linux-image-amd64";

/// What a world is made of.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) machines: usize,
    pub(crate) dhcp: Dhcp,
    pub(crate) kernel: &'a str,
    pub(crate) image: &'a OsImage,
    /// Keep everything here; a temporary directory otherwise.
    pub(crate) keep: Option<&'a Path>,
    /// The program that is the server.
    pub(crate) program: Program,
    /// Capture what goes over the bridge.
    pub(crate) capture: bool,
    /// More options of the server.
    pub(crate) options: &'a [&'a str],
    /// Where state is kept.
    pub(crate) store: Store,
    /// How many servers run on it.
    pub(crate) instances: u8,
}

impl<'a> Wish<'a> {
    /// One machine, one server, its own file.
    pub(crate) fn new(image: &'a OsImage) -> Self {
        Self {
            machines: 1,
            dhcp: Dhcp::Full,
            kernel: CLOUD_KERNEL,
            image,
            keep: None,
            program: Program::Plain,
            capture: false,
            options: &[],
            store: Store::Redb,
            instances: 1,
        }
    }
}

/// Fields are dropped in this order: processes before the network they are in, files last.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    standby: Option<Standby>,
    pub(crate) cluster: Option<Cluster>,
    _standby_network: Option<Namespace>,
    follower: Follower,
    _capture: Option<Process>,
    _peer: Option<Peer>,
    pub(crate) namespace: Namespace,
    pub(crate) timeline: Timeline,
    pub(crate) accel: Accel,
    pub(crate) directory: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn build(wish: &Wish<'_>, interrupt: &Interrupt) -> Result<Self> {
        namespace::sweep()?;
        let artifacts: Artifacts = artifacts::build(wish.kernel, wish.program)?;
        interrupt.check()?;
        let (directory, temporary) = match wish.keep {
            Some(directory) => {
                keep_in(directory).with_context(|| directory.display().to_string())?;
                (directory.canonicalize()?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("df-lab-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let accel = qemu::probe(&wish.image.raw, &artifacts::cache()?, &directory)?;
        interrupt.check()?;
        let namespace = Namespace::create("")?;
        namespace.lay_bridge(wish.machines)?;
        let peer = if wish.dhcp.has_peer() { Some(Peer::start(&namespace, &directory, &[])?) } else { None };
        let capture = if wish.capture { Some(capture::start(&namespace, &directory)?) } else { None };
        let timeline = Timeline::default();
        echo::serve(namespace.door().listen(echo::AT)?, timeline.clone());
        let mut launch = Launch::new(wish.program.options()).and(wish.options.iter().copied());
        let cluster = match wish.store {
            Store::Redb | Store::Sqlite => None,
            Store::Kubernetes => {
                let cluster = Cluster::start(namespace.door(), &directory, interrupt)?;
                launch = launch
                    .and(["--backend", "kubernetes"])
                    .with("KUBECONFIG", &cluster.kubeconfig().display().to_string());
                server::install(namespace.door(), &artifacts, &launch)?;
                Some(cluster)
            }
        };
        let mine = match wish.instances {
            0 | 1 => launch.clone(),
            _ => {
                namespace.add_address(standby::VIRTUAL)?;
                launch.clone().and(swarm("first"))
            }
        };
        let server = Server::start(namespace.door(), &artifacts, &directory, &mine, interrupt)?;
        server.publish(&wish.image.file)?;
        let standby = match wish.instances {
            0 | 1 => None,
            _ => {
                server.wait_until_it_answers_dhcp(interrupt)?;
                let launch = launch.and(swarm("second"));
                let standby = Standby::start(&namespace, &artifacts, &directory, &launch, timeline.clone(), interrupt)?;
                standby.server.publish(&wish.image.file)?;
                Some(standby)
            }
        };
        let follower =
            Follower::start(namespace.door().clone(), server::address(), server.token_file(), timeline.clone());
        Ok(Self {
            server,
            standby,
            cluster,
            _standby_network: None,
            follower,
            _capture: capture,
            _peer: peer,
            namespace,
            timeline,
            accel,
            directory,
            _temporary: temporary,
        })
    }

    /// Kills the server for good; the other instance is the server from now on.
    pub(crate) fn fail_over(&mut self) -> Result<()> {
        let standby = self.standby.take().context("there is no other instance: --instances 2 makes one")?;
        self.server.kill();
        let Standby { server, follower, namespace } = standby;
        self.namespace.drop_address(standby::VIRTUAL)?;
        namespace.add_address(standby::VIRTUAL)?;
        self.server = server;
        self.follower = follower;
        self._standby_network = Some(namespace);
        Ok(())
    }

    /// Machines with blank disks, not yet on. Those with a reservation are made known first.
    pub(crate) fn machines(&self, count: usize, firmware: FirmwareChoice, dhcp: Dhcp) -> Result<Vec<Machine>> {
        let machines = (0..count)
            .map(|index| Machine::new(index, firmware.of(index), &self.directory))
            .collect::<Result<Vec<_>>>()?;
        if dhcp == Dhcp::Reservation {
            for machine in &machines {
                self.server.apply(&manifest::reservation(machine))?;
            }
        }
        self.server.apply(&manifest::network(dhcp))?;
        Ok(machines)
    }
}

/// What makes a server one of two.
fn swarm(name: &str) -> Vec<String> {
    let url = |address: &str| format!("https://{address}:3000");
    let also = [SERVER, standby::ADDRESS].map(url).join(",");
    let server = url(standby::VIRTUAL);
    ["--mode", "swarm", "--instance", name, "--server-url", &server, "--also", &also].map(str::to_owned).into()
}

/// Left in a directory that a lab has filled, so that the next one may clear it.
const MARK: &str = ".dragonfly-lab";

/// Makes a directory ready to keep a run: empty, or cleared of what an earlier run kept there. An
/// old store or serial log would be taken for this run's.
fn keep_in(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut entries = std::fs::read_dir(directory)?.peekable();
    if directory.join(MARK).exists() {
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
    } else if entries.peek().is_some() {
        anyhow::bail!("holds files that no lab has put there; name another directory with --keep");
    }
    std::fs::write(directory.join(MARK), "")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_lab_has_kept_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("kept");
        keep_in(&kept).unwrap();
        std::fs::create_dir_all(kept.join("data/x")).unwrap();
        keep_in(&kept).unwrap();
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1, "the mark alone is left");
        std::fs::write(directory.path().join("letter"), "mine").unwrap();
        assert!(keep_in(directory.path()).is_err());
        assert!(directory.path().join("letter").exists());
    }
}
