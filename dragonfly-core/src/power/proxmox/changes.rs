//! What has become of machines, by what a cluster says now.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::discovery::{Found, Snapshot};
use crate::Mac;

/// Which VM a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The cluster's name.
    pub cluster: String,
    /// Its number there.
    pub vmid: u32,
    /// The node that it was on.
    pub node: String,
    /// Its SMBIOS UUID, when that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Its name there.
    pub name: String,
}

/// A machine that is known already: a VM of this or another cluster, or anything else with a MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// By what the caller knows it; comes back in [`Change`].
    pub machine: String,
    /// Its MACs.
    pub macs: Vec<Mac>,
    /// The VM that it is, if that is known.
    pub place: Option<Place>,
}

/// What has changed. `machine` is the caller's word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A VM that is none of the known machines.
    Appeared {
        /// The VM.
        found: Found,
    },
    /// A known machine turns out to be this VM: one of its MACs says so. It may have had another number before, as
    /// after a restore, or none.
    Recognised {
        /// The machine.
        machine: String,
        /// The VM.
        found: Found,
    },
    /// It is on another node.
    Moved {
        /// The machine.
        machine: String,
        /// The node that it was on.
        from: String,
        /// The node that it is on.
        to: String,
    },
    /// It has another name.
    Renamed {
        /// The machine.
        machine: String,
        /// Its name.
        to: String,
    },
    /// Its network cards have other MACs.
    MacsChanged {
        /// The machine.
        machine: String,
        /// What they are now.
        to: Vec<Mac>,
    },
    /// A second VM has a known machine's MAC, as a copy of it may: it is nobody until one of them has another.
    Doubled {
        /// The machine.
        machine: String,
        /// The MAC that both have.
        mac: Mac,
        /// The second VM.
        found: Found,
    },
    /// The VM does not exist any more.
    Gone {
        /// The machine.
        machine: String,
    },
}

/// What has become of `before`, in the order of the VMs' numbers, and what has gone at the end.
///
/// A VM is the one that it was by cluster and number, unless its UUID says that the number was given to another; and
/// it is the machine that one of its MACs belongs to. What a snapshot does not know (a configuration that could not be
/// read, a list with [`gaps`](Snapshot::gaps)) changes nothing, and a VM that was on a node which is offline is not
/// gone. Templates are no machines.
pub fn changes(before: &[Known], now: &Snapshot) -> Vec<Change> {
    let owners = owners(before);
    // Which machine each VM is, by number first: it must not be taken for another by a MAC that was moved.
    let found: BTreeMap<u32, &Found> = now.machines.iter().map(|found| (found.vmid, found)).collect();
    let mut is: BTreeMap<u32, &Known> = BTreeMap::new();
    for known in before {
        let place = known.place.as_ref().filter(|place| place.cluster == now.cluster);
        if let Some(found) = place.and_then(|place| found.get(&place.vmid))
            && is_same(known, found)
        {
            is.insert(found.vmid, known);
        }
    }
    let mut taken: BTreeSet<&str> = is.values().map(|known| &*known.machine).collect();
    let mut changes = Vec::new();
    for found in &now.machines {
        if let Some(known) = is.get(&found.vmid) {
            changes.extend(compared(known, found));
            continue;
        }
        if found.template {
            continue;
        }
        match found.macs.iter().find_map(|mac| Some((*mac, *owners.get(mac)?))) {
            Some((mac, known)) if taken.contains(&*known.machine) => {
                changes.push(Change::Doubled { machine: known.machine.clone(), mac, found: found.clone() });
            }
            Some((_, known)) => {
                taken.insert(&known.machine);
                changes.push(Change::Recognised { machine: known.machine.clone(), found: found.clone() });
                if has_other_macs(known, found) {
                    changes.push(Change::MacsChanged { machine: known.machine.clone(), to: found.macs.clone() });
                }
            }
            // Whose MACs are not known may be anybody.
            None if found.trouble.is_some() => {}
            None => changes.push(Change::Appeared { found: found.clone() }),
        }
    }
    let gone = before.iter().filter(|known| !taken.contains(&*known.machine) && is_gone(known, now));
    changes.extend(gone.map(|known| Change::Gone { machine: known.machine.clone() }));
    changes
}

fn owners(before: &[Known]) -> BTreeMap<Mac, &Known> {
    let mut owners = BTreeMap::new();
    for known in before {
        for mac in &known.macs {
            owners.entry(*mac).or_insert(known);
        }
    }
    owners
}

/// Whether the VM with a machine's number is that machine still.
fn is_same(known: &Known, found: &Found) -> bool {
    let was = known.place.as_ref().and_then(|place| place.uuid);
    match (was, found.uuid) {
        (Some(was), Some(is)) if was != is => known.macs.iter().any(|mac| found.macs.contains(mac)),
        _ => true,
    }
}

