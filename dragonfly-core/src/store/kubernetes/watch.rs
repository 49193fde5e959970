//! Watches that go on for ever: through lost connections, restarts of the API server and forgotten versions.

use std::sync::Arc;
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;
use kube::core::WatchEvent as Told;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::failure::{Doing, failure, refused};
use super::{Inner, object, request};
use crate::resource::Kind;
use crate::store::{Result, Selector, StoreError, WatchEvent};

/// How long the API server lets one connection live, in seconds, and what is added at random so that those of a fleet
/// do not all begin anew at once. Bounds how long a connection that died unnoticed can be believed in.
const LIFE: (u64, u64) = (90, 30);
/// What the API server may be late with ending it.
const GRACE: Duration = Duration::from_secs(15);
/// Rests after failures in a row: doubles from the first to the last.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));

type Events = BoxStream<'static, kube::Result<Told<Value>>>;

/// A watch over one kind.
pub(super) fn watch(inner: Arc<Inner>, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
    let seen = from.filter(|version| object::is_version(version));
    let watch = Watch { inner, kind, seen, events: None, failures: 0 };
    stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) }).boxed()
}

struct Watch {
    inner: Arc<Inner>,
    kind: Kind,
    /// The last version that was told; `None` when everything is to be told anew.
    seen: Option<String>,
    events: Option<Events>,
    /// In a row.
    failures: u32,
}

/// What one line of a watch calls for.
#[derive(Debug)]
enum Step {
    Tell(WatchEvent, String),
    Note(String),
    /// An object that cannot be read: told, and passed over.
    Skip(StoreError, String),
    /// The version is forgotten there.
    StartOver,
    /// The connection has ended as it should.
    Reopen,
    Fail(StoreError),
}

impl Watch {
    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            tokio::time::sleep(rest(self.failures, jitter())).await;
            let Some(events) = &mut self.events else {
                match self.start().await {
                    Ok(Some(snapshot)) => {
                        self.failures = 0;
                        return Ok(snapshot);
                    }
                    Ok(None) => continue,
                    Err(error) => {
                        self.failures = self.failures.saturating_add(1);
                        return Err(error);
                    }
                }
            };
            let longest = Duration::from_secs(LIFE.0 + LIFE.1) + GRACE;
            let told = tokio::time::timeout(longest, events.next()).await;
            let step = match told {
                Ok(Some(told)) => self.inner.step(self.kind, told).await,
                Ok(None) | Err(_) => Step::Reopen,
            };
            match step {
                Step::Tell(event, version) => {
                    self.failures = 0;
                    self.seen = Some(version);
                    return Ok(event);
                }
                Step::Note(version) => {
                    self.failures = 0;
                    self.seen = Some(version);
                }
                Step::Skip(error, version) => {
                    self.seen = Some(version);
                    return Err(error);
                }
                Step::StartOver => {
                    self.seen = None;
                    self.events = None;
                }
                Step::Reopen => self.events = None,
                Step::Fail(error) => {
                    self.events = None;
                    self.failures = self.failures.saturating_add(1);
                    tracing::debug!(kind = %self.kind, error = &error as &dyn std::error::Error, "a watch broke off");
                }
            }
        }
    }

    /// Opens the connection, or gives what is to be told first.
    async fn start(&mut self) -> Result<Option<WatchEvent>> {
        let inner = &self.inner;
        if let Some(seen) = &self.seen {
            // A version that the cluster has not reached yet is another cluster's, or it was set back: a watch from
            // there would be silent until it is reached.
            let now = inner.page(self.kind, &Selector::all(), 1, None).await?.version;
            if is_after(seen, &now) {
                self.seen = None;
            }
        }
        let Some(seen) = &self.seen else {
            let (records, version) = inner.everything(self.kind).await?;
            self.seen = Some(version);
            return Ok(Some(WatchEvent::Snapshot(records)));
        };
        let place = inner.place(self.kind);
        let path = format!("{}?{}", place.all(), query(seen, life(jitter()), place.field_selector()));
        let request = request::request("GET", &path, None)?;
        match inner.in_time(inner.client.request_events::<Value>(request)).await? {
            Ok(events) => {
                self.events = Some(Box::pin(events));
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 410 => {
                self.seen = None;
                Ok(None)
            }
            Err(error) => Err(failure(&Doing::kind("watch", self.kind, place), &inner.server, error)),
        }
    }
}

