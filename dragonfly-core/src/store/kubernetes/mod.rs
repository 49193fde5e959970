//! Objects as custom resources of a Kubernetes API server.
//!
//! Each kind is a cluster-scoped custom resource (`hardware.dragonfly.computer`, ...), a Secret is Kubernetes' own, in
//! one namespace. `resourceVersion`, `uid`, `generation` and `creationTimestamp` are the API server's. Writes are JSON
//! patches (RFC 6902) of one part that name the version they depend on: whatever stands beside that part stays, also
//! what others keep in `metadata`.
//!
//! In a cluster that runs Tinkerbell, Hardware, Template and Workflow can be its own instead ([`tinkerbell`]).
//!
//! Needs Kubernetes 1.20 or later, the definitions ([`schema::crds`](crate::resource::schema::crds)), and leave to get,
//! list, watch, create, patch and delete.

mod apply;
mod connect;
mod failure;
mod list;
mod object;
mod request;
mod secret;
mod shared;
#[cfg(test)]
mod tests;
#[cfg(feature = "tinkerbell")]
mod theirs;
#[cfg(feature = "tinkerbell")]
pub mod tinkerbell;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use serde_json::{Value, json};

use super::{Key, Page, Part, Result, Selector, Store, StoreError, WatchEvent, When, rules};
use crate::coordinate::KubernetesLeases;
use crate::resource::{Kind, Record};

pub use connect::ConnectOptions;
use failure::Doing;
use object::Place;
pub use shared::SharedFiles;

/// What this store is called in errors.
const NAME: &str = "Kubernetes";
/// How long to rest before a cluster that is away is asked again.
const AWAY: Duration = Duration::from_secs(5);
/// How long a cluster that was away may refuse what it later allows.
const SETTLES: Duration = Duration::from_secs(60);

/// A store in a Kubernetes cluster. Clones share their connections.
#[derive(Clone)]
pub struct KubernetesStore(Arc<Inner>);

struct Inner {
    client: kube::Client,
    /// The API server's address, for errors.
    server: String,
    group: String,
    namespace: String,
    timeout: Duration,
    /// Until then it is not asked to select by label.
    spared: Mutex<Option<Instant>>,
    /// There when Hardware, Template and Workflow are Tinkerbell's.
    #[cfg(feature = "tinkerbell")]
    agents: Option<tinkerbell::Agents>,
}

impl fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { server, group, namespace, .. } = &*self.0;
        f.debug_struct("KubernetesStore")
            .field("server", server)
            .field("group", group)
            .field("namespace", namespace)
            .finish_non_exhaustive()
    }
}

impl KubernetesStore {
    /// Reads where the cluster is and with what credentials; asks it nothing yet. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// `Unavailable` that names what cannot be read.
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        connect::connect(options).await
    }

    /// Whether every kind can be read: asks for one object of each.
    ///
    /// # Errors
    /// `Unavailable` that says what to do: the cluster is out of reach, a definition or a permission is missing.
    pub async fn check(&self) -> Result<()> {
        for kind in Kind::ALL {
            self.0.page(kind, &Selector::all(), 1, None).await?;
        }
        Ok(())
    }

    /// As [`check`](Self::check), again and again while the API server cannot be reached or cannot work, which the log
    /// says each time.
    ///
    /// # Errors
    /// `Unavailable` for what the cluster does not mend by itself: credentials, definitions, permissions.
    pub async fn wait(&self) -> Result<()> {
        // One that has just started may not know its definitions and permissions yet.
        let mut settled = Instant::now();
        loop {
            match self.check().await {
                Err(error) if failure::is_away(&error) || Instant::now() < settled => {
                    if failure::is_away(&error) {
                        settled = Instant::now() + SETTLES;
                    }
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the cluster is away: nothing is served until it answers; it is asked again every {} s",
                        AWAY.as_secs()
                    );
                    tokio::time::sleep(AWAY).await;
                }
                done => return done,
            }
        }
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.0.server
    }

    /// Leases in the namespace that Secrets are in: who leads what among the instances on this cluster.
    pub fn leases(&self) -> KubernetesLeases {
        KubernetesLeases::new(self.0.client.clone(), &self.0.namespace)
    }

    /// The namespace that Secrets are in.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }
}

