//! kube-rs, which controllers in Rust are written with.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, ResourceExt as _};
use serde_json::json;

use crate::site::{SECRET, Site, TEMPLATE, machine};

const PATIENCE: Duration = Duration::from_secs(90);

async fn next<K>(events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin)) -> Event<K> {
    let next = tokio::time::timeout(PATIENCE, events.next());
    next.await.expect("nothing came").expect("the watch ended").unwrap()
}

/// Until the objects that were there have all been told.
async fn present<K: kube::ResourceExt>(
    events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match next(events).await {
            Event::Init => names.clear(),
            Event::InitApply(object) => names.push(object.name_any()),
            Event::InitDone => break,
            _ => panic!("a change before what is there was told"),
        }
    }
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_lists_watches_patches_and_deletes() {
    let site = Site::start();
    let all = [TEMPLATE, SECRET, &machine("db-1", 1, "a1"), &machine("db-2", 2, "a2")].join("---\n");
    site.done(&["apply", "-f", "-"], &all);
    let config = Kubeconfig::read_from(site.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    assert!(client.apiserver_version().await.unwrap().git_version.contains("dragonfly"));

    let kind = GroupVersionKind::gvk("dragonfly.computer", "v1", "Hardware");
    let (found, capabilities) = kube::discovery::pinned_kind(&client, &kind).await.unwrap();
    assert_eq!((found.plural.as_str(), capabilities.scope), ("hardware", kube::discovery::Scope::Cluster));
    let resource = ApiResource::from_gvk_with_plural(&kind, "hardware");
    let machines: Api<DynamicObject> = Api::all_with(client.clone(), &resource);

    let list = machines.list(&ListParams::default().labels("rack in (a1,a3)")).await.unwrap();
    assert_eq!(list.items.iter().map(|m| m.name_any()).collect::<Vec<_>>(), ["db-1"]);
    let page = machines.list(&ListParams::default().limit(1)).await.unwrap();
    let more = page.metadata.continue_.unwrap();
    let rest = machines.list(&ListParams::default().limit(1).continue_token(&more)).await.unwrap();
    assert_eq!(rest.items[0].name_any(), "db-2");
    let metadata = machines.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[1].labels(), &BTreeMap::from([("rack".to_owned(), "a2".to_owned())]));

    // Two ways to begin, one stream of changes: what no longer matches is gone.
    let by_label = watcher::Config::default().labels("rack!=a9");
    let mut listed = pin!(watcher(machines.clone(), by_label.clone()));
    let mut streamed = pin!(watcher(machines.clone(), by_label.streaming_lists()));
    assert_eq!(present(&mut listed).await, ["db-1", "db-2"]);
    assert_eq!(present(&mut streamed).await, ["db-1", "db-2"]);
    let merge = Patch::Merge(json!({ "spec": { "displayName": "Db-1", "hold": "a fan" } }));
    let patched = machines.patch("db-1", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(patched.data["spec"]["hold"], "a fan");
    let away = Patch::Merge(json!({ "metadata": { "labels": { "rack": "a9" } } }));
    machines.patch("db-2", &PatchParams::default(), &away).await.unwrap();
    for events in [&mut listed, &mut streamed] {
        match next(events).await {
            Event::Apply(machine) => assert_eq!(machine.data["spec"]["displayName"], "Db-1"),
            other => panic!("{other:?}"),
        }
        match next(events).await {
            Event::Delete(machine) => assert_eq!(machine.name_any(), "db-2"),
            other => panic!("{other:?}"),
        }
    }

    // With a version that is gone nothing is written.
    let stale = Patch::Merge(json!({ "metadata": { "resourceVersion": "1" }, "spec": { "hold": null } }));
    match machines.patch("db-1", &PatchParams::default(), &stale).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, status.reason.as_str()), (409, "Conflict")),
        other => panic!("{other:?}"),
    }
    let applied = Patch::Apply(json!({
        "apiVersion": "dragonfly.computer/v1", "kind": "Hardware", "metadata": { "name": "db-3" },
        "spec": { "macs": ["52:54:00:ab:cd:03"] },
    }));
    let params = PatchParams::apply("a-controller").force();
    assert!(machines.patch("db-3", &params.clone().dry_run(), &applied).await.is_ok());
    assert!(machines.get_opt("db-3").await.unwrap().is_none(), "a dry run writes nothing");
    machines.patch("db-3", &params, &applied).await.unwrap();
    let status = Patch::Merge(json!({ "status": { "phase": "Ready" } }));
    match machines.patch_status("db-3", &PatchParams::default(), &status).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 405),
        other => panic!("{other:?}"),
    }
    assert!(machines.get_status("db-3").await.is_ok());

    // Another machine of its name is not the one that is meant.
    let other = kube::api::Preconditions { uid: Some(uuid::Uuid::nil().to_string()), resource_version: None };
    let refused = machines.delete("db-3", &DeleteParams::default().preconditions(other)).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 409));
    machines.delete("db-3", &DeleteParams::default()).await.unwrap();
    machines
        .delete_collection(&DeleteParams::default(), &ListParams::default().labels("rack notin (a9)"))
        .await
        .unwrap();
    let left = machines.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.iter().map(|m| m.name_any()).collect::<Vec<_>>(), ["db-2"]);

    secrets(&site, client).await;
}

/// A Secret is patched without its values being told to anybody, and keeps those that were not meant.
async fn secrets(site: &Site, client: Client) {
    let kind = GroupVersionKind::gvk("dragonfly.computer", "v1", "Secret");
    let secrets: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "secrets"));
    let given = |labels: &str, data: &str| {
        let text = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {{name: bmc{labels}}}, spec: {{data: {data}}}}}"
        );
        site.done(&["apply", "-f", "-"], &text)
    };
    let none = PatchParams::default();
    let label = Patch::Merge::<serde_json::Value>(json!({ "metadata": { "labels": { "a": "b" } } }));
    let shown = secrets.patch("bmc", &none, &label).await.unwrap();
    assert_eq!(shown.data["spec"], json!({ "keys": ["password", "username"] }));
    assert!(given(", labels: {a: b}", "{username: root, password: hunter2-hunter2}").contains("unchanged"));
    let one = Patch::Merge(json!({ "spec": { "data": { "username": "admin" } } }));
    secrets.patch("bmc", &none, &one).await.unwrap();
    assert!(given(", labels: {a: b}", "{username: admin, password: hunter2-hunter2}").contains("unchanged"));
    let operations: json_patch::Patch = serde_json::from_value(json!([
        { "op": "move", "from": "/spec/data/password", "path": "/spec/data/secret" },
        { "op": "remove", "path": "/metadata/labels" },
    ]))
    .unwrap();
    secrets.patch("bmc", &none, &Patch::Json::<()>(operations)).await.unwrap();
    assert!(given("", "{username: admin, secret: hunter2-hunter2}").contains("unchanged"));
    // What a value is cannot be found out by asking whether it is this.
    let guess: json_patch::Patch =
        serde_json::from_value(json!([{ "op": "test", "path": "/spec/data/secret", "value": "hunter2-hunter2" }]))
            .unwrap();
    match secrets.patch("bmc", &none, &Patch::Json::<()>(guess)).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, status.message.contains("hunter2")), (422, false)),
        other => panic!("{other:?}"),
    }
}
