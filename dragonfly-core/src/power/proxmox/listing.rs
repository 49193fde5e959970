//! What a cluster says of itself and of what is in it, read leniently: releases differ in how they write numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::VMIDS;
use super::answer::Failed;
use super::client::Client;
use super::config::{ADOPTED, tags};
use super::discovery::Node;
use super::task::is_node;
use crate::power::{PowerError, PowerState, Result};
use crate::sighting::clip;
use crate::text::harmless;

/// More VMs than one cluster has.
const MOST_VMS: usize = 20_000;
/// More nodes than one cluster has.
const MOST_NODES: usize = 256;
/// The longest list of tags that is read.
const LONGEST_TAGS: usize = 8192;
/// The longest name that is kept.
const LONGEST: usize = 128;

/// A VM as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) vmid: u32,
    pub(super) node: String,
    pub(super) name: String,
    pub(super) state: Option<PowerState>,
    pub(super) tags: Vec<String>,
    pub(super) template: bool,
}

impl Listed {
    pub(super) fn is_adopted(&self) -> bool {
        self.tags.iter().any(|tag| tag == ADOPTED)
    }
}

/// What `GET /cluster/resources?type=vm` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) vms: Vec<Listed>,
    pub(super) containers: BTreeSet<u32>,
    /// How many entries could not be understood.
    strange: usize,
}

/// A number, which some releases write as text.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        Value::Bool(flag) => Some(u64::from(*flag)),
        value => value.as_u64(),
    }
}

fn short(value: Option<&Value>) -> String {
    text(value, LONGEST)
}

fn text(value: Option<&Value>, most: usize) -> String {
    let mut text = harmless(value.and_then(Value::as_str).unwrap_or_default()).into_owned();
    clip(&mut text, most);
    text
}

pub(super) fn malformed(reason: &str) -> PowerError {
    PowerError::Malformed { reason: reason.to_owned() }
}

impl Listing {
    fn read(data: &Value) -> Result<Self> {
        let entries = data.as_array().ok_or_else(|| malformed("a list of resources that is no list"))?;
        if entries.len() > MOST_VMS {
            return Err(malformed(&format!("{} VMs in one cluster, of which {MOST_VMS} are read", entries.len())));
        }
        let (mut listing, mut vms) = (Self::default(), BTreeMap::new());
        for entry in entries {
            let vmid = number(entry.get("vmid")).and_then(|vmid| u32::try_from(vmid).ok());
            match (entry.get("type").and_then(Value::as_str), vmid) {
                (Some("qemu"), Some(vmid)) if VMIDS.contains(&vmid) => match listed(vmid, entry) {
                    Some(listed) => drop(vms.insert(vmid, listed)),
                    None => listing.strange += 1,
                },
                (Some("lxc" | "openvz"), Some(vmid)) => drop(listing.containers.insert(vmid)),
                (Some("node" | "storage" | "pool" | "sdn"), _) => {}
                _ => listing.strange += 1,
            }
        }
        listing.vms = vms.into_values().collect();
        Ok(listing)
    }
}

fn listed(vmid: u32, entry: &Value) -> Option<Listed> {
    let node = entry.get("node").and_then(Value::as_str).filter(|node| is_node(node))?;
    Some(Listed {
        vmid,
        node: node.to_owned(),
        name: short(entry.get("name")),
        state: match entry.get("status").and_then(Value::as_str) {
            Some("running") => Some(PowerState::On),
            Some("stopped") => Some(PowerState::Off),
            // `unknown`: its node has not said anything for a while.
            _ => None,
        },
        tags: tags(&text(entry.get("tags"), LONGEST_TAGS)),
        template: number(entry.get("template")) == Some(1),
    })
}

/// Every VM that the account may see.
pub(super) async fn list(client: &Client) -> Result<Listing, Failed> {
    Ok(Listing::read(&client.get(&["cluster", "resources"], &[("type", "vm")]).await?)?)
}

/// What `GET /cluster/status` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) cluster: String,
    has_quorum: bool,
    pub(super) nodes: Vec<Node>,
}

