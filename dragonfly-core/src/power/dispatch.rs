//! Many controllers at once, each of them one call at a time.
//!
//! Controllers break under parallel sessions, freeze after bursts and lock accounts after wrong passwords. So each has
//! a queue of its own, all together have a limit, a call has a time limit, what may be repeated is repeated after a
//! growing pause, and a password that was refused twice is not tried a third time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;

use super::accounts::Accounts;
use super::operation::{self, Operation, Outcome};
use super::{Credential, PowerDrivers, PowerError, Result};

/// The longest that a look may take.
const GLANCE: Duration = Duration::from_secs(20);

/// One machine's controller, and who logs in to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it answers.
    pub address: Url,
    /// Who logs in.
    pub credential: Option<Credential>,
}

/// How long a session may take to be given back.
const CLOSE: Duration = Duration::from_secs(5);

/// How much is asked of controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many are talked to at the same time.
    pub parallel: usize,
    /// How long one try may take, its change of power included.
    pub call: Duration,
    /// How long a change of power may take.
    pub settle: Duration,
    /// How often an operation is tried.
    pub tries: u32,
    /// The first pause between tries; each one after it is twice as long.
    pub pause: Duration,
    /// How often a password may be refused.
    pub refusals: u32,
}

impl Default for Limits {
    /// 128 at a time, 90 s for a try, 30 s for the power, three tries 2 s and 4 s apart, two refusals.
    fn default() -> Self {
        Self {
            parallel: 128,
            call: Duration::from_secs(90),
            settle: Duration::from_secs(30),
            tries: 3,
            pause: Duration::from_secs(2),
            refusals: 2,
        }
    }
}

impl Limits {
    /// The longest that one operation may take, once it is its turn.
    pub fn longest(&self) -> Duration {
        let pauses: Duration = (1..self.tries).map(|n| self.pause * (1 << n.min(16))).sum();
        (self.call + CLOSE) * self.tries + pauses
    }
}

/// What is known of one controller.
#[derive(Debug)]
struct Lane {
    /// Held while it is talked to; whoever waits is served in order.
    turn: Semaphore,
    accounts: Accounts,
}

/// Talks to controllers. Clones share their queues.
#[derive(Debug, Clone)]
pub struct Dispatcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    drivers: PowerDrivers,
    limits: Limits,
    slots: Semaphore,
    lanes: Mutex<HashMap<String, Lanes>>,
}

/// A lane lives as long as somebody is in it, or its refusals are remembered.
#[derive(Debug)]
enum Lanes {
    InUse(Weak<Lane>),
    Refused(Arc<Lane>),
}

