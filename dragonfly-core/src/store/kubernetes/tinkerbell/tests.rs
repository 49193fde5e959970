//! The lens on fixed objects, and its promises on any.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::action::TemplateChecker as _;
use crate::resource::TemplateSpec;

fn read(kind: Kind, object: &Value, beside: Beside<'_>) -> Record {
    let metadata = serde_json::from_value(object["metadata"].clone()).unwrap();
    show(kind, metadata, object, &Agents::default(), beside)
}

/// What the API server makes of a JSON patch: those here only replace and add whole fields.
fn patched(mut object: Value, patch: &Value) -> Value {
    for operation in patch.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        let (parent, field) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        parent[field] = operation["value"].clone();
    }
    object
}

fn write(object: &Value, record: &Record) -> Result<Value, Unwritable> {
    let shown = read(record.kind, object, Beside::default());
    let patch = changed(record, &shown, object, "7", Beside::default())?;
    Ok(patched(object.clone(), &patch))
}

fn machine() -> Value {
    json!({
        "metadata": { "name": "sm01", "generation": 1, "labels": { "rack": "a1" } },
        "spec": {
            "metadata": { "instance": { "hostname": "sm01", "later": [1] } },
            "bmcRef": { "apiGroup": "bmc.tinkerbell.org", "kind": "Machine", "name": "bmc-sm01" },
            "interfaces": [{
                "dhcp": {
                    "mac": "3c:ec:ef:4c:4f:54", "hostname": "sm01", "lease_time": 86400,
                    "ip": { "address": "172.16.10.100", "netmask": "255.255.255.0", "gateway": "172.16.10.1" },
                },
                "netboot": { "allowPXE": true, "allowWorkflow": true },
            }, { "dhcp": { "mac": "3c:ec:ef:4c:4f:55" } }],
        },
    })
}

#[test]
fn a_machine_of_theirs_is_one_of_ours() {
    let bmc = json!({
        "apiVersion": "bmc.tinkerbell.org/v1alpha1", "kind": "Machine", "metadata": { "name": "bmc-sm01" },
        "spec": { "connection": {
            "host": "10.0.0.6", "authSecretRef": { "name": "bmc-auth", "namespace": "default" },
            "providerOptions": { "redfish": {} }, "insecureTLS": true,
        } },
    });
    let shown = read(Kind::HARDWARE, &machine(), Beside { controller: Some(&bmc), hardware: None });
    assert_eq!(
        shown.spec,
        json!({
            "macs": ["3c:ec:ef:4c:4f:54", "3c:ec:ef:4c:4f:55"],
            "dhcp": { "address": "172.16.10.100", "hostname": "sm01" },
            "bmc": { "address": "redfish://10.0.0.6?tls=insecure", "secretRef": { "name": "bmc-auth" } },
        })
    );
    assert_eq!(shown.metadata.labels["rack"], "a1");
}

#[test]
fn what_is_changed_of_a_machine_is_changed_in_theirs_and_the_rest_stays() {
    let before = machine();
    let shown = read(Kind::HARDWARE, &before, Beside::default());
    let cases: [(&str, Value, &str, Value); 5] = [
        ("protected", json!(true), "/spec/interfaces/0/netboot/allowWorkflow", json!(false)),
        (
            "dhcp",
            json!({ "address": "172.16.10.7", "hostname": "b" }),
            "/spec/interfaces/0/dhcp/ip",
            json!({ "address": "172.16.10.7", "netmask": "255.255.255.0", "gateway": "172.16.10.1" }),
        ),
        ("chain", json!("http://a/x.ipxe"), "/spec/interfaces/0/netboot/ipxe/url", json!("http://a/x.ipxe")),
        ("macs", json!(["3c:ec:ef:4c:4f:55"]), "/spec/interfaces/0/dhcp/mac", json!("3c:ec:ef:4c:4f:55")),
        // A card is replaced: the machine stands where it stood.
        ("macs", json!(["3c:ec:ef:00:00:01"]), "/spec/interfaces/0/dhcp/ip/netmask", json!("255.255.255.0")),
    ];
    for (field, value, pointer, want) in cases {
        let mut record = shown.clone();
        record.spec[field] = value.clone();
        if field == "macs" {
            // It is the new boot interface that says the rest.
            record.spec.as_object_mut().unwrap().remove("dhcp");
            if value[0] == "3c:ec:ef:00:00:01" {
                record.spec["dhcp"] = json!({ "address": "172.16.10.100" });
            }
        }
        let after = write(&before, &record).unwrap();
        assert_eq!(after.pointer(pointer), Some(&want), "{field}: {after}");
        assert_eq!(after["spec"]["metadata"], before["spec"]["metadata"], "{field}");
        assert_eq!(after["spec"]["bmcRef"], before["spec"]["bmcRef"], "{field}");
        assert_eq!(read(Kind::HARDWARE, &after, Beside::default()).spec, record.spec, "{field}");
        assert!(
            after.pointer("/metadata/annotations/dragonfly.computer~1spec").is_none(),
            "theirs says it all: {after}"
        );
    }
    let mut record = shown.clone();
    record.spec["macs"] = json!([]);
    record.spec["dhcp"] = json!({ "address": "10.0.0.1" });
    let after = write(&before, &record).unwrap();
    assert_eq!(after["spec"]["interfaces"], json!([]));
    let mut bare = machine();
    bare["spec"]["interfaces"][0]["dhcp"].as_object_mut().unwrap().remove("ip");
    let error = write(&bare, &shown).unwrap_err();
    assert!(error.path == "spec.dhcp" && error.problem.contains("netmask"), "{error:?}");
}

