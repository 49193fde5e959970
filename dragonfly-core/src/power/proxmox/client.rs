//! Calls of the API, logged in.

use std::fmt;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderName};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::answer::{self, Failed};
use crate::power::https::{Answer, Https, Request};
use crate::power::{Credential, PowerError, Result};
use crate::secret::SecretString;

/// Proof, with each writing call of a ticket, that no stranger's page makes it.
const CSRF: HeaderName = HeaderName::from_static("csrfpreventiontoken");

/// Who logs in.
#[derive(Debug, Clone)]
pub(super) enum Login {
    /// What the header `Authorization` says.
    Token(SecretString),
    Password(Credential),
}

impl Login {
    pub(super) fn new(credential: &Credential) -> Result<Self> {
        let Credential { username, password } = credential;
        let wrong = |reason: &str| Err(PowerError::InvalidCredential { reason: reason.to_owned() });
        let Some((name, realm)) = username.split_once('@') else {
            return wrong("a user of Proxmox is `user@realm`, as root@pam, or with a token `user@realm!token`");
        };
        let is_printable = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        if name.is_empty() || realm.is_empty() || !is_printable(realm) || username.contains(char::is_control) {
            return wrong("a user of Proxmox is `user@realm`, without spaces and control characters");
        }
        Ok(match realm.split_once('!') {
            Some((realm, token)) if realm.is_empty() || token.is_empty() => {
                return wrong("an API token is `user@realm!token`");
            }
            Some(_) if !is_printable(password.reveal()) || password.reveal().is_empty() => {
                return wrong("the secret of an API token is a UUID");
            }
            Some(_) => Self::Token(format!("PVEAPIToken={username}={}", password.reveal()).into()),
            None => Self::Password(credential.clone()),
        })
    }
}

/// What `POST /access/ticket` gives; good for two hours.
struct Ticket {
    cookie: SecretString,
    csrf: SecretString,
}

#[derive(Deserialize)]
struct Granted {
    ticket: Option<SecretString>,
    #[serde(rename = "CSRFPreventionToken")]
    csrf: Option<SecretString>,
    #[serde(rename = "NeedTFA", default)]
    needs_second_factor: Value,
}

/// One cluster's API.
pub(super) struct Client {
    https: Https,
    login: Login,
    ticket: Mutex<Option<Arc<Ticket>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("https", &self.https).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(https: Https, login: Login) -> Self {
        Self { https, login, ticket: Mutex::new(None) }
    }

    /// The `data` that a path gives.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failed> {
        self.call(Method::GET, path, query).await
    }

    /// The `data` that a call gives; its parameters go into the query of a GET and else into a form.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Failed> {
        let path = path.iter().fold("/api2/json".to_owned(), |path, part| format!("{path}/{}", escaped(part)));
        let mut ticket = self.ticket(None).await?;
        let mut answer = self.send(&method, &path, parameters, ticket.as_deref()).await?;
        if answer.status.as_u16() == 401 && ticket.is_some() {
            // Tickets end, and with them nothing was done.
            ticket = self.ticket(ticket.as_ref()).await?;
            answer = self.send(&method, &path, parameters, ticket.as_deref()).await?;
        }
        answer::read(answer.status.as_u16(), answer.reason.as_deref(), &answer.body, &path)
    }

    /// Forgets the ticket: there is no way to give one back.
    pub(super) async fn close(&self) {
        *self.ticket.lock().await = None;
    }

    /// The ticket that there is, or a new one in place of one that was refused; none for a token.
    async fn ticket(&self, refused: Option<&Arc<Ticket>>) -> Result<Option<Arc<Ticket>>, Failed> {
        let Login::Password(credential) = &self.login else { return Ok(None) };
        let mut place = self.ticket.lock().await;
        if let Some(ticket) = &*place
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, ticket))
        {
            return Ok(Some(ticket.clone()));
        }
        *place = None;
        let form = [("username", &*credential.username), ("password", credential.password.reveal())];
        let answer = self.send(&Method::POST, "/api2/json/access/ticket", &form, None).await?;
        let read = answer::read(answer.status.as_u16(), answer.reason.as_deref(), &answer.body, "/access/ticket");
        let data = read.map_err(|failed| failed.because("log in"))?;
        let ticket = Arc::new(granted(data)?);
        *place = Some(ticket.clone());
        Ok(Some(ticket))
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        parameters: &[(&str, &str)],
        ticket: Option<&Ticket>,
    ) -> Result<Answer> {
        let mut request = match *method {
            Method::GET if parameters.is_empty() => Request::new(Method::GET, path),
            Method::GET => {
                let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
                Request::new(Method::GET, format!("{path}?{query}"))
            }
            _ => Request::new(method.clone(), path).form(parameters),
        };
        if let Login::Token(token) = &self.login {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(ticket) = ticket {
            request = request.header(COOKIE, ticket.cookie.clone());
            if *method != Method::GET {
                request = request.header(CSRF, ticket.csrf.clone());
            }
        }
        self.https.send(&request).await
    }
}

