//! What is wrong with a template's texts whatever the machine: said when it is applied, not when it runs.
//!
//! Nothing that a fact, a value or a Secret may still bring is judged. A name that cannot exist is let pass where the
//! text asks whether it does (`is defined`, `default`).

mod scan;

use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use self::scan::Used;
use super::render::{MachineFacts, each_text, is_filled_in, words};
use crate::action::Problem;
use crate::fields::{self, Step};
use crate::inventory::Inventory;
use crate::near::did_you_mean;
use crate::resource::{Hardware, HardwareSpec, TemplateSpec};

/// What a text may begin a name with.
const ROOTS: [&str; 5] = ["machine", "inventory", "values", "server", "phoneHome"];
/// What loops offer to be called; nothing else has anything.
const METHODS: [&str; 2] = ["cycle", "changed"];
/// Filters that somebody may have meant. Whether one is there is asked of the template engine.
const FILTERS: [&str; 20] = [
    "abs", "default", "first", "float", "indent", "int", "items", "join", "last", "length", "list", "lower", "replace",
    "round", "sort", "split", "title", "tojson", "trim", "upper",
];

/// The fields that a machine is known to have, as texts name them.
static MACHINE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let none = Hardware::new("", HardwareSpec::default());
    let fields = serde_json::to_value(MachineFacts::of(&none)).unwrap_or_default();
    let mut fields: Vec<String> = fields.as_object().into_iter().flat_map(serde_json::Map::keys).cloned().collect();
    fields.sort_unstable();
    fields
});

/// Everything in a template's texts that no machine can fill.
pub(super) fn problems(template: &TemplateSpec) -> Vec<Problem> {
    let env = environment();
    let mut problems = Vec::new();
    each_text(&mut template.clone(), &mut |path, _, text| {
        if is_filled_in(text) {
            let found = unfillable(&env, text).into_iter();
            problems.extend(found.map(|problem| Problem { path: path.to_owned(), problem }));
        }
    });
    problems
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env
}

/// What is wrong with one text.
fn unfillable(env: &Environment<'_>, text: &str) -> Vec<String> {
    let template = match env.template_from_str(text) {
        Ok(template) => template,
        Err(error) => return vec![unreadable(text, &error)],
    };
    let used = scan::used(text);
    let mut problems = Vec::new();
    for name in &used.filters {
        if is_unknown(env, &format!("1|{name}"), ErrorKind::UnknownFilter) {
            problems.push(format!("`{{{{ }}}}`: there is no filter `{name}`{}", meant(name, FILTERS)));
        }
    }
    for name in &used.tests {
        if is_unknown(env, &format!("1 is {name}"), ErrorKind::UnknownTest) {
            problems
                .push(format!("`{{{{ }}}}`: there is no test `is {name}`; `is defined` asks whether a name is there"));
        }
    }
    for name in used.methods.iter().filter(|name| !METHODS.contains(&name.as_str())) {
        let instead = match env.compile_expression(&format!("''|{name}")).map(|e| e.eval(())) {
            Ok(Err(error)) if error.kind() == ErrorKind::UnknownFilter => String::new(),
            _ => format!("; write the filter `| {name}`"),
        };
        problems.push(format!("`{{{{ }}}}`: nothing here has a method `{name}()`{instead}"));
    }
    let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    names.sort_unstable();
    problems.extend(names.iter().filter_map(|name| never(env, &used, name)));
    problems
}

/// Why a name can never be known.
fn never(env: &Environment<'_>, used: &Used, name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let root = parts.next().unwrap_or_default();
    let is_asked =
        |asked: &String| name.strip_prefix(asked.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    if used.asks || used.asked.iter().any(is_asked) || used.assigned.contains(root) || is_global(env, root) {
        return None;
    }
    let (known, word, before): (Vec<&str>, &str, String) = match root {
        "machine" => (MACHINE.iter().map(String::as_str).collect(), parts.next()?, "machine.".to_owned()),
        "inventory" => {
            let mut place = Vec::new();
            let (fields, word) = parts.find_map(|part| {
                let fields = fields::of::<Inventory>(&place);
                place.push(Step::Key(part.to_owned()));
                // Without fields it is a list, a word, or of a shape of its own.
                (fields.is_empty() || !fields.contains(&part)).then_some((fields, part))
            })?;
            if fields.is_empty() {
                return None;
            }
            let before: Vec<&str> = name.split('.').take(place.len()).collect();
            (fields.to_vec(), word, format!("{}.", before.join(".")))
        }
        "values" | "server" | "phoneHome" => return None,
        _ => (ROOTS.to_vec(), root, String::new()),
    };
    if known.contains(&word) {
        return None;
    }
    let all =
        || format!("; there are: {}", known.iter().map(|k| format!("{before}{k}")).collect::<Vec<_>>().join(", "));
    let question = did_you_mean(word, known.iter().copied()).map(|question| format!("; {question}"));
    Some(format!("`{before}{word}` is known of no machine{}", question.unwrap_or_else(all)))
}

/// Whether the template engine itself has something of this name.
fn is_global(env: &Environment<'_>, name: &str) -> bool {
    let found = env.compile_expression(name).and_then(|found| found.eval(()));
    found.is_ok_and(|found| !found.is_undefined())
}

fn is_unknown(env: &Environment<'_>, expression: &str, unknown: ErrorKind) -> bool {
    let found = env.compile_expression(expression).map(|found| found.eval(()));
    matches!(found, Ok(Err(error)) if error.kind() == unknown)
}

fn meant<const N: usize>(word: &str, names: [&str; N]) -> String {
    did_you_mean(word, names).map(|question| format!("; {question}")).unwrap_or_default()
}

/// The template engine's words, with the line where the text has several.
fn unreadable(text: &str, error: &minijinja::Error) -> String {
    let line = match error.line() {
        Some(line) if text.trim_end().contains('\n') => format!(" in line {line} of this text"),
        _ => String::new(),
    };
    format!(
        "`{{{{ }}}}` cannot be read{line}: {}; text that is to stay as it is goes between {{% raw %}} and {{% endraw %}}",
        words(error)
    )
}

#[cfg(test)]
mod tests;