#[test]
fn what_somebody_else_writes_counts() {
    let mut record = read(Kind::HARDWARE, &machine(), Beside::default());
    record.spec["hold"] = json!("a fan");
    record.spec["protected"] = json!(true);
    let mut stored = write(&machine(), &record).unwrap();
    assert_eq!(read(Kind::HARDWARE, &stored, Beside::default()).spec, record.spec);
    // `kubectl edit`
    stored["spec"]["interfaces"][0]["netboot"]["allowWorkflow"] = json!(true);
    stored["spec"]["interfaces"][1]["dhcp"]["mac"] = json!("3c:ec:ef:4c:4f:99");
    let shown = read(Kind::HARDWARE, &stored, Beside::default()).spec;
    assert_eq!(shown["macs"], json!(["3c:ec:ef:4c:4f:54", "3c:ec:ef:4c:4f:99"]));
    assert_eq!((shown.get("protected"), &shown["hold"]), (None, &json!("a fan")));
}

const BRANCHES: &str = r#"version: "0.1"
name: pair
global_timeout: 1800
tasks:
  - name: "os"
    worker: "{{.device_1}}"
    volumes: [ /dev:/dev ]
    actions:
      - name: "stream"
        image: quay.io/tinkerbell/actions/image2disk:latest
        timeout: 600
        environment:
          DEST_DISK: {{ index .Hardware.Disks 0 }}
          IMG_URL: "http://a/b.raw.gz"
          {{/* a comment }} */}}
      {{- if eq .arch "arm" }}
      - name: "reboot"
      {{- else }}
      - name: "kexec"
      {{- end }}
        image: ghcr.io/x/waitdaemon:latest
"#;

