//! A cluster with Tinkerbell's definitions: every store is a namespace of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use dragonfly_core::resource::{HardwareSpec, Kind, Metadata, Record, TemplateSpec};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{Key, KubernetesStore, Part, Selector, Store, StoreError, StoreExt, When};
use dragonfly_core::testing::store::PROMISES;
use serde_json::{Value, json};

use crate::servers::{Cluster, Server, until};

/// Defines what Tinkerbell defines, as far as it matters here: any field, and a status that is written apart.
async fn define(cluster: &Cluster) {
    for (group, plural, kind) in [
        ("tinkerbell.org", "hardware", "Hardware"),
        ("tinkerbell.org", "templates", "Template"),
        ("tinkerbell.org", "workflows", "Workflow"),
        ("bmc.tinkerbell.org", "machines", "Machine"),
    ] {
        let name = format!("{plural}.{group}");
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": name },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
                "versions": [{
                    "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": any },
                }],
            },
        });
        let path =
            format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=test&force=true");
        let client = cluster.client().await;
        until("the definition is taken", async || {
            let request = http::Request::builder().method("PATCH").uri(&path);
            let request = request.header("content-type", "application/apply-patch+yaml");
            client.request::<Value>(request.body(definition.to_string().into_bytes()).unwrap()).await
        })
        .await;
    }
}

async fn store_in(cluster: &Cluster, server: Server) -> KubernetesStore {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let namespace = format!("tink-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    if server == Server::Whole {
        let made = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        cluster.ask("POST", "/api/v1/namespaces", Some(&made)).await;
    }
    define(cluster).await;
    let options = ConnectOptions { namespace, tinkerbell: true, ..cluster.options() };
    let store = KubernetesStore::connect(options).await.unwrap();
    for kind in [Kind::HARDWARE, Kind::TEMPLATE, Kind::WORKFLOW] {
        until("the definition is served", async || store.list(kind, &Selector::all(), 1, None).await).await;
    }
    store
}

/// Every promise of a store but one: what theirs cannot say stands in annotations, of which Kubernetes takes 256 KiB.
async fn promises_are_kept(server: Server) {
    if !server.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
    for (name, promise) in PROMISES.iter().filter(|(name, _)| *name != "too_large_is_refused") {
        eprintln!("{name}");
        promise(&store_in(cluster, server).await).await;
    }
    let store = store_in(cluster, server).await;
    let of = |kib: usize| record(Kind::HARDWARE, "a", json!({ "later": "x".repeat(kib * 1024) }));
    let now = store.put(of(240), Part::Spec, When::Absent).await.unwrap();
    let when = || When::Unchanged(now.metadata.resource_version.clone());
    let large = Record { metadata: now.metadata.clone(), ..of(257) };
    let error = store.put(large, Part::Spec, when()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }) && error.to_string().contains("256 KiB"), "{error}");
    let status = Record { status: json!({ "later": "x".repeat(20 * 1024) }), ..now.clone() };
    let error = store.put(status, Part::Status, when()).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }) && error.to_string().contains("256 KiB"), "{error}");
    assert_eq!(store.get(&Key::new(Kind::HARDWARE, "a")).await.unwrap(), Some(now));
}

#[tokio::test]
async fn promises_are_kept_by_the_current_server() {
    promises_are_kept(Server::Crds).await;
}

#[tokio::test]
async fn promises_are_kept_by_the_oldest_server() {
    promises_are_kept(Server::Whole).await;
}

fn record(kind: Kind, name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind, metadata, spec, status: Value::Null }
}

#[tokio::test]
async fn without_tinkerbell_it_is_said_that_it_is_not_there() {
    if !Server::Crds.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Server::Crds)).await.unwrap();
    let options = ConnectOptions { namespace: "tinkerbell".to_owned(), tinkerbell: true, ..cluster.options() };
    let store = KubernetesStore::connect(options).await.unwrap();
    let told = until("the server answers", async || {
        let told = store.check().await.unwrap_err().to_string();
        if told.contains("cannot be reached") { Err(told) } else { Ok(told) }
    })
    .await;
    assert!(told.contains("Tinkerbell is not installed in this cluster"), "{told}");
    assert!(told.contains("hardware.tinkerbell.org in the namespace `tinkerbell`"), "{told}");
}

