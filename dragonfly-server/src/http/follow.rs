//! A watch of objects as Kubernetes' clients read it: one JSON object a line.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::http::StatusCode;
use dragonfly_core::engine::{Engine, EngineError};
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Selector, WatchEvent, order};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;

use super::objects::{PAGE, status};
use super::problem::Problem;

/// What a watch is told.
pub(super) enum News {
    /// Objects that are there.
    Page(Vec<Record>),
    /// What the store says.
    Change(Result<WatchEvent, EngineError>),
}

/// Everything in pages, then every change since the first of them was read: a whole kind is never in
/// memory for the sake of one client.
pub(super) fn present_then_changes(engine: Engine, kind: Kind, selector: Selector) -> impl Stream<Item = News> + Send {
    enum At {
        Page { version: Option<String>, from: Option<String> },
        Live(BoxStream<'static, Result<WatchEvent, EngineError>>),
        Over,
    }
    stream::unfold(At::Page { version: None, from: None }, move |at| {
        let (engine, selector) = (engine.clone(), selector.clone());
        async move {
            match at {
                At::Page { version, from } => match engine.list(kind, &selector, PAGE, from.as_deref()).await {
                    Ok(page) => {
                        let version = version.unwrap_or(page.version);
                        let next = match page.more {
                            Some(more) => At::Page { version: Some(version), from: Some(more) },
                            None => At::Live(engine.watch(kind, Some(version))),
                        };
                        Some((News::Page(page.items), next))
                    }
                    Err(error) => Some((News::Change(Err(error)), At::Over)),
                },
                At::Live(mut changes) => changes.next().await.map(|change| (News::Change(change), At::Live(changes))),
                At::Over => None,
            }
        }
    })
}

/// What a watch says, as Kubernetes' clients read it: one JSON object a line.
pub(super) fn lines(
    news: impl Stream<Item = News> + Send + 'static,
    selector: Selector,
) -> impl Stream<Item = Bytes> + Send {
    struct State {
        /// What this client knows, with the version that it was told.
        told: HashMap<String, Option<u64>>,
        over: bool,
    }
    let state = State { told: HashMap::new(), over: false };
    news.scan(state, move |state, news| {
        if state.over {
            return std::future::ready(None);
        }
        let version = |record: &Record| order(&record.metadata.resource_version);
        // Pages are read later than the place where the changes begin.
        let knows_later = |told: &HashMap<String, Option<u64>>, record: &Record| match (
            told.get(&record.metadata.name).copied().flatten(),
            version(record),
        ) {
            (Some(told), Some(now)) => told >= now,
            _ => false,
        };
        let mut out = Vec::new();
        match news {
            News::Page(records) => {
                for record in records {
                    push(&mut out, "ADDED", &record);
                    state.told.insert(record.metadata.name.clone(), version(&record));
                }
            }
            // Some changes are no longer kept: a client must list again, and knows how.
            News::Change(Ok(WatchEvent::Snapshot(_))) => {
                let problem = Problem::new(StatusCode::GONE, "too old: list again");
                push(&mut out, "ERROR", &status(&problem));
                state.over = true;
            }
            News::Change(Ok(WatchEvent::Applied(record) | WatchEvent::Deleted(record)))
                if knows_later(&state.told, &record) => {}
            News::Change(Ok(WatchEvent::Applied(record))) => {
                let name = &record.metadata.name;
                if selector.matches(&record) {
                    let before = state.told.insert(name.clone(), version(&record));
                    let word = if before.is_none() { "ADDED" } else { "MODIFIED" };
                    push(&mut out, word, &record);
                } else if state.told.remove(name).is_some() {
                    push(&mut out, "DELETED", &record);
                }
            }
            News::Change(Ok(WatchEvent::Deleted(record))) => {
                if state.told.remove(&record.metadata.name).is_some() || selector.matches(&record) {
                    push(&mut out, "DELETED", &record);
                }
            }
            News::Change(Ok(_)) => {}
            News::Change(Err(error)) => {
                push(&mut out, "ERROR", &status(&error.into()));
                state.over = true;
            }
        }
        std::future::ready(Some(Bytes::from(out)))
    })
}

fn push(out: &mut Vec<u8>, word: &str, object: &impl Serialize) {
    #[derive(Serialize)]
    struct Line<'a, T> {
        #[serde(rename = "type")]
        word: &'a str,
        object: &'a T,
    }
    // Objects always serialise, and a vector takes everything.
    serde_json::to_writer(&mut *out, &Line { word, object }).ok();
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(name: &str, label: &str, version: u64) -> Record {
        let mut record =
            Record { kind: Kind::TEMPLATE, metadata: Default::default(), spec: json!({}), status: Value::Null };
        name.clone_into(&mut record.metadata.name);
        record.metadata.labels.insert("l".into(), label.into());
        record.metadata.resource_version = version.to_string();
        record
    }

    #[tokio::test]
    async fn a_watch_speaks_as_kubernetes_does() {
        let applied = |name: &str, label: &str, version: u64| {
            News::Change(Ok(WatchEvent::Applied(Box::new(record(name, label, version)))))
        };
        let deleted = |name: &str, label: &str, version: u64| {
            News::Change(Ok(WatchEvent::Deleted(Box::new(record(name, label, version)))))
        };
        let news = vec![
            News::Page(vec![record("a", "x", 1)]),
            News::Page(vec![record("m", "x", 5)]),
            // What the second page knew already.
            applied("m", "x", 2),
            deleted("m", "x", 4),
            applied("a", "x", 6),
            applied("b", "x", 7),
            // It no longer matches: to this client it is gone.
            applied("a", "y", 8),
            deleted("b", "x", 9),
            News::Change(Ok(WatchEvent::Snapshot(vec![]))),
            applied("c", "x", 10),
        ];
        let lines = lines(stream::iter(news), Selector { labels: [("l".to_owned(), "x".to_owned())].into() });
        let text: Vec<u8> = lines.collect::<Vec<_>>().await.concat();
        let seen: Vec<String> = text
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice::<Value>(l).unwrap())
            .map(|v| {
                format!("{} {}", v["type"].as_str().unwrap(), v["object"]["metadata"]["name"].as_str().unwrap_or("-"))
            })
            .collect();
        assert_eq!(seen, ["ADDED a", "ADDED m", "MODIFIED a", "ADDED b", "DELETED a", "DELETED b", "ERROR -"]);
    }
}
