//! Tells the engine how the Networks fare, so that their objects say it.

use std::time::Duration;

use dragonfly_boot::server::NetworkStatus;
use dragonfly_core::engine::Engine;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// After this time a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Until it is told to stop.
pub(crate) async fn tell_served(
    engine: Engine,
    mut status: watch::Receiver<Vec<NetworkStatus>>,
    stop: CancellationToken,
) {
    // A Network that is made anew, under the same name, has nothing noted on it yet.
    let mut networks = engine.networks();
    loop {
        let now = status.borrow_and_update().clone();
        networks.mark_unchanged();
        let mut failed = false;
        for NetworkStatus { network, mode, reason } in now {
            let words = mode.map_or_else(|| reason.clone(), |mode| format!("{}: {reason}", mode.word()));
            if let Err(error) = engine.note_served(&network, mode.is_some(), &words).await {
                tracing::warn!(network, error = &error as &dyn std::error::Error, "how it fares could not be noted");
                failed = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return stop.cancelled().await },
            changed = networks.changed() => if changed.is_err() { return stop.cancelled().await },
            () = tokio::time::sleep(AGAIN), if failed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dragonfly_core::clock::SystemClock;
    use dragonfly_core::resource::network::SERVED;
    use dragonfly_core::resource::{ConditionStatus, Kind, NetworkSpec, condition};
    use dragonfly_core::secret::SealingKey;
    use dragonfly_core::store::memory::MemoryStore;

    use super::*;

    const NETWORK: &str = "{apiVersion: dragonfly.computer/v1, kind: Network, metadata: {name: lab}, \
        spec: {interface: lab0, dhcp: proxy, subnet: 10.9.0.0/24}}";

    /// Waits until the object says so.
    async fn says(engine: &Engine, want: (ConditionStatus, &str)) {
        let mut changes = engine.cache().changes();
        let said = async {
            loop {
                changes.borrow_and_update();
                let object = engine.cache().get::<NetworkSpec>("lab");
                let now = object.as_ref().and_then(|n| condition(&n.status.conditions, SERVED));
                if now.is_some_and(|c| (c.status, c.message.as_str()) == want) {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), said).await.expect("the object says it");
    }

    #[tokio::test]
    async fn the_object_says_how_its_network_fares_also_one_that_is_made_anew() {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let engine = Engine::builder(store, SealingKey::generate().unwrap(), crate::serve::checker()).build();
        let engine = engine.await.unwrap();
        engine.apply(NETWORK, "test").await.unwrap();
        let fares = |mode, reason: &str| vec![NetworkStatus { network: "lab".into(), mode, reason: reason.into() }];
        let (sender, status) = watch::channel(fares(None, "no interface"));
        let stop = CancellationToken::new();
        let task = tokio::spawn(tell_served(engine.clone(), status, stop.clone()));
        says(&engine, (ConditionStatus::False, "no interface")).await;
        sender.send_replace(fares(Some(dragonfly_boot::dhcp::Mode::Proxy), "as set"));
        says(&engine, (ConditionStatus::True, "proxy: as set")).await;
        engine.delete(Kind::NETWORK, "lab", "test").await.unwrap();
        engine.apply(NETWORK, "test").await.unwrap();
        says(&engine, (ConditionStatus::True, "proxy: as set")).await;
        stop.cancel();
        task.await.unwrap();
    }
}
