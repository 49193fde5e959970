//! The SMBIOS table (DMTF DSP0134), as far as an inventory needs it.
//!
//! Firmware writes it, so every length and offset in it may be a lie: what does not fit is absent.

use std::path::Path;

use dragonfly_core::inventory::{BmcSeen, Bytes, MemoryModule, System};
use uuid::Uuid;

use super::clean;

/// The most structures that are looked at.
const MOST: usize = 4096;

/// A table in memory.
#[derive(Debug, Default)]
pub struct Table {
    bytes: Vec<u8>,
    /// Major and minor version; decides how a UUID is stored.
    version: (u8, u8),
}

/// One structure: its formatted area and its strings.
#[derive(Debug, Clone, Copy)]
struct Structure<'a> {
    kind: u8,
    area: &'a [u8],
    strings: &'a [u8],
}

impl Table {
    /// The table of this machine, empty if it has none.
    pub fn read(sys: &Path) -> Self {
        let dir = sys.join("firmware/dmi/tables");
        let bytes = std::fs::read(dir.join("DMI")).unwrap_or_default();
        let entry = std::fs::read(dir.join("smbios_entry_point")).unwrap_or_default();
        Self::new(bytes, &entry)
    }

    /// A table and its entry point, whose version is at 6 (`_SM_`) or 7 (`_SM3_`).
    pub fn new(bytes: Vec<u8>, entry: &[u8]) -> Self {
        let at = if entry.starts_with(b"_SM3_") { 7 } else { 6 };
        let version = match (entry.get(at), entry.get(at + 1)) {
            (Some(major), Some(minor)) => (*major, *minor),
            _ => (3, 0),
        };
        Self { bytes, version }
    }

    /// Types 0, 1 and 2.
    pub fn system(&self) -> System {
        let mut system = System::default();
        for s in self.structures() {
            match s.kind {
                0 if system.bios.is_none() => {
                    let words = [s.string(4), s.string(5)].into_iter().flatten().collect::<Vec<_>>();
                    system.bios = (!words.is_empty()).then(|| words.join(" "));
                }
                1 if system.product.is_none() && system.vendor.is_none() => {
                    system.vendor = s.string(4);
                    system.product = s.string(5);
                    system.serial = s.string(7);
                    system.uuid = s.uuid(8, self.version);
                }
                2 if system.board_serial.is_none() => system.board_serial = s.string(7),
                _ => {}
            }
        }
        system
    }

    /// Type 17, filled slots only.
    pub fn memory_modules(&self) -> Vec<MemoryModule> {
        self.structures().filter(|s| s.kind == 17).filter_map(module).take(1024).collect()
    }

    /// Type 38: a management controller with a system interface.
    pub fn bmc(&self) -> Option<BmcSeen> {
        let s = self.structures().find(|s| s.kind == 38)?;
        let interface = match s.byte(4)? {
            1 => Some("KCS"),
            2 => Some("SMIC"),
            3 => Some("BT"),
            4 => Some("SSIF"),
            _ => None,
        };
        // Two digits, major in the high half.
        let ipmi_version = s.byte(5).filter(|v| *v != 0).map(|v| format!("{}.{}", v >> 4, v & 15));
        Some(BmcSeen { interface: interface.map(str::to_owned), ipmi_version, ..BmcSeen::default() })
    }

    fn structures(&self) -> impl Iterator<Item = Structure<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let kind = *rest.first()?;
            let length = usize::from(*rest.get(1)?);
            // Type 127 ends the table.
            if length < 4 || kind == 127 {
                return None;
            }
            let area = rest.get(..length)?;
            let after = rest.get(length..)?;
            // The strings end with two zeros.
            let end = after.windows(2).position(|w| w == [0, 0])?;
            let strings = after.get(..end)?;
            rest = after.get(end + 2..)?;
            Some(Structure { kind, area, strings })
        })
        .take(MOST)
    }
}

