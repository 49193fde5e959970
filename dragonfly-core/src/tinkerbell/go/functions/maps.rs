//! Functions of maps.

use std::collections::BTreeMap;

use super::super::value::{Keys, Map, Value};
use super::{Group, exactly, format, known, some, text};

pub(super) const ALL: Group = &[
    ("dict", |b, v| {
        let mut entries = BTreeMap::new();
        for pair in v.chunks(2) {
            let key = format::shown(some(pair)?.0, b)?;
            let value = pair.get(1).cloned().unwrap_or_else(|| Value::text(""));
            known(&value)?;
            entries.insert(key, value);
        }
        Value::map(entries, Keys::Strict)
    }),
    ("get", |_, v| {
        let [map, key] = exactly(v)?;
        Ok(entries(map)?.entries.get(text(key)?).cloned().unwrap_or_else(|| Value::text("")))
    }),
    ("set", |b, v| {
        let [map, key, value] = exactly(v)?;
        let mut all = entries(map)?.entries.clone();
        b.spend(all.len() / 8)?;
        all.insert(text(key)?.to_owned(), value.clone());
        Value::map(all, Keys::Strict)
    }),
    ("unset", |b, v| {
        let [map, key] = exactly(v)?;
        let mut all = entries(map)?.entries.clone();
        b.spend(all.len() / 8)?;
        all.remove(text(key)?);
        Value::map(all, Keys::Strict)
    }),
    ("hasKey", |_, v| {
        let [map, key] = exactly(v)?;
        Ok(Value::Bool(entries(map)?.entries.contains_key(text(key)?)))
    }),
    ("keys", |b, v| {
        let mut all = Vec::new();
        for map in v {
            for key in entries(map)?.entries.keys() {
                all.push(b.text(key.as_str())?);
            }
        }
        b.list(all)
    }),
    ("values", |b, v| b.list(entries(&exactly::<1>(v)?[0])?.entries.values().cloned().collect())),
    ("merge", |b, v| {
        let mut all = BTreeMap::new();
        for map in v.iter().rev() {
            let map = entries(map)?;
            b.spend(map.entries.len() / 8)?;
            all.extend(map.entries.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        Value::map(all, Keys::Strict)
    }),
    ("dig", |_, v| {
        let Some(([default, map], keys)) = v.split_last_chunk::<2>().map(|(keys, last)| (last, keys)) else {
            return Err("takes keys, a default and a map".to_owned());
        };
        let mut value = map.clone();
        for key in keys {
            let Value::Map(map) = &value else { return Ok(default.clone()) };
            let Some(next) = map.entries.get(text(key)?) else { return Ok(default.clone()) };
            value = next.clone();
        }
        Ok(value)
    }),
];

fn entries(value: &Value) -> Result<&Map, String> {
    match value {
        Value::Map(map) => Ok(map),
        other => Err(format!("a map is needed, and {} is given", other.kind())),
    }
}
