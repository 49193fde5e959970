//! A controller without a protocol, and with the habits of real ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::power::{
    Abilities, BootOverride, Credential, NextBoot, PowerControl, PowerCycle, PowerDriver, PowerError, PowerOff,
    PowerSense, PowerState, Reset, Result,
};

/// What a controller is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Habit {
    /// It does what it says.
    #[default]
    Honest,
    /// Every answer takes so long.
    Slow(Duration),
    /// It never answers.
    Deaf,
    /// It says yes and does nothing.
    Lying,
    /// Every second call fails.
    Flaky,
    /// It refuses the password.
    Locked,
}

#[derive(Debug, Default)]
struct State {
    on: bool,
    boot: Option<BootOverride>,
    habit: Habit,
    calls: u32,
    at_work: u32,
    parallel: u32,
}

/// A machine with a controller that exists in memory. Clones are the same machine.
#[derive(Debug, Clone, Default)]
pub struct FakeMachine(Arc<Mutex<State>>);

/// The end of a call.
struct AtWork(FakeMachine);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.state_mut().at_work -= 1;
    }
}

impl FakeMachine {
    /// One that is off, whose controller has this habit.
    pub fn new(habit: Habit) -> Self {
        let machine = Self::default();
        machine.state_mut().habit = habit;
        machine
    }

    fn state_mut(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its controller changes its habit.
    pub fn becomes(&self, habit: Habit) {
        self.state_mut().habit = habit;
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.state_mut().on
    }

    /// Somebody presses its button: it has power now, or has none.
    pub fn set_power(&self, on: bool) {
        self.state_mut().on = on;
    }

    /// What it boots from, as its controller was told.
    pub fn boot(&self) -> Option<BootOverride> {
        self.state_mut().boot
    }

    /// How often its controller was called.
    pub fn calls(&self) -> u32 {
        self.state_mut().calls
    }

    /// The most calls that were at work at the same time.
    pub fn parallel(&self) -> u32 {
        self.state_mut().parallel
    }

    async fn call<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T> {
        let (habit, calls) = {
            let mut state = self.state_mut();
            state.calls += 1;
            state.at_work += 1;
            state.parallel = state.parallel.max(state.at_work);
            (state.habit, state.calls)
        };
        let _at_work = AtWork(self.clone());
        match habit {
            Habit::Slow(time) => tokio::time::sleep(time).await,
            Habit::Deaf => std::future::pending().await,
            Habit::Locked => return Err(PowerError::Unauthorised),
            Habit::Flaky if calls % 2 == 1 => return Err(PowerError::Busy { reason: "come back later".to_owned() }),
            Habit::Honest | Habit::Lying | Habit::Flaky => {}
        }
        Ok(change(&mut self.state_mut()))
    }

    async fn switch(&self, on: bool) -> Result<()> {
        self.call(|state| {
            if state.habit != Habit::Lying {
                state.on = on;
            }
        })
        .await
    }
}

#[async_trait]
impl PowerControl for FakeMachine {
    async fn on(&self) -> Result<()> {
        self.switch(true).await
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none().with_off(self).with_cycle(self).with_reset(self).with_sense(self).with_next_boot(self)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl PowerOff for FakeMachine {
    async fn off(&self) -> Result<()> {
        self.switch(false).await
    }
}

#[async_trait]
impl PowerCycle for FakeMachine {
    async fn cycle(&self) -> Result<()> {
        self.switch(true).await
    }
}

#[async_trait]
impl Reset for FakeMachine {
    async fn reset(&self) -> Result<()> {
        match self.call(|state| state.on).await? {
            true => Ok(()),
            false => Err(PowerError::Refused { what: "reset the machine".to_owned(), reason: "it is off".to_owned() }),
        }
    }
}

#[async_trait]
impl PowerSense for FakeMachine {
    async fn state(&self) -> Result<PowerState> {
        self.call(|state| if state.on { PowerState::On } else { PowerState::Off }).await
    }
}

#[async_trait]
impl NextBoot for FakeMachine {
    async fn set_next_boot(&self, boot: Option<BootOverride>) -> Result<Option<BootOverride>> {
        self.call(|state| {
            if state.habit != Habit::Lying {
                state.boot = boot;
            }
            state.boot
        })
        .await
    }

    async fn next_boot(&self) -> Result<Option<BootOverride>> {
        self.call(|state| state.boot).await
    }
}

/// The driver for `fake://`: every address is the same machine.
#[derive(Debug, Clone, Default)]
pub struct FakeDriver(pub FakeMachine);

#[async_trait]
impl PowerDriver for FakeDriver {
    fn scheme(&self) -> &'static str {
        "fake"
    }

    fn check(&self, _: &Url) -> Result<()> {
        Ok(())
    }

    async fn open(&self, _: &Url, _: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::power::PowerDrivers;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn an_honest_controller_passes_and_the_others_are_caught() {
        let report = check(&FakeMachine::default(), PATIENCE).await.unwrap();
        assert_eq!(
            report.absent,
            ["identify", "sensors", "events", "http-boot", "media", "inventory", "firmware", "soft"]
        );
        assert_eq!(report.kept.len(), 10, "{report:?}");
        check(&FakeMachine::new(Habit::Slow(Duration::from_secs(3))), PATIENCE).await.unwrap();
        for (habit, promise) in
            [(Habit::Lying, "what was switched on is on"), (Habit::Flaky, "on"), (Habit::Locked, "on")]
        {
            let broken = check(&FakeMachine::new(habit), PATIENCE).await.unwrap_err();
            assert_eq!(broken.promise, promise, "{habit:?}: {broken}");
        }
        let deaf = FakeMachine::new(Habit::Deaf);
        assert!(tokio::time::timeout(Duration::from_secs(3600), check(&deaf, PATIENCE)).await.is_err());
    }

    #[tokio::test]
    async fn a_driver_is_found_by_its_scheme() {
        let machine = FakeMachine::default();
        let drivers = PowerDrivers::new().with(FakeDriver(machine.clone()));
        let control = drivers.open(&"fake://here".parse().unwrap(), None).await.unwrap();
        control.on().await.unwrap();
        assert!(machine.is_on());
        let error = drivers.open(&"amt://here".parse().unwrap(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no power driver for `amt://`; there are: fake");
    }
}
