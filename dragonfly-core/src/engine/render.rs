//! Fills `{{ ... }}` in a template's strings, after the YAML has been read and only inside values:
//! what a machine says of itself can never become structure.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use crate::action::Problem;
use crate::inventory::Inventory;
use crate::near::{did_you_mean, nearest, question};
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
    let pen = Pen::new(facts);
    let mut problems = Vec::new();
    let mut rendered = template.clone();
    each_text(&mut rendered, &mut |path, _, text| match pen.fill(text) {
        Ok(filled) => *text = filled,
        Err(unfilled) => problems.push(Problem { path: path.to_owned(), problem: unfilled.to_string() }),
    });
    if problems.is_empty() { Ok(rendered) } else { Err(problems) }
}

/// Calls `what` with every string of a template's parameters: its path, the name of its field, itself.
pub(super) fn each_text(template: &mut TemplateSpec, what: &mut impl FnMut(&str, &str, &mut String)) {
    fn walk(value: &mut Value, path: &str, field: &str, what: &mut impl FnMut(&str, &str, &mut String)) {
        match value {
            Value::String(text) => what(path, field, text),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(item, &format!("{path}[{index}]"), field, what);
                }
            }
            Value::Object(fields) => {
                for (key, item) in fields.iter_mut() {
                    walk(item, &format!("{path}.{key}"), key, what);
                }
            }
            _ => {}
        }
    }
    for (index, action) in template.actions.iter_mut().enumerate() {
        walk(&mut action.with, &format!("actions[{index}].with"), "", what);
    }
}

/// Why a string could not be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfilled {
    /// It uses a value that nobody has set.
    #[error(
        "`values.{name}` is not set; give it with --value {name}=..., or set it under `values` of the template{near}"
    )]
    Unset {
        /// Which.
        name: String,
        /// One of nearly the same name that is set.
        near: String,
    },
    /// It uses something that is not there.
    #[error("`{name}` is not known of this machine{near}")]
    Unknown {
        /// What.
        name: String,
        /// What was perhaps meant.
        near: String,
    },
    /// It becomes too long.
    #[error("this becomes {0} bytes; at most {MAX_OUTPUT} are taken")]
    TooLong(usize),
    /// The template engine's words.
    #[error("`{{{{ }}}}` cannot be filled: {0}")]
    Failed(String),
}

/// Fills strings with the facts of one machine.
pub(super) struct Pen {
    env: Environment<'static>,
    context: minijinja::Value,
    values: Arc<Values>,
}

impl Pen {
    /// With these facts and no others.
    pub(super) fn new(facts: &Facts<'_>) -> Self {
        Self::with(facts, minijinja::Value::from(minijinja::value::Serde(facts.inventory)))
    }

    /// For a machine that no agent has seen: its inventory may turn out to hold anything.
    pub(super) fn unseen(facts: &Facts<'_>) -> Self {
        Self::with(facts, minijinja::Value::from_object(Anything))
    }

    fn with(facts: &Facts<'_>, inventory: minijinja::Value) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        let values = Arc::new(Values { known: facts.values.clone(), missed: Mutex::default() });
        let seen = minijinja::Value::from(minijinja::value::Serde(facts));
        let context = minijinja::context! {
            values => minijinja::Value::from_dyn_object(Arc::clone(&values)),
            inventory,
            ..seen
        };
        Self { env, context, values }
    }

    /// The text with everything filled in.
    pub(super) fn fill(&self, text: &str) -> Result<String, Unfilled> {
        if !is_filled_in(text) {
            return Ok(text.to_owned());
        }
        self.values.forget();
        match self.env.render_str(text, &self.context) {
            Ok(filled) if filled.len() <= MAX_OUTPUT => Ok(filled),
            Ok(filled) => Err(Unfilled::TooLong(filled.len())),
            Err(error) if error.kind() == ErrorKind::UndefinedError => Err(self.undefined(text, &error)),
            Err(error) => Err(Unfilled::Failed(words(&error))),
        }
    }

