//! Proof that the suite notices: stores that break a promise on purpose.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::{FutureExt, stream};
use uuid::Uuid;

use super::*;
use crate::store::{MemoryStore, Page};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    CreateOverwrites,
    CreateKeepsTheStatus,
    CreateTrustsTheCaller,
    StatusCreates,
    IgnoresVersions,
    DeletesBlindly,
    ReusesVersions,
    UidFromName,
    UidChanges,
    SpecWriteTakesTheStatus,
    SpecWriteDropsTheStatus,
    StatusWriteTakesTheSpec,
    StatusWriteTakesTheLabels,
    GenerationCountsEveryWrite,
    GenerationStands,
    DropsUnknownFields,
    TakesAnySize,
    ForgetsLabels,
    ListsOtherKinds,
    PagesLoseOne,
    PagesRepeatOne,
    PagesAreUnordered,
    PagesNeverEnd,
    ListIsFromTheFuture,
    IgnoresSelectors,
    SelectsAfterTheLimit,
    WatchSkipsTheSnapshot,
    WatchDropsDeletions,
    WatchSwapsChanges,
    WatchTellsOtherKinds,
    WatchTellsFailures,
    WatchForgetsWhenSlow,
    ResumeSkipsOne,
    ResumeTrustsAnyVersion,
    SnapshotIsOld,
}

/// Each bug and the promise it breaks.
const BUGS: &[(Bug, &str)] = &[
    (Bug::CreateOverwrites, "create_is_exclusive"),
    (Bug::CreateKeepsTheStatus, "create_leaves_the_status_out"),
    (Bug::CreateTrustsTheCaller, "create_sets_what_is_the_stores_to_set"),
    (Bug::StatusCreates, "what_is_absent_is_not_changed"),
    (Bug::IgnoresVersions, "stale_update_conflicts"),
    (Bug::IgnoresVersions, "no_lost_updates"),
    (Bug::DeletesBlindly, "stale_delete_conflicts"),
    (Bug::ReusesVersions, "versions_are_never_reused"),
    (Bug::UidFromName, "uids_are_stable_and_unique"),
    (Bug::UidChanges, "uids_are_stable_and_unique"),
    (Bug::SpecWriteTakesTheStatus, "a_spec_write_keeps_the_status"),
    (Bug::SpecWriteDropsTheStatus, "a_spec_write_keeps_the_status"),
    (Bug::StatusWriteTakesTheSpec, "a_status_write_keeps_the_spec"),
    (Bug::StatusWriteTakesTheLabels, "a_status_write_keeps_the_spec"),
    (Bug::GenerationCountsEveryWrite, "generation_counts_changes_of_the_spec"),
    (Bug::GenerationStands, "generation_counts_changes_of_the_spec"),
    (Bug::DropsUnknownFields, "unknown_fields_survive"),
    (Bug::TakesAnySize, "too_large_is_refused"),
    (Bug::ForgetsLabels, "reads_what_was_written"),
    (Bug::ListsOtherKinds, "list_is_one_kind"),
    (Bug::PagesLoseOne, "list_pages_are_complete_and_ordered"),
    (Bug::PagesRepeatOne, "list_pages_are_complete_and_ordered"),
    (Bug::PagesAreUnordered, "list_pages_are_complete_and_ordered"),
    (Bug::PagesNeverEnd, "list_pages_are_complete_and_ordered"),
    (Bug::IgnoresSelectors, "list_selects_by_labels"),
    (Bug::SelectsAfterTheLimit, "list_selects_by_labels"),
    (Bug::WatchSkipsTheSnapshot, "watch_is_snapshot_then_changes"),
    (Bug::WatchDropsDeletions, "watch_is_snapshot_then_changes"),
    (Bug::WatchSwapsChanges, "watch_never_goes_back"),
    (Bug::WatchTellsOtherKinds, "watch_is_snapshot_then_changes"),
    (Bug::WatchTellsFailures, "watch_is_silent_about_writes_that_failed"),
    (Bug::WatchForgetsWhenSlow, "slow_watcher_converges"),
    (Bug::ResumeSkipsOne, "watch_resumes_without_loss"),
    (Bug::ListIsFromTheFuture, "watch_goes_on_from_a_list"),
    (Bug::ResumeTrustsAnyVersion, "watch_from_a_strange_version_starts_over"),
    (Bug::SnapshotIsOld, "watch_never_goes_back"),
];

