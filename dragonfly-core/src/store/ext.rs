//! Typed calls on every store.

use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use super::{Key, Part, Result, Selector, Store, StoreError, When};
use crate::resource::{Record, Resource, Spec};

/// How often a read-change-write is tried against others that write the same object.
const TRIES: u32 = 24;
/// How many objects are read at a time.
const PAGE: usize = 500;

/// Typed calls, for every store, `dyn Store` too.
///
/// Writes keep what this version does not know: only the fields that the typed change touched are
/// changed in the stored JSON.
pub trait StoreExt: Store {
    /// The object; its absence is an error.
    fn fetch<S: Spec>(&self, name: &str) -> impl Future<Output = Result<Resource<S>>> + Send {
        async move { self.find(name).await?.ok_or_else(|| StoreError::NotFound { key: Key::new(S::KIND, name) }) }
    }

    /// The object, or `None`.
    fn find<S: Spec>(&self, name: &str) -> impl Future<Output = Result<Option<Resource<S>>>> + Send {
        let key = Key::new(S::KIND, name);
        async move { Ok(self.get(&key).await?.map(|record| record.decode()).transpose()?) }
    }

    /// Every object of this kind that is meant, ordered by name.
    fn all<S: Spec>(&self, selector: &Selector) -> impl Future<Output = Result<Vec<Resource<S>>>> + Send {
        async move {
            let (mut all, mut from) = (Vec::new(), None);
            loop {
                let page = self.list(S::KIND, selector, PAGE, from.as_deref()).await?;
                for record in &page.items {
                    all.push(record.decode()?);
                }
                match page.more {
                    Some(more) => from = Some(more),
                    None => return Ok(all),
                }
            }
        }
    }

    /// Creates it, without its status.
    fn create<S: Spec>(&self, object: &Resource<S>) -> impl Future<Output = Result<Resource<S>>> + Send {
        let record = Record::from(object);
        async move { Ok(self.put(record, Part::Spec, When::Absent).await?.decode()?) }
    }

    /// Reads, changes and writes `spec`, labels, annotations and finalizers. When another wrote in
    /// between, reads again: `change` may run several times. An error of `change` writes nothing,
    /// and neither does a change that changes nothing.
    fn update_spec<S, E, F>(&self, name: &str, change: F) -> impl Future<Output = Result<Resource<S>, E>> + Send
    where
        S: Spec,
        E: From<StoreError> + Send,
        F: FnMut(&mut Resource<S>) -> Result<(), E> + Send,
    {
        update(self, Key::new(S::KIND, name), Part::Spec, change)
    }

    /// Reads, changes and writes `status`, as [`update_spec`](Self::update_spec) does. Whatever
    /// `change` does to the rest of the object is not written.
    fn update_status<S, E, F>(&self, name: &str, change: F) -> impl Future<Output = Result<Resource<S>, E>> + Send
    where
        S: Spec,
        E: From<StoreError> + Send,
        F: FnMut(&mut Resource<S>) -> Result<(), E> + Send,
    {
        update(self, Key::new(S::KIND, name), Part::Status, change)
    }

    /// Deletes it if it is still as it was when it was read.
    fn remove<S: Spec>(&self, object: &Resource<S>) -> impl Future<Output = Result<()>> + Send {
        let key = Key::new(S::KIND, object.name());
        let version = object.metadata.resource_version.clone();
        async move { self.delete(&key, &version).await }
    }
}

impl<T: Store + ?Sized> StoreExt for T {}

