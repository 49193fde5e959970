//! The engine: what joins resources, store, boot decision and agents. The only writer of `status`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use dragonfly_core::engine::Engine;
//! use dragonfly_core::secret::SealingKey;
//! use dragonfly_core::store::memory::MemoryStore;
//! # #[derive(Debug)] struct Anything;
//! # impl dragonfly_core::action::TemplateChecker for Anything {
//! #     fn check(&self, _: &dragonfly_core::resource::TemplateSpec) -> Vec<dragonfly_core::action::Problem> { Vec::new() }
//! # }
//! let store = Arc::new(MemoryStore::new(Arc::new(dragonfly_core::clock::SystemClock)));
//! let engine = Engine::builder(store, SealingKey::generate()?, Arc::new(Anything)).build().await?;
//! let machine = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: a}, spec: {serial: SN-1}}";
//! engine.apply(machine, "me").await?;
//! # Ok(()) }
//! ```

mod admission;
pub mod anchors;
mod boot;
#[cfg(feature = "proxmox")]
mod clusters;
mod dhcp;
pub mod error;
mod fill;
mod found;
mod hello;
mod home;
mod identity;
mod import;
mod logs;
mod network;
mod newcomers;
mod operate;
mod others;
mod power;
pub mod render;
mod report;
mod resources;
pub mod restore;
mod room;
mod rules;
pub mod sessions;
pub mod settle;
mod shared;
mod strangers;
mod sweep;
mod timeline;
mod tinkerbell;
mod token;
mod unknown;
mod values;
mod why;
mod work;
mod write;
mod written;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use url::Url;

use crate::Mac;
use crate::action::{Progress, TemplateChecker};
use crate::boot::Discovery;
use crate::cache::{Cache, Cached};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::coordinate::{Alone, Coordinator};
use crate::event::{Events, NewEvent};
use crate::power::{Dispatcher, Limits, PowerDrivers};
use crate::resource::power::PowerPolicy;
use crate::resource::{HardwareSpec, Network, NetworkSpec, Record, Resource};
use crate::secret::SealingKey;
use crate::store::ext::StoreExt;
use crate::store::{Part, Store, When};
use crate::text;
use crate::timeline::{Recorder, What, Whose};
use strangers::Strangers;

#[cfg(feature = "proxmox")]
pub use clusters::{ClusterSource, ClusterView, Clusters, Snapshots};
pub use error::EngineError;
pub use found::{CLUSTER_LABEL, DOUBLED, GONE, NAME_LABEL, NODE_LABEL, VMID_LABEL};
pub use home::PHONE_HOME;
pub use import::Imported;
pub use operate::{AssignRequest, ReimageRequest};
pub use power::{BmcRequest, BmcTested, POWERED};
pub use resources::{Applied, Change};
#[cfg(feature = "testing")]
pub use rules::Rule;
pub use timeline::MachineTimeline;
pub use tinkerbell::Runner;
pub use why::Why;
pub use write::{Deletion, Write};

