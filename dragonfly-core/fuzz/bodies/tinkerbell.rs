//! Whatever somebody writes as a Tinkerbell manifest or template is objects and notes, never a panic.
use dragonfly_core::resource::manifest;
use dragonfly_core::tinkerbell::{ManifestFile, Object, Options, convert};

/// One input: as manifests, and as the text of a template.
pub(crate) fn tinkerbell(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let template = serde_json::json!({
        "apiVersion": "tinkerbell.org/v1alpha1", "kind": "Template", "metadata": { "name": "t" }, "spec": { "data": text },
    });
    for text in [text, &template.to_string()] {
        let converted = convert(&[ManifestFile { name: "f", text }], &Options::default());
        for object in converted.objects.iter().filter(|object| !matches!(object, Object::Secret(_))) {
            let taken = manifest::from_json(object.shown());
            assert!(taken.is_ok(), "{:?}\n{:#}", taken, object.shown());
        }
    }
}
