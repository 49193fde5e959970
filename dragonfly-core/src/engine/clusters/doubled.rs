//! Machines that cannot be told from others, because a MAC of theirs is on several VMs.
//!
//! When one of those VMs boots, nobody knows which it is: none of these machines is installed or switched.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Doubled;
use crate::Mac;
use crate::cache::Owner;
use crate::engine::found::{self, DOUBLED};
use crate::engine::{Engine, Result};
use crate::power::proxmox::{Found, Snapshot};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, set_condition};

/// Which machines, and why. `same` are machines and the VMs that they are, `owners` gives the machines that have a MAC.
pub(super) fn ambiguous(
    now: &Snapshot,
    same: &[(String, &Found)],
    doubled: &[Doubled],
    owners: impl Fn(Mac) -> Vec<String>,
) -> BTreeMap<String, String> {
    let mut vms: BTreeMap<Mac, BTreeSet<u32>> = BTreeMap::new();
    // A template never boots.
    for found in now.machines.iter().filter(|found| !found.template) {
        for mac in &found.macs {
            vms.entry(*mac).or_default().insert(found.vmid);
        }
    }
    vms.retain(|_, vmids| vmids.len() > 1);
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (mac, vmids) in &vms {
        let names: Vec<String> = vmids.iter().map(|vmid| format!("VM {vmid}")).collect();
        let why = format!("{} have the MAC {mac}{}", names.join(" and "), seen_in(&now.cluster));
        let theirs = same.iter().filter(|(_, found)| vmids.contains(&found.vmid)).map(|(name, _)| name.clone());
        for machine in theirs.chain(owners(*mac)) {
            all.entry(machine).or_insert_with(|| why.clone());
        }
    }
    for Doubled { vmid, mac, others, machine } in doubled.iter().filter(|one| !vms.contains_key(&one.mac)) {
        let why = format!("VM {vmid} has the MAC {mac}, and so has {}{}", others.join(" and "), seen_in(&now.cluster));
        let named = Some(machine.clone()).filter(|machine| !machine.is_empty());
        for machine in owners(*mac).into_iter().chain(named) {
            all.entry(machine).or_insert_with(|| why.clone());
        }
    }
    all
}

/// The end of what a cluster says, by which it knows its own words again.
fn seen_in(cluster: &str) -> String {
    format!(" (seen in Proxmox cluster {cluster})")
}

/// Whether a machine is marked for what this cluster says.
pub(super) fn is_marked(machine: &Hardware, cluster: &str) -> bool {
    found::doubled(machine).is_some_and(|why| why.ends_with(&seen_in(cluster)))
}

impl Engine {
    /// Marks those that cannot be told apart now, and takes the mark from those that can again.
    pub(super) async fn mark_doubled(
        &self,
        now: &Snapshot,
        same: &[(String, &Found)],
        doubled: &[Doubled],
        marked: &[String],
    ) -> Result<()> {
        let owners = |mac| match self.inner.cache.by_mac(mac) {
            Owner::Nobody => Vec::new(),
            Owner::One(machine) => vec![machine.name().to_owned()],
            Owner::Several(names) => names,
        };
        let all = ambiguous(now, same, doubled, owners);
        for (machine, why) in &all {
            self.mark(machine, &now.cluster, ConditionStatus::True, why).await?;
        }
        // What is not seen may still be there.
        for machine in marked.iter().filter(|machine| now.is_whole() && !all.contains_key(*machine)) {
            let words = format!("each of its MACs is on one VM{}", seen_in(&now.cluster));
            self.mark(machine, &now.cluster, ConditionStatus::False, &words).await?;
        }
        Ok(())
    }

