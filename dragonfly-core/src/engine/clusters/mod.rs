//! Machines that are VMs of Proxmox clusters: each cluster is looked at again and again, and every VM in it is a
//! machine, the one that Mage registers or a person wrote down if its MAC says so.
//!
//! A VM that its owner has not tagged `dragonfly` is held when it is found. No machine is deleted for what a cluster
//! says: one whose VM is gone carries the condition `Gone`. Nodes are no machines, for a cluster does not tell their
//! MACs: their names are labels, and whether they are online is told in `cluster.seen`.

mod doubled;
mod edit;
mod plan;
mod source;
mod view;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use url::Url;

pub use source::{ClusterSource, Clusters, Snapshots};
pub use view::ClusterView;

use super::found::CLUSTER_LABEL;
use super::power::whole;
use super::{Engine, Result};
use crate::power::proxmox::Snapshot;
use crate::power::{PowerError, Target};
use crate::resource::{Hardware, SecretSpec};

/// The longest that one look may take.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// How often an instance that follows no cluster looks whether it is to.
const STAND_BY: Duration = Duration::from_secs(5);
/// The longest pause after failures, as a multiple of the first.
const MOST: u32 = 16;
/// How often one password is tried: clusters, too, lock accounts.
const REFUSALS: u32 = 2;

/// Clusters by name, as they were when they last answered.
#[derive(Debug, Default)]
pub(super) struct Followed {
    answered: Mutex<BTreeMap<String, Answered>>,
    /// What each was like when it was looked at last, by where that was.
    views: Mutex<BTreeMap<Url, ClusterView>>,
}

#[derive(Debug)]
struct Answered {
    /// Where it is looked at.
    address: Url,
    /// Whether it answered the last time.
    is_here: bool,
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Answered>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster of this name answers at this address; an error is the other address where one of that name does.
    fn answers(&self, name: &str, address: &Url) -> std::result::Result<(), Url> {
        let mut all = self.lock();
        if let Some(other) = all.get(name).filter(|other| other.address != *address) {
            return Err(other.address.clone());
        }
        // It may have been given another name.
        all.retain(|_, other| other.address != *address);
        all.insert(name.to_owned(), Answered { address: address.clone(), is_here: true });
        Ok(())
    }

    fn is_silent(&self, address: &Url) {
        self.lock().values_mut().filter(|one| one.address == *address).for_each(|one| one.is_here = false);
    }

    fn names(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    /// Whether a machine's cluster says now and then whether it is on.
    pub(super) fn tells_power_of(&self, machine: &Hardware) -> bool {
        let is_vm = machine.spec.bmc.as_ref().is_some_and(|bmc| bmc.address.scheme() == "proxmox");
        let cluster = machine.metadata.labels.get(CLUSTER_LABEL).filter(|_| is_vm);
        cluster.is_some_and(|cluster| self.lock().get(cluster).is_some_and(|answered| answered.is_here))
    }
}

/// Why a cluster is not followed now.
#[derive(Debug)]
enum Trouble {
    Power(PowerError),
    /// Its name and where another of that name is.
    SameName(String, Url),
}

impl Trouble {
    /// Which one it is: each is told once.
    fn kind(&self) -> Option<Discriminant<PowerError>> {
        match self {
            Self::Power(error) => Some(discriminant(error)),
            Self::SameName(..) => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Power(error) => whole(error),
            Self::SameName(name, other) => format!(
                "it is called {name}, and so is the one at {other}; if they are one cluster, take one of them out of the \
                 configuration; if not, give one of them another name"
            ),
        }
    }
}

/// What is remembered between two looks at one cluster.
#[derive(Debug, Default)]
struct Watch {
    /// The cluster, opened with the secret of this version.
    open: Option<(Box<dyn Snapshots>, String)>,
    /// Why it failed the last time.
    failed: Option<Option<Discriminant<PowerError>>>,
    failures: u32,
    /// How often its user or password was refused since it was last taken or the Secret changed.
    refusals: u32,
    /// What `cluster.seen` told last.
    told: Option<String>,
    /// Doubled MACs that have been told.
    doubled: BTreeSet<plan::Doubled>,
}

impl Engine {
    /// Follows every cluster, for as long as it is polled.
    pub(in crate::engine) async fn follow_clusters(&self) {
        let sources = &self.inner.settings.clusters;
        futures_util::future::join_all(sources.iter().map(|source| self.follow_cluster(source))).await;
        // There is none.
        std::future::pending().await
    }

    async fn follow_cluster(&self, source: &ClusterSource) {
        let mut watch = Watch::default();
        loop {
            if !self.leads_clusters() {
                // Whoever leads then begins with nothing remembered.
                watch = Watch::default();
                self.inner.clusters.is_silent(&source.address);
                self.inner.clusters.forget(&source.address);
                tokio::time::sleep(self.inner.settings.cluster_period.min(STAND_BY)).await;
                continue;
            }
            let secret = self.secret_version(&source.secret);
            if let Err(error) = self.visit(source, &mut watch).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(cluster = %source.address, error, "what was found could not be written; it is looked at again");
            }
            let period = self.inner.settings.cluster_period * pause(watch.failures);
            tokio::select! {
                () = tokio::time::sleep(period), if watch.refusals < REFUSALS => {}
                // Somebody may have put it right.
                () = self.secret_changes(&source.secret, secret) => {
                    watch.refusals = 0;
                    self.inner.power.forgive(&source.address);
                }
            }
        }
    }

