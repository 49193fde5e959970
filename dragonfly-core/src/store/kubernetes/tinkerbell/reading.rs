//! A Template's text as steps, without filling it: what a person is shown of it.
//!
//! Of `if`, `with` and `range` the first branch is taken; what else stands in `{{ }}` stays in the texts as it is
//! written. So what is shown is right where a text has no branches, and its outline where it has.

use serde_json::{Map, Value, json};

use crate::resource::manifest::located;

/// What stands in a text for the n-th expression: U+F8F2, its number, U+F8F3.
const HOLE: (char, char) = ('\u{f8f2}', '\u{f8f3}');

/// A text as steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outline {
    /// Its name.
    pub(super) name: String,
    pub(super) timeout: Option<u64>,
    /// As a Template of ours has them.
    pub(super) actions: Vec<Value>,
    /// Of its task, where it is the only one: what is about all actions, as it stands there.
    pub(super) task: Map<String, Value>,
    /// What is not shown, in words.
    pub(super) not_shown: Option<String>,
}

/// `image2disk` of `quay.io/tinkerbell/actions/image2disk:latest@sha256:...`.
pub(super) fn last_part(image: &str) -> &str {
    let bare = image.split('@').next().unwrap_or_default();
    let last = bare.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// Reads a text.
pub(super) fn outline(data: &str) -> Outline {
    let flat = flatten(data);
    let unread = |why: &str| Outline {
        not_shown: Some(format!("its text cannot be read as steps: {why}")),
        ..Outline::default()
    };
    let documents = match located::raw_documents(&flat.text) {
        Ok(documents) => documents,
        Err(error) => return unread(&flat.restored(&error.to_string())),
    };
    let mut documents = documents.into_iter().map(|(value, _)| value).filter(|value| !value.is_null());
    let (Some(Value::Object(mut whole)), None) = (documents.next(), documents.next()) else {
        return unread("it is not one map of fields");
    };
    restore(&flat, &mut whole);
    let mut out = Outline {
        name: take_text(&mut whole, "name"),
        timeout: take_text(&mut whole, "global_timeout").parse().ok().filter(|seconds| *seconds > 0),
        ..Outline::default()
    };
    let tasks = match whole.remove("tasks") {
        Some(Value::Array(tasks)) => tasks,
        _ => Vec::new(),
    };
    let several = tasks.len() > 1;
    for task in tasks {
        let Value::Object(mut task) = task else { continue };
        let actions = match task.remove("actions") {
            Some(Value::Array(actions)) => actions,
            _ => Vec::new(),
        };
        out.actions.extend(actions.into_iter().filter_map(action));
        out.task = task;
    }
    out.not_shown = match (flat.branches, several) {
        (true, _) => Some("its text has branches, of which the first is shown; change it with kubectl".to_owned()),
        (_, true) => Some("its text has several tasks, shown as one; change it with kubectl".to_owned()),
        _ => None,
    };
    out
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> String {
    match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// An action in the shape of ours: what is Tinkerbell's of it stands in `with`.
fn action(action: Value) -> Option<Value> {
    let Value::Object(mut fields) = action else { return None };
    let (name, timeout) = (take_text(&mut fields, "name"), take_text(&mut fields, "timeout"));
    let image = fields.get("image").and_then(Value::as_str).unwrap_or_default();
    let kind = last_part(image).to_owned();
    let mut shown = json!({ "name": name, "action": kind });
    if let Ok(seconds) = timeout.parse::<u64>()
        && seconds > 0
    {
        shown["timeoutSeconds"] = json!(seconds);
    }
    fields.retain(|_, value| !value.is_null());
    fields.entry("image").or_insert_with(|| json!(""));
    shown["with"] = fields.into();
    Some(shown)
}

/// A text without its template language.
struct Flat {
    text: String,
    expressions: Vec<String>,
    branches: bool,
}

impl Flat {
    /// A text with its expressions as they were.
    fn restored(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(HOLE.0) {
            out.push_str(before);
            let Some((number, after)) = after.split_once(HOLE.1) else { break };
            let written = number.parse::<usize>().ok().and_then(|number| self.expressions.get(number));
            out.push_str(written.map_or("", String::as_str));
            rest = after;
        }
        out + rest
    }
}

fn restore(flat: &Flat, fields: &mut Map<String, Value>) {
    fn walk(flat: &Flat, value: &mut Value) {
        match value {
            Value::String(text) if text.contains(HOLE.0) => *text = flat.restored(text),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(flat, item)),
            Value::Object(fields) => restore(flat, fields),
            _ => {}
        }
    }
    let all = std::mem::take(fields);
    for (key, mut value) in all {
        walk(flat, &mut value);
        let key = if key.contains(HOLE.0) { flat.restored(&key) } else { key };
        fields.insert(key, value);
    }
}

/// Takes the first branch of everything.
fn flatten(data: &str) -> Flat {
    let mut flat = Flat { text: String::with_capacity(data.len()), expressions: Vec::new(), branches: false };
    // Of each construct that is open, whether its text is taken.
    let mut open: Vec<bool> = Vec::new();
    let mut rest = data;
    loop {
        let is_taken = open.iter().all(|taken| *taken);
        let Some((before, after)) = rest.split_once("{{") else {
            if is_taken {
                flat.text.push_str(rest);
            }
            return flat;
        };
        let length = end_of(after);
        let (inside, following) = (after.get(..length).unwrap_or(after), after.get(length..).unwrap_or_default());
        let following = following.strip_prefix("}}").unwrap_or(following);
        let trims_before =
            inside.starts_with('-') && inside.get(1..).is_some_and(|rest| rest.starts_with(char::is_whitespace));
        let trims_after = inside.ends_with('-') && inside.trim_end_matches('-').ends_with(char::is_whitespace);
        if is_taken {
            flat.text.push_str(if trims_before { before.trim_end() } else { before });
        }
        rest = if trims_after { following.trim_start() } else { following };
        let mut plain = inside;
        if trims_before {
            plain = plain.strip_prefix('-').unwrap_or(plain);
        }
        if trims_after {
            plain = plain.strip_suffix('-').unwrap_or(plain);
        }
        let plain = plain.trim();
        let word = plain.split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
        match word {
            "if" | "with" | "range" | "block" => open.push(true),
            "define" => open.push(false),
            "else" => {
                if let Some(taken) = open.last_mut() {
                    *taken = false;
                }
            }
            "end" => {
                open.pop();
            }
            "template" | "break" | "continue" => {}
            _ if plain.starts_with("/*") => continue,
            _ if is_assignment(plain) => {}
            _ => {
                if is_taken {
                    flat.text.push_str(&format!("{}{}{}", HOLE.0, flat.expressions.len(), HOLE.1));
                    flat.expressions.push(format!("{{{{{inside}}}}}"));
                }
                continue;
            }
        }
        flat.branches = true;
    }
}

/// `$a := ...` prints nothing.
fn is_assignment(plain: &str) -> bool {
    plain.starts_with('$') && plain.split_once('=').is_some_and(|(name, _)| !name.contains(['"', '`', '|', '(']))
}

/// Where `}}` stands, outside of quotes and comments.
fn end_of(text: &str) -> usize {
    let comment = text.trim_start_matches('-').trim_start().starts_with("/*");
    if comment {
        let end = text.find("*/").map_or(0, |end| end + 2);
        return end + text.get(end..).and_then(|rest| rest.find("}}")).unwrap_or(text.len() - end);
    }
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if c == '}' && text.get(index..).is_some_and(|rest| rest.starts_with("}}")) => return index,
            None => {}
        }
    }
    text.len()
}
