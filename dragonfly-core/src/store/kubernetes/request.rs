//! One request and its answer, in bounded time.

use std::future::Future;
use std::time::Duration;

use http::Request;
use serde_json::Value;

use super::failure::{Doing, failure, late};
use super::{Inner, NAME};
use crate::store::{Result, StoreError};

/// How long to wait when the API server asks for patience.
const PATIENCE: Duration = Duration::from_millis(500);

impl Inner {
    /// Asks and reads the answer as JSON.
    pub(super) async fn call(&self, doing: Doing<'_>, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let asked = async {
            loop {
                let request = request(method, path, body.as_ref())?;
                match self.client.request_text(request).await {
                    Ok(text) => {
                        return serde_json::from_str(&text)
                            .map_err(|source| StoreError::Backend { store: NAME, source: source.into() });
                    }
                    // Too many requests: this one was not looked at.
                    Err(kube::Error::Api(status)) if status.code == 429 => tokio::time::sleep(PATIENCE).await,
                    Err(error) => return Err(failure(&doing, &self.server, error)),
                }
            }
        };
        self.in_time(asked).await?
    }

    /// What `future` gives, or that the API server gives no answer.
    pub(super) async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(self.timeout, future).await.map_err(|_| late(&self.server, self.timeout))
    }
}

/// A request for JSON; a body that is a list is a JSON patch.
pub(super) fn request(method: &str, path: &str, body: Option<&Value>) -> Result<Request<Vec<u8>>> {
    let fault = |source: crate::Source| StoreError::Backend { store: NAME, source };
    let kind = match body {
        Some(Value::Array(_)) => "application/json-patch+json",
        _ => "application/json",
    };
    let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| fault(e.into()))?;
    Request::builder()
        .method(method)
        .uri(path)
        .header("accept", "application/json")
        .header("content-type", kind)
        .body(bytes.unwrap_or_default())
        .map_err(|e| fault(e.into()))
}
