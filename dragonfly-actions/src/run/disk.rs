//! A disk that may be written, and the guards before it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use dragonfly_core::action::{ActionError, Permit};
use dragonfly_core::inventory::Disk;
use dragonfly_core::resource::hardware::Overwrite;
use nix::errno::Errno;

use super::fail::{OrFailed, because};
use super::host::{Done, Host, read};
use super::marker::{self, Marker};
use super::mount::patiently;
use super::sys;
use crate::plan::DiskSelector;
use crate::probe::{self, Look};
use crate::table::{self, Table};

/// What uses a disk right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Where it, or a partition of it, is mounted or swapped to: `/dev/sda1 on /mnt`.
    pub mounts: Vec<String>,
    /// What is assembled from it, by kernel name: `md0`, `dm-1`.
    pub holders: Vec<String>,
}

impl DiskUse {
    /// Whether nothing uses it.
    pub fn is_free(&self) -> bool {
        self.mounts.is_empty() && self.holders.is_empty()
    }
}

/// A disk that is open for this run.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    pub(crate) name: String,
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) sector: u32,
    host: Host,
}

impl Host {
    /// What uses a disk or one of its partitions.
    pub fn usage(&self, disk: &str) -> DiskUse {
        let at = self.sys.join("block").join(disk);
        let mut parts = vec![(disk.to_owned(), at.clone())];
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists() {
                parts.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
        }
        let mut usage = DiskUse::default();
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let swaps = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        for (name, path) in parts {
            for holder in fs::read_dir(path.join("holders")).into_iter().flatten().flatten() {
                usage.holders.push(holder.file_name().to_string_lossy().into_owned());
            }
            // proc(5): mount id, parent id, major:minor, root, mount point, ...; btrfs and their like
            // show a number of their own, so that the source after ` - type` is looked at as well.
            let number = read(&path.join("dev"));
            let node = format!("/dev/{name}");
            for line in mounts.lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
                let by_number = number.as_deref().is_some_and(|number| fields.get(2) == Some(&number));
                if by_number || source == Some(&node) {
                    usage.mounts.push(format!("{node} on {}", fields.get(4).unwrap_or(&"?")));
                }
            }
            if swaps.lines().any(|line| line.split_whitespace().next() == Some(&node)) {
                usage.mounts.push(format!("{node} as swap"));
            }
        }
        usage
    }

    /// The disk that a selector means, among this machine's.
    pub(crate) fn choose(&self, selector: &DiskSelector) -> Result<Disk, ActionError> {
        let mut disks = self.disks();
        // Named disks may be of a kind that is never chosen by itself.
        if let Some(name) = selector.kernel_name()
            && !disks.iter().any(|d| d.name == name)
        {
            disks.extend(self.disk(name));
        }
        selector.choose(&disks).cloned().map_err(|error| ActionError::because(error.to_string()))
    }

    /// Opens a disk for reading, without any guard.
    pub(crate) fn open_disk(&self, disk: &Disk, write: bool) -> Result<OpenDisk, ActionError> {
        let node = self.dev.join(&disk.name);
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_CLOEXEC)
            .open(&node)
            .or_failed(|| format!("{} could not be opened", node.display()))?;
        let kind = file.metadata().or_failed(|| format!("{} could not be examined", node.display()))?.file_type();
        if !kind.is_block_device() {
            return because(format!("{} is not a block device", node.display()));
        }
        let size = sys::size(&file).or_failed(|| format!("{} does not tell its size", node.display()))?;
        let sector = sys::sector(&file).or_failed(|| format!("{} does not tell its sector size", node.display()))?;
        Ok(OpenDisk { name: disk.name.clone(), file, size, sector, host: self.clone() })
    }

    /// Whether a run has written this disk: in this boot, or by its mark in an earlier one.
    pub(crate) fn is_ours(&self, disk: &mut OpenDisk, permit: &Permit) -> bool {
        self.noted(permit.workflow_uid, &disk.name).is_some()
            || matches!(Marker::read(&mut disk.file), Ok(Some(mark)) if mark.workflow_uid == permit.workflow_uid)
    }

    /// Opens a disk for writing, if this run [may write](Self::may_write) to it and nothing uses it.
    pub(crate) fn claim(&self, disk: &Disk, permit: &Permit) -> Result<OpenDisk, ActionError> {
        let usage = self.usage(&disk.name);
        if !usage.is_free() {
            let mut users = usage.mounts;
            users.extend(usage.holders.iter().map(|holder| format!("a member of {holder}")));
            return because(format!(
                "{} is in use ({}); nothing was written. Unmount it or stop the array, or choose another disk",
                disk.name,
                users.join(", ")
            ));
        }
        // Nobody else may claim it in between: the kernel gives an exclusive open once.
        if let Err(error) = patiently(|| self.hold(&disk.name)) {
            let what = match error {
                Errno::EBUSY => format!("{} is held by another user of the kernel; nothing was written", disk.name),
                _ => {
                    let node = self.dev.join(&disk.name);
                    format!("{} could not be opened; nothing was written", node.display())
                }
            };
            return Err(ActionError::failed(what, error));
        }
        let mut open = self.open_disk(disk, true)?;
        self.may_write(disk, &mut open, permit)?;
        Ok(open)
    }

    /// Notes on every disk of this run that the machine was handed over: under this authorisation nothing is written to
    /// them again. A disk without room for our mark is left as it is. Blocks.
    ///
    /// # Errors
    /// A disk that could not be read or written; those before it bear the note.
    pub fn hand_over(&self, permit: &Permit) -> Result<(), ActionError> {
        for disk in self.ours(permit) {
            let mut open = self.open_disk(&disk, true)?;
            let mark = Marker::read(&mut open.file).or_failed(|| format!("{} could not be read", open.name))?;
            let Some(mark) = mark.filter(|mark| mark.workflow_uid == permit.workflow_uid) else { continue };
            let mark = Marker { generation: permit.generation, handed_over: true, ..mark };
            open.write_at(&mark.encode(), marker::OFFSET)?;
            open.sync()?;
        }
        Ok(())
    }

    /// Whether a run may write to a disk that nothing uses: it carries no data, or this run has written it before, or
    /// the authorisation says so. The error says why not.
    pub(crate) fn may_write(&self, disk: &Disk, open: &mut OpenDisk, permit: &Permit) -> Result<(), ActionError> {
        let mark = Marker::read(&mut open.file).or_failed(|| format!("{} could not be read", open.name))?;
        let look = open.look()?;
        judge(disk, mark.as_ref(), &look, permit, self.noted(permit.workflow_uid, &disk.name).is_some())
            .map_err(ActionError::because)
    }

    /// Opens a disk as its only user, and lets go of it: an error where somebody has it.
    pub(crate) fn hold(&self, disk: &str) -> nix::Result<()> {
        let mut exclusive = OpenOptions::new();
        exclusive.read(true).custom_flags(libc::O_EXCL | libc::O_CLOEXEC);
        let held = exclusive.open(self.dev.join(disk)).map(drop);
        held.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// Whether a disk may be written. The error says why not and what to do.
fn judge(disk: &Disk, mark: Option<&Marker>, look: &Look, permit: &Permit, noted: bool) -> Result<(), String> {
    if let Some(mark) = mark
        && mark.generation > permit.generation
        && mark.workflow_uid != permit.workflow_uid
    {
        return Err(format!(
            "{} was written by a later run (authorisation {}, this is {}); nothing was written. \
             If this run is the one that is wanted, reimage the machine anew",
            disk.name, mark.generation, permit.generation
        ));
    }
    if let Some(mark) = mark
        && mark.handed_over
        && mark.workflow_uid == permit.workflow_uid
        && mark.generation >= permit.generation
    {
        return Err(format!(
            "{} bears what this run installed, and the machine was handed over (authorisation {}); nothing was written. \
             The server's records may be of an earlier time: to install this machine again, reimage it anew",
            disk.name, mark.generation
        ));
    }
    let ours = noted || mark.is_some_and(|mark| mark.workflow_uid == permit.workflow_uid);
    let allowed = match &permit.overwrite {
        Overwrite::All => true,
        Overwrite::Disks(disks) => disks.iter().any(|allowed| {
            let allowed = allowed.trim();
            allowed.strip_prefix("/dev/").unwrap_or(allowed) == disk.name
                || disk.serial.as_deref().is_some_and(|serial| serial.trim() == allowed)
        }),
        Overwrite::Blank => false,
    };
    if look.is_blank() || ours || allowed {
        return Ok(());
    }
    Err(format!(
        "{} carries data ({}); nothing was written. To destroy it, reimage the machine and allow this disk by its {}",
        disk.name,
        look.names().join(", "),
        match &disk.serial {
            Some(serial) => format!("serial `{}`", serial.trim()),
            None => format!("name `{}`", disk.name),
        }
    ))
}

impl OpenDisk {
    /// What is on it.
    pub(crate) fn look(&mut self) -> Result<Look, ActionError> {
        probe::look(&mut self.file, self.size, self.sector).or_failed(|| format!("{} could not be read", self.name))
    }

    /// Its partition table.
    pub(crate) fn table(&mut self) -> Result<Option<Table>, ActionError> {
        let (size, sector) = (self.size, self.sector);
        table::read(&mut self.file, size, sector)
            .or_failed(|| format!("{}: its partition table is of no use", self.name))
    }

    /// Writes at an offset.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ActionError> {
        self.file
            .write_all_at(bytes, offset)
            .or_failed(|| format!("{} could not be written at byte {offset}", self.name))
    }

    /// Makes a range read as zeros.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), ActionError> {
        zero(&self.file, offset, length).or_failed(|| format!("{} could not be zeroed at byte {offset}", self.name))
    }

    /// Everything that was written is on the medium.
    pub(crate) fn sync(&self) -> Result<(), ActionError> {
        self.file
            .sync_all()
            .or_failed(|| format!("{}: what was written did not reach it; the disk may be failing", self.name))
    }

    /// Leaves our mark, where its place is free.
    pub(crate) fn mark(
        &mut self,
        permit: &Permit,
        step: &str,
        complete: bool,
        content: &str,
    ) -> Result<(), ActionError> {
        if self.size < marker::OFFSET + marker::LENGTH {
            return Ok(());
        }
        let taken = match self.table() {
            Ok(Some(table)) => !marker::is_free(table.partitions(), self.sector),
            _ => false,
        };
        let there = table::read_at(&mut self.file, marker::OFFSET, marker::LENGTH as usize)
            .or_failed(|| format!("{} could not be read", self.name))?;
        let foreign = Marker::parse(&there).is_none() && there.iter().any(|b| *b != 0);
        if taken || foreign {
            return Ok(());
        }
        let mark = Marker {
            workflow_uid: permit.workflow_uid,
            generation: permit.generation,
            step: step.to_owned(),
            complete,
            content: content.to_owned(),
            handed_over: false,
        };
        self.write_at(&mark.encode(), marker::OFFSET)
    }

    /// Remembers that this run has written to it.
    pub(crate) fn note(&self, permit: &Permit, done: Done) {
        self.host.note(permit.workflow_uid, &self.name, done);
    }
}

