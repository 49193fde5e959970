//! Leases, and where they are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use async_trait::async_trait;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::{Mac, Source};
use serde::{Deserialize, Serialize};

use super::packet::{Packet, option};

/// Who holds an address: `ether/52:54:00:ab:cd:01`, or `id/` and the hex digits of option 61.
///
/// A machine is its Ethernet address, whatever it writes into option 61: firmware, iPXE and the
/// installed system each write something else, and a machine that changed its address with each of
/// them could not be told from three. Only a client without an Ethernet address is its option 61.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientKey(String);

impl ClientKey {
    /// The sender of a message; `None` when it names itself in no way.
    pub fn of(packet: &Packet) -> Option<Self> {
        match (packet.mac(), packet.option(option::CLIENT_ID)) {
            (Some(mac), _) => Some(Self::of_mac(mac)),
            (None, Some(id)) if (2..=255).contains(&id.len()) => {
                Some(Self(format!("id/{}", id.iter().map(|b| format!("{b:02x}")).collect::<String>())))
            }
            _ => None,
        }
    }

    /// A machine by its card.
    pub fn of_mac(mac: Mac) -> Self {
        Self(format!("ether/{mac}"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The card, if it is known by one.
    pub fn mac(&self) -> Option<Mac> {
        self.0.strip_prefix("ether/").and_then(|mac| mac.parse().ok())
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The address: one row each.
    pub address: Ipv4Addr,
    /// Until when it holds.
    pub expires: Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub state: LeaseState,
}

/// What an address is used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum LeaseState {
    /// A client has it. After `expires`, or once released, it may be given to another, but is kept
    /// for this one as long as there are others.
    Bound {
        /// Who.
        client: ClientKey,
    },
    /// Somebody uses it whom we did not give it to: nobody gets it before `expires`.
    Quarantined,
}

/// Why leases cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("leases cannot be {doing}")]
pub struct LeaseError {
    /// `read` or `written`.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Source,
}

/// Where leases outlive the process: one row an address. Held by one server alone.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
    /// Every row. Read once, at start; rows whose time is over count too.
    async fn load(&self) -> Result<Vec<Lease>, LeaseError>;

    /// Writes the row of `lease.address` in place of what stood there. It is durable when this
    /// returns: the client is told only then. Concurrent writes may be committed together.
    async fn put(&self, lease: &Lease) -> Result<(), LeaseError>;
}

/// Leases that end with the process: for tests, and for servers that give no addresses.
#[derive(Debug, Default)]
pub struct MemoryLeases {
    rows: Mutex<BTreeMap<Ipv4Addr, Lease>>,
}

impl MemoryLeases {
    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<Ipv4Addr, Lease>> {
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn load(&self) -> Result<Vec<Lease>, LeaseError> {
        Ok(self.rows().values().cloned().collect())
    }

    async fn put(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.rows().insert(lease.address, lease.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::bytes;
    use super::*;

    #[test]
    fn a_machine_is_its_card_whatever_its_client_id() {
        let key = |options: &[(u8, &[u8])], hlen: u8| {
            let mut packet = bytes(options);
            packet[2] = hlen;
            ClientKey::of(&Packet::decode(&packet).unwrap()).map(|k| k.to_string())
        };
        let mac = Some("ether/52:54:00:ab:cd:01".to_owned());
        assert_eq!(key(&[(53, &[1])], 6), mac);
        assert_eq!(key(&[(53, &[1]), (61, &[255, 1, 2])], 6), mac);
        assert_eq!(key(&[(53, &[1]), (61, &[255, 1, 2])], 0), Some("id/ff0102".to_owned()));
        assert_eq!(key(&[(53, &[1])], 0), None);
    }

    /// The stored form is frozen: a later version must read it.
    #[test]
    fn a_row_reads_back() {
        let bound = r#"{"address":"10.0.0.9","expires":"2026-11-20T00:00:00Z","state":"bound","client":"ether/52:54:00:ab:cd:01"}"#;
        let quarantined = r#"{"address":"10.0.0.9","expires":"2026-11-20T00:00:00Z","state":"quarantined"}"#;
        for text in [bound, quarantined] {
            let lease: Lease = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&lease).unwrap(), text);
        }
    }
}
