//! One site with several instances on one store.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::boot::{BootProvider as _, BootRequest};
use dragonfly_core::clock::{Clock, Timestamp};
use dragonfly_core::coordinate::SWEEP;
use dragonfly_core::engine::{Engine, EngineError, Settings};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::MemoryStore;
use dragonfly_core::testing::{GivenLeadership, ManualClock, Rule};
use dragonfly_core::wire::Identity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::oracle::{Oracle, Seen};
use crate::store::{Dice, LaggingStore};
use crate::{actors, common};

pub(crate) const MACHINES: usize = 2;
const INSTANCES: usize = 3;
/// How long a history is.
const LONG: Duration = Duration::from_secs(420);

/// What is taken from the engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    No,
    /// Each takes itself for the only one.
    EachAlone,
    /// What is judged is not judged again on what is written.
    NoLastLook,
}

/// The time of one instance: the same pace, another hour.
#[derive(Debug)]
struct SiteClock {
    began: Instant,
    skew: Duration,
}

impl Clock for SiteClock {
    fn now(&self) -> Timestamp {
        ManualClock::default().now().plus(self.began.elapsed() + self.skew)
    }
}

#[derive(Debug)]
struct Instance {
    engine: Engine,
    leads: GivenLeadership,
    down: CancellationToken,
}

pub(crate) struct World {
    store: MemoryStore,
    key: SealingKey,
    wrong: Wrong,
    began: Instant,
    skews: [Duration; INSTANCES],
    instances: RefCell<[Option<Instance>; INSTANCES]>,
    starts: Cell<u32>,
    pub(crate) dice: Dice,
    pub(crate) oracle: RefCell<Oracle>,
}

/// Plays one history; what broke the promise, if anything did.
pub(crate) fn play(seed: u64, wrong: Wrong) -> (Seen, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime is built").block_on(async {
        let world = World::new(Dice::new(seed), wrong).await;
        let actors = async {
            let machines = (0..MACHINES).map(|machine| actors::machine(&world, machine));
            let strangers = (0..MACHINES).map(|machine| actors::stranger(&world, machine));
            tokio::join!(
                futures_util::future::join_all(machines),
                futures_util::future::join_all(strangers),
                actors::operator(&world),
                actors::operator(&world),
                world.chaos(),
            );
        };
        let broken = async {
            while world.oracle.borrow().broken.is_none() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(LONG, actors) => {}
            () = broken => {}
        }
        for instance in world.instances.borrow_mut().iter_mut() {
            instance.take().into_iter().for_each(|instance| instance.down.cancel());
        }
        let oracle = world.oracle.borrow();
        (oracle.seen, oracle.broken.clone())
    })
}

impl World {
    async fn new(dice: Dice, wrong: Wrong) -> Self {
        let clock = ManualClock::default();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        let key = SealingKey::generate().expect("there is randomness");
        let engine = common::builder(Arc::new(store.clone()), &key, &clock).build().await.expect("an engine starts");
        engine.apply(common::SETUP, "setup").await.expect("the site is set up");
        let world = Self {
            store,
            key,
            wrong,
            began: Instant::now(),
            skews: [(); INSTANCES].map(|()| Duration::from_secs(dice.below(20))),
            instances: RefCell::default(),
            starts: Cell::new(0),
            oracle: RefCell::new(Oracle::new(MACHINES)),
            dice,
        };
        for at in 0..INSTANCES {
            world.start(at).await;
        }
        world.lead(0, true);
        world
    }

    async fn start(&self, at: usize) {
        let store = LaggingStore::new(Arc::new(self.store.clone()), self.dice.clone());
        let start = self.starts.get();
        self.starts.set(start + 1);
        let leads = GivenLeadership::new(&format!("instance-{at}-{start}"));
        let clock = SiteClock { began: self.began, skew: self.skews[at] };
        // Those that are gone are told as such within a history.
        let settings = Settings { agent_deadline: Duration::from_secs(90), ..Settings::default() };
        let mut builder = common::builder(Arc::new(store), &self.key, &ManualClock::default())
            .clock(Arc::new(clock))
            .settings(settings)
            .without((self.wrong == Wrong::NoLastLook).then_some(Rule::LastLook));
        if self.wrong != Wrong::EachAlone {
            builder = builder.coordinator(Arc::new(leads.clone()));
        }
        // A sweep at the start may meet what another writes: it is tried again, as a service manager does.
        let Ok(engine) = builder.build().await else { return };
        let down = CancellationToken::new();
        let (runs, stop) = (engine.clone(), down.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = runs.run(CancellationToken::new()) => {}
            }
        });
        self.instances.borrow_mut()[at] = Some(Instance { engine, leads, down });
    }

    fn lead(&self, at: usize, leads: bool) {
        if let Some(instance) = &self.instances.borrow()[at] {
            if leads {
                instance.leads.give(SWEEP, u64::from(self.starts.get()));
            } else {
                instance.leads.take(SWEEP);
            }
        }
    }

    /// Instances die and come again, leadership moves, and for a moment two may take themselves for leaders.
    async fn chaos(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(3_000 + self.dice.below(25_000))).await;
            let at = self.dice.below(INSTANCES as u64) as usize;
            match self.dice.below(4) {
                0 => {
                    let gone = self.instances.borrow_mut()[at].take();
                    let Some(gone) = gone else { continue };
                    gone.down.cancel();
                    drop(gone);
                    self.oracle.borrow_mut().seen.killed += 1;
                    tokio::time::sleep(Duration::from_millis(self.dice.below(15_000))).await;
                    self.start(at).await;
                }
                1 => {
                    self.lead(at, true);
                    self.oracle.borrow_mut().seen.two_leaders += 1;
                }
                _ => (0..INSTANCES).for_each(|n| self.lead(n, n == at)),
            }
            if self.instances.borrow()[at].is_none() {
                self.start(at).await;
            }
        }
    }

    pub(crate) fn any(&self) -> usize {
        self.dice.below(INSTANCES as u64) as usize
    }

    /// Calls an instance. `None`: it is not there, or died of it, and nobody knows how far it came.
    pub(crate) async fn call<T, F>(&self, at: usize, ask: impl FnOnce(Engine) -> F) -> Option<Result<T, EngineError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        let found = self.instances.borrow()[at].as_ref().map(|i| (i.engine.clone(), i.down.clone()));
        let Some((engine, down)) = found else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return None;
        };
        self.oracle.borrow_mut().seen.calls += 1;
        let asked = ask(engine);
        // Whoever asked may not wait for it: it goes on all the same, as long as the instance does.
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = down.cancelled() => None,
                answer = asked => Some(answer),
            }
        });
        let answer = task.await.expect("no call panics");
        self.oracle.borrow_mut().seen.cut += u64::from(answer.is_none());
        answer
    }

    /// A boot token for this machine, from this instance, if it is to boot the agent.
    pub(crate) async fn identity(&self, at: usize, machine: usize) -> Option<Identity> {
        let request = request(machine);
        let asked =
            self.call(at, |engine| async move { Ok(engine.identity(&request).await.expect("it is made from memory")) });
        asked.await?.ok()?
    }
}

pub(crate) fn number(machine: usize) -> u8 {
    machine as u8 + 1
}

fn request(machine: usize) -> BootRequest {
    let to = Some("10.0.0.1:3000".parse().expect("an address"));
    let from = Some(common::address(number(machine)));
    BootRequest { from, to, ..BootRequest::from_mac(common::card(number(machine))) }
}