    async fn mark(&self, machine: &str, cluster: &str, status: ConditionStatus, words: &str) -> Result<()> {
        let is_on = status == ConditionStatus::True;
        let is_so = |machine: &Hardware| match found::doubled(machine) {
            // Another cluster's word stands until that one takes it back.
            Some(why) => is_on && (why == words || !is_marked(machine, cluster)),
            None => !is_on,
        };
        let Some(object) = self.inner.cache.get::<HardwareSpec>(machine) else { return Ok(()) };
        if is_so(&object) {
            return Ok(());
        }
        let now = self.now();
        let _guard = self.lock(machine).await;
        let (_, changed) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let changed = !is_so(m);
                let reason = if is_on { "SeveralVms" } else { "OneVm" };
                if changed {
                    set_condition(&mut m.status.conditions, DOUBLED, status, reason, words, now);
                }
                Ok(changed)
            })
            .await?;
        if changed {
            let (kind, end) = if is_on {
                ("machine.doubled", ": it is neither installed nor switched until one of them has another")
            } else {
                ("machine.distinct", "")
            };
            self.tell(kind, machine, None, format!("{words}{end}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit::tests::found;
    use super::*;

    fn mac(n: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, n])
    }

    fn snapshot(vms: &[(u32, &[u8])]) -> Snapshot {
        let vm = |(vmid, macs): &(u32, &[u8])| {
            let macs = macs.iter().map(|n| mac(*n)).collect();
            Found { macs, ..found(*vmid, 0) }
        };
        Snapshot { cluster: "lab".into(), nodes: vec![], machines: vms.iter().map(vm).collect(), gaps: vec![] }
    }

    fn told(now: &Snapshot, same: &[(&str, u32)], doubled: &[Doubled], owners: &[(u8, &str)]) -> Vec<String> {
        let found = |vmid: u32| now.machines.iter().find(|found| found.vmid == vmid).unwrap();
        let same: Vec<_> = same.iter().map(|(name, vmid)| ((*name).to_owned(), found(*vmid))).collect();
        let owners =
            |of: Mac| owners.iter().filter(|(n, _)| mac(*n) == of).map(|(_, name)| (*name).to_owned()).collect();
        ambiguous(now, &same, doubled, owners).into_iter().map(|(machine, why)| format!("{machine}: {why}")).collect()
    }

    #[test]
    fn machines_that_share_a_mac_are_all_named() {
        // Each VM has its own: nothing.
        let now = snapshot(&[(101, &[1]), (102, &[2])]);
        assert_eq!(told(&now, &[("a", 101), ("b", 102)], &[], &[(1, "a"), (2, "b")]), [""; 0]);
        // A copy that is no machine; both are machines; and a second card that is another's first.
        let why = "VM 101 and VM 102 have the MAC 02:00:00:00:00:01 (seen in Proxmox cluster lab)";
        let now = snapshot(&[(101, &[1]), (102, &[1])]);
        assert_eq!(told(&now, &[("a", 101)], &[], &[(1, "a")]), [format!("a: {why}")]);
        let both = [format!("a: {why}"), format!("b: {why}")];
        assert_eq!(told(&now, &[("a", 101), ("b", 102)], &[], &[(1, "a")]), both);
        let now = snapshot(&[(101, &[1]), (102, &[2, 1]), (103, &[3])]);
        assert_eq!(told(&now, &[("a", 101), ("b", 102), ("c", 103)], &[], &[(1, "a"), (2, "b"), (3, "c")]), both);
        // A machine of another kind has it too.
        let three = told(&snapshot(&[(101, &[1]), (102, &[1])]), &[("a", 101)], &[], &[(1, "a"), (1, "metal")]);
        assert_eq!(three.len(), 2);
    }

    #[test]
    fn what_is_elsewhere_too_is_said_with_where() {
        let now = snapshot(&[(101, &[1])]);
        let others = vec!["x (VM 7 of cluster far)".to_owned()];
        let doubled = Doubled { vmid: 101, mac: mac(1), others, machine: "x".to_owned() };
        let want =
            "x: VM 101 has the MAC 02:00:00:00:00:01, and so has x (VM 7 of cluster far) (seen in Proxmox cluster lab)";
        assert_eq!(told(&now, &[], &[doubled], &[(1, "x")]), [want]);
    }

    #[test]
    fn a_template_never_boots() {
        let mut now = snapshot(&[(101, &[1]), (102, &[1])]);
        now.machines[1].template = true;
        assert_eq!(told(&now, &[("a", 101)], &[], &[(1, "a")]), [""; 0]);
    }
}
