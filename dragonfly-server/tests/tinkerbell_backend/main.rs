//! A server in a cluster that runs Tinkerbell: a real API server, Tinkerbell's definitions as far as they matter here, and
//! a stand-in for its controllers, which writes the status of a Workflow as they do.
//!
//! Runs where `DRAGONFLY_TEST_KUBERNETES` is set and `.ci/kubernetes` has built the server (`.ci/full kubernetes` does
//! both).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers outside of `#[test]` say what they did")]

#[path = "../../../dragonfly-core/tests/kubernetes/servers.rs"]
#[allow(dead_code, reason = "this test uses some of it")]
mod servers;
mod site;

use serde_json::{Value, json};
use servers::Server;
use site::Site;

const MACHINE: &str = "52:54:00:ab:cd:01";

/// What a Template of Tinkerbell's is.
const TEMPLATE: &str = r#"version: "0.1"
name: debian
global_timeout: 1800
tasks:
  - name: "os-installation"
    worker: "{{.device_1}}"
    volumes:
      - /dev:/dev
    actions:
      - name: "stream"
        image: quay.io/tinkerbell/actions/image2disk:v1.0.0
        timeout: 600
        environment:
          DEST_DISK: {{ index .Hardware.Disks 0 }}
          IMG_URL: "http://10.1.1.11:8080/debian.raw.gz"
          COMPRESSED: true
      - name: "hello"
        image: example.org/hello:1
"#;

#[tokio::test(flavor = "multi_thread")]
async fn machines_templates_and_workflows_of_tinkerbell_are_worked_with() {
    if !Server::Whole.is_here() {
        return;
    }
    let mut site = Site::new().await;
    // Nothing of Tinkerbell is there.
    let (done, said) = site.install();
    assert!(done, "{said}");
    assert!(said.contains("networks.dragonfly.computer") && !said.contains("hardware.dragonfly.computer"), "{said}");
    let said = site.fails_to_start();
    assert!(said.contains("Tinkerbell is not installed in this cluster"), "{said}");

    site.define().await;
    let interface = json!({
        "dhcp": {
            "mac": MACHINE, "hostname": "m1",
            "ip": { "address": "10.9.0.7", "netmask": "255.255.255.0", "gateway": "10.9.0.1" },
        },
        "netboot": { "allowPXE": true, "allowWorkflow": true },
    });
    let hardware =
        json!({ "interfaces": [interface], "disks": [{ "device": "/dev/sda" }], "metadata": { "later": 1 } });
    site.create("hardware", "Hardware", "m1", hardware).await;
    site.create("templates", "Template", "debian", json!({ "data": TEMPLATE })).await;
    let fixtures = site.put_fixtures().await;
    site.start();
    let said = site.said();
    assert!(said.contains("no boot services of this server answer"), "{said}");

    what_is_there_is_listed(&site, fixtures);
    an_assignment_is_followed_to_the_end(&site).await;
    a_failure_says_which_action_and_why(&site).await;
    what_somebody_made_by_hand_is_followed(&site).await;
    if fixtures {
        // Its Workflow names no Hardware, only a card.
        site.phase("sm01", "Assigned").await;
    }
    what_is_written_here_is_theirs(&site).await;
}

fn what_is_there_is_listed(site: &Site, fixtures: bool) {
    let machines = site.ok(&["get", "hw", "-o", "wide"]);
    assert!(machines.contains("m1") && machines.contains(MACHINE), "{machines}");
    let machine = site.json(&["get", "hw", "m1"]);
    assert_eq!(machine["spec"]["dhcp"], json!({ "address": "10.9.0.7", "hostname": "m1" }));
    let template = site.json(&["get", "templates", "debian"]);
    let actions = &template["spec"]["actions"];
    assert_eq!((&actions[0]["action"], &actions[1]["action"]), (&json!("image2disk"), &json!("hello")), "{template}");
    assert!(site.ok(&["get", "templates", "debian", "-o", "yaml"]).contains("index .Hardware.Disks 0"));
    if fixtures {
        for (kind, names) in [("hw", ["sm01", "machine1"]), ("templates", ["debian", "ubuntu"])] {
            let listed = site.ok(&["get", kind]);
            assert!(names.iter().all(|name| listed.contains(name)), "{listed}");
        }
        let runs = site.ok(&["get", "workflows"]);
        assert!(runs.contains("wf1") && runs.contains("playground-workflow"), "{runs}");
        let ubuntu = site.json(&["get", "templates", "ubuntu"]);
        assert!(ubuntu["spec"]["actions"].as_array().unwrap().len() > 5, "{ubuntu}");
        assert!(ubuntu["metadata"]["annotations"]["dragonfly.computer/not-shown"].is_string(), "{ubuntu}");
    }
    let (said, _) = site.run(&["why", "m1"]);
    assert!(said.contains("Tinkerbell"), "{said}");
}

