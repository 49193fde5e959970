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
    // By number first: it must not be taken for another by a MAC that was moved.
    let is = identities(before, now);
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

/// Which machine each VM still is, by number.
pub(crate) fn identities<'a>(before: &'a [Known], now: &Snapshot) -> BTreeMap<u32, &'a Known> {
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
    is
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
mod tests;
