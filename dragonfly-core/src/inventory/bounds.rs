//! How much of what an agent saw is kept: it is a stranger's word, and lasts as long as the machine's record.

use serde::Serialize;

use super::Inventory;
use crate::text;

/// The longest text, in bytes.
const TEXT: usize = 512;
/// The most of each list: some times what the largest machines have.
pub(super) const DISKS: usize = 256;
pub(super) const SIGNATURES: usize = 16;
pub(super) const NICS: usize = 256;
pub(super) const ADDRESSES: usize = 64;
pub(super) const PCI: usize = 1024;
pub(super) const MODULES: usize = 512;
pub(super) const ROUTES: usize = 64;
/// A controller has 63 at most.
pub(super) const USERS: usize = 64;

impl Inventory {
    /// The same with harmless texts and bounded lists, at most `most` bytes as JSON; and what was left out for it. PCI
    /// devices go first, for no plan looks at them; then the list that takes the most loses, from its end.
    pub(crate) fn bounded(mut self, most: usize) -> (Self, Option<String>) {
        let (before, are_more) = (self.counts(), self.are_more());
        self.cut_lists();
        let mut kept = text::tidy(&self, TEXT, text::harmless);
        drop(self);
        kept.cut_to(most);
        let all = before.into_iter().zip(kept.counts()).zip(are_more);
        let lost = all.filter(|(((_, before), (_, now)), _)| before > now);
        let lost: Vec<String> = lost
            .map(|(((what, of), (_, now)), are_more)| {
                // How many there were is not known where not all were read.
                if are_more { format!("all but {now} {what}") } else { format!("{} of {of} {what}", of - now) }
            })
            .collect();
        (kept, (!lost.is_empty()).then(|| lost.join(", ")))
    }

    /// Which lists are longer than they may be, in the order of [`counts`](Self::counts).
    fn are_more(&self) -> [bool; 8] {
        let (disks, nics) = (self.disks.len() > DISKS, self.nics.len() > NICS);
        [
            disks,
            disks || self.disks.iter().any(|disk| disk.signatures.len() > SIGNATURES),
            nics,
            nics || self.nics.iter().any(|nic| nic.addresses.len() > ADDRESSES),
            self.pci.len() > PCI,
            self.memory.modules.len() > MODULES,
            self.routes.len() > ROUTES,
            self.bmc.as_ref().is_some_and(|bmc| bmc.users.len() > USERS),
        ]
    }

    fn cut_lists(&mut self) {
        self.disks.truncate(DISKS);
        self.disks.iter_mut().for_each(|disk| disk.signatures.truncate(SIGNATURES));
        self.nics.truncate(NICS);
        self.nics.iter_mut().for_each(|nic| nic.addresses.truncate(ADDRESSES));
        self.pci.truncate(PCI);
        self.memory.modules.truncate(MODULES);
        self.routes.truncate(ROUTES);
        if let Some(bmc) = &mut self.bmc {
            bmc.users.truncate(USERS);
        }
    }

    fn cut_to(&mut self, most: usize) {
        let mut whole = bytes(&*self);
        if whole <= most {
            return;
        }
        let users = self.bmc.as_ref().map(|bmc| bmc.users.as_slice()).unwrap_or_default();
        let mut pci = List::of(&self.pci);
        while whole > most
            && let Some(last) = pci.items.pop()
        {
            whole -= last;
        }
        let mut lists = [
            List::of(&self.disks),
            List::of(&self.nics),
            List::of(&self.memory.modules),
            List::of(&self.routes),
            List::of(users),
        ];
        while whole > most
            && let Some(largest) = lists.iter_mut().max_by_key(|list| list.sum)
            && let Some(last) = largest.items.pop()
        {
            largest.sum -= last;
            whole -= last;
        }
        let [disks, nics, modules, routes, users] = lists.map(|list| list.items.len());
        self.disks.truncate(disks);
        self.nics.truncate(nics);
        self.pci.truncate(pci.items.len());
        self.memory.modules.truncate(modules);
        self.routes.truncate(routes);
        if let Some(bmc) = &mut self.bmc {
            bmc.users.truncate(users);
        }
    }

    fn counts(&self) -> [(&'static str, usize); 8] {
        [
            ("disks", self.disks.len()),
            ("signatures on disks", self.disks.iter().map(|disk| disk.signatures.len()).sum()),
            ("network cards", self.nics.len()),
            ("addresses of network cards", self.nics.iter().map(|nic| nic.addresses.len()).sum()),
            ("PCI devices", self.pci.len()),
            ("memory modules", self.memory.modules.len()),
            ("routes", self.routes.len()),
            ("users of its controller", self.bmc.as_ref().map_or(0, |bmc| bmc.users.len())),
        ]
    }
}

/// What each item of a list takes as JSON.
struct List {
    items: Vec<usize>,
    sum: usize,
}

impl List {
    fn of<T: Serialize>(items: &[T]) -> Self {
        // A comma stands between two: of one alone there is none, which is a byte too much.
        let items: Vec<usize> = items.iter().map(bytes).collect();
        Self { sum: items.iter().sum(), items }
    }
}

fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::super::{BmcSeen, BmcUser, Bytes, Disk, MemoryModule, Nic, PciDevice, Route};
    use super::*;
    use crate::Mac;