/// What a call on the engine gives.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done with machines that nobody has seen.
    pub discovery: Discovery,
    /// Where machines reach this server; `None` takes the address that they asked.
    pub server_url: Option<Url>,
    /// Where machines reach other instances on the same store, that hold the same keys: goes into every identity.
    pub also: Vec<Url>,
    /// Which region this instance is in: it serves that region's Networks and those without one.
    pub region: Option<String>,
    /// SHA-256 of the server's public key, 64 hex digits: goes into every identity.
    pub server_pin: String,
    /// Who carries workflows out.
    pub runner: Runner,
    /// How many attempts a workflow makes by itself.
    pub attempts: u32,
    /// How long an authorisation lasts.
    pub authorisation_life: Duration,
    /// A machine whose agent is silent for this long while it runs a workflow has failed.
    pub agent_deadline: Duration,
    /// An installed system that was told to phone home and did not within this time has not booted.
    pub boot_deadline: Duration,
    /// What is done with a machine's power when something is assigned to it and nobody says otherwise.
    pub power: PowerPolicy,
    /// How often each controller is asked whether its machine is on; one that does not answer is asked ever less often.
    pub power_period: Duration,
    /// Whether agents make an account of our own on a machine's controller where none is known (`spec.bmc`). Whoever
    /// opens a session as a machine is then given its password: for provisioning networks without strangers.
    pub bmc_accounts: bool,
    /// How many machines there may be that registered themselves and that nobody has had anything to do with
    /// ([`Hardware::is_unclaimed`](crate::resource::Hardware::is_unclaimed)): with more, new ones are refused.
    pub unclaimed: usize,
    /// The most that all agents' logs may take on the disk, in bytes: then the oldest are deleted.
    pub log_bytes: u64,
    /// Proxmox clusters whose VMs are machines.
    #[cfg(feature = "proxmox")]
    pub clusters: Vec<ClusterSource>,
    /// How often each of them is looked at; one that does not answer is asked ever less often.
    #[cfg(feature = "proxmox")]
    pub cluster_period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            discovery: Discovery::Local,
            server_url: None,
            also: Vec::new(),
            region: None,
            server_pin: String::new(),
            runner: Runner::default(),
            attempts: 3,
            authorisation_life: Duration::from_secs(24 * 3600),
            agent_deadline: Duration::from_secs(15 * 60),
            boot_deadline: Duration::from_secs(30 * 60),
            power: PowerPolicy::Cycle,
            power_period: Duration::from_secs(5 * 60),
            bmc_accounts: false,
            unclaimed: 10_000,
            log_bytes: 1 << 30,
            #[cfg(feature = "proxmox")]
            clusters: Vec::new(),
            #[cfg(feature = "proxmox")]
            cluster_period: Duration::from_secs(60),
        }
    }
}

/// Makes links to this server's own images, as `/images/debian.raw.zst`, that a machine can fetch.
#[async_trait]
pub trait ImageLinks: fmt::Debug + Send + Sync + 'static {
    /// The whole URL, with whatever proves that it may be fetched.
    fn link(&self, server: &Url, path: &str) -> String;

    /// What is wrong with the image behind this path and what to do, if it cannot be fetched now. Asked before a
    /// machine is authorised. Whoever does not know keeps this.
    async fn missing(&self, path: &str) -> Option<String> {
        let _ = path;
        None
    }
}

/// Links without proof: for an image directory that is open to all.
#[derive(Debug, Clone, Copy)]
pub struct OpenLinks;

impl ImageLinks for OpenLinks {
    fn link(&self, server: &Url, path: &str) -> String {
        server.join(path).map_or_else(|_| path.to_owned(), Into::into)
    }
}

/// The engine. A clone is the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    coordinator: Arc<dyn Coordinator>,
    cache: Cache,
    clock: Arc<dyn Clock>,
    /// When this engine began to hear agents.
    started: Timestamp,
    events: Events,
    recorder: Recorder,
    key: SealingKey,
    tokens: token::Signer,
    session_keys: token::Signer,
    homing: token::Signer,
    settings: Settings,
    checker: Arc<dyn TemplateChecker>,
    images: Arc<dyn ImageLinks>,
    logs: Option<Arc<logs::Shelf>>,
    sessions: sessions::Sessions,
    /// What we wrote ourselves of specs, where others may write too.
    own: others::Own,
    following: tinkerbell::Following,
    /// Progress of steps at work: told live, made durable only with the step's end.
    progress: Mutex<HashMap<String, (u32, usize, Progress)>>,
    /// Which card asks from which address: files are fetched without naming the machine.
    seen_at: Mutex<HashMap<IpAddr, Mac>>,
    strangers: Mutex<Strangers>,
    newcomers: Mutex<newcomers::Newcomers>,
    /// Secrets that could not be opened when this was first asked.
    unopened: Mutex<Option<Vec<String>>>,
    /// One writer per machine at a time, in this process.
    locks: Vec<tokio::sync::Mutex<()>>,
    networks: watch::Sender<Vec<Network>>,
    power: Dispatcher,
    boots: power::Boots,
    answering: dhcp::Answering,
    #[cfg(feature = "proxmox")]
    cluster_driver: Arc<dyn Clusters>,
    #[cfg(feature = "proxmox")]
    clusters: clusters::Followed,
    #[cfg(feature = "testing")]
    without: Option<Rule>,
}

