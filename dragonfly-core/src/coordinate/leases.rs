//! Leadership by leases that a server keeps: the I/O around [`Election`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::election::{Act, Answer, Election};
use super::{Coordinator, LeaseError, Term, Timing};
use crate::clock::{Clock, SystemClock, Timestamp};

/// Who holds something, as a server keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// Another for one that was deleted and made anew.
    pub uid: String,
    /// Changes with every write. Compared for equality only.
    pub version: String,
    /// Who holds it; nobody, when it was given up.
    pub holder: Option<String>,
    /// How long it lasts after its last change.
    pub duration: Duration,
    /// Counts up with every holder.
    pub term: Term,
}

/// Where leases are kept: a read, and two writes of which only one of several at once is done.
#[async_trait]
pub trait LeaseStore: std::fmt::Debug + Send + Sync + 'static {
    /// The lease of this name, if there is one. Never an older state than one that was answered before.
    async fn get(&self, name: &str) -> Result<Option<Lease>, LeaseError>;

    /// Writes one that is not there.
    async fn create(&self, name: &str, lease: &Lease) -> Result<Lease, LeaseError>;

    /// Replaces one that still has this version.
    async fn replace(&self, name: &str, lease: &Lease) -> Result<Lease, LeaseError>;
}

/// Stands for controllers with leases. A clone is the same candidate.
#[derive(Debug, Clone)]
pub struct Leases {
    inner: Arc<Inner>,
    store: Arc<dyn LeaseStore>,
}

#[derive(Debug)]
struct Inner {
    instance: String,
    /// The name that the leases carry: another with every start.
    identity: String,
    timing: Timing,
    clock: Own,
    led: Mutex<BTreeMap<String, (Duration, Term)>>,
}

/// A clock of our own that stops for nothing and never goes back. Of the two that there are it goes with the one that
/// goes further: the one stands still while a machine sleeps, the other is set by people. Too fast does no harm.
#[derive(Debug)]
struct Own {
    wall: Arc<dyn Clock>,
    last: Mutex<(Instant, Timestamp, Duration)>,
}

impl Own {
    fn new(wall: Arc<dyn Clock>) -> Self {
        let last = Mutex::new((Instant::now(), wall.now(), Duration::ZERO));
        Self { wall, last }
    }

    fn now(&self) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (instant, wall) = (Instant::now(), self.wall.now());
        let passed = instant.saturating_duration_since(last.0).max(wall.since(last.1));
        *last = (instant, wall, last.2.saturating_add(passed));
        last.2
    }
}

impl Leases {
    /// A candidate of this name. The leases carry a random part beside it: whoever is started anew under the same
    /// name is another, and waits.
    pub fn new(store: Arc<dyn LeaseStore>, instance: impl Into<String>, timing: Timing) -> Self {
        Self::with_clock(store, instance, timing, Arc::new(SystemClock))
    }

    fn with_clock(
        store: Arc<dyn LeaseStore>,
        instance: impl Into<String>,
        timing: Timing,
        wall: Arc<dyn Clock>,
    ) -> Self {
        let instance = instance.into();
        let identity = format!("{instance}_{}", uuid::Uuid::new_v4());
        let clock = Own::new(wall);
        Self { inner: Arc::new(Inner { instance, identity, timing, clock, led: Mutex::default() }), store }
    }

    /// What stands in a lease that this candidate holds.
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }

    async fn stand(&self, name: String, cancel: CancellationToken) {
        let began = Instant::now();
        let mut election = Election::new(self.inner.identity.clone(), self.inner.timing);
        // A call that hangs must not outlast what it renews.
        let patience = self.inner.timing.lease() / 3;
        loop {
            let (now, led_now) = (began.elapsed(), self.inner.clock.now());
            let act = election.act(now);
            let call = async {
                match &act {
                    Act::Rest(until) => {
                        tokio::time::sleep_until(began + *until).await;
                        None
                    }
                    Act::Get => Some(self.store.get(&name).await.map(Answer::Read)),
                    Act::Create(lease) => Some(self.store.create(&name, lease).await.map(Answer::Written)),
                    Act::Replace(lease) => Some(self.store.replace(&name, lease).await.map(Answer::Written)),
                }
            };
            let limit = match act {
                Act::Rest(_) => Duration::MAX,
                _ => patience,
            };
            let done = tokio::select! {
                () = cancel.cancelled() => break,
                done = tokio::time::timeout(limit, call) => done,
            };
            let answer = match done {
                Ok(None) => continue,
                Ok(Some(Ok(answer))) => answer,
                Ok(Some(Err(LeaseError::Conflict { .. }))) => Answer::Conflict,
                Ok(Some(Err(error))) => {
                    tracing::debug!(lease = name, error = &error as &dyn std::error::Error, "a lease was not answered");
                    Answer::Lost
                }
                Err(_) => Answer::Lost,
            };
            let was = election.until();
            election.answered(now, began.elapsed(), answer);
            let is = election.until();
            // Counted from before it was sent, by the clock that stops for nothing.
            let until = is.filter(|is| Some(*is) != was).map(|(until, term)| (led_now + (until - now), term));
            self.note(&name, is.is_some(), until);
        }
        self.note(&name, false, None);
        if let Some(lease) = election.give_up() {
            // Whoever does not come through is waited for, and nothing is lost.
            let _ = tokio::time::timeout(patience, self.store.replace(&name, &lease)).await;
        }
    }

    fn note(&self, name: &str, leads: bool, until: Option<(Duration, Term)>) {
        let mut led = self.inner.led.lock().unwrap_or_else(PoisonError::into_inner);
        let was = led.get(name).copied().filter(|(until, _)| self.inner.clock.now() < *until);
        if !leads {
            led.remove(name);
        } else if let Some(until) = until {
            led.insert(name.to_owned(), until);
        }
        let is = led.get(name).copied();
        drop(led);
        match (was, is) {
            (None, Some((_, term))) => tracing::info!(controller = name, %term, "this instance leads"),
            (Some((_, term)), None) => tracing::info!(controller = name, %term, "this instance leads no more"),
            _ => {}
        }
    }
}