impl Inner {
    async fn step(&self, kind: Kind, told: kube::Result<Told<Value>>) -> Step {
        let place = self.place(kind);
        let doing = Doing::kind("watch", kind, place);
        let (object, gone) = match told {
            Ok(Told::Added(object) | Told::Modified(object)) => (object, false),
            Ok(Told::Deleted(object)) => (object, true),
            Ok(Told::Bookmark(bookmark)) => return Step::Note(bookmark.metadata.resource_version),
            Ok(Told::Error(status)) if status.code == 410 => return Step::StartOver,
            Ok(Told::Error(status)) => return Step::Fail(refused(&doing, &self.server, &status)),
            Err(error) => return Step::Fail(failure(&doing, &self.server, error)),
        };
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let version = version.unwrap_or_default().to_owned();
        match self.read(kind, object).await {
            Ok(Some(record)) => {
                if gone {
                    self.forget(kind, &record);
                }
                let record = Arc::new(record);
                let event = if gone { WatchEvent::Deleted(record) } else { WatchEvent::Applied(record) };
                Step::Tell(event, version)
            }
            // None of ours.
            Ok(None) => Step::Note(version),
            // What stands beside it could not be read: it is told again.
            Err(error @ StoreError::Unavailable { .. }) => Step::Fail(error),
            Err(error) => Step::Skip(error, version),
        }
    }
}

fn query(seen: &str, seconds: u64, fields: Option<String>) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("watch", "1").append_pair("allowWatchBookmarks", "true").append_pair("resourceVersion", seen);
    query.append_pair("timeoutSeconds", &seconds.to_string());
    if let Some(fields) = fields {
        query.append_pair("fieldSelector", &fields);
    }
    query.finish()
}

/// Whether one version is later than another. Kubernetes lets clients compare them as numbers.
fn is_after(seen: &str, now: &str) -> bool {
    match (crate::store::order(seen), crate::store::order(now)) {
        (Some(seen), Some(now)) => seen > now,
        _ => false,
    }
}

/// How long to rest after that many failures in a row: half of it for certain, the rest by chance (0 to 1).
fn rest(failures: u32, chance: f64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let longest = REST.0.saturating_mul(1 << (failures - 1).min(16)).min(REST.1);
    longest.mul_f64(0.5 + chance / 2.0)
}

fn life(chance: f64) -> u64 {
    // Both are small.
    LIFE.0 + Duration::from_secs(LIFE.1).mul_f64(chance).as_secs()
}

/// From 0 to 1, another one each time; without random numbers, none.
fn jitter() -> f64 {
    let mut byte = [0u8; 1];
    getrandom::fill(&mut byte).ok();
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_bound_and_differ() {
        assert_eq!(rest(0, 1.0), Duration::ZERO);
        assert_eq!(rest(1, 1.0), REST.0);
        assert_eq!(rest(1, 0.0), REST.0 / 2);
        for failures in 1..100 {
            assert!(rest(failures + 1, 0.5) >= rest(failures, 0.5));
            assert!(rest(failures, 1.0) <= REST.1);
        }
        assert_eq!(rest(u32::MAX, 1.0), REST.1);
        assert_eq!((life(0.0), life(1.0)), (90, 120));
    }

    #[test]
    fn versions_of_another_history_are_noticed() {
        for (seen, now, want) in [("5", "4", true), ("5", "5", false), ("5", "60", false), ("x", "4", false)] {
            assert_eq!(is_after(seen, now), want, "{seen} {now}");
        }
    }
}
