use super::*;
use crate::clock::Timestamp;
use crate::engine::found::not_adopted;
use crate::resource::Labels;
use crate::resource::power::{PowerOperation, PowerStatus};

/// A VM that runs on pve1, with one card whose MAC ends in `mac`.
pub(in crate::engine::clusters) fn found(vmid: u32, mac: u8) -> Found {
    Found {
        vmid,
        name: format!("vm{vmid}"),
        node: "pve1".into(),
        cluster: "lab".into(),
        macs: vec![Mac::new([2, 0, 0, 0, 0, mac])],
        uuid: Some(uuid::Uuid::from_u128(u128::from(mac))),
        state: Some(PowerState::On),
        tags: vec![],
        template: false,
        adopted: false,
        trouble: None,
    }
}

fn source() -> ClusterSource {
    ClusterSource { address: "proxmox://10.0.0.2?tls=insecure".parse().unwrap(), secret: "pve".into() }
}

fn up(machine: &mut Hardware, found: &Found) -> Vec<String> {
    follow(machine, found, &source(), |_| false).into_iter().map(|(kind, words)| format!("{kind}: {words}")).collect()
}

fn labels(machine: &Hardware) -> Vec<&str> {
    [CLUSTER_LABEL, NODE_LABEL, VMID_LABEL, NAME_LABEL].map(|key| &*machine.metadata.labels[key]).into()
}

fn mac(n: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, n])
}

#[test]
fn a_machine_is_made_of_a_vm() {
    let a = made("a", &found(101, 1), &source());
    assert_eq!(labels(&a), ["lab", "pve1", "101", "vm101"]);
    let bmc = a.spec.bmc.clone().unwrap();
    let address = "proxmox://10.0.0.2/qemu/101?tls=insecure&uuid=00000000-0000-0000-0000-000000000001";
    assert_eq!((bmc.address.as_str(), bmc.secret_ref.unwrap().name.as_str()), (address, "pve"));
    let hold = "found in Proxmox cluster lab; tag the VM `dragonfly` there, or `dragonfly release a`, to let \
                Dragonfly manage it";
    assert_eq!(a.spec.hold.as_deref(), Some(hold));
    assert_eq!(not_adopted(&a).as_deref(), Some(hold));
    assert_eq!(up(&mut a.clone(), &found(101, 1)), [""; 0]);
    let adopted = made("a", &Found { adopted: true, ..found(101, 1) }, &source());
    assert_eq!((adopted.spec.hold.clone(), not_adopted(&adopted)), (None, None));
}

#[test]
fn what_becomes_of_a_vm_becomes_of_its_machine() {
    let first = made("a", &found(101, 1), &source());
    let after = |now: &Found| {
        let mut a = first.clone();
        let news = up(&mut a, now);
        let mut again = a.clone();
        assert_eq!((up(&mut again, now), &again), (vec![], &a), "once");
        (a, news)
    };
    let (a, news) = after(&Found { node: "pve2".into(), ..found(101, 1) });
    assert_eq!((labels(&a)[1], &*news[0]), ("pve2", "machine.moved: its VM moved from pve1 to pve2"));
    assert_eq!(a.spec, first.spec);
    let (a, news) = after(&Found { name: "web".into(), ..found(101, 1) });
    assert_eq!((labels(&a)[3], &*news[0]), ("web", "machine.renamed: its VM is called web"));
    let (a, news) = after(&Found { vmid: 900, ..found(101, 1) });
    assert_eq!((labels(&a)[2], &*news[0]), ("900", "machine.found: it is VM 900 of Proxmox cluster lab, on pve1"));
    assert!(a.spec.bmc.unwrap().address.path() == "/qemu/900");
    let (a, _) = after(&Found { macs: vec![mac(3), mac(1)], ..found(101, 1) });
    assert_eq!(a.spec.macs, [mac(1), mac(3)], "a second card");
    let (a, _) = after(&Found { macs: vec![mac(3)], ..found(101, 1) });
    assert_eq!(a.spec.macs, [mac(3)], "another card");
    let dark =
        Found { macs: vec![], uuid: None, name: String::new(), trouble: Some("offline".into()), ..found(101, 1) };
    assert_eq!(after(&dark), (first.clone(), vec![]), "what is not seen is not changed");
}

#[test]
fn what_a_person_wrote_stays() {
    let mut a = made("a", &found(101, 1), &source());
    a.metadata.labels.insert("rack".into(), "7".into());
    a.spec.macs.push(mac(9));
    a.spec.bmc.as_mut().unwrap().address = "ipmi://10.0.0.6".parse().unwrap();
    a.spec.console = Some("ttyS0".into());
    let before = a.clone();
    up(&mut a, &Found { vmid: 900, node: "pve2".into(), macs: vec![mac(2)], ..found(101, 1) });
    assert_eq!((&*a.metadata.labels["rack"], labels(&a)[2]), ("7", "900"));
    assert_eq!(a.spec.macs, [mac(9), mac(2)]);
    assert_eq!((&a.spec.bmc, &a.spec.console), (&before.spec.bmc, &before.spec.console));
    a.spec.bmc = None;
    up(&mut a, &found(101, 1));
    assert_eq!(a.spec.bmc, None, "it was taken away, and is not put back");

    // A machine that was there before: it gets a controller if it has none, and is not held.
    let spec = HardwareSpec { macs: vec![mac(1), mac(8)], ..HardwareSpec::default() };
    let mut b = Hardware::new("b", spec.clone());
    let news = up(&mut b, &Found { macs: vec![mac(1), mac(5)], ..found(101, 1) });
    assert_eq!(news, ["machine.found: it is VM 101 of Proxmox cluster lab, on pve1"]);
    assert_eq!((&b.spec.macs, &b.spec.hold, b.spec.bmc.is_some()), (&spec.macs, &None, true));
    let own = Bmc { address: "redfish://10.0.0.9".parse().unwrap(), secret_ref: None, boot_mode: None };
    let mut c = Hardware::new("c", HardwareSpec { bmc: Some(own.clone()), ..spec });
    up(&mut c, &found(101, 1));
    assert_eq!(c.spec.bmc, Some(own));
    // A card of another machine is not taken from it.
    let mut d = made("d", &found(101, 1), &source());
    let now = Found { macs: vec![mac(1), mac(2)], ..found(101, 1) };
    follow(&mut d, &now, &source(), |taken| taken == mac(2));
    assert_eq!(d.spec.macs, [mac(1)]);
    up(&mut d, &now);
    assert_eq!(d.spec.macs, [mac(1), mac(2)], "when it is free");
}

