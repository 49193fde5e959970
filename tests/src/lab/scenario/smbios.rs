//! SMBIOS structures that QEMU has no argument for (SMBIOS 3.0, DSP0134).

/// A memory module as its slot describes it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) locator: &'static str,
    pub(super) mib: u16,
    pub(super) speed: u16,
    pub(super) manufacturer: &'static str,
    pub(super) serial: &'static str,
    pub(super) part: &'static str,
}

/// Type 17, Memory Device, 40 bytes (7.18), and its strings. QEMU makes none of its own beside it.
pub(super) fn memory_device(handle: u16, module: &Module) -> Vec<u8> {
    let mut table = vec![17, 40];
    let mut words = |values: &[u16]| table.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    // Handle, the array it belongs to, no error information, total and data width, size in MiB.
    words(&[handle, 0x1000, 0xfffe, 72, 64, module.mib]);
    // DIMM, no set, locator, bank, DDR4.
    table.extend([9, 0, 1, 2, 0x1a]);
    // Synchronous; speed.
    for value in [0x80, module.speed] {
        table.extend(value.to_le_bytes());
    }
    // Manufacturer, serial, asset tag, part number; one rank.
    table.extend([3, 4, 0, 5, 1]);
    // No extended size; configured speed; voltages in millivolts.
    table.extend(0_u32.to_le_bytes());
    for value in [module.speed, 1200, 1200, 1200] {
        table.extend(value.to_le_bytes());
    }
    for text in [module.locator, "BANK 0", module.manufacturer, module.serial, module.part] {
        table.extend(text.as_bytes());
        table.push(0);
    }
    table.push(0);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_its_length_and_its_strings() {
        let module =
            Module { locator: "DIMM_A1", mib: 8192, speed: 2933, manufacturer: "Maker", serial: "S1", part: "P1" };
        let table = memory_device(0x1100, &module);
        assert_eq!(table[..4], [17, 40, 0x00, 0x11]);
        assert_eq!(table[0x0c..0x0e], 8192_u16.to_le_bytes());
        assert_eq!(table[0x15..0x17], 2933_u16.to_le_bytes());
        assert_eq!(&table[40..48], b"DIMM_A1\0");
        assert!(table.ends_with(b"P1\0\0"));
    }
}