/// The only Workflow of `m1` that is not over.
async fn run_of(site: &Site) -> Value {
    let all = site.list("workflows").await;
    let of = |run: &&Value| run["spec"]["hardwareRef"] == "m1" && run["status"]["state"].is_null();
    let open: Vec<&Value> = all.iter().filter(of).collect();
    assert_eq!(open.len(), 1, "{all:?}");
    open[0].clone()
}

fn action(name: &str, image: &str, state: &str, message: &str) -> Value {
    json!({
        "id": name, "name": name, "image": image, "state": state, "message": message,
        "executionStart": "2026-01-01T00:00:05Z", "executionStop": "2026-01-01T00:00:09Z",
    })
}

fn status(state: &str, first: &str, second: &str, message: &str) -> Value {
    let actions = json!([
        action("stream", "quay.io/tinkerbell/actions/image2disk:v1.0.0", first, ""),
        action("hello", "example.org/hello:1", second, message),
    ]);
    json!({ "state": state, "tasks": [{ "id": "1", "name": "os", "agentID": MACHINE, "actions": actions }] })
}

async fn an_assignment_is_followed_to_the_end(site: &Site) {
    // Nobody looks at the disks: that is to be allowed by name.
    let said = site.refuses(&["assign", "m1", "--template", "debian"]);
    assert!(said.contains("--overwrite all"), "{said}");
    site.ok(&["protect", "m1"]);
    let stored = site.get("hardware", "m1").await;
    assert_eq!(stored["spec"]["interfaces"][0]["netboot"]["allowWorkflow"], false, "{stored}");
    assert_eq!(stored["spec"]["metadata"], json!({ "later": 1 }));
    let said = site.refuses(&["assign", "m1", "--template", "debian", "--overwrite", "all", "--yes"]);
    assert!(said.contains("protected"), "{said}");
    site.ok(&["protect", "m1", "--off"]);

    let said = site.ok(&["assign", "m1", "--template", "debian", "--overwrite", "all", "--yes", "--value", "user=ops"]);
    assert!(said.contains("m1 will run debian"), "{said}");
    let run = run_of(site).await;
    let name = run["metadata"]["name"].as_str().unwrap();
    let want = json!({ "device_1": MACHINE, "user": "ops" });
    assert_eq!((&run["spec"]["templateRef"], &run["spec"]["hardwareMap"]), (&json!("debian"), &want));
    site.phase("m1", "Assigned").await;
    let said = site.refuses(&["assign", "m1", "--template", "debian", "--overwrite", "all", "--yes"]);
    assert!(said.contains("under way"), "{said}");
    let said = site.refuses(&["delete", "wf", name]);
    assert!(said.contains("abort it first"), "{said}");

    let mut watch = site.watch("m1");
    watch.listens(|| {
        site.ok(&["protect", "m1"]);
        site.ok(&["protect", "m1", "--off"]);
    });
    site.report(name, status("PENDING", "PENDING", "PENDING", "")).await;
    site.report(name, status("RUNNING", "RUNNING", "PENDING", "")).await;
    site.phase("m1", "Provisioning").await;
    let shown = site.json(&["get", "wf", name]);
    assert_eq!(
        (&shown["status"]["state"], &shown["status"]["steps"][0]["state"]),
        (&json!("Running"), &json!("Running"))
    );
    watch.sees("stream begins");
    site.report(name, status("RUNNING", "SUCCESS", "RUNNING", "")).await;
    watch.sees("stream is done");
    site.report(name, status("SUCCESS", "SUCCESS", "SUCCESS", "")).await;
    let machine = site.phase("m1", "Ready").await;
    assert_eq!((&machine["status"]["installed"], &machine["status"]["workflow"]), (&json!("debian"), &json!(name)));
    watch.sees("debian is installed");
    assert!(site.ok(&["get", "wf"]).contains("Succeeded"));
    // Nothing of ours was done beside it.
    assert!(machine["status"].get("authorisation").is_none(), "{machine}");
    let stored = site.get("workflows", name).await;
    assert_eq!(stored["status"], status("SUCCESS", "SUCCESS", "SUCCESS", ""), "their status is theirs alone");
}

async fn a_failure_says_which_action_and_why(site: &Site) {
    site.ok(&["reimage", "m1", "--yes"]);
    let run = run_of(site).await;
    let first = run["metadata"]["name"].as_str().unwrap();
    site.report(first, status("FAILED", "SUCCESS", "FAILED", "exit status 1: no route")).await;
    let machine = site.phase("m1", "Error").await;
    let message = machine["status"]["message"].as_str().unwrap();
    assert!(message.contains("`hello` failed: exit status 1: no route"), "{message}");
    let shown = site.json(&["get", "wf", first]);
    assert_eq!(shown["status"]["steps"][1]["failure"]["message"], "failed: exit status 1: no route");

    // Another attempt is another Workflow; the one that failed would stand in its way.
    site.ok(&["retry", "m1"]);
    let run = run_of(site).await;
    let second = run["metadata"]["name"].as_str().unwrap();
    assert!(first != second && site.list("workflows").await.iter().all(|run| run["metadata"]["name"] != first));
    site.phase("m1", "Assigned").await;
    site.report(second, status("TIMEOUT", "SUCCESS", "TIMEOUT", "")).await;
    let machine = site.phase("m1", "Error").await;
    assert!(machine["status"]["message"].as_str().unwrap().contains("`hello` took too long"), "{machine}");
    site.ok(&["retry", "m1"]);
    let run = run_of(site).await;
    site.ok(&["abort", "m1"]);
    site.phase("m1", "Registered").await;
    let gone = run["metadata"]["name"].clone();
    assert!(site.list("workflows").await.iter().all(|run| run["metadata"]["name"] != gone));
}

