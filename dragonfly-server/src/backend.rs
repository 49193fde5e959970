//! Where a server keeps its state: what `--backend` names.
//!
//! The embedded store is one implementation of [`Backend`]; a program of one's own adds others with
//! [`cli::main_with`](crate::cli::main_with).

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use dragonfly_core::action::TemplateChecker;
use dragonfly_core::coordinate::{Coordinator, LeaseStore, Leases, Timing};
use dragonfly_core::engine::Runner;
use dragonfly_core::near::did_you_mean;
use dragonfly_core::store::{RedbStore, Store};

use crate::config::{BackendName, Config, Mode};
use crate::kubernetes::{Kubernetes, Tinkerbell};

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
    /// Where servers on the same store keep who leads what; mode `swarm` needs it.
    pub leases: Option<Arc<dyn LeaseStore>>,
    /// Who carries workflows out.
    pub runner: Runner,
    /// Who judges templates, where that is not who judges those of our own agent.
    pub checker: Option<Arc<dyn TemplateChecker>>,
}

impl Opened {
    /// A store that looks after itself and ends when it is dropped.
    pub fn new(store: impl Store) -> Self {
        let (runner, checker) = (Runner::default(), None);
        Self { store: Arc::new(store), embedded: None, leases: None, runner, checker }
    }

    /// Its servers keep there who leads what.
    #[must_use]
    pub fn with_leases(mut self, leases: Arc<dyn LeaseStore>) -> Self {
        self.leases = Some(leases);
        self
    }

    /// Its workflows are carried out by others, who take templates that `checker` takes.
    #[must_use]
    pub fn with_runner(mut self, runner: Runner, checker: Arc<dyn TemplateChecker>) -> Self {
        self.runner = runner;
        self.checker = Some(checker);
        self
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
        Ok(Opened { embedded: Some(store.clone()), ..Opened::new(store) })
    }
}

/// Every kind of store that a server knows.
#[derive(Debug, Clone)]
pub struct Backends(Vec<Arc<dyn Backend>>);

impl Default for Backends {
    fn default() -> Self {
        Self(vec![Arc::new(Redb), Arc::new(Kubernetes), Arc::new(Tinkerbell)])
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

/// Who does what among the servers on a store; `None` where there is one.
pub(crate) fn coordinator(
    config: &Config,
    opened: &Opened,
    hostname: Option<&str>,
) -> anyhow::Result<Option<Arc<dyn Coordinator>>> {
    if config.mode != Mode::Swarm {
        return Ok(None);
    }
    let leases = opened.leases.clone().with_context(|| {
        format!(
            "mode `swarm`: the store `{}` keeps no leases, so its servers cannot agree on who leads",
            config.backend
        )
    })?;
    let instance = config.instance.clone().unwrap_or_else(|| instance_name(hostname));
    Ok(Some(Arc::new(Leases::new(leases, instance, Timing::default()))))
}

/// A host's name with a random part: two servers on one host are two.
fn instance_name(hostname: Option<&str>) -> String {
    let host: String = hostname.unwrap_or_default().to_lowercase();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("dragonfly");
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}", random.get(..5).unwrap_or_default())
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
    fn servers_on_one_store_agree_by_leases_and_each_has_a_name() {
        use dragonfly_core::store::MemoryStore;
        use dragonfly_core::testing::MemoryLeases;
        let config = |mode, instance: Option<&str>| {
            let instance = instance.map(str::to_owned);
            crate::config::Options { mode: Some(mode), instance, ..Default::default() }.settle().unwrap()
        };
        let opened = Opened::new(MemoryStore::default());
        assert!(coordinator(&config(Mode::Simple, None), &opened, None).unwrap().is_none());
        let told = coordinator(&config(Mode::Swarm, None), &opened, None).unwrap_err().to_string();
        assert!(told.contains("swarm") && told.contains("leases"), "{told}");
        let opened = opened.with_leases(Arc::new(MemoryLeases::default()));
        let named = |instance, host| {
            let one = coordinator(&config(Mode::Swarm, instance), &opened, host).unwrap().unwrap();
            one.instance().to_owned()
        };
        assert_eq!(named(Some("a"), Some("host")), "a");
        let [one, two] = [(); 2].map(|()| named(None, Some("Rack-7.example.org")));
        assert!(one.starts_with("rack-7-") && two.starts_with("rack-7-") && one != two, "{one} {two}");
        assert!(named(None, None).starts_with("dragonfly-"));
    }

    #[test]
    fn a_store_is_found_by_name_and_a_wrong_name_is_told() {
        let name = |word: &str| word.parse::<BackendName>().unwrap();
        assert_eq!(Backends::default().find(&name("redb")).unwrap().name(), "redb");
        assert_eq!(Backends::default().with(Other).find(&name("other")).unwrap().name(), "other");
        let told = Backends::default().find(&name("rdb")).unwrap_err().to_string();
        assert!(told.contains("`rdb`") && told.contains("redb"), "{told}");
        let told = Backends::default().find(&name("other")).unwrap_err().to_string();
        assert!(told.contains("there are: redb, kubernetes, tinkerbell"), "{told}");
    }
}
