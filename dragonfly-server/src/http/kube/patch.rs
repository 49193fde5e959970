//! Changes to an object, in the ways that Kubernetes' clients write them.

use axum::http::StatusCode;
use dragonfly_core::action;
use dragonfly_core::engine::{EngineError, Result as EngineResult};
use serde_json::Value;

use super::super::problem::Problem;

/// A change that was read.
#[derive(Debug)]
pub(super) enum Patch {
    /// RFC 7396.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// The whole object, in YAML or JSON.
    Apply,
}

impl Patch {
    /// The change in a body of this media type.
    pub(super) fn read(media: &str, body: &[u8]) -> Result<Self, Problem> {
        let media = media.split(';').next().unwrap_or_default().trim();
        let json = |what: &str, error: serde_json::Error| Problem::bad_request(format!("the {what}: {error}"));
        match media {
            "application/merge-patch+json" => {
                let value: Value = serde_json::from_slice(body).map_err(|e| json("merge patch", e))?;
                if !value.is_object() {
                    return Err(Problem::bad_request("the merge patch: write an object, with what is to change"));
                }
                Ok(Self::Merge(value))
            }
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(|e| json("JSON patch", e))?;
                if patch.0.len() > 10_000 {
                    return Err(Problem::bad_request("the JSON patch has more than 10000 operations"));
                }
                Ok(Self::Json(patch))
            }
            "application/apply-patch+yaml" => Ok(Self::Apply),
            // As of custom resources: clients then send a merge patch.
            other => {
                let detail = format!(
                    "a change is sent as application/merge-patch+json, application/json-patch+json or \
                     application/apply-patch+yaml, not as `{other}`"
                );
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
            }
        }
    }

    /// Changes an object.
    pub(super) fn change(&self, object: &mut Value) -> EngineResult<()> {
        match self {
            Self::Merge(patch) => json_patch::merge(object, patch),
            Self::Json(patch) => json_patch::patch(object, patch).map_err(|error| {
                EngineError::Invalid(vec![action::Problem { path: error.path.to_string(), problem: error.to_string() }])
            })?,
            Self::Apply => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_what_it_says_and_nothing_else() {
        let object = || json!({ "spec": { "a": 1, "b": [1, 2] }, "metadata": { "labels": { "x": "1", "y/z": "2" } } });
        let merge = "application/merge-patch+json; charset=utf-8";
        let ops = "application/json-patch+json";
        let table = [
            (merge, json!({ "spec": { "a": null, "b": [3] } }), Some(("/spec", json!({ "b": [3] })))),
            (
                merge,
                json!({ "metadata": { "labels": { "x": null } } }),
                Some(("/metadata/labels", json!({ "y/z": "2" }))),
            ),
            (
                ops,
                json!([{ "op": "remove", "path": "/metadata/labels/y~1z" }]),
                Some(("/metadata/labels", json!({ "x": "1" }))),
            ),
            (ops, json!([{ "op": "add", "path": "/spec/b/-", "value": 3 }]), Some(("/spec/b", json!([1, 2, 3])))),
            (ops, json!([{ "op": "test", "path": "/spec/a", "value": 2 }]), None),
            (ops, json!([{ "op": "remove", "path": "/spec/none" }]), None),
        ];
        for (media, patch, want) in table {
            let mut changed = object();
            let done = Patch::read(media, patch.to_string().as_bytes()).unwrap().change(&mut changed);
            match want {
                Some((pointer, value)) => {
                    done.unwrap();
                    assert_eq!(changed.pointer(pointer), Some(&value), "{patch}");
                }
                None => {
                    assert!(done.is_err(), "{patch}");
                    assert_eq!(changed, object(), "nothing is half done");
                }
            }
        }
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (media, body, status) in [
            ("application/strategic-merge-patch+json", "{}", 415),
            ("application/json", "{}", 415),
            ("", "{}", 415),
            ("application/merge-patch+json", "[]", 400),
            ("application/merge-patch+json", "{", 400),
            ("application/json-patch+json", "{}", 400),
            ("application/json-patch+json", "[{\"op\":\"jump\",\"path\":\"/\"}]", 400),
        ] {
            assert_eq!(Patch::read(media, body.as_bytes()).unwrap_err().status, status, "{media} {body}");
        }
    }
}
