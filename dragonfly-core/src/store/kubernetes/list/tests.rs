//! An API server on loopback that cannot select by label in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::resource::Kind;
use crate::store::kubernetes::{ConnectOptions, KubernetesStore};
use crate::store::{Selector, Store as _, StoreError};

const MACHINES: usize = 1200;

fn name(n: usize) -> String {
    format!("m{n:04}")
}

/// What it is asked, counted.
#[derive(Debug, Default)]
struct Asked {
    selections: AtomicUsize,
    pages: AtomicUsize,
}

/// Every third machine is in rack r1. `plain` is what it answers to whoever asks for all of them.
fn answer(path: &str, asked: &Asked, plain: u16) -> (u16, serde_json::Value) {
    let query: Vec<(String, String)> =
        url::Url::parse(&format!("http://x{path}")).unwrap().query_pairs().into_owned().collect();
    let value = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let status = |code: u16| {
        let message = "Timeout: request did not complete within 1m0s";
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Timeout", "code": code, "message": message })
    };
    if value("labelSelector").is_some() {
        asked.selections.fetch_add(1, Ordering::Relaxed);
        return (504, status(504));
    }
    asked.pages.fetch_add(1, Ordering::Relaxed);
    if plain != 200 {
        return (plain, status(plain));
    }
    let first: usize = value("continue").map_or(0, |token| token.parse().unwrap());
    let limit: usize = value("limit").unwrap().parse().unwrap();
    let last = (first + limit).min(MACHINES);
    let items: Vec<_> = (first..last)
        .map(|n| {
            let rack = if n % 3 == 0 { "r1" } else { "r2" };
            let metadata = json!({ "name": name(n), "resourceVersion": "5", "labels": { "rack": rack } });
            json!({ "apiVersion": "dragonfly.computer/v1", "kind": "Hardware", "metadata": metadata, "spec": {} })
        })
        .collect();
    let token = if last < MACHINES { last.to_string() } else { String::new() };
    (200, json!({ "kind": "HardwareList", "metadata": { "resourceVersion": "9", "continue": token }, "items": items }))
}

async fn serve(mut stream: TcpStream, asked: &Asked, plain: u16) -> std::io::Result<()> {
    let mut text = Vec::new();
    loop {
        while !text.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Ok(());
            }
            text.extend(byte);
        }
        let head = String::from_utf8_lossy(&text).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (code, body) = answer(path, asked, plain);
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        text.clear();
    }
}

/// A store over such a server, which answers `plain` to whoever asks for everything.
async fn store(plain: u16) -> (KubernetesStore, Arc<Asked>, tempfile::TempDir) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Asked::default());
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = Arc::clone(&counted);
            tokio::spawn(async move { serve(stream, &asked, plain).await });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": {} }],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), ..ConnectOptions::default() };
    (KubernetesStore::connect(options).await.unwrap(), asked, directory)
}

fn rack(value: &str) -> Selector {
    Selector { labels: [("rack".to_owned(), value.to_owned())].into() }
}

#[tokio::test]
async fn what_the_server_cannot_select_in_time_is_selected_here() {
    let (store, asked, _directory) = store(200).await;
    let want: Vec<String> = (0..MACHINES).step_by(3).map(name).collect();
    let names = |page: &crate::store::Page| page.items.iter().map(|one| one.metadata.name.clone()).collect::<Vec<_>>();
    let all = store.list(Kind::HARDWARE, &rack("r1"), 0, None).await.unwrap();
    assert_eq!((names(&all), all.more, all.version.as_str()), (want.clone(), None, "9"));
    assert_eq!(asked.selections.load(Ordering::Relaxed), 1);
    // Pages of every size meet again at every place, and what was read is not read again from the beginning.
    for limit in [1, 7, 166, 167, 168, 399, 400, 401] {
        let before = asked.pages.load(Ordering::Relaxed);
        let (mut told, mut from, mut calls) = (Vec::new(), None::<String>, 0);
        loop {
            let page = store.list(Kind::HARDWARE, &rack("r1"), limit, from.as_deref()).await.unwrap();
            assert!(page.items.len() <= limit);
            told.extend(names(&page));
            calls += 1;
            from = page.more;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(told, want, "{limit} at a time");
        let pages = asked.pages.load(Ordering::Relaxed) - before;
        assert!(pages <= calls * 2 + MACHINES / super::PAGE, "{limit} at a time: {pages} pages read in {calls} calls");
    }
    assert_eq!(asked.selections.load(Ordering::Relaxed), 1, "it is spared for a while");
    assert!(store.list(Kind::HARDWARE, &rack("r9"), 5, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_server_that_is_away_is_not_blamed_for_its_selections() {
    let (store, asked, _directory) = store(503).await;
    for n in 1..3 {
        let refused = store.list(Kind::HARDWARE, &rack("r1"), 0, None).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
        assert_eq!(asked.selections.load(Ordering::Relaxed), n, "it is asked again");
    }
    assert_eq!(asked.pages.load(Ordering::Relaxed), 2);
}