/// What an engine is built from. The required things are arguments of [`Engine::builder`].
#[derive(Debug)]
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    key: SealingKey,
    checker: Arc<dyn TemplateChecker>,
    clock: Arc<dyn Clock>,
    coordinator: Arc<dyn Coordinator>,
    settings: Settings,
    images: Arc<dyn ImageLinks>,
    logs: Option<PathBuf>,
    power: Dispatcher,
    #[cfg(feature = "proxmox")]
    clusters: Arc<dyn Clusters>,
    restored: bool,
    #[cfg(feature = "testing")]
    without: Option<Rule>,
}

impl EngineBuilder {
    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Who does what among instances on this store; without, this one is alone on it.
    #[must_use]
    pub fn coordinator(mut self, coordinator: Arc<dyn Coordinator>) -> Self {
        self.coordinator = coordinator;
        self
    }

    /// Other settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Other links to images.
    #[must_use]
    pub fn images(mut self, images: Arc<dyn ImageLinks>) -> Self {
        self.images = images;
        self
    }

    /// Keep agents' logs in this directory: 8 MiB an attempt, the last four of each machine, 16 MiB of it, and
    /// [`Settings::log_bytes`] in all.
    #[must_use]
    pub fn logs(mut self, directory: PathBuf) -> Self {
        self.logs = Some(directory);
        self
    }

    /// Who talks to machines' controllers; without, no machine has one.
    #[must_use]
    pub fn power(mut self, power: Dispatcher) -> Self {
        self.power = power;
        self
    }

    /// Who opens the clusters in [`Settings::clusters`]; without, a driver that trusts no certificate authorities.
    #[cfg(feature = "proxmox")]
    #[must_use]
    pub fn clusters(mut self, clusters: Arc<dyn Clusters>) -> Self {
        self.clusters = clusters;
        self
    }

    /// The store is a backup that was put in its place: whatever it allows is void, and the machines
    /// that it was for are held until a person releases them.
    #[must_use]
    pub fn restored(mut self, restored: bool) -> Self {
        self.restored = restored;
        self
    }

