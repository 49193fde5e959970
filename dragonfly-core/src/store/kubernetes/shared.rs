//! What all servers on one cluster share: keys and tokens, in one Secret. Who comes first decides.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::failure::Doing;
use super::object::Place;
use super::{KubernetesStore, NAME};
use crate::resource::Kind;
use crate::store::{Key, Result, StoreError};

/// Small files by name. Not printed.
pub type SharedFiles = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// How often it is tried against others that do the same.
const TRIES: usize = 16;

impl KubernetesStore {
    /// Puts each of these files into the Secret of this name, unless it is there already, and gives all of them as they
    /// are there: of servers that start at once, every one gets the same.
    ///
    /// # Errors
    /// `Unavailable`; `Conflict` when others write the same Secret without end.
    pub async fn share(&self, name: &str, ours: &SharedFiles) -> Result<SharedFiles> {
        let place = Place::Secrets { namespace: &self.0.namespace };
        let key = Key::new(Kind::SECRET, name);
        for _ in 0..TRIES {
            let found = self.0.call(Doing::object("get", &key, place), "GET", &place.one(name), None).await;
            let written = match found {
                Ok(secret) => {
                    let theirs = files(&secret, &key)?;
                    let missing: Map<String, Value> =
                        ours.iter().filter(|(file, _)| !theirs.contains_key(*file)).map(encoded).collect();
                    if missing.is_empty() {
                        return Ok(theirs);
                    }
                    let version = secret.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                    let mut patch =
                        vec![json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version })];
                    if secret.get("data").is_none_or(Value::is_null) {
                        patch.push(json!({ "op": "add", "path": "/data", "value": {} }));
                    }
                    let add = |(file, value)| json!({ "op": "add", "path": format!("/data/{file}"), "value": value });
                    patch.extend(missing.into_iter().map(add));
                    let doing = Doing::object("patch", &key, place);
                    self.0.call(doing, "PATCH", &place.one(name), Some(patch.into())).await
                }
                Err(StoreError::NotFound { .. }) => {
                    let secret = json!({
                        "apiVersion": "v1",
                        "kind": "Secret",
                        "type": "Opaque",
                        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "dragonfly" } },
                        "data": ours.iter().map(encoded).collect::<Map<_, _>>(),
                    });
                    self.0.call(Doing::object("create", &key, place), "POST", &place.all(), Some(secret)).await
                }
                Err(error) => return Err(error),
            };
            match written {
                Ok(secret) => return files(&secret, &key),
                // Another was faster: theirs counts.
                Err(StoreError::AlreadyExists { .. } | StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict { key })
    }
}

fn encoded((file, bytes): (&String, &Zeroizing<Vec<u8>>)) -> (String, Value) {
    (file.clone(), BASE64.encode(bytes.as_slice()).into())
}

fn files(secret: &Value, key: &Key) -> Result<SharedFiles> {
    let data = secret.get("data").and_then(Value::as_object);
    data.into_iter()
        .flatten()
        .map(|(file, value)| {
            let bytes = value.as_str().and_then(|text| BASE64.decode(text).ok());
            let bytes = bytes.ok_or_else(|| {
                let what = format!("its `{file}` is no base64");
                StoreError::Invalid { key: key.clone(), store: NAME, what }
            })?;
            Ok((file.clone(), Zeroizing::new(bytes)))
        })
        .collect()
}
