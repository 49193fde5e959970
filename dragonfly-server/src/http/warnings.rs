//! What a person should know of objects that were taken all the same.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use dragonfly_core::resource::{Kind, Record};

use super::App;

/// Warnings by the name of a Network.
#[derive(Debug, Default)]
pub(super) struct Warnings(BTreeMap<String, String>);

impl Warnings {
    /// Those about these objects.
    pub(super) fn of<'a>(app: &App, records: impl IntoIterator<Item = &'a Record>) -> Self {
        if !records.into_iter().any(|record| record.kind == Kind::NETWORK) {
            return Self::default();
        }
        let networks = app.engine.networks().borrow().clone();
        Self(app.boot.warnings(&networks).into_iter().collect())
    }

    /// The one about this object.
    pub(super) fn about(&self, record: &Record) -> Option<&str> {
        self.0.get(&record.metadata.name).filter(|_| record.kind == Kind::NETWORK).map(String::as_str)
    }

    /// The same as a header `Warning` (RFC 7234), which Kubernetes' clients print.
    pub(super) fn header(&self, record: &Record) -> Option<HeaderValue> {
        // Within its quotes: an interface's name may hold anything that the system took.
        let words = self.about(record)?.replace(['"', '\\'], "'");
        HeaderValue::try_from(format!("299 dragonfly \"{words}\"")).ok()
    }
}
