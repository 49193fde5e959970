//! A fleet in a store, written through the store itself before the server starts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use dragonfly_core::Mac;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::inventory::{Bytes, Disk, Inventory, Lldp, MemoryModule, Nic, PciDevice, System};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{Hardware, HardwareSpec, HardwareStatus, Record};
use dragonfly_core::store::{Part, RedbStore, Store, When};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::lab::console::say;

/// Writers at once: the store commits what they wait for together.
pub(crate) const WRITERS: usize = 512;

/// The card that machine `n` boots from.
pub(crate) fn mac(n: usize) -> Mac {
    let [.., a, b, c, d] = n.to_be_bytes();
    Mac::new([0x02, 0xdf, a, b, c, d])
}

/// The name of machine `n`.
pub(crate) fn name(n: usize) -> String {
    format!("node-{n:06}")
}

/// What an agent on machine `n` would see: a server of two sockets with four disks.
pub(crate) fn inventory(n: usize) -> Inventory {
    let nic = |port: usize| Nic {
        name: format!("eno{}", port + 1),
        mac: if port == 0 { mac(n) } else { second_mac(n) },
        driver: Some("ixgbe".into()),
        link: Some(port == 0),
        speed: None,
        addresses: Vec::new(),
        lldp: Some(Lldp {
            chassis: Some(format!("00:1c:73:{:02x}:00:01", n / 48 % 256)),
            port: Some(format!("Ethernet{}", n % 48 + 1)),
            system: Some(format!("leaf-{}", n / 48)),
        }),
    };
    let disk = |d: usize| Disk {
        name: format!("nvme{d}n1"),
        size: Bytes(1_920_383_410_176),
        sector: Some(512),
        model: Some("SAMSUNG MZQL21T9HCJR-00A07".into()),
        serial: Some(format!("S64GNE0R{n:06}{d}")),
        wwn: Some(format!("eui.36344730526{n:06}{d}00025384")),
        bus: Some("nvme".into()),
        rotational: Some(false),
        removable: Some(false),
        wear_percent: Some(1),
        blank: Some(true),
        signatures: Vec::new(),
    };
    let module = |m: usize| MemoryModule {
        locator: format!("DIMM_P{}_{}", m / 4, m % 4),
        size: Bytes(32 << 30),
        speed_mts: Some(4800),
        manufacturer: Some("Micron".into()),
        part_number: Some("MTC20F2085S1RC48BA1".into()),
        serial: Some(format!("3B{n:06X}{m:02X}")),
    };
    let card = |p: usize| PciDevice {
        address: format!("0000:{:02x}:00.0", p + 1),
        id: "8086:10fb".into(),
        class: "020000".into(),
        driver: Some("ixgbe".into()),
    };
    let mut inventory = Inventory {
        system: System {
            vendor: Some("Supermicro".into()),
            product: Some("SYS-121H-TNR".into()),
            serial: Some(format!("S5{n:08}")),
            uuid: Some(Uuid::from_u128(0x5afe_0000_0000_4000_8000_0000_0000_0000 | n as u128)),
            board_serial: Some(format!("ZM{n:08}")),
            bios: Some("2.1 2024-01-12".into()),
        },
        disks: (0..4).map(disk).collect(),
        nics: (0..2).map(nic).collect(),
        pci: (0..12).map(card).collect(),
        ..Inventory::default()
    };
    inventory.memory.total = Some(Bytes(256 << 30));
    inventory.memory.modules = (0..8).map(module).collect();
    inventory
}

fn second_mac(n: usize) -> Mac {
    let [.., a, b, c, d] = n.to_be_bytes();
    Mac::new([0x06, 0xdf, a, b, c, d])
}

/// What tells machine `n` from others.
pub(crate) fn anchors(n: usize) -> Anchors {
    let system = inventory(n).system;
    let (serial, product) = (system.serial, system.product);
    Anchors { macs: vec![mac(n), second_mac(n)], smbios_uuid: system.uuid, serial, product }
}

/// Machine `n`, registered.
pub(crate) fn machine(n: usize) -> Hardware {
    let spec = HardwareSpec {
        display_name: format!("Node{n:06}"),
        macs: vec![mac(n), second_mac(n)],
        ..HardwareSpec::default()
    };
    let mut machine = Hardware::new(name(n), spec);
    machine.metadata.labels.insert("rack".into(), format!("r{}", n / 40));
    let since = Timestamp::from_unix_seconds(1_790_000_000);
    machine.status = HardwareStatus {
        phase: Some(Phase::Registered),
        phase_since: Some(since),
        message: "waiting for an assignment".into(),
        anchors: Some(anchors(n)),
        inventory: Some(inventory(n)),
        last_seen: Some(since),
        ..HardwareStatus::default()
    };
    machine
}

/// Writes this many machines into a new store at `path`. Returns the bytes of one as it is stored.
pub(crate) async fn fill(path: &Path, machines: usize) -> Result<usize> {
    say(format_args!("filling a store with {machines} machines"));
    let directory = path.parent().context("a store without a directory")?;
    std::fs::create_dir_all(directory)?;
    let place = path.to_owned();
    let store = tokio::task::spawn_blocking(move || RedbStore::open(place)).await??;
    let whole: Arc<dyn Store> = Arc::new(store.clone());
    let bytes = fill_store(&whole, machines, WRITERS).await?;
    drop(whole);
    store.close().await?;
    Ok(bytes)
}

/// Writes this many machines into an empty store, by so many writers at once. Returns the bytes of one as it is stored.
pub(crate) async fn fill_store(store: &Arc<dyn Store>, machines: usize, at_once: usize) -> Result<usize> {
    let mut writers = JoinSet::new();
    for first in 0..at_once {
        let store = Arc::clone(store);
        writers.spawn(async move {
            for n in (first..machines).step_by(at_once) {
                let whole = Record::from(&machine(n));
                let made = store.put(whole.clone(), Part::Spec, When::Absent).await?;
                let seen = When::Unchanged(made.metadata.resource_version.clone());
                store.put(Record { status: whole.status, ..made }, Part::Status, seen).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(Record::from(&machine(0)).to_json().to_string().len())
}
