//! Snapshots beside what was known.

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
    // What it is about; what was known; what is there; what is told.
    type Row = (&'static str, Vec<Known>, Vec<Found>, Vec<&'static str>);
    let table: Vec<Row> = vec![
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
        ("restored under another number", vec![known(101)], vec![Found { vmid: 205, ..vm(101) }], vec!["m101 is 205"]),
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
