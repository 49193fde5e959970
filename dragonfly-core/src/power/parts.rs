//! What a controller knows of its machine's parts.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::inventory;

/// Knowing the hardware, though the machine may be off.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// What is fitted, by the controller's names: a disk is `Disk.Bay.0`, not `nvme0n1`. What it does not tell
    /// is absent.
    async fn inventory(&self) -> Result<inventory::Inventory>;
}

/// Knowing what firmware the parts have.
#[async_trait]
pub trait Firmware: Send + Sync {
    /// Every part's, in the controller's order.
    async fn firmware(&self) -> Result<Vec<FirmwareVersion>>;
}

/// One part's firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareVersion {
    /// As the controller calls it: `BIOS`.
    pub name: String,
    /// As its maker writes it.
    pub version: String,
    /// Whether the controller can put another in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updateable: Option<bool>,
}