#[test]
fn a_template_of_theirs_is_shown_as_far_as_it_can_be_without_being_filled() {
    let object = json!({ "metadata": { "name": "ubuntu" }, "spec": { "data": BRANCHES } });
    let shown = read(Kind::TEMPLATE, &object, Beside::default());
    assert_eq!(
        shown.spec["actions"],
        json!([
            {
                "name": "stream", "action": "image2disk", "timeoutSeconds": 600,
                "with": {
                    "image": "quay.io/tinkerbell/actions/image2disk:latest",
                    "environment": { "DEST_DISK": "{{ index .Hardware.Disks 0 }}", "IMG_URL": "http://a/b.raw.gz" },
                },
            },
            { "name": "reboot", "action": "waitdaemon", "with": { "image": "ghcr.io/x/waitdaemon:latest" } },
        ]),
        "{}",
        shown.spec
    );
    assert_eq!((&shown.spec["description"], &shown.spec["timeoutSeconds"]), (&json!("pair"), &json!(1800)));
    assert_eq!(shown.metadata.annotations[TEMPLATE_TEXT], BRANCHES);
    assert!(shown.metadata.annotations[NOT_SHOWN].contains("branches"));
    assert!(shown.decode::<TemplateSpec>().is_ok());
    // Nothing of it is lost by a change here: it is refused.
    let mut record = shown.clone();
    record.spec["timeoutSeconds"] = json!(1);
    let error = write(&object, &record).unwrap_err();
    assert!(error.problem.contains("kubectl"), "{error:?}");
    let mut labelled = shown.clone();
    labelled.metadata.labels.insert("a".to_owned(), "b".to_owned());
    let after = write(&object, &labelled).unwrap();
    assert_eq!((&after["spec"], &after["metadata"]["labels"]["a"]), (&object["spec"], &json!("b")));
    assert_eq!(after["metadata"]["annotations"], json!({}), "what is shown is not stored");

    for (text, why) in [("tasks: [", "cannot be read"), ("a\n---\nb", "cannot be read"), ("{{ if x", "cannot be read")]
    {
        let object = json!({ "metadata": { "name": "x" }, "spec": { "data": text } });
        let shown = read(Kind::TEMPLATE, &object, Beside::default());
        let said = shown.metadata.annotations.get(NOT_SHOWN).cloned().unwrap_or_default();
        assert!(said.contains(why), "{text}: {said}");
        assert_eq!(shown.spec["actions"], json!([]), "{text}");
    }
}

#[test]
fn a_template_without_branches_is_changed_here_and_keeps_its_images() {
    let start = BRANCHES.find("      {{- if").unwrap();
    let object = json!({ "metadata": { "name": "ubuntu" }, "spec": { "data": &BRANCHES[..start] } });
    let mut record = read(Kind::TEMPLATE, &object, Beside::default());
    assert_eq!(record.metadata.annotations.get(NOT_SHOWN), None);
    record.spec["actions"][0]["with"]["environment"]["IMG_URL"] = json!("http://a/\"c\"\n");
    let after = write(&object, &record).unwrap();
    let data = after["spec"]["data"].as_str().unwrap();
    assert!(data.contains("worker: \"{{.device_1}}\"") && data.contains("{{ index .Hardware.Disks 0 }}"), "{data}");
    assert!(data.contains("- \"/dev:/dev\""), "{data}");
    assert_eq!(read(Kind::TEMPLATE, &after, Beside::default()).spec, record.spec);
    // Read as others read it, it says the same.
    let mut theirs = after.clone();
    theirs["metadata"]["annotations"] = json!({});
    assert_eq!(read(Kind::TEMPLATE, &theirs, Beside::default()).spec["actions"], record.spec["actions"]);
}

