//! Which machine each VM is.

use std::collections::{BTreeMap, BTreeSet};

use crate::Mac;
use crate::engine::found::{CLUSTER_LABEL, GONE, NAME_LABEL, NODE_LABEL, VMID_LABEL, Written};
use crate::power::proxmox::{Change, Found, Known, Place, Snapshot, changes, identities};
use crate::resource::{ConditionStatus, Hardware, condition};

/// A machine that is known.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    known: Known,
    is_gone: bool,
}

impl Machine {
    pub(super) fn of(machine: &Hardware) -> Self {
        let label = |key: &str| machine.metadata.labels.get(key).cloned();
        let vmid = label(VMID_LABEL).and_then(|vmid| vmid.parse().ok());
        let place = label(CLUSTER_LABEL).zip(vmid).map(|(cluster, vmid)| Place {
            cluster,
            vmid,
            node: label(NODE_LABEL).unwrap_or_default(),
            uuid: Written::of(machine).uuid,
            name: label(NAME_LABEL).unwrap_or_default(),
        });
        let mut macs = machine.spec.macs.clone();
        macs.extend(machine.status.anchors.iter().flat_map(|anchors| anchors.macs.iter().copied()));
        macs.sort_unstable();
        macs.dedup();
        let is_gone = condition(&machine.status.conditions, GONE).is_some_and(|c| c.status == ConditionStatus::True);
        Self { known: Known { machine: machine.name().to_owned(), macs, place }, is_gone }
    }
}

/// A VM that has what belongs to others, and is nobody for as long as it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Doubled {
    pub(super) vmid: u32,
    pub(super) mac: Mac,
    /// Whose else it is: machines, or a VM that is one since now.
    pub(super) others: Vec<String>,
    /// The machine to tell it of.
    pub(super) machine: String,
}

/// What a snapshot says of machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    /// VMs that are no machines yet.
    pub(super) new: Vec<&'a Found>,
    /// Machines and the VMs that they are.
    pub(super) same: Vec<(String, &'a Found)>,
    /// Machines whose VMs do not exist any more.
    pub(super) gone: Vec<String>,
    pub(super) doubled: Vec<Doubled>,
}

/// `followed` are the clusters that are looked at: a VM of one of them is not taken over by another for its MAC.
pub(super) fn plan<'a>(machines: &[Machine], now: &'a Snapshot, followed: &BTreeSet<String>) -> Plan<'a> {
    let known: Vec<Known> = machines.iter().map(|machine| machine.known.clone()).collect();
    let mut owners: BTreeMap<Mac, Vec<&Machine>> = BTreeMap::new();
    for machine in machines {
        for mac in &machine.known.macs {
            owners.entry(*mac).or_default().push(machine);
        }
    }
    let found: BTreeMap<u32, &Found> = now.machines.iter().map(|found| (found.vmid, found)).collect();
    let gone: BTreeSet<&str> = machines.iter().filter(|one| one.is_gone).map(|one| &*one.known.machine).collect();
    let same = identities(&known, now);
    let mut plan = Plan {
        same: same.iter().filter_map(|(vmid, known)| Some((known.machine.clone(), *found.get(vmid)?))).collect(),
        ..Plan::default()
    };
    // MACs of VMs that become machines now.
    let mut fresh: BTreeMap<Mac, u32> = BTreeMap::new();
    for change in changes(&known, now) {
        match change {
            Change::Appeared { found: Found { vmid, .. } } => {
                let Some(is) = found.get(&vmid) else { continue };
                let taken = is.macs.iter().find_map(|mac| Some((*mac, *fresh.get(mac)?)));
                match taken {
                    Some((mac, other)) => {
                        let others = vec![format!("VM {other}")];
                        plan.doubled.push(Doubled { vmid, mac, others, machine: String::new() });
                    }
                    None => {
                        fresh.extend(is.macs.iter().map(|mac| (*mac, vmid)));
                        plan.new.push(is);
                    }
                }
            }
            Change::Recognised { machine, found: Found { vmid, .. } } => {
                let Some(is) = found.get(&vmid) else { continue };
                match elsewhere(is, &machine, &owners, followed) {
                    Some((mac, others)) => plan.doubled.push(Doubled { vmid, mac, others, machine }),
                    None => plan.same.push((machine, is)),
                }
            }
            Change::Doubled { machine, mac, found } => {
                plan.doubled.push(Doubled { vmid: found.vmid, mac, others: vec![machine.clone()], machine });
            }
            // Told already.
            Change::Gone { machine } if gone.contains(&*machine) => {}
            Change::Gone { machine } => plan.gone.push(machine),
            // What has changed of a VM is read off its machine: a step that was missed is made up for.
            _ => {}
        }
    }
    plan
}

/// Whether a VM that is recognised by its MACs could be somebody else: they belong to several machines, or to one
/// that is a VM of another cluster.
fn elsewhere(
    found: &Found,
    machine: &str,
    owners: &BTreeMap<Mac, Vec<&Machine>>,
    followed: &BTreeSet<String>,
) -> Option<(Mac, Vec<String>)> {
    let all: Vec<(Mac, &Machine)> =
        found.macs.iter().flat_map(|mac| owners.get(mac).into_iter().flatten().map(|owner| (*mac, *owner))).collect();
    let names: BTreeSet<&str> = all.iter().map(|(_, owner)| &*owner.known.machine).collect();
    if names.len() > 1 {
        let mac = all.first()?.0;
        return Some((mac, names.into_iter().map(ToOwned::to_owned).collect()));
    }
    let (mac, owner) = all.first()?;
    let place = owner.known.place.as_ref()?;
    let is_there = place.cluster != found.cluster && followed.contains(&place.cluster) && !owner.is_gone;
    is_there.then(|| (*mac, vec![format!("{machine} (VM {} of cluster {})", place.vmid, place.cluster)]))
}

#[cfg(test)]
mod tests;
