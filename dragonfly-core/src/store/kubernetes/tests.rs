//! What is asked for, and what answers mean, without a server.

use kube::core::Status;
use kube::core::response::StatusDetails;
use serde_json::{Value, json};

use super::failure::{Doing, is_away, late, refused};
use super::object::{Place, is_version, may_be_a_name};
use super::secret;
use crate::resource::{GROUP, Kind, Record};
use crate::store::{Key, Part, StoreError};

const SERVER: &str = "https://10.0.0.1:6443";
const CUSTOM: Place<'static> = Place::Custom { group: GROUP, kind: Kind::HARDWARE };
const SECRETS: Place<'static> = Place::Secrets { namespace: "dragonfly" };

fn status(code: u16, reason: &str, about: (&str, &str)) -> Status {
    let details = StatusDetails {
        kind: about.0.to_owned(),
        name: about.1.to_owned(),
        ..serde_json::from_value(json!({})).unwrap()
    };
    let mut status = Status::failure("the server's words", reason).with_code(code);
    status.details = (!about.0.is_empty()).then_some(details);
    status
}

#[test]
fn a_cluster_that_is_away_is_told_from_one_that_refuses() {
    let all = Doing::kind("list", Kind::HARDWARE, CUSTOM);
    for (code, away) in [(401, false), (403, false), (404, false), (500, true), (503, true)] {
        assert_eq!(is_away(&refused(&all, SERVER, &status(code, "", ("", "")))), away, "{code}");
    }
    assert!(is_away(&late(SERVER, std::time::Duration::from_secs(15))));
    assert!(!is_away(&StoreError::NotFound { key: Key::new(Kind::HARDWARE, "a") }));
}

#[test]
fn refusals_mean_what_the_caller_can_do() {
    let key = Key::new(Kind::HARDWARE, "a");
    let secret = Key::new(Kind::SECRET, "a");
    let one = |verb| Doing::object(verb, &key, CUSTOM);
    let all = || Doing::kind("list", Kind::HARDWARE, CUSTOM);
    let table = [
        (one("get"), status(404, "NotFound", ("hardware", "a")), "Hardware `a` does not exist"),
        (one("create"), status(409, "AlreadyExists", ("hardware", "a")), "Hardware `a` already exists"),
        (one("patch"), status(409, "Conflict", ("hardware", "a")), "Hardware `a` changed since it was read"),
        (
            one("patch"),
            status(422, "Invalid", ("hardware", "a")),
            "Hardware `a` is refused by the Kubernetes store: the server's words",
        ),
        (one("patch"), status(413, "", ("", "")), "Hardware `a` has 524289 bytes; an object may have 524288"),
        (
            one("patch"),
            status(403, "Forbidden", ("hardware", "a")),
            "the Kubernetes store is unavailable: we may not patch hardware.dragonfly.computer: `dragonfly install --kubernetes` grants it (the server's words)",
        ),
        (
            all(),
            status(404, "Failed to parse error data", ("", "")),
            "the Kubernetes store is unavailable: the cluster does not know hardware.dragonfly.computer: dragonfly crds | kubectl apply -f - (or another version of it is installed)",
        ),
        (
            one("get"),
            status(404, "Failed to parse error data", ("", "")),
            "the Kubernetes store is unavailable: the cluster does not know hardware.dragonfly.computer: dragonfly crds | kubectl apply -f - (or another version of it is installed)",
        ),
        (
            all(),
            status(401, "Unauthorized", ("", "")),
            "the Kubernetes store is unavailable: the API server https://10.0.0.1:6443 does not accept our credentials: the server's words",
        ),
        (
            all(),
            status(503, "ServiceUnavailable", ("", "")),
            "the Kubernetes store is unavailable: the API server https://10.0.0.1:6443 failed to list Hardware: the server's words",
        ),
        (
            Doing::object("create", &secret, SECRETS),
            status(404, "NotFound", ("namespaces", "dragonfly")),
            "the Kubernetes store is unavailable: there is no namespace `dragonfly`: kubectl create namespace dragonfly, or dragonfly install --kubernetes",
        ),
        (
            Doing::kind("list", Kind::SECRET, SECRETS),
            status(404, "Failed to parse error data", ("", "")),
            "the Kubernetes store is unavailable: Secret is of type dragonfly.computer/secret in core/v1, which the API server https://10.0.0.1:6443 does not have",
        ),
    ];
    for (doing, status, want) in table {
        assert_eq!(refused(&doing, SERVER, &status).to_string(), want, "{status:?}");
    }
}