async fn what_somebody_made_by_hand_is_followed(site: &Site) {
    let spec = json!({ "templateRef": "debian", "hardwareMap": { "device_1": MACHINE.to_uppercase() } });
    site.create("workflows", "Workflow", "by-hand", spec).await;
    let machine = site.phase("m1", "Assigned").await;
    assert_eq!(machine["status"]["workflow"], "by-hand");
    assert_eq!(site.json(&["get", "wf", "by-hand"])["spec"]["hardware"], "m1");
    // Names of older versions.
    let action =
        json!({ "name": "hello", "image": "hello", "status": "STATE_RUNNING", "startedAt": "2026-01-01T00:00:05Z" });
    let running =
        json!({ "state": "STATE_RUNNING", "tasks": [{ "name": "os", "worker": MACHINE, "actions": [action] }] });
    site.report("by-hand", running).await;
    site.phase("m1", "Provisioning").await;
    site.report("by-hand", json!({ "state": "STATE_SUCCESS", "tasks": [] })).await;
    site.phase("m1", "Ready").await;
    // Made anew under the same name, and taken away in the middle: `kubectl delete`, `kubectl apply`.
    site.remove("workflows", "by-hand").await;
    let spec = json!({ "templateRef": "debian", "hardwareRef": "m1", "hardwareMap": { "device_1": MACHINE } });
    site.create("workflows", "Workflow", "again", spec).await;
    site.report("again", status("RUNNING", "RUNNING", "PENDING", "")).await;
    site.phase("m1", "Provisioning").await;
    site.remove("workflows", "again").await;
    let machine = site.phase("m1", "Registered").await;
    assert!(machine["status"]["message"].as_str().unwrap().contains("again is gone"), "{machine}");
}

async fn what_is_written_here_is_theirs(site: &Site) {
    let template = "{apiVersion: dragonfly.computer/v1, kind: Template, metadata: {name: own}, spec: {actions: [\
        {name: write, action: image2disk, with: {url: 'http://a/{{ values.image }}', disk: {name: sda}}}], \
        values: {image: b.raw.gz}}}";
    site.apply(template, true);
    let stored = site.get("templates", "own").await;
    let data = stored["spec"]["data"].as_str().unwrap();
    assert!(data.contains("IMG_URL: \"http://a/{{.image}}\"") && data.contains("worker: \"{{.device_1}}\""), "{data}");
    assert!(site.apply(template, true).contains("unchanged"));
    let said = site.apply(&template.replace("image2disk", "partition"), false);
    assert!(said.contains("`partition` has no image in Tinkerbell"), "{said}");
    let run = "{apiVersion: dragonfly.computer/v1, kind: Workflow, metadata: {name: x}, spec: {hardware: m1, template: own, \
        content: {actions: []}}}";
    let said = site.apply(run, false);
    assert!(said.contains("assign, reimage or retry"), "{said}");

    let machine = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m2}, \
        spec: {macs: ['52:54:00:ab:cd:02'], hold: a fan}}";
    site.apply(machine, true);
    let stored = site.get("hardware", "m2").await;
    assert_eq!(stored["spec"]["interfaces"][0]["dhcp"]["mac"], "52:54:00:ab:cd:02", "{stored}");
    assert_eq!(stored["spec"]["interfaces"][0]["netboot"], json!({ "allowPXE": true, "allowWorkflow": true }));
    let said = site.refuses(&["assign", "m2", "--template", "own", "--overwrite", "all", "--yes"]);
    assert!(said.contains("a fan"), "{said}");
    site.ok(&["release", "m2"]);
    site.ok(&["assign", "m2", "--template", "own", "--overwrite", "all", "--yes", "--value", "image=c.raw.gz"]);
    let all = site.list("workflows").await;
    let run = all.iter().find(|run| run["spec"]["hardwareRef"] == "m2").unwrap();
    assert_eq!(run["spec"]["hardwareMap"], json!({ "device_1": "52:54:00:ab:cd:02", "image": "c.raw.gz" }));
    site.ok(&["abort", "m2"]);
    site.ok(&["delete", "hw", "m2"]);
    assert!(site.list("hardware").await.iter().all(|machine| machine["metadata"]["name"] != "m2"));
}
