//! What is known of a machine's power beside its conditions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The annotation of a Workflow that others carry out, with `none`: its machine is not to be booted for it.
pub const POWER_ANNOTATION: &str = "dragonfly.computer/power";

/// What is done with a machine's power when something is assigned to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerPolicy {
    /// Nothing: somebody else boots it.
    None,
    /// A machine that is off is booted from the network; one that is on is left alone.
    On,
    /// A machine that is off, or on and not waiting in the agent, is booted from the network.
    #[default]
    Cycle,
}

/// What a machine's controller was told last, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PowerStatus {
    /// The last operation that changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<PowerOperation>,
    /// When its power was last cycled from here and seen on again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycled_at: Option<Timestamp>,
    /// How often in a row it could not be booted for its assignment.
    pub failures: u32,
    /// The leadership under which it is booted for its assignment: an earlier leader does so no more.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub term: u64,
}

/// One operation and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PowerOperation {
    /// Its word: `on`, `network-boot`.
    pub operation: String,
    /// When it ended.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why it failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether the same may go well later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_repeat: bool,
}
