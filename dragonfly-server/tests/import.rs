//! Manifests of Tinkerbell and Metal3 through the whole program: what is shown, what is made, what is assigned.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use program::Server;
use serde_json::{Value, json};

const MARK: &str = "Marked-pw-77310";

const STACK: &str = r#"apiVersion: tinkerbell.org/v1alpha1
kind: Hardware
metadata: {name: node-1, namespace: tink, labels: {rack: a1}}
spec:
  bmcRef: {name: bmc-1}
  disks: [{device: /dev/nvme0n1}]
  interfaces:
    - dhcp:
        mac: 52:54:00:ab:cd:01
        hostname: node-1
        arch: x86_64
        name_servers: [10.0.0.2]
        ip: {address: 10.0.0.5, netmask: 255.255.255.0, gateway: 10.0.0.1}
      netboot: {allowPXE: true, allowWorkflow: true}
---
apiVersion: bmc.tinkerbell.org/v1alpha1
kind: Machine
metadata: {name: bmc-1, namespace: tink}
spec: {connection: {host: 127.0.0.1, port: 6299, authSecretRef: {name: account, namespace: tink}}}
---
apiVersion: v1
kind: Secret
metadata: {name: account, namespace: tink}
stringData: {username: admin, password: Marked-pw-77310}
---
apiVersion: tinkerbell.org/v1alpha1
kind: Template
metadata: {name: debian, namespace: tink}
spec:
  data: |
    version: "0.1"
    name: debian
    global_timeout: 1800
    tasks:
      - name: os
        worker: "{{.device_1}}"
        volumes: [/dev:/dev]
        actions:
          - name: image
            image: quay.io/tinkerbell/actions/image2disk:latest
            timeout: 600
            environment:
              DEST_DISK: {{ index .Hardware.Disks 0 }}
              IMG_URL: http://10.1.1.11:8080/small.raw
          - name: nonce
            image: writefile:v1
            environment: {DEST_DISK: {{ formatPartition (index .Hardware.Disks 0) 1 }}, DEST_PATH: /a, CONTENTS: "x: {{ "{{" }}", UID: 0, GID: 0, MODE: 0600, DIRMODE: 0700}
          - name: go
            image: kexec:v1
            pid: host
            environment: {BLOCK_DEVICE: {{ formatPartition (index .Hardware.Disks 0) 1 }}, FS_TYPE: ext4}
---
apiVersion: tinkerbell.org/v1alpha1
kind: Workflow
metadata: {name: wf-1, namespace: tink}
spec: {templateRef: debian, hardwareRef: node-1, hardwareMap: {device_1: "52:54:00:ab:cd:01"}}
"#;

/// The server with an image, and the file with manifests.
fn world(text: &str) -> (Server, String) {
    let server = Server::start();
    let images = server.dir.path().join("data/images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("small.raw"), b"an image").unwrap();
    let file = server.dir.path().join("stack.yaml");
    std::fs::write(&file, text).unwrap();
    (server, file.display().to_string())
}

const MAP: [&str; 2] = ["--map-url", "http://10.1.1.11:8080/=/images/"];

#[test]
fn a_stack_is_shown_made_and_assigned() {
    let (server, file) = world(STACK);
    let import = ["import", "tinkerbell", "-f", &file, MAP[0], MAP[1]];
    // Nothing is written by looking.
    let said = server.ok(&[&import[..], &["--dry-run"]].concat());
    for wanted in
        ["Secret    account  would be made", "Hardware  node-1   would be made", "Template  debian   would be made"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(said.contains("not needed") && said.contains("stack.yaml:11"), "{said}");
    assert!(said.contains("1 of these machines are on 10.0.0.0/24; --interface NAME"), "{said}");
    assert!(said.contains("node-1 is to get debian"), "{said}");
    assert!(server.ok(&["get", "machines"]).contains("No machines yet"));
    let yaml = server.ok(&[&import[..], &["--dry-run", "-o", "yaml", "--interface", "eth9"]].concat());
    assert!(yaml.contains("# Secret account: its values (password, username) are not shown"), "{yaml}");
    let ours = dragonfly_core::resource::manifest::parse(&yaml).unwrap();
    let kinds: Vec<&str> = ours.iter().map(|one| one.record.kind.name).collect();
    assert_eq!(kinds, ["Network", "Hardware", "Template"]);
    let json: Value = serde_json::from_str(&server.ok(&[&import[..], &["--dry-run", "-o", "json"]].concat())).unwrap();
    assert_eq!(json["assignments"], json!([{ "hardware": "node-1", "template": "debian", "workflow": "wf-1" }]));
    assert!(json["notes"].as_array().unwrap().iter().any(|note| note["outcome"] == "changed"), "{json:#}");

    let said = server.ok(&[&import[..], &["--assign", "--power", "none"]].concat());
    assert!(said.contains("Hardware  node-1   created") && said.contains("Template  debian   created"), "{said}");
    let machine: Value = serde_json::from_str(&server.ok(&["get", "machine", "node-1", "-o", "json"])).unwrap();
    assert_eq!(machine["spec"]["bmc"]["address"], "ipmi://127.0.0.1:6299");
    assert_eq!(machine["spec"]["dhcp"], json!({ "address": "10.0.0.5", "hostname": "node-1" }));
    assert_eq!(machine["status"]["phase"], "Assigned");
    let workflow = machine["status"]["workflow"].as_str().unwrap();
    let workflow: Value = serde_json::from_str(&server.ok(&["get", "workflow", workflow, "-o", "json"])).unwrap();
    let steps = workflow["spec"]["content"]["actions"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[0]["with"]["url"], "/images/small.raw");
    assert_eq!(steps[1]["with"]["content"], "x: {{ '{{' }}", "what looks like ours stays text");

    // Again: nothing is lost, and the machine stays what it is.
    server.ok(&["protect", "node-1"]);
    let said = server.ok(&import);
    assert!(said.contains("known already"), "{said}");
    let machine: Value = serde_json::from_str(&server.ok(&["get", "machine", "node-1", "-o", "json"])).unwrap();
    assert_eq!(machine["spec"]["protected"], true);
    let all = server.said.lock().unwrap().clone();
    assert!(all.contains("account") && !all.contains(MARK), "the password is nowhere in what was said");
}

#[test]
fn a_machine_that_is_known_by_its_card_is_assigned_under_its_name_here() {
    let (server, file) = world(STACK);
    let known = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: censusablequalityparent}, spec: {macs: ['52:54:00:ab:cd:01']}}";
    assert!(server.run(&["apply", "-f", "-"], known).status.success());
    let said = server.ok(&["import", "tinkerbell", "-f", &file, MAP[0], MAP[1], "--assign", "--power", "none"]);
    assert!(said.contains("known already as censusablequalityparent"), "{said}");
    let machine: Value =
        serde_json::from_str(&server.ok(&["get", "machine", "52:54:00:ab:cd:01", "-o", "json"])).unwrap();
    assert_eq!(machine["metadata"]["name"], "censusablequalityparent");
    assert_eq!(machine["status"]["phase"], "Assigned");
    assert_eq!(machine["spec"]["bmc"]["secretRef"]["name"], "account");
}

#[test]
fn what_cannot_be_made_is_told_and_fails() {
    let unknown = STACK.replace("image: kexec:v1", "image: quay.io/tinkerbell/actions/archive2disk:v1");
    let (server, file) = world(&unknown);
    // The machine is made, its template is not, and nothing is assigned.
    let said = server.ok(&["import", "tinkerbell", "-f", &file, MAP[0], MAP[1], "--assign"]);
    assert!(said.contains("Hardware  node-1   created") && !said.contains("Template  debian"), "{said}");
    assert!(said.contains("refused") && said.contains("spec.data.tasks[0].actions[2].image"), "{said}");
    assert!(server.ok(&["get", "workflows"]).contains("No workflows yet"));
    for (text, words) in [
        (
            "apiVersion: tinkerbell.org/v1alpha1\nkind: Hardware\nmetadata: {name: x}\nspec: {}\n",
            "no interface with a MAC",
        ),
        ("{", "this is not YAML"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (out, said) = server.fails(&["import", "tinkerbell", "-f", &file]);
        assert!(out.contains(words), "{out}");
        assert!(said.contains("nothing could be made of"), "{said}");
    }
    let done = server.run(&["import", "tinkerbell", "-f", &file, "--map-url", "x"], "");
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("write FROM=TO"));
}

#[test]
fn hosts_of_metal3_are_machines_with_templates() {
    let digest = "ab".repeat(32);
    let (server, file) = world(&format!(
        "apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata: {{name: node-7}}
spec:
  bootMACAddress: 52:54:00:ab:cd:07
  bmc: {{address: \"redfish://127.0.0.1:9/redfish/v1/Systems/1\", credentialsName: account, disableCertificateVerification: true}}
  image: {{url: \"http://10.1.1.11:8080/small.raw\", checksum: {digest}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: account}}
stringData: {{username: admin, password: {MARK}}}
"
    ));
    server.ok(&["import", "metal3", "-f", &file, MAP[0], MAP[1], "--assign", "--power", "none"]);
    let machine: Value = serde_json::from_str(&server.ok(&["get", "machine", "node-7", "-o", "json"])).unwrap();
    assert_eq!(machine["spec"]["bmc"]["address"], "redfish://127.0.0.1:9/redfish/v1/Systems/1?tls=insecure");
    assert_eq!(machine["status"]["phase"], "Assigned");
    let template: Value = serde_json::from_str(&server.ok(&["get", "template", "node-7", "-o", "json"])).unwrap();
    assert_eq!(template["spec"]["actions"][0]["with"]["digest"], format!("sha256:{digest}"));
    assert!(!server.said.lock().unwrap().contains(MARK));
}