#[test]
fn actions_of_ours_become_images_or_are_refused_by_name() {
    let spec = json!({
        "values": { "image": "http://a/b.raw.gz" },
        "actions": [
            {
                "name": "write", "action": "image2disk",
                "with": { "url": "{{ values.image }}", "disk": { "name": "nvme0n1" }, "insecureNoDigest": true },
            },
            {
                "name": "file", "action": "writefile", "timeoutSeconds": 90,
                "with": {
                    "target": { "disk": { "name": "nvme0n1" }, "partition": 1 }, "path": "/etc/x",
                    "content": "a: {{ '{{' }} \"b\"\n  c\n",
                },
            },
            {
                "name": "own", "action": "example.org/tool:1", "with": { "environment": { "N": 1 }, "command": ["a", "b c"] },
            },
            { "name": "boot", "action": "kexec", "with": { "target": { "disk": { "name": "sda" }, "partition": 2 } } },
        ],
    });
    let data = writing::text_of("debian", &spec, &Map::new()).unwrap();
    let outline = reading::outline(&data);
    assert_eq!(
        (outline.name.as_str(), outline.timeout, outline.not_shown.clone()),
        ("debian", Some(14400), None),
        "{data}"
    );
    let environment = |index: usize| outline.actions[index]["with"]["environment"].clone();
    assert_eq!(environment(0)["IMG_URL"], "{{.image}}", "{data}");
    assert_eq!((&environment(0)["DEST_DISK"], &environment(0)["COMPRESSED"]), (&json!("/dev/nvme0n1"), &json!("true")));
    assert_eq!(environment(1)["CONTENTS"], "a: {{`{{`}} \"b\"\n  c\n", "{data}");
    assert_eq!((&environment(1)["DEST_DISK"], &environment(1)["MODE"]), (&json!("/dev/nvme0n1p1"), &json!("0644")));
    assert_eq!((&environment(2)["N"], &outline.actions[2]["with"]["command"]), (&json!("1"), &json!(["a", "b c"])));
    assert_eq!(outline.actions[2]["with"]["image"], "example.org/tool:1");
    assert_eq!(
        (&environment(3)["BLOCK_DEVICE"], &outline.actions[3]["with"]["pid"]),
        (&json!("/dev/sda2"), &json!("host"))
    );

    let check = |action: Value| {
        let spec: TemplateSpec = serde_json::from_value(json!({ "actions": [action] })).unwrap();
        let problems = TinkerbellChecker.check(&spec);
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.problem)).collect::<Vec<_>>().join("\n")
    };
    let of = |action: &str, with: Value| json!({ "name": "a", "action": action, "with": with });
    let disk = || json!({ "name": "sda" });
    for (action, want) in [
        (of("partition", json!({})), "actions[0].action: `partition` has no image in Tinkerbell"),
        (of("image2disk", json!({ "url": "/images/a.raw", "disk": disk() })), "with.url: is an image of this server"),
        (of("image2disk", json!({ "url": "http://a/b" })), "with.disk: is not set"),
        (
            of("image2disk", json!({ "url": "http://a/b", "disk": { "serial": "x" } })),
            "with.disk: Tinkerbell's actions know",
        ),
        (of("image2disk", json!({ "url": "{{ machine.name }}", "disk": disk() })), "only values can"),
        (of("kexec", json!({ "target": "root" })), "with.target: Tinkerbell's actions know partitions"),
        (
            of("kexec", json!({ "target": { "disk": disk(), "partition": 1 }, "entry": "x" })),
            "with.entry: Tinkerbell's kexec",
        ),
        (of("x", json!({ "image": "a/b:c", "enviroment": {} })), "did you mean `environment`?"),
        (of("x", json!({ "image": "" })), "with.image: an action is a container image"),
    ] {
        let told = check(action.clone());
        assert!(told.contains(want), "{action}: {told}");
    }
    assert_eq!(TinkerbellChecker.check(&TemplateSpec::default()).len(), 1, "a template without actions");
}

