//! What the system's own `/etc/fstab` wants mounted, as far as this run may.

use dragonfly_core::action::ActionError;
use dragonfly_core::inventory::Disk;

use super::Root;
use crate::run::bootentry::Files;
use crate::run::fstab::{self, Line};
use crate::run::place::Place;

/// A line whose partition is there and is not mounted.
#[derive(Debug)]
pub(super) struct LeftOut {
    path: String,
    /// What was found, why it is not mounted, and what to do.
    text: String,
}

impl Root {
    /// Mounts what a boot loader or a package's script needs. A label is easily found on a disk that has
    /// nothing to do with this system, an older installation's: there only what this run may write is
    /// taken, by the rule for every other write.
    pub(super) fn attach_from_fstab(&mut self) -> Result<(), ActionError> {
        let table = self.read("/etc/fstab").unwrap_or_default();
        for line in fstab::needed(&table) {
            if self.mounted_at(&line.path).is_some() {
                continue;
            }
            let found = self.partitions_of(&line);
            if found.is_empty() {
                let (source, path) = (&line.source, &line.path);
                self.cx.log(format!("/etc/fstab: no partition is {source}; {path} is not mounted"));
            }
            for place in found {
                if place.disk.name == self.place.disk.name && place.partition.number == self.place.partition.number {
                    break;
                }
                if let Err(error) = self.admit(&place.disk) {
                    let advice = format!(
                        "make {} a partition of {} (`partition`, `format`), or correct the line (`writefile`)",
                        line.source, self.place.disk.name
                    );
                    self.leave_out(&line, &place, &error.to_string(), &advice);
                } else if !self.write && !self.has(&line.path) {
                    let advice = "put a file into that directory before this step (`writefile`)";
                    self.leave_out(&line, &place, "there is no such directory, and this step makes none", advice);
                } else {
                    self.attach(place, &line.path)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// All that a line may mean: on the root's disk, then on others that this run has written, then on
    /// any other.
    fn partitions_of(&self, line: &Line) -> Vec<Place> {
        let mut disks = vec![self.place.disk.clone()];
        for disk in self.host.ours(self.cx.permit()).into_iter().chain(self.host.disks()) {
            if disks.iter().all(|known| known.name != disk.name) {
                disks.push(disk);
            }
        }
        // Another disk's trouble is not this step's.
        let places = disks.iter().flat_map(|disk| self.host.partitions(disk).unwrap_or_default());
        places.filter(|place| line.source.is(place)).collect()
    }

    /// Whether partitions of a disk may be mounted.
    fn admit(&mut self, disk: &Disk) -> Result<(), ActionError> {
        // Once for each: with the first of its partitions mounted the disk is in use, by us.
        if !self.disks.contains(&disk.name) {
            // Not noted as written: among a run's own disks later steps look for their targets first, and
            // this one may be allowed without being one of them.
            drop(self.host.claim(disk, self.cx.permit())?);
            self.disks.push(disk.name.clone());
        }
        Ok(())
    }

    fn leave_out(&mut self, line: &Line, place: &Place, why: &str, advice: &str) {
        let (Line { source, path }, name) = (line, place.name());
        self.cx.log(format!("/etc/fstab: {source} is {name}; {path} is not mounted: {why}"));
        let text = format!("{path} of its /etc/fstab is {source} on {name}, which is not mounted: {why}; or {advice}");
        self.left_out.push(LeftOut { path: path.clone(), text });
    }

    /// Which of these paths are not mounted though their partitions are there, with what to do.
    pub(crate) fn left_out(&self, paths: &[&str]) -> Option<String> {
        let missing = |out: &&LeftOut| paths.contains(&out.path.as_str()) && self.mounted_at(&out.path).is_none();
        let texts: Vec<&str> = self.left_out.iter().filter(missing).map(|out| out.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join(". "))
    }

    /// What went wrong, with those of these paths that are not mounted, where it may come from.
    pub(crate) fn with_left_out(&self, what: impl Into<String>, paths: &[&str]) -> String {
        let what = what.into();
        self.left_out(paths).map_or(what.clone(), |why| format!("{what}. {why}"))
    }
}
