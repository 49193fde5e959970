//! Machines of which it is in doubt which they are.

use super::{Condition, ConditionStatus, Hardware, condition};

/// The condition that two machines claim to be this one, or that it is not the one that it is to be.
pub const CONFLICT: &str = "IdentityConflict";

impl Hardware {
    /// The conflict about its identity that nobody has settled yet. Nothing is assigned to it until then.
    pub fn conflict(&self) -> Option<&Condition> {
        condition(&self.status.conditions, CONFLICT).filter(|conflict| conflict.status == ConditionStatus::True)
    }
}