    fn disk(signatures: usize, text: usize) -> Disk {
        let word = || Some("x".repeat(text));
        Disk {
            name: "sda".into(),
            size: Bytes(1 << 40),
            sector: Some(512),
            model: word(),
            serial: word(),
            wwn: None,
            bus: None,
            rotational: None,
            removable: None,
            wear_percent: None,
            blank: None,
            signatures: vec!["gpt".into(); signatures],
        }
    }

    fn nic(addresses: usize) -> Nic {
        let addresses = vec!["10.0.0.1/24".into(); addresses];
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        Nic { name: "eth0".into(), mac, driver: None, link: None, speed: None, addresses, lldp: None }
    }

    fn pci(text: usize) -> PciDevice {
        PciDevice {
            address: "0000:00:02.0".into(),
            id: "10de:2330".into(),
            class: "0302".into(),
            driver: Some("\"".repeat(text)),
        }
    }

    fn module() -> MemoryModule {
        MemoryModule {
            locator: "DIMM 0".into(),
            size: Bytes(1 << 35),
            speed_mts: None,
            manufacturer: None,
            part_number: None,
            serial: None,
        }
    }

    fn everything(n: usize) -> Inventory {
        let mut all = Inventory {
            disks: vec![disk(n, 4); n],
            nics: vec![nic(n); n],
            pci: vec![pci(4); n],
            routes: vec![Route { via: [10, 0, 0, 1].into(), interface: "eth0".into() }; n],
            bmc: Some(BmcSeen {
                users: vec![BmcUser { slot: 1, name: None, enabled: None, privilege: None }; n],
                ..BmcSeen::default()
            }),
            ..Inventory::default()
        };
        all.memory.modules = vec![module(); n];
        all
    }

    #[test]
    fn every_list_is_bounded_and_what_is_left_out_is_told() {
        const LARGE: usize = 1 << 30;
        let disks = |disks| Inventory { disks, ..Inventory::default() };
        let table: [(Inventory, usize, Option<&str>); 9] = [
            (Inventory::default(), LARGE, None),
            (everything(16), LARGE, None),
            (disks(vec![disk(1, 9); 256]), LARGE, None),
            (disks(vec![disk(1, 9); 300]), LARGE, Some("all but 256 disks, all but 256 signatures on disks")),
            (disks(vec![disk(20, 9); 2]), LARGE, Some("all but 32 signatures on disks")),
            (
                everything(1025),
                LARGE,
                Some(
                    "all but 256 disks, all but 4096 signatures on disks, all but 256 network cards, all but 16384 \
                     addresses of network cards, all but 1024 PCI devices, all but 512 memory modules, all but 64 \
                     routes, all but 64 users of its controller",
                ),
            ),
            // No plan looks at PCI devices; then what takes the most loses.
            (
                Inventory { pci: vec![pci(4); 9], ..disks(vec![disk(1, 500); 30]) },
                32 << 10,
                Some("1 of 30 disks, 1 of 30 signatures on disks, 9 of 9 PCI devices"),
            ),
            (
                Inventory { pci: vec![pci(500); 200], nics: vec![nic(2); 4], ..disks(vec![disk(1, 20); 24]) },
                128 << 10,
                Some("82 of 200 PCI devices"),
            ),
            (disks(vec![disk(0, 5000); 100]), 32 << 10, Some("71 of 100 disks")),
        ];
        for (given, most, lost) in table {
            // What is read of a message is cut while it is read; the same is told of it.
            let read: Inventory = serde_json::from_slice(&serde_json::to_vec(&given).unwrap()).unwrap();
            let ((kept, told), of_read) = (given.clone().bounded(most), read.bounded(most));
            assert_eq!((&kept, &told), (&of_read.0, &of_read.1));
            assert_eq!(told.as_deref(), lost);
            assert!(bytes(&kept) <= most);
            assert!(lost.is_some() || kept == given);
        }
    }

    #[test]
    fn no_more_than_is_kept_is_read() {
        let mut given = Inventory { pci: vec![pci(4); 1100], ..everything(300) };
        given.memory.modules = vec![module(); 600];
        let read: Inventory = serde_json::from_slice(&serde_json::to_vec(&given).unwrap()).unwrap();
        let lists = [&read.disks.len(), &read.nics.len(), &read.pci.len(), &read.memory.modules.len()];
        assert_eq!(lists, [&257, &257, &1025, &513]);
        assert_eq!((read.routes.len(), read.bmc.unwrap().users.len()), (65, 65));
        assert!(read.disks.iter().all(|disk| disk.signatures.len() == 17));
        assert!(read.nics.iter().all(|nic| nic.addresses.len() == 65));
    }

    #[test]
    fn what_is_in_no_list_fits_by_itself() {
        let long = || Some("\"".repeat(10_000));
        let mut given = everything(300);
        given.system.vendor = long();
        given.system.product = long();
        given.system.serial = long();
        given.system.board_serial = long();
        given.system.bios = long();
        given.cpu.model = long();
        given.cpu.arch = long();
        given.tpm = long();
        given.hypervisor = long();
        given.boot_interface = long();
        let (kept, _) = given.bounded(32 << 10);
        assert!(bytes(&kept) <= 32 << 10);
        assert!(!kept.disks.is_empty() && !kept.nics.is_empty(), "something of each is kept");
    }
}
