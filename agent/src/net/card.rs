//! Network cards as sysfs shows them.

use std::path::Path;

use dragonfly_core::Mac;

/// One Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Kernel name.
    pub name: String,
    /// Its address.
    pub mac: Mac,
}

/// Every Ethernet interface that is a device (not loopback, not made by software), in order of
/// name.
pub fn list(sysfs: &Path) -> Vec<Card> {
    let mut cards: Vec<Card> = std::fs::read_dir(sysfs.join("class/net"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let path = entry.path();
            if !path.join("device").exists() {
                return None;
            }
            // ARPHRD_ETHER; anything else has addresses of another shape.
            if read(&path, "type").is_some_and(|t| t != "1") {
                return None;
            }
            let mac: Mac = read(&path, "address")?.parse().ok()?;
            mac.is_unicast().then_some(Card { name, mac })
        })
        .collect();
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards
}

/// The card with this address.
pub fn find(sysfs: &Path, mac: Mac) -> Option<Card> {
    list(sysfs).into_iter().find(|card| card.mac == mac)
}

/// Whether a carrier is there; `None` while the interface is down.
pub fn carrier(sysfs: &Path, name: &str) -> Option<bool> {
    read(&sysfs.join("class/net").join(name), "carrier").map(|c| c == "1")
}

fn read(dir: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned())
}