impl Structure<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.area.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.area.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.area.get(at..at + 4)?.try_into().ok()?))
    }

    /// The string whose number, from 1, stands at this offset.
    fn string(&self, at: usize) -> Option<String> {
        let number = usize::from(self.byte(at)?).checked_sub(1)?;
        clean(self.strings.split(|b| *b == 0).nth(number)?)
    }

    /// From version 2.6 on the first three fields are little-endian (DSP0134 7.2.1).
    fn uuid(&self, at: usize, version: (u8, u8)) -> Option<Uuid> {
        let bytes: [u8; 16] = self.area.get(at..at + 16)?.try_into().ok()?;
        Some(if version >= (2, 6) { Uuid::from_bytes_le(bytes) } else { Uuid::from_bytes(bytes) })
    }
}

fn module(s: Structure<'_>) -> Option<MemoryModule> {
    let size = match s.u16(0x0c)? {
        0 | 0xffff => return None,
        0x7fff => u64::from(s.u32(0x1c)? & 0x7fff_ffff) << 20,
        kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) << 10,
        mib => u64::from(mib) << 20,
    };
    let speed = |at| s.u16(at).filter(|s| *s != 0 && *s != 0xffff).map(u32::from);
    Some(MemoryModule {
        locator: s.string(0x10).unwrap_or_default(),
        size: Bytes(size),
        speed_mts: speed(0x20).or_else(|| speed(0x15)),
        manufacturer: s.string(0x17),
        part_number: s.string(0x1a),
        serial: s.string(0x18),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn structure(kind: u8, body: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut out = vec![kind, body.len() as u8 + 4, 0, 0];
        out.extend(body);
        for s in strings {
            out.extend(s.as_bytes());
            out.push(0);
        }
        if strings.is_empty() {
            out.push(0);
        }
        out.push(0);
        out
    }

    #[test]
    fn reads_system_and_memory() {
        let uuid: Vec<u8> = (0..16).collect();
        let mut body = vec![1, 2, 0, 3];
        body.extend(&uuid);
        let mut bytes = structure(1, &body, &["ACME", "Anvil \u{1b}[2J", "SN-1"]);
        let mut dimm = vec![0u8; 0x24];
        dimm[0x0c - 4..0x0e - 4].copy_from_slice(&0x7fffu16.to_le_bytes());
        dimm[0x1c - 4..0x20 - 4].copy_from_slice(&65536u32.to_le_bytes());
        dimm[0x10 - 4] = 1;
        dimm[0x20 - 4..0x22 - 4].copy_from_slice(&4800u16.to_le_bytes());
        bytes.extend(structure(17, &dimm, &["DIMM A1"]));
        bytes.extend(structure(17, &[0; 0x24], &[]));
        bytes.extend(structure(38, &[1, 0x20], &[]));
        bytes.extend(structure(127, &[], &[]));
        let table = Table::new(bytes, b"_SM3_\0\0\x03\x02");
        let system = table.system();
        assert_eq!(system.vendor.as_deref(), Some("ACME"));
        assert_eq!(system.product.as_deref(), Some("Anvil [2J"));
        assert_eq!(system.serial.as_deref(), Some("SN-1"));
        assert_eq!(system.uuid.unwrap().to_string(), "03020100-0504-0706-0809-0a0b0c0d0e0f");
        let modules = table.memory_modules();
        assert_eq!(modules.len(), 1);
        assert_eq!((modules[0].size, modules[0].speed_mts), (Bytes(64 << 30), Some(4800)));
        let bmc = table.bmc().unwrap();
        assert_eq!((bmc.interface.as_deref(), bmc.ipmi_version.as_deref()), (Some("KCS"), Some("2.0")));
    }

    proptest! {
        #[test]
        fn any_bytes_make_some_table(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let table = Table::new(bytes, b"");
            let _ = (table.system(), table.memory_modules(), table.bmc());
        }
    }
}
