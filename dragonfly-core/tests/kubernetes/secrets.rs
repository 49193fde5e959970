//! Secrets: Kubernetes' own, ours and others'.

use std::sync::Arc;

use dragonfly_core::resource::{Kind, Metadata, Record};
use dragonfly_core::store::kubernetes::{ConnectOptions, SharedFiles};
use dragonfly_core::store::{Key, KubernetesStore, Part, Selector, Store, StoreError, WatchEvent, When};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::servers::{Cluster, PATIENCE, Server, until};

async fn cluster(server: Server) -> &'static Cluster {
    tokio::task::spawn_blocking(move || server.shared()).await.unwrap()
}

fn secret(name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind: Kind::SECRET, metadata, spec, status: Value::Null }
}

#[tokio::test]
async fn secrets_are_kubernetes_own() {
    if !Server::Whole.is_here() {
        return;
    }
    let cluster = cluster(Server::Whole).await;
    let namespace = "secrets".to_owned();
    let store = KubernetesStore::connect(ConnectOptions { namespace, ..cluster.options() }).await.unwrap();
    let told = store.put(secret("a", json!({ "sealed": {} })), Part::Spec, When::Absent).await.unwrap_err().to_string();
    assert!(told.contains("there is no namespace `secrets`"), "{told}");
    let made = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "secrets" } });
    cluster.ask("POST", "/api/v1/namespaces", Some(&made)).await;

    let all = "/api/v1/namespaces/secrets/secrets";
    let theirs =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "theirs" }, "stringData": { "x": "y" } });
    cluster.ask("POST", all, Some(&theirs)).await;
    let mut watch = store.watch(Kind::SECRET, None);
    let mut next = async || tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, WatchEvent::Snapshot(Vec::new()), "a Secret of another type is none of ours");
    assert_eq!(store.get(&Key::new(Kind::SECRET, "theirs")).await.unwrap(), None);
    let error = store.put(secret("theirs", json!({ "sealed": {} })), Part::Spec, When::Absent).await.unwrap_err();
    assert!(matches!(&error, StoreError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("choose another name"), "{error}");

    let sealed = json!({ "sealed": { "password": "c2VhbGVk" }, "later": 1 });
    let ours = store.put(secret("ours", sealed.clone()), Part::Spec, When::Absent).await.unwrap();
    assert_eq!(ours.spec, sealed);
    assert_eq!(next().await, WatchEvent::Applied(Arc::new(ours.clone())));
    let stored = cluster.ask("GET", &format!("{all}/ours"), None).await;
    assert_eq!(stored["type"], "dragonfly.computer/secret");
    assert!(stored["data"]["password"].is_string(), "{stored}");

    // As `kubectl create secret generic bmc --type=... --from-literal=password=hunter2` writes it.
    let plain = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "bmc" }, "type": "dragonfly.computer/secret",
        "data": { "password": "aHVudGVyMg==" },
    });
    cluster.ask("POST", all, Some(&plain)).await;
    let read = store.get(&Key::new(Kind::SECRET, "bmc")).await.unwrap().unwrap();
    assert_eq!(read.spec, json!({ "sealed": {}, "data": { "password": "hunter2" } }));
    assert_eq!(next().await, WatchEvent::Applied(Arc::new(read.clone())));
    let listed = store.list(Kind::SECRET, &Selector::all(), 0, None).await.unwrap().items;
    assert_eq!(listed, [read.clone(), ours.clone()]);

    let when = || When::Unchanged(read.metadata.resource_version.clone());
    let changed = Record { spec: json!({ "sealed": { "password": "bmV3" } }), ..read.clone() };
    let changed = store.put(changed, Part::Spec, when()).await.unwrap();
    assert_eq!(changed.spec, json!({ "sealed": { "password": "bmV3" } }), "what was plain is gone");
    let error = store.put(read.clone(), Part::Spec, when()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    store.delete(&Key::new(Kind::SECRET, "bmc"), &changed.metadata.resource_version).await.unwrap();
    assert_eq!(store.get(&Key::new(Kind::SECRET, "bmc")).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_without_secrets_is_named() {
    if !Server::Crds.is_here() {
        return;
    }
    let cluster = cluster(Server::Crds).await;
    let store = KubernetesStore::connect(cluster.options()).await.unwrap();
    // Some of them say that there is no such path, some that they cannot tell yet, for ever.
    until("it answers", async || {
        let error = store.list(Kind::SECRET, &Selector::all(), 0, None).await.unwrap_err();
        let told = error.to_string();
        let is_named = told.contains("Secret") && told.contains("the API server https://127.0.0.1:");
        if is_named && matches!(error, StoreError::Unavailable { .. }) { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn what_servers_share_is_what_the_first_had() {
    if !Server::Whole.is_here() {
        return;
    }
    let cluster = cluster(Server::Whole).await;
    let made = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shared" } });
    cluster.ask("POST", "/api/v1/namespaces", Some(&made)).await;
    let namespace = "shared".to_owned();
    let store = KubernetesStore::connect(ConnectOptions { namespace, ..cluster.options() }).await.unwrap();
    let files = |who: u8, names: &[&str]| -> SharedFiles {
        names.iter().map(|name| ((*name).to_owned(), vec![who, 0, 255].into())).collect()
    };
    let many: Vec<SharedFiles> = (0..8).map(|who| files(who, &["sealing.key", "http.key"])).collect();
    let got = futures_util::future::join_all(many.iter().map(|ours| store.share("dragonfly-keys", ours))).await;
    let got: Vec<SharedFiles> = got.into_iter().map(Result::unwrap).collect();
    assert!(many.contains(&got[0]), "one of them won whole");
    assert!(got.iter().all(|one| *one == got[0]), "and everybody has its files");
    // A later version shares one file more.
    let later = store.share("dragonfly-keys", &files(9, &["sealing.key", "new.key"])).await.unwrap();
    assert_eq!(later["sealing.key"], got[0]["sealing.key"]);
    assert_eq!(later["new.key"].as_slice(), [9, 0, 255]);
    assert_eq!(later.len(), 3);
}
