//! Ctrl-C and friends end the lab in order, so that it cleans up after itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// Says whether somebody wants the lab to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Call before any other thread is started: they inherit what is blocked here. Children do not;
    /// the standard library resets their mask.
    pub(crate) fn install() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let flag = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&flag);
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                told.store(true, Ordering::SeqCst);
            }
        });
        Ok(Self(flag))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error once somebody wants the end: for use between units of work.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.is_set(), "interrupted");
        Ok(())
    }

    /// Sleeps until `end`, an interrupt, or `done` says so. Says whether it was `done`.
    pub(crate) fn wait_until(&self, end: Instant, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if self.is_set() || Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