#[test]
fn what_the_api_server_takes_for_any_version_is_none() {
    for (version, want) in [("", false), ("0", false), ("-1", false), ("x1", false), ("1", true), ("814", true)] {
        assert_eq!(is_version(version), want, "{version:?}");
    }
    for (name, want) in [("a", true), ("a.b-c", true), ("", false), ("a/b", false), ("..", false), ("a?b", false)] {
        assert_eq!(may_be_a_name(name), want, "{name:?}");
    }
}

fn kubernetes_secret(kind: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {
            "name": "bmc", "namespace": "dragonfly", "resourceVersion": "7", "labels": { "a": "b" },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "hunter2", "note": "x" },
        },
        "data": data,
    })
}

fn read(object: Value) -> Option<Record> {
    SECRETS.read(Kind::SECRET, object).unwrap()
}

#[test]
fn a_secret_that_a_person_made_is_plain_and_hides_what_kubectl_repeats() {
    let data = json!({ "password": "aHVudGVyMg==", "binary": "/w==" });
    let record = read(kubernetes_secret(secret::TYPE, data.clone())).unwrap();
    assert_eq!(record.spec, json!({ "sealed": {}, "data": { "password": "hunter2" } }));
    assert_eq!(record.metadata.annotations.into_iter().collect::<Vec<_>>(), [("note".into(), "x".into())]);
    assert_eq!(read(kubernetes_secret("Opaque", data)), None, "somebody else's");
}

#[test]
fn a_secret_comes_back_as_it_was_written_with_fields_of_later_versions() {
    let mut record = read(kubernetes_secret(secret::TYPE, json!({}))).unwrap();
    record.spec = json!({ "sealed": { "password": "c2VhbGVk" }, "data": { "plain": "p" }, "later": { "deep": [1] } });
    let created = SECRETS.creation(&record).unwrap();
    assert_eq!(created["type"], secret::TYPE);
    assert_eq!(read(created).unwrap().spec, record.spec);
    let patch = SECRETS.patch(&record, Part::Spec, "7").unwrap();
    let set = |path: &str| patch.as_array().unwrap().iter().find(|op| op["path"] == path).unwrap()["value"].clone();
    assert_eq!(set("/metadata/resourceVersion"), "7");
    let mut stored = kubernetes_secret(secret::TYPE, set("/data"));
    stored["metadata"]["annotations"] = set("/metadata/annotations");
    assert_eq!(read(stored).unwrap().spec, record.spec);
    let error = SECRETS.status(&Key::new(Kind::SECRET, "bmc")).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
}

#[test]
fn a_patch_says_which_version_it_depends_on_and_touches_one_part() {
    let object =
        json!({ "metadata": { "name": "a", "uid": "0198e0a0-0000-7000-8000-000000000000" }, "spec": { "macs": [] } });
    let mut record = CUSTOM.read(Kind::HARDWARE, object).unwrap().unwrap();
    record.status = json!({ "phase": "Ready" });
    let paths = |part| -> Vec<String> {
        let patch = CUSTOM.patch(&record, part, "12").unwrap();
        let operations = patch.as_array().unwrap();
        assert_eq!(operations[0], json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": "12" }));
        operations[1..].iter().map(|op| op["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(Part::Spec), ["/spec", "/metadata/annotations", "/metadata/labels", "/metadata/finalizers"]);
    assert_eq!(paths(Part::Status), ["/status"]);
    assert_eq!(CUSTOM.all(), "/apis/dragonfly.computer/v1/hardware");
}
