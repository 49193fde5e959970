//! Which template is for which machine.

use serde_json::json;

use super::{note, of, refused, stack, steps, templates};

const WRITE: &str = "- name: f
  image: writefile
  environment: {DEST_DISK: \"{{ formatPartition (index .Hardware.Disks 0) 1 }}\", DEST_PATH: /a, UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755}";

fn another(disk: &str) -> String {
    format!(
        "---
apiVersion: tinkerbell.org/v1alpha1
kind: Hardware
metadata: {{name: m2}}
spec:
  disks: [{{device: {disk}}}]
  interfaces: [{{dhcp: {{mac: \"52:54:00:00:00:02\"}}}}]
---
apiVersion: tinkerbell.org/v1alpha1
kind: Workflow
metadata: {{name: w2}}
spec: {{templateRef: t1, hardwareRef: m2, hardwareMap: {{device_1: \"52:54:00:00:00:02\"}}}}
"
    )
}

#[test]
fn machines_that_get_the_same_share_a_template() {
    let same = of(&(stack(WRITE) + &another("/dev/sda")));
    assert_eq!(templates(&same).iter().map(|t| t.name()).collect::<Vec<_>>(), ["t1"]);
    let pairs: Vec<_> = same.assignments.iter().map(|a| (a.hardware.as_str(), a.template.as_str())).collect();
    assert_eq!(pairs, [("m1", "t1"), ("m2", "t1")]);
    let differ = of(&(stack(WRITE) + &another("/dev/nvme0n1")));
    assert_eq!(templates(&differ).iter().map(|t| t.name()).collect::<Vec<_>>(), ["t1-m1", "t1-m2"]);
    let target = &templates(&differ)[1].spec.actions[0].with["target"];
    assert_eq!(*target, json!({ "disk": { "name": "nvme0n1" }, "partition": 1 }));
}

#[test]
fn what_has_run_is_never_run_again_by_an_import() {
    for (state, wanted) in [
        ("", 1),
        ("PENDING", 1),
        ("STATE_PENDING", 1),
        ("PREPARING", 1),
        ("RUNNING", 0),
        ("POST", 0),
        ("SUCCESS", 0),
        ("STATE_SUCCESS", 0),
        ("FAILED", 0),
        ("TIMEOUT", 0),
        ("STATE_RUNNING", 0),
        ("something new", 0),
    ] {
        let text =
            stack(WRITE).replacen("spec: {templateRef", &format!("status: {{state: {state}}}\nspec: {{templateRef"), 1);
        let converted = of(&text);
        assert_eq!(converted.assignments.len(), wanted, "{state}");
        assert_eq!(templates(&converted).len(), 1, "{state}");
        if wanted == 0 {
            assert!(converted.notes.iter().any(|note| note.said.contains("it is not assigned")), "{state}");
        }
    }
    let disabled = of(&stack(WRITE).replace("hardwareRef: m1", "hardwareRef: m1, disabled: true"));
    assert!(disabled.assignments.is_empty());
    assert!(note(&disabled, "spec.disabled").said.contains("it was disabled"));
}

#[test]
fn a_worker_that_is_another_machine_is_never_guessed() {
    let crossed = (stack(WRITE) + &another("/dev/sda")).replace(
        "hardwareRef: m2, hardwareMap: {device_1: \"52:54:00:00:00:02\"}",
        "hardwareRef: m2, hardwareMap: {device_1: \"52:54:00:00:00:01\"}",
    );
    let converted = of(&crossed);
    refused(&converted, "spec", "which of them is meant?");
    assert_eq!(converted.assignments.len(), 1);
    let nobody = of(&stack("- {name: r, image: reboot}").replace("hardwareRef: m1, ", "").replace(
        "00:00:01\"}}\n---\napiVersion: tinkerbell.org/v1alpha1\nkind: Template",
        "00:00:09\"}}\n---\napiVersion: tinkerbell.org/v1alpha1\nkind: Template",
    ));
    refused(&nobody, "spec", "no Hardware in these files is its worker `52:54:00:00:00:09`");
    let elsewhere = of(&stack("- {name: r, image: reboot}").replace("hardwareRef: m1", "hardwareRef: m9").replacen(
        "52:54:00:00:00:01",
        "52:54:00:00:00:0a",
        1,
    ));
    assert_eq!(elsewhere.assignments[0].hardware, "m9");
    assert!(note(&elsewhere, "spec.hardwareRef").said.contains("must know a machine of this name"));
    let missing = of(&stack(WRITE).replace("templateRef: t1", "templateRef: t9"));
    refused(&missing, "spec.templateRef", "the Template `t9` is not in these files");
}

#[test]
fn a_template_without_a_workflow_asks_for_its_values() {
    let workflow = |text: &str| {
        let documents: Vec<&str> =
            text.split("---\n").filter(|document| !document.contains("kind: Workflow")).collect();
        documents.join("---\n")
    };
    let text = workflow(&stack(
        "- name: f
  image: writefile
  environment: {DEST_DISK: /dev/sda1, DEST_PATH: /a, CONTENTS: \"to {{ .device_1 }} and {{`{{x}}`}}\", UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755}",
    ));
    let converted = of(&text);
    assert_eq!(steps(&converted)[0].2["content"], "to {{ values.device_1 }} and {{ '{{' }}x}}");
    assert!(converted.assignments.is_empty());
    let needs = of(&workflow(&stack(WRITE)));
    refused(&needs, "spec.data", "no Workflow in these files names this Template");
    let disk = of(&workflow(&stack(
        "- {name: i, image: image2disk, environment: {IMG_URL: \"http://h/i\", DEST_DISK: \"{{ .disk }}\"}}",
    )));
    refused(&disk, "spec.data.tasks[0].actions[0].environment.DEST_DISK", "only when a Workflow names the machine");
}

#[test]
fn what_is_wrong_with_a_template_is_named() {
    let table = [
        ("{{ .missing }}", "line 8, column 10: there is no `.missing` (filled for the Workflow `w1`)"),
        ("- {name: a, image: reboot}\n{{ if }}", "line 9, column 13: a value is missing here"),
        ("- [", "what it becomes cannot be read"),
        ("", "there is no action"),
        ("- {name: a, image: \"{{ .References.x }}\"}", "there is no `.x`"),
        ("- text", "is not an action"),
    ];
    for (actions, words) in table {
        let converted = of(&stack(actions));
        assert!(templates(&converted).is_empty(), "{actions}");
        assert!(
            converted.notes.iter().any(|n| n.path.starts_with("spec.data") && n.said.contains(words)),
            "{words}: {:#?}",
            converted.notes
        );
    }
    let two = stack("- {name: a, image: reboot}")
        + "      - name: second\n        worker: other\n        actions: [{name: b, image: reboot}]\n";
    refused(&of(&two), "spec.data.tasks", "name several workers");
    let version = of(&stack("- {name: a, image: reboot}").replace("version: \"0.1\"", "version: \"0.2\""));
    refused(&version, "spec.data.version", "version 0.2 is not known");
    let empty = of("{apiVersion: tinkerbell.org/v1alpha1, kind: Template, metadata: {name: t}, spec: {}}");
    refused(&empty, "spec.data", "is empty");
    // Names are made different where they are not.
    let two = stack("- {name: a, image: poweroff}").replace(
        "      - name: os\n",
        "      - name: first\n        worker: \"{{.device_1}}\"\n        actions: [{name: a, image: rootio, command: [mount]}, {name: a, image: cexec, environment: {BLOCK_DEVICE: /dev/sda1, CHROOT: y, CMD_LINE: x}}]\n      - name: os\n",
    ).replace("spec:\n  disks", "spec:\n  metadata: {instance: {storage: {disks: []}}}\n  disks");
    let names: Vec<String> = steps(&of(&two)).into_iter().map(|step| step.0).collect();
    assert_eq!(names, ["a", "os: a"]);
}
