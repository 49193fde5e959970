//! Redfish (DMTF DSP0266): `redfish://10.0.0.6`.
//!
//! Nothing is known of a controller beforehand: the service root says where everything is, and what it says it
//! allows is what this driver can do with it. A controller of several systems wants to be told which:
//! `redfish://10.0.0.6/redfish/v1/Systems/blade3`.
//!
//! What it says after a change is what is returned, whatever it was told: many keep an override for ever that was
//! for the next boot. A lamp has no time here: it is lit until it is put out.
//!
//! It opens a session and gives it back when it is closed; where there are no sessions, every request has the
//! password. A password that was refused is not sent again.
//!
//! Controllers come with certificates that they signed themselves. `?tls=sha256:HEX` trusts one certificate by the
//! SHA-256 of its DER, whatever name and dates stand in it; the error that refuses an unknown one says which it
//! showed. `?tls=insecure` trusts everybody and `?tls=off` is plain HTTP: with both, somebody on the way can read the
//! password. Without `tls`, the authorities of [`Redfish::with_roots`] must vouch for its name.

mod control;
mod discover;
mod events;
#[cfg(test)]
mod hostile;
mod inventory;
mod login;
mod media;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod peer;
mod plan;
mod quirks;
mod resource;
mod said;
mod sensors;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

pub use control::Controller;

use super::https::{Https, Roots, Trust};
use super::{Credential, PowerControl, PowerDriver, PowerError, Result};

/// How long a controller is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the answer to one request.
    pub request: Duration,
    /// For the end of a task that it began, and of a change of power that something waits for.
    pub task: Duration,
    /// Between two looks at either.
    pub poll: Duration,
}

impl Default for Patience {
    /// 30 s for an answer, 60 s for a task, a look every second.
    fn default() -> Self {
        Self { request: Duration::from_secs(30), task: Duration::from_secs(60), poll: Duration::from_secs(1) }
    }
}

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    base: Url,
    /// `/redfish/v1/Systems/1`, if one is named.
    system: Option<String>,
    trust: Trust,
}

impl Address {
    fn parse(address: &Url) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidAddress { address: address.to_string(), reason };
        let like = "expected redfish://HOST or redfish://HOST:PORT/redfish/v1/Systems/ID";
        let host = address.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong(like.to_owned()))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(PowerError::InvalidAddress {
                address: format!("redfish://{host}"),
                reason: "user and password do not belong into an address; put them into a Secret".to_owned(),
            });
        }
        let mut trust = Trust::Roots;
        for (key, value) in address.query_pairs() {
            match &*key {
                "tls" => trust = Trust::parse(&value, address)?,
                other => return Err(wrong(format!("`{other}` is not known; there is tls"))),
            }
        }
        let path = address.path().trim_end_matches('/');
        let system = match path {
            "" | "/redfish" | "/redfish/v1" | "/redfish/v1/Systems" => None,
            path if path.starts_with("/redfish/v1/") => Some(path.to_owned()),
            path => return Err(wrong(format!("`{path}` is no path of a system; {like}"))),
        };
        let port = address.port().unwrap_or_else(|| trust.default_port());
        let base = format!("{}://{host}:{port}/", trust.scheme());
        let base = base.parse().map_err(|error| wrong(format!("{error}; {like}")))?;
        Ok(Self { base, system, trust })
    }
}

/// The driver for `redfish://`.
#[derive(Debug, Clone, Default)]
pub struct Redfish {
    roots: Roots,
    patience: Patience,
}

impl Redfish {
    /// With the usual patience, and no certificate authorities: every address names its certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// With the certificate authorities in this PEM text besides those that were there.
    pub fn with_roots(self, pem: &str) -> Result<Self> {
        Ok(Self { roots: self.roots.with_pem(pem)?, ..self })
    }

    /// Opens one controller: logs in, and sees what there is.
    pub async fn controller(&self, address: &Url, credential: Option<&Credential>) -> Result<Controller> {
        let parsed = Address::parse(address)?;
        let http = Https::new(parsed.base, &parsed.trust, &self.roots, self.patience.request)?;
        let service = service::Service::connect(http, credential.cloned(), self.patience).await?;
        match discover::discover(&service, address, parsed.system.as_deref()).await {
            Ok(found) => Ok(Controller::new(service, found, self.patience)),
            Err(error) => {
                // It keeps a place for us else, and has few.
                let _ = service.close().await;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl PowerDriver for Redfish {
    fn scheme(&self) -> &'static str {
        "redfish"
    }

    fn check(&self, address: &Url) -> Result<()> {
        Address::parse(address).map(drop)
    }

    fn with_authorities(&self, pem: &str) -> Result<Option<Arc<dyn PowerDriver>>> {
        Ok(Some(Arc::new(self.clone().with_roots(pem)?)))
    }

    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(self.controller(address, credential).await?))
    }
}
