//! Regular expressions: the syntax of RE2, as in Go.

use regex::{NoExpand, Regex, RegexBuilder};

use super::super::MAX_TEXT;
use super::super::value::Value;
use super::{Budget, Group, Made, exactly, text, whole};

pub(super) const ALL: Group = &[
    ("regexMatch", |b, v| {
        let [pattern, all] = exactly(v)?;
        Ok(Value::Bool(compiled(b, pattern, all)?.is_match(text(all)?)))
    }),
    ("regexFind", |b, v| {
        let [pattern, all] = exactly(v)?;
        let found = compiled(b, pattern, all)?.find(text(all)?).map_or("", |found| found.as_str()).to_owned();
        b.text(found)
    }),
    ("regexFindAll", |b, v| {
        let [pattern, all, most] = exactly(v)?;
        let most = usize::try_from(whole(most)?).unwrap_or(usize::MAX);
        let pattern = compiled(b, pattern, all)?;
        b.texts(pattern.find_iter(text(all)?).take(most).map(|found| found.as_str()))
    }),
    ("regexSplit", |b, v| {
        let [pattern, all, most] = exactly(v)?;
        let most = usize::try_from(whole(most)?).unwrap_or(usize::MAX);
        let pattern = compiled(b, pattern, all)?;
        b.texts(pattern.splitn(text(all)?, most))
    }),
    // Go writes `${1}`; so does this.
    ("regexReplaceAll", |b, v| replaced(b, v, false)),
    ("regexReplaceAllLiteral", |b, v| replaced(b, v, true)),
];

fn compiled(budget: &mut Budget, pattern: &Value, all: &Value) -> Result<Regex, String> {
    let pattern = text(pattern)?;
    budget.spend(100 + (pattern.len() + text(all)?.len()) / 64)?;
    if pattern.len() > 1000 {
        return Err("the pattern is longer than 1000 bytes".to_owned());
    }
    RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .dfa_size_limit(1 << 20)
        .nest_limit(50)
        .build()
        .map_err(|_| format!("`{pattern}` is not a pattern that is understood here"))
}

fn replaced(budget: &mut Budget, values: &[Value], is_literal: bool) -> Made {
    let [pattern, all, with] = exactly(values)?;
    let pattern = compiled(budget, pattern, all)?;
    let (all, with) = (text(all)?, text(with)?);
    if (all.len() + 1).saturating_mul(with.len() + 1) > 16 * MAX_TEXT {
        return Err(format!("may make a text longer than {MAX_TEXT} bytes"));
    }
    let made = if is_literal { pattern.replace_all(all, NoExpand(with)) } else { pattern.replace_all(all, with) };
    budget.text(made.into_owned())
}
