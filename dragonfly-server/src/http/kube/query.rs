//! What stands after the `?`.

use dragonfly_core::store::order;
use serde::Deserialize;

use super::super::problem::Problem;
use super::select::Selection;
use axum::http::StatusCode;

/// Every parameter that Kubernetes' clients send.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Query {
    watch: Option<String>,
    pub(super) limit: Option<usize>,
    #[serde(rename = "continue")]
    pub(super) from: Option<String>,
    label_selector: String,
    field_selector: String,
    resource_version: Option<String>,
    resource_version_match: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) include_object: Option<String>,
    dry_run: Option<String>,
    field_validation: Option<String>,
    field_manager: Option<String>,
}

fn is_set(flag: &Option<String>) -> bool {
    flag.as_deref().is_some_and(|word| !matches!(word, "0" | "false" | "False" | "FALSE"))
}

impl Query {
    pub(super) fn is_watch(&self) -> bool {
        is_set(&self.watch)
    }

    pub(super) fn wants_bookmarks(&self) -> bool {
        is_set(&self.allow_watch_bookmarks)
    }

    pub(super) fn selection(&self) -> Result<Selection, Problem> {
        Selection::parse(&self.label_selector, &self.field_selector)
    }

    pub(super) fn fields(&self) -> &str {
        &self.field_selector
    }

    /// Whether nothing is to be written. Whoever else asks a write of us is strict with unknown fields: so are we,
    /// whatever `fieldValidation` says.
    pub(super) fn dry_run(&self) -> Result<bool, Problem> {
        if !matches!(self.field_validation.as_deref(), None | Some("" | "Strict" | "Warn" | "Ignore")) {
            return Err(Problem::bad_request("fieldValidation: write Strict, Warn or Ignore; all are taken as Strict"));
        }
        let manager = self.field_manager.as_deref().unwrap_or_default();
        if manager.len() > 128 || manager.chars().any(char::is_control) {
            return Err(Problem::bad_request("fieldManager: at most 128 characters that can be printed"));
        }
        match self.dry_run.as_deref() {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!("dryRun: `{other}` is not known; write All"))),
        }
    }

    /// Where a watch goes on: after a version that the client has listed at.
    pub(super) fn since(&self) -> Option<String> {
        let version = self.resource_version.clone().filter(|version| !version.is_empty() && version != "0");
        version.filter(|_| !self.wants_initial_events())
    }

    /// Whether a watch begins with what is there and says when all of it has been told.
    pub(super) fn wants_initial_events(&self) -> bool {
        is_set(&self.send_initial_events)
    }

    /// Whether a list that was read at `read` is new enough, or old enough, for who asked.
    pub(super) fn suits(&self, read: &str) -> Result<(), Problem> {
        let wanted = self.resource_version.as_deref().filter(|version| !version.is_empty());
        match (self.resource_version_match.as_deref().filter(|word| !word.is_empty()), wanted) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(Problem::bad_request("resourceVersionMatch: it needs a resourceVersion")),
            (Some(_), Some(_)) if self.from.is_some() => {
                Err(Problem::bad_request("resourceVersionMatch: not together with continue"))
            }
            (Some("Exact"), Some("0")) => {
                Err(Problem::bad_request("resourceVersionMatch: no list was ever Exact at resourceVersion 0"))
            }
            (Some("Exact"), Some(wanted)) if wanted != read => Err(Problem::new(
                StatusCode::GONE,
                format!("resourceVersion {wanted} is no longer kept, it is {read} now: list without one"),
            )),
            (Some("Exact"), _) => Ok(()),
            (None | Some("NotOlderThan"), Some(wanted)) => {
                let number = |version| {
                    order(version).ok_or_else(|| {
                        Problem::bad_request(format!("resourceVersion: `{version}` is none of this server's"))
                    })
                };
                if number(wanted)? > number(read)? {
                    let detail = format!("Too large resource version: {wanted}, current: {read}");
                    return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail));
                }
                Ok(())
            }
            (Some(other), _) => Err(Problem::bad_request(format!(
                "resourceVersionMatch: `{other}` is not known; write Exact or NotOlderThan"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let uri: http::Uri = format!("http://x/?{text}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn versions_suit_or_are_told_why_not() {
        for (text, want) in [
            ("", Ok(())),
            ("resourceVersion=0", Ok(())),
            ("resourceVersion=7", Ok(())),
            ("resourceVersion=8", Err(504)),
            ("resourceVersion=x", Err(400)),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok(())),
            ("resourceVersion=6&resourceVersionMatch=Exact", Err(410)),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(400)),
            ("resourceVersion=6&resourceVersionMatch=NotOlderThan", Ok(())),
            ("resourceVersion=6&resourceVersionMatch=Some", Err(400)),
            ("resourceVersionMatch=Exact", Err(400)),
        ] {
            assert_eq!(query(text).suits("7").map_err(|problem| problem.status.as_u16()), want, "{text}");
        }
    }

    #[test]
    fn flags_and_words() {
        assert!(query("watch=1").is_watch() && query("watch=true").is_watch() && query("watch=").is_watch());
        assert!(!query("watch=0").is_watch() && !query("watch=false").is_watch() && !query("").is_watch());
        assert_eq!(query("resourceVersion=5").since().as_deref(), Some("5"));
        assert_eq!(query("resourceVersion=5&sendInitialEvents=true").since(), None);
        assert_eq!(query("resourceVersion=0").since(), None);
        assert!(query("dryRun=All").dry_run().unwrap());
        assert!(!query("fieldManager=kubectl&fieldValidation=Strict").dry_run().unwrap());
        assert!(query("dryRun=Some").dry_run().is_err() && query("fieldValidation=Lax").dry_run().is_err());
    }
}