    /// Names what a text uses and nobody knows.
    fn undefined(&self, text: &str, error: &minijinja::Error) -> Unfilled {
        let after_semicolon = |question: Option<String>| question.map(|q| format!("; {q}")).unwrap_or_default();
        if let Some(name) = self.values.missed() {
            let near = after_semicolon(did_you_mean(&name, self.values.known.keys().map(String::as_str)));
            return Unfilled::Unset { name, near };
        }
        let mut names: Vec<String> = references(text).into_iter().collect();
        names.sort_unstable();
        let unknown = names.into_iter().find(|name| {
            let found = name.split('.').try_fold(self.context.clone(), |at, part| at.get_attr(part).ok());
            found.is_none_or(|found| found.is_undefined())
        });
        let Some(name) = unknown else { return Unfilled::Failed(words(error)) };
        // Compared by the last part alone: what stands before it is there.
        let (before, last) = name.rsplit_once('.').map_or(("", name.as_str()), |(before, last)| (before, last));
        let parts = before.split('.').filter(|part| !part.is_empty());
        let holder = parts.clone().try_fold(self.context.clone(), |at, part| at.get_attr(part).ok());
        let keys: Vec<_> = holder.and_then(|holder| holder.try_iter().ok()).into_iter().flatten().collect();
        let near = nearest(last, keys.iter().filter_map(|key| key.as_str())).into_iter();
        let near = near.map(|key| parts.clone().chain([key]).collect::<Vec<_>>().join("."));
        let near = after_semicolon(question(near));
        Unfilled::Unknown { name, near }
    }
}

/// Whether anything is to be filled into a text.
pub(super) fn is_filled_in(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// Whether the template engine can read a text.
pub(super) fn is_readable(text: &str) -> bool {
    Environment::new().template_from_str(text).is_ok()
}

/// What a text refers to: `values.role`, `machine.name`; a bare `values` when it is not known which.
pub(super) fn references(text: &str) -> HashSet<String> {
    let env = Environment::new();
    env.template_from_str(text).map(|template| template.undeclared_variables(true)).unwrap_or_default()
}

/// The template's values, with the last one that was asked for and is not there.
#[derive(Debug)]
struct Values {
    known: BTreeMap<String, String>,
    missed: Mutex<Option<String>>,
}

impl Values {
    fn forget(&self) {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn missed(&self) -> Option<String> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Object for Values {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let name = key.as_str()?;
        let found = self.known.get(name).map(minijinja::Value::from);
        let missed = found.is_none().then(|| name.to_owned());
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = missed;
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.known.keys().map(minijinja::Value::from).collect())
    }
}

/// Has every field, each of the same kind.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn get_value(self: &Arc<Self>, _: &minijinja::Value) -> Option<minijinja::Value> {
        Some(minijinja::Value::from_object(Self))
    }
}

/// The template engine's words without its own position, which counts inside one string.
pub(super) fn words(error: &minijinja::Error) -> String {
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
        let said = |text: &str| run(json!({ "c": text })).unwrap_err().remove(0).problem;
        assert_eq!(
            said("{{ values.missing }}"),
            "`values.missing` is not set; give it with --value missing=..., or set it under `values` of the template"
        );
        assert!(said("{{ values.rloe }}").ends_with("; did you mean `role`?"), "{}", said("{{ values.rloe }}"));
        assert!(said("{{ values['my-key'] }}").contains("`values.my-key` is not set"));
        let said_of_machine = said("{{ machine.nmae }}");
        assert_eq!(said_of_machine, "`machine.nmae` is not known of this machine; did you mean `machine.name`?");
        assert!(said("{{ machnie.name }}").contains("`machnie.name` is not known"));
        assert!(said("{{ serverr }}").contains("did you mean `server`?"), "{}", said("{{ serverr }}"));
        assert!(said("{{ inventory.system.vendor }}").contains("`inventory.system.vendor` is not known"));
    }

    #[test]
    fn a_value_may_have_a_default_in_the_text() {
        let filled = run(json!({ "c": "{{ values.missing | default('none') }} {{ values.role }}" })).unwrap();
        assert_eq!(filled["c"], "none db");
        assert_eq!(run(json!({ "c": "{% for v in values %}{{ v }}{% endfor %}" })).unwrap()["c"], "role");
        assert_eq!(run(json!({ "c": "{% if values.x is defined %}a{% else %}b{% endif %}" })).unwrap()["c"], "b");
    }

    #[test]
    fn a_loop_ends() {
        assert!(
            run(json!({ "c": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}" }))
                .is_err()
        );
    }
}
