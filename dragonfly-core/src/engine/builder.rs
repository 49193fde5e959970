//! What an engine is built from, and how it starts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

#[cfg(feature = "testing")]
use super::Rule;
#[cfg(feature = "proxmox")]
use super::clusters::{self, Clusters};
use super::{
    Engine, ImageLinks, Inner, OpenLinks, Result, Settings, dhcp, logs, others, power, restore, sessions, tinkerbell,
    token, waiting,
};
use crate::action::TemplateChecker;
use crate::cache::Cache;
use crate::clock::{Clock, SystemClock};
use crate::coordinate::{Alone, Coordinator};
use crate::event::Events;
use crate::power::{Dispatcher, Limits, PowerDrivers};
use crate::resource::HardwareSpec;
use crate::secret::SealingKey;
use crate::store::Store;
use crate::timeline::Recorder;

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
    pub(super) without: Option<Rule>,
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
            greetings: Mutex::default(),
            refusals: Mutex::default(),
            waiting: waiting::Waiting::default(),
            cards: super::cards::Cards::default(),
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
}
