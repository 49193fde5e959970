//! Leases in memory, for several engines in one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::coordinate::{Lease, LeaseError, LeaseStore};

/// Leases in memory.
#[derive(Debug, Default)]
pub struct MemoryLeases(Mutex<(u64, BTreeMap<String, Lease>)>);

impl MemoryLeases {
    fn write(&self, name: &str, lease: &Lease, is_new: bool) -> Result<Lease, LeaseError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = all.1.get(name).map(|lease| lease.version.clone());
        let may = if is_new { version.is_none() } else { version.as_ref() == Some(&lease.version) };
        if !may {
            return Err(LeaseError::Conflict { name: name.to_owned() });
        }
        all.0 += 1;
        let uid = if is_new { format!("lease-{}", all.0) } else { lease.uid.clone() };
        let written = Lease { uid, version: all.0.to_string(), ..lease.clone() };
        all.1.insert(name.to_owned(), written.clone());
        Ok(written)
    }
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn get(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).1.get(name).cloned())
    }

    async fn create(&self, name: &str, lease: &Lease) -> Result<Lease, LeaseError> {
        self.write(name, lease, true)
    }

    async fn replace(&self, name: &str, lease: &Lease) -> Result<Lease, LeaseError> {
        self.write(name, lease, false)
    }
}
