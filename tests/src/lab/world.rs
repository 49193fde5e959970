//! Everything around the machines: the network, the server, the listeners. Goes away with its owner.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::args::{Dhcp, FirmwareChoice};
use super::artifacts::{self, Artifacts};
use super::events::{Follower, Timeline};
use super::image::OsImage;
use super::interrupt::Interrupt;
use super::machine::Machine;
use super::namespace::{self, Namespace};
use super::peer::Peer;
use super::process::Process;
use super::qemu::{self, Accel};
use super::server::{self, Server};
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
    /// Capture what goes over the bridge.
    pub(crate) capture: bool,
}

/// Fields are dropped in this order: processes before the network they are in, files last.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    _follower: Follower,
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
        let artifacts: Artifacts = artifacts::build(wish.kernel)?;
        interrupt.check()?;
        let (directory, temporary) = match wish.keep {
            Some(directory) => {
                std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
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
        let peer = if wish.dhcp.has_peer() { Some(Peer::start(&namespace, &directory)?) } else { None };
        let capture = if wish.capture { Some(capture::start(&namespace, &directory)?) } else { None };
        let timeline = Timeline::default();
        echo::serve(namespace.door().listen(echo::AT)?, timeline.clone());
        let server = Server::start(namespace.door(), &artifacts, &directory, interrupt)?;
        server.publish(&wish.image.file)?;
        let follower =
            Follower::start(namespace.door().clone(), server::address(), server.token_file(), timeline.clone());
        Ok(Self {
            server,
            _follower: follower,
            _capture: capture,
            _peer: peer,
            namespace,
            timeline,
            accel,
            directory,
            _temporary: temporary,
        })
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
