//! The last thing an agent does.

use std::convert::Infallible;
use std::path::PathBuf;

use dragonfly_core::action::ActionError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
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

/// Leaves, at once: caches are written out, file systems on disks are unmounted or at least made
/// read-only, then the kernel is told. Blocks, and does not come back
/// unless it fails. Call it when the server has acknowledged the hand-over, as process 1 or with
/// `CAP_SYS_BOOT`.
pub fn leave(how: Leave) -> Result<Infallible, ActionError> {
    nix::unistd::sync();
    settle();
    let (mode, what) = match how {
        Leave::Kexec => (RebootMode::RB_KEXEC, "start the loaded kernel"),
        Leave::Reboot => (RebootMode::RB_AUTOBOOT, "reboot"),
        Leave::PowerOff => (RebootMode::RB_POWER_OFF, "power off"),
    };
    reboot(mode).map_err(|error| ActionError::failed(format!("the kernel refuses to {what}"), error))
}

/// Neither kexec nor a reset writes anything back: what is still mounted would have to be repaired by
/// the system that comes next.
fn settle() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in on_disks(&table) {
        if umount2(&point, MntFlags::UMOUNT_NOFOLLOW).is_err() {
            // In use. Nothing more can be done if this fails, and nobody is left to tell.
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            let _ = mount(None::<&str>, &point, None::<&str>, flags, None::<&str>);
        }
    }
    nix::unistd::sync();
}

/// Where disks are mounted, last first (proc_pid_mountinfo(5)). The root stays: the agent lives in it.
fn on_disks(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let source = system.split(' ').nth(1)?;
        let point = mount.split(' ').nth(4)?;
        (source.starts_with("/dev/") && point != "/").then(|| PathBuf::from(unescape(point)))
    };
    mountinfo.lines().rev().filter_map(point).collect()
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_last_first() {
        let table = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            23 22 0:20 / /proc rw shared:5 - proc proc rw\n\
            30 22 254:3 / /mnt/a\\040b rw,noatime shared:7 - ext4 /dev/vda3 rw\n\
            31 30 254:2 / /mnt/a\\040b/boot rw - vfat /dev/vda2 rw\n\
            32 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
            broken\n";
        assert_eq!(on_disks(table), [PathBuf::from("/mnt/a b/boot"), PathBuf::from("/mnt/a b")]);
    }

    #[test]
    fn only_hand_overs_leave() {
        for name in ["kexec", "chain", "reboot", "poweroff"] {
            assert!(crate::is_hand_over(name) && Leave::of(name).is_some(), "{name}");
        }
        for name in ["partition", "writefile", "", "Kexec"] {
            assert!(!crate::is_hand_over(name) && Leave::of(name).is_none(), "{name}");
        }
    }
}
