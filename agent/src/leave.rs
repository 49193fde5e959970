//! Leaving the machine.

use nix::sys::reboot::{RebootMode, reboot};

/// Restarts the machine through its firmware. Comes back only when the kernel refuses.
pub fn restart() -> nix::Error {
    nix::unistd::sync();
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Switches the machine off. Comes back only when the kernel refuses.
pub fn power_off() -> nix::Error {
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
