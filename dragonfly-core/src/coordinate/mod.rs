//! Which of several instances does what only one may do. The documentation calls this layer Citadel.
//!
//! Instances share a store, and each answers machines, agents and people. Work that nobody asked for (the periodic pass,
//! booting who was assigned something, looking at power, following clusters) is a *controller*: it runs on the instance
//! that [leads](Coordinator::leads) it. A leader knows by its own clock when it ceases to be one, before another can
//! begin. Nothing rests on that alone: what a leader writes, it writes on condition that the object is as it
//! was judged, and what it tells a machine's controller it announces in the store first, with its [`Term`].

mod election;
#[cfg(test)]
mod histories;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod leases;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::Source;

pub use self::election::{Timing, TimingError};
#[cfg(feature = "kubernetes")]
pub use self::kubernetes::KubernetesLeases;
pub use self::leases::{Lease, LeaseStore, Leases};

/// The controller that makes the periodic pass over everything stored.
pub const SWEEP: &str = "sweep";
/// The controller that looks at machines' power, boots who was assigned something and follows clusters. There is one in
/// each region, for controllers of machines are reached from there alone.
pub const POWER: &str = "power";

/// The controller that answers DHCP; each region has one.
pub const DHCP: &str = "dhcp";

/// The name of a controller of which every region has its own.
pub fn regional(controller: &str, region: Option<&str>) -> String {
    region.map_or_else(|| controller.to_owned(), |region| format!("{controller}.{region}"))
}

/// The number of a leadership: a later leader of the same controller has a higher one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who does what among instances that share a store.
#[async_trait]
pub trait Coordinator: fmt::Debug + Send + Sync + 'static {
    /// This instance's name; no other has it.
    fn instance(&self) -> &str;

    /// Whether other instances may stand on the same store. What only this one remembers is not the whole truth then.
    fn is_shared(&self) -> bool;

    /// The term in which this instance leads a controller at this moment. Ask before each act, not once for many.
    fn leads(&self, controller: &str) -> Option<Term>;

    /// Stands for these controllers until told to stop, and gives them up then.
    async fn run(&self, controllers: Vec<String>, cancel: CancellationToken);

    /// Every controller that this instance leads at this moment, by name.
    fn led(&self) -> BTreeMap<String, Term>;
}

/// One instance on a store of its own: it leads everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

#[async_trait]
impl Coordinator for Alone {
    fn instance(&self) -> &str {
        ""
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn leads(&self, _: &str) -> Option<Term> {
        Some(Term(0))
    }

    async fn run(&self, _: Vec<String>, cancel: CancellationToken) {
        cancel.cancelled().await;
    }

    fn led(&self) -> BTreeMap<String, Term> {
        BTreeMap::new()
    }
}

/// Why a call about a lease failed, by what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// There is one already, or it changed since it was read: read it again.
    #[error("lease `{name}` was changed by another")]
    Conflict {
        /// Which.
        name: String,
    },
    /// Nobody knows whether it was done: try again.
    #[error("lease `{name}` cannot be reached")]
    Unavailable {
        /// Which.
        name: String,
        /// The cause.
        #[source]
        source: Source,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_leads_everything() {
        assert_eq!(Alone.leads(SWEEP), Some(Term(0)));
        assert_eq!(Alone.leads(&regional(POWER, Some("fra"))), Some(Term(0)));
        assert!(!Alone.is_shared());
        assert_eq!([regional(POWER, None), regional(POWER, Some("fra"))], ["power", "power.fra"]);
    }
}