#[test]
fn adoption_takes_back_the_hold_of_discovery_and_no_other() {
    let tagged = Found { adopted: true, ..found(101, 1) };
    let first = made("a", &found(101, 1), &source());
    let mut a = first.clone();
    assert_eq!(up(&mut a, &tagged), ["machine.released: its VM carries the tag `dragonfly`: Dragonfly may manage it"]);
    assert_eq!((a.spec.hold.clone(), not_adopted(&a)), (None, None));
    up(&mut a, &found(101, 1));
    assert_eq!(a.spec.hold, None, "what was let go is not held again");

    let mut b = first.clone();
    b.spec.hold = Some("mine".into());
    up(&mut b, &found(101, 1));
    assert!(not_adopted(&b).is_some(), "held by a person, and still not adopted");
    assert_eq!(up(&mut b, &tagged), [""; 0]);
    assert_eq!((b.spec.hold.as_deref(), not_adopted(&b)), (Some("mine"), None));

    let mut c = first;
    c.spec.hold = None;
    up(&mut c, &found(101, 1));
    assert_eq!((c.spec.hold.clone(), not_adopted(&c)), (None, None), "a person released it");
    c.spec.hold = Some("mine".into());
    up(&mut c, &tagged);
    assert_eq!((c.spec.hold.as_deref(), not_adopted(&c)), (Some("mine"), None));
}

#[test]
fn a_notebook_that_cannot_be_read_owns_nothing() {
    let mut a = made("a", &found(101, 1), &source());
    a.metadata.annotations = Labels::from([("dragonfly.computer/proxmox".into(), "{".into())]);
    let before = a.spec.clone();
    up(&mut a, &Found { vmid: 900, macs: vec![mac(2)], adopted: true, ..found(101, 1) });
    assert_eq!(a.spec, before);
}

#[test]
fn names_become_labels() {
    let long = "x".repeat(70);
    for (name, label) in [
        ("web-1.example", Some("web-1.example")),
        ("-a b/", Some("ab")),
        ("", None),
        ("--", None),
        (&*long, Some(&long[..63])),
    ] {
        assert_eq!(label_value(name).as_deref(), label, "{name}");
    }
}

#[test]
fn its_state_is_a_condition() {
    let at = Timestamp::from_unix_seconds;
    let told = |status: &HardwareStatus, kind: &str| {
        condition(&status.conditions, kind).map(|c| (c.status, c.reason.clone(), c.last_transition_time))
    };
    let mut status = HardwareStatus::default();
    let kinds = |news: Vec<News>| news.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    assert_eq!(kinds(note(&mut status, &found(101, 1), at(1), at(1))), ["power.changed"]);
    assert_eq!(told(&status, POWERED), Some((ConditionStatus::True, "Seen".into(), at(1))));
    let same = status.clone();
    assert_eq!((note(&mut status, &found(101, 1), at(2), at(2)), &status), (vec![], &same));
    let off = Found { state: Some(PowerState::Off), ..found(101, 1) };
    // Something was done to it after it was looked at.
    let last = PowerOperation { operation: "on".into(), at: at(5), by: "me".into(), failure: None, may_repeat: false };
    status.power = Some(PowerStatus { last: Some(last), ..PowerStatus::default() });
    assert_eq!(note(&mut status, &off, at(4), at(6)), []);
    assert_eq!(kinds(note(&mut status, &off, at(6), at(7))), ["power.changed"]);
    assert_eq!(told(&status, POWERED), Some((ConditionStatus::False, "Seen".into(), at(7))));
    let dark = Found { state: None, ..found(101, 1) };
    note(&mut status, &dark, at(8), at(8));
    assert_eq!(told(&status, POWERED), Some((ConditionStatus::Unknown, "NodeSilent".into(), at(8))));

    assert_eq!(kinds(note_gone(&mut status, "lab", at(9))), ["machine.gone"]);
    assert_eq!(note_gone(&mut status, "lab", at(10)), []);
    assert_eq!(told(&status, GONE), Some((ConditionStatus::True, "NotInCluster".into(), at(9))));
    assert_eq!(told(&status, POWERED).unwrap().1, "Gone");
    assert_eq!(kinds(note(&mut status, &found(101, 1), at(11), at(11))), ["machine.back", "power.changed"]);
    assert_eq!(told(&status, GONE), Some((ConditionStatus::False, "Found".into(), at(11))));
}
