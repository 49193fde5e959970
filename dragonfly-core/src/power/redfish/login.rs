//! Being let in: by a session (DSP0266, 13.3), or by the password with every request where there are no sessions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::HeaderName;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::resource::{Resource, path_of};
use super::said;
use super::service::Service;
use crate::power::https::{Answer, Request};
use crate::power::{Credential, PowerError, Result};
use crate::secret::SecretString;

pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How requests say who asks.
#[derive(Debug)]
pub(super) enum Login {
    None,
    Session {
        token: SecretString,
        /// Where it is given back.
        path: Option<String>,
    },
    Basic(SecretString),
    /// They were refused: they are not sent again.
    Refused,
}

impl Service {
    pub(super) async fn log_in(&self) -> Result<Login> {
        let Some(Credential { username, password }) = &self.credential else { return Ok(Login::None) };
        if let Some(path) = &self.sessions {
            let body = json!({ "UserName": username, "Password": password.reveal() });
            let answer = self.http.send(&Request::new(Method::POST, path).json(&body)).await?;
            let has_none = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
            if !has_none.contains(&answer.status) {
                return self.session(answer, password);
            }
        }
        if username.contains(':') {
            let reason = "a user name for HTTP basic authentication has no colon".to_owned();
            return Err(PowerError::InvalidCredential { reason });
        }
        let both = zeroize::Zeroizing::new(format!("{username}:{}", password.reveal()));
        Ok(Login::Basic(format!("Basic {}", BASE64.encode(both.as_bytes())).into()))
    }

    fn session(&self, answer: Answer, password: &SecretString) -> Result<Login> {
        // What it says may repeat what it was told.
        let mask = |reason: String| match password.reveal() {
            "" => reason,
            password => reason.replace(password, "[secret]"),
        };
        let answer = said::judge(answer, "open a session").map_err(|error| match error {
            PowerError::Refused { what, reason } => PowerError::Refused { what, reason: mask(reason) },
            PowerError::Busy { reason } => PowerError::Busy { reason: mask(reason) },
            error => error,
        })?;
        let Some(token) = answer.header(TOKEN.as_str()) else {
            return Err(PowerError::Malformed { reason: "a session without X-Auth-Token".to_owned() });
        };
        let body = Resource(serde_json::from_slice(&answer.body).unwrap_or_default());
        let path = answer.header("location").map(path_of).or_else(|| body.path().map(str::to_owned));
        Ok(Login::Session { token: token.to_owned().into(), path })
    }

    /// Gives the session back. The next request opens another.
    pub(super) async fn close(&self) -> Result<()> {
        let mut login = self.login.lock().await;
        let path = match std::mem::replace(&mut *login, Login::None) {
            Login::Session { token, path: Some(path) } => (token, path),
            Login::Refused => {
                *login = Login::Refused;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let answer = self.http.send(&Request::new(Method::DELETE, path.1).header(TOKEN, path.0)).await?;
        match answer.status {
            // It has ended already.
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Ok(()),
            _ => said::judge(answer, "close the session").map(drop),
        }
    }
}
