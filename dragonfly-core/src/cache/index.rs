//! Finding machines by what they have, however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use uuid::Uuid;

use super::search::Texts;
use crate::Mac;
use crate::resource::Hardware;
use crate::resource::hardware::Anchors;

/// Which machines have something, by name.
type Index<K> = HashMap<K, BTreeSet<String>>;

/// Look-ups that follow the machines of a cache.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// Of `spec.macs` and `status.proven.macs`.
    pub(super) macs: Index<Mac>,
    /// Of `spec.displayName`, in lower case.
    pub(super) display_names: Index<String>,
    /// Of `spec.dhcp.address`.
    pub(super) reservations: Index<IpAddr>,
    /// Of `status.proven`: a serial number tells something within a product only.
    serials: Index<(String, Option<String>)>,
    /// Of `spec.serial`.
    expected: Index<String>,
    uuids: Index<Uuid>,
    /// Of `metadata.labels`.
    labels: Index<(String, String)>,
    /// Those that nobody has claimed.
    pub(super) unclaimed: HashSet<String>,
    /// What people search.
    pub(super) texts: Texts,
}

impl Machines {
    /// Takes a machine as it was out of every look-up.
    pub(super) fn forget(&mut self, name: &str, machine: &Hardware) {
        self.texts.forget(name);
        self.unclaimed.remove(name);
        for mac in macs(machine) {
            take_out(&mut self.macs, &mac, name);
        }
        take_out(&mut self.display_names, &machine.spec.display_name.to_lowercase(), name);
        if let Some(reservation) = &machine.spec.dhcp {
            take_out(&mut self.reservations, &reservation.address, name);
        }
        if let Some(serial) = &machine.spec.serial {
            take_out(&mut self.expected, serial, name);
        }
        for label in labels(machine) {
            take_out(&mut self.labels, &label, name);
        }
        let Some(anchors) = &machine.status.proven else { return };
        if let Some(serial) = serial(anchors) {
            take_out(&mut self.serials, &serial, name);
        }
        if let Some(uuid) = &anchors.smbios_uuid {
            take_out(&mut self.uuids, uuid, name);
        }
    }

    /// Puts a machine as it is now into every look-up.
    pub(super) fn learn(&mut self, name: &str, machine: &Hardware) {
        self.texts.learn(name, machine);
        if machine.is_unclaimed() {
            self.unclaimed.insert(name.to_owned());
        }
        for mac in macs(machine) {
            put_in(&mut self.macs, mac, name);
        }
        if !machine.spec.display_name.is_empty() {
            put_in(&mut self.display_names, machine.spec.display_name.to_lowercase(), name);
        }
        if let Some(reservation) = &machine.spec.dhcp {
            put_in(&mut self.reservations, reservation.address, name);
        }
        if let Some(serial) = &machine.spec.serial {
            put_in(&mut self.expected, serial.clone(), name);
        }
        for label in labels(machine) {
            put_in(&mut self.labels, label, name);
        }
        let Some(anchors) = &machine.status.proven else { return };
        if let Some(serial) = serial(anchors) {
            put_in(&mut self.serials, serial, name);
        }
        if let Some(uuid) = anchors.smbios_uuid {
            put_in(&mut self.uuids, uuid, name);
        }
    }

    /// The names of all that have one of these labels, that which the fewest have; `None` without any label.
    pub(super) fn labelled(&self, wanted: &BTreeMap<String, String>) -> Option<&BTreeSet<String>> {
        const NONE: &BTreeSet<String> = &BTreeSet::new();
        let with = |(key, value): (&String, &String)| self.labels.get(&(key.clone(), value.clone())).unwrap_or(NONE);
        wanted.iter().map(with).min_by_key(|names| names.len())
    }

    /// The names of all that have any of these anchors.
    pub(super) fn alike(&self, anchors: &Anchors) -> BTreeSet<&str> {
        let by_mac = anchors.macs.iter().filter_map(|mac| self.macs.get(mac));
        let few = |names: &&BTreeSet<String>| names.len() <= SHARED;
        let by_serial = serial(anchors).and_then(|serial| self.serials.get(&serial)).filter(few);
        let by_expected = anchors.serial.as_ref().and_then(|serial| self.expected.get(serial));
        let by_uuid = anchors.smbios_uuid.and_then(|uuid| self.uuids.get(&uuid)).filter(few);
        by_mac.chain(by_serial).chain(by_expected).chain(by_uuid).flatten().map(String::as_str).collect()
    }
}

/// How many machines a board's number may stand on and still be looked up: what stands on more tells nothing of any.
const SHARED: usize = 4;

fn macs(machine: &Hardware) -> BTreeSet<Mac> {
    let proven = machine.status.proven.iter().flat_map(|anchors| anchors.macs.iter());
    machine.spec.macs.iter().chain(proven).copied().collect()
}

fn labels(machine: &Hardware) -> impl Iterator<Item = (String, String)> {
    machine.metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone()))
}

fn serial(anchors: &Anchors) -> Option<(String, Option<String>)> {
    anchors.serial.clone().map(|serial| (serial, anchors.product.clone()))
}

fn put_in<K: Hash + Eq>(index: &mut Index<K>, key: K, name: &str) {
    index.entry(key).or_default().insert(name.to_owned());
}

fn take_out<K: Hash + Eq>(index: &mut Index<K>, key: &K, name: &str) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}
