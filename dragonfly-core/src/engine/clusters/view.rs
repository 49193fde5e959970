//! The clusters that are followed, as people look at them.

use std::sync::PoisonError;

use serde::Serialize;
use url::Url;

use super::Followed;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::power::proxmox::{Node, Snapshot};

/// A cluster of the configuration, and what it was like when it was looked at last. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Where it is looked at.
    pub address: Option<Url>,
    /// The Secret that logs in there.
    pub secret: String,
    /// Its name, once it has answered.
    pub name: Option<String>,
    /// Its nodes, when it last answered.
    pub nodes: Vec<Node>,
    /// How many VMs it had then.
    pub vms: usize,
    /// Why VMs may be missing that exist.
    pub gaps: Vec<String>,
    /// When it was looked at last.
    pub polled_at: Option<Timestamp>,
    /// When it answered last.
    pub answered_at: Option<Timestamp>,
    /// Why it did not answer when it was looked at last.
    pub failure: Option<String>,
}

impl ClusterView {
    pub(super) fn answered(&mut self, snapshot: &Snapshot, at: Timestamp) {
        self.name = Some(snapshot.cluster.clone());
        self.nodes.clone_from(&snapshot.nodes);
        self.vms = snapshot.machines.iter().filter(|found| !found.template).count();
        self.gaps.clone_from(&snapshot.gaps);
        (self.polled_at, self.answered_at, self.failure) = (Some(at), Some(at), None);
    }

    pub(super) fn failed(&mut self, failure: String, at: Timestamp) {
        (self.polled_at, self.failure) = (Some(at), Some(failure));
    }
}

impl Followed {
    pub(super) fn note(&self, address: &Url, change: impl FnOnce(&mut ClusterView)) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        change(views.entry(address.clone()).or_default());
    }

    /// Another instance looks at it from now on.
    pub(super) fn forget(&self, address: &Url) {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

impl Engine {
    /// The clusters of the configuration, in its order. One that another instance looks at has not been looked at here.
    pub fn clusters(&self) -> Vec<ClusterView> {
        let views = self.inner.clusters.views.lock().unwrap_or_else(PoisonError::into_inner);
        let view = |source: &super::ClusterSource| ClusterView {
            address: Some(source.address.clone()),
            secret: source.secret.clone(),
            ..views.get(&source.address).cloned().unwrap_or_default()
        };
        self.inner.settings.clusters.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_what_was_known() {
        let at = Timestamp::from_unix_seconds;
        let nodes = vec![Node { name: "pve1".into(), online: true }];
        let snapshot = Snapshot { cluster: "lab".into(), nodes: nodes.clone(), machines: vec![], gaps: vec![] };
        let mut view = ClusterView::default();
        view.failed("no route".into(), at(1));
        assert_eq!((view.name.clone(), view.answered_at, view.polled_at), (None, None, Some(at(1))));
        view.answered(&snapshot, at(2));
        assert_eq!((view.failure.clone(), view.answered_at, &view.nodes), (None, Some(at(2)), &nodes));
        view.failed("no route".into(), at(3));
        assert_eq!((view.name.as_deref(), view.answered_at, view.polled_at), (Some("lab"), Some(at(2)), Some(at(3))));
    }
}
