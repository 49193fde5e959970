//! What this machine is made of, read from the kernel. A field that cannot be read is absent.

mod bmc;
mod cpu;
mod disks;
mod firmware;
mod limit;
mod nics;
mod pci;
pub mod smbios;

use std::path::{Path, PathBuf};

use dragonfly_core::inventory::{Bytes, Inventory, Memory, System};
use dragonfly_core::resource::hardware::Anchors;

pub use bmc::BmcAsked;
pub(crate) use bmc::device as bmc_device;
pub use disks::is_disk_name;

/// Where to look. On a machine these are `/sys`, `/proc` and `/dev`; in a test, captured trees.
#[derive(Debug, Clone)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// What is on a disk, in words; `None` when it could not be read.
pub type Probe = fn(&Path) -> Option<Vec<String>>;

/// Everything that can be seen, in one look; where the management controller is on the network is for
/// [`BmcAsked`]. Blocks.
pub fn gather(roots: &Roots, probe: Probe) -> Inventory {
    let table = smbios::Table::read(&roots.sys);
    Inventory {
        system: system(&table, &roots.sys),
        cpu: cpu::read(&roots.sys, &roots.proc),
        memory: Memory { total: memory_total(&roots.proc), modules: table.memory_modules() },
        disks: disks::read(roots, probe),
        nics: nics::read(&roots.sys),
        pci: pci::read(&roots.sys),
        bmc: table.bmc(),
        firmware: firmware::mode(&roots.sys),
        tpm: firmware::tpm(&roots.sys),
        hypervisor: cpu::hypervisor(&roots.sys),
        routes: nics::routes(&roots.proc),
        boot_interface: None,
    }
}

/// What tells this machine from others, placeholders included: the server judges.
pub fn anchors(inventory: &Inventory) -> Anchors {
    Anchors {
        macs: inventory.nics.iter().map(|nic| nic.mac).collect(),
        smbios_uuid: inventory.system.uuid,
        serial: inventory.system.serial.clone(),
        product: inventory.system.product.clone(),
    }
}

fn system(table: &smbios::Table, sys: &Path) -> System {
    let mut system = table.system();
    // The kernel's own reading, for firmware whose table is elsewhere.
    let dmi = |name: &str| text(&sys.join("class/dmi/id").join(name));
    system.vendor = system.vendor.or_else(|| dmi("sys_vendor"));
    system.product = system.product.or_else(|| dmi("product_name"));
    system.serial = system.serial.or_else(|| dmi("product_serial"));
    system.board_serial = system.board_serial.or_else(|| dmi("board_serial"));
    system.uuid = system.uuid.or_else(|| dmi("product_uuid")?.parse().ok());
    system
}

fn memory_total(proc: &Path) -> Option<Bytes> {
    let meminfo = std::fs::read_to_string(proc.join("meminfo")).ok()?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// The text of a small file without the space around it; absent when empty or unreadable. Control
/// characters are taken out: firmware and disks are strangers too.
pub(crate) fn text(path: &Path) -> Option<String> {
    clean(&std::fs::read(path).ok()?)
}

/// Bytes as text for people, 256 characters at most.
pub(crate) fn clean(bytes: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(256).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The number in a small file.
pub(crate) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The last part of where a link points.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    std::fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}

/// The entries of a directory by name, in order; 4096 at most.
pub(crate) fn entries(path: &Path) -> Vec<(String, PathBuf)> {
    let mut entries: Vec<(String, PathBuf)> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().into_string().ok()?, e.path())))
        .take(4096)
        .collect();
    entries.sort();
    entries
}
