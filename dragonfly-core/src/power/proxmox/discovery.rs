//! The VMs of a cluster, as they are now.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::Proxmox;
use super::client::Client;
use super::config::VmConfig;
use super::listing::{Listed, Status, gaps, list, malformed, sees_all};
use crate::Mac;
use crate::power::{Credential, PowerError, PowerState, Result};

/// How many configurations are read at the same time.
pub(super) const PARALLEL: usize = 8;

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

impl Found {
    /// The address of this VM, with its UUID if that is known; `cluster` is the address of its cluster.
    pub fn address(&self, cluster: &Url) -> Url {
        let mut address = cluster.clone();
        address.set_path(&format!("/qemu/{}", self.vmid));
        let kept = cluster.query().unwrap_or_default().split('&');
        let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("uuid=")).map(ToOwned::to_owned);
        let query: Vec<String> = kept.chain(self.uuid.map(|uuid| format!("uuid={uuid}"))).collect();
        address.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
        address
    }
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
        let mut machines: Vec<Found> = stream::iter(reads).buffer_unordered(PARALLEL).try_collect().await?;
        machines.sort_unstable_by_key(|found| found.vmid);
        Ok(Snapshot { cluster: status.cluster, nodes: status.nodes, machines, gaps })
    }

    /// Reads the configuration of one VM. A node that did not answer once is not asked for the rest of its VMs: each
    /// would wait for it as long.
    async fn look(&self, listed: Listed, cluster: &str, silent: &Silent) -> Result<Found> {
        let why = lock(silent).get(&listed.node).cloned();
        if let Some(why) = why {
            let source = format!("node {}: {why}", listed.node).into();
            return Ok(found(listed, cluster, Err(PowerError::Unreachable { source })));
        }
        let vmid = listed.vmid.to_string();
        let data = self.client.get(&["nodes", &listed.node, "qemu", &vmid, "config"], &[]).await;
        let config = data
            .map_err(|failed| failed.because("show its configuration"))
            .and_then(|data| VmConfig::read(&data).ok_or_else(|| malformed("a configuration that is no object")));
        match &config {
            // A password that is refused is not tried for each VM.
            Err(PowerError::Unauthorised) => return Err(PowerError::Unauthorised),
            Err(error @ (PowerError::Unreachable { .. } | PowerError::TimedOut { .. })) => {
                lock(silent).insert(listed.node.clone(), told(error));
            }
            _ => {}
        }
        Ok(found(listed, cluster, config))
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