    /// Reads what is stored and stands ready. Nothing runs until [`Engine::run`] does.
    pub async fn build(self) -> Result<Engine> {
        #[cfg(feature = "testing")]
        let (without, forgets) = (self.without, self.without == Some(Rule::HoldRestored));
        #[cfg(not(feature = "testing"))]
        let forgets = false;
        #[cfg(feature = "proxmox")]
        let cluster_driver = self.clusters;
        let Self { store, key, checker, clock, coordinator, settings, images, logs, power, restored, .. } = self;
        let held = if restored && !forgets {
            restore::hold_restored(&store, clock.now()).await?
        } else {
            restore::HeldBack::default()
        };
        let log_bytes = settings.log_bytes;
        let cache = Cache::new();
        cache.load(&*store).await?;
        let inner = Inner {
            tokens: token::Signer::new(&key, "dragonfly boot token v1"),
            session_keys: token::Signer::new(&key, "dragonfly session v1"),
            homing: token::Signer::new(&key, "dragonfly phone home v1"),
            store,
            coordinator,
            cache,
            started: clock.now(),
            clock,
            events: Events::default(),
            recorder: Recorder::default(),
            key,
            settings,
            checker,
            images,
            logs: logs.map(|directory| Arc::new(logs::Shelf::new(directory, log_bytes))),
            sessions: sessions::Sessions::default(),
            own: others::Own::default(),
            following: tinkerbell::Following::default(),
            progress: Mutex::default(),
            seen_at: Mutex::default(),
            strangers: Mutex::default(),
            newcomers: Mutex::default(),
            unopened: Mutex::default(),
            locks: (0..64).map(|_| tokio::sync::Mutex::new(())).collect(),
            networks: watch::Sender::new(Vec::new()),
            power,
            boots: power::Boots::default(),
            answering: dhcp::Answering::default(),
            #[cfg(feature = "proxmox")]
            cluster_driver,
            #[cfg(feature = "proxmox")]
            clusters: clusters::Followed::default(),
            #[cfg(feature = "testing")]
            without,
        };
        let engine = Engine { inner: Arc::new(inner) };
        engine.refresh_networks();
        for name in &held.machines {
            let why = engine.inner.cache.get::<HardwareSpec>(name).map(|m| m.status.message.clone());
            engine.tell("machine.held", name, None, why.unwrap_or_default());
        }
        // What is only told, the periodic pass tells: a start does not wait for it, however many machines there are.
        // Among several, whoever leads mends.
        if !engine.is_shared() && !engine.is_tinkerbells() {
            match engine.mend().await {
                Err(error) if error.is_of_the_store() => return Err(error),
                // One run that cannot be written is no reason for all machines to wait: the periodic pass tells of it.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "not every run could be mended")
                }
                Ok(()) => {}
            }
        }
        Ok(engine)
    }
}

impl Engine {
    /// An engine over this store. `key` seals secrets and signs proofs; `checker` judges templates.
    pub fn builder(store: Arc<dyn Store>, key: SealingKey, checker: Arc<dyn TemplateChecker>) -> EngineBuilder {
        EngineBuilder {
            store,
            key,
            checker,
            clock: Arc::new(SystemClock),
            coordinator: Arc::new(Alone),
            settings: Settings::default(),
            images: Arc::new(OpenLinks),
            logs: None,
            power: Dispatcher::new(PowerDrivers::new(), Limits::default()),
            #[cfg(feature = "proxmox")]
            clusters: Arc::new(crate::power::proxmox::Proxmox::default()),
            restored: false,
            #[cfg(feature = "testing")]
            without: None,
        }
    }

    /// What just happened, for whoever listens.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// The settings it was built with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The in-memory view of everything stored.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// The networks on which boot services are to answer, as they are now and whenever they change.
    pub fn networks(&self) -> watch::Receiver<Vec<Network>> {
        self.inner.networks.subscribe()
    }