fn granted(data: Value) -> Result<Ticket> {
    let malformed = |reason: &str| PowerError::Malformed { reason: format!("the answer to a login {reason}") };
    // The words of a parser may show what it read.
    let granted: Granted = serde_json::from_value(data).map_err(|_| malformed("has another shape"))?;
    let ticket = granted.ticket.ok_or_else(|| malformed("has no ticket"))?;
    let asks_more = granted.needs_second_factor.as_u64().is_some_and(|need| need != 0);
    if asks_more || ticket.reveal().starts_with("PVE:!tfa!") {
        let reason = "this account logs in with a second factor; use an API token".to_owned();
        return Err(PowerError::InvalidCredential { reason });
    }
    let csrf = granted.csrf.ok_or_else(|| malformed("has no CSRFPreventionToken"))?;
    Ok(Ticket { cookie: format!("PVEAuthCookie={}", escaped(ticket.reveal())).into(), csrf })
}

/// One segment of a path, or a cookie's value (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_log_in() {
        let login = |username: &str, password: &str| {
            Login::new(&Credential { username: username.to_owned(), password: password.to_owned().into() })
        };
        let Login::Token(header) = login("root@pam!dragonfly", "hunter2").unwrap() else { panic!("a token") };
        assert_eq!(header.reveal(), "PVEAPIToken=root@pam!dragonfly=hunter2");
        assert!(matches!(login("root@pam", "hunter 2").unwrap(), Login::Password(_)));
        for (username, password) in [
            ("root", "hunter2"),
            ("@pam", "hunter2"),
            ("root@", "hunter2"),
            ("root@!x", "hunter2"),
            ("root@pam!", "hunter2"),
            ("root@pam!x", "hunter2\n"),
            ("root@pam!x", ""),
            ("ro\not@pam", "hunter2"),
        ] {
            let error = login(username, password).unwrap_err();
            assert!(matches!(error, PowerError::InvalidCredential { .. }), "{username}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_a_login_gives() {
        let ticket = granted(serde_json::json!({ "username": "root@pam", "CSRFPreventionToken": "66:x/+",
            "ticket": "PVE:root@pam:66::sign+/=" }))
        .unwrap();
        assert_eq!(ticket.cookie.reveal(), "PVEAuthCookie=PVE%3Aroot%40pam%3A66%3A%3Asign%2B%2F%3D");
        for (data, why) in [
            (serde_json::json!({ "ticket": "PVE:!tfa!x", "CSRFPreventionToken": "x" }), "second factor"),
            (serde_json::json!({ "ticket": "PVE:x", "NeedTFA": 1 }), "second factor"),
            (serde_json::json!({ "ticket": "PVE:hunter2" }), "no CSRFPreventionToken"),
            (serde_json::json!({ "ticket": { "hunter2": 1 } }), "has another shape"),
            (Value::Null, "has another shape"),
        ] {
            let Err(error) = granted(data) else { panic!("{why}") };
            assert!(error.to_string().contains(why) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