/// A store that is right but for one thing.
#[derive(Debug)]
struct Broken {
    right: MemoryStore,
    bug: Bug,
    /// For each object: how often it was written, and the version the right store gave it last.
    counts: Mutex<HashMap<Key, (u64, String)>>,
    /// What every object was at first.
    first: std::sync::Arc<Mutex<Known>>,
    failures: tokio::sync::broadcast::Sender<WatchEvent>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        let failures = tokio::sync::broadcast::channel(64).0;
        Self {
            right: MemoryStore::default(),
            bug,
            counts: Mutex::default(),
            first: std::sync::Arc::default(),
            failures,
        }
    }

    /// What this store says an object is.
    fn told(&self, mut record: Record) -> Record {
        match self.bug {
            Bug::ReusesVersions => {
                let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((count, _)) = counts.get(&key(&record.metadata.name)) {
                    record.metadata.resource_version = count.to_string();
                }
            }
            Bug::UidFromName => {
                let name = record.metadata.name.bytes().fold(1, |sum, byte| sum * 256 + u128::from(byte));
                record.metadata.uid = Some(Uuid::from_u128(name));
            }
            Bug::UidChanges => record.metadata.uid = Some(Uuid::new_v4()),
            Bug::ForgetsLabels => record.metadata.labels.clear(),
            Bug::GenerationStands => record.metadata.generation = 1,
            Bug::GenerationCountsEveryWrite => {
                let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                record.metadata.generation = counts.get(&key(&record.metadata.name)).map_or(1, |(count, _)| *count);
            }
            Bug::CreateTrustsTheCaller if record.metadata.labels.contains_key("claimed") => {
                record.metadata.uid = Some(Uuid::from_u128(7));
            }
            _ => {}
        }
        record
    }

    /// What the right store is to believe the caller has seen.
    fn seen(&self, key: &Key, version: &str, current: Option<&Record>) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.bug, current, counts.get(key)) {
            (Bug::IgnoresVersions, Some(current), _) => current.metadata.resource_version.clone(),
            (Bug::ReusesVersions, _, Some((count, real))) if count.to_string() == version => real.clone(),
            _ => version.to_owned(),
        }
    }

    fn count(&self, written: &Record, created: bool) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = counts.entry(key(&written.metadata.name)).or_default();
        entry.0 = if created { 1 } else { entry.0 + 1 };
        entry.1 = written.metadata.resource_version.clone();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(written.metadata.name.clone()).or_insert_with(|| written.clone());
    }
}

/// Without what this version does not know.
fn without_unknown(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| !name.starts_with("future"));
    }
}

