//! A second server on the same store, on a host of its own on the bridge: it goes on when the first is killed.

use std::path::Path;

use anyhow::Result;

use super::artifacts::Artifacts;
use super::events::{Follower, Timeline};
use super::interrupt::Interrupt;
use super::namespace::{BRIDGE, Namespace};
use super::server::{self, Server};

/// Its address on the bridge.
pub(crate) const ADDRESS: &str = "192.168.77.3";

/// The address that goes from the first server to the second when the first is gone, as a daemon for virtual addresses
/// has it: links that outlive an instance name this one.
pub(crate) const VIRTUAL: &str = "192.168.77.4";

/// Fields are dropped in this order: the process before the network it is in.
#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) server: Server,
    pub(crate) follower: Follower,
    pub(crate) namespace: Namespace,
}

impl Standby {
    /// Starts it, with files of its own in `directory`.
    pub(crate) fn start(
        beside: &Namespace,
        artifacts: &Artifacts,
        directory: &Path,
        launch: &server::Launch,
        timeline: Timeline,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let namespace = Namespace::create("-standby")?;
        // Its card is called as the first server's, for one Network object describes the segment to both.
        beside.plug_as(&namespace, ADDRESS, BRIDGE)?;
        let directory = directory.join("standby");
        std::fs::create_dir_all(&directory)?;
        let server = Server::start(namespace.door(), artifacts, &directory, launch, interrupt)?;
        let door = namespace.door().clone();
        let follower = Follower::start(door, server::address(), server.token_file(), timeline);
        Ok(Self { server, follower, namespace })
    }
}
