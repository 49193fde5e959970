//! One candidate and one lease, without any clock or wire: what to do next, and what an answer means.
//!
//! Clocks of different machines are never compared. A leader counts from before it *sent* the renewal that was
//! answered, and ceases a margin before the lease is over. A challenger counts from after it *read* the lease, and
//! takes it only if it stays unchanged for its whole duration by the challenger's own clock, with a write on that
//! condition. What it read was written after the leader had sent it, so the leader has ceased by then.
//!
//! A lease that somebody deleted and another made anew tells nothing of who led under the old one, and looks like one that
//! was never there. So nobody leads under a lease that he has not known for its whole duration.

use std::time::Duration;

use super::Term;
use super::leases::Lease;

/// How long a lease lasts and when what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    margin: Duration,
    renew: Duration,
}

/// Why a timing is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {lease:?} with a margin of {margin:?}, renewed every {renew:?}, is no lease: whole seconds, a margin of \
     a tenth of it at least, and two renewals before it ends"
)]
pub struct TimingError {
    /// How long the lease would last.
    pub lease: Duration,
    /// How long before its end a leader would cease.
    pub margin: Duration,
    /// How often it would be renewed.
    pub renew: Duration,
}

impl Default for Timing {
    /// 15 s, ceasing after 12, renewed every 4: what Kubernetes' own components take, about.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), margin: Duration::from_secs(3), renew: Duration::from_secs(4) }
    }
}

impl Timing {
    /// Checked: the margin must cover what two clocks differ in speed by.
    ///
    /// # Errors
    /// Where two could lead, or none could for long.
    pub fn new(lease: Duration, margin: Duration, renew: Duration) -> Result<Self, TimingError> {
        let whole = lease.subsec_nanos() == 0 && lease.as_secs() > 0 && i32::try_from(lease.as_secs()).is_ok();
        let fits = renew > Duration::ZERO && margin >= lease / 10 && renew * 2 + margin <= lease;
        if whole && fits { Ok(Self { lease, margin, renew }) } else { Err(TimingError { lease, margin, renew }) }
    }

    /// As a test gets it wrong.
    #[cfg(test)]
    pub(super) fn unchecked(lease: Duration, margin: Duration, renew: Duration) -> Self {
        Self { lease, margin, renew }
    }

    /// How long a lease lasts after its last change.
    pub fn lease(&self) -> Duration {
        self.lease
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// Nothing until then.
    Rest(Duration),
    /// Read the lease.
    Get,
    /// Create it: there was none.
    Create(Lease),
    /// Replace the one of this version.
    Replace(Lease),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The lease as it is, or there is none.
    Read(Option<Lease>),
    /// What was to be written is written: the lease as it is.
    Written(Lease),
    /// Another was faster.
    Conflict,
    /// Nobody knows.
    Lost,
}

/// What is known of the lease.
#[derive(Debug, Clone)]
struct Seen {
    lease: Option<Lease>,
    /// When it was first seen so, by our clock.
    since: Duration,
}

/// One candidate for one lease. All times are of one clock of its own that never goes back.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    timing: Timing,
    seen: Option<Seen>,
    /// Which lease of this name there is, and since when that is known.
    known: Option<(String, Duration)>,
    /// What is known may be past: it is read before anything is written.
    reread: bool,
    /// We lead until then.
    until: Option<Duration>,
    /// The highest that was seen.
    term: Term,
    /// Nothing is done before then.
    next: Duration,
    /// Tries since the last answer.
    failures: u32,
}

