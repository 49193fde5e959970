//! Workflows say which Template is for which machine; Templates are filled for each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields::Fields;
use super::go::{self, Keys};
use super::hardware::{Machine, seen_by_templates};
use super::read::Document;
use super::template::{self, Converted};
use super::{Assignment, Note, Options, Outcome, known, read};
use crate::resource::{Record, Template, TemplateSpec};

/// What was made of templates.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) made: Vec<Template>,
    pub(super) assignments: Vec<Assignment>,
}

/// One Workflow that may be assigned.
struct Pair<'a> {
    document: &'a Document,
    /// Its machine, which may not be in the files.
    hardware: String,
    spec: TemplateSpec,
}

pub(super) fn convert(documents: &[Document], machines: &[Machine], options: &Options, notes: &mut Vec<Note>) -> Made {
    let mut made = Made::default();
    let workflows: Vec<&Document> = documents.iter().filter(|document| document.is("Workflow")).collect();
    let mut names = BTreeSet::new();
    for template in documents.iter().filter(|document| document.is("Template")) {
        let mut fields = Fields::new(template);
        let labels = super::secret::labels(&mut fields);
        let data = fields.take_text("/spec/data");
        fields.tell_rest(&known::plain(), notes);
        if !names.insert(&template.name) {
            let said = "a Template of this name stands before it; there are no namespaces here";
            notes.push(template.note("metadata.name", Outcome::Refused, said));
            continue;
        }
        let Some(data) = data else {
            notes.push(template.note("spec.data", Outcome::Refused, "is empty"));
            continue;
        };
        let named = |workflow: &&&Document| {
            workflow.text("/spec/templateRef") == Some(template.name.as_str())
                && workflow.namespace == template.namespace
        };
        let mine: Vec<&Document> = workflows.iter().filter(named).copied().collect();
        let before = made.made.len();
        if mine.is_empty() {
            if let Some(spec) = unpaired(template, &data, options, notes) {
                let object = Template::new(template.name.clone(), spec);
                if read::is_taken(template, Record::from(&object).to_json(), notes) {
                    made.made.push(object);
                }
            }
        } else {
            let pairs = mine.iter().filter_map(|document| pair(document, template, &data, machines, options, notes));
            let pairs: Vec<Pair<'_>> = pairs.collect();
            name(template, pairs, &mut made, notes);
        }
        for object in made.made.iter_mut().skip(before) {
            (object.metadata.labels, object.metadata.annotations) = labels.clone();
        }
    }
    for workflow in workflows {
        let mut fields = Fields::new(workflow);
        for pointer in ["/spec/templateRef", "/spec/hardwareRef", "/spec/hardwareMap", "/spec/disabled"] {
            fields.take(pointer);
        }
        fields.tell_rest(&known::workflow(), notes);
        let wanted = workflow.text("/spec/templateRef").unwrap_or_default();
        if !documents.iter().any(|d| d.is("Template") && d.name == wanted && d.namespace == workflow.namespace) {
            let said = format!("the Template `{wanted}` is not in these files");
            notes.push(workflow.note("spec.templateRef", Outcome::Refused, said));
        }
    }
    made
}

/// A template that no Workflow names: what a Workflow would give becomes values of ours.
fn unpaired(template: &Document, data: &str, options: &Options, notes: &mut Vec<Note>) -> Option<TemplateSpec> {
    if data.contains([go::LATE_BEGINS, go::LATE_ENDS]) {
        let said = "holds U+F8F0 or U+F8F1, which stand for values that are not known yet";
        notes.push(template.note("spec.data", Outcome::Refused, said));
        return None;
    }
    let root = go::Value::map(BTreeMap::new(), Keys::Late).ok()?;
    let filled = match go::render(data, &root) {
        Ok(filled) => filled,
        Err(error) => {
            let said =
                format!("{error}; no Workflow in these files names this Template, so it is filled for no machine");
            notes.push(template.note("spec.data", Outcome::Refused, said));
            return None;
        }
    };
    let converted = template::convert(&filled, options, None);
    tell(template, &converted, "", notes);
    converted.spec
}

/// Notes of a template; of which machine, where it matters.
fn tell(template: &Document, converted: &Converted, machine: &str, notes: &mut Vec<Note>) {
    for said in &converted.said {
        let mut note = template.note("spec.data", said.outcome, said.said.clone());
        if !said.path.is_empty() {
            note.path = format!("spec.data.{}", said.path);
        }
        if said.outcome == Outcome::Refused && !machine.is_empty() {
            note.said = format!("{} (filled for {machine})", note.said);
        }
        notes.push(note);
    }
}

