//! IPMI 2.0 over LAN (RMCP+, "lanplus"): `ipmi://10.0.0.6`.
//!
//! Cipher suites 17 and 3, in that order, or the one that the address names: `ipmi://10.0.0.6?cipher=17`.
//! A session has the privilege Operator, which is enough for power and boot device, or the one that the address
//! names: `?privilege=administrator`.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod anything;
mod control;
mod events;
mod packet;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod peer;
mod rakp;
mod sensors;
mod session;
mod suite;
#[cfg(test)]
mod tests;
mod window;
mod words;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

pub use control::Controller;
pub use session::Patience;
pub use suite::Suite;

use super::{Credential, PowerControl, PowerDriver, PowerError, Result};
use crate::secret::SecretString;

/// The port of RMCP (ASF 2.0, 3.2.1).
const PORT: u16 = 623;
/// Longest user name (IPMI 2.0, 22.28).
const LONGEST_NAME: usize = 16;
/// Longest password (22.30).
const LONGEST_PASSWORD: usize = 20;

/// What a session may do at most (IPMI 2.0, 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Privilege {
    /// Reads.
    User = 2,
    /// Reads, and switches power and boot device.
    Operator = 3,
    /// Everything.
    Administrator = 4,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

/// Who logs in, and with which rights.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    username: String,
    password: SecretString,
    privilege: Privilege,
}

/// A command went wrong.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The controller's completion code (table 5-2), not zero.
    Code(u8),
    Power(PowerError),
}

impl From<PowerError> for Failed {
    fn from(error: PowerError) -> Self {
        Self::Power(error)
    }
}

impl Failed {
    fn because(self, what: &str) -> PowerError {
        match self {
            Self::Power(error) => error,
            Self::Code(0xc0) => PowerError::Busy { reason: words::completion(0xc0) },
            Self::Code(0xd4) => PowerError::Forbidden { what: what.to_owned() },
            Self::Code(code) => PowerError::Refused { what: what.to_owned(), reason: words::completion(code) },
        }
    }
}

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    suites: Vec<Suite>,
    privilege: Privilege,
}

impl Address {
    fn parse(address: &Url) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidAddress { address: address.to_string(), reason };
        let like = "expected ipmi://HOST or ipmi://HOST:PORT, as ipmi://10.0.0.6";
        let host = address.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong(like.to_owned()))?;
        if !matches!(address.path(), "" | "/") {
            return Err(wrong(format!("nothing goes behind the host; {like}")));
        }
        if !address.username().is_empty() || address.password().is_some() {
            return Err(PowerError::InvalidAddress {
                address: format!("ipmi://{host}"),
                reason: "user and password do not belong into an address; put them into a Secret".to_owned(),
            });
        }
        let mut parsed = Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: address.port().unwrap_or(PORT),
            suites: vec![Suite::Sha256, Suite::Sha1],
            privilege: Privilege::Operator,
        };
        for (key, value) in address.query_pairs() {
            match (&*key, &*value) {
                ("cipher", id) => {
                    let suite = id.parse().ok().and_then(Suite::from_id);
                    let suite =
                        suite.ok_or_else(|| wrong(format!("cipher suite {id} is not known; there are 3 and 17")))?;
                    parsed.suites = vec![suite];
                }
                ("privilege", "user") => parsed.privilege = Privilege::User,
                ("privilege", "operator") => parsed.privilege = Privilege::Operator,
                ("privilege", "administrator") => parsed.privilege = Privilege::Administrator,
                ("privilege", other) => {
                    return Err(wrong(format!(
                        "privilege {other} is not known; there are user, operator, administrator"
                    )));
                }
                (other, _) => return Err(wrong(format!("`{other}` is not known; there are cipher and privilege"))),
            }
        }
        Ok(parsed)
    }
}

/// The driver for `ipmi://`.
#[derive(Debug, Clone, Default)]
pub struct Ipmi {
    patience: Patience,
}

impl Ipmi {
    /// With this patience.
    pub fn with_patience(patience: Patience) -> Self {
        Self { patience }
    }

    /// Opens one controller; logs in at the first call.
    pub fn controller(&self, address: &Url, credential: Option<&Credential>) -> Result<Controller> {
        let parsed = Address::parse(address)?;
        let Credential { username, password } = credential.ok_or(PowerError::NoCredential)?.clone();
        let too_long = |what: &str, most: usize| PowerError::InvalidCredential {
            reason: format!("an IPMI {what} has at most {most} bytes"),
        };
        if username.len() > LONGEST_NAME {
            return Err(too_long("user name", LONGEST_NAME));
        }
        if password.reveal().len() > LONGEST_PASSWORD {
            return Err(too_long("password", LONGEST_PASSWORD));
        }
        let login = Login { username, password, privilege: parsed.privilege };
        Ok(Controller::new(parsed.host, parsed.port, login, parsed.suites, self.patience))
    }
}

#[async_trait]
impl PowerDriver for Ipmi {
    fn scheme(&self) -> &'static str {
        "ipmi"
    }

    fn check(&self, address: &Url) -> Result<()> {
        Address::parse(address).map(drop)
    }

    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(self.controller(address, credential)?))
    }
}