impl Dispatcher {
    /// With these drivers and limits.
    pub fn new(drivers: PowerDrivers, limits: Limits) -> Self {
        let slots = Semaphore::new(limits.parallel.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { drivers, limits, slots, lanes: Mutex::default() }))
    }

    /// The drivers.
    pub fn drivers(&self) -> &PowerDrivers {
        &self.0.drivers
    }

    /// Carries an operation out when it is its turn.
    pub async fn carry_out(&self, target: &Target, operation: Operation) -> Result<Outcome> {
        self.carry_out_while(target, operation, || true).await
    }

    /// As [`carry_out`](Self::carry_out), if it is still `wanted` when it is its turn, and before each further try:
    /// a queue may be long, and the world goes on.
    pub async fn carry_out_while(
        &self,
        target: &Target,
        operation: Operation,
        wanted: impl Fn() -> bool + Send,
    ) -> Result<Outcome> {
        self.in_turn(target, operation, self.0.limits, wanted).await
    }

    /// Sees whether a machine is on: one short try, for who looks again soon.
    pub async fn glance(&self, target: &Target) -> Result<Outcome> {
        let limits = Limits { tries: 1, call: self.0.limits.call.min(GLANCE), ..self.0.limits };
        self.in_turn(target, Operation::Status, limits, || true).await
    }

    async fn in_turn(
        &self,
        target: &Target,
        operation: Operation,
        limits: Limits,
        wanted: impl Fn() -> bool + Send,
    ) -> Result<Outcome> {
        self.0.drivers.check(&target.address)?;
        operation.check()?;
        let lane = self.enter(&target.address);
        let Ok(_turn) = lane.turn.acquire().await else {
            return Err(PowerError::Busy { reason: "the dispatcher is closed".to_owned() });
        };
        let trying = lane.accounts.enter(target.credential.as_ref(), limits.refusals).await?;
        // Only whose turn it is takes of what is for all: a queue before one controller keeps nobody else waiting.
        let Ok(_slot) = self.0.slots.acquire().await else {
            return Err(PowerError::Busy { reason: "the dispatcher is closed".to_owned() });
        };
        let done = self.tries(target, &operation, &limits, wanted).await;
        trying.remember(&done);
        done
    }

    async fn tries(
        &self,
        target: &Target,
        operation: &Operation,
        limits: &Limits,
        wanted: impl Fn() -> bool + Send,
    ) -> Result<Outcome> {
        for time in 1.. {
            if !wanted() {
                return Err(PowerError::Withdrawn);
            }
            let done = self.one(target, operation, limits).await;
            match &done {
                Err(error) if time < limits.tries && may_repeat(error, operation) => {
                    sleep(spread(limits.pause * (1 << (time - 1).min(16)))).await;
                }
                _ => return done,
            }
        }
        Err(PowerError::TimedOut { after: limits.longest() })
    }

    async fn one(&self, target: &Target, operation: &Operation, limits: &Limits) -> Result<Outcome> {
        let late = || PowerError::TimedOut { after: limits.call };
        let end = Instant::now() + limits.call;
        let open = self.0.drivers.open(&target.address, target.credential.as_ref());
        let control = timeout_at(end, open).await.unwrap_or_else(|_| Err(late()))?;
        let work = operation::carry_out(&*control, operation.clone(), limits.settle);
        let done = timeout_at(end, work).await.unwrap_or_else(|_| Err(late()));
        // Also when it was too slow: it has room for few sessions, and keeps them for half an hour. What was done was
        // done, whatever becomes of the session.
        let closed = timeout(CLOSE, control.close()).await;
        if let Err(error) = closed.unwrap_or(Err(PowerError::TimedOut { after: CLOSE })) {
            tracing::debug!(address = %target.address, %error, "the session was not closed in order");
        }
        done
    }

    /// Does something else that logs in to a controller, as looking at a whole cluster: its password is tried no
    /// oftener than those of [`carry_out`](Self::carry_out), together with them.
    ///
    /// # Errors
    /// `LockedOut` when it was refused too often; else what `work` says.
    pub async fn log_in<T>(&self, target: &Target, work: impl Future<Output = Result<T>>) -> Result<T> {
        let lane = self.enter(&target.address);
        let trying = lane.accounts.enter(target.credential.as_ref(), self.0.limits.refusals).await?;
        let done = work.await;
        trying.remember(&done);
        done
    }

    /// Forgets that a controller refused a password: somebody says that it is right now.
    pub fn forgive(&self, address: &Url) {
        self.enter(address).accounts.forgive();
    }

    /// The lane of a controller, for as long as somebody is in it.
    fn enter(&self, address: &Url) -> Visit {
        let key = lane_key(address);
        let lane = self.lane(&key, || self.0.drivers.calls_a_host(address));
        Visit { dispatcher: self.clone(), key, lane }
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Lanes>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, key: &str, calls: impl Fn() -> usize) -> Arc<Lane> {
        let mut lanes = self.lanes();
        let there = lanes.get(key).and_then(|lane| match lane {
            Lanes::InUse(lane) => lane.upgrade(),
            Lanes::Refused(lane) => Some(lane.clone()),
        });
        there.unwrap_or_else(|| {
            let lane = Arc::new(Lane::of(calls()));
            lanes.insert(key.to_owned(), Lanes::InUse(Arc::downgrade(&lane)));
            lane
        })
    }
}

/// Somebody in a lane. It is left in every case, also by a caller who stops waiting.
struct Visit {
    dispatcher: Dispatcher,
    key: String,
    lane: Arc<Lane>,
}

