//! The VMs of a cluster, as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::answer::Failed;
use super::client::Client;
use super::config::{ADOPTED, VmConfig, tags};
use super::task::is_node;
use super::{Proxmox, VMIDS};
use crate::Mac;
use crate::power::{Credential, PowerError, PowerState, Result};
use crate::sighting::clip;
use crate::text::harmless;

/// How many configurations are read at the same time.
pub(super) const PARALLEL: usize = 8;
/// More VMs than one cluster has.
const MOST_VMS: usize = 20_000;
/// More nodes than one cluster has.
const MOST_NODES: usize = 256;
/// The longest name that is kept.
const LONGEST: usize = 128;

/// One cluster, or one node that is alone.
#[derive(Debug)]
pub struct Cluster {
    client: Client,
}

/// What a cluster is made of at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The cluster's name; of a node that is alone, the node's.
    pub cluster: String,
    /// Its nodes, by name.
    pub nodes: Vec<Node>,
    /// Its VMs, by number; containers are none.
    pub machines: Vec<Found>,
    /// Why VMs may be missing here that exist; none may when this is empty.
    pub gaps: Vec<String>,
}

impl Snapshot {
    /// Whether a VM that is not here does not exist.
    pub fn is_whole(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether the others see it.
    pub online: bool,
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its number in the cluster.
    pub vmid: u32,
    /// Its name; empty when it has none.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// The cluster.
    pub cluster: String,
    /// The MACs of its network cards, `net0` first; empty when `trouble` says that they are not known.
    pub macs: Vec<Mac>,
    /// The UUID in its firmware's SMBIOS, which another VM with the same number does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Whether it runs; absent while its node does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PowerState>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it is a template, which cannot be started.
    pub template: bool,
    /// Whether it carries the tag `dragonfly`: its owner lets Dragonfly do with it what destroys data.
    pub adopted: bool,
    /// Why something of it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A VM as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) vmid: u32,
    pub(super) node: String,
    name: String,
    state: Option<PowerState>,
    tags: Vec<String>,
    template: bool,
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
    let mut text = harmless(value.and_then(Value::as_str).unwrap_or_default()).into_owned();
    clip(&mut text, LONGEST);
    text
}

fn malformed(reason: &str) -> PowerError {
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
        tags: tags(&short(entry.get("tags"))),
        template: number(entry.get("template")) == Some(1),
    })
}

/// Every VM that the account may see.
pub(super) async fn list(client: &Client) -> Result<Listing, Failed> {
    Ok(Listing::read(&client.get(&["cluster", "resources"], &[("type", "vm")]).await?)?)
}

/// What `GET /cluster/status` says.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    cluster: String,
    has_quorum: bool,
    nodes: Vec<Node>,
}

impl Status {
    fn read(data: &Value) -> Result<Self> {
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
fn sees_all(data: &Value) -> bool {
    number(data.get("/vms").and_then(|rights| rights.get("VM.Audit"))) == Some(1)
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The cluster at an address, as `proxmox://10.0.0.2`, with a driver that trusts no certificate authorities
    /// ([`Proxmox::cluster`] for one that does). Nothing is sent yet.
    pub fn open(address: &Url, credential: &Credential) -> Result<Self> {
        Proxmox::default().cluster(address, Some(credential))
    }

    /// Looks at all of it. A configuration that cannot be read is told in its VM's `trouble`; an error is one of the
    /// cluster.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let what = "see the cluster's state";
        let status = self.client.get(&["cluster", "status"], &[]).await.map_err(|failed| failed.because(what))?;
        let status = Status::read(&status)?;
        let what = "see what the account may";
        let query = [("path", "/vms")];
        let rights = self.client.get(&["access", "permissions"], &query).await;
        let rights = rights.map_err(|failed| failed.because(what))?;
        let listing = list(&self.client).await.map_err(|failed| failed.because("list the VMs"))?;
        let gaps = gaps(&status, sees_all(&rights), &listing);
        let offline = status.nodes.iter().filter(|node| !node.online).map(|node| (node.name.clone(), "it is offline"));
        let silent = Mutex::new(offline.map(|(node, why)| (node, why.to_owned())).collect());
        let reads: Vec<_> = listing.vms.into_iter().map(|listed| self.look(listed, &status.cluster, &silent)).collect();
        let mut machines: Vec<Found> = stream::iter(reads).buffer_unordered(PARALLEL).collect().await;
        machines.sort_unstable_by_key(|found| found.vmid);
        Ok(Snapshot { cluster: status.cluster, nodes: status.nodes, machines, gaps })
    }

    /// Reads the configuration of one VM. A node that did not answer once is not asked for the rest of its VMs: each
    /// would wait for it as long.
    async fn look(&self, listed: Listed, cluster: &str, silent: &Silent) -> Found {
        let why = lock(silent).get(&listed.node).cloned();
        if let Some(why) = why {
            let source = format!("node {}: {why}", listed.node).into();
            return found(listed, cluster, Err(PowerError::Unreachable { source }));
        }
        let vmid = listed.vmid.to_string();
        let data = self.client.get(&["nodes", &listed.node, "qemu", &vmid, "config"], &[]).await;
        let config = data
            .map_err(|failed| failed.because("show its configuration"))
            .and_then(|data| VmConfig::read(&data).ok_or_else(|| malformed("a configuration that is no object")));
        if let Err(error @ (PowerError::Unreachable { .. } | PowerError::TimedOut { .. })) = &config {
            lock(silent).insert(listed.node.clone(), told(error));
        }
        found(listed, cluster, config)
    }
}

/// Nodes that are not asked, and why.
type Silent = Mutex<BTreeMap<String, String>>;

fn lock(silent: &Silent) -> MutexGuard<'_, BTreeMap<String, String>> {
    silent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found(listed: Listed, cluster: &str, config: Result<VmConfig>) -> Found {
    let adopted = listed.is_adopted();
    let Listed { vmid, node, name, state, tags, template } = listed;
    let place = format!("VM {vmid} on {node}");
    let (macs, uuid, trouble) = match config {
        Ok(config) => {
            let (macs, wrong) = config.macs();
            (macs, config.uuid(), wrong.map(|wrong| format!("{place}: {wrong}")))
        }
        Err(error) => (vec![], None, Some(format!("{place}: its configuration cannot be read: {}", told(&error)))),
    };
    Found { vmid, name, node, cluster: cluster.to_owned(), macs, uuid, state, tags, template, adopted, trouble }
}

/// An error with what is behind it.
fn told(error: &PowerError) -> String {
    match error {
        PowerError::Unreachable { source } => format!("{error}: {source}"),
        error => error.to_string(),
    }
}

fn gaps(status: &Status, sees_all: bool, listing: &Listing) -> Vec<String> {
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
