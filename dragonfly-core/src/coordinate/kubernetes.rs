//! Leases as Kubernetes keeps them: `coordination.k8s.io/v1` in one namespace, one a controller.
//!
//! The holder's random part and a `resourceVersion` decide; `renewTime` is for people and never read. An instance needs
//! `get`, `create` and `update` on `leases` in that namespace.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};

use super::{Lease, LeaseError, LeaseStore, Term};

/// What a controller's name begins with as a lease.
const PREFIX: &str = "dragonfly-";

/// Leases in one namespace of a Kubernetes cluster.
#[derive(Clone)]
pub struct KubernetesLeases {
    api: Api<LeaseObject>,
    namespace: String,
}

impl std::fmt::Debug for KubernetesLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesLeases").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl KubernetesLeases {
    /// Leases in this namespace, which must be there.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }
}

fn object(name: &str, lease: &Lease) -> LeaseObject {
    let seconds = i32::try_from(lease.duration.as_secs()).unwrap_or(i32::MAX);
    let spec = LeaseSpec {
        // Somebody gave it up: as Kubernetes' own components write that.
        holder_identity: Some(lease.holder.clone().unwrap_or_default()),
        lease_duration_seconds: Some(seconds.max(1)),
        lease_transitions: Some(i32::try_from(lease.term.0).unwrap_or(i32::MAX)),
        renew_time: Some(MicroTime(k8s_openapi::jiff::Timestamp::now())),
        ..LeaseSpec::default()
    };
    let metadata = ObjectMeta {
        name: Some(format!("{PREFIX}{name}")),
        uid: Some(lease.uid.clone()).filter(|uid| !uid.is_empty()),
        resource_version: Some(lease.version.clone()).filter(|version| !version.is_empty()),
        ..ObjectMeta::default()
    };
    LeaseObject { metadata, spec: Some(spec) }
}

fn lease(object: LeaseObject) -> Lease {
    let spec = object.spec.unwrap_or_default();
    Lease {
        uid: object.metadata.uid.unwrap_or_default(),
        version: object.metadata.resource_version.unwrap_or_default(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(spec.lease_duration_seconds.and_then(|s| s.try_into().ok()).unwrap_or(0)),
        term: Term(spec.lease_transitions.and_then(|n| n.try_into().ok()).unwrap_or(0)),
    }
}

fn failed(name: &str, error: kube::Error) -> LeaseError {
    let name = format!("{PREFIX}{name}");
    match &error {
        // Of a replacement, 404 says that it was deleted: it is read again.
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => LeaseError::Conflict { name },
        _ => LeaseError::Unavailable { name, source: error.into() },
    }
}

#[async_trait]
impl LeaseStore for KubernetesLeases {
    async fn get(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        // Without a version it is read from etcd itself, never from a cache that may be behind.
        let found = self.api.get_opt(&format!("{PREFIX}{name}")).await;
        Ok(found.map_err(|error| failed(name, error))?.map(lease))
    }

    async fn create(&self, name: &str, new: &Lease) -> Result<Lease, LeaseError> {
        match self.api.create(&PostParams::default(), &object(name, new)).await {
            Ok(created) => Ok(lease(created)),
            // A namespace that is not there is no conflict: asking again at once does not help.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let (name, source) = (format!("{PREFIX}{name}"), kube::Error::Api(status).into());
                Err(LeaseError::Unavailable { name, source })
            }
            Err(error) => Err(failed(name, error)),
        }
    }

    async fn replace(&self, name: &str, new: &Lease) -> Result<Lease, LeaseError> {
        let object = object(name, new);
        let written = self.api.replace(&format!("{PREFIX}{name}"), &PostParams::default(), &object).await;
        Ok(lease(written.map_err(|error| failed(name, error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_the_same_there_and_back() {
        let held = Lease {
            uid: "u".into(),
            version: "7".into(),
            holder: Some("a_1".into()),
            duration: Duration::from_secs(15),
            term: Term(3),
        };
        let given_up = Lease { holder: None, ..held.clone() };
        for one in [held, given_up] {
            assert_eq!(lease(object("sweep", &one)), one);
        }
        assert_eq!(object("power.fra", &Lease::default()).metadata.name.as_deref(), Some("dragonfly-power.fra"));
        assert_eq!(object("sweep", &Lease::default()).metadata.resource_version, None, "it is to be created");
        // Written by somebody else, or by hand.
        assert_eq!(lease(LeaseObject::default()), Lease::default());
    }
}
