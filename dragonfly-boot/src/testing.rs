//! A provider and an observer for tests.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootError, BootObserver, BootProvider, BootRequest, Decision, Fate, Sighting};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::wire::Identity;

/// One fate for all, and reservations.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) fate: Option<Fate>,
    pub(crate) reserved: Vec<(Mac, Ipv4Addr)>,
    /// How many identities were given: each has another token.
    pub(crate) given: Mutex<u32>,
    pub(crate) asked: Mutex<Vec<BootRequest>>,
}

impl Provider {
    pub(crate) fn with(fate: Option<Fate>) -> Self {
        Self { fate, reserved: Vec::new(), given: Mutex::default(), asked: Mutex::default() }
    }
}

#[async_trait]
impl BootProvider for Provider {
    async fn decide(&self, request: &BootRequest) -> Result<Decision, BootError> {
        self.asked.lock().unwrap().push(request.clone());
        let fate = self.fate.clone().ok_or_else(|| BootError::Provider { source: "the store is gone".into() })?;
        let address = self.reserved.iter().find(|(mac, _)| *mac == request.mac).map(|(_, address)| *address);
        Ok(Decision { fate, reason: "a test".into(), machine: None, address, hostname: None, console: None })
    }

    async fn identity(&self, request: &BootRequest) -> Result<Option<Identity>, BootError> {
        if !matches!(self.fate, Some(Fate::Discover | Fate::Image { .. })) {
            return Ok(None);
        }
        let mut given = self.given.lock().unwrap();
        *given += 1;
        Ok(Some(Identity {
            server: "https://192.0.2.1:3000".parse().unwrap(),
            also: Vec::new(),
            pin: "00".repeat(32),
            token: format!("token-{given}").into(),
            mac: request.mac,
            time: Timestamp::from_unix_seconds(1_800_000_000),
        }))
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<Mac> {
        self.reserved.iter().find(|(_, a)| *a == address).map(|(mac, _)| *mac)
    }
}

/// Keeps what it is told.
#[derive(Debug, Default)]
pub(crate) struct Observer(pub(crate) Mutex<Vec<Sighting>>);

impl Observer {
    pub(crate) fn whats(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().map(|s| s.seen.kind()).collect()
    }
}

impl BootObserver for Observer {
    fn saw(&self, sighting: Sighting) {
        self.0.lock().unwrap().push(sighting);
    }
}
