//! Functions of lists, and `index` and `len` of whatever has parts.

use super::super::value::Value;
use super::{Budget, Group, Made, compare, count, exactly, format, items, some, text, whole};

pub(super) const ALL: Group = &[
    ("list", |b, v| b.list(v.to_vec())),
    ("tuple", |b, v| b.list(v.to_vec())),
    ("len", |_, v| {
        let length = match &exactly::<1>(v)?[0] {
            Value::Text(text) => text.len(),
            Value::List(list) => list.items.len(),
            Value::Map(map) => map.entries.len(),
            Value::Nil => 0,
            other => return Err(format!("{} has no length", other.kind())),
        };
        Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
    }),
    ("index", |_, v| {
        let (first, keys) = some(v)?;
        keys.iter().try_fold(first.clone(), |value, key| part(&value, key))
    }),
    ("slice", |b, v| {
        let (first, ends) = some(v)?;
        if ends.len() > 2 {
            return Err("takes at most two places".to_owned());
        }
        let from = ends.first().map_or(Ok(0), count)?;
        let cut = |length: usize| -> Result<(usize, usize), String> {
            let to = ends.get(1).map_or(Ok(length), count)?;
            if from > to || to > length {
                return Err(format!("{from} to {to} is out of range: there are {length}"));
            }
            Ok((from, to))
        };
        match first {
            Value::Text(all) => {
                let (from, to) = cut(all.len())?;
                b.text(all.get(from..to).ok_or("cuts a character in two")?)
            }
            list => {
                let all = items(list)?;
                let (from, to) = cut(all.len())?;
                b.list(all.get(from..to).unwrap_or_default().to_vec())
            }
        }
    }),
    ("first", |_, v| Ok(items(&exactly::<1>(v)?[0])?.first().cloned().unwrap_or(Value::Nil))),
    ("last", |_, v| Ok(items(&exactly::<1>(v)?[0])?.last().cloned().unwrap_or(Value::Nil))),
    ("rest", |b, v| b.list(items(&exactly::<1>(v)?[0])?.get(1..).unwrap_or_default().to_vec())),
    ("initial", |b, v| {
        let all = items(&exactly::<1>(v)?[0])?;
        b.list(all.get(..all.len().saturating_sub(1)).unwrap_or_default().to_vec())
    }),
    ("append", |b, v| {
        let [list, item] = exactly(v)?;
        b.list(items(list)?.iter().chain([item]).cloned().collect())
    }),
    ("prepend", |b, v| {
        let [list, item] = exactly(v)?;
        b.list([item].into_iter().chain(items(list)?).cloned().collect())
    }),
    ("concat", |b, v| {
        let mut all = Vec::new();
        for list in v {
            all.extend_from_slice(items(list)?);
            b.spend(all.len() / 8 + 1)?;
        }
        b.list(all)
    }),
    ("reverse", |b, v| b.list(items(&exactly::<1>(v)?[0])?.iter().rev().cloned().collect())),
    ("compact", |b, v| {
        let all = items(&exactly::<1>(v)?[0])?.iter();
        let kept: Vec<Value> = all.filter(|item| item.is_true().unwrap_or(true)).cloned().collect();
        b.list(kept)
    }),
    ("has", |b, v| {
        let [item, list] = exactly(v)?;
        Ok(Value::Bool(is_in(b, item, items(list)?)?))
    }),
    ("without", |b, v| {
        let (list, left_out) = some(v)?;
        let mut kept = Vec::new();
        for item in items(list)? {
            if !is_in(b, item, left_out)? {
                kept.push(item.clone());
            }
        }
        b.list(kept)
    }),
    ("uniq", |b, v| {
        let mut kept: Vec<Value> = Vec::new();
        for item in items(&exactly::<1>(v)?[0])? {
            if !is_in(b, item, &kept)? {
                kept.push(item.clone());
            }
        }
        b.list(kept)
    }),
    ("sortAlpha", |b, v| {
        let mut texts = Vec::new();
        for item in items(&exactly::<1>(v)?[0])? {
            texts.push(format::shown(item, b)?);
        }
        texts.sort_unstable();
        b.texts(texts.iter().map(String::as_str))
    }),
    ("until", |b, v| numbers(b, 0, whole(&exactly::<1>(v)?[0])?, 1)),
    ("untilStep", |b, v| {
        let [from, to, step] = exactly(v)?;
        numbers(b, whole(from)?, whole(to)?, whole(step)?)
    }),
];

fn is_in(budget: &mut Budget, item: &Value, all: &[Value]) -> Result<bool, String> {
    budget.spend(all.len() / 8 + 1)?;
    // What cannot be compared is not the same.
    Ok(all.iter().any(|other| compare::equal(item, other).unwrap_or(false)))
}

fn numbers(budget: &mut Budget, from: i64, to: i64, step: i64) -> Made {
    let mut all = Vec::new();
    let mut next = Some(from);
    while let Some(n) = next.filter(|n| if step > 0 { *n < to } else { step < 0 && *n > to }) {
        if all.len() > super::super::MAX_LIST {
            break;
        }
        all.push(Value::Int(n));
        next = n.checked_add(step);
    }
    budget.list(all)
}

/// `index value key`
fn part(value: &Value, key: &Value) -> Made {
    match value {
        Value::List(list) => {
            let at = whole(key)?;
            let found = usize::try_from(at).ok().and_then(|at| list.items.get(at));
            found.cloned().ok_or_else(|| match list.items.len() {
                0 => format!("there is no item {at}: the list is empty"),
                length => format!("there is no item {at}: the list has {length}, counted from 0"),
            })
        }
        Value::Map(map) => match key {
            // Go gives a map's zero value here, even with `missingkey=error`.
            Value::Text(name) => match map.entries.get(&**name) {
                Some(value) => Ok(value.clone()),
                None => Ok(value.field(name).unwrap_or(Value::Nil)),
            },
            key => text(key).map(|_| Value::Nil),
        },
        Value::Text(all) => {
            let at = count(key)?;
            let found = all.as_bytes().get(at).map(|byte| Value::Int(i64::from(*byte)));
            found.ok_or_else(|| format!("there is no byte {at}: the text has {}", all.len()))
        }
        Value::Nil => Err("it is asked for a part of what the manifest leaves out".to_owned()),
        other => Err(format!("{} has no parts", other.kind())),
    }
}
