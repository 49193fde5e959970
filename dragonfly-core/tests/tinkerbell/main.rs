//! Manifests of Tinkerbell and Metal3 become ours: what of each field, and what is told of it.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod actions;
mod fixtures;
mod machines;
mod metal3;
mod pairs;

use dragonfly_core::resource::{Hardware, Template};
use dragonfly_core::tinkerbell::{Converted, ManifestFile, Note, Object, Options, Outcome, convert};
use serde_json::Value;

/// Converts one text.
fn of(text: &str) -> Converted {
    convert(&[ManifestFile { name: "f.yaml", text }], &Options::default())
}

fn machines(converted: &Converted) -> Vec<&Hardware> {
    let machines = converted.objects.iter().filter_map(|object| match object {
        Object::Hardware(machine) => Some(&**machine),
        _ => None,
    });
    machines.collect()
}

fn templates(converted: &Converted) -> Vec<&Template> {
    let templates = converted.objects.iter().filter_map(|object| match object {
        Object::Template(template) => Some(template),
        _ => None,
    });
    templates.collect()
}

/// The one template's steps: name, action, parameters, seconds.
fn steps(converted: &Converted) -> Vec<(String, String, Value, Option<u64>)> {
    let [template] = templates(converted)[..] else { panic!("{:#?}", converted) };
    let step = |a: &dragonfly_core::resource::template::TemplateAction| {
        (a.name.clone(), a.action.clone(), a.with.clone(), a.timeout_seconds)
    };
    template.spec.actions.iter().map(step).collect()
}

/// `path: outcome` of every note, in order.
fn told(converted: &Converted) -> Vec<String> {
    converted.notes.iter().map(|note| format!("{}: {}", note.path, note.outcome)).collect()
}

/// The note about a place.
fn note<'a>(converted: &'a Converted, path: &str) -> &'a Note {
    let found = converted.notes.iter().find(|note| note.path == path);
    found.unwrap_or_else(|| panic!("nothing is told of {path}: {:#?}", converted.notes))
}

/// Whether something is refused at a place, with these words.
fn refused(converted: &Converted, path: &str, words: &str) {
    let all = converted.notes.iter().filter(|note| note.outcome == Outcome::Refused);
    let found = all.clone().any(|note| note.path == path && note.said.contains(words));
    assert!(found, "not refused: {path}: {words}: {:#?}", all.collect::<Vec<_>>());
}

/// A template of these actions, each line indented as it stands below `actions:`; a workflow, and a machine with a
/// SATA disk.
fn stack(actions: &str) -> String {
    let actions: String = actions.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "apiVersion: tinkerbell.org/v1alpha1
kind: Hardware
metadata: {{name: m1}}
spec:
  disks: [{{device: /dev/sda}}]
  interfaces: [{{dhcp: {{mac: \"52:54:00:00:00:01\"}}}}]
---
apiVersion: tinkerbell.org/v1alpha1
kind: Workflow
metadata: {{name: w1}}
spec: {{templateRef: t1, hardwareRef: m1, hardwareMap: {{device_1: \"52:54:00:00:00:01\"}}}}
---
apiVersion: tinkerbell.org/v1alpha1
kind: Template
metadata: {{name: t1}}
spec:
  data: |
    version: \"0.1\"
    name: t1
    global_timeout: 600
    tasks:
      - name: os
        worker: \"{{{{.device_1}}}}\"
        actions:
{actions}"
    )
}
