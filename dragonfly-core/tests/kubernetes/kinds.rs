//! Definitions, schemas, permissions, and what others write beside us.

use dragonfly_core::resource::{Hardware, HardwareSpec, Kind, Metadata, Record, manifest, schema};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{Key, KubernetesStore, Part, Selector, Store, StoreError, StoreExt, When};
use serde_json::{Value, json};

use crate::servers::{Server, until};

const KINDS: [Kind; 4] = [Kind::HARDWARE, Kind::TEMPLATE, Kind::WORKFLOW, Kind::NETWORK];

fn record(kind: Kind, name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind, metadata, spec, status: Value::Null }
}

async fn definitions_are_taken_and_judge(server: Server) {
    if !server.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
    let store = cluster.store(&KINDS).await;
    let group = format!("{store:?}").split("group: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for kind in KINDS {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{group}", kind.plural);
        until("the definition is established", async || {
            let definition = cluster.ask("GET", &path, None).await;
            let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |kind: &str| conditions.iter().find(|c| c["type"] == kind).map(|c| c["status"].clone());
            assert_eq!(is("NonStructuralSchema"), None, "{conditions:?}");
            if is("Established") == Some("True".into()) && is("NamesAccepted") == Some("True".into()) {
                // What was given is what is kept: nothing of the schema is unknown there.
                let given = schema::crd(kind, &group);
                let versions = |crd: &Value| crd["spec"]["versions"][0]["schema"].clone();
                assert_eq!(versions(&definition), versions(&given));
                return Ok(());
            }
            Err(conditions)
        })
        .await;
    }
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/manifest");
    for entry in std::fs::read_dir(seeds).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for manifest in manifest::parse(&text).unwrap() {
            if manifest.record.kind != Kind::SECRET {
                let put = store.put(manifest.record.clone(), Part::Spec, When::Absent).await.unwrap();
                assert_eq!(put.spec, manifest.record.spec, "nothing is lost or added");
            }
        }
    }
    for (kind, spec, field) in [
        (Kind::HARDWARE, json!({ "macs": "52:54:00:00:00:01" }), "spec.macs"),
        (Kind::HARDWARE, json!({ "macs": ["nonsense"] }), "spec.macs"),
        (Kind::HARDWARE, json!({ "trust": "blind" }), "spec.trust"),
        (Kind::TEMPLATE, json!({ "actions": [{ "name": "a" }] }), "spec.actions"),
        (Kind::NETWORK, json!({ "interface": "eth0", "dhcp": false, "subnet": "10.0.0.0/8" }), "spec.dhcp"),
    ] {
        let error = store.put(record(kind, "wrong", spec), Part::Spec, When::Absent).await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, StoreError::Invalid { .. }), "{told}");
        assert!(told.contains(field), "{field}: {told}");
    }
}

#[tokio::test]
async fn definitions_are_taken_by_the_current_server() {
    definitions_are_taken_and_judge(Server::Crds).await;
}

#[tokio::test]
async fn definitions_are_taken_by_the_oldest_server() {
    definitions_are_taken_and_judge(Server::Whole).await;
}

