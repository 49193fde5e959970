//! Listeners that remember.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::action::{Progress, ProgressSink};
use crate::boot::{BootObserver, Sighting};

/// Remembers what a step reports. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RecordingSink(Arc<Mutex<(Vec<Progress>, Vec<String>)>>);

impl RecordingSink {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every report of progress, in order.
    pub fn progress(&self) -> Vec<Progress> {
        self.read().0.clone()
    }

    /// Every line of the log, in order.
    pub fn lines(&self) -> Vec<String> {
        self.read().1.clone()
    }

    fn read(&self) -> MutexGuard<'_, (Vec<Progress>, Vec<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressSink for RecordingSink {
    fn report(&self, progress: Progress) {
        self.read().0.push(progress);
    }

    fn log(&self, line: &str) {
        self.read().1.push(line.to_owned());
    }
}

/// Remembers what the boot services saw. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeObserver(Arc<Mutex<Vec<Sighting>>>);

impl FakeObserver {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything seen, in order.
    pub fn sightings(&self) -> Vec<Sighting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BootObserver for FakeObserver {
    fn saw(&self, sighting: Sighting) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
    }
}