impl std::ops::Deref for Visit {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.lane
    }
}

impl Drop for Visit {
    /// Keeps what must be remembered, and nothing else.
    fn drop(&mut self) {
        let mut lanes = self.dispatcher.lanes();
        // Let go of under the lock, so that the last to leave knows that it is the last.
        let (key, lane) = (std::mem::take(&mut self.key), std::mem::take(&mut self.lane));
        if lane.accounts.has_refused() {
            lanes.insert(key, Lanes::Refused(lane));
            return;
        }
        let left = Arc::downgrade(&lane);
        drop(lanes.insert(key.clone(), Lanes::InUse(left.clone())));
        drop(lane);
        if left.strong_count() == 0 {
            lanes.remove(&key);
        }
    }
}

/// What stands for a controller: several systems behind one address are one controller.
fn lane_key(address: &Url) -> String {
    let port = address.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    match address.host_str().unwrap_or_default() {
        // On this machine, and told apart by their paths.
        "" => format!("{}://{}", address.scheme(), address.path()),
        host => format!("{}://{host}{port}", address.scheme()),
    }
}

/// Whether an operation may be tried again after this.
fn may_repeat(error: &PowerError, operation: &Operation) -> bool {
    match error {
        // It was not carried out.
        PowerError::Busy { .. } | PowerError::Unreachable { .. } => true,
        // Nobody knows.
        error => error.is_retryable() && operation.is_repeatable(),
    }
}

/// Between a half and all of a pause, so that those who failed together do not come back together.
fn spread(pause: Duration) -> Duration {
    let mut byte = [0xff];
    // Without randomness they come back together, and wait the longer for it.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f32(0.5 + f32::from(byte[0]) / 510.0)
}

impl Default for Lane {
    fn default() -> Self {
        Self::of(1)
    }
}