impl Inner {
    fn place(&self, kind: Kind) -> Place<'_> {
        if kind == Kind::SECRET {
            Place::Secrets { namespace: &self.namespace }
        } else if self.is_theirs(kind) {
            Place::Tinkerbell { namespace: &self.namespace, kind }
        } else {
            Place::Custom { group: &self.group, kind }
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let place = self.place(key.kind);
        if !object::may_be_a_name(&key.name) {
            return Ok(None);
        }
        let doing = Doing::object("get", key, place);
        match self.call(doing, "GET", &place.one(&key.name), None).await {
            Ok(found) => self.read(key.kind, found).await,
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a write to a version that can be none of this store's gives.
    async fn stale(&self, key: &Key) -> StoreError {
        match self.get(key).await {
            Ok(Some(_)) => StoreError::Conflict { key: key.clone() },
            Ok(None) => StoreError::NotFound { key: key.clone() },
            Err(error) => error,
        }
    }

    async fn create(&self, record: Record, key: Key) -> Result<Record> {
        let place = self.place(key.kind);
        let body = if self.is_theirs(key.kind) { self.creation(&record).await? } else { place.creation(&record)? };
        match self.call(Doing::object("create", &key, place), "POST", &place.all(), Some(body)).await {
            Ok(created) => self.written(&key, created).await,
            // The name is taken, but by what is none of ours.
            Err(StoreError::AlreadyExists { .. }) if key.kind == Kind::SECRET && self.get(&key).await?.is_none() => {
                let what = format!(
                    "the namespace `{}` has a Secret of this name whose type is not {}; choose another name",
                    self.namespace,
                    secret::TYPE
                );
                Err(StoreError::Invalid { key, store: NAME, what })
            }
            Err(error) => Err(error),
        }
    }

    async fn change(&self, record: Record, key: Key, part: Part, version: &str) -> Result<Record> {
        if !object::is_version(version) || !object::may_be_a_name(&key.name) {
            return Err(self.stale(&key).await);
        }
        let place = self.place(key.kind);
        let path = match part {
            Part::Spec => place.one(&key.name),
            Part::Status => place.status(&key)?,
        };
        let patch = if self.is_theirs(key.kind) {
            self.patch(&record, &key, part, version).await?
        } else {
            place.patch(&record, part, version)?
        };
        let written = self.call(Doing::object("patch", &key, place), "PATCH", &path, Some(patch)).await?;
        self.written(&key, written).await
    }

    async fn written(&self, key: &Key, answer: Value) -> Result<Record> {
        let read = self.read(key.kind, answer).await?;
        // Only a Secret whose type is another's reads as nothing.
        read.ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        if !object::is_version(version) || !object::may_be_a_name(&key.name) {
            return Err(self.stale(key).await);
        }
        let place = self.place(key.kind);
        let body = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "resourceVersion": version },
        });
        self.call(Doing::object("delete", key, place), "DELETE", &place.one(&key.name), Some(body)).await?;
        Ok(())
    }
}

/// Without Tinkerbell, every object is read and written as it stands.
#[cfg(not(feature = "tinkerbell"))]
#[allow(clippy::unused_self)]
impl Inner {
    const fn is_theirs(&self, _: Kind) -> bool {
        false
    }

    async fn read(&self, kind: Kind, object: Value) -> Result<Option<Record>> {
        self.place(kind).read(kind, object)
    }

    async fn read_all(&self, kind: Kind, objects: Vec<Value>) -> Result<Vec<Record>> {
        let read = objects.into_iter().filter_map(|object| self.place(kind).read(kind, object).transpose());
        read.collect()
    }

    async fn creation(&self, record: &Record) -> Result<Value> {
        self.place(record.kind).creation(record)
    }

    async fn patch(&self, record: &Record, _: &Key, part: Part, version: &str) -> Result<Value> {
        self.place(record.kind).patch(record, part, version)
    }

    const fn forget(&self, _: Kind, _: &Record) {}
}

#[async_trait]
impl Store for KubernetesStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.0.get(key).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.0.list(kind, selector, limit, from).await
    }

    async fn put(&self, mut record: Record, part: Part, when: When) -> Result<Record> {
        let key = Key::new(record.kind, record.metadata.name.clone());
        match when {
            When::Absent if part == Part::Status => Err(match self.0.stale(&key).await {
                StoreError::Conflict { key } => StoreError::AlreadyExists { key },
                other => other,
            }),
            When::Absent => {
                record.status = Value::Null;
                rules::encode(&record)?;
                self.0.create(record, key).await
            }
            When::Unchanged(version) => {
                rules::encode(&record)?;
                self.0.change(record, key, part, &version).await
            }
        }
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.0.delete(key, version).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        watch::watch(Arc::clone(&self.0), kind, from)
    }
}
