//! Whether writes reach the disk, for whoever asks whether this store can do its work.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::place::create;
use super::{NAME, StoreError};

/// How often a write is tried while they fail, at most.
const PROBE: Duration = Duration::from_secs(3);
/// Room beside the file that must be had before a disk counts as not full: the file itself has some room of its own, in
/// which a small write finds place when a larger one does not.
const ROOM: usize = 256 << 10;

/// What became of the last writes.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Failing>>);

#[derive(Debug)]
struct Failing {
    what: String,
    probed: Option<Instant>,
}

/// What to do for who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Writes go well.
    Needless,
    /// Try one.
    Now,
    /// One was tried just now: it said this.
    Later(String),
}

impl Health {
    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write failed because the file did.
    pub(super) fn failed(&self, error: &StoreError) {
        let what = match error {
            StoreError::Unavailable { what, .. } => what.clone(),
            _ => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        };
        let mut failing = self.failing();
        let probed = failing.as_ref().and_then(|failing| failing.probed);
        *failing = Some(Failing { what, probed });
    }

    /// A write was tried, and all that it needs.
    pub(super) fn well(&self) {
        *self.failing() = None;
    }

    /// Whether to try a write. Of several that ask at once one is told to.
    pub(super) fn probe(&self, now: Instant) -> Probe {
        match &mut *self.failing() {
            None => Probe::Needless,
            Some(Failing { what, probed: Some(probed) }) if now.saturating_duration_since(*probed) < PROBE => {
                Probe::Later(what.clone())
            }
            Some(failing) => {
                failing.probed = Some(now);
                Probe::Now
            }
        }
    }
}

/// As a write failed before.
pub(super) fn still(what: String) -> StoreError {
    StoreError::Unavailable { store: NAME, what, source: None }
}

/// Whether there is room on the disk of this file, by taking some and giving it back.
pub(super) fn room_beside(path: &Path) -> io::Result<()> {
    let mut place = path.as_os_str().to_owned();
    place.push(".room");
    let mut file = create(Path::new(&place))?;
    // It has no name while it takes room: a process that is killed leaves none of it taken.
    std::fs::remove_file(&place)?;
    let block = [0x5a; 4096];
    for _ in 0..ROOM / block.len() {
        file.write_all(&block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_while_it_fails_and_now_and_then() {
        let (health, begin) = (Health::default(), Instant::now());
        assert_eq!(health.probe(begin), Probe::Needless);
        health.failed(&still("full".to_owned()));
        assert_eq!(health.probe(begin), Probe::Now);
        assert_eq!(health.probe(begin), Probe::Later("full".to_owned()));
        health.failed(&still("fuller".to_owned()));
        assert_eq!(health.probe(begin + PROBE / 2), Probe::Later("fuller".to_owned()));
        assert_eq!(health.probe(begin + PROBE), Probe::Now);
        health.well();
        assert_eq!(health.probe(begin + PROBE), Probe::Needless);
    }

    #[test]
    fn room_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        room_beside(&directory.path().join("store.redb")).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(room_beside(Path::new("/nowhere/store.redb")).is_err());
    }
}