fn compared(known: &Known, found: &Found) -> Vec<Change> {
    let machine = || known.machine.clone();
    let mut changes = Vec::new();
    let Some(place) = &known.place else { return changes };
    if place.node != found.node {
        changes.push(Change::Moved { machine: machine(), from: place.node.clone(), to: found.node.clone() });
    }
    // While its node is offline a VM has no name.
    if !found.name.is_empty() && place.name != found.name {
        changes.push(Change::Renamed { machine: machine(), to: found.name.clone() });
    }
    if has_other_macs(known, found) {
        changes.push(Change::MacsChanged { machine: machine(), to: found.macs.clone() });
    }
    changes
}

/// In whatever order.
fn has_other_macs(known: &Known, found: &Found) -> bool {
    let set = |macs: &[Mac]| macs.iter().copied().collect::<BTreeSet<_>>();
    found.trouble.is_none() && set(&known.macs) != set(&found.macs)
}

fn is_gone(known: &Known, now: &Snapshot) -> bool {
    let Some(place) = known.place.as_ref().filter(|place| place.cluster == now.cluster) else { return false };
    let is_offline = now.nodes.iter().any(|node| node.name == place.node && !node.online);
    // One with the same number that is not the same: only its UUID can say so, and then it was read.
    now.is_whole() && !is_offline
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;

    fn mac(last: u8) -> Mac {
        Mac::new([0xbc, 0x24, 0x11, 0, 0, last])
    }

    /// VM `vmid` on pve1, whose name, MAC and UUID follow from its number.
    fn vm(vmid: u32) -> Found {
        Found {
            vmid,
            name: format!("vm{vmid}"),
            node: "pve1".to_owned(),
            cluster: "lab".to_owned(),
            macs: vec![mac(vmid as u8)],
            uuid: Some(Uuid::from_u128(vmid.into())),
            state: None,
            tags: vec![],
            template: false,
            adopted: false,
            trouble: None,
        }
    }

    fn known(vmid: u32) -> Known {
        let Found { cluster, node, uuid, name, macs, .. } = vm(vmid);
        Known { machine: format!("m{vmid}"), macs, place: Some(Place { cluster, vmid, node, uuid, name }) }
    }

    fn snapshot(machines: Vec<Found>) -> Snapshot {
        let node = |name: &str| Node { name: name.to_owned(), online: true };
        Snapshot { cluster: "lab".to_owned(), nodes: vec![node("pve1"), node("pve2")], machines, gaps: vec![] }
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| match change {
            Change::Appeared { found } => format!("appeared {}", found.vmid),
            Change::Recognised { machine, found } => format!("{machine} is {}", found.vmid),
            Change::Moved { machine, from, to } => format!("{machine} moved {from} {to}"),
            Change::Renamed { machine, to } => format!("{machine} renamed {to}"),
            Change::MacsChanged { machine, to } => format!("{machine} macs {}", to.len()),
            Change::Doubled { machine, mac, found } => format!("{machine} {mac} also {}", found.vmid),
            Change::Gone { machine } => format!("{machine} gone"),
        };
        changes.iter().map(word).collect()
    }

    #[test]
    fn one_change_at_a_time() {
        let at = |change: fn(&mut Found)| {
            let mut found = vm(101);
            change(&mut found);
            found
        };
        let metal = Known { machine: "metal".to_owned(), macs: vec![mac(7), mac(8)], place: None };
        let elsewhere = {
            let mut known = known(101);
            known.place.as_mut().unwrap().cluster = "other".to_owned();
            known.macs = vec![mac(99)];
            known
        };
        let table: Vec<(&str, Vec<Known>, Vec<Found>, Vec<&str>)> = vec![
            ("nothing", vec![known(101)], vec![vm(101)], vec![]),
            ("new", vec![known(101)], vec![vm(101), vm(102)], vec!["appeared 102"]),
            ("gone", vec![known(101), known(102)], vec![vm(102)], vec!["m101 gone"]),
            ("moved", vec![known(101)], vec![at(|f| f.node = "pve2".into())], vec!["m101 moved pve1 pve2"]),
            ("renamed", vec![known(101)], vec![at(|f| f.name = "web".into())], vec!["m101 renamed web"]),
            ("no name", vec![known(101)], vec![at(|f| f.name.clear())], vec![]),
            ("a card more", vec![known(101)], vec![at(|f| f.macs.push(mac(1)))], vec!["m101 macs 2"]),
            ("another card", vec![known(101)], vec![at(|f| f.macs = vec![mac(1)])], vec!["m101 macs 1"]),
            (
                "number given to another",
                vec![known(101)],
                vec![at(|f| (f.uuid, f.macs) = (Some(Uuid::from_u128(7)), vec![mac(1)]))],
                vec!["appeared 101", "m101 gone"],
            ),
            ("another UUID, its MAC", vec![known(101)], vec![at(|f| f.uuid = Some(Uuid::from_u128(7)))], vec![]),
            (
                "no UUID, another MAC",
                vec![known(101)],
                vec![at(|f| (f.uuid, f.macs) = (None, vec![mac(1)]))],
                vec!["m101 macs 1"],
            ),
            (
                "not to be read",
                vec![known(101)],
                vec![at(|f| (f.uuid, f.macs, f.trouble) = (None, vec![], Some("no".into())))],
                vec![],
            ),
            ("new, not to be read", vec![], vec![at(|f| (f.macs, f.trouble) = (vec![], Some("no".into())))], vec![]),
            (
                "restored under another number",
                vec![known(101)],
                vec![Found { vmid: 205, ..vm(101) }],
                vec!["m101 is 205"],
            ),
            (
                "copied, MAC and all",
                vec![known(101)],
                vec![vm(101), Found { vmid: 205, ..vm(101) }],
                vec!["m101 bc:24:11:00:00:65 also 205"],
            ),
            (
                "copied, lower number",
                vec![known(101)],
                vec![Found { vmid: 100, ..vm(101) }, vm(101)],
                vec!["m101 bc:24:11:00:00:65 also 100"],
            ),
            (
                "the MACs of two",
                vec![known(101), known(102)],
                vec![Found { macs: vec![mac(102)], ..vm(101) }, Found { macs: vec![mac(101)], ..vm(102) }],
                vec!["m101 macs 1", "m102 macs 1"],
            ),
            (
                "known by its MAC",
                vec![metal.clone()],
                vec![at(|f| f.macs = vec![mac(8)])],
                vec!["metal is 101", "metal macs 1"],
            ),
            (
                "known by its MAC, all of them",
                vec![metal.clone()],
                vec![at(|f| f.macs = vec![mac(8), mac(7)])],
                vec!["metal is 101"],
            ),
            (
                "two with its MACs",
                vec![metal.clone()],
                vec![at(|f| f.macs = vec![mac(7)]), Found { macs: vec![mac(8)], ..vm(102) }],
                vec!["metal is 101", "metal macs 1", "metal bc:24:11:00:00:08 also 102"],
            ),
            ("metal is never gone", vec![metal], vec![], vec![]),
            ("another cluster's", vec![elsewhere], vec![vm(101)], vec!["appeared 101"]),
            ("template", vec![], vec![at(|f| f.template = true)], vec![]),
            ("made a template", vec![known(101)], vec![at(|f| f.template = true)], vec![]),
            ("everything", vec![], vec![], vec![]),
        ];
        for (name, before, now, wanted) in table {
            assert_eq!(words(&changes(&before, &snapshot(now))), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_not_seen_is_not_gone() {
        let before = [known(101), known(102)];
        let whole = snapshot(vec![]);
        assert_eq!(words(&changes(&before, &whole)), ["m101 gone", "m102 gone"]);
        let gap = Snapshot { gaps: vec!["no quorum".to_owned()], ..whole.clone() };
        assert_eq!(changes(&before, &gap), []);
        let mut offline = whole.clone();
        offline.nodes[0].online = false;
        assert_eq!(changes(&before, &offline), []);
        let mut other = whole;
        other.nodes[1].online = false;
        assert_eq!(changes(&before, &other).len(), 2, "they were on a node that is there");
    }

    #[test]
    fn what_was_told_is_told_once() {
        let now = snapshot(vec![vm(101), Found { vmid: 205, ..vm(102) }, Found { node: "pve2".into(), ..vm(103) }]);
        let mut known = vec![known(102), known(103), known(104)];
        for change in changes(&known, &now) {
            match change {
                Change::Appeared { found } | Change::Recognised { found, .. } => {
                    let Found { cluster, vmid, node, uuid, name, macs, .. } = found;
                    known.retain(|known| !known.macs.iter().any(|mac| macs.contains(mac)));
                    let place = Some(Place { cluster, vmid, node, uuid, name });
                    known.push(Known { machine: format!("n{vmid}"), macs, place });
                }
                Change::Moved { machine, to, .. } => {
                    let one = known.iter_mut().find(|known| known.machine == machine);
                    one.unwrap().place.as_mut().unwrap().node = to;
                }
                Change::Gone { machine } => known.retain(|known| known.machine != machine),
                change => panic!("{change:?}"),
            }
        }
        assert_eq!(known.len(), 3);
        assert_eq!(changes(&known, &now), []);
    }
}
