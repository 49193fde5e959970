//! A watch of objects as Kubernetes' clients read it: one JSON object a line.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use dragonfly_core::engine::{Engine, EngineError};
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Page, Selector, WatchEvent, order};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use serde_json::json;

use super::super::problem::Problem;
use super::existing::Existing;
use super::select::Selection;
use super::shape::Shape;
use super::status::status;
use super::{PAGE, named};

/// How often a client that wants bookmarks is told how far its watch has come.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// What a watch is told.
pub(super) enum News {
    /// Objects that are there, and the version they were first read at.
    Page(Vec<Record>, String),
    /// All of them have been told.
    Present,
    /// It goes on from a version that the client has listed at: what exists now, where not just one object is
    /// followed, and when that was looked at.
    Resumed { since: String, existing: Option<Existing>, read: String },
    /// Of what exists, that which the client follows, and when it was read.
    Known(Vec<Record>, String),
    /// What the store says.
    Change(Result<WatchEvent, EngineError>),
    /// It is time for a bookmark.
    Bookmark,
}

/// Everything in pages, then every change since the first of them was read: a whole kind is never in
/// memory for the sake of one client. With `since`, a version that the client has listed at, only the changes
/// since then are for it, and nothing is read but what tells which of them concern it.
pub(super) fn present_then_changes(
    engine: Engine,
    kind: Kind,
    selection: Selection,
    since: Option<String>,
) -> impl Stream<Item = News> + Send {
    enum At {
        Resume(String),
        Known { since: String, from: Option<String> },
        Page { version: Option<String>, from: Option<String> },
        Present(String),
        Live(BoxStream<'static, Result<WatchEvent, EngineError>>),
        Over,
    }
    let everything = selection.is_everything();
    let (equal, name) = (selection.equal, selection.name);
    let first = since.map_or(At::Page { version: None, from: None }, At::Resume);
    stream::unfold(first, move |at| {
        let (engine, equal, name) = (engine.clone(), equal.clone(), name.clone());
        async move {
            let failed = |error| Some((News::Change(Err(error)), At::Over));
            match at {
                At::Resume(since) => {
                    // Before the version is read: what is gone by then must not be later than it.
                    let existing = name.is_none().then(|| Existing::of(engine.cache(), kind));
                    let read = match engine.list(kind, &Selector::all(), 1, None).await {
                        Ok(page) => page.version,
                        Err(error) => return failed(error),
                    };
                    let next = match everything {
                        true => At::Live(engine.watch(kind, Some(since.clone()))),
                        false => At::Known { since: since.clone(), from: None },
                    };
                    Some((News::Resumed { since, existing, read }, next))
                }
                At::Known { since, from } => match page(&engine, kind, &equal, name.as_deref(), from).await {
                    Ok(page) => {
                        let next = match page.more {
                            Some(more) => At::Known { since, from: Some(more) },
                            None => At::Live(engine.watch(kind, Some(since))),
                        };
                        Some((News::Known(page.items, page.version), next))
                    }
                    Err(error) => failed(error),
                },
                At::Page { version, from } => match page(&engine, kind, &equal, name.as_deref(), from).await {
                    Ok(page) => {
                        let version = version.unwrap_or(page.version);
                        let next = match page.more {
                            Some(more) => At::Page { version: Some(version.clone()), from: Some(more) },
                            None => At::Present(version.clone()),
                        };
                        Some((News::Page(page.items, version), next))
                    }
                    Err(error) => failed(error),
                },
                At::Present(version) => Some((News::Present, At::Live(engine.watch(kind, Some(version))))),
                At::Live(mut changes) => changes.next().await.map(|change| (News::Change(change), At::Live(changes))),
                At::Over => None,
            }
        }
    })
}

async fn page(
    engine: &Engine,
    kind: Kind,
    equal: &Selector,
    name: Option<&str>,
    from: Option<String>,
) -> Result<Page, EngineError> {
    match name {
        Some(name) => named(engine, kind, name).await,
        None => engine.list(kind, equal, PAGE, from.as_deref()).await,
    }
}

/// The same, with word every now and then that it is time for a bookmark.
pub(super) fn with_bookmarks(news: BoxStream<'static, News>) -> impl Stream<Item = News> + Send {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + BOOKMARKS, BOOKMARKS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    stream::unfold((news, ticks), async |(mut news, mut ticks)| {
        let next = tokio::select! {
            biased;
            next = news.next() => next?,
            _ = ticks.tick() => News::Bookmark,
        };
        Some((next, (news, ticks)))
    })
}

