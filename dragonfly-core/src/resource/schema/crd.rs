//! Each kind as a `CustomResourceDefinition` of `apiextensions.k8s.io/v1`.

use serde_json::{Value, json};

use super::super::{GROUP, Kind, VERSION};
use super::{columns, of};

/// The definition of one kind in an API group, [`GROUP`] unless it is for a test. Kubernetes 1.20 and later take it.
pub fn crd(kind: Kind, group: &str) -> Value {
    let columns: Vec<Value> = columns(kind)
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "jsonPath": column.path,
                "priority": column.priority,
                "description": column.about,
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", kind.plural),
            "labels": { "app.kubernetes.io/part-of": "dragonfly" },
        },
        "spec": {
            "group": group,
            "names": {
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
                "plural": kind.plural,
                "singular": kind.name.to_ascii_lowercase(),
                "shortNames": [kind.short],
                "categories": ["dragonfly"],
            },
            "scope": "Cluster",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": of(kind) },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
            }],
        },
    })
}

/// The definitions that a cluster needs: every kind but Secret, which is Kubernetes' own.
pub fn crds() -> Vec<Value> {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::SECRET).map(|kind| crd(kind, GROUP)).collect()
}