#[async_trait]
impl Store for Broken {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.right.get(key).await?.map(|record| self.told(record)))
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let all = Selector::all();
        let selected = if self.bug == Bug::IgnoresSelectors { &all } else { selector };
        let mut page = match self.bug {
            Bug::SelectsAfterTheLimit => {
                let mut page = self.right.list(kind, &all, limit, from).await?;
                page.items.retain(|record| selector.matches(record));
                if page.items.len() < limit {
                    page.more = None;
                }
                page
            }
            _ => self.right.list(kind, selected, limit, from).await?,
        };
        match self.bug {
            Bug::ListsOtherKinds => {
                page.items.extend(self.right.list(OTHER, selector, 0, None).await?.items);
            }
            Bug::PagesLoseOne if from.is_some() => {
                page.items.pop();
            }
            Bug::PagesRepeatOne => {
                if let Some(from) = from {
                    page.items.extend(self.right.get(&key(from)).await?);
                    page.items.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
                }
            }
            Bug::ListIsFromTheFuture => {
                page.version = page.version.parse::<u64>().map_or(page.version, |n| (n + 3).to_string());
            }
            Bug::PagesAreUnordered => page.items.reverse(),
            Bug::PagesNeverEnd if limit > 0 => page.more = page.more.or_else(|| Some("m00".to_owned())),
            _ => {}
        }
        page.items = page.items.into_iter().map(|record| self.told(record)).collect();
        Ok(page)
    }

    async fn put(&self, mut record: Record, part: Part, when: When) -> Result<Record> {
        let place = Key::new(record.kind, record.metadata.name.clone());
        let current = self.right.get(&place).await?;
        let status = record.status.clone();
        let (mut part, mut when) = (part, when);
        if let When::Unchanged(version) = &when {
            when = When::Unchanged(self.seen(&place, version, current.as_ref()));
        }
        let created = current.is_none();
        match (self.bug, &current, &when, part) {
            (Bug::CreateOverwrites, Some(current), When::Absent, _) => {
                when = When::Unchanged(current.metadata.resource_version.clone());
            }
            (Bug::StatusCreates, None, When::Absent, Part::Status) => part = Part::Spec,
            (Bug::DropsUnknownFields, ..) => {
                without_unknown(&mut record.spec);
                without_unknown(&mut record.status);
            }
            (Bug::CreateTrustsTheCaller, None, ..) if record.metadata.uid.is_some() => {
                record.metadata.labels.insert("claimed".to_owned(), "true".to_owned());
            }
            (Bug::TakesAnySize, ..) => {
                // As a store that cuts: it takes the object and does not keep it.
                for part in [&mut record.spec, &mut record.status] {
                    if part.to_string().len() > crate::resource::MAX_OBJECT_BYTES {
                        *part = json!({});
                    }
                }
            }
            _ => {}
        }
        let taken = record.clone();
        let mut written = match self.right.put(record, part, when).await {
            Ok(written) => written,
            Err(error) => {
                if let (Bug::WatchTellsFailures, Some(current)) = (self.bug, current) {
                    self.failures.send(WatchEvent::Applied(Arc::new(current))).ok();
                }
                return Err(error);
            }
        };
        let now = |record: &Record| When::Unchanged(record.metadata.resource_version.clone());
        let also = match (self.bug, part) {
            (Bug::CreateKeepsTheStatus, Part::Spec) if created && !is_empty(&status) => Some(Part::Status),
            (Bug::SpecWriteTakesTheStatus, Part::Spec) if !created => Some(Part::Status),
            (Bug::SpecWriteDropsTheStatus, Part::Spec) if !created => Some(Part::Status),
            (Bug::StatusWriteTakesTheSpec | Bug::StatusWriteTakesTheLabels, Part::Status) => Some(Part::Spec),
            _ => None,
        };
        if let Some(also) = also {
            let mut taken = taken;
            match self.bug {
                Bug::SpecWriteDropsTheStatus => taken.status = Value::Null,
                Bug::StatusWriteTakesTheLabels => taken.spec = written.spec.clone(),
                _ => {}
            }
            let seen = now(&written);
            written = self.right.put(taken, also, seen).await?;
        }
        self.count(&written, created);
        Ok(self.told(written))
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        let current = self.right.get(key).await?;
        let mut version = self.seen(key, version, None);
        if let (Bug::DeletesBlindly, Some(current)) = (self.bug, &current) {
            version = current.metadata.resource_version.clone();
        }
        self.right.delete(key, &version).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> Watch {
        let bug = self.bug;
        let resumed = from.is_some();
        if bug == Bug::ResumeTrustsAnyVersion && resumed {
            // It goes on with whatever comes.
            return self.right.watch(kind, None).skip(1).boxed();
        }
        let (mut held, mut skipped, mut count) = (None, false, 0);
        let first = Arc::clone(&self.first);
        let watch = self.right.watch(kind, from).flat_map(move |event| {
            count += 1;
            stream::iter(match event {
                Ok(WatchEvent::Deleted(_)) if bug == Bug::WatchDropsDeletions => vec![],
                Ok(WatchEvent::Snapshot(_)) if bug == Bug::WatchSkipsTheSnapshot => vec![],
                Ok(WatchEvent::Snapshot(mut all)) if bug == Bug::SnapshotIsOld => {
                    let first = first.lock().unwrap_or_else(PoisonError::into_inner);
                    for record in &mut all {
                        if let Some(first) = first.get(&record.metadata.name) {
                            record.spec = first.spec.clone();
                        }
                    }
                    vec![Ok(WatchEvent::Snapshot(all))]
                }
                Ok(WatchEvent::Applied(record)) if bug == Bug::WatchSwapsChanges => match held.take() {
                    None => {
                        held = Some(record);
                        vec![]
                    }
                    Some(old) => vec![Ok(WatchEvent::Applied(record)), Ok(WatchEvent::Applied(old))],
                },
                Ok(WatchEvent::Applied(_)) if bug == Bug::WatchForgetsWhenSlow && count % 50 == 0 => vec![],
                Ok(_) if bug == Bug::ResumeSkipsOne && resumed && !skipped => {
                    skipped = true;
                    vec![]
                }
                other => vec![other],
            })
        });
        match bug {
            Bug::WatchTellsOtherKinds => stream::select(self.right.watch(OTHER, None).skip(1), watch).boxed(),
            Bug::WatchTellsFailures => {
                let failures = self.failures.subscribe();
                let failures = stream::unfold(failures, |mut failures| async move {
                    failures.recv().await.ok().map(|event| (Ok(event), failures))
                });
                stream::select(failures, watch).boxed()
            }
            _ => watch.boxed(),
        }
    }
}

/// The promises that a store breaks.
async fn broken_by(bug: Option<Bug>) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    for (name, promise) in PROMISES {
        let held = match bug {
            Some(bug) => AssertUnwindSafe(promise(&Broken::new(bug))).catch_unwind().await,
            None => AssertUnwindSafe(promise(&MemoryStore::default())).catch_unwind().await,
        };
        if held.is_err() {
            broken.insert(*name);
        }
    }
    broken
}

#[tokio::test(start_paused = true)]
async fn every_bug_is_caught_by_the_promise_it_breaks() {
    assert_eq!(broken_by(None).await, BTreeSet::new(), "the store below the broken ones is right");
    let mut caught = BTreeSet::new();
    for (bug, promise) in BUGS {
        let broken = broken_by(Some(*bug)).await;
        assert!(broken.contains(promise), "{bug:?} slipped past {promise}; it broke {broken:?}");
        caught.insert(*promise);
        println!("{bug:?}: {broken:?}");
    }
    let unproven: Vec<_> = PROMISES.iter().map(|(name, _)| *name).filter(|name| !caught.contains(name)).collect();
    assert_eq!(unproven, ["absence_is_an_answer"], "promises that no broken store has tried");
}
