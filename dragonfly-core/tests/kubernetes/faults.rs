//! Servers that are killed, forget, hang, or are not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::resource::{Kind, Metadata, Record};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{Key, KubernetesStore, Part, Result, Selector, Store, StoreError, WatchEvent, When};
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::servers::{Cluster, PATIENCE, Server, until};

type Known = BTreeMap<String, Record>;

async fn create(store: &KubernetesStore, name: &str) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    let record = Record { kind: Kind::HARDWARE, metadata, spec: json!({}), status: Value::Null };
    store.put(record, Part::Spec, When::Absent).await.unwrap()
}

async fn everything(store: &KubernetesStore) -> Known {
    let page = store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap();
    page.items.into_iter().map(|record| (record.metadata.name.clone(), record)).collect()
}

/// Listens until `enough`; failures are passed over. Gives how many snapshots there were.
async fn hear(
    watch: &mut BoxStream<'static, Result<WatchEvent>>,
    known: &mut Known,
    mut enough: impl FnMut(&Known) -> bool,
) -> usize {
    let mut snapshots = 0;
    let listen = async {
        while !enough(known) {
            match watch.next().await.expect("a watch does not end") {
                Ok(WatchEvent::Snapshot(all)) => {
                    snapshots += 1;
                    *known = all.into_iter().map(|record| (record.metadata.name.clone(), record)).collect();
                }
                Ok(WatchEvent::Applied(record)) => {
                    known.insert(record.metadata.name.clone(), Arc::unwrap_or_clone(record));
                }
                Ok(WatchEvent::Deleted(record)) => {
                    known.remove(&record.metadata.name);
                }
                Ok(_) => {}
                Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, listen).await.expect("the watch tells it in time");
    snapshots
}

async fn own(server: Server) -> (Cluster, KubernetesStore) {
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(server)).await.unwrap();
    let store = cluster.store(&[Kind::HARDWARE]).await;
    (cluster, store)
}

async fn restart(cluster: &Cluster, store: &KubernetesStore) {
    cluster.kill_api();
    let down = store.get(&Key::new(Kind::HARDWARE, "a")).await.unwrap_err();
    assert!(down.to_string().contains("cannot be reached"), "{down}");
    assert!(down.is_retryable());
    cluster.start_api();
    until("the server is back", async || store.list(Kind::HARDWARE, &Selector::all(), 1, None).await).await;
}

async fn a_watch_outlives_the_api_server(server: Server) {
    if !server.is_here() {
        return;
    }
    let (cluster, store) = own(server).await;
    create(&store, "a").await;
    let mut watch = store.watch(Kind::HARDWARE, None);
    let mut known = Known::new();
    hear(&mut watch, &mut known, |known| known.contains_key("a")).await;
    for round in 0..2 {
        // What happens while nobody listens, before and after, is told too.
        let early = create(&store, &format!("early{round}")).await;
        restart(&cluster, &store).await;
        store.delete(&Key::new(Kind::HARDWARE, &early.metadata.name), &early.metadata.resource_version).await.unwrap();
        let late = create(&store, &format!("late{round}")).await;
        hear(&mut watch, &mut known, |known| known.contains_key(&late.metadata.name)).await;
        assert_eq!(known, everything(&store).await);
    }
}

#[tokio::test]
async fn a_watch_outlives_the_current_api_server() {
    a_watch_outlives_the_api_server(Server::Crds).await;
}

#[tokio::test]
async fn a_watch_outlives_the_oldest_api_server() {
    a_watch_outlives_the_api_server(Server::Whole).await;
}

async fn what_is_forgotten_is_read_anew(server: Server) {
    if !server.is_here() {
        return;
    }
    let (cluster, store) = own(server).await;
    for n in 0..9 {
        create(&store, &format!("m{n}")).await;
    }
    let first = store.list(Kind::HARDWARE, &Selector::all(), 3, None).await.unwrap();
    let old = first.version.clone();
    store
        .delete(&Key::new(Kind::HARDWARE, "m8"), &everything(&store).await["m8"].metadata.resource_version)
        .await
        .unwrap();
    let last = create(&store, "n").await;
    cluster.compact(&last.metadata.resource_version);
    // What the API server still has in its own memory is gone too then.
    restart(&cluster, &store).await;

    let (mut names, mut from) = (Vec::new(), first.more);
    while let Some(place) = from {
        let page = store.list(Kind::HARDWARE, &Selector::all(), 3, Some(&place)).await.unwrap();
        assert!(page.items.len() <= 3);
        names.extend(page.items.into_iter().map(|record| record.metadata.name));
        from = page.more;
    }
    assert_eq!(names, ["m3", "m4", "m5", "m6", "m7", "n"], "pages go on after the name where they stopped");

    let mut watch = store.watch(Kind::HARDWARE, Some(old));
    // As somebody knows it who saw m8.
    let mut known = Known::from([("m8".to_owned(), last.clone())]);
    let snapshots = hear(&mut watch, &mut known, |known| known.contains_key("n")).await;
    assert_eq!(snapshots, 1, "a version that is forgotten there leads to a snapshot");
    assert_eq!(known, everything(&store).await);
    let more = create(&store, "o").await;
    hear(&mut watch, &mut known, |known| known.get("o") == Some(&more)).await;
}

#[tokio::test]
async fn what_the_current_server_forgot_is_read_anew() {
    what_is_forgotten_is_read_anew(Server::Crds).await;
}

#[tokio::test]
async fn what_the_oldest_server_forgot_is_read_anew() {
    what_is_forgotten_is_read_anew(Server::Whole).await;
}

#[tokio::test]
async fn an_etcd_that_hangs_makes_calls_fail_and_not_hang() {
    if !Server::Crds.is_here() {
        return;
    }
    let (cluster, store) = own(Server::Crds).await;
    let a = create(&store, "a").await;
    let group = a_group_of(&store);
    let hasty = ConnectOptions { group, timeout: Duration::from_secs(3), ..cluster.options() };
    let hasty = KubernetesStore::connect(hasty).await.unwrap();
    cluster.signal_etcd("-STOP");
    let stuck = async {
        let when = When::Unchanged(a.metadata.resource_version.clone());
        let put = hasty.put(Record { spec: json!({ "protected": true }), ..a.clone() }, Part::Spec, when).await;
        let get = hasty.get(&Key::new(Kind::HARDWARE, "a")).await;
        (put.map(|_| ()), get.map(|_| ()))
    };
    let (put, get) = tokio::time::timeout(PATIENCE, stuck).await.expect("they do not hang");
    for error in [put.unwrap_err(), get.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("no answer in 3 s; is its etcd well?"), "{error}");
    }
    cluster.signal_etcd("-CONT");
    let now = until("etcd goes on", async || hasty.get(&Key::new(Kind::HARDWARE, "a")).await).await.unwrap();
    until("writes go on", async || {
        let now = hasty.get(&Key::new(Kind::HARDWARE, "a")).await?.unwrap_or_else(|| now.clone());
        let when = When::Unchanged(now.metadata.resource_version.clone());
        hasty.put(Record { spec: json!({ "protected": false }), ..now }, Part::Spec, when).await
    })
    .await;
}

