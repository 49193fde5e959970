//! A Template of ours as Tinkerbell's text: YAML with actions that are container images.
//!
//! An action is one of ours that has an image there, or one of theirs: with `with.image`, or with an image's reference
//! for its name. The texts of theirs are written as they stand, those of ours are translated.

mod native;
mod yaml;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Unwritable;
use crate::action::{Problem, TemplateChecker};
use crate::near::did_you_mean;
use crate::resource::TemplateSpec;

/// What a run may take at most, in seconds, where the Template does not say.
const RUN_SECONDS: u64 = 4 * 3600;
/// The same of one action.
const ACTION_SECONDS: u64 = 3600;
/// The longest name there.
const LONGEST_NAME: usize = 199;
/// What every action needs of the machine.
const VOLUMES: [&str; 3] = ["/dev:/dev", "/dev/console:/dev/console", "/lib/firmware:/lib/firmware:ro"];
/// Fields of an action there.
const FIELDS: [&str; 9] =
    ["image", "environment", "command", "volumes", "pid", "namespaces", "on-timeout", "on-failure", "timeout"];

/// Judges Templates where Tinkerbell carries them out: whether each action can be written as one of its.
#[derive(Debug, Clone, Copy, Default)]
pub struct TinkerbellChecker;

impl TemplateChecker for TinkerbellChecker {
    fn check(&self, template: &TemplateSpec) -> Vec<Problem> {
        let spec = serde_json::to_value(template).unwrap_or_default();
        let mut problems = actions(&spec).1;
        if template.actions.is_empty() {
            problems.push(Unwritable::new("spec.actions", "there is no action"));
        }
        let bare = |path: String| path.strip_prefix("spec.").map(str::to_owned).unwrap_or(path);
        problems.into_iter().map(|wrong| Problem { path: bare(wrong.path), problem: wrong.problem }).collect()
    }
}

/// The text. `task` is what stood beside the actions of the text before.
pub(super) fn text_of(name: &str, ours: &Value, task: &Map<String, Value>) -> Result<String, Unwritable> {
    let (actions, problems) = actions(ours);
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let seconds = ours.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(RUN_SECONDS);
    let mut first = vec![
        ("name", task.get("name").cloned().unwrap_or_else(|| json!(name))),
        ("worker", task.get("worker").cloned().unwrap_or_else(|| json!("{{.device_1}}"))),
    ];
    if task.is_empty() {
        first.push(("volumes", json!(VOLUMES)));
    }
    let rest = task.iter().filter(|(field, _)| !matches!(field.as_str(), "name" | "worker" | "actions"));
    first.extend(rest.map(|(field, value)| (field.as_str(), value.clone())));
    let mut text = format!("version: \"0.1\"\nname: {}\nglobal_timeout: {seconds}\n", yaml::quoted(name));
    text.push_str("tasks:\n");
    for (index, (field, value)) in first.iter().enumerate() {
        text.push_str(if index == 0 { "  - " } else { "    " });
        yaml::field(&mut text, field, value, 4)
            .map_err(|problem| Unwritable::new(format!("tasks[0].{field}"), problem))?;
    }
    if actions.is_empty() {
        text.push_str("    actions: []\n");
        return Ok(text);
    }
    text.push_str("    actions:\n");
    for (index, action) in actions.iter().enumerate() {
        for (at, (field, value)) in action.iter().enumerate() {
            text.push_str(if at == 0 { "      - " } else { "        " });
            yaml::field(&mut text, field, value, 8)
                .map_err(|problem| Unwritable::new(format!("spec.actions[{index}].with.{field}"), problem))?;
        }
    }
    Ok(text)
}

/// An action there: its fields in the order in which people write them.
type Fields = Vec<(String, Value)>;

/// Every action as one of theirs, and what cannot be.
fn actions(ours: &Value) -> (Vec<Fields>, Vec<Unwritable>) {
    let (mut all, mut problems, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    let given = ours.get("actions").and_then(Value::as_array);
    for (index, action) in given.into_iter().flatten().enumerate() {
        let path = format!("spec.actions[{index}]");
        let text = |field: &str| action.get(field).and_then(Value::as_str).unwrap_or_default();
        let (name, kind) = (text("name"), text("action"));
        if name.is_empty() || name.len() > LONGEST_NAME {
            let problem = format!("Tinkerbell wants a name of 1 to {LONGEST_NAME} bytes");
            problems.push(Unwritable::new(format!("{path}.name"), problem));
        }
        if !names.insert(name) {
            problems.push(Unwritable::new(format!("{path}.name"), format!("`{name}` stands here twice")));
        }
        let none = Map::new();
        let with = action.get("with").and_then(Value::as_object).unwrap_or(&none);
        let made = if with.contains_key("image") || kind.contains(['/', ':']) {
            theirs(&path, kind, with)
        } else {
            native::convert(&path, kind, with)
        };
        match made {
            Ok(made) => {
                let seconds = action.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(ACTION_SECONDS);
                let image = made.get("image").cloned().unwrap_or_default();
                let mut fields: Fields = [("name", json!(name)), ("image", image), ("timeout", json!(seconds))]
                    .map(|(field, value)| (field.to_owned(), value))
                    .into();
                fields.extend(made.into_iter().filter(|(field, _)| field != "image"));
                all.push(fields);
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    (all, problems)
}

/// One of theirs, as it stands.
fn theirs(path: &str, kind: &str, with: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Unwritable>> {
    let mut made = with.clone();
    made.entry("image").or_insert_with(|| json!(kind));
    let mut problems = Vec::new();
    if made.get("image").and_then(Value::as_str).is_none_or(str::is_empty) {
        problems.push(Unwritable::new(format!("{path}.with.image"), "an action is a container image: name it"));
    }
    for field in with.keys().filter(|field| !FIELDS.contains(&field.as_str()) || *field == "timeout") {
        let meant = did_you_mean(field, FIELDS).unwrap_or_else(|| format!("there are: {}", FIELDS.join(", ")));
        let meant = if field == "timeout" { "write timeoutSeconds beside `with`".to_owned() } else { meant };
        let problem = format!("Tinkerbell's actions have no such field; {meant}");
        problems.push(Unwritable::new(format!("{path}.with.{field}"), problem));
    }
    if let Some(environment) = made.get_mut("environment") {
        match environment.as_object_mut() {
            Some(variables) => {
                for (name, value) in variables {
                    match value {
                        Value::String(_) => {}
                        Value::Bool(_) | Value::Number(_) => *value = json!(value.to_string()),
                        _ => problems.push(Unwritable::new(format!("{path}.with.environment.{name}"), "is not a text")),
                    }
                }
            }
            None => problems.push(Unwritable::new(format!("{path}.with.environment"), "is no map of texts")),
        }
    }
    if problems.is_empty() { Ok(made) } else { Err(problems) }
}
