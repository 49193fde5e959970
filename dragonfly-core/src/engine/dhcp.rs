//! Which of several instances answers DHCP on a network.
//!
//! Boot scripts, files and agents are answered by every instance, DHCP by one in each region: leases are kept by each
//! instance for itself, and a pool is not shared. An instance that led last goes on while the store is away, for nobody
//! can have been elected meanwhile that it would not hear of; two that answer for a moment would offer a machine the
//! same address, which its MAC decides, and ask first whether somebody has it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shared::region;
use super::{Engine, Network};
use crate::coordinate::{DHCP, regional};
use crate::resource::network::DhcpMode;
use crate::resource::{Kind, REGION_LABEL};
use crate::store::Selector;

/// How often it is asked who leads: well within the margin in which nobody does.
const PERIOD: Duration = Duration::from_secs(1);
/// A store that does not answer within this time is away.
const PATIENCE: Duration = Duration::from_secs(2);

/// The controllers that this instance led last, as far as it knows.
#[derive(Debug, Default)]
pub(super) struct Answering(Mutex<BTreeSet<String>>);

impl Answering {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// What this instance stands for so that it may answer DHCP.
    pub(super) fn dhcp_controllers(&self) -> Vec<String> {
        let mut all = vec![DHCP.to_owned()];
        all.extend(self.inner.settings.region.as_deref().map(|region| regional(DHCP, Some(region))));
        all
    }

    /// A network as this instance's boot services are to see it.
    pub(super) fn seen_here(&self, network: &Network) -> Network {
        let mut network = network.clone();
        if self.is_shared() {
            let controller = regional(DHCP, region(&network.metadata.labels));
            if !self.inner.answering.lock().contains(&controller) {
                network.spec.dhcp = DhcpMode::Off;
            }
        }
        network
    }

    /// Follows who leads, for as long as it is polled.
    pub(super) async fn follow_dhcp(&self) {
        if !self.is_shared() {
            return std::future::pending().await;
        }
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for controller in self.dhcp_controllers() {
                let leads = self.leads(&controller).is_some();
                let answers = self.inner.answering.lock().contains(&controller);
                if leads && !answers {
                    self.inner.answering.lock().insert(controller.clone());
                    tracing::info!(controller, "this instance answers DHCP from now on");
                } else if answers && !leads && self.store_answers().await && self.leads(&controller).is_none() {
                    self.inner.answering.lock().remove(&controller);
                    tracing::info!(controller, "this instance answers DHCP no more: whoever leads does");
                }
            }
            self.refresh_networks();
        }
    }

    async fn store_answers(&self) -> bool {
        let some = Selector { labels: [(REGION_LABEL.to_owned(), String::new())].into() };
        let asked = self.inner.store.list(Kind::NETWORK, &some, 1, None);
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }
}
