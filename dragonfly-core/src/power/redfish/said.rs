//! What a service says of a request that it did not carry out (DSP0266, 8.6).

use reqwest::StatusCode;

use super::resource::Resource;
use crate::power::PowerError;
use crate::power::https::Answer;

/// Longer words are cut: some services answer with a page.
const LONGEST: usize = 400;

/// The messages in a body: their numbers, and their words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    ids: Vec<String>,
    words: String,
}

impl Said {
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let body = Resource(serde_json::from_slice(body).unwrap_or_default());
        let mut messages = body.parts(&["error", "@Message.ExtendedInfo"]);
        // Where a request was carried out in part, and in tasks.
        messages.extend(body.parts(&["@Message.ExtendedInfo"]));
        messages.extend(body.parts(&["Messages"]));
        let ids = messages.iter().filter_map(|message| message.owned(&["MessageId"])).collect();
        let mut words: Vec<&str> = messages.iter().filter_map(|message| message.text(&["Message"])).collect();
        words.dedup();
        let mut words = words.join("; ");
        if words.is_empty() {
            words = body.owned(&["error", "message"]).unwrap_or_else(|| format!("HTTP {status}"));
        }
        if words.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| words.is_char_boundary(*end)).unwrap_or_default();
            words.truncate(end);
            words.push_str(" ...");
        }
        Self { ids, words }
    }

    /// Whether one of the messages is of this kind, of whatever registry and version: `Base.1.8.ResourceInUse`.
    fn is(&self, kind: &str) -> bool {
        self.ids.iter().any(|id| id.rsplit('.').next() == Some(kind))
    }
}

/// The words of a task that ended.
pub(super) fn words(status: StatusCode, body: &[u8]) -> String {
    Said::read(status, body).words
}

/// The answer, if it is a yes.
pub(super) fn judge(answer: Answer, what: &str) -> Result<Answer, PowerError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    Err(because(&answer, what))
}

/// Why it is a no.
pub(super) fn because(answer: &Answer, what: &str) -> PowerError {
    let said = Said::read(answer.status, &answer.body);
    let busy = ["ResourceInUse", "ServiceTemporarilyUnavailable", "ServiceShuttingDown", "SessionLimitExceeded"];
    match answer.status {
        _ if said.is("PasswordChangeRequired") => PowerError::PasswordChangeRequired,
        StatusCode::UNAUTHORIZED => PowerError::Unauthorised,
        // Some say so with another status.
        _ if said.is("UnauthorizedLoginAttempt") => PowerError::Unauthorised,
        _ if busy.iter().any(|kind| said.is(kind)) => PowerError::Busy { reason: said.words },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => PowerError::Busy { reason: said.words },
        StatusCode::FORBIDDEN => PowerError::Forbidden { what: what.to_owned() },
        _ => PowerError::Refused { what: what.to_owned(), reason: said.words },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> PowerError {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            reason: None,
            headers: reqwest::header::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        because(&answer, "switch on")
    }

    fn extended(id: &str) -> String {
        format!(
            r#"{{"error":{{"code":"x","message":"y","@Message.ExtendedInfo":[{{"MessageId":"{id}","Message":"W."}}]}}}}"#
        )
    }

    #[test]
    fn a_no_says_why() {
        for (status, body, wanted) in [
            (400, extended("Base.1.8.PropertyValueNotInList"), "the controller refused to switch on: W."),
            (400, r#"{"error":{"message":"y"}}"#.into(), "the controller refused to switch on: y"),
            (501, "<html>".into(), "the controller refused to switch on: HTTP 501 Not Implemented"),
            (401, String::new(), "the controller refused the user or the password"),
            (400, extended("Base.1.18.UnauthorizedLoginAttempt"), "the controller refused the user or the password"),
            (403, extended("Base.1.8.InsufficientPrivilege"), "may not switch on"),
            (403, extended("Base.1.8.PasswordChangeRequired"), "password to be changed"),
            (400, extended("Base.1.8.ResourceInUse"), "the controller is busy: W."),
            (503, extended("Base.1.8.SessionLimitExceeded"), "the controller is busy: W."),
            (503, String::new(), "the controller is busy: HTTP 503"),
        ] {
            let error = error(status, &body);
            assert!(error.to_string().contains(wanted), "{status} {body}: {error}");
        }
        let long = error(400, &format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(500))).to_string();
        assert!(long.len() < 500 && long.ends_with("é ..."), "{long}");
    }
}