#[test]
fn what_tinkerbell_says_of_a_run_is_what_is_shown() {
    let hardware = json!({ "spec": { "agentID": "3c:ec:ef:4c:4f:54", "bmcRef": { "name": "b" }, "interfaces": [] } });
    let spec = json!({
        "hardware": "sm01", "template": "debian", "content": { "actions": [], "values": { "disk": "sda" } },
        "values": { "user": "ops" },
    });
    let mut record = Record {
        kind: Kind::WORKFLOW,
        metadata: Metadata { name: "w".into(), ..Metadata::default() },
        spec: spec.clone(),
        status: Value::Null,
    };
    let beside = Beside { hardware: Some(&hardware), controller: None };
    let made = created(&record, "tinkerbell", beside).unwrap();
    assert_eq!(
        made["spec"],
        json!({
            "templateRef": "debian", "hardwareRef": "sm01",
            "hardwareMap": { "device_1": "3c:ec:ef:4c:4f:54", "disk": "sda", "user": "ops" },
            "bootOptions": { "toggleAllowNetboot": true, "bootMode": "netboot" },
        })
    );
    record.metadata.annotations.insert(POWER_ANNOTATION.to_owned(), "none".to_owned());
    let unbooted = created(&record, "tinkerbell", beside).unwrap();
    assert_eq!(unbooted["spec"]["bootOptions"], json!({ "toggleAllowNetboot": true }));
    let error = created(&record, "tinkerbell", Beside::default()).unwrap_err();
    assert!(error.path == "spec.hardware" && error.problem.contains("`sm01`"), "{error:?}");
    record.spec["values"]["key"] = json!({ "valueFrom": { "secretRef": { "name": "s", "key": "k" } } });
    assert_eq!(created(&record, "tinkerbell", beside).unwrap_err().path, "spec.values.key");

    let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
    let newer = |state: &str, message: &str| json!({ "name": "b", "image": "a/image2disk:v1", "state": state, "executionStart": at(5), "executionStop": at(9), "message": message });
    let older = |state: &str| json!({ "name": "b", "image": "a/image2disk:v1", "status": state, "startedAt": at(5), "seconds": 4, "message": "no space" });
    let done =
        json!({ "name": "a", "image": "x", "state": "SUCCESS", "executionStart": at(1), "executionStop": at(4) });
    let cases = [
        (json!({}), "Pending", "waits for Tinkerbell's controller", "-"),
        (
            json!({ "state": "PENDING", "tasks": [{ "actions": [newer("PENDING", "")] }] }),
            "Pending",
            "agent",
            "Pending",
        ),
        (
            json!({ "state": "RUNNING", "tasks": [{ "actions": [newer("RUNNING", "")] }] }),
            "Running",
            "`b` runs",
            "Running",
        ),
        (
            json!({ "state": "POST", "tasks": [{ "actions": [newer("SUCCESS", "")] }] }),
            "Running",
            "boot order",
            "Succeeded",
        ),
        (
            json!({ "state": "SUCCESS", "tasks": [{ "actions": [newer("SUCCESS", "")] }] }),
            "Succeeded",
            "done",
            "Succeeded",
        ),
        (
            json!({ "state": "FAILED", "tasks": [{ "actions": [newer("FAILED", "exit 1")] }] }),
            "Failed",
            "`b` failed: exit 1",
            "Failed",
        ),
        (
            json!({ "state": "TIMEOUT", "tasks": [{ "actions": [newer("TIMEOUT", "")] }] }),
            "Failed",
            "`b` took too long",
            "Failed",
        ),
        (
            json!({ "state": "STATE_FAILED", "tasks": [{ "actions": [older("STATE_FAILED")] }] }),
            "Failed",
            "no space",
            "Failed",
        ),
        (json!({ "state": "LATER", "tasks": [{ "actions": [newer("RUNNING", "")] }] }), "Running", "LATER", "Running"),
        (
            json!({
                "templateRending": "failed",
                "conditions": [{ "type": "TemplateRenderedSuccess", "status": "False", "message": "no key x" }],
            }),
            "Pending",
            "cannot fill its Template: no key x",
            "-",
        ),
    ];
    for (mut status, state, message, step) in cases {
        if let Some(actions) = status.pointer_mut("/tasks/0/actions").and_then(Value::as_array_mut) {
            actions.insert(0, done.clone());
        }
        let object = json!({ "metadata": made["metadata"], "spec": made["spec"], "status": status });
        let shown = read(Kind::WORKFLOW, &object, Beside::default());
        assert_eq!(shown.spec, spec, "{status}");
        assert_eq!(shown.status["state"], state, "{status}");
        assert!(shown.status["message"].as_str().unwrap().contains(message), "{}", shown.status);
        assert_eq!(shown.status.pointer("/steps/1/state").map_or("-", |s| s.as_str().unwrap()), step, "{status}");
        assert!(shown.decode::<crate::resource::WorkflowSpec>().is_ok());
        if step == "Failed" || step == "Succeeded" {
            assert_eq!(shown.status["steps"][1]["endedAt"], at(9), "{status}");
            assert_eq!(shown.status["startedAt"], at(1), "{status}");
        }
    }
}

#[test]
fn a_run_that_somebody_made_by_hand_names_its_machine_by_its_card() {
    let agents = Agents::default();
    let spec = json!({ "templateRef": "debian", "hardwareMap": { "device_1": "3C:EC:EF:4C:4F:54", "user": "ops" } });
    let object = json!({ "metadata": { "name": "wf1" }, "spec": spec });
    let read = || show(Kind::WORKFLOW, Metadata::default(), &object, &agents, Beside::default()).spec;
    assert_eq!(read()["hardware"], "3C:EC:EF:4C:4F:54", "as it stands there");
    agents.learn(&machine()["spec"], "sm01");
    assert_eq!(
        read(),
        json!({ "hardware": "sm01", "template": "debian", "content": { "actions": [] }, "values": { "user": "ops" } })
    );
    agents.forget("sm01");
    assert_eq!(read()["hardware"], "3C:EC:EF:4C:4F:54");
}