    /// The engine's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn refresh_networks(&self) {
        let all = self.inner.cache.all::<NetworkSpec>();
        let networks: Vec<Network> = all.iter().filter(|n| self.serves(n)).map(|n| self.seen_here(n)).collect();
        self.inner.networks.send_if_modified(|old| {
            let changed = *old != networks;
            if changed {
                *old = networks;
            }
            changed
        });
    }

    fn tell(&self, kind: &'static str, machine: &str, workflow: Option<&str>, message: impl Into<String>) {
        self.tell_with(kind, machine, workflow, message, serde_json::Value::Null);
    }

    fn tell_with(
        &self,
        kind: &'static str,
        machine: &str,
        workflow: Option<&str>,
        message: impl Into<String>,
        data: serde_json::Value,
    ) {
        let message = text::harmless_lines(&message.into()).into_owned();
        tracing::info!(kind, machine, workflow, "{message}");
        self.publish(kind, machine, workflow, message, data);
    }

    /// Tells it without a line in the log, which stands there for many at once.
    fn publish(
        &self,
        kind: &'static str,
        machine: &str,
        workflow: Option<&str>,
        message: String,
        data: serde_json::Value,
    ) {
        // A name that is no machine's would cost memory for ever.
        if self.inner.cache.get::<HardwareSpec>(machine).is_some() {
            let what = What::Told { kind: kind.into(), message: message.clone() };
            self.inner.recorder.record(Whose::Machine(machine), None, self.now(), what);
        }
        let event = NewEvent {
            kind,
            machine: (!machine.is_empty()).then(|| machine.to_owned()),
            workflow: workflow.map(str::to_owned),
            message,
            data,
        };
        self.inner.events.publish(self.now(), event);
    }

    /// Held while a machine's objects are changed.
    async fn lock(&self, machine: &str) -> tokio::sync::MutexGuard<'_, ()> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        machine.hash(&mut hasher);
        let locks = &self.inner.locks;
        // The list is never empty and the index is below its length.
        let index = (hasher.finish() % locks.len() as u64) as usize;
        locks[index].lock().await
    }

    /// Reads, changes and writes one status; again when somebody else wrote meanwhile. `change` may
    /// run more than once and may refuse.
    async fn change_status<S: Cached, T: Send>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Resource<S>) -> Result<T> + Send,
    ) -> Result<(Resource<S>, T)> {
        let mut out = None;
        let changed: Resource<S> = self
            .inner
            .store
            .update_status(name, |object: &mut Resource<S>| {
                let before = self.is_shared().then(|| object.status.clone());
                out = Some(change(object)?);
                S::keep_small(&mut object.status);
                if before.is_some_and(|before| before != object.status) {
                    S::written_by(&mut object.status, self.inner.coordinator.instance());
                }
                Ok::<(), EngineError>(())
            })
            .await?;
        self.inner.cache.applied(&changed);
        match out {
            Some(out) => Ok((changed, out)),
            // `update_status` calls the closure before it returns an object.
            None => Err(EngineError::Illegal { why: "the store did not apply a change".to_owned() }),
        }
    }

    /// As [`change_status`](Self::change_status), for a spec.
    async fn change_spec<S: Cached>(
        &self,
        name: &str,
        change: impl FnMut(&mut Resource<S>) -> Result<()> + Send,
    ) -> Result<Resource<S>> {
        let mut writing = self.writing();
        let changed: Resource<S> = self.inner.store.update_spec(name, change).await?;
        writing.wrote(others::version_of(S::KIND, &changed.metadata));
        drop(writing);
        self.inner.cache.applied(&changed);
        Ok(changed)
    }

    async fn create<S: Cached>(&self, object: &Resource<S>) -> Result<Resource<S>> {
        let mut writing = self.writing();
        let created = self.inner.store.create(object).await?;
        writing.wrote(others::version_of(S::KIND, &created.metadata));
        drop(writing);
        self.inner.cache.applied(&created);
        Ok(created)
    }

    /// Writes a spec, labels and annotations as they are given.
    async fn put_spec(&self, record: Record, when: When) -> crate::store::Result<Record> {
        let mut writing = self.writing();
        let written = self.inner.store.put(record, Part::Spec, when).await?;
        writing.wrote(others::version_of(written.kind, &written.metadata));
        Ok(written)
    }

    fn remember_address(&self, from: Option<IpAddr>, card: Mac) {
        let Some(from) = from else { return };
        let mut seen = self.inner.seen_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: strangers choose their addresses.
        if seen.len() >= 65_536 && !seen.contains_key(&from) {
            seen.clear();
        }
        seen.insert(from, card);
    }

    fn card_at(&self, from: IpAddr) -> Option<Mac> {
        self.inner.seen_at.lock().unwrap_or_else(PoisonError::into_inner).get(&from).copied()
    }
}

/// Puts a stored object into the view. One that cannot be read stays out of it and is told.
fn note(cache: &Cache, record: &Record) {
    if let Err(error) = cache.applied_record(record) {
        tracing::error!(error = &error as &dyn std::error::Error, "an object is left out");
    }
}
