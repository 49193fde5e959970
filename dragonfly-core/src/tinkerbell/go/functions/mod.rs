//! The functions of templates: Go's own, those of sprig that manifests use, and Tinkerbell's.

mod compare;
mod convert;
mod format;
mod lists;
mod maps;
mod numbers;
mod pattern;
mod texts;
mod tinkerbell;

use std::sync::Arc;

use super::value::{Value, late};
use super::{MAX_STEPS, MAX_TEXT};

pub(in crate::tinkerbell::go) use format::shown;
pub(in crate::tinkerbell) use format::{LATE_BEGINS, LATE_ENDS};
pub(in crate::tinkerbell) use tinkerbell::prefix_length;

/// What a function does: the values it is given, the value it makes.
pub(super) type Function = fn(&mut Budget, &[Value]) -> Made;
type Made = Result<Value, String>;
type Group = &'static [(&'static str, Function)];

const GROUPS: [Group; 8] =
    [compare::ALL, format::ALL, texts::ALL, lists::ALL, maps::ALL, numbers::ALL, convert::ALL, tinkerbell::ALL];

/// A function by name.
pub(super) fn find(name: &str) -> Option<Function> {
    let all = GROUPS.iter().copied().chain([pattern::ALL]).flatten();
    all.into_iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// Every name there is.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().copied().chain([pattern::ALL]).flatten().map(|(name, _)| *name).chain(["and", "or"])
}

/// What a template may still do.
#[derive(Debug)]
pub(in crate::tinkerbell::go) struct Budget(usize);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_STEPS)
    }

    /// Takes so many steps.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), String> {
        self.0 = self.0.checked_sub(steps).ok_or_else(|| format!("the template takes more than {MAX_STEPS} steps"))?;
        Ok(())
    }

    /// A text of bearable length.
    fn text(&mut self, text: impl Into<Arc<str>>) -> Made {
        let text = text.into();
        if text.len() > MAX_TEXT {
            return Err(format!("makes a text longer than {MAX_TEXT} bytes"));
        }
        self.spend(text.len() / 1024)?;
        Ok(Value::Text(text))
    }

    /// A list of bearable length.
    fn list(&mut self, items: Vec<Value>) -> Made {
        self.spend(items.len() / 8)?;
        Value::list(items)
    }

    fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Made {
        let mut items = Vec::new();
        for text in texts {
            self.spend(1)?;
            items.push(self.text(text)?);
        }
        self.list(items)
    }
}

/// So many values, no more and no fewer.
fn exactly<const N: usize>(values: &[Value]) -> Result<&[Value; N], String> {
    values.try_into().map_err(|_| format!("takes {N}, and is given {}", values.len()))
}

/// At least one value: the first and the rest.
fn some(values: &[Value]) -> Result<(&Value, &[Value]), String> {
    values.split_first().ok_or_else(|| "is given nothing".to_owned())
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Nil => Err("a text is needed, and the manifest leaves it out".to_owned()),
        other => Err(format!("a text is needed, and {} is given", other.kind())),
    }
}

fn items(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(list) => Ok(&list.items),
        Value::Nil => Ok(&[]),
        other => Err(format!("a list is needed, and {} is given", other.kind())),
    }
}

/// A whole number; a text of one is taken, as sprig does.
fn whole(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(n) => Ok(*n),
        #[expect(clippy::cast_possible_truncation, reason = "what Go's conversion does, within range")]
        Value::Float(n) if n.abs() < 9e15 => Ok(*n as i64),
        Value::Text(text) => text.trim().parse().map_err(|_| format!("`{text}` is not a whole number")),
        Value::Bool(b) => Ok(i64::from(*b)),
        Value::Nil => Ok(0),
        other => Err(format!("a number is needed, and {} is given", other.kind())),
    }
}

/// A number of things: from 0 to what a list may hold.
fn count(value: &Value) -> Result<usize, String> {
    let n = whole(value)?;
    usize::try_from(n).ok().filter(|n| *n <= MAX_TEXT).ok_or_else(|| format!("{n} is out of range"))
}

fn known(value: &Value) -> Result<(), String> {
    match value {
        Value::Late(name) => Err(late(name)),
        _ => Ok(()),
    }
}
