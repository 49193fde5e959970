//! What an agent saw of a machine. A field that could not be read is absent, never invented.

mod bounds;
mod differences;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use differences::Difference;

use crate::Mac;
use crate::few::few;
use bounds::{ADDRESSES, DISKS, MODULES, NICS, PCI, ROUTES, SIGNATURES, USERS};

/// A quantity of memory or storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// The speed of a link or of a memory module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MegabitsPerSecond(pub u64);

/// Everything an agent saw. Of each list one more than is kept is read: so it is known that there were more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Inventory {
    /// SMBIOS type 1 and 2.
    pub system: System,
    /// Processors.
    pub cpu: Cpu,
    /// Memory, module by module.
    pub memory: Memory,
    /// Disks, not partitions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ DISKS + 1 }, _, _>")]
    pub disks: Vec<Disk>,
    /// Network cards.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ NICS + 1 }, _, _>")]
    pub nics: Vec<Nic>,
    /// Graphics processors and every other PCI function worth a line.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ PCI + 1 }, _, _>")]
    pub pci: Vec<PciDevice>,
    /// The management controller, if one answers on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSeen>,
    /// `bios` or `uefi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareMode>,
    /// TPM version: `1.2` or `2.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<String>,
    /// The hypervisor this machine runs under, `kvm`, `vmware`, ...; absent on bare metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// Default routes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ ROUTES + 1 }, _, _>")]
    pub routes: Vec<Route>,
    /// The interface it booted from, by kernel name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_interface: Option<String>,
}

/// How the firmware boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareMode {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// Who made it and what it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct System {
    /// SMBIOS type 1 manufacturer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// SMBIOS type 1 product name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// SMBIOS type 1 serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// SMBIOS type 1 UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub uuid: Option<uuid::Uuid>,
    /// SMBIOS type 2 serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board_serial: Option<String>,
    /// SMBIOS type 0 vendor and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bios: Option<String>,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// As it names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `x86_64`, `aarch64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
    /// Cores in all packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Threads in all cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// What the kernel can use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// SMBIOS type 17, filled slots only.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ MODULES + 1 }, _, _>")]
    pub modules: Vec<MemoryModule>,
}

/// One memory module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryModule {
    /// The slot: `DIMM 0`.
    pub locator: String,
    /// Its size.
    pub size: Bytes,
    /// Its configured speed in megatransfers a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mts: Option<u32>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Its part number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_number: Option<String>,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Kernel name: `sda`, `nvme0n1`.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// Logical sector size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector: Option<u32>,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its world wide name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// `nvme`, `sata`, `sas`, `virtio`, `usb`, `mmc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// Whether it spins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    /// Whether it can be taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removable: Option<bool>,
    /// Health: percentage of its life that is used up (NVMe).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wear_percent: Option<u8>,
    /// Whether anything is on it: partition table, file system, RAID or LVM signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blank: Option<bool>,
    /// What is on it, in words: `gpt`, `ext4`, `linux_raid_member`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ SIGNATURES + 1 }, _, _>")]
    pub signatures: Vec<String>,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Kernel name: `eth0`.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Kernel driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether a carrier is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<bool>,
    /// Its speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<MegabitsPerSecond>,
    /// Its addresses with prefix length: `192.168.77.100/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ ADDRESSES + 1 }, _, _>")]
    pub addresses: Vec<String>,
    /// What the switch says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lldp: Option<Lldp>,
}

/// The neighbour on a link (IEEE 802.1AB).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Lldp {
    /// Chassis id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chassis: Option<String>,
    /// Port id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// System name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// One PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PciDevice {
    /// `0000:00:02.0`.
    pub address: String,
    /// Vendor and device id: `10de:2330`.
    pub id: String,
    /// Class code: `0302`.
    pub class: String,
    /// Kernel driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// A management controller seen from inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BmcSeen {
    /// How it is reached from inside: SMBIOS type 38: `KCS`, `SSIF`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// IPMI version: `2.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipmi_version: Option<String>,
    /// Its LAN address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its LAN hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Who may log in to it: the slots of its user table that have a name or open something. Empty where they could
    /// not all be read.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<{ USERS + 1 }, _, _>")]
    pub users: Vec<BmcUser>,
}

/// One slot of a management controller's user table (IPMI 2.0, 22.27 and 22.29).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcUser {
    /// User ID, 1 to 63.
    pub slot: u8,
    /// User name, 16 bytes at most; absent for one without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it may log in at all; absent where the controller does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it may do at most on the LAN channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<BmcPrivilege>,
}

/// A privilege limit (IPMI 2.0, 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BmcPrivilege {
    /// Only what calls back.
    Callback,
    /// Reads.
    User,
    /// Switches power too.
    Operator,
    /// Everything.
    Administrator,
    /// What its vendor calls so.
    Oem,
    /// Nothing on this channel.
    NoAccess,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl BmcPrivilege {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Oem => "oem",
            Self::NoAccess => "no-access",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for BmcUser {
    /// `2 ADMIN (administrator)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.slot, self.name.as_deref().unwrap_or("without a name"))?;
        let off = (self.enabled == Some(false)).then_some("off");
        let words: Vec<&str> = self.privilege.map(BmcPrivilege::word).into_iter().chain(off).collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Next hop.
    pub via: IpAddr,
    /// By this interface.
    pub interface: String,
}