#[tokio::test]
async fn objects_of_theirs_are_read_and_written_and_their_own_fields_stay() {
    let server = Server::Crds;
    if !server.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
    let store = store_in(cluster, server).await;
    let at = |group: &str, plural: &str| format!("/apis/{group}/v1alpha1/namespaces/{}/{plural}", store.namespace());
    let put = async |group: &str, plural: &str, kind: &str, name: &str, spec: Value| {
        let object = json!({
            "apiVersion": format!("{group}/v1alpha1"), "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        cluster.ask("POST", &at(group, plural), Some(&object)).await
    };
    let connection = json!({ "host": "10.0.0.6", "authSecretRef": { "name": "bmc", "namespace": "x" } });
    put("bmc.tinkerbell.org", "machines", "Machine", "bmc-a", json!({ "connection": connection })).await;
    let interface = json!({ "dhcp": { "mac": "52:54:00:00:00:01", "later": 1 }, "netboot": { "allowPXE": true } });
    let spec =
        json!({ "interfaces": [interface], "bmcRef": { "kind": "Machine", "name": "bmc-a" }, "later": { "x": [1] } });
    put("tinkerbell.org", "hardware", "Hardware", "a", spec).await;

    let page = store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap();
    let listed = &page.items[0].spec;
    assert_eq!(
        (&listed["macs"][0], &listed["bmc"]["address"]),
        (&json!("52:54:00:00:00:01"), &json!("ipmi://10.0.0.6"))
    );
    let key = Key::new(Kind::HARDWARE, "a");
    assert_eq!(store.get(&key).await.unwrap().unwrap().spec, *listed, "alone as in a list");
    store
        .update_spec::<HardwareSpec, StoreError, _>("a", |machine| {
            machine.spec.protected = true;
            machine.spec.hold = Some("a fan".to_owned());
            Ok(())
        })
        .await
        .unwrap();
    let now = cluster.ask("GET", &format!("{}/a", at("tinkerbell.org", "hardware")), None).await;
    assert_eq!(
        (&now["spec"]["later"], &now["spec"]["interfaces"][0]["dhcp"]["later"]),
        (&json!({ "x": [1] }), &json!(1))
    );
    assert_eq!(now["spec"]["interfaces"][0]["netboot"], json!({ "allowPXE": true, "allowWorkflow": false }));
    let mut moved = store.get(&key).await.unwrap().unwrap();
    moved.spec["bmc"]["address"] = json!("ipmi://10.0.0.7");
    let when = When::Unchanged(moved.metadata.resource_version.clone());
    let error = store.put(moved, Part::Spec, when).await.unwrap_err().to_string();
    assert!(error.contains("spec.bmc: is what the Machine"), "{error}");

    let actions =
        json!([{ "name": "w", "action": "x", "with": { "image": "a/b:c", "environment": { "K": "v\nw\n" } } }]);
    let template = record(Kind::TEMPLATE, "t", json!({ "actions": actions }));
    let made = store.put(template.clone(), Part::Spec, When::Absent).await.unwrap();
    assert_eq!(made.spec, template.spec);
    assert!(made.decode::<TemplateSpec>().is_ok());
    let stored = cluster.ask("GET", &format!("{}/t", at("tinkerbell.org", "templates")), None).await;
    assert!(stored["spec"]["data"].as_str().unwrap().contains("image: \"a/b:c\""), "{stored}");
    let wrong = record(Kind::TEMPLATE, "u", json!({ "actions": [{ "name": "p", "action": "partition" }] }));
    let error = store.put(wrong, Part::Spec, When::Absent).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }) && error.to_string().contains("`partition`"), "{error}");

    let spec = json!({ "hardware": "a", "template": "t", "content": { "actions": [] } });
    let run = store.put(record(Kind::WORKFLOW, "w", spec.clone()), Part::Spec, When::Absent).await.unwrap();
    assert_eq!((&run.spec, &run.status["state"]), (&spec, &json!("Pending")));
    let path = format!("{}/w", at("tinkerbell.org", "workflows"));
    let stored = cluster.ask("GET", &path, None).await;
    assert_eq!(stored["spec"]["hardwareMap"], json!({ "device_1": "52:54:00:00:00:01" }));
    assert_eq!(stored["spec"]["bootOptions"], json!({ "toggleAllowNetboot": true, "bootMode": "netboot" }));
    let action = json!({ "name": "w", "image": "a/b:c", "state": "FAILED", "message": "exit 1" });
    let status = json!({ "status": { "state": "FAILED", "tasks": [{ "actions": [action] }] } });
    cluster.ask("PATCH", &format!("{path}/status"), Some(&status)).await;
    let seen = store.get(&Key::new(Kind::WORKFLOW, "w")).await.unwrap().unwrap();
    assert_eq!((&seen.status["state"], &seen.status["message"]), (&json!("Failed"), &json!("`w` failed: exit 1")));
    let wrong =
        record(Kind::WORKFLOW, "v", json!({ "hardware": "nobody", "template": "t", "content": { "actions": [] } }));
    let error = store.put(wrong, Part::Spec, When::Absent).await.unwrap_err().to_string();
    assert!(error.contains("there is no Hardware `nobody`"), "{error}");
}