fn a_group_of(store: &KubernetesStore) -> String {
    let text = format!("{store:?}");
    let group = text.split("group: \"").nth(1).and_then(|rest| rest.split('"').next());
    group.expect("it says its group").to_owned()
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, users: [{{name: u, user: {{}}}}],
          clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{port}\"}}}}],
          contexts: [{{name: c, context: {{cluster: c, user: u}}}}]}}"
    );
    std::fs::write(&file, text).unwrap();
    let options = ConnectOptions { kubeconfig: Some(file.clone()), ..ConnectOptions::default() };
    let store = KubernetesStore::connect(options.clone()).await.unwrap();
    let error = store.check().await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&format!("https://127.0.0.1:{port} cannot be reached")), "{told}");
    assert!(told.contains("refused"), "{told}");

    let strange = ConnectOptions { context: Some("nowhere".to_owned()), ..options.clone() };
    let told = KubernetesStore::connect(strange).await.unwrap_err().to_string();
    assert!(told.contains("nowhere") && told.contains(&file.display().to_string()), "{told}");

    std::fs::write(&file, "clusters: 7").unwrap();
    let told = KubernetesStore::connect(options.clone()).await.unwrap_err().to_string();
    assert!(told.contains("cannot be read") || told.contains("of no use"), "{told}");

    let absent = ConnectOptions { kubeconfig: Some(directory.path().join("absent")), ..options };
    let told = KubernetesStore::connect(absent).await.unwrap_err().to_string();
    assert!(told.contains("absent") && told.contains("cannot be read"), "{told}");
}