#[async_trait]
impl Coordinator for Leases {
    fn instance(&self) -> &str {
        &self.inner.instance
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn leads(&self, controller: &str) -> Option<Term> {
        let led = self.inner.led.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, term) = *led.get(controller)?;
        (self.inner.clock.now() < until).then_some(term)
    }

    async fn run(&self, controllers: Vec<String>, cancel: CancellationToken) {
        let standing = controllers.into_iter().map(|name| self.stand(name, cancel.clone()));
        futures_util::future::join_all(standing).await;
    }

    fn led(&self) -> BTreeMap<String, Term> {
        let now = self.inner.clock.now();
        let led = self.inner.led.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = led.iter().filter(|(_, (until, _))| now < *until);
        valid.map(|(name, (_, term))| (name.clone(), *term)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ManualClock, MemoryLeases};

    fn timing() -> Timing {
        Timing::new(Duration::from_secs(15), Duration::from_secs(3), Duration::from_secs(4)).unwrap()
    }

    fn candidate(store: &Arc<MemoryLeases>, name: &str) -> (Leases, ManualClock, CancellationToken) {
        let (clock, stop) = (ManualClock::default(), CancellationToken::new());
        let one = Leases::with_clock(Arc::clone(store) as _, name, timing(), Arc::new(clock.clone()));
        let (runs, cancel) = (one.clone(), stop.clone());
        tokio::spawn(async move { runs.run(vec!["sweep".to_owned()], cancel).await });
        (one, clock, stop)
    }

    async fn seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_another_follows_when_it_gives_up_or_dies() {
        let store = Arc::new(MemoryLeases::default());
        let (a, _, stop_a) = candidate(&store, "a");
        seconds(20).await;
        assert_eq!(a.leads("sweep"), Some(Term(1)));
        let (b, _, stop_b) = candidate(&store, "b");
        seconds(600).await;
        assert_eq!((a.leads("sweep"), b.leads("sweep")), (Some(Term(1)), None));
        stop_a.cancel();
        seconds(5).await;
        assert_eq!((a.leads("sweep"), b.leads("sweep")), (None, Some(Term(2))), "given up: nobody waits");
        let (c, _, _stop) = candidate(&store, "c");
        seconds(5).await;
        // As if it had died: nobody gives anything up.
        let lease = store.get("sweep").await.unwrap().unwrap();
        stop_b.cancel();
        seconds(0).await;
        let gone = store.get("sweep").await.unwrap().unwrap();
        store.replace("sweep", &Lease { version: gone.version, ..lease }).await.unwrap();
        seconds(10).await;
        assert_eq!((b.leads("sweep"), c.leads("sweep")), (None, None), "its lease is not over");
        seconds(15).await;
        assert_eq!((c.leads("sweep"), c.led()), (Some(Term(3)), [("sweep".to_owned(), Term(3))].into()));
        assert_eq!(c.leads("power"), None, "it does not stand for that");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_slept_leads_no_more_whatever_its_clocks_do() {
        let store = Arc::new(MemoryLeases::default());
        let (a, clock, _stop) = candidate(&store, "a");
        seconds(20).await;
        assert!(a.leads("sweep").is_some());
        // Asleep: time has passed on the wall alone.
        clock.advance(Duration::from_secs(3600));
        assert_eq!(a.leads("sweep"), None);
        // Somebody sets the clock back: what was over stays over.
        clock.set(ManualClock::default().now());
        assert_eq!(a.leads("sweep"), None);
        seconds(5).await;
        assert!(a.leads("sweep").is_some(), "renewed");
        assert!(a.inner.clock.now() > Duration::from_secs(3600));
    }
}
