//! `grow`: a partition and its file system to the disk's end.

use serde::Deserialize;

use super::{Check, DiskSelector, Target};

/// Parameters of `grow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrowParams {
    /// The last partition of this disk; left out together with `target`, of the disk this run has written.
    pub disk: Option<DiskSelector>,
    /// This partition. It must be the one that lies last.
    pub target: Option<Target>,
    /// Leaves the file system as it is.
    pub partition_only: bool,
}

impl GrowParams {
    pub(crate) fn check(&self, check: &mut Check) {
        if let Some(disk) = &self.disk {
            disk.check("disk", check);
        }
        if let Some(target) = &self.target {
            target.check("target", check);
            if self.disk.is_some() {
                check.say("target", "stands beside `disk`; write the disk inside the target, or keep one of them");
            }
        }
    }
}
