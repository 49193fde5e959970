//! A file system that is mounted for as long as a value lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dragonfly_core::action::ActionError;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::fail::{OrFailed, because};
use super::host::Host;
use super::place::Place;

/// A mounted file system. Unmounted when dropped; [`unmount`](Self::unmount) says whether that went well.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
    /// Ours to remove afterwards.
    scratch: bool,
    mounted: bool,
}

/// The kernel's driver for a file system, if we mount it.
fn driver(kind: &str) -> Option<&'static str> {
    Some(match kind {
        // One driver for the three of them.
        "ext2" | "ext3" | "ext4" => "ext4",
        "vfat" => "vfat",
        "xfs" => "xfs",
        "btrfs" => "btrfs",
        "f2fs" => "f2fs",
        _ => return None,
    })
}

impl Mount {
    /// Mounts a partition on a directory of ours. Blocks.
    pub(crate) fn partition(host: &Host, place: &Place, write: bool) -> Result<Self, ActionError> {
        let node = host.open_place(place)?;
        std::fs::create_dir_all(&host.scratch).or_failed(|| format!("{} could not be made", host.scratch.display()))?;
        let at = host.scratch.join(format!("mnt-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&at).or_failed(|| format!("{} could not be made", at.display()))?;
        // From here on the directory goes with the value.
        let mut this = Self { at, scratch: true, mounted: false };
        this.attach(place, &node, write)?;
        Ok(this)
    }

    /// Mounts a partition on a directory that is there. Blocks.
    pub(crate) fn partition_at(host: &Host, place: &Place, at: PathBuf) -> Result<Self, ActionError> {
        let node = host.open_place(place)?;
        let mut this = Self { at, scratch: false, mounted: false };
        this.attach(place, &node, true)?;
        Ok(this)
    }

    fn attach(&mut self, place: &Place, node: &Path, write: bool) -> Result<(), ActionError> {
        let name = place.name();
        let Some(holds) = &place.holds else {
            return because(format!(
                "{name} holds no file system; put a `format` or `image2disk` step before this one"
            ));
        };
        let Some(driver) = driver(holds.kind) else {
            return because(format!("{name} holds {}, which is not something that can be mounted here", holds.kind));
        };
        let flags = if write { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        // Installed systems may bring device nodes and set-user-id programs; nothing of it is run by
        // this mount, and a chroot needs them.
        patiently(|| mount(Some(node), &self.at, Some(driver), flags, None::<&str>)).map_err(|error| {
            let advice = match error {
                Errno::ENODEV => format!("this kernel has no driver for {driver}"),
                Errno::EUCLEAN | Errno::EINVAL => format!("its {driver} file system is damaged"),
                _ => format!("its {driver} file system was not taken"),
            };
            ActionError::failed(format!("{name} could not be mounted: {advice}"), error)
        })?;
        self.mounted = true;
        Ok(())
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Writes everything out and unmounts.
    pub(crate) fn unmount(mut self) -> Result<(), ActionError> {
        self.detach()
    }

    fn detach(&mut self) -> Result<(), ActionError> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        // A program that was just killed may hold it for a moment.
        match patiently(|| umount2(&self.at, MntFlags::UMOUNT_NOFOLLOW)) {
            Ok(()) => return Ok(()),
            Err(Errno::EBUSY) => {}
            Err(error) => {
                return Err(ActionError::failed(format!("{} could not be unmounted", self.at.display()), error));
            }
        }
        let _ = umount2(&self.at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        because(format!(
            "{} was still in use and was detached; what was written last may be missing",
            self.at.display()
        ))
    }
}

/// Tries for a second while something is busy: a process that another thread starts holds our exclusive
/// opens from fork to exec.
pub(crate) fn patiently(mut work: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    for _ in 0..50 {
        match work() {
            Err(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
    work()
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Too late to tell anybody; the paths that matter call `unmount`.
        let _ = self.detach();
        if self.scratch {
            let _ = std::fs::remove_dir(&self.at);
        }
    }
}