impl Status {
    pub(super) fn read(data: &Value) -> Result<Self> {
        let entries = data.as_array().ok_or_else(|| malformed("a cluster's status that is no list"))?;
        let (mut cluster, mut nodes) = (None, BTreeMap::new());
        for entry in entries.iter().take(MOST_NODES + 1) {
            let name = short(entry.get("name"));
            let flag = |name: &str| number(entry.get(name)) == Some(1);
            match entry.get("type").and_then(Value::as_str) {
                Some("cluster") if !name.is_empty() => cluster = Some((name, flag("quorate"))),
                Some("node") if is_node(&name) => drop(nodes.insert(name, flag("online"))),
                _ => return Err(malformed("a cluster's status with an entry that is neither cluster nor node")),
            }
        }
        let mut nodes: Vec<Node> = nodes.into_iter().map(|(name, online)| Node { name, online }).collect();
        let (cluster, has_quorum) = match (cluster, &mut nodes[..]) {
            (Some(cluster), _) => cluster,
            // A node without cluster is always there: it answered.
            (None, [alone]) => {
                alone.online = true;
                (alone.name.clone(), true)
            }
            (None, _) => return Err(malformed("a cluster's status without the cluster")),
        };
        Ok(Self { cluster, has_quorum, nodes })
    }
}

/// Whether `GET /access/permissions?path=/vms` grants a look at every VM.
pub(super) fn sees_all(data: &Value) -> bool {
    number(data.get("/vms").and_then(|rights| rights.get("VM.Audit"))) == Some(1)
}

/// Why VMs may be missing from a list.
pub(super) fn gaps(status: &Status, sees_all: bool, listing: &Listing) -> Vec<String> {
    let mut gaps = Vec::new();
    if !status.has_quorum {
        gaps.push("the node that answers is not with the majority of its cluster".to_owned());
    }
    if !sees_all {
        gaps.push("the account lacks VM.Audit on /vms, and may not see every VM".to_owned());
    }
    if listing.strange > 0 {
        gaps.push(format!("{} entries of the list cannot be understood", listing.strange));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_read_leniently_and_counted() {
        let listing = Listing::read(&json!([
            { "id": "qemu/101", "type": "qemu", "vmid": 101, "node": "pve1", "name": "a", "status": "running",
              "tags": "dragonfly;x", "template": 0 },
            { "id": "qemu/100", "type": "qemu", "vmid": "100", "node": "pve2", "status": "unknown", "template": "1" },
            { "id": "lxc/102", "type": "lxc", "vmid": 102, "node": "pve1" },
            { "id": "node/pve1", "type": "node", "node": "pve1" },
            { "id": "qemu/103", "type": "qemu", "vmid": 103, "node": "../x" },
            { "id": "qemu/104", "type": "qemu", "node": "pve1" },
            { "id": "qemu/5", "type": "qemu", "vmid": 5, "node": "pve1" },
            7,
        ]))
        .unwrap();
        let ids: Vec<u32> = listing.vms.iter().map(|listed| listed.vmid).collect();
        assert_eq!((ids, listing.strange), (vec![100, 101], 4));
        assert!(listing.vms[0].template && listing.vms[0].state.is_none() && !listing.vms[0].is_adopted());
        assert!(
            !listing.vms[1].template && listing.vms[1].state == Some(PowerState::On) && listing.vms[1].is_adopted()
        );
        assert!(Listing::read(&Value::Null).is_err());
        let many: Vec<Value> = (0..=MOST_VMS).map(|_| json!({})).collect();
        assert!(Listing::read(&many.into()).unwrap_err().to_string().contains("20001 VMs"));
    }

    #[test]
    fn a_clusters_state() {
        let two = json!([
            { "id": "cluster", "type": "cluster", "name": "lab", "quorate": 1, "nodes": 2 },
            { "id": "node/pve2", "type": "node", "name": "pve2", "online": 0 },
            { "id": "node/pve1", "type": "node", "name": "pve1", "online": 1, "local": 1 },
        ]);
        let status = Status::read(&two).unwrap();
        let node = |name: &str, online| Node { name: name.to_owned(), online };
        assert_eq!(status.nodes, [node("pve1", true), node("pve2", false)]);
        assert_eq!((&*status.cluster, status.has_quorum), ("lab", true));
        let alone = Status::read(&json!([{ "type": "node", "name": "pve7", "online": 1 }])).unwrap();
        assert_eq!((&*alone.cluster, alone.has_quorum), ("pve7", true));
        for wrong in [json!(null), json!([]), json!([{ "type": "storage" }]), json!([{ "type": "cluster" }])] {
            assert!(Status::read(&wrong).is_err(), "{wrong}");
        }
        assert!(sees_all(&json!({ "/vms": { "VM.Audit": 1 } })));
        assert!(!sees_all(&json!({ "/vms": { "VM.Audit": 0 } })), "not of what is below");
        assert!(!sees_all(&json!({ "/vms": { "VM.PowerMgmt": 1 } })) && !sees_all(&json!({})));
    }
}
