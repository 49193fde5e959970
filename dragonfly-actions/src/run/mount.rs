//! A file system that is mounted for as long as a value lives.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dragonfly_core::action::ActionError;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::fail::{OrFailed, because};
use super::host::Host;
use super::place::Place;
use super::sys;

/// A mounted file system. Unmounted when dropped; [`unmount`](Self::unmount) says whether that went well.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
    /// Ours to remove afterwards.
    scratch: bool,
    mounted: bool,
    /// There where it is only for reading; ends when it is unmounted.
    unwritten: Option<Unwritten>,
}

/// A partition that nobody can write to, as long as this value lives.
#[derive(Debug)]
struct Unwritten(File);

impl Unwritten {
    /// Nothing else may have it mounted: its writes would fail.
    fn new(node: &Path, name: &str) -> Result<Option<Self>, ActionError> {
        let failed = || format!("{name} could not be kept from being written");
        let mut exclusive = OpenOptions::new();
        exclusive.read(true).custom_flags(libc::O_EXCL | libc::O_CLOEXEC);
        // Let go at once: the mount needs that claim for itself.
        patiently(|| {
            exclusive.open(node).map(drop).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        })
        .or_failed(|| format!("{name} is in use, or cannot be opened"))?;
        let file = File::open(node).or_failed(failed)?;
        if sys::is_read_only(&file).or_failed(failed)? {
            return Ok(None);
        }
        // What a program before us wrote through this node, and the kernel still has to write.
        file.sync_all().or_failed(failed)?;
        sys::set_read_only(&file, true).or_failed(failed)?;
        Ok(Some(Self(file)))
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        // If it fails, the step that wants to write will say so.
        let _ = sys::set_read_only(&self.0, false);
    }
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

/// Has a driver leave its journal alone. By themselves all of these replay it, which writes, also where
/// the mount is read-only; and where the device cannot be written they refuse to mount. What was
/// unmounted cleanly has nothing in it.
fn no_replay(driver: &str) -> Option<&'static str> {
    match driver {
        "ext4" => Some("noload"),
        "xfs" | "f2fs" => Some("norecovery"),
        // Linux 5.9; its name before was taken out in 6.8.
        "btrfs" => Some("rescue=nologreplay"),
        _ => None,
    }
}

impl Mount {
    /// Mounts a partition on a directory of ours; unless it is for writing, not a byte of the partition
    /// changes. Blocks.
    pub(crate) fn partition(host: &Host, place: &Place, write: bool) -> Result<Self, ActionError> {
        let node = host.open_place(place)?;
        std::fs::create_dir_all(&host.scratch).or_failed(|| format!("{} could not be made", host.scratch.display()))?;
        let at = host.scratch.join(format!("mnt-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&at).or_failed(|| format!("{} could not be made", at.display()))?;
        // From here on the directory goes with the value.
        let mut this = Self { at, scratch: true, mounted: false, unwritten: None };
        this.attach(place, &node, write)?;
        Ok(this)
    }

    /// Mounts a partition on a directory that is there. Blocks.
    pub(crate) fn partition_at(host: &Host, place: &Place, at: PathBuf, write: bool) -> Result<Self, ActionError> {
        let node = host.open_place(place)?;
        let mut this = Self { at, scratch: false, mounted: false, unwritten: None };
        this.attach(place, &node, write)?;
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
        let (flags, options) = if write { (MsFlags::empty(), None) } else { (MsFlags::MS_RDONLY, no_replay(driver)) };
        // The flag and the option do not suffice: with both, ext4 still deletes the files that were open
        // when the machine stopped.
        let unwritten = if write { None } else { Unwritten::new(node, &name)? };
        // Installed systems may bring device nodes and set-user-id programs; nothing of it is run by
        // this mount, and a chroot needs them.
        patiently(|| mount(Some(node), &self.at, Some(driver), flags, options)).map_err(|error| {
            let advice = match error {
                Errno::ENODEV => format!("this kernel has no driver for {driver}"),
                Errno::EUCLEAN | Errno::EINVAL => format!("its {driver} file system is damaged"),
                _ => format!("its {driver} file system was not taken"),
            };
            ActionError::failed(format!("{name} could not be mounted: {advice}"), error)
        })?;
        self.mounted = true;
        self.unwritten = unwritten;
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
        drop(self.unwritten.take());
        if self.scratch {
            let _ = std::fs::remove_dir(&self.at);
        }
    }
}
