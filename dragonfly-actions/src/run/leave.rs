//! The last thing an agent does.

use std::convert::Infallible;

use dragonfly_core::action::ActionError;
use nix::sys::reboot::{RebootMode, reboot};

/// How the machine is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leave {
    /// Into the kernel that `kexec` or `chain` has loaded.
    Kexec,
    /// Through the firmware.
    Reboot,
    /// Switched off.
    PowerOff,
}

impl Leave {
    /// How an action leaves. `None`: it does not.
    pub fn of(action: &str) -> Option<Self> {
        match action {
            crate::plan::KEXEC | crate::plan::CHAIN => Some(Self::Kexec),
            crate::plan::REBOOT => Some(Self::Reboot),
            crate::plan::POWEROFF => Some(Self::PowerOff),
            _ => None,
        }
    }
}

/// Leaves, at once: caches are written out, then the kernel is told. Blocks, and does not come back
/// unless it fails. Call it when the server has acknowledged the hand-over, as process 1 or with
/// `CAP_SYS_BOOT`.
pub fn leave(how: Leave) -> Result<Infallible, ActionError> {
    nix::unistd::sync();
    let (mode, what) = match how {
        Leave::Kexec => (RebootMode::RB_KEXEC, "start the loaded kernel"),
        Leave::Reboot => (RebootMode::RB_AUTOBOOT, "reboot"),
        Leave::PowerOff => (RebootMode::RB_POWER_OFF, "power off"),
    };
    reboot(mode).map_err(|error| ActionError::failed(format!("the kernel refuses to {what}"), error))
}
