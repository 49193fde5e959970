//! Objects that an installation consists of: applied, not stored.

use std::time::Duration;

use serde_json::Value;

use super::failure::unreachable;
use super::{KubernetesStore, NAME, request};
use crate::store::{Result, StoreError};

/// Who manages the fields that are applied.
const MANAGER: &str = "dragonfly";
/// How often a definition is looked at until it is established.
const EVERY: Duration = Duration::from_millis(250);

impl KubernetesStore {
    /// Makes an object of Kubernetes' own be as this one says (server-side apply, with force), and gives it as it now is.
    /// For the kinds of an installation: `CustomResourceDefinition`, `Namespace`, `ServiceAccount`, `Service`,
    /// `Deployment` and those of `rbac.authorization.k8s.io`.
    ///
    /// # Errors
    /// `Unavailable` with the API server's words.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let shown = title(object);
        let path = path(object).ok_or_else(|| StoreError::Backend {
            store: NAME,
            source: format!("{shown} is of no kind that can be applied here").into(),
        })?;
        self.plain(&shown, "PATCH", &format!("{path}?fieldManager={MANAGER}&force=true"), Some(object)).await
    }

    /// Waits until the API server serves what this definition defines.
    ///
    /// # Errors
    /// `Unavailable` that says why not: the definition is refused, or it takes longer than `most`.
    pub async fn established(&self, definition: &Value, most: Duration) -> Result<()> {
        let shown = title(definition);
        let unavailable = |what: String| StoreError::Unavailable { store: NAME, what, source: None };
        let path = path(definition).unwrap_or_default();
        let wait = async {
            loop {
                let now = self.plain(&shown, "GET", &path, None).await?;
                let condition = |kind: &str| {
                    let all = now.pointer("/status/conditions").and_then(Value::as_array);
                    all.into_iter().flatten().find(|c| c.get("type").and_then(Value::as_str) == Some(kind)).cloned()
                };
                let is = |kind: &str, status: &str| {
                    condition(kind).filter(|c| c.get("status").and_then(Value::as_str) == Some(status))
                };
                if is("Established", "True").is_some() {
                    return Ok(());
                }
                if let Some(refused) = is("NamesAccepted", "False") {
                    let why = refused.get("message").and_then(Value::as_str).unwrap_or_default();
                    return Err(unavailable(format!("{shown} is not accepted: {why}")));
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        let late = |_| unavailable(format!("{shown} is not established after {} s", most.as_secs()));
        tokio::time::timeout(most, wait).await.map_err(late)?
    }

    /// Removes such an object, and with a definition everything that it defines. One that is not there is no error.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub async fn remove(&self, object: &Value) -> Result<()> {
        let shown = title(object);
        let request = request::request("DELETE", &path(object).unwrap_or_default(), None)?;
        match self.0.in_time(self.0.client.request_text(request)).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(self.refused(&shown, &error)),
        }
    }

    fn refused(&self, shown: &str, error: &kube::Error) -> StoreError {
        let what = match error {
            kube::Error::Api(status) if status.code == 403 => {
                format!("{shown}: we may not do that, ask an administrator of the cluster ({})", status.message)
            }
            kube::Error::Api(status) => format!("{shown}: {} ({})", status.message, status.code),
            _ => unreachable(&self.0.server, error),
        };
        StoreError::Unavailable { store: NAME, what, source: None }
    }

    /// One request about an object that is none of ours.
    async fn plain(&self, shown: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = request::request(method, path, body)?;
        if method == "PATCH" {
            // JSON is YAML.
            let kind = http::HeaderValue::from_static("application/apply-patch+yaml");
            request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        }
        let answer = self.0.in_time(self.0.client.request_text(request)).await?;
        let text = answer.map_err(|error| self.refused(shown, &error))?;
        serde_json::from_str(&text).map_err(|source| StoreError::Backend { store: NAME, source: source.into() })
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `Deployment dragonfly/dragonfly`.
fn title(object: &Value) -> String {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    match text(object, "/metadata/namespace") {
        "" => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

/// Where an object of an installation is.
fn path(object: &Value) -> Option<String> {
    let plural = match text(object, "/kind") {
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "CustomResourceDefinition" => "customresourcedefinitions",
        "Deployment" => "deployments",
        "Namespace" => "namespaces",
        "Role" => "roles",
        "RoleBinding" => "rolebindings",
        "Service" => "services",
        "ServiceAccount" => "serviceaccounts",
        _ => return None,
    };
    let root = match text(object, "/apiVersion") {
        "v1" => "/api/v1".to_owned(),
        version => format!("/apis/{version}"),
    };
    let name = text(object, "/metadata/name");
    Some(match text(object, "/metadata/namespace") {
        "" => format!("{root}/{plural}/{name}"),
        namespace => format!("{root}/namespaces/{namespace}/{plural}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_where_kubernetes_has_them() {
        let object = |version: &str, kind: &str, namespace: Option<&str>| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x", "namespace": namespace } });
        for (object, want) in [
            (object("v1", "Namespace", None), Some("/api/v1/namespaces/x")),
            (object("v1", "Service", Some("n")), Some("/api/v1/namespaces/n/services/x")),
            (object("apps/v1", "Deployment", Some("n")), Some("/apis/apps/v1/namespaces/n/deployments/x")),
            (object("v1", "Sheep", None), None),
        ] {
            assert_eq!(path(&object).as_deref(), want, "{object}");
        }
        assert_eq!(title(&object("v1", "Service", Some("n"))), "Service n/x");
    }
}
