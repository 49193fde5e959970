//! Finds the partition that a [`Target`] means.

use std::path::PathBuf;

use dragonfly_core::action::{ActionError, Permit};
use dragonfly_core::inventory::Disk;

use super::disk::OpenDisk;
use super::fail::{OrFailed, because};
use super::host::Host;
use crate::plan::{DiskSelector, Given, Target};
use crate::probe::{self, Signature};
use crate::table::Partition;

/// A partition that was found.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) disk: Disk,
    pub(crate) partition: Partition,
    /// First byte on the disk.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) length: u64,
    /// What is on it.
    pub(crate) holds: Option<Signature>,
}

impl Place {
    /// For a person: `sda3`.
    pub(crate) fn name(&self) -> String {
        super::node::partition_name(&self.disk.name, self.partition.number)
    }
}

/// One partition of one disk, before it is chosen.
struct Candidate {
    place: Place,
    ours: bool,
}

impl Host {
    /// The disk that is meant where none is named: one that this run has written, else the only one.
    pub(crate) fn choose_or_ours(&self, selector: Option<&DiskSelector>, permit: &Permit) -> Result<Disk, ActionError> {
        if let Some(selector) = selector {
            return self.choose(selector);
        }
        let ours: Vec<Disk> = self.ours(permit);
        match &ours[..] {
            [one] => Ok(one.clone()),
            _ => self.choose(&DiskSelector::default()),
        }
    }

    /// Disks that this run has written.
    pub(crate) fn ours(&self, permit: &Permit) -> Vec<Disk> {
        let mut disks = self.disks();
        for name in self.noted_disks(permit.workflow_uid) {
            if !disks.iter().any(|d| d.name == name) {
                disks.extend(self.disk(&name));
            }
        }
        disks.retain(|disk| self.open_disk(disk, false).is_ok_and(|mut open| self.is_ours(&mut open, permit)));
        disks
    }

    /// The partition that a target means.
    pub(crate) fn find(&self, target: &Target, permit: &Permit) -> Result<Place, ActionError> {
        let disks = match (&target.disk, &target.label) {
            (Some(selector), _) => vec![self.choose(selector)?],
            (None, None) => vec![self.choose_or_ours(None, permit)?],
            (None, Some(_)) => {
                let mut disks = self.disks();
                for disk in self.ours(permit) {
                    if !disks.iter().any(|d| d.name == disk.name) {
                        disks.push(disk);
                    }
                }
                disks
            }
        };
        let mut all = Vec::new();
        for disk in &disks {
            let mut open = match self.open_disk(disk, false) {
                Ok(open) => open,
                // Another disk's trouble is not this step's, unless it was the one asked for.
                Err(_) if target.disk.is_none() && target.label.is_some() => continue,
                Err(error) => return Err(error),
            };
            match self.candidates(disk, &mut open, permit) {
                Ok(found) => all.extend(found),
                Err(_) if target.disk.is_none() && disks.len() > 1 => {}
                Err(error) => return Err(error),
            }
        }
        choose(target, all)
    }

    fn candidates(&self, disk: &Disk, open: &mut OpenDisk, permit: &Permit) -> Result<Vec<Candidate>, ActionError> {
        let ours = self.is_ours(open, permit);
        Ok(places(disk, open)?.into_iter().map(|place| Candidate { place, ours }).collect())
    }

    /// The partitions of a disk.
    pub(crate) fn partitions(&self, disk: &Disk) -> Result<Vec<Place>, ActionError> {
        places(disk, &mut self.open_disk(disk, false)?)
    }

    /// What a partition holds now.
    pub(crate) fn find_on(&self, place: &Place) -> Result<Option<Signature>, ActionError> {
        let mut disk = self.open_disk(&place.disk, false)?;
        // What was written through the partition's node may not be in this node's cache.
        super::sys::flush(&disk.file).or_failed(|| format!("{} could not be flushed", disk.name))?;
        probe::file_system(&mut disk.file, place.start, place.length)
            .or_failed(|| format!("{} could not be read", disk.name))
    }

    /// A node for the partition, after the kernel has been told of its whole table. Blocks.
    pub(crate) fn open_place(&self, place: &Place) -> Result<PathBuf, ActionError> {
        let mut disk = self.open_disk(&place.disk, false)?;
        if let Some(table) = disk.table()? {
            self.announce(&disk, table.partitions())?;
        }
        self.partition_node(&disk.name, place.partition.number)
    }
}

fn places(disk: &Disk, open: &mut OpenDisk) -> Result<Vec<Place>, ActionError> {
    let Some(table) = open.table()? else { return Ok(Vec::new()) };
    let sector = u64::from(open.sector);
    let mut found = Vec::new();
    for partition in table.partitions() {
        let start = partition.first_lba.saturating_mul(sector);
        let length = partition.sectors.saturating_mul(sector).min(open.size.saturating_sub(start));
        let holds = probe::file_system(&mut open.file, start, length)
            .or_failed(|| format!("{} could not be read", open.name))?;
        found.push(Place { disk: disk.clone(), partition: partition.clone(), start, length, holds });
    }
    Ok(found)
}

/// The one that is meant: names in the table before labels of file systems, disks of this run before others.
fn choose(target: &Target, all: Vec<Candidate>) -> Result<Place, ActionError> {
    let by_name = |c: &Candidate| target.label.as_deref() == Some(c.place.partition.name.as_str());
    let by_label = |c: &Candidate| {
        let label = c.place.holds.as_ref().and_then(|s| s.label.as_deref());
        label.is_some() && label == target.label.as_deref()
    };
    let by_number = |c: &Candidate| target.partition == Some(Given::Known(c.place.partition.number));
    let there: Vec<String> = all
        .iter()
        .map(|c| {
            let label = c.place.holds.as_ref().and_then(|s| s.label.clone());
            match (c.place.partition.name.as_str(), label) {
                ("", None) => c.place.name(),
                ("", Some(label)) => format!("{} `{label}`", c.place.name()),
                (name, _) => format!("{} `{name}`", c.place.name()),
            }
        })
        .collect();
    let rules: [&dyn Fn(&Candidate) -> bool; 6] = [
        &|c| c.ours && by_name(c),
        &|c| c.ours && by_label(c),
        &|c| by_name(c),
        &|c| by_label(c),
        &|c| c.ours && by_number(c),
        &|c| by_number(c),
    ];
    let mut all = all;
    for rule in rules {
        let fit: Vec<usize> = all.iter().enumerate().filter(|(_, c)| rule(c)).map(|(i, _)| i).collect();
        match fit[..] {
            [] => {}
            [one] => return Ok(all.swap_remove(one).place),
            _ => {
                let names: Vec<_> = fit.iter().map(|i| all[*i].place.name()).collect();
                return because(format!("{target} is on {}; say which with `disk`", names.join(" and on ")));
            }
        }
    }
    because(match there.len() {
        0 => format!("{target} is not there: no disk has a partition"),
        _ => format!("{target} is not there; there are: {}", there.join(", ")),
    })
}
