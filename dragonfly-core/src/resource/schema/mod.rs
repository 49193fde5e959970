//! What each kind looks like, for Kubernetes and its tools: the structural OpenAPI v3 schemas of its custom
//! resources, and the columns of its tables.
//!
//! Derived from the types themselves, descriptions too. Objects keep fields that this version does not know
//! (`x-kubernetes-preserve-unknown-fields`): an older instance never erases what a newer one wrote.

mod columns;
mod crd;
mod structural;
#[cfg(test)]
mod tests;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{
    HardwareSpec, HardwareStatus, Kind, NetworkSpec, NoStatus, SecretSpec, Spec, TemplateSpec, WorkflowSpec,
    WorkflowStatus,
};

pub use columns::{Column, columns};
pub use crd::{crd, crds};

/// The schema of a whole object: `apiVersion`, `kind`, `metadata`, `spec` and `status`; structural, in the words of
/// Kubernetes' `apiextensions.k8s.io/v1`. Says what `spec` must be; `status` is the engine's to write and is
/// described, not judged.
///
/// ```
/// use dragonfly_core::resource::{Kind, schema};
/// let schema = schema::of(Kind::NETWORK);
/// assert_eq!(schema.pointer("/properties/spec/properties/subnet/type"), Some(&"string".into()));
/// ```
pub fn of(kind: Kind) -> Value {
    let mut generator = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    let (about, spec, status) = match kind {
        Kind::HARDWARE => parts::<HardwareSpec, HardwareStatus>(&mut generator, "One physical or virtual machine."),
        Kind::TEMPLATE => {
            let about = "An ordered list of actions that turns a machine into something.";
            parts::<TemplateSpec, NoStatus>(&mut generator, about)
        }
        Kind::WORKFLOW => parts::<WorkflowSpec, WorkflowStatus>(
            &mut generator,
            "One run of one template on one machine. Inert without the machine's authorisation for it.",
        ),
        Kind::NETWORK => parts::<NetworkSpec, <NetworkSpec as Spec>::Status>(
            &mut generator,
            "One network segment on which boot services answer. Without one, DHCP is off.",
        ),
        Kind::SECRET => parts::<SecretSpec, NoStatus>(
            &mut generator,
            "Values that are written and never read back: reads give key names.",
        ),
        // A kind of somebody else's making: nothing is known of it.
        _ => ("", structural::anything(), structural::anything()),
    };
    let mut required = Vec::new();
    if spec.get("required").and_then(Value::as_array).is_some_and(|fields| !fields.is_empty()) {
        required.push("spec");
    }
    let mut object = Map::new();
    if !about.is_empty() {
        object.insert("description".into(), about.into());
    }
    object.insert("type".into(), "object".into());
    object.insert(
        "properties".into(),
        json!({
            "apiVersion": { "type": "string", "description": "API group and version." },
            "kind": { "type": "string", "description": "What this object is." },
            "metadata": { "type": "object" },
            "spec": spec,
            "status": status,
        }),
    );
    if !required.is_empty() {
        object.insert("required".into(), required.into());
    }
    Value::Object(object)
}

fn parts<T: JsonSchema, U: JsonSchema>(
    generator: &mut SchemaGenerator,
    about: &'static str,
) -> (&'static str, Value, Value) {
    let spec = structural::convert(T::json_schema(generator).to_value());
    let status = structural::lenient(structural::convert(U::json_schema(generator).to_value()));
    (about, spec, status)
}
