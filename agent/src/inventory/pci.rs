//! PCI functions worth a line.

use std::path::Path;

use dragonfly_core::inventory::PciDevice;

use super::{entries, link_name, text};

/// Every function but the plumbing: bridges, memory controllers, system peripherals, SMBus.
pub(crate) fn read(sys: &Path) -> Vec<PciDevice> {
    entries(&sys.join("bus/pci/devices"))
        .into_iter()
        .filter_map(|(address, path)| {
            let class = text(&path.join("class"))?.strip_prefix("0x")?.get(..4)?.to_owned();
            let id = |file: &str| text(&path.join(file))?.strip_prefix("0x").map(str::to_owned);
            is_worth_a_line(&class).then_some(())?;
            Some(PciDevice {
                id: format!("{}:{}", id("vendor")?, id("device")?),
                class,
                driver: link_name(&path.join("driver")),
                address,
            })
        })
        .take(512)
        .collect()
}

fn is_worth_a_line(class: &str) -> bool {
    !matches!(class.get(..2), Some("05" | "06" | "08")) && class != "0c05"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plumbing_is_left_out() {
        for (class, want) in
            [("0302", true), ("0200", true), ("0108", true), ("0600", false), ("0604", false), ("0c05", false)]
        {
            assert_eq!(is_worth_a_line(class), want, "{class}");
        }
    }
}