    /// Waits until a Secret has another version than this one.
    async fn secret_changes(&self, secret: &str, version: Option<String>) {
        let mut changes = self.inner.cache.changes();
        while self.secret_version(secret) == version {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Looks at a cluster once and writes what is new.
    async fn visit(&self, source: &ClusterSource, watch: &mut Watch) -> Result<()> {
        let began = self.now();
        let looked = self.look_at(source, watch).await.map_err(Trouble::Power).and_then(|snapshot| {
            let answers = self.inner.clusters.answers(&snapshot.cluster, &source.address);
            answers.map_err(|other| Trouble::SameName(snapshot.cluster.clone(), other))?;
            Ok(snapshot)
        });
        match looked {
            Ok(snapshot) => {
                let is_back = watch.failed.take().is_some();
                (watch.failures, watch.refusals) = (0, 0);
                self.inner.clusters.note(&source.address, |view| view.answered(&snapshot, began));
                self.tell_seen(source, &snapshot, is_back, &mut watch.told);
                self.take_in(source, &snapshot, began, &mut watch.doubled).await
            }
            Err(trouble) => {
                watch.open = None;
                watch.failures = watch.failures.saturating_add(1);
                self.inner.clusters.is_silent(&source.address);
                let is_refused =
                    matches!(trouble, Trouble::Power(PowerError::Unauthorised | PowerError::LockedOut { .. }));
                watch.refusals = watch.refusals.saturating_add(u32::from(is_refused));
                let kind = trouble.kind();
                self.inner.clusters.note(&source.address, |view| view.failed(trouble.words(), began));
                if watch.failed != Some(kind) {
                    watch.failed = Some(kind);
                    let (address, mut failure) = (&source.address, trouble.words());
                    if is_refused {
                        let secret = &source.secret;
                        failure.push_str(&format!(
                            "; after {REFUSALS} refusals it is left alone until Secret `{secret}` changes"
                        ));
                    }
                    let message = format!("the Proxmox cluster at {address} cannot be followed: {failure}");
                    let data = json!({ "address": address, "failure": failure });
                    self.tell_with("cluster.failed", "", None, message, data);
                }
                Ok(())
            }
        }
    }

    async fn look_at(&self, source: &ClusterSource, watch: &mut Watch) -> crate::power::Result<Snapshot> {
        let version = self.secret_version(&source.secret);
        let credential = self.credential(&source.secret);
        let credential = credential.map_err(|reason| PowerError::InvalidCredential { reason })?;
        let view = match watch.open.take().filter(|(_, opened)| Some(opened) == version.as_ref()) {
            Some((view, _)) => view,
            None => self.inner.cluster_driver.open(&source.address, &credential).await?,
        };
        // Its VMs are switched with the same account, and a wrong password is one for both.
        let target = Target { address: source.address.clone(), credential: Some(credential) };
        let look = async {
            let snapshot = tokio::time::timeout(LONGEST, view.snapshot()).await;
            snapshot.map_err(|_| PowerError::TimedOut { after: LONGEST })?
        };
        let snapshot = self.inner.power.log_in(&target, look).await;
        watch.open = Some((view, version.unwrap_or_default()));
        snapshot
    }

    fn secret_version(&self, secret: &str) -> Option<String> {
        self.inner.cache.get::<SecretSpec>(secret).map(|secret| secret.metadata.resource_version.clone())
    }

    /// Tells what the cluster is, at first, after a failure, and when something of it has changed.
    fn tell_seen(&self, source: &ClusterSource, snapshot: &Snapshot, is_back: bool, told: &mut Option<String>) {
        let Snapshot { cluster, nodes, machines, gaps } = snapshot;
        let offline: Vec<&str> = nodes.iter().filter(|node| !node.online).map(|node| &*node.name).collect();
        let mut state = format!("{} nodes", nodes.len());
        if !offline.is_empty() {
            state.push_str(&format!(", of which {} offline", offline.join(", ")));
        }
        for gap in gaps {
            state.push_str(&format!("; VMs may be missing: {gap}"));
        }
        if !is_back && told.as_ref() == Some(&state) {
            return;
        }
        let address = &source.address;
        let message = format!("Proxmox cluster {cluster} at {address} is followed: {} VMs, {state}", machines.len());
        let data =
            json!({ "cluster": cluster, "address": address, "nodes": nodes, "vms": machines.len(), "gaps": gaps });
        *told = Some(state);
        self.tell_with("cluster.seen", "", None, message, data);
    }
}

/// After how many periods a cluster is looked at again.
fn pause(failures: u32) -> u32 {
    1_u32.checked_shl(failures.saturating_sub(1)).map_or(MOST, |periods| periods.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_fails_is_asked_ever_less_often() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 31, 32, 33, u32::MAX].map(pause);
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn a_name_is_one_clusters() {
        let followed = Followed::default();
        let [a, b] = ["proxmox://10.0.0.2", "proxmox://10.0.0.3"].map(|address| address.parse::<Url>().unwrap());
        assert_eq!(followed.answers("lab", &a), Ok(()));
        assert_eq!(followed.answers("lab", &a), Ok(()));
        assert_eq!(followed.answers("lab", &b), Err(a.clone()));
        assert_eq!(followed.answers("lab2", &a), Ok(()), "it was renamed");
        assert_eq!(followed.answers("lab", &b), Ok(()));
        assert_eq!(followed.names(), ["lab", "lab2"].map(ToOwned::to_owned).into());
    }
}
