//! Somebody beside the candidates who sees every version of every lease, and everything that was done.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{KubernetesStore, Store as _, WatchEvent};
use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams, WatchEvent as Told, WatchParams};
use tokio::task::JoinSet;

use super::candidate::{AT, BY, now};

/// A lease as it was at a moment: it was written before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: u64,
    pub(super) controller: String,
    pub(super) holder: String,
    pub(super) term: u64,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) controller: String,
    pub(super) who: String,
    pub(super) term: u64,
    /// When who did it saw that it leads.
    pub(super) at: u64,
}

/// What was seen so far, in the order of the writes.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) leases: Vec<Seen>,
    pub(super) acts: Vec<Act>,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub(super) struct Observer {
    story: Arc<Mutex<Story>>,
    _tasks: JoinSet<()>,
}

impl Observer {
    pub(super) fn start(client: kube::Client, namespace: &str, store: KubernetesStore) -> Self {
        let story = Arc::<Mutex<Story>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(leases(Api::namespaced(client, namespace), Arc::clone(&story)));
        tasks.spawn(acts(store, Arc::clone(&story)));
        Self { story, _tasks: tasks }
    }

    pub(super) fn story(&self) -> std::sync::MutexGuard<'_, Story> {
        self.story.lock().unwrap()
    }
}

fn seen(lease: &Lease) -> Option<Seen> {
    let spec = lease.spec.as_ref()?;
    let controller = lease.metadata.name.as_ref()?.strip_prefix("dragonfly-")?.to_owned();
    let term = u64::try_from(spec.lease_transitions?).unwrap();
    Some(Seen { at: now(), controller, holder: spec.holder_identity.clone()?, term })
}

/// From version to version; where that cannot be (the API server has forgotten), whoever held a lease may have renewed
/// it until now.
async fn leases(api: Api<Lease>, story: Arc<Mutex<Story>>) {
    let mut version: Option<String> = None;
    loop {
        let Some(from) = version.take() else {
            let Ok(list) = api.list(&ListParams::default()).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut story = story.lock().unwrap();
            for one in list.items.iter().filter_map(seen) {
                let last = story.leases.iter().rev().find(|last| last.controller == one.controller).cloned();
                story.leases.extend(last.filter(|last| last.term != one.term).map(|last| Seen { at: now(), ..last }));
                story.leases.push(one);
            }
            version = list.metadata.resource_version;
            continue;
        };
        let mut last = from.clone();
        match api.watch(&WatchParams::default().timeout(290), &from).await {
            Ok(events) => {
                let mut events = std::pin::pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    match event {
                        Told::Added(lease) | Told::Modified(lease) => {
                            story.lock().unwrap().leases.extend(seen(&lease));
                            last = lease.metadata.resource_version.unwrap_or(last);
                        }
                        Told::Error(status) if status.code == 410 => {
                            last.clear();
                            break;
                        }
                        _ => {}
                    }
                }
            }
            Err(kube::Error::Api(status)) if status.code == 410 => last.clear(),
            Err(_) => {}
        }
        version = Some(last).filter(|last| !last.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn act(record: &Record) -> Option<Act> {
    let [who, term] = BY.map(|label| record.metadata.labels.get(label));
    let at = record.metadata.annotations.get(AT)?.parse().unwrap();
    let controller = record.metadata.name.clone();
    Some(Act { controller, who: who?.clone(), term: term?.parse().unwrap(), at })
}

async fn acts(store: KubernetesStore, story: Arc<Mutex<Story>>) {
    let mut watch = store.watch(Kind::HARDWARE, None);
    while let Some(event) = watch.next().await {
        let mut story = story.lock().unwrap();
        match event {
            Ok(WatchEvent::Applied(record)) => story.acts.extend(act(&record)),
            Ok(WatchEvent::Snapshot(records)) => {
                for one in records.iter().filter_map(act) {
                    if !story.acts.contains(&one) {
                        story.acts.push(one);
                    }
                }
            }
            _ => {}
        }
    }
}