/// What a client wants to be told.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) kind: Kind,
    pub(super) selection: Selection,
    pub(super) shape: Shape,
    /// It wants a bookmark after the objects that are there (`sendInitialEvents`).
    pub(super) initial: bool,
}

/// What a client knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has it, in this version.
    Told(Option<u64>),
    /// It knows that it does not match.
    Outside,
    /// It may have it: it changed after the client listed.
    Perhaps,
}

struct Following {
    wish: Wish,
    known: HashMap<String, Known>,
    /// The client has listed before.
    resumed: Option<Resumed>,
    /// How far it has come.
    version: String,
    headed: bool,
    over: bool,
}

struct Resumed {
    /// What exists that is not in `known`; absent where one object is followed.
    existing: Option<Existing>,
    /// The client listed at this version.
    since: Option<u64>,
    /// What it knows was looked at by this version.
    read: Option<u64>,
}

/// What a watch says, as Kubernetes' clients read it: one JSON object a line.
pub(super) fn lines(news: impl Stream<Item = News> + Send + 'static, wish: Wish) -> impl Stream<Item = Bytes> + Send {
    let following =
        Following { wish, known: HashMap::new(), resumed: None, version: String::new(), headed: false, over: false };
    let lines = news.scan(following, |following, news| {
        let line = (!following.over).then(|| following.line(news));
        std::future::ready(line)
    });
    lines.filter(|line| std::future::ready(!line.is_empty())).map(Bytes::from)
}

impl Following {
    fn line(&mut self, news: News) -> Vec<u8> {
        let mut out = Vec::new();
        match news {
            News::Page(records, version) => {
                for record in &records {
                    if !self.wish.selection.matches(record) {
                        continue;
                    }
                    self.known.insert(record.metadata.name.clone(), Known::Told(version_of(record)));
                    self.tell(&mut out, "ADDED", record);
                }
                self.version = version;
            }
            News::Present if self.wish.initial => self.bookmark(&mut out, true),
            News::Present => {}
            News::Resumed { since, existing, read } => {
                self.resumed = Some(Resumed { existing, since: order(&since), read: order(&read) });
                self.version = since;
            }
            News::Known(records, read) => {
                let listed = self.resumed.as_mut().and_then(|resumed| {
                    resumed.read = order(&read);
                    resumed.since
                });
                for record in records {
                    let unchanged = matches!((version_of(&record), listed), (Some(now), Some(then)) if now <= then);
                    let known = match (unchanged, self.wish.selection.matches(&record)) {
                        (false, _) => Known::Perhaps,
                        (true, true) => Known::Told(version_of(&record)),
                        (true, false) => Known::Outside,
                    };
                    self.known.insert(record.metadata.name, known);
                }
            }
            News::Bookmark => self.bookmark(&mut out, false),
            // Some changes are no longer kept: a client must list again, and knows how.
            News::Change(Ok(WatchEvent::Snapshot(_))) => {
                let problem = Problem::new(StatusCode::GONE, "too old: list again");
                push(&mut out, "ERROR", &status(&problem, None));
                self.over = true;
            }
            News::Change(Ok(WatchEvent::Applied(record))) => self.applied(&mut out, &record),
            News::Change(Ok(WatchEvent::Deleted(record))) => self.deleted(&mut out, &record),
            News::Change(Ok(_)) => {}
            News::Change(Err(error)) => {
                push(&mut out, "ERROR", &status(&error.into(), None));
                self.over = true;
            }
        }
        out
    }

