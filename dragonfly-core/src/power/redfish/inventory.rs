//! What is fitted, and what firmware it has. What a service does not tell is absent.

use super::control::Controller;
use super::resource::Resource;
use crate::inventory::{Bytes, Cpu, Disk, Inventory, MegabitsPerSecond, Memory, MemoryModule, Nic, System};
use crate::power::{FirmwareVersion, PowerError, Result};

const MIB: u64 = 1 << 20;

fn is_fitted(part: &Resource) -> bool {
    part.text(&["Status", "State"]) != Some("Absent")
}

fn system(of: &Resource) -> System {
    System {
        vendor: of.owned(&["Manufacturer"]),
        product: of.owned(&["Model"]),
        serial: of.owned(&["SerialNumber"]),
        uuid: of.text(&["UUID"]).and_then(|uuid| uuid.parse().ok()),
        board_serial: None,
        bios: of.owned(&["BiosVersion"]),
    }
}

/// The count fits, or there is none.
fn small(count: Option<u64>) -> Option<u32> {
    count.and_then(|count| u32::try_from(count).ok())
}

fn cpu(of: &Resource, processors: &[Resource]) -> Cpu {
    let is_cpu = |part: &&Resource| is_fitted(part) && matches!(part.text(&["ProcessorType"]), None | Some("CPU"));
    let cpus: Vec<&Resource> = processors.iter().filter(is_cpu).collect();
    let sum = |name| {
        let counts: Vec<u64> = cpus.iter().filter_map(|cpu| cpu.count(&[name])).collect();
        // Some of them would be too few.
        (!counts.is_empty() && counts.len() == cpus.len())
            .then(|| counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count)))
    };
    let summary = |name| of.count(&["ProcessorSummary", name]);
    let sockets = u64::try_from(cpus.len()).ok().filter(|count| *count > 0);
    let model = cpus.iter().find_map(|cpu| cpu.owned(&["Model"]));
    let arch = cpus.iter().find_map(|cpu| match cpu.text(&["InstructionSet"])? {
        "x86-64" => Some("x86_64".to_owned()),
        "ARM-A64" => Some("aarch64".to_owned()),
        _ => None,
    });
    Cpu {
        model: model.or_else(|| of.owned(&["ProcessorSummary", "Model"])),
        arch,
        sockets: small(sockets.or_else(|| summary("Count"))),
        cores: small(sum("TotalCores").or_else(|| summary("CoreCount"))),
        threads: small(sum("TotalThreads").or_else(|| summary("LogicalProcessorCount"))),
    }
}

fn memory(of: &Resource, modules: &[Resource]) -> Memory {
    let module = |part: &Resource| {
        let size = part.count(&["CapacityMiB"]).filter(|_| is_fitted(part))?;
        Some(MemoryModule {
            locator: part.owned(&["DeviceLocator"]).unwrap_or_else(|| part.name()),
            size: Bytes(size.saturating_mul(MIB)),
            speed_mts: small(part.count(&["OperatingSpeedMhz"])),
            manufacturer: part.owned(&["Manufacturer"]),
            part_number: part.owned(&["PartNumber"]),
            serial: part.owned(&["SerialNumber"]),
        })
    };
    let modules: Vec<MemoryModule> = modules.iter().filter_map(module).collect();
    let sum = modules.iter().fold(0u64, |sum, module| sum.saturating_add(module.size.0));
    let summary = of.number(&["MemorySummary", "TotalSystemMemoryGiB"]).filter(|total| *total > 0.0);
    let total = match sum {
        // The cast saturates.
        0 => summary.map(|total| (total * (1u64 << 30) as f64) as u64),
        sum => Some(sum),
    };
    Memory { total: total.map(Bytes), modules }
}

fn disk(part: &Resource) -> Option<Disk> {
    let size = part.count(&["CapacityBytes"]).filter(|_| is_fitted(part))?;
    let life = part.number(&["PredictedMediaLifeLeftPercent"]).filter(|left| (0.0..=100.0).contains(left));
    let wwn = part.parts(&["Identifiers"]).iter().find_map(|identifier| identifier.owned(&["DurableName"]));
    Some(Disk {
        name: part.owned(&["Id"]).unwrap_or_else(|| part.name()),
        size: Bytes(size),
        sector: small(part.count(&["BlockSizeBytes"])),
        model: part.owned(&["Model"]),
        serial: part.owned(&["SerialNumber"]),
        wwn,
        bus: part.text(&["Protocol"]).map(|bus| match bus {
            "NVMe" | "PCIe" => "nvme".to_owned(),
            bus => bus.to_ascii_lowercase(),
        }),
        rotational: match part.text(&["MediaType"]) {
            Some("HDD") => Some(true),
            Some("SSD") => Some(false),
            _ => None,
        },
        removable: None,
        wear_percent: life.map(|left| (100.0 - left) as u8),
        blank: None,
        signatures: vec![],
    })
}

fn nic(part: &Resource) -> Option<Nic> {
    let mac = part.text(&["PermanentMACAddress"]).or_else(|| part.text(&["MACAddress"]))?.parse().ok()?;
    Some(Nic {
        name: part.owned(&["Id"]).unwrap_or_else(|| part.name()),
        mac,
        driver: None,
        link: match part.text(&["LinkStatus"]) {
            Some("LinkUp") => Some(true),
            Some("LinkDown" | "NoLink") => Some(false),
            _ => None,
        },
        speed: part.count(&["SpeedMbps"]).map(MegabitsPerSecond),
        addresses: vec![],
        lldp: None,
    })
}

