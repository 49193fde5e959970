//! Where a server keeps its state: what `--backend` names.
//!
//! The embedded store is one implementation of [`Backend`]; a program of one's own adds others with
//! [`cli::main_with`](crate::cli::main_with).

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use dragonfly_core::near::did_you_mean;
use dragonfly_core::store::{RedbStore, Store};

use crate::config::{BackendName, Config, Mode};

/// The embedded store's file, in the data directory.
pub(crate) const STORE_FILE: &str = "dragonfly.redb";

/// A kind of store that a server can be told to use.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What `--backend` calls it: lower-case letters, digits and `-`.
    fn name(&self) -> &'static str;

    /// Whether several servers may use one at the same time, which mode `swarm` needs.
    fn is_shared(&self) -> bool {
        false
    }

    /// Opens it. Called first of all: what servers on one store share (keys, certificates) can be put into the data
    /// directory here, before it is read or made.
    async fn open(&self, config: &Config) -> anyhow::Result<Opened>;
}

/// A store that is open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same, if it is the embedded one: this server backs it up, knows whether it was restored, and closes it.
    pub embedded: Option<RedbStore>,
}

impl Opened {
    /// A store that looks after itself and ends when it is dropped.
    pub fn new(store: impl Store) -> Self {
        Self { store: Arc::new(store), embedded: None }
    }
}

/// One file in the data directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Redb;

#[async_trait]
impl Backend for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    async fn open(&self, config: &Config) -> anyhow::Result<Opened> {
        let path = config.data.join(STORE_FILE);
        let store =
            tokio::task::spawn_blocking(move || RedbStore::open(path)).await?.context("the store cannot be opened")?;
        Ok(Opened { store: Arc::new(store.clone()), embedded: Some(store) })
    }
}

/// Every kind of store that a server knows.
#[derive(Debug, Clone)]
pub struct Backends(Vec<Arc<dyn Backend>>);

impl Default for Backends {
    fn default() -> Self {
        Self(vec![Arc::new(Redb)])
    }
}

impl Backends {
    /// One more; it comes in the place of one of the same name.
    #[must_use]
    pub fn with(mut self, backend: impl Backend) -> Self {
        self.0.retain(|known| known.name() != backend.name());
        self.0.push(Arc::new(backend));
        self
    }

    /// The one of this name.
    ///
    /// # Errors
    /// There is none; the error names those that there are.
    pub fn find(&self, name: &BackendName) -> Result<Arc<dyn Backend>, UnknownBackend> {
        self.0.iter().find(|known| known.name() == name.as_str()).cloned().ok_or_else(|| {
            let known: Vec<_> = self.0.iter().map(|known| known.name()).collect();
            let meant = did_you_mean(name.as_str(), known.iter().copied());
            UnknownBackend {
                name: name.clone(),
                meant: meant.unwrap_or_else(|| format!("there are: {}", known.join(", "))),
            }
        })
    }
}

/// No store of this build is called so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend `{name}` is not part of this build; {meant}. Set it with --backend or DRAGONFLY_BACKEND")]
pub struct UnknownBackend {
    /// The name.
    pub name: BackendName,
    meant: String,
}

/// Refuses a mode that a store cannot carry.
pub(crate) fn check_mode(config: &Config, backend: &dyn Backend) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.mode != Mode::Swarm || backend.is_shared(),
        "mode `swarm` needs a store that several servers share, and {} is one server's; use mode `simple` or `flight`, \
         or another --backend",
        backend.name()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Other;

    #[async_trait]
    impl Backend for Other {
        fn name(&self) -> &'static str {
            "other"
        }

        async fn open(&self, _: &Config) -> anyhow::Result<Opened> {
            anyhow::bail!("never opened here")
        }
    }

    #[test]
    fn a_mode_for_several_servers_wants_a_store_for_several() {
        let config = |mode| crate::config::Options { mode: Some(mode), ..Default::default() }.settle().unwrap();
        let told = check_mode(&config(Mode::Swarm), &Redb).unwrap_err().to_string();
        assert!(told.contains("swarm") && told.contains("redb"), "{told}");
        assert!(check_mode(&config(Mode::Flight), &Redb).is_ok());
    }

    #[test]
    fn a_store_is_found_by_name_and_a_wrong_name_is_told() {
        let name = |word: &str| word.parse::<BackendName>().unwrap();
        assert_eq!(Backends::default().find(&name("redb")).unwrap().name(), "redb");
        assert_eq!(Backends::default().with(Other).find(&name("other")).unwrap().name(), "other");
        let told = Backends::default().find(&name("rdb")).unwrap_err().to_string();
        assert!(told.contains("`rdb`") && told.contains("redb"), "{told}");
        let told = Backends::default().find(&name("other")).unwrap_err().to_string();
        assert!(told.contains("there are: redb"), "{told}");
    }
}
