//! The drivers that one engine knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use super::{Credential, PowerControl, PowerDriver, PowerError, Result};

/// Drivers by URL scheme: a plain value, built by whoever embeds Dragonfly.
///
/// ```
/// # use dragonfly_core::power::PowerDrivers;
/// let drivers = PowerDrivers::new();
/// let error = drivers.check(&"ipmi://10.0.0.6".parse().unwrap()).unwrap_err();
/// assert!(error.to_string().contains("no power driver for `ipmi://`"));
/// ```
#[derive(Debug, Default, Clone)]
pub struct PowerDrivers(BTreeMap<&'static str, Arc<dyn PowerDriver>>);

impl PowerDrivers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more; it takes the place of an earlier one for its scheme.
    #[must_use]
    pub fn with(mut self, driver: impl PowerDriver) -> Self {
        self.0.insert(driver.scheme(), Arc::new(driver));
        self
    }

    /// With drivers that trust also what the certificate authorities in a PEM text vouch for, where they ask for
    /// certificates at all.
    ///
    /// # Errors
    /// `InvalidRoots` for a text without certificates, or with broken ones.
    pub fn with_authorities(mut self, pem: &str) -> Result<Self> {
        for driver in self.0.values_mut() {
            if let Some(trusting) = driver.with_authorities(pem)? {
                *driver = trusting;
            }
        }
        Ok(self)
    }

    /// The schemes that there are drivers for.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// Whether an address can be used. Sends nothing.
    pub fn check(&self, address: &Url) -> Result<()> {
        self.driver(address)?.check(address)
    }

    /// How many calls at a time the host of an address takes.
    pub(super) fn calls_a_host(&self, address: &Url) -> usize {
        self.driver(address).map_or(1, |driver| driver.calls_a_host().max(1))
    }

    /// Opens the controller at an address.
    pub async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        self.driver(address)?.open(address, credential).await
    }

    fn driver(&self, address: &Url) -> Result<&Arc<dyn PowerDriver>> {
        self.0.get(address.scheme()).ok_or_else(|| {
            let known: Vec<&str> = self.schemes().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            PowerError::NoDriver { scheme: address.scheme().to_owned(), known }
        })
    }
}