async fn update<T, S, E, F>(store: &T, key: Key, part: Part, mut change: F) -> Result<Resource<S>, E>
where
    T: Store + ?Sized,
    S: Spec,
    E: From<StoreError> + Send,
    F: FnMut(&mut Resource<S>) -> Result<(), E> + Send,
{
    for attempt in 0..TRIES {
        rest(attempt).await;
        let found = store.get(&key).await?;
        let raw = found.ok_or_else(|| StoreError::NotFound { key: key.clone() })?;
        let before: Resource<S> = raw.decode().map_err(StoreError::from)?;
        let mut after = before.clone();
        change(&mut after)?;
        let Some(record) = rewritten(raw, &before, &after, part) else { return Ok(before) };
        let seen = When::Unchanged(before.metadata.resource_version);
        match store.put(record, part, seen).await {
            Ok(written) => return Ok(written.decode().map_err(StoreError::from)?),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { key }.into())
}

/// Leaves the object to others for a moment once it is clear that many want it.
async fn rest(attempt: u32) {
    if attempt > 3 {
        let millis = 1u64 << (attempt - 3).min(5);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// The stored object with the typed change carried over, or `None` when nothing changed.
fn rewritten<S: Spec>(mut raw: Record, before: &Resource<S>, after: &Resource<S>, part: Part) -> Option<Record> {
    let (old, new) = (Record::from(before), Record::from(after));
    match part {
        Part::Spec => {
            let (was, is) = (&before.metadata, &after.metadata);
            let same = was.labels == is.labels && was.annotations == is.annotations && was.finalizers == is.finalizers;
            if same && old.spec == new.spec {
                return None;
            }
            raw.metadata.labels = after.metadata.labels.clone();
            raw.metadata.annotations = after.metadata.annotations.clone();
            raw.metadata.finalizers = after.metadata.finalizers.clone();
            carry(&mut raw.spec, &old.spec, &new.spec);
        }
        Part::Status => {
            if old.status == new.status {
                return None;
            }
            carry(&mut raw.status, &old.status, &new.status);
        }
    }
    Some(raw)
}

/// Makes in `raw` the change from `before` to `after`, and no other.
fn carry(raw: &mut Value, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    match (raw, before, after) {
        (Value::Object(raw), Value::Object(before), Value::Object(after)) => {
            for (name, value) in after {
                match (raw.get_mut(name), before.get(name)) {
                    (Some(raw), Some(before)) => carry(raw, before, value),
                    // It is as this version leaves it out, and stays so.
                    (None, Some(before)) if before == value => {}
                    _ => {
                        raw.insert(name.clone(), value.clone());
                    }
                }
            }
            for name in before.keys().filter(|name| !after.contains_key(*name)) {
                raw.remove(name);
            }
        }
        (Value::Array(raw), Value::Array(before), Value::Array(after)) if raw.len() == before.len() => {
            for (index, value) in after.iter().enumerate() {
                match (raw.get_mut(index), before.get(index)) {
                    (Some(raw), Some(before)) if same_thing(before, value) => carry(raw, before, value),
                    (Some(raw), _) => *raw = value.clone(),
                    (None, _) => raw.push(value.clone()),
                }
            }
            raw.truncate(after.len());
        }
        (raw, _, after) => *raw = after.clone(),
    }
}

/// Whether two elements of a list are the same thing, before and after: a field that this version
/// does not know must not move to another element.
fn same_thing(before: &Value, after: &Value) -> bool {
    ["name", "type", "id"].iter().all(|field| before.get(field) == after.get(field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::carry;

    /// What one version knows: objects of a few fields, lists, scalars.
    fn known() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), any::<bool>().prop_map(Value::from), (0..3u8).prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-d]|name", inner, 0..4).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::hash_map("[a-d]", known(), 0..4).prop_map(|m| m.into_iter().collect())
    }

    /// The same with a field of a later version in every object; it carries a number of its own.
    fn with_unknown(value: &Value, count: &mut u64) -> Value {
        match value {
            Value::Object(fields) => {
                let mut fields: Map<_, _> =
                    fields.iter().map(|(name, value)| (name.clone(), with_unknown(value, count))).collect();
                *count += 1;
                fields.insert("later".to_owned(), json!(*count));
                fields.into()
            }
            Value::Array(items) => items.iter().map(|item| with_unknown(item, count)).collect(),
            other => other.clone(),
        }
    }

    fn without_unknown(value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .filter(|(name, _)| *name != "later")
                .map(|(name, value)| (name.clone(), without_unknown(value)))
                .collect(),
            Value::Array(items) => items.iter().map(without_unknown).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn any_typed_change_is_made_whole_and_loses_nothing_beside_it(before in object(), after in object()) {
            let mut count = 0;
            let stored = with_unknown(&before, &mut count);
            let mut changed = stored.clone();
            carry(&mut changed, &before, &after);
            prop_assert_eq!(without_unknown(&changed), after.clone());
            prop_assert_eq!(&changed["later"], &stored["later"]);
            for (name, value) in before.as_object().into_iter().flatten() {
                if after.get(name) == Some(value) {
                    prop_assert_eq!(&changed[name], &stored[name], "an untouched field");
                }
            }
        }
    }

    #[test]
    fn a_typed_change_touches_nothing_else() {
        // (stored, typed before, typed after, stored afterwards)
        let table = [
            (json!({"a": 1, "new": 2}), json!({"a": 1}), json!({"a": 3}), json!({"a": 3, "new": 2})),
            (json!({"a": 1, "new": 2}), json!({"a": 1}), json!({}), json!({"new": 2})),
            (
                json!({"new": 2}),
                json!({"default": false}),
                json!({"default": false, "b": 1}),
                json!({"new": 2, "b": 1}),
            ),
            (
                json!({"in": {"a": 1, "new": [1]}}),
                json!({"in": {"a": 1}}),
                json!({"in": {"a": 2}}),
                json!({"in": {"a": 2, "new": [1]}}),
            ),
            (
                json!([{"name": "x", "n": 1, "new": 1}, {"name": "y", "n": 1, "new": 2}]),
                json!([{"name": "x", "n": 1}, {"name": "y", "n": 1}]),
                json!([{"name": "x", "n": 2}, {"name": "y", "n": 1}, {"name": "z"}]),
                json!([{"name": "x", "n": 2, "new": 1}, {"name": "y", "n": 1, "new": 2}, {"name": "z"}]),
            ),
            (
                json!([{"name": "x", "new": 1}, {"name": "y", "new": 2}]),
                json!([{"name": "x"}, {"name": "y"}]),
                json!([{"name": "y"}]),
                json!([{"name": "y"}]),
            ),
            (json!({"a": null, "new": 1}), json!({"a": null}), json!({"a": [null]}), json!({"a": [null], "new": 1})),
            (json!(null), json!({}), json!({"a": 1}), json!({"a": 1})),
        ];
        for (mut stored, before, after, want) in table {
            let told = format!("{stored} {before} -> {after}");
            carry(&mut stored, &before, &after);
            assert_eq!(stored, want, "{told}");
        }
    }
}
