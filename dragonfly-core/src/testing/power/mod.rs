//! What a power driver promises, as a suite for whoever writes one, and controllers that exist in memory.
//!
//! [`check`] runs every promise that a controller's abilities allow and reports which were tried, so that
//! an ability that is absent is seen and not passed over in silence.

mod fake;

#[cfg(feature = "ipmi")]
pub mod ipmi {
    //! A simulated IPMI controller.
    pub use crate::power::ipmi::anything::read_anything;
    pub use crate::power::ipmi::peer::{Chassis, Command, Peer, Personality, Seen, example_sensors};
}

#[cfg(feature = "proxmox")]
pub mod proxmox {
    //! A simulated Proxmox VE cluster.
    pub use crate::power::proxmox::peer::{Account, Machine, Peer, Schema, Seen, World};
}

#[cfg(feature = "redfish")]
pub mod redfish {
    //! A simulated Redfish service.
    pub use crate::power::redfish::peer::{BootSet, Command, Machine, Peer, Personality, Seen, Tags};
}

use std::time::Duration;

pub use fake::{FakeDriver, FakeMachine, Habit};

use crate::power::{Abilities, BootDevice, BootOverride, PowerControl, PowerError, PowerSense, PowerState};

/// What was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Promises that were kept, in order.
    pub kept: Vec<&'static str>,
    /// Abilities that this controller does not have.
    pub absent: Vec<&'static str>,
}

/// A promise that was not kept.
#[derive(Debug, thiserror::Error)]
#[error("{promise}: {told}")]
pub struct Broken {
    /// Which.
    pub promise: &'static str,
    /// What happened instead.
    pub told: String,
}

fn broken<T>(promise: &'static str, told: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { promise, told: told.into() })
}

fn went<T>(promise: &'static str, done: Result<T, PowerError>) -> Result<T, Broken> {
    done.map_err(|error| Broken { promise, told: error.to_string() })
}

