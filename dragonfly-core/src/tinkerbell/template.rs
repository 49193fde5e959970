//! A Template that was filled becomes steps of ours.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::actions::{self, Said, Step};
use super::escape::with_values;
use super::{Options, Outcome};
use crate::resource::manifest::located;
use crate::resource::template::{TemplateAction, TemplateSpec};

/// The longest name of a step.
const LONGEST_NAME: usize = 100;

/// A filled Template as ours.
#[derive(Debug)]
pub(super) struct Converted {
    /// `None`: something in it is refused.
    pub(super) spec: Option<TemplateSpec>,
    /// The worker that its tasks name.
    pub(super) worker: String,
    pub(super) said: Vec<Said>,
}

/// Reads what a template became. `storage` is the machine's, for `rootio`.
pub(super) fn convert(filled: &str, options: &Options, storage: Option<&Value>) -> Converted {
    let mut reader = Reader { options, storage, said: Vec::new(), names: BTreeSet::new() };
    let mut spec = TemplateSpec::default();
    let mut worker = String::new();
    match located::raw_documents(filled) {
        Ok(documents) => {
            let mut documents = documents.into_iter().map(|(value, _)| value).filter(|value| !value.is_null());
            match (documents.next(), documents.next()) {
                (Some(Value::Object(fields)), None) => worker = reader.whole(fields, &mut spec),
                (None, _) => reader.refuse("", "becomes nothing"),
                _ => reader.refuse("", "becomes several documents, or no map of fields"),
            }
        }
        Err(error) => {
            for problem in error.problems {
                reader.refuse("", format!("what it becomes cannot be read: {problem}"));
            }
        }
    }
    let refused = reader.said.iter().any(|said| said.outcome == Outcome::Refused);
    Converted { spec: (!refused).then_some(spec), worker, said: reader.said }
}

struct Reader<'a> {
    options: &'a Options,
    storage: Option<&'a Value>,
    said: Vec<Said>,
    names: BTreeSet<String>,
}