impl Election {
    pub(super) fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            seen: None,
            known: None,
            reread: true,
            until: None,
            term: Term(0),
            next: Duration::ZERO,
            failures: 0,
        }
    }

    /// Until when we lead if nothing is renewed, and in which term.
    pub(super) fn until(&self) -> Option<(Duration, Term)> {
        self.until.map(|until| (until, self.term))
    }

    pub(super) fn act(&self, now: Duration) -> Act {
        if now < self.next {
            return Act::Rest(self.next);
        }
        let Some(seen) = self.seen.as_ref().filter(|_| !self.reread) else { return Act::Get };
        match &seen.lease {
            None => Act::Create(self.taken(&Lease::default())),
            Some(lease) => {
                let is_ours = lease.holder.as_ref() == Some(&self.me);
                let is_free = lease.holder.is_none() && self.is_known(now);
                // A leader with a longer lease than ours is given the time that it counts on.
                let is_over = now.saturating_sub(seen.since) >= lease.duration.max(self.timing.lease);
                if is_ours || is_free || is_over { Act::Replace(self.taken(lease)) } else { Act::Get }
            }
        }
    }

    /// Whether whoever led under an earlier lease of this name has ceased.
    fn is_known(&self, now: Duration) -> bool {
        self.known.as_ref().is_some_and(|(_, since)| now.saturating_sub(*since) >= self.timing.lease)
    }

    fn taken(&self, from: &Lease) -> Lease {
        let is_ours = from.holder.as_ref() == Some(&self.me);
        let term = if is_ours { from.term } else { Term(from.term.max(self.term).0.saturating_add(1)) };
        Lease { holder: Some(self.me.clone()), term, duration: self.timing.lease, ..from.clone() }
    }

    /// The lease as it is to be written when we do not want it any more, if we have it. We do not lead from here on,
    /// whatever becomes of that write.
    pub(super) fn give_up(&mut self) -> Option<Lease> {
        self.until.take()?;
        let lease = self.seen.as_ref()?.lease.as_ref()?;
        Some(Lease { holder: None, ..lease.clone() })
    }

    /// Something was asked at `sent`, and that came of it `now`.
    pub(super) fn answered(&mut self, sent: Duration, now: Duration, answer: Answer) {
        let period = self.timing.renew;
        match answer {
            // It may be done, or yet be done, all the same.
            Answer::Lost => {
                self.failures = self.failures.saturating_add(1);
                self.reread = true;
                self.next = now + (period / 8) * self.failures.min(4);
            }
            Answer::Conflict => {
                self.failures = 0;
                self.reread = true;
                self.next = now;
            }
            Answer::Read(lease) => {
                self.failures = 0;
                let holder = lease.as_ref().and_then(|lease| lease.holder.as_ref());
                let is_ours = holder == Some(&self.me);
                if !is_ours {
                    self.until = None;
                }
                let is_free = holder.is_none();
                self.look(now, lease);
                // Whoever waits for another looks now and then, and at the moment when it would be free.
                let is_due = is_ours || (is_free && (self.known.is_none() || self.is_known(now)));
                self.next = if is_due { now } else { self.free_at(now).min(now + period / 2) };
            }
            Answer::Written(lease) => {
                self.failures = 0;
                self.look(now, Some(lease));
                // One that is new is held, and nobody leads under it yet.
                self.until = self.is_known(sent).then(|| sent + (self.timing.lease - self.timing.margin));
                self.next = sent + period;
            }
        }
    }

    fn free_at(&self, now: Duration) -> Duration {
        let Some(Seen { lease: Some(lease), since }) = &self.seen else { return now };
        let known = self.known.as_ref().filter(|_| lease.holder.is_none());
        let since = known.map_or(*since, |(_, since)| *since);
        (since + lease.duration.max(self.timing.lease)).max(now)
    }

    fn look(&mut self, now: Duration, lease: Option<Lease>) {
        self.reread = false;
        self.term = lease.as_ref().map_or(self.term, |lease| lease.term.max(self.term));
        match &lease {
            None => self.known = None,
            Some(lease) if self.known.as_ref().is_none_or(|(uid, _)| *uid != lease.uid) => {
                self.known = Some((lease.uid.clone(), now));
            }
            Some(_) => {}
        }
        let version = |lease: &Option<Lease>| lease.as_ref().map(|lease| lease.version.clone());
        if self.seen.as_ref().is_none_or(|seen| version(&seen.lease) != version(&lease)) {
            self.seen = Some(Seen { lease, since: now });
        }
    }
}