    fn applied(&mut self, out: &mut Vec<u8>, record: &Record) {
        record.metadata.resource_version.clone_into(&mut self.version);
        let name = &record.metadata.name;
        let before = self.before(record);
        if self.knows_later(before, record) {
            return;
        }
        if self.wish.selection.matches(record) {
            self.known.insert(name.clone(), Known::Told(version_of(record)));
            let word = if matches!(before, Some(Known::Told(_) | Known::Perhaps)) { "MODIFIED" } else { "ADDED" };
            self.tell(out, word, record);
        } else if matches!(before, Some(Known::Told(_) | Known::Perhaps)) || (before.is_none() && self.perhaps(record))
        {
            // It no longer matches: to this client it is gone.
            self.known.insert(name.clone(), Known::Outside);
            self.tell(out, "DELETED", record);
        }
    }

    fn deleted(&mut self, out: &mut Vec<u8>, record: &Record) {
        record.metadata.resource_version.clone_into(&mut self.version);
        let before = self.before(record);
        if self.knows_later(before, record) {
            return;
        }
        self.known.remove(&record.metadata.name);
        if let Some(existing) = self.resumed.as_mut().and_then(|resumed| resumed.existing.as_mut()) {
            existing.remove(&record.metadata.name);
        }
        let tell = match before {
            Some(Known::Told(_) | Known::Perhaps) => true,
            Some(Known::Outside) => false,
            None => self.perhaps(record) || self.wish.selection.matches(record),
        };
        if tell {
            self.tell(out, "DELETED", record);
        }
    }

    /// What the client knows of an object that now changes.
    fn before(&self, record: &Record) -> Option<Known> {
        let name = &record.metadata.name;
        if let Some(known) = self.known.get(name) {
            return Some(*known);
        }
        let existing = self.resumed.as_ref()?.existing.as_ref()?;
        existing.contains(name).then(|| match self.wish.selection.is_everything() || self.is_past(record) {
            // It was not followed when it was looked at, but it may have been when the client listed.
            true => Known::Perhaps,
            false => Known::Outside,
        })
    }

    /// Whether this was so already when what the client knows was looked at.
    fn is_past(&self, record: &Record) -> bool {
        self.resumed.as_ref().is_some_and(|resumed| match (version_of(record), resumed.read) {
            (Some(now), Some(read)) => now <= read,
            _ => true,
        })
    }

    /// Whether a client that resumes may have an object that nobody has seen here: one that went before it was
    /// looked at.
    fn perhaps(&self, record: &Record) -> bool {
        self.is_past(record) && self.wish.selection.may_match(&record.metadata.name)
    }

    /// Pages are read later than the place where the changes begin.
    fn knows_later(&self, known: Option<Known>, record: &Record) -> bool {
        match (known, version_of(record)) {
            (Some(Known::Told(Some(told))), Some(now)) => told >= now,
            _ => false,
        }
    }

    fn tell(&mut self, out: &mut Vec<u8>, word: &str, record: &Record) {
        let head = !std::mem::replace(&mut self.headed, true);
        push(out, word, &self.wish.shape.one(record, head));
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, initial: bool) {
        let mut metadata = json!({ "resourceVersion": self.version, "creationTimestamp": null });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        push(out, "BOOKMARK", &self.wish.shape.bookmark(self.wish.kind, metadata));
    }
}

fn version_of(record: &Record) -> Option<u64> {
    order(&record.metadata.resource_version)
}

fn push(out: &mut Vec<u8>, word: &str, object: &impl Serialize) {
    #[derive(Serialize)]
    struct Line<'a, T> {
        object: &'a T,
        r#type: &'a str,
    }
    // What is shown always serialises, and a vector takes everything.
    serde_json::to_writer(&mut *out, &Line { object, r#type: word }).ok();
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
