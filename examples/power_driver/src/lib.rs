//! A power driver of one's own, in an afternoon: `qmp:///run/vm1.sock` is a QEMU machine, and its monitor (QMP) is its
//! management controller.
//!
//! ```no_run
//! # use dragonfly_core::power::{Dispatcher, Limits, Operation, PowerDrivers, Target};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let dispatcher = Dispatcher::new(PowerDrivers::new().with(power_driver::Qmp), Limits::default());
//! let machine = Target { address: "qmp:///run/vm1.sock".parse()?, credential: None };
//! dispatcher.carry_out(&machine, Operation::On).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A machine that is "off" is one that does not run and has been reset, as QEMU's `-S` starts it; `-no-shutdown` keeps
//! one that has shut down by itself.

mod monitor;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use dragonfly_core::power::{
    Abilities, Credential, PowerControl, PowerCycle, PowerDriver, PowerError, PowerOff, PowerSense, PowerState, Reset,
    Result, SoftOff,
};
use tokio::sync::Mutex;
use url::Url;

use monitor::Monitor;

/// The driver for `qmp://`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qmp;

fn socket(address: &Url) -> Result<PathBuf> {
    let plain = address.host_str().unwrap_or_default().is_empty() && address.query().is_none();
    match address.path() {
        path if plain && path.len() > 1 => Ok(path.into()),
        _ => Err(PowerError::InvalidAddress {
            address: address.to_string(),
            reason: "expected the path of the monitor's socket, as qmp:///run/vm1.sock".to_owned(),
        }),
    }
}

#[async_trait]
impl PowerDriver for Qmp {
    fn scheme(&self) -> &'static str {
        "qmp"
    }

    fn check(&self, address: &Url) -> Result<()> {
        socket(address).map(drop)
    }

    async fn open(&self, address: &Url, _: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(Machine { socket: socket(address)?, monitor: Mutex::default() }))
    }
}

/// One QEMU machine.
#[derive(Debug)]
struct Machine {
    socket: PathBuf,
    monitor: Mutex<Option<Monitor>>,
}

impl Machine {
    /// Commands in order; what the last one answered. A monitor serves one client, so it is kept until `close`.
    async fn tell(&self, commands: &[&str]) -> Result<serde_json::Value> {
        let mut place = self.monitor.lock().await;
        let mut monitor = match place.take() {
            Some(monitor) => monitor,
            None => Monitor::open(&self.socket).await?,
        };
        let mut answer = serde_json::Value::Null;
        for command in commands {
            answer = monitor.command(command).await?;
        }
        *place = Some(monitor);
        Ok(answer)
    }
}

#[async_trait]
impl PowerControl for Machine {
    async fn on(&self) -> Result<()> {
        match self.state().await? {
            PowerState::On => Ok(()),
            // One that has shut down must be reset before it can run again.
            PowerState::Off => self.tell(&["system_reset", "cont"]).await.map(drop),
        }
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none().with_off(self).with_soft_off(self).with_cycle(self).with_reset(self).with_sense(self)
    }

    async fn close(&self) -> Result<()> {
        *self.monitor.lock().await = None;
        Ok(())
    }
}

#[async_trait]
impl PowerOff for Machine {
    async fn off(&self) -> Result<()> {
        self.tell(&["stop", "system_reset"]).await.map(drop)
    }
}

#[async_trait]
impl SoftOff for Machine {
    async fn soft_off(&self) -> Result<()> {
        self.tell(&["system_powerdown"]).await.map(drop)
    }
}

#[async_trait]
impl PowerCycle for Machine {
    async fn cycle(&self) -> Result<()> {
        self.tell(&["stop", "system_reset", "cont"]).await.map(drop)
    }
}

#[async_trait]
impl Reset for Machine {
    async fn reset(&self) -> Result<()> {
        match self.state().await? {
            PowerState::On => self.tell(&["system_reset"]).await.map(drop),
            PowerState::Off => {
                Err(PowerError::Refused { what: "reset the machine".to_owned(), reason: "it is off".to_owned() })
            }
        }
    }
}

#[async_trait]
impl PowerSense for Machine {
    async fn state(&self) -> Result<PowerState> {
        let status = self.tell(&["query-status"]).await?;
        match status.get("running").and_then(serde_json::Value::as_bool) {
            Some(true) => Ok(PowerState::On),
            Some(false) => Ok(PowerState::Off),
            None => Err(PowerError::Malformed { reason: "a status without `running`".to_owned() }),
        }
    }
}