/// A Workflow with its template filled. `None`: it cannot, or should not, be assigned.
fn pair<'a>(
    document: &'a Document,
    template: &Document,
    data: &str,
    machines: &[Machine],
    options: &Options,
    notes: &mut Vec<Note>,
) -> Option<Pair<'a>> {
    let refuse =
        |notes: &mut Vec<Note>, path: &str, said: String| notes.push(document.note(path, Outcome::Refused, said));
    let wanted = document.text("/spec/hardwareRef");
    let map = document.value.pointer("/spec/hardwareMap").and_then(Value::as_object);
    let in_namespace = || machines.iter().filter(|machine| machine.namespace == document.namespace);
    let referred = wanted.and_then(|name| in_namespace().find(|machine| machine.object.name() == name));
    // Without a reference, `.Hardware` is that of the machine which the map names: there it is nothing.
    let mapped = || {
        let values = map.into_iter().flatten().filter_map(|(_, value)| value.as_str());
        values.filter_map(|value| in_namespace().find(|machine| machine.is(value))).next()
    };
    let machine = referred.or_else(|| if wanted.is_none() { mapped() } else { None });
    let filled = match root(map, machine).and_then(|root| go::render(data, &root).map_err(|error| error.to_string())) {
        Ok(filled) => filled,
        Err(error) => {
            let said = format!("{error} (filled for the Workflow `{}`)", document.name);
            notes.push(template.note("spec.data", Outcome::Refused, said));
            return None;
        }
    };
    let storage = machine.and_then(|machine| machine.manifest.pointer("/spec/metadata/instance/storage"));
    let converted = template::convert(&filled, options, storage);
    let name = machine.map(|machine| machine.object.name()).or(wanted).unwrap_or_default().to_owned();
    tell(template, &converted, &name, notes);
    // There, the worker's id alone decides which machine runs it.
    let worker = in_namespace().find(|machine| machine.is(&converted.worker));
    match (worker, machine) {
        (Some(worker), Some(machine)) if !std::ptr::eq(worker, machine) => {
            let said = format!(
                "its Template is filled for `{}`, and its worker `{}` is `{}`: which of them is meant?",
                machine.object.name(),
                converted.worker,
                worker.object.name()
            );
            refuse(notes, "spec", said);
            return None;
        }
        (None, Some(machine)) => {
            let said = format!(
                "its worker `{}` is no card of `{}`, which is meant all the same",
                converted.worker,
                machine.object.name()
            );
            notes.push(document.note("spec.hardwareMap", Outcome::Changed, said));
        }
        (None, None) if wanted.is_some() => {
            let said = "is not in these files: the server must know a machine of this name";
            notes.push(document.note("spec.hardwareRef", Outcome::Changed, said));
        }
        (None, None) => {
            refuse(notes, "spec", format!("no Hardware in these files is its worker `{}`", converted.worker));
            return None;
        }
        _ => {}
    }
    // What is not assigned still makes its Template.
    if let Err((path, said)) = waits(document) {
        notes.push(document.note(path, Outcome::Lost, said));
    }
    let hardware = machine.or(worker).map_or(name, |machine| machine.object.name().to_owned());
    Some(Pair { document, hardware, spec: converted.spec? })
}

/// Whether a Workflow has yet to run; or where it says that it has not, and why.
fn waits(document: &Document) -> Result<(), (&'static str, String)> {
    if document.value.pointer("/spec/disabled").and_then(Value::as_bool) == Some(true) {
        return Err(("spec.disabled", "it is not assigned: it was disabled".to_owned()));
    }
    match document.text("/status/state").unwrap_or_default() {
        "" | "PENDING" | "PREPARING" | "STATE_PENDING" => Ok(()),
        state => Err(("status.state", format!("it is not assigned: it is {state} there already"))),
    }
}

/// What a template is filled with.
fn root(map: Option<&serde_json::Map<String, Value>>, machine: Option<&Machine>) -> Result<go::Value, String> {
    let mut entries = BTreeMap::new();
    for (key, value) in map.into_iter().flatten() {
        entries.insert(key.clone(), go::Value::from_json(value, Keys::Strict)?);
    }
    if let Some(machine) = machine {
        let seen = seen_by_templates(&machine.manifest);
        entries.insert("Hardware".to_owned(), go::Value::from_json(&seen, Keys::Structure)?);
        entries.insert("hardware".to_owned(), go::Value::from_json(&machine.manifest, Keys::Strict)?);
    }
    // What other objects hold is not read: whoever uses it is told so.
    for name in ["References", "references"] {
        entries.insert(name.to_owned(), go::Value::map(BTreeMap::new(), Keys::Strict)?);
    }
    go::Value::map(entries, Keys::Strict)
}

/// One Template where all machines get the same, else one for each that differs.
fn name(template: &Document, pairs: Vec<Pair<'_>>, made: &mut Made, notes: &mut Vec<Note>) {
    let mut groups: Vec<(TemplateSpec, Vec<Pair<'_>>)> = Vec::new();
    for pair in pairs {
        match groups.iter_mut().find(|(spec, _)| *spec == pair.spec) {
            Some((_, group)) => group.push(pair),
            None => groups.push((pair.spec.clone(), vec![pair])),
        }
    }
    let single = groups.len() == 1;
    for (spec, group) in groups {
        let Some(first) = group.first() else { continue };
        let name = if single { template.name.clone() } else { format!("{}-{}", template.name, first.hardware) };
        let object = Template::new(name.clone(), spec);
        if !read::is_taken(template, Record::from(&object).to_json(), notes) {
            continue;
        }
        for pair in &group {
            if waits(pair.document).is_ok() {
                let (hardware, workflow) = (pair.hardware.clone(), pair.document.name.clone());
                made.assignments.push(Assignment { hardware, template: name.clone(), workflow });
            }
        }
        made.made.push(object);
    }
}
