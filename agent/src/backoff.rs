//! How long to wait before asking again.

use std::time::Duration;

/// Doubles from one wait to the next up to a limit; each wait is shortened by up to half, so that
/// a rack that lost its server does not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    tries: u32,
}

impl Backoff {
    /// The first wait and the longest one.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, tries: 0 }
    }

    /// The next wait; `random` is any random number.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1u32 << self.tries.min(20)).min(self.limit);
        self.tries = self.tries.saturating_add(1);
        let share = (random % 1024) as u32;
        whole - whole / 2 * share / 1024
    }

    /// How many waits there were since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A random number from the system; zero when it gives none, which only costs the jitter.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_never_to_nothing() {
        for random in [0, 1, 511, 1023, u64::MAX] {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
            let waits: Vec<_> = (0..50).map(|_| backoff.next_wait(random)).collect();
            assert!(
                waits.iter().all(|w| *w >= Duration::from_millis(250) && *w <= Duration::from_secs(30)),
                "{waits:?}"
            );
            assert!(waits[49] >= Duration::from_secs(15));
            backoff.reset();
            assert_eq!(backoff.next_wait(0), Duration::from_millis(500));
        }
    }
}
