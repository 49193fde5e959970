//! Manifests of [Tinkerbell](https://tinkerbell.org) and [Metal3](https://metal3.io) become ours.
//!
//! [`convert`] takes `tinkerbell.org/v1alpha1` Hardware, Template and Workflow, `bmc.tinkerbell.org/v1alpha1` Machine,
//! `metal3.io/v1alpha1` BareMetalHost, and the `v1` Secrets that they refer to. Templates are filled for each machine
//! that a Workflow names, and their actions, which are container images there, become the native ones of the same name.
//! Every field is either carried over or told of in a [`Note`]. Nothing is read, written or sent.

mod actions;
mod bmc;
mod device;
mod escape;
mod fields;
mod go;
mod hardware;
mod known;
mod metal3;
mod network;
mod note;
mod read;
mod secret;
mod template;
mod workflow;

use serde_json::{Value, json};

use crate::resource::{Hardware, Record, SecretObject, Template};

pub use network::NetworkHint;
pub use note::{Note, Outcome};

use read::Document;

/// One text with manifests.
#[derive(Debug, Clone, Copy)]
pub struct ManifestFile<'a> {
    /// What notes call it.
    pub name: &'a str,
    /// YAML or JSON, one or several documents.
    pub text: &'a str,
}

/// What is read as something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Images of actions, from and to: the whole reference, the reference without its tag, or its last part. The first
    /// that fits counts.
    pub images: Vec<(String, String)>,
    /// Beginnings of the URLs of operating system images, from and to. The first that fits counts.
    pub urls: Vec<(String, String)>,
}

/// What became of manifests.
#[derive(Debug, Clone, Default)]
pub struct Converted {
    /// Our objects: Secrets first, then Hardware, then Templates.
    pub objects: Vec<Object>,
    /// Which Template is to be assigned to which machine: a Workflow of ours is made by that, and by nothing else.
    pub assignments: Vec<Assignment>,
    /// The networks that the machines were told about.
    pub networks: Vec<NetworkHint>,
    /// What was not carried over as it stands.
    pub notes: Vec<Note>,
}

/// One of our objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Values under names.
    Secret(SecretObject),
    /// A machine.
    Hardware(Box<Hardware>),
    /// Steps.
    Template(Template),
}

/// A Template for a machine, as a Workflow paired them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The machine's name.
    pub hardware: String,
    /// The Template's name here.
    pub template: String,
    /// The Workflow that paired them.
    pub workflow: String,
}

impl Object {
    /// Its `metadata.name`.
    pub fn name(&self) -> &str {
        match self {
            Self::Secret(object) => object.name(),
            Self::Hardware(object) => object.name(),
            Self::Template(object) => object.name(),
        }
    }

    /// Its kind: `Hardware`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret(_) => "Secret",
            Self::Hardware(_) => "Hardware",
            Self::Template(_) => "Template",
        }
    }

    /// The object as it can be shown: a Secret without its values.
    pub fn shown(&self) -> Value {
        match self {
            Self::Secret(object) => Record::from(object).to_json(),
            Self::Hardware(object) => Record::from(&**object).to_json(),
            Self::Template(object) => Record::from(object).to_json(),
        }
    }

    /// The object as `apply` takes it: **a Secret with its values**. For sending, not for showing.
    pub fn to_apply(&self) -> Value {
        let mut object = self.shown();
        if let Self::Secret(secret) = self {
            let data = secret.spec.data.iter().map(|(key, value)| (key.clone(), json!(value.reveal())));
            object["spec"] = json!({ "data": Value::Object(data.collect()) });
        }
        object
    }
}

/// The controller that a Machine of theirs is, if one is spoken to here.
#[cfg(feature = "kubernetes")]
pub(crate) fn controller(machine: &Value, is_uefi: Option<bool>) -> Option<crate::resource::hardware::Bmc> {
    let mut notes = Vec::new();
    let documents = read::documents(&ManifestFile { name: "", text: &machine.to_string() }, &mut notes);
    let document = documents.iter().find(|document| document.is("Machine"))?;
    bmc::convert(document, &secret::Secrets::new(&documents), is_uefi, &mut notes)
}

/// Converts manifests. What cannot be read or made is among the notes, as [`Outcome::Refused`]; the rest is made.
pub fn convert(files: &[ManifestFile<'_>], options: &Options) -> Converted {
    let mut notes = Vec::new();
    let documents: Vec<Document> = files.iter().flat_map(|file| read::documents(file, &mut notes)).collect();
    let secrets = secret::Secrets::new(&documents);
    let controllers = bmc::Controllers::new(&documents);
    let mut machines = Vec::new();
    for document in documents.iter().filter(|document| document.is("Hardware")) {
        machines.extend(hardware::convert(document, &documents, &controllers, &secrets, &mut notes));
    }
    let mut templates = workflow::convert(&documents, &machines, options, &mut notes);
    for document in documents.iter().filter(|document| document.is("BareMetalHost")) {
        metal3::convert(document, &secrets, options, &mut machines, &mut templates, &mut notes);
    }
    read::leftovers(&documents, &controllers, &secrets, &mut notes);
    let networks = network::hints(&machines, &mut notes);
    let mut objects: Vec<Object> = secrets.used(&mut notes).into_iter().map(Object::Secret).collect();
    objects.extend(machines.into_iter().map(|machine| Object::Hardware(Box::new(machine.object))));
    objects.extend(templates.made.into_iter().map(Object::Template));
    // One field of a Template is told of once, however many machines it is filled for.
    let mut told = std::collections::BTreeSet::new();
    notes.retain(|note: &Note| told.insert(note.to_string()));
    Converted { objects, assignments: templates.assignments, networks, notes }
}
