//! Where two who looked at one machine saw different things.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Bytes, Inventory};

/// One thing that the controller tells otherwise than the agent saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What: `serial`, `memory`, `disk`, `card`.
    pub what: String,
    /// The controller's word; absent when it does not know the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// The agent's word; absent when it did not see the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Inventory {
    /// Where this, a controller's, differs from what an agent saw. What one of them does not tell is no difference:
    /// parts are compared only where both tell some of their kind by what names them, disks by serial number, cards
    /// by MAC.
    pub fn differences(&self, agent: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut scalar = |what: &str, controller: Option<String>, agent: Option<String>| {
            if let (Some(controller), Some(agent)) = (controller, agent)
                && !same(&controller, &agent)
            {
                found.push(Difference { what: what.to_owned(), controller: Some(controller), agent: Some(agent) });
            }
        };
        let (ours, theirs) = (&self.system, &agent.system);
        scalar("serial", ours.serial.clone(), theirs.serial.clone());
        scalar("uuid", ours.uuid.map(|uuid| uuid.to_string()), theirs.uuid.map(|uuid| uuid.to_string()));
        scalar("firmware", ours.bios.clone(), theirs.bios.clone());
        let count = |count: Option<u32>| count.map(|count| count.to_string());
        scalar("sockets", count(self.cpu.sockets), count(agent.cpu.sockets));
        scalar("cores", count(self.cpu.cores), count(agent.cpu.cores));
        if let (Some(ours), Some(theirs)) = (self.memory.total, agent.memory.total)
            && !is_about(ours, theirs)
        {
            scalar("memory", Some(format!("{} MiB", ours.0 >> 20)), Some(format!("{} MiB", theirs.0 >> 20)));
        }
        let serials = |of: &Self| of.disks.iter().filter_map(|disk| disk.serial.clone()).collect();
        found.extend(parts("disk", &serials(self), &serials(agent)));
        let macs = |of: &Self| of.nics.iter().map(|nic| nic.mac.to_string()).collect();
        found.extend(parts("card", &macs(self), &macs(agent)));
        found
    }
}

/// Makers pad what they write, and not always in one case.
fn same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// An operating system does not see what its firmware keeps for itself: up to a sixteenth.
fn is_about(controller: Bytes, agent: Bytes) -> bool {
    let (most, least) = (controller.0.max(agent.0), controller.0.min(agent.0));
    most - least <= most / 16
}

/// Parts that one of two knows and the other does not, where both know some.
fn parts(what: &str, controller: &BTreeSet<String>, agent: &BTreeSet<String>) -> Vec<Difference> {
    if controller.is_empty() || agent.is_empty() {
        return Vec::new();
    }
    let has = |all: &BTreeSet<String>, one: &str| all.iter().any(|other| same(one, other));
    let missing = controller.iter().filter(|one| !has(agent, one));
    let missing = missing.map(|one| Difference { what: what.to_owned(), controller: Some(one.clone()), agent: None });
    let more = agent.iter().filter(|one| !has(controller, one));
    let more = more.map(|one| Difference { what: what.to_owned(), controller: None, agent: Some(one.clone()) });
    missing.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Disk, Nic};

    fn disk(serial: Option<&str>) -> Disk {
        let disk = serde_json::json!({ "name": "x", "size": 1, "serial": serial });
        serde_json::from_value(disk).unwrap()
    }

    fn card(mac: &str) -> Nic {
        serde_json::from_value(serde_json::json!({ "name": "x", "mac": mac })).unwrap()
    }

    fn words(controller: &Inventory, agent: &Inventory) -> Vec<String> {
        let word = |one: Option<String>| one.unwrap_or_else(|| "-".to_owned());
        let all = controller.differences(agent);
        all.into_iter().map(|d| format!("{} {} {}", d.what, word(d.controller), word(d.agent))).collect()
    }

    #[test]
    fn what_one_does_not_tell_is_no_difference() {
        let mut agent = Inventory::default();
        agent.system.serial = Some("SN1".to_owned());
        agent.memory.total = Some(Bytes(1 << 34));
        agent.disks = vec![disk(Some("D1")), disk(None)];
        agent.nics = vec![card("52:54:00:00:00:01")];
        assert_eq!(words(&Inventory::default(), &agent), [""; 0]);
        assert_eq!(words(&agent, &Inventory::default()), [""; 0]);
        assert_eq!(words(&agent, &agent), [""; 0]);
    }

    #[test]
    fn what_differs_is_named_on_both_sides() {
        let (mut controller, mut agent) = (Inventory::default(), Inventory::default());
        (controller.system.serial, agent.system.serial) = (Some("SN1 ".into()), Some("sn1".into()));
        (controller.system.bios, agent.system.bios) = (Some("1.2".into()), Some("1.3".into()));
        (controller.cpu.sockets, agent.cpu.sockets) = (Some(2), Some(1));
        // Firmware keeps some; half a module less is a module that is not seen.
        (controller.memory.total, agent.memory.total) = (Some(Bytes(64 << 30)), Some(Bytes(62 << 30)));
        assert_eq!(words(&controller, &agent), ["firmware 1.2 1.3", "sockets 2 1"]);
        agent.memory.total = Some(Bytes(32 << 30));
        controller.disks = vec![disk(Some("D1")), disk(Some("D2"))];
        agent.disks = vec![disk(Some("d1")), disk(Some("D3"))];
        controller.nics = vec![card("52:54:00:00:00:01")];
        agent.nics = vec![card("52:54:00:00:00:01"), card("52:54:00:00:00:02")];
        let found = words(&controller, &agent);
        let want = ["memory 65536 MiB 32768 MiB", "disk D2 -", "disk - D3", "card - 52:54:00:00:00:02"];
        assert_eq!(found[2..], want);
    }
}