/// Waits until the controller sees a state: many say yes first and switch seconds later.
async fn reaches(
    promise: &'static str,
    sense: &dyn PowerSense,
    wanted: PowerState,
    patience: Duration,
) -> Result<(), Broken> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let state = went(promise, sense.state().await)?;
        if state == wanted {
            return Ok(());
        }
        if tokio::time::Instant::now() >= end {
            return broken(promise, format!("it is {state} after {patience:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What it knows of the machine's parts, and an empty drive. No image is put in, for it would be fetched.
async fn parts(able: &Abilities<'_>, report: &mut Report) -> Result<(), Broken> {
    match able.http_boot {
        Some(http_boot) => {
            let promise = "the address to boot from is taken back";
            let kept = went(promise, http_boot.set_http_boot(None).await)?;
            if let Some(kept) = kept {
                return broken(promise, format!("it says {kept}"));
            }
            report.kept.push(promise);
        }
        None => report.absent.push("http-boot"),
    }
    match able.media {
        Some(media) => {
            let promise = "an empty drive can be emptied";
            went(promise, media.eject().await)?;
            went(promise, media.eject().await)?;
            if let Some(image) = went(promise, media.inserted().await)? {
                return broken(promise, format!("{image} is in it"));
            }
            report.kept.push(promise);
        }
        None => report.absent.push("media"),
    }
    match able.inventory {
        Some(inventory) => {
            went("hardware is told", inventory.inventory().await)?;
            report.kept.push("hardware is told");
        }
        None => report.absent.push("inventory"),
    }
    match able.firmware {
        Some(firmware) => {
            let promise = "firmware has names and versions";
            let all = went(promise, firmware.firmware().await)?;
            if let Some(without) = all.iter().find(|part| part.name.is_empty() || part.version.is_empty()) {
                return broken(promise, format!("{without:?}"));
            }
            report.kept.push(promise);
        }
        None => report.absent.push("firmware"),
    }
    Ok(())
}

/// Tries everything that a controller can do. The machine behind it is switched on and off: give it one that
/// nobody needs. `patience` is how long a change of its power may take.
pub async fn check(control: &dyn PowerControl, patience: Duration) -> Result<Report, Broken> {
    let mut report = Report::default();
    let able = control.abilities();
    went("on", control.on().await)?;
    went("on twice is on", control.on().await)?;
    report.kept.push("on twice is on");
    if let Some(sense) = able.sense {
        reaches("what was switched on is on", sense, PowerState::On, patience).await?;
        report.kept.push("what was switched on is on");
    } else {
        report.absent.push("status");
    }
    if let Some(reset) = able.reset {
        went("a machine that is on is reset", reset.reset().await)?;
        report.kept.push("a machine that is on is reset");
        if let Some(sense) = able.sense {
            reaches("it is on after a reset", sense, PowerState::On, patience).await?;
            report.kept.push("it is on after a reset");
        }
    } else {
        report.absent.push("reset");
    }
    if let Some(next_boot) = able.next_boot {
        for device in [BootDevice::Pxe, BootDevice::Disk] {
            let promise = "the boot device reads back";
            let kept = went(promise, next_boot.set_next_boot(Some(BootOverride::once(device))).await)?;
            if kept.map(|kept| kept.device) != Some(device) {
                return broken(promise, format!("{device} was set, and it says {kept:?}"));
            }
        }
        went("the boot device is taken back", next_boot.set_next_boot(None).await)?;
        report.kept.push("the boot device reads back");
    } else {
        report.absent.push("boot-device");
    }
    if let Some(identify) = able.identify {
        went("the lamp is lit", identify.identify(Some(Duration::from_secs(1))).await)?;
        went("the lamp is put out", identify.identify(None).await)?;
        report.kept.push("the lamp is lit and put out");
    } else {
        report.absent.push("identify");
    }
    if let Some(sensors) = able.sensors {
        let all = went("sensors have names", sensors.sensors().await)?;
        if let Some(without) = all.iter().find(|sensor| sensor.name.is_empty()) {
            return broken("sensors have names", format!("{without:?}"));
        }
        report.kept.push("sensors have names");
    } else {
        report.absent.push("sensors");
    }
    if let Some(events) = able.events {
        let few = went("no more events than were asked for", events.events(1).await)?;
        if few.len() > 1 {
            return broken("no more events than were asked for", format!("{} came for one", few.len()));
        }
        report.kept.push("no more events than were asked for");
    } else {
        report.absent.push("events");
    }
    parts(&able, &mut report).await?;
    if let Some(off) = able.off {
        went("off", off.off().await)?;
        went("off twice is off", off.off().await)?;
        report.kept.push("off twice is off");
        if let Some(sense) = able.sense {
            reaches("what was switched off is off", sense, PowerState::Off, patience).await?;
            report.kept.push("what was switched off is off");
        }
        if let Some(reset) = able.reset {
            if reset.reset().await.is_ok() {
                return broken("a machine that is off is not reset", "it said yes");
            }
            report.kept.push("a machine that is off is not reset");
        }
        if let (Some(cycle), Some(sense)) = (able.cycle, able.sense) {
            went("a cycle switches on what is off", cycle.cycle().await)?;
            reaches("a cycle switches on what is off", sense, PowerState::On, patience).await?;
            report.kept.push("a cycle switches on what is off");
            went("off", off.off().await)?;
        }
    } else {
        report.absent.push("off");
    }
    if able.cycle.is_none() {
        report.absent.push("cycle");
    }
    if able.soft_off.is_none() {
        report.absent.push("soft");
    }
    went("it can be closed, twice", control.close().await)?;
    went("it can be closed, twice", control.close().await)?;
    went("it works again after it was closed", control.on().await)?;
    report.kept.push("it works again after it was closed");
    went("close", control.close().await)?;
    Ok(report)
}