#[tokio::test]
async fn what_others_keep_beside_us_stays() {
    for server in [Server::Crds, Server::Whole] {
        if !server.is_here() {
            return;
        }
        let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
        let store = cluster.store(&[Kind::HARDWARE]).await;
        let spec =
            json!({ "bmc": { "address": "ipmi://10.0.0.6", "later": { "deep": [1, { "x": 2 }] } }, "later": [1] });
        store.put(record(Kind::HARDWARE, "a", spec), Part::Spec, When::Absent).await.unwrap();
        let group = format!("{store:?}").split("group: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let path = format!("/apis/{group}/v1/hardware/a");
        let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1-2-3" });
        let theirs = json!({ "metadata": { "ownerReferences": [owner], "annotations": { "theirs": "x" } } });
        cluster.ask("PATCH", &path, Some(&theirs)).await;
        store
            .update_spec::<HardwareSpec, StoreError, _>("a", |machine| {
                machine.spec.protected = true;
                Ok(())
            })
            .await
            .unwrap();
        store
            .update_status("a", |machine: &mut Hardware| {
                machine.status.message = "seen".to_owned();
                Ok::<_, StoreError>(())
            })
            .await
            .unwrap();
        let now = cluster.ask("GET", &path, None).await;
        assert_eq!(now["spec"]["bmc"]["later"], json!({ "deep": [1, { "x": 2 }] }), "{now}");
        assert_eq!((&now["spec"]["later"], &now["spec"]["protected"]), (&json!([1]), &json!(true)));
        assert_eq!(now["metadata"]["ownerReferences"][0]["name"], "o", "{now}");
        assert_eq!(now["metadata"]["annotations"]["theirs"], "x");
        assert_eq!(now["status"]["message"], "seen");
    }
}

#[tokio::test]
async fn a_kind_that_is_not_defined_is_named() {
    for server in [Server::Crds, Server::Whole] {
        if !server.is_here() {
            return;
        }
        let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
        let options = ConnectOptions { group: "absent.dragonfly.computer".to_owned(), ..cluster.options() };
        let store = KubernetesStore::connect(options).await.unwrap();
        let key = Key::new(Kind::HARDWARE, "a");
        // It refuses everything until it has started.
        until("it says that it does not know the kind", async || {
            let told = store.get(&key).await.unwrap_err().to_string();
            if told.contains("does not know") { Ok(()) } else { Err(told) }
        })
        .await;
        for error in [
            store.get(&key).await.map(|_| ()).unwrap_err(),
            store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.map(|_| ()).unwrap_err(),
            store.put(record(Kind::HARDWARE, "a", json!({})), Part::Spec, When::Absent).await.map(|_| ()).unwrap_err(),
            store.delete(&key, "1").await.unwrap_err(),
        ] {
            let told = error.to_string();
            assert!(told.contains("hardware.absent.dragonfly.computer: dragonfly crds | kubectl apply"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    if !Server::Whole.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| Server::Whole.shared()).await.unwrap();
    let store = cluster.store(&[Kind::HARDWARE]).await;
    let a = store.put(record(Kind::HARDWARE, "a", json!({})), Part::Spec, When::Absent).await.unwrap();
    let group = format!("{store:?}").split("group: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let name = format!("narrow-{group}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
        "rules": [{ "apiGroups": [group], "resources": ["hardware"], "verbs": ["get"] }],
    });
    cluster.ask("POST", &format!("{rbac}/clusterroles"), Some(&role)).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "User", "name": "narrow", "apiGroup": "rbac.authorization.k8s.io" }],
    });
    cluster.ask("POST", &format!("{rbac}/clusterrolebindings"), Some(&binding)).await;
    let options = ConnectOptions { group: group.clone(), ..cluster.options_of("narrow") };
    let narrow = KubernetesStore::connect(options).await.unwrap();
    let key = Key::new(Kind::HARDWARE, "a");
    let read = until("the role counts", async || narrow.get(&key).await).await;
    assert_eq!(read, Some(a.clone()));
    let when = When::Unchanged(a.metadata.resource_version.clone());
    for (verb, error) in [
        ("list", narrow.list(Kind::HARDWARE, &Selector::all(), 0, None).await.map(|_| ()).unwrap_err()),
        ("patch", narrow.put(a.clone(), Part::Spec, when).await.map(|_| ()).unwrap_err()),
        ("delete", narrow.delete(&key, &a.metadata.resource_version).await.unwrap_err()),
    ] {
        let told = error.to_string();
        let want = format!("we may not {verb} hardware.{group}: `dragonfly install --kubernetes` grants it");
        assert!(told.contains(&want), "{told}");
    }
}
