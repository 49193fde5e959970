//! Texts that our own template language would take for its own.

use serde_json::Value;

use super::go::{LATE_BEGINS, LATE_ENDS};

/// Texts as our template language leaves them alone, with what is not known yet as `{{ values.NAME }}`.
pub(super) fn with_values(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) => *text = literal(text),
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(fields) => fields.values_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

fn literal(text: &str) -> String {
    let is_late = text.contains(LATE_BEGINS);
    if !is_late && !text.contains("{{") && !text.contains("{%") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        // One alone too: it may come to stand before a brace of ours.
        let opens = ["{{", "{%", "{#", "{"].into_iter().find(|opens| rest.starts_with(opens));
        let (written, length) = match (opens, c) {
            (Some(opens), _) => (format!("{{{{ '{opens}' }}}}"), opens.len()),
            (None, LATE_BEGINS) => match rest.find(LATE_ENDS) {
                Some(end) => {
                    let name = rest.get(c.len_utf8()..end).unwrap_or_default();
                    (format!("{{{{ values.{name} }}}}"), end + LATE_ENDS.len_utf8())
                }
                None => (String::new(), c.len_utf8()),
            },
            (None, c) => (c.to_string(), c.len_utf8()),
        };
        out.push_str(&written);
        rest = rest.get(length..).unwrap_or_default();
    }
    // The end of a text's last line is dropped when a text is filled.
    match out.strip_suffix('\n') {
        Some(line) => format!("{line}{{{{ '\\n' }}}}"),
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::render::{Facts, MachineFacts, render};
    use crate::resource::template::{TemplateAction, TemplateSpec};
    use crate::resource::{Hardware, HardwareSpec};

    fn filled(text: &str) -> String {
        let with = serde_json::json!({ "content": literal(text) });
        let action = TemplateAction { name: "a".into(), action: "writefile".into(), with, timeout_seconds: None };
        let machine = Hardware::new("m", HardwareSpec::default());
        let facts = Facts {
            machine: MachineFacts::of(&machine),
            inventory: None,
            values: BTreeMap::from([("device_1".to_owned(), "sda".to_owned())]),
            server: String::new(),
            phone_home: String::new(),
        };
        let filled = render(&TemplateSpec { actions: vec![action], ..TemplateSpec::default() }, &facts).unwrap();
        filled.actions[0].with["content"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_looks_like_ours_stays_what_it_is() {
        for text in [
            "## template: jinja\n{{ v1.hostname }} {% if x %}{# c #}\n",
            "{{{{ }}\n\n",
            "{%{{{#",
            "{%{\n",
            "a\nb\n",
            "{{ '{{' }}",
        ] {
            assert_eq!(filled(text), text, "{}", literal(text));
        }
        let late = format!("disk {LATE_BEGINS}device_1{LATE_ENDS}\n");
        assert_eq!(literal(&late), "disk {{ values.device_1 }}{{ '\\n' }}");
        assert_eq!(filled(&late), "disk sda\n");
    }

    proptest! {
        #[test]
        fn any_text_survives_our_own_templates(text in "[ {}%#'\\\\a\n]{0,12}") {
            prop_assert_eq!(filled(&text), text);
        }
    }
}