impl Reader<'_> {
    fn say(&mut self, path: impl Into<String>, outcome: Outcome, said: impl Into<String>) {
        self.said.push(Said { path: path.into(), outcome, said: said.into() });
    }

    fn refuse(&mut self, path: impl Into<String>, said: impl Into<String>) {
        self.say(path, Outcome::Refused, said);
    }

    fn seconds(&mut self, path: &str, value: Option<Value>) -> Option<u64> {
        let text = text(&value?)?;
        match text.parse::<u64>() {
            Ok(0) => None,
            Ok(seconds) => Some(seconds),
            Err(_) => {
                self.refuse(path, format!("`{text}` is not a number of seconds"));
                None
            }
        }
    }

    /// The worker.
    fn whole(&mut self, mut fields: Map<String, Value>, spec: &mut TemplateSpec) -> String {
        if let Some(version) = fields.remove("version").as_ref().and_then(text)
            && version != "0.1"
        {
            self.refuse("version", format!("version {version} is not known; there is 0.1"));
        }
        spec.description = fields.remove("name").as_ref().and_then(text).unwrap_or_default();
        fields.remove("id");
        spec.timeout_seconds = self.seconds("global_timeout", fields.remove("global_timeout"));
        let tasks = match fields.remove("tasks") {
            Some(Value::Array(tasks)) if !tasks.is_empty() => tasks,
            _ => {
                self.refuse("tasks", "there is no task");
                Vec::new()
            }
        };
        self.unknown("", &fields);
        let mut workers = BTreeSet::new();
        let several = tasks.len() > 1;
        for (index, task) in tasks.into_iter().enumerate() {
            let path = format!("tasks[{index}]");
            match task {
                Value::Object(task) => workers.extend(self.task(&path, task, several, spec)),
                _ => self.refuse(path, "is not a task"),
            }
        }
        if workers.len() > 1 {
            self.refuse("tasks", "name several workers; a Template here is for one machine: make one for each worker");
        }
        if spec.actions.is_empty() {
            self.refuse("tasks", "there is no action");
        }
        if let Some((index, left)) = spec.actions.iter().enumerate().find(|(_, action)| leaves(action))
            && index + 1 < spec.actions.len()
        {
            let said = format!("`{}` leaves the machine, and other actions follow it", left.name);
            self.refuse("tasks", said);
        }
        workers.into_iter().next().unwrap_or_default()
    }

    /// The worker.
    fn task(
        &mut self,
        path: &str,
        mut task: Map<String, Value>,
        several: bool,
        spec: &mut TemplateSpec,
    ) -> Option<String> {
        let worker = task.remove("worker").as_ref().and_then(text).filter(|worker| !worker.trim().is_empty());
        if worker.is_none() {
            self.refuse(format!("{path}.worker"), "is empty");
        }
        let name = task.remove("name").as_ref().and_then(text).unwrap_or_default();
        self.container(path, &mut task);
        let environment = self.environment(path, task.remove("environment"));
        let actions = match task.remove("actions") {
            Some(Value::Array(actions)) => actions,
            _ => Vec::new(),
        };
        self.unknown(path, &task);
        for (index, action) in actions.into_iter().enumerate() {
            let path = format!("{path}.actions[{index}]");
            match action {
                Value::Object(action) => {
                    let prefix = if several { name.as_str() } else { "" };
                    self.action(&path, action, prefix, &environment, spec);
                }
                _ => self.refuse(path, "is not an action"),
            }
        }
        worker
    }

    fn action(
        &mut self,
        path: &str,
        mut action: Map<String, Value>,
        task: &str,
        beneath: &BTreeMap<String, (String, String)>,
        spec: &mut TemplateSpec,
    ) {
        let name = action.remove("name").as_ref().and_then(text).unwrap_or_default();
        let image = action.remove("image").as_ref().and_then(text).unwrap_or_default();
        let timeout = self.seconds(&format!("{path}.timeout"), action.remove("timeout"));
        let command = match action.remove("command") {
            Some(Value::Array(words)) => words.iter().filter_map(text).collect(),
            Some(other) => text(&other).into_iter().collect(),
            None => Vec::new(),
        };
        for handler in ["on-timeout", "on-failure"] {
            if action.remove(handler).is_some_and(|value| !is_nothing(&value)) {
                let said = "is not run: what failed is told, and tried again from the right place";
                self.say(format!("{path}.{handler}"), Outcome::Lost, said);
            }
        }
        self.container(path, &mut action);
        let mut environment = beneath.clone();
        environment.extend(self.environment(path, action.remove("environment")));
        self.unknown(path, &action);
        let step = Step {
            path: path.to_owned(),
            image,
            command,
            environment,
            timeout,
            options: self.options,
            storage: self.storage,
            said: &mut self.said,
        };
        let made = actions::convert(step);
        let count = made.len();
        for (index, one) in made.into_iter().enumerate() {
            let name = if name.trim().is_empty() { one.action.to_owned() } else { name.clone() };
            let name = self.name(path, &name, task, (count > 1).then_some(index + 1));
            let with = with_values(one.with);
            spec.actions.push(TemplateAction { name, action: one.action.to_owned(), with, timeout_seconds: timeout });
        }
    }

    /// A name that no step had before.
    fn name(&mut self, path: &str, name: &str, task: &str, number: Option<usize>) -> String {
        let plain: String = name.chars().filter(|c| !c.is_control()).collect();
        let mut wanted = number.map_or_else(|| plain.clone(), |number| format!("{plain} {number}"));
        if self.names.contains(&wanted) && !task.is_empty() {
            wanted = format!("{task}: {wanted}");
        }
        let mut short: String = wanted.chars().take(LONGEST_NAME / 2).collect();
        if wanted.len() <= LONGEST_NAME {
            short.clone_from(&wanted);
        }
        let mut free = short.clone();
        for count in 2.. {
            if self.names.insert(free.clone()) {
                break;
            }
            free = format!("{short} {count}");
        }
        if number.is_none() && free != name {
            self.say(format!("{path}.name"), Outcome::Changed, format!("the step is called `{free}`"));
        }
        free
    }

    fn environment(&mut self, path: &str, value: Option<Value>) -> BTreeMap<String, (String, String)> {
        let mut all = BTreeMap::new();
        match value {
            Some(Value::Object(fields)) => {
                for (key, value) in fields {
                    let path = format!("{path}.environment.{key}");
                    if value.is_null() {
                        all.insert(key, (String::new(), path));
                    } else if let Some(text) = text(&value) {
                        all.insert(key, (text, path));
                    } else {
                        self.refuse(path, "is not a text");
                    }
                }
            }
            Some(other) if !is_nothing(&other) => self.refuse(format!("{path}.environment"), "is no map of texts"),
            _ => {}
        }
        all
    }

    /// What is about containers.
    fn container(&mut self, path: &str, fields: &mut Map<String, Value>) {
        for field in ["volumes", "pid", "namespaces"] {
            if fields.remove(field).is_some_and(|value| !is_nothing(&value)) {
                let said = "actions run on the machine itself, in no container";
                self.say(format!("{path}.{field}"), Outcome::NotNeeded, said);
            }
        }
    }

    fn unknown(&mut self, path: &str, fields: &Map<String, Value>) {
        for (field, _) in fields.iter().filter(|(_, value)| !is_nothing(value)) {
            let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            self.say(path, Outcome::Lost, "Tinkerbell's templates have no such field");
        }
    }
}

fn leaves(action: &TemplateAction) -> bool {
    matches!(action.action.as_str(), actions::KEXEC | actions::REBOOT | actions::POWEROFF)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Every scalar is a text here.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}
