//! Where objects are kept.
//!
//! A store promises compare-and-swap on one object and a faithful watch, nothing more: that is
//! what a redb file and a Kubernetes API server have in common. Each promise is a named test in
//! `testing::store`.
//!
//! A store of one's own keeps bytes and a counter: [`rules`] decides what a write means and [`feed`]
//! makes the watches. `examples/store` is one over SQLite.

pub mod ext;
pub mod feed;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;
pub mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::Source;
use crate::resource::{DecodeError, Kind, Record};

#[cfg(feature = "kubernetes")]
pub use self::kubernetes::KubernetesStore;
#[cfg(feature = "redb")]
pub use self::redb::RedbStore;
pub use ext::StoreExt;
pub use memory::MemoryStore;

/// What a store call gives.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One object by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its `metadata.name`.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// A `resourceVersion` as a number, when it is one. Later writes have higher numbers in the stores
/// here, and in Kubernetes, which lets clients compare them since 1.35. For caches; everybody else
/// compares versions for equality only.
pub fn order(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// The half of an object that a write changes. The other half stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `spec`, labels, annotations and finalizers. A changed `spec` counts up `generation`.
    Spec,
    /// `status`.
    Status,
}

/// The condition a write depends on. There is no blind overwrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// It does not exist: create it. A status given with it is left out, as Kubernetes does.
    Absent,
    /// It still has this `resourceVersion`.
    Unchanged(String),
}

/// Which objects of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have these values. Empty selects all.
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Every object.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether an object is meant.
    pub fn matches(&self, record: &Record) -> bool {
        self.labels.iter().all(|(key, value)| record.metadata.labels.get(key) == Some(value))
    }
}

/// Some objects of a kind, ordered by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The objects.
    pub items: Vec<Record>,
    /// Give this to the next call for those that follow; `None` when there are no more.
    pub more: Option<String>,
    /// The `resourceVersion` that this was read at: a [`watch`](Store::watch) from it tells every later
    /// change. Of several pages the first one's counts, since the others were read later.
    pub version: String,
}

/// What a watch says. Objects are shared: many may listen to one write.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Everything of this kind, now. Replaces all that came before: a watch starts with one unless
    /// it resumes, and sends another whenever it can no longer vouch for every change between.
    Snapshot(Vec<Record>),
    /// It was created or changed, and is now this.
    Applied(Arc<Record>),
    /// It is gone; this is what it was, with the version of its deletion.
    Deleted(Arc<Record>),
}

/// Why a store call failed, by what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such object.
    #[error("{key} does not exist")]
    NotFound {
        /// Which.
        key: Key,
    },
    /// There is one already.
    #[error("{key} already exists")]
    AlreadyExists {
        /// Which.
        key: Key,
    },
    /// It changed since it was read: read it again.
    #[error("{key} changed since it was read")]
    Conflict {
        /// Which.
        key: Key,
    },
    /// It is larger than an object may be.
    #[error("{key} has {bytes} bytes; an object may have {}", crate::resource::MAX_OBJECT_BYTES)]
    TooLarge {
        /// Which.
        key: Key,
        /// How large.
        bytes: usize,
    },
    /// The store takes no such object.
    #[error("{key} is refused by the {store} store: {what}")]
    Invalid {
        /// Which.
        key: Key,
        /// Which store.
        store: &'static str,
        /// What is wrong with it, in the store's words.
        what: String,
    },
    /// What is stored cannot be read.
    #[error("a stored object cannot be read")]
    Decode(#[from] DecodeError),
    /// The store cannot be reached, or is full, or is being used by another: try later.
    #[error("the {store} store is unavailable: {what}")]
    Unavailable {
        /// Which store.
        store: &'static str,
        /// What a person can do about it.
        what: String,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
    /// The store failed in a way that trying again does not mend.
    #[error("the {store} store failed")]
    Backend {
        /// Which store.
        store: &'static str,
        /// The cause.
        #[source]
        source: Source,
    },
}

impl StoreError {
    /// Whether reading and writing again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Unavailable { .. })
    }
}

/// Where objects are kept. Five methods, each a promise to the engine.
///
/// The trait binds those who write stores; those who use one take `StoreExt`.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The object, or `None`: absence is an answer, not an error.
    async fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// Objects of one kind in the order of their names, `limit` at most (0: all), beginning after
    /// the place that `from` names.
    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page>;

    /// Writes one part if `when` holds, and returns the whole object as it now is. The store sets
    /// `uid`, `creationTimestamp`, `generation` and `resourceVersion`.
    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record>;

    /// Deletes it if it still has this `resourceVersion`.
    async fn delete(&self, key: &Key, version: &str) -> Result<()>;

    /// Everything of this kind now, then every change, in the order of the writes. With `from`, a
    /// `resourceVersion` seen earlier, the changes since then instead of the snapshot, if the store
    /// still has them all. Ends only when the store closes.
    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>>;
}

macro_rules! forward {
    ($ty:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Store + ?Sized> Store for $ty {
            async fn get(&self, key: &Key) -> Result<Option<Record>> {
                (**self).get(key).await
            }
            async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
                (**self).list(kind, selector, limit, from).await
            }
            async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
                (**self).put(record, part, when).await
            }
            async fn delete(&self, key: &Key, version: &str) -> Result<()> {
                (**self).delete(key, version).await
            }
            fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
                (**self).watch(kind, from)
            }
        }
    };
}
forward!(Arc<T>);
forward!(Box<T>);