impl Lane {
    fn of(calls: usize) -> Self {
        Self { turn: Semaphore::new(calls.min(Semaphore::MAX_PERMITS)), accounts: Accounts::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc as Shared;

    use async_trait::async_trait;
    use futures_util::future::join_all;

    use super::super::{BootDevice, BootOverride, PowerControl, PowerDriver, PowerState};
    use super::*;
    use crate::testing::power::{FakeMachine, Habit};

    /// `rack://7` is machine 7.
    #[derive(Debug, Clone)]
    struct Rack(Shared<Vec<FakeMachine>>);

    #[async_trait]
    impl PowerDriver for Rack {
        fn scheme(&self) -> &'static str {
            "rack"
        }

        fn check(&self, _: &Url) -> Result<()> {
            Ok(())
        }

        async fn open(&self, address: &Url, _: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
            let number: usize = address.host_str().unwrap().parse().unwrap();
            Ok(Arc::new(self.0[number].clone()))
        }
    }

    fn target(number: usize, password: &str) -> Target {
        let credential = Credential { username: "admin".to_owned(), password: password.to_owned().into() };
        Target { address: format!("rack://{number}").parse().unwrap(), credential: Some(credential) }
    }

    fn rack(habits: Vec<Habit>, limits: Limits) -> (Vec<FakeMachine>, Dispatcher) {
        let machines: Vec<FakeMachine> = habits.into_iter().map(FakeMachine::new).collect();
        let drivers = PowerDrivers::new().with(Rack(Shared::new(machines.clone())));
        (machines, Dispatcher::new(drivers, limits))
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_controllers_of_every_habit() {
        let slow = Duration::from_secs(4);
        let habit = |n: usize| match n {
            0..10 => Habit::Deaf,
            10..20 => Habit::Slow(slow),
            20..25 => Habit::Lying,
            25..30 => Habit::Locked,
            _ => Habit::Honest,
        };
        let limits = Limits::default();
        let (machines, dispatcher) = rack((0..500).map(habit).collect(), limits);
        let begin = Instant::now();
        let all = (0..500).map(|n| {
            let dispatcher = &dispatcher;
            async move {
                let done = dispatcher.carry_out(&target(n, "secret"), Operation::NetworkBoot(None)).await;
                (done, begin.elapsed())
            }
        });
        let all = join_all(all).await;
        for (n, (done, after)) in all.iter().enumerate() {
            let is_right = match (habit(n), done) {
                (Habit::Deaf, Err(PowerError::TimedOut { .. })) => true,
                (Habit::Lying, Err(PowerError::Refused { reason, .. })) => reason.contains("nothing is set"),
                (Habit::Locked, Err(PowerError::Unauthorised)) => true,
                (Habit::Honest | Habit::Slow(_), Ok(Outcome::Done)) => machines[n].is_on(),
                _ => false,
            };
            assert!(is_right, "machine {n}, {:?}: {done:?}", habit(n));
            if habit(n) == Habit::Honest {
                // Dead ones keep no honest one waiting: there are more slots than they take.
                assert!(*after <= slow * 4, "machine {n} after {after:?}");
            }
            assert_eq!(machines[n].parallel(), 1, "machine {n}");
        }
        assert!(begin.elapsed() <= limits.longest(), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_controller_is_asked_one_thing_at_a_time() {
        let (machines, dispatcher) = rack(vec![Habit::Slow(Duration::from_secs(1))], Limits::default());
        let to = target(0, "secret");
        // They come while others are at work and while others wait.
        let calls = (0..20).map(async |n: u64| {
            tokio::time::sleep(Duration::from_millis(n * 700)).await;
            dispatcher.carry_out(&to, Operation::Status).await
        });
        join_all(calls).await;
        assert_eq!((machines[0].calls(), machines[0].parallel()), (20, 1));
        assert!(dispatcher.lanes().is_empty(), "nothing is kept of a controller that nobody asks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_password_is_not_tried_a_third_time() {
        let (machines, dispatcher) = rack(vec![Habit::Locked], Limits::default());
        let status = async |password: &str| dispatcher.carry_out(&target(0, password), Operation::Status).await;
        for _ in 0..2 {
            assert!(matches!(status("old").await, Err(PowerError::Unauthorised)));
        }
        let error = status("old").await.unwrap_err();
        assert!(matches!(error, PowerError::LockedOut { times: 2 }), "{error}");
        assert_eq!(machines[0].calls(), 2, "it was not asked");
        // Another password is another matter, and so is somebody's word.
        assert!(matches!(status("new").await, Err(PowerError::Unauthorised)));
        assert!(matches!(status("new").await, Err(PowerError::Unauthorised)));
        assert!(matches!(status("new").await, Err(PowerError::LockedOut { .. })));
        dispatcher.forgive(&target(0, "new").address);
        machines[0].becomes(Habit::Honest);
        assert_eq!(status("new").await.unwrap(), Outcome::State(PowerState::Off));
        assert!(dispatcher.lanes().is_empty());
    }

    /// As [`Rack`], of hosts that take four calls at a time.
    #[derive(Debug)]
    struct Cluster(Rack);

    #[async_trait]
    impl PowerDriver for Cluster {
        fn scheme(&self) -> &'static str {
            "rack"
        }

        fn calls_a_host(&self) -> usize {
            4
        }

        fn check(&self, address: &Url) -> Result<()> {
            self.0.check(address)
        }

        async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
            self.0.open(address, credential).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_side_by_side_try_no_password_oftener() {
        let machine = FakeMachine::new(Habit::Locked);
        let cluster = Cluster(Rack(Shared::new(vec![machine.clone()])));
        let dispatcher = Dispatcher::new(PowerDrivers::new().with(cluster), Limits::default());
        let (old, new) = (target(0, "old"), target(0, "new"));
        let done = join_all((0..12).map(|_| dispatcher.carry_out(&old, Operation::Status))).await;
        let refused = done.iter().filter(|done| matches!(done, Err(PowerError::Unauthorised))).count();
        let locked = done.iter().filter(|done| matches!(done, Err(PowerError::LockedOut { times: 2 }))).count();
        assert_eq!((refused, locked, machine.calls()), (2, 10, 2));
        // What else logs in there is counted with them.
        let other = async { Err::<(), _>(PowerError::Unauthorised) };
        assert!(matches!(dispatcher.log_in(&old, other).await, Err(PowerError::LockedOut { times: 2 })));
        // The right one is held up by nothing once it was let in.
        machine.becomes(Habit::Slow(Duration::from_secs(1)));
        let done = join_all((0..12).map(|_| dispatcher.carry_out(&new, Operation::Status))).await;
        assert!(done.iter().all(|done| matches!(done, Ok(Outcome::State(_)))), "{done:?}");
        assert_eq!(machine.parallel(), 4);
        assert!(matches!(dispatcher.carry_out(&old, Operation::Status).await, Err(PowerError::LockedOut { .. })));
        dispatcher.forgive(&old.address);
        assert!(dispatcher.lanes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_wanted_any_more_is_not_done() {
        let (machines, dispatcher) = rack(vec![Habit::Slow(Duration::from_secs(5))], Limits::default());
        let (to, begin) = (target(0, "secret"), Instant::now());
        let (first, second) = tokio::join!(
            dispatcher.carry_out(&to, Operation::On),
            dispatcher.carry_out_while(&to, Operation::Cycle, || begin.elapsed() < Duration::from_secs(1)),
        );
        assert_eq!(first.unwrap(), Outcome::Done);
        assert!(matches!(second, Err(PowerError::Withdrawn)), "{second:?}");
        assert_eq!(machines[0].calls(), 2, "switched on and seen, nothing else");
    }

    #[tokio::test(start_paused = true)]
    async fn a_glance_is_short() {
        let (machines, dispatcher) = rack(vec![Habit::Deaf], Limits::default());
        let begin = Instant::now();
        let error = dispatcher.glance(&target(0, "secret")).await.unwrap_err();
        assert!(matches!(error, PowerError::TimedOut { .. }), "{error}");
        assert_eq!((machines[0].calls(), begin.elapsed()), (1, GLANCE));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_for_who_stops_waiting() {
        let (machines, dispatcher) = rack(vec![Habit::Deaf], Limits::default());
        let to = target(0, "secret");
        // One at work and one in the queue.
        let both =
            async { tokio::join!(dispatcher.carry_out(&to, Operation::On), dispatcher.carry_out(&to, Operation::On)) };
        assert!(timeout(Duration::from_secs(1), both).await.is_err());
        assert!(dispatcher.lanes().is_empty());
        machines[0].becomes(Habit::Honest);
        assert_eq!(dispatcher.carry_out(&to, Operation::On).await.unwrap(), Outcome::Done);
        assert!(dispatcher.lanes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_repeated_is_repeated() {
        let (machines, dispatcher) = rack(vec![Habit::Flaky], Limits::default());
        let set = Operation::SetNextBoot(Some(BootOverride::once(BootDevice::Disk)));
        let done = dispatcher.carry_out(&target(0, "secret"), set).await.unwrap();
        assert_eq!(done, Outcome::Boot(Some(BootOverride::once(BootDevice::Disk))));
        assert_eq!(machines[0].calls(), 2);
        // Nobody knows whether a reset that was not answered was done: it is asked once.
        machines[0].becomes(Habit::Deaf);
        let error = dispatcher.carry_out(&target(0, "secret"), Operation::Reset).await.unwrap_err();
        assert!(matches!(error, PowerError::TimedOut { .. }), "{error}");
        assert_eq!(machines[0].calls(), 3);
        let error = dispatcher.carry_out(&target(0, "secret"), Operation::Status).await.unwrap_err();
        assert!(matches!(error, PowerError::TimedOut { .. }), "{error}");
        assert_eq!(machines[0].calls(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lie_is_told_as_such_and_what_is_not_there_is_named() {
        let (_, dispatcher) = rack(vec![Habit::Lying], Limits::default());
        let error = dispatcher.carry_out(&target(0, "secret"), Operation::On).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the controller accepted the command, but the machine is off and not on after 30 s"
        );
        let error = dispatcher.carry_out(&target(0, "secret"), Operation::Sensors).await.unwrap_err();
        let words = "this controller cannot do `sensors`; it can: on, off, cycle, reset, status, boot-device";
        assert_eq!(error.to_string(), words);
    }
}
