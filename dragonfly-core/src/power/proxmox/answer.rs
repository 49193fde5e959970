//! What the API answers, and what its errors mean.
//!
//! A success is `{"data": ...}`. An error's words stand in the status line, in newer releases also in `message`, and
//! for wrong parameters in `errors` (`PVE::RESTHandler`, `PVE::APIServer`). Most errors are 500 with words of Perl's
//! `die`: what they mean can be told from those alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::power::PowerError;
use crate::sighting::clip;
use crate::text::harmless;

/// The longest that is kept of somebody else's words.
const LONGEST: usize = 300;

/// A call went wrong.
#[derive(Debug)]
pub(super) enum Failed {
    /// The VM is not on the node that was asked, or there is no such node.
    NotThere(String),
    /// The configuration was changed by somebody else since it was read.
    Conflict,
    /// Parameters that this release does not take, and why.
    Parameters(BTreeMap<String, String>),
    /// The account lacks a right.
    Forbidden(String),
    /// It said no.
    Said(String),
    Power(PowerError),
}

impl From<PowerError> for Failed {
    fn from(error: PowerError) -> Self {
        Self::Power(error)
    }
}

impl Failed {
    /// What words of a 500 or of a task's end mean.
    pub(super) fn by_words(words: &str) -> Self {
        let words = tidy(words);
        let has = |part: &str| words.contains(part);
        if has("Configuration file") && has("does not exist") || has("hostname lookup") || has("no such cluster node") {
            Self::NotThere(words)
        } else if has("checksum mismatch") || has("detected modified configuration") {
            Self::Conflict
        } else if has("is locked (") || has("can't lock file") {
            Self::Power(PowerError::Busy { reason: words })
        } else {
            Self::Said(words)
        }
    }

    pub(super) fn because(self, what: &str) -> PowerError {
        let refused = |reason: String| PowerError::Refused { what: what.to_owned(), reason };
        match self {
            Self::Power(error) => error,
            Self::NotThere(words) | Self::Said(words) => refused(words),
            Self::Conflict => {
                PowerError::Busy { reason: "others change the VM's settings at the same time".to_owned() }
            }
            Self::Parameters(errors) => {
                let errors: Vec<_> = errors.iter().map(|(name, why)| format!("{name}: {why}")).collect();
                refused(errors.join("; "))
            }
            Self::Forbidden(words) => PowerError::Forbidden { what: format!("{what} ({})", right(&words)) },
        }
    }
}

/// `Permission check failed (/vms/101, VM.PowerMgmt)`: what is missing, and where.
fn right(words: &str) -> String {
    let inside = words.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    match inside.and_then(|(inside, _)| inside.split_once(", ")) {
        Some((path, right)) => format!("{right} on {path}"),
        None => words.to_owned(),
    }
}

fn tidy(words: &str) -> String {
    let mut words = harmless(words.trim()).into_owned();
    clip(&mut words, LONGEST);
    words
}

#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    data: Option<Value>,
    /// Names with words; some releases give a list.
    #[serde(default)]
    errors: Value,
    #[serde(default)]
    message: Value,
}

/// The `data` of an answer. `reason` is the status line's, if it has words of its own.
pub(super) fn read(status: u16, reason: Option<&str>, body: &[u8], path: &str) -> Result<Value, Failed> {
    if (200..300).contains(&status) {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| PowerError::Malformed { reason: format!("the answer to `{path}` is no JSON: {error}") })?;
        return Ok(body.data.unwrap_or_default());
    }
    // Of an error, every part may be missing.
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let message = body.message.as_str().map(str::trim).filter(|message| !message.is_empty());
    let words = message.or(reason).unwrap_or_default();
    let words = if words.is_empty() { format!("HTTP status {status}") } else { tidy(words) };
    Err(match status {
        400 => match errors(&body.errors) {
            errors if errors.is_empty() => Failed::Said(words),
            errors => Failed::Parameters(errors),
        },
        401 => PowerError::Unauthorised.into(),
        403 => Failed::Forbidden(words),
        503 => PowerError::Busy { reason: words }.into(),
        // What the node that was asked says of the VM's own node.
        502 | 504 | 595..=599 => {
            PowerError::Unreachable { source: format!("the VM's node does not answer: {words}").into() }.into()
        }
        300..400 | 404 | 501 => {
            let reason = format!("`{path}` is nothing that it knows ({words}); is it Proxmox VE?");
            PowerError::Malformed { reason }.into()
        }
        _ => Failed::by_words(&words),
    })
}

fn errors(errors: &Value) -> BTreeMap<String, String> {
    let words = |value: &Value| tidy(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned).as_str());
    match errors {
        Value::Object(map) => map.iter().take(8).map(|(name, why)| (tidy(name), words(why))).collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, reason: Option<&str>, body: &str) -> String {
        read(status, reason, body.as_bytes(), "/x").unwrap_err().because("switch on").to_string()
    }

    #[test]
    fn errors_of_every_shape() {
        let table = [
            (
                403,
                None,
                r#"{"data":null,"message":"Permission check failed (/vms/101, VM.PowerMgmt)\n"}"#,
                "the account may not switch on (VM.PowerMgmt on /vms/101) on this controller",
            ),
            (403, Some("Permission check failed (/, Sys.Audit)"), "", "may not switch on (Sys.Audit on /)"),
            (403, None, "<html>", "may not switch on (HTTP status 403)"),
            (401, Some("authentication failure"), r#"{"data":null}"#, "refused the user or the password"),
            (
                400,
                Some("Parameter verification failed."),
                r#"{"data":null,"errors":{"vmid":"type check ('integer') failed","x":"property is not defined in schema"}}"#,
                "refused to switch on: vmid: type check ('integer') failed; x: property is not defined",
            ),
            (400, Some("bad request"), "{}", "refused to switch on: bad request"),
            (500, Some("VM 101 not running"), r#"{"data":null}"#, "refused to switch on: VM 101 not running"),
            (500, None, r#"{"data":null,"message":"VM is locked (backup)\n"}"#, "busy: VM is locked (backup)"),
            (
                500,
                None,
                r#"{"message":"can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout"}"#,
                "is busy",
            ),
            (500, None, r#"{"message":"checksum mismatch (file change by other user?)\n"}"#, "at the same time"),
            (595, Some("No route to host"), "", "cannot be reached"),
            (501, Some("Method 'GET /x' not implemented"), "", "is nothing that it knows"),
            (302, None, "", "is it Proxmox VE?"),
            (500, None, "", "refused to switch on: HTTP status 500"),
        ];
        for (status, reason, body, wanted) in table {
            let told = told(status, reason, body);
            assert!(told.contains(wanted), "{status} {body}: {told}");
        }
        let gone = "Configuration file 'nodes/pve1/qemu-server/101.conf' does not exist";
        assert!(matches!(Failed::by_words(gone), Failed::NotThere(_)));
        let gone = "hostname lookup 'pve9' failed - failed to get address info for: pve9: Name or service not known";
        assert!(matches!(Failed::by_words(gone), Failed::NotThere(_)));
        let long = told(500, Some(&"\u{1b}[2J".repeat(500)), "");
        assert!(long.len() < 600 && !long.contains('\u{1b}'), "{long}");
    }

    #[test]
    fn successes() {
        assert_eq!(read(200, None, br#"{"data":[1]}"#, "/x").unwrap(), json!([1]));
        assert_eq!(read(200, None, br#"{"data":null}"#, "/x").unwrap(), Value::Null);
        assert!(read(200, None, b"<html>", "/x").unwrap_err().because("x").to_string().contains("is no JSON"));
    }
}
