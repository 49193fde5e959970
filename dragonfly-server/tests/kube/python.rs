//! The Python client, in an environment of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::site::{Site, TEMPLATE, kept, machine, missing, with_input};

const PACKAGE: &str = "kubernetes==37.0.2";

fn python() -> Option<PathBuf> {
    let at = kept().join("kubernetes-python");
    let python = at.join("bin/python");
    let has_it = || {
        let run = Command::new(&python).args(["-c", "import kubernetes"]).stderr(Stdio::null()).status();
        run.is_ok_and(|done| done.success())
    };
    if !has_it() {
        let run = |command: &mut Command| command.stdin(Stdio::null()).status().is_ok_and(|done| done.success());
        let _ = run(Command::new("python3").args(["-m", "venv"]).arg(&at))
            && run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]));
    }
    has_it().then_some(python)
}

const SCRIPT: &str = r#"
import sys
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

config.load_kube_config(sys.argv[1])
api = client.CustomObjectsApi()
ours = ("dragonfly.computer", "v1", "hardware")

assert "dragonfly" in client.VersionApi().get_code().git_version
names = lambda found: [item["metadata"]["name"] for item in found["items"]]
assert names(api.list_cluster_custom_object(*ours)) == ["db-1", "db-2"]
assert names(api.list_cluster_custom_object(*ours, label_selector="rack in (a1)")) == ["db-1"]
version = api.list_cluster_custom_object(*ours)["metadata"]["resourceVersion"]

made = api.create_cluster_custom_object(*ours, {
    "apiVersion": "dragonfly.computer/v1", "kind": "Hardware",
    "metadata": {"name": "db-3", "labels": {"rack": "a3"}}, "spec": {"macs": ["52:54:00:ab:cd:03"]},
})
assert made["metadata"]["uid"]
patched = api.patch_cluster_custom_object(*ours, "db-3", {"spec": {"hold": "a fan"}})
assert patched["spec"]["hold"] == "a fan", patched
operations = [{"op": "remove", "path": "/spec/hold"}]
patched = api.patch_cluster_custom_object(*ours, "db-3", operations, _content_type="application/json-patch+json")
assert "hold" not in patched["spec"], patched
patched["spec"]["displayName"] = "Db-3"
replaced = api.replace_cluster_custom_object(*ours, "db-3", patched)
assert replaced["spec"]["displayName"] == "Db-3"
try:
    api.replace_cluster_custom_object(*ours, "db-3", dict(patched, spec={"macs": [], "displayName": "X"}))
    raise SystemExit("a stale version was taken")
except ApiException as error:
    assert error.status == 409, error
try:
    api.create_cluster_custom_object(*ours, {
        "apiVersion": "dragonfly.computer/v1", "kind": "Hardware", "metadata": {"name": "x"}, "spec": {"mac": "1"},
    })
    raise SystemExit("an unknown field was taken")
except ApiException as error:
    assert error.status == 422 and "did you mean `macs`?" in error.body, error
gone = api.delete_cluster_custom_object(*ours, "db-3")
assert gone["status"] == "Success", gone

seen = []
for event in watch.Watch().stream(api.list_cluster_custom_object, *ours, resource_version=version, timeout_seconds=60):
    seen.append(event["type"])
    if event["type"] == "DELETED":
        break
assert seen == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"], seen
api.delete_collection_cluster_custom_object(*ours, label_selector="rack=a1")
assert names(api.list_cluster_custom_object(*ours)) == ["db-2"]
print("all is well")
"#;

#[test]
fn the_python_client_takes_ours_for_kubernetes() {
    let Some(python) = python() else { return missing(&format!("Python with {PACKAGE}")) };
    let site = Site::start();
    let all = [TEMPLATE, &machine("db-1", 1, "a1"), &machine("db-2", 2, "a2")].join("---\n");
    site.done(&["apply", "-f", "-"], &all);
    let output = with_input(Command::new(python).arg("-").arg(site.kubeconfig()), SCRIPT);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("all is well"), "{said}");
}