/// Makes a range of a device or file read as zeros. By the kernel where it can; else by writing them.
pub(crate) fn zero(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let aligned = offset.is_multiple_of(512) && length.is_multiple_of(512);
    if aligned && sys::zero_out(file, offset, length).is_ok() {
        return Ok(());
    }
    let zeros = vec![0u8; 1 << 20];
    let (mut at, end) = (offset, offset.saturating_add(length));
    while at < end {
        let part = (end - at).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Signature;
    use dragonfly_core::inventory::Bytes;
    use uuid::Uuid;

    #[test]
    fn data_is_destroyed_only_with_leave() {
        let disk = Disk {
            name: "sda".into(),
            size: Bytes(1 << 40),
            sector: None,
            model: None,
            serial: Some(" S1 ".into()),
            wwn: None,
            bus: None,
            rotational: None,
            removable: None,
            wear_percent: None,
            blank: None,
            signatures: Vec::new(),
        };
        let full = Look { signatures: vec![Signature::bare("gpt"), Signature::bare("ext4")], ..Look::default() };
        let blank = Look::default();
        let me = Uuid::from_u128(1);
        let permit = |overwrite: Overwrite| Permit { workflow_uid: me, generation: 5, overwrite };
        let mark = |uid: u128, generation: u64| Marker {
            workflow_uid: Uuid::from_u128(uid),
            generation,
            step: "partition".into(),
            complete: false,
            content: String::new(),
            handed_over: false,
        };
        let over = |uid: u128, generation: u64| Marker { complete: true, handed_over: true, ..mark(uid, generation) };
        let disks = |names: &[&str]| Overwrite::Disks(names.iter().map(|n| (*n).to_owned()).collect());
        let table = [
            ("blank", None, &blank, Overwrite::Blank, false, Ok(())),
            ("full", None, &full, Overwrite::Blank, false, Err("carries data (gpt, ext4)")),
            ("full, all", None, &full, Overwrite::All, false, Ok(())),
            ("full, by serial", None, &full, disks(&["S1"]), false, Ok(())),
            ("full, by name", None, &full, disks(&["/dev/sda"]), false, Ok(())),
            ("full, another allowed", None, &full, disks(&["sdb", "S2"]), false, Err("serial `S1`")),
            ("ours from before a restart", Some(mark(1, 5)), &full, Overwrite::Blank, false, Ok(())),
            ("ours from this boot", None, &full, Overwrite::Blank, true, Ok(())),
            ("an older run's", Some(mark(2, 4)), &full, Overwrite::Blank, false, Err("carries data")),
            (
                "a later run's",
                Some(mark(2, 6)),
                &full,
                Overwrite::All,
                false,
                Err("later run (authorisation 6, this is 5)"),
            ),
            ("ours, handed over", Some(over(1, 5)), &full, Overwrite::All, false, Err("was handed over")),
            ("ours, handed over in this boot", Some(over(1, 5)), &full, Overwrite::All, true, Err("was handed over")),
            ("ours, authorised anew", Some(over(1, 4)), &full, Overwrite::Blank, false, Ok(())),
            ("an older run's, handed over", Some(over(2, 4)), &full, Overwrite::All, false, Ok(())),
            ("a later run's, blank", Some(mark(2, 6)), &blank, Overwrite::Blank, false, Err("later run")),
        ];
        for (name, mark, look, overwrite, noted, want) in table {
            let got = judge(&disk, mark.as_ref(), look, &permit(overwrite), noted);
            match (got, want) {
                (Ok(()), Ok(())) => {}
                (Err(said), Err(want)) => assert!(said.contains(want), "{name}: {said}"),
                (got, want) => panic!("{name}: {got:?}, wanted {want:?}"),
            }
        }
    }
}