#[test]
fn a_generation_counts_changes_that_are_ours_alone() {
    let mut object = machine();
    let mut record = read(Kind::HARDWARE, &object, Beside::default());
    for n in 1..4 {
        record.spec["hold"] = json!(n.to_string());
        object = write(&object, &record).unwrap();
        let shown = read(Kind::HARDWARE, &object, Beside::default());
        assert_eq!(shown.metadata.generation, 1 + n, "theirs did not change");
        let again = write(&object, &shown).unwrap();
        assert_eq!(read(Kind::HARDWARE, &again, Beside::default()).metadata.generation, 1 + n);
    }
    let status = Record { status: json!({ "phase": "Ready" }), ..record.clone() };
    let object = patched(object.clone(), &reported(&status, &object, "7").unwrap());
    let shown = read(Kind::HARDWARE, &object, Beside::default());
    assert_eq!((&shown.status["phase"], &shown.spec), (&json!("Ready"), &record.spec));
    assert!(shown.metadata.annotations.is_empty(), "{:?}", shown.metadata.annotations);
}

fn any_spec() -> impl Strategy<Value = Value> {
    let mac = prop_oneof![Just("52:54:00:00:00:01"), Just("52:54:00:00:00:02"), Just("3c:ec:ef:4c:4f:54"), Just("no")];
    let macs = prop::option::of(prop::collection::vec(mac, 0..4));
    let dhcp = prop::option::of(prop_oneof![
        Just(json!({ "address": "172.16.10.9" })),
        Just(json!({ "address": "172.16.10.9", "hostname": "h" })),
    ]);
    let chain = prop::option::of(prop_oneof![Just("http://a/b"), Just("tftp://a/c")]);
    (macs, dhcp, chain, any::<Option<bool>>(), prop::option::of("[a-z]{1,4}")).prop_map(
        |(macs, dhcp, chain, protected, hold)| {
            let mut spec = Map::new();
            let mut set = |field: &str, value: Option<Value>| value.map(|value| spec.insert(field.to_owned(), value));
            set("macs", macs.map(|macs| json!(macs)));
            set("dhcp", dhcp);
            set("chain", chain.map(|url| json!(url)));
            set("protected", protected.map(|is| json!(is)));
            set("hold", hold.map(|why| json!(why)));
            set("later", Some(json!({ "deep": [1] })));
            spec.into()
        },
    )
}

proptest! {
    /// What was put is what is shown, over anything that was there before; and what theirs says beside that stays.
    #[test]
    fn what_was_put_is_what_is_shown(specs in prop::collection::vec(any_spec(), 1..4)) {
        let mut object = machine();
        for spec in specs {
            let mut record = read(Kind::HARDWARE, &object, Beside::default());
            record.spec = spec;
            match write(&object, &record) {
                Ok(after) => object = after,
                // An address without its network: nothing is written.
                Err(error) => prop_assert_eq!(error.path, "spec.dhcp"),
            }
            if let Ok(after) = write(&object, &record) {
                prop_assert_eq!(&read(Kind::HARDWARE, &after, Beside::default()).spec, &record.spec);
            }
            prop_assert_eq!(&object["spec"]["metadata"], &machine()["spec"]["metadata"]);
            prop_assert_eq!(&object["spec"]["bmcRef"], &machine()["spec"]["bmcRef"]);
        }
    }

    /// No text makes the reading of a Template fail, and what is read of it can be read on.
    #[test]
    fn any_text_is_shown(text in "[-{}%a-z0-9:\"'`./* \n]{0,60}") {
        let object = json!({ "metadata": { "name": "x" }, "spec": { "data": text } });
        let shown = read(Kind::TEMPLATE, &object, Beside::default());
        prop_assert!(shown.spec["actions"].is_array());
    }

    /// What a variable of an action is to hold arrives, whatever it is.
    #[test]
    fn any_text_survives_their_yaml(text in "[-{a-z0-9:\"'`\\\\#|>&*!%@, \t\n\u{85}\u{2028}\u{e9}]{0,20}") {
        prop_assume!(!text.contains("{{"));
        let action = json!({ "name": "a", "action": "x", "with": { "image": "a/b:c", "environment": { "V": text } } });
        let data = writing::text_of("t", &json!({ "actions": [action] }), &Map::new()).unwrap();
        let outline = reading::outline(&data);
        prop_assert_eq!(&outline.actions[0]["with"]["environment"]["V"], &json!(text), "{}", data);
    }
}
