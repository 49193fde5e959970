//! What tests of the whole engine have in common: a site, and what an agent says of its machine.

use std::net::IpAddr;
use std::sync::Arc;

use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::clock::Clock;
use dragonfly_core::engine::{Engine, EngineBuilder};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::resource::TemplateSpec;
use dragonfly_core::resource::hardware::{Anchors, ExistingOs};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::Store;
use dragonfly_core::testing::ManualClock;
use dragonfly_core::wire::{Hello, Versions};

/// One provisioning network, one template whose first step destroys what was on the disk.
pub(crate) const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec:
  actions:
    - { name: image, action: image2disk, with: { url: 'http://10.0.0.1/debian.raw', sha256: aa } }
    - { name: hostname, action: writefile, with: { content: '{{ machine.name }}' } }
    - { name: leave, action: reboot }
";

/// Accepts every template: what the actions do is not these tests' affair.
#[derive(Debug)]
struct Anything;

impl TemplateChecker for Anything {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

/// An engine as these tests build it.
pub(crate) fn builder(store: Arc<dyn Store>, key: &SealingKey, clock: &ManualClock) -> EngineBuilder {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    Engine::builder(store, key.clone(), Arc::new(Anything)).clock(clock)
}

/// The card of a machine, by its number.
pub(crate) const fn card(machine: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, machine])
}

/// The serial number of a machine's board, by its number.
pub(crate) fn serial(machine: u8) -> String {
    format!("SN-000{machine}X")
}

/// The SMBIOS UUID of a machine's board, by its number.
pub(crate) const fn board(machine: u8) -> uuid::Uuid {
    uuid::Uuid::from_u128(0xd7a9_0000_4000_8000_0000_0000_0000_0100 + machine as u128)
}

/// The address that a machine asks from, by its number.
pub(crate) fn address(machine: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, 16 + machine])
}

/// What the agent of a machine says.
pub(crate) fn hello(machine: u8, boot_id: uuid::Uuid, existing_os: Option<ExistingOs>) -> Hello {
    let macs = vec![card(machine)];
    let anchors =
        Anchors { macs, serial: Some(serial(machine)), smbios_uuid: Some(board(machine)), ..Anchors::default() };
    Hello {
        protocol: Versions::OURS,
        agent: "test".to_owned(),
        boot_id,
        mac: card(machine),
        anchors,
        inventory: Inventory::default(),
        existing_os,
        uptime_seconds: None,
        clock_offset_seconds: None,
    }
}
