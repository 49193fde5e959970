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
mod assign;
mod boot;
mod builder;
mod cards;
#[cfg(feature = "proxmox")]
mod clusters;
mod dhcp;
mod ending;
pub mod error;
mod fill;
mod found;
mod greetings;
mod hello;
mod home;
mod identity;
mod import;
mod links;
mod logs;
mod network;
mod newcomers;
mod objects;
mod operate;
mod others;
mod power;
mod proof;
mod question;
pub mod render;
mod report;
mod resources;
pub mod restore;
mod room;
mod rules;
pub mod sessions;
mod settings;
pub mod settle;
mod shared;
mod strangers;
mod sweep;
mod tell;
mod timeline;
mod tinkerbell;
mod token;
mod unknown;
mod values;
mod waiting;
mod why;
mod work;
mod write;
mod written;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Mac;
use crate::action::{Progress, TemplateChecker};
use crate::cache::Cache;
use crate::clock::{Clock, Timestamp};
use crate::coordinate::Coordinator;
use crate::event::Events;
use crate::power::Dispatcher;
use crate::resource::{Network, NetworkSpec};
use crate::secret::SealingKey;
use crate::store::Store;
use crate::timeline::Recorder;
use strangers::Strangers;

pub use assign::{AssignRequest, ReimageRequest};
pub use builder::EngineBuilder;
#[cfg(feature = "proxmox")]
pub use clusters::{ClusterSource, ClusterView, Clusters, Snapshots};
pub use error::EngineError;
pub use found::{CLUSTER_LABEL, DOUBLED, GONE, NAME_LABEL, NODE_LABEL, VMID_LABEL};
pub use home::PHONE_HOME;
pub use import::Imported;
pub use links::{ImageLinks, OpenLinks};
pub use power::{BmcRequest, BmcTested, POWERED};
pub use resources::{Applied, Change};
#[cfg(feature = "testing")]
pub use rules::Rule;
pub use settings::Settings;
pub use timeline::MachineTimeline;
pub use tinkerbell::Runner;
pub use why::Why;
pub use write::{Deletion, Write};

/// What a call on the engine gives.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

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
    greetings: Mutex<greetings::Greetings>,
    /// Of which machines it was told lately that an agent was refused. A measure of its own: whoever is refused must not
    /// keep out who is not.
    refusals: Mutex<greetings::Greetings>,
    waiting: waiting::Waiting,
    cards: cards::Cards,
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

impl Engine {
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
