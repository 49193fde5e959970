use std::slice::from_ref as one;

use super::*;
use crate::clock::Timestamp;
use crate::engine::clusters::ClusterSource;
use crate::engine::clusters::edit::{self, tests::found};
use crate::power::proxmox::Node;
use crate::resource::HardwareSpec;

fn source() -> ClusterSource {
    ClusterSource { address: "proxmox://10.0.0.2?tls=insecure".parse().unwrap(), secret: "pve".into() }
}

fn snapshot(machines: Vec<Found>) -> Snapshot {
    let nodes = ["pve1", "pve2"].map(|name| Node { name: name.into(), online: true }).into();
    Snapshot { cluster: "lab".into(), nodes, machines, gaps: vec![] }
}

/// A machine that was found as this VM.
fn vm(name: &str, found: &Found) -> Hardware {
    edit::made(name, found, &source())
}

fn by_hand(name: &str, macs: &[u8]) -> Hardware {
    let macs = macs.iter().map(|n| Mac::new([2, 0, 0, 0, 0, *n])).collect();
    Hardware::new(name, HardwareSpec { macs, ..HardwareSpec::default() })
}

/// A plan in words: `+101` for what is new, `a=101`, `-a` for what is gone, and `101~a+b` for what is doubled.
fn told(known: &[Hardware], now: &Snapshot, followed: &[&str]) -> String {
    let machines: Vec<Machine> = known.iter().map(Machine::of).collect();
    let followed = followed.iter().map(ToString::to_string).collect();
    let Plan { new, same, gone, doubled } = plan(&machines, now, &followed);
    let new = new.into_iter().map(|found| format!("+{}", found.vmid));
    let same = same.into_iter().map(|(machine, found)| format!("{machine}={}", found.vmid));
    let gone = gone.into_iter().map(|machine| format!("-{machine}"));
    let doubled = doubled.into_iter().map(|one| format!("{}~{}", one.vmid, one.others.join("+")));
    new.chain(same).chain(gone).chain(doubled).collect::<Vec<_>>().join(" ")
}

#[test]
fn which_machine_each_vm_is() {
    let bare = Found { macs: vec![], ..found(107, 0) };
    let other = Found { uuid: Some(uuid::Uuid::from_u128(99)), ..found(101, 9) };
    let dark = Found { macs: vec![], uuid: None, state: None, trouble: Some("offline".into()), ..found(101, 1) };
    let moved = Found { node: "pve2".into(), name: "web".into(), ..found(101, 1) };
    let two = Found { macs: [found(101, 1).macs, found(101, 2).macs].concat(), ..found(101, 1) };
    let template = Found { template: true, ..found(101, 1) };
    let table: &[(&str, Vec<Hardware>, Vec<Found>, &str)] = &[
        ("a VM is new", vec![], vec![found(101, 1)], "+101"),
        ("one without a card too", vec![], vec![bare.clone()], "+107"),
        ("and is known again by its number", vec![vm("lab-107", &bare)], vec![bare], "lab-107=107"),
        ("a template is no machine", vec![], vec![template], ""),
        ("what cannot be read is not new", vec![], vec![dark.clone()], ""),
        ("what was found is known again", vec![vm("a", &found(101, 1))], vec![found(101, 1)], "a=101"),
        ("wherever it is, whatever it is called", vec![vm("a", &found(101, 1))], vec![moved], "a=101"),
        ("and on a node that does not answer", vec![vm("a", &found(101, 1))], vec![dark], "a=101"),
        ("by its MAC under another number", vec![vm("a", &found(101, 1))], vec![found(900, 1)], "a=900"),
        ("a number given again is another VM", vec![vm("a", &found(101, 1))], vec![other], "+101 -a"),
        ("one that is not there is gone", vec![vm("a", &found(101, 1))], vec![], "-a"),
        ("who registered or was written down is that machine", vec![by_hand("b", &[1])], vec![found(101, 1)], "b=101"),
        ("others have nothing to do with it", vec![by_hand("b", &[7])], vec![], ""),
        ("two new VMs with one MAC", vec![], vec![found(101, 1), found(102, 1)], "+101 102~VM 101"),
        ("a copy of a known one", vec![vm("a", &found(101, 1))], vec![found(101, 1), found(102, 1)], "a=101 102~a"),
        ("a MAC that two machines claim", vec![by_hand("b", &[1]), by_hand("c", &[1])], vec![found(101, 1)], "101~b+c"),
        ("cards of two machines", vec![by_hand("b", &[1]), by_hand("c", &[2])], vec![two], "101~b+c"),
    ];
    for (what, known, now, wanted) in table {
        assert_eq!(told(known, &snapshot(now.clone()), &["lab"]), *wanted, "{what}");
    }
}

#[test]
fn nothing_is_gone_that_may_only_not_be_seen() {
    let a = vm("a", &found(101, 1));
    let gaps = Snapshot { gaps: vec!["no right".into()], ..snapshot(vec![]) };
    assert_eq!(told(one(&a), &gaps, &["lab"]), "");
    let mut offline = snapshot(vec![]);
    offline.nodes[0].online = false;
    assert_eq!(told(one(&a), &offline, &["lab"]), "", "its node is offline");
    let other = Snapshot { cluster: "other".into(), ..snapshot(vec![]) };
    assert_eq!(told(one(&a), &other, &["lab", "other"]), "", "another cluster says nothing of it");
    // Told once.
    let mut gone = a;
    edit::note_gone(&mut gone.status, "lab", Timestamp::UNIX_EPOCH);
    assert_eq!(told(one(&gone), &snapshot(vec![]), &["lab"]), "");
    assert_eq!(told(one(&gone), &snapshot(vec![found(101, 1)]), &["lab"]), "a=101");
}

#[test]
fn two_clusters_do_not_take_a_machine_from_each_other() {
    let there = Found { cluster: "other".into(), ..found(101, 1) };
    let now = Snapshot { cluster: "other".into(), ..snapshot(vec![there]) };
    let mut a = vm("a", &found(101, 1));
    assert_eq!(told(one(&a), &now, &["lab", "other"]), "101~a (VM 101 of cluster lab)");
    assert_eq!(told(one(&a), &now, &["other"]), "a=101", "nobody follows the first any more");
    edit::note_gone(&mut a.status, "lab", Timestamp::UNIX_EPOCH);
    assert_eq!(told(one(&a), &now, &["lab", "other"]), "a=101", "it has moved there");
}