fn version(part: &Resource) -> Option<FirmwareVersion> {
    let version = part.owned(&["Version"])?;
    Some(FirmwareVersion { name: part.name(), version, updateable: part.flag(&["Updateable"]) })
}

impl Controller {
    /// The members of a collection that a resource refers to; none where there is none, or it is not told.
    async fn parts(&self, of: &Resource, name: &str, what: &str) -> Result<Vec<Resource>> {
        let Some(path) = of.link(&[name]) else { return Ok(vec![]) };
        match self.service.members(path, what).await {
            Err(PowerError::Refused { .. } | PowerError::Forbidden { .. }) => Ok(vec![]),
            members => members,
        }
    }

    pub(super) async fn read_inventory(&self) -> Result<Inventory> {
        let what = "tell its hardware";
        let of = self.service.read(&self.found.system, what).await?.resource;
        let processors = self.parts(&of, "Processors", what).await?;
        let modules = self.parts(&of, "Memory", what).await?;
        let mut disks = vec![];
        for storage in self.parts(&of, "Storage", what).await? {
            for path in storage.links(&["Drives"]) {
                disks.extend(self.service.find(path, what).await?.as_ref().and_then(disk));
            }
        }
        let nics = self.parts(&of, "EthernetInterfaces", what).await?.iter().filter_map(nic).collect();
        let (cpu, memory) = (cpu(&of, &processors), memory(&of, &modules));
        Ok(Inventory { system: system(&of), cpu, memory, disks, nics, ..Inventory::default() })
    }

    pub(super) async fn read_firmware(&self) -> Result<Vec<FirmwareVersion>> {
        let what = "tell its firmware";
        let Some(updates) = &self.found.updates else { return Ok(vec![]) };
        let updates = self.service.read(updates, what).await?.resource;
        let parts = self.parts(&updates, "FirmwareInventory", what).await?;
        Ok(parts.iter().filter_map(version).collect())
    }
}

/// Everything here, of one resource.
#[cfg(test)]
pub(super) fn read_anything(of: &Resource) {
    let parts = [of.clone(), of.clone()];
    let _ = (system(of), cpu(of, &parts), memory(of, &parts), disk(of), nic(of), version(of));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn processors_are_counted_whole_or_by_their_summary() {
        let of = Resource(json!({ "ProcessorSummary": { "Count": 2, "CoreCount": 36, "Model": "Summary" } }));
        let one = |cores: Option<u32>| {
            Resource(
                json!({ "ProcessorType": "CPU", "Model": "Xeon ", "TotalCores": cores, "InstructionSet": "x86-64" }),
            )
        };
        let gpu = Resource(json!({ "ProcessorType": "GPU", "TotalCores": 1000 }));
        let seen = cpu(&of, &[one(Some(8)), one(Some(8)), gpu.clone()]);
        assert_eq!((seen.sockets, seen.cores, seen.threads), (Some(2), Some(16), None));
        assert_eq!((seen.model.as_deref(), seen.arch.as_deref()), (Some("Xeon"), Some("x86_64")));
        assert_eq!(cpu(&of, &[one(Some(8)), one(None)]).cores, Some(36));
        let absurd = Resource(json!({ "TotalCores": u64::MAX }));
        assert_eq!(cpu(&of, &[absurd.clone(), absurd]).cores, None);
        assert_eq!(cpu(&of, &[]).model.as_deref(), Some("Summary"));
    }

    #[test]
    fn modules_that_are_fitted() {
        let of = Resource(json!({ "MemorySummary": { "TotalSystemMemoryGiB": 32 } }));
        let fitted = json!({ "DeviceLocator": "DIMM A1", "CapacityMiB": 32768, "Status": { "State": "Enabled" } });
        let empty = json!({ "DeviceLocator": "DIMM A2", "CapacityMiB": 0, "Status": { "State": "Absent" } });
        let seen = memory(&of, &[Resource(fitted), Resource(empty)]);
        assert_eq!((seen.modules.len(), seen.total), (1, Some(Bytes(32 << 30))));
        assert_eq!(memory(&of, &[]).total, Some(Bytes(32 << 30)));
    }

    #[test]
    fn disks_and_cards() {
        let seen = disk(&Resource(json!({ "Id": "Disk.Bay.0", "CapacityBytes": 1920383410176u64, "MediaType": "SSD",
            "BlockSizeBytes": 0, "Protocol": "PCIe", "PredictedMediaLifeLeftPercent": 97,
            "Identifiers": [{ "DurableName": null }] })))
        .unwrap();
        assert_eq!((&*seen.name, seen.size, seen.sector), ("Disk.Bay.0", Bytes(1920383410176), None));
        assert_eq!((seen.bus.as_deref(), seen.rotational, seen.wear_percent), (Some("nvme"), Some(false), Some(3)));
        assert_eq!(disk(&Resource(json!({ "CapacityBytes": null }))), None);
        let seen = nic(&Resource(json!({ "Id": "1", "MACAddress": "50:7C:6F:11:F2:A6", "SpeedMbps": 0 }))).unwrap();
        assert_eq!((seen.mac.to_string(), seen.speed), ("50:7c:6f:11:f2:a6".to_owned(), None));
        assert_eq!(nic(&Resource(json!({ "MACAddress": "" }))), None);
    }
}
