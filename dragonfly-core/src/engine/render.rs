//! Fills `{{ ... }}` in a template's strings, after the YAML has been read and only inside values:
//! what a machine says of itself can never become structure.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use crate::action::Problem;
use crate::inventory::Inventory;
use crate::resource::{Hardware, TemplateSpec};

/// Steps of the template machine that one string may take.
const FUEL: u64 = 20_000;
/// The longest string that may come out, in bytes.
const MAX_OUTPUT: usize = 256 * 1024;

/// What a template's strings may use.
#[derive(Debug, Serialize)]
pub struct Facts<'a> {
    /// `{{ machine.name }}`, `{{ machine.mac }}`, ...
    pub machine: MachineFacts<'a>,
    /// `{{ inventory.system.vendor }}`, ...: what the agent saw.
    pub inventory: Option<&'a Inventory>,
    /// `{{ values.name }}`: the template's values, as assigned.
    pub values: BTreeMap<String, String>,
    /// `{{ server }}`: where the machine reaches this server, without a slash at the end.
    pub server: String,
    /// `{{ phoneHome }}`: what the installed system is to POST to once it is up. Good for this run only.
    #[serde(rename = "phoneHome")]
    pub phone_home: String,
}

/// What is known of the machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineFacts<'a> {
    name: &'a str,
    display_name: &'a str,
    mac: String,
    macs: Vec<String>,
    hostname: &'a str,
    address: String,
    serial: &'a str,
    uuid: String,
}

impl<'a> MachineFacts<'a> {
    /// The facts of one machine. What is not known is an empty string.
    pub fn of(machine: &'a Hardware) -> Self {
        let anchors = machine.status.anchors.as_ref();
        let system = machine.status.inventory.as_ref().map(|i| &i.system);
        let macs: Vec<String> = machine.spec.macs.iter().map(ToString::to_string).collect();
        let reserved = machine.spec.dhcp.as_ref();
        Self {
            name: machine.name(),
            display_name: &machine.spec.display_name,
            mac: macs.first().cloned().unwrap_or_default(),
            macs,
            hostname: reserved.and_then(|d| d.hostname.as_deref()).unwrap_or(machine.name()),
            address: machine.status.address.or(reserved.map(|d| d.address)).map(|a| a.to_string()).unwrap_or_default(),
            serial: anchors
                .and_then(|a| a.serial.as_deref())
                .or(system.and_then(|s| s.serial.as_deref()))
                .unwrap_or_default(),
            uuid: anchors.and_then(|a| a.smbios_uuid).map(|u| u.to_string()).unwrap_or_default(),
        }
    }
}

/// The template with every string filled, or everything that could not be.
pub fn render(template: &TemplateSpec, facts: &Facts<'_>) -> Result<TemplateSpec, Vec<Problem>> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    let context = minijinja::Value::from(minijinja::value::Serde(facts));
    let mut problems = Vec::new();
    let mut rendered = template.clone();
    for (index, action) in rendered.actions.iter_mut().enumerate() {
        fill(&env, &context, &mut action.with, &format!("actions[{index}].with"), &mut problems);
    }
    if problems.is_empty() { Ok(rendered) } else { Err(problems) }
}

fn fill(env: &Environment<'_>, context: &minijinja::Value, value: &mut Value, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) if text.contains("{{") || text.contains("{%") => match env.render_str(text, context) {
            Ok(filled) if filled.len() <= MAX_OUTPUT => *text = filled,
            Ok(filled) => problems.push(Problem {
                path: path.to_owned(),
                problem: format!("this becomes {} bytes; at most {MAX_OUTPUT} are taken", filled.len()),
            }),
            Err(error) => {
                problems.push(Problem {
                    path: path.to_owned(),
                    problem: format!("`{{{{ }}}}` cannot be filled: {}", words(&error)),
                });
            }
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill(env, context, item, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields.iter_mut() {
                fill(env, context, item, &format!("{path}.{key}"), problems);
            }
        }
        _ => {}
    }
}

/// The template engine's words without its own position, which counts inside one string.
fn words(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::HardwareSpec;
    use crate::resource::template::TemplateAction;
    use serde_json::json;

    fn template(with: Value) -> TemplateSpec {
        let action = TemplateAction { name: "a".into(), action: "writefile".into(), with, timeout_seconds: None };
        TemplateSpec { actions: vec![action], ..TemplateSpec::default() }
    }

    fn run(with: Value) -> Result<Value, Vec<Problem>> {
        let mut machine = Hardware::new("censusable", HardwareSpec::default());
        machine.spec.macs = vec!["52:54:00:ab:cd:01".parse().unwrap()];
        machine.status.anchors = Some(crate::resource::hardware::Anchors {
            serial: Some("$(reboot)\n#!ipxe\"}, {\"x\": 1".into()),
            ..Default::default()
        });
        let facts = Facts {
            machine: MachineFacts::of(&machine),
            inventory: None,
            values: BTreeMap::from([("role".into(), "db".into())]),
            server: "http://10.0.0.1:3000".into(),
            phone_home: "http://10.0.0.1:3000/boot/phone-home/x".into(),
        };
        render(&template(with), &facts).map(|t| t.actions[0].with.clone())
    }

    #[test]
    fn fills_strings_and_nothing_else() {
        let filled = run(
            json!({ "content": "{{ machine.mac }} {{ values.role }}", "mode": 420, "list": ["{{ machine.name }}"] }),
        );
        assert_eq!(filled.unwrap(), json!({ "content": "52:54:00:ab:cd:01 db", "mode": 420, "list": ["censusable"] }));
    }

    #[test]
    fn a_strange_serial_stays_one_string() {
        let filled = run(json!({ "content": "{{ machine.serial }}" })).unwrap();
        assert_eq!(filled["content"], "$(reboot)\n#!ipxe\"}, {\"x\": 1");
        assert_eq!(filled.as_object().unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_there_is_an_error_with_its_path() {
        let problems = run(json!({ "files": [{ "content": "{{ values.missing }}" }] })).unwrap_err();
        assert_eq!(problems[0].path, "actions[0].with.files[0].content");
        assert!(problems[0].problem.contains("undefined"), "{}", problems[0].problem);
        assert!(run(json!({ "c": "{{ machine.nmae }}" })).is_err());
    }

    #[test]
    fn a_loop_ends() {
        assert!(
            run(json!({ "c": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}" }))
                .is_err()
        );
    }
}
