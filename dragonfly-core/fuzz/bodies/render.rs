//! A template's strings end, whatever stands in them, and stay strings.
use std::collections::BTreeMap;

use dragonfly_core::engine::render::{Facts, MachineFacts, render};
use dragonfly_core::resource::template::TemplateAction;
use dragonfly_core::resource::{Hardware, HardwareSpec, TemplateSpec};

/// One input.
pub(crate) fn render_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let with = serde_json::json!({ "content": text });
    let action = TemplateAction { name: "a".into(), action: "a".into(), with, timeout_seconds: None };
    let machine = Hardware::new("m", HardwareSpec::default());
    let values = BTreeMap::from([("v".to_owned(), text.to_owned())]);
    let facts = Facts {
        machine: MachineFacts::of(&machine),
        inventory: None,
        values,
        server: String::new(),
        phone_home: String::new(),
    };
    if let Ok(filled) = render(&TemplateSpec { actions: vec![action], ..Default::default() }, &facts) {
        assert!(filled.actions[0].with["content"].is_string());
    }
}
