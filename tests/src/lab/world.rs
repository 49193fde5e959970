//! Everything around the machines: the network, the server, the listeners. Goes away with its owner.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::args::{Dhcp, FirmwareChoice};
use super::artifacts::{self, Artifacts, Program};
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
    /// The program that is the server.
    pub(crate) program: Program,
    /// Capture what goes over the bridge.
    pub(crate) capture: bool,
    /// More options of the server.
    pub(crate) options: &'a [&'a str],
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
        let options = [wish.program.options(), wish.options].concat();
        let server = Server::start(namespace.door(), &artifacts, &directory, &options, interrupt)?;
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
