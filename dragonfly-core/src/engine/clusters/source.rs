//! Where machines are found.

use std::fmt;

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

use crate::power::proxmox::{Cluster, Proxmox, Snapshot};
use crate::power::{Credential, Result};

/// A cluster whose VMs are machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSource {
    /// One of its nodes, as `proxmox://10.0.0.2?tls=sha256:HEX`.
    pub address: Url,
    /// The Secret whose `username` and `password` log in, there and at its VMs.
    pub secret: String,
}

/// Opens clusters.
#[async_trait]
pub trait Clusters: fmt::Debug + Send + Sync + 'static {
    /// The cluster at an address. Need not talk to it yet.
    async fn open(&self, address: &Url, credential: &Credential) -> Result<Box<dyn Snapshots>>;
}

/// One cluster, looked at again and again.
#[async_trait]
pub trait Snapshots: fmt::Debug + Send + Sync + 'static {
    /// All of it, as it is now.
    async fn snapshot(&self) -> Result<Snapshot>;
}

#[async_trait]
impl Clusters for Proxmox {
    async fn open(&self, address: &Url, credential: &Credential) -> Result<Box<dyn Snapshots>> {
        Ok(Box::new(self.cluster(address, Some(credential))?))
    }
}

#[async_trait]
impl Snapshots for Cluster {
    async fn snapshot(&self) -> Result<Snapshot> {
        Self::snapshot(self).await
    }
}
