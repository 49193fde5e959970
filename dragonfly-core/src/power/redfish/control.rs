//! One controller: its abilities, as its service has them.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep};
use url::Url;

use super::Patience;
use super::discover::{Found, Lamp, ResetAction};
use super::plan::{self, Switch};
use super::resource::Resource;
use super::service::{Read, Service, Wait};
use crate::power::{
    Abilities, BootOverride, EventLog, Firmware, HttpBoot, Identify, Inventory, LoggedEvent, NextBoot, PowerControl,
    PowerCycle, PowerError, PowerOff, PowerSense, PowerState, Reset, Result, Sensor, Sensors, SoftOff,
};
use crate::power::{FirmwareVersion, VirtualMedia};

/// One controller.
#[derive(Debug)]
pub struct Controller {
    pub(super) service: Service,
    pub(super) found: Found,
    pub(super) patience: Patience,
}

impl Controller {
    pub(super) fn new(service: Service, found: Found, patience: Patience) -> Self {
        Self { service, found, patience }
    }

    /// The path of the system that it controls: `/redfish/v1/Systems/1`.
    pub fn system(&self) -> &str {
        &self.found.system
    }

    fn allows(&self, switch: Switch) -> bool {
        let Some(ResetAction { allowed, .. }) = &self.found.reset else { return false };
        let has = |switch| plan::reset_type(switch, allowed).is_some();
        has(switch) || (switch == Switch::Cycle && has(Switch::On) && has(Switch::Off) && self.found.has_state)
    }

    /// What it says of the power; `None` where it says nothing.
    async fn power(&self) -> Result<Option<PowerState>> {
        if !self.found.has_state {
            return Ok(None);
        }
        let system = self.service.read(&self.found.system, "tell the power state").await?.resource;
        match plan::power_state(&system) {
            None => {
                let word = system.text(&["PowerState"]).unwrap_or("nothing");
                Err(PowerError::Malformed { reason: format!("its power state is {word}") })
            }
            state => Ok(state),
        }
    }

    async fn switch(&self, switch: Switch) -> Result<()> {
        let what = switch.what();
        let refused = |reason: String| PowerError::Refused { what: what.to_owned(), reason };
        let reset = self.found.reset.as_ref().ok_or_else(|| refused("it has no action for that".to_owned()))?;
        let kind = plan::reset_type(switch, &reset.allowed)
            .ok_or_else(|| refused(format!("it has no reset type for that; it has {}", reset.allowed.join(", "))))?;
        self.service.post(&reset.target, &json!({ "ResetType": kind }), what).await
    }

    /// Brings it into a state in which it may be already: controllers refuse that, each in its own way.
    async fn bring(&self, switch: Switch, wanted: PowerState) -> Result<()> {
        if self.power().await? == Some(wanted) {
            return Ok(());
        }
        match self.switch(switch).await {
            // It came there by itself in the meantime.
            Err(PowerError::Refused { .. }) if self.power().await? == Some(wanted) => Ok(()),
            done => done,
        }
    }

    /// Off, and on when it is.
    async fn off_and_on(&self) -> Result<()> {
        self.switch(Switch::Off).await?;
        let end = Instant::now() + self.patience.task;
        while self.power().await? != Some(PowerState::Off) {
            if Instant::now() >= end {
                let (wanted, found) = (PowerState::Off, PowerState::On);
                return Err(PowerError::NotDone { wanted, found, after: self.patience.task });
            }
            sleep(self.patience.poll).await;
        }
        self.switch(Switch::On).await
    }

    async fn boot(&self, what: &str) -> Result<Read> {
        self.service.read(&self.found.boot, what).await
    }

    /// Makes the first of some changes that it does not refuse.
    async fn change(&self, path: &str, mut read: Read, changes: &[serde_json::Value], what: &str) -> Result<()> {
        let mut refused = None;
        for (n, change) in changes.iter().enumerate() {
            if n > 0 {
                read = self.service.read(path, what).await?;
            }
            match self.service.patch(path, read.tag.take(), change, self.found.quirks, (what, Wait::Done)).await {
                // What it says of the first is what was wanted of it.
                Err(error @ PowerError::Refused { .. }) => refused = refused.or(Some(error)),
                done => return done,
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Firmware that wants TLS is told that this address has none. It is done at the boot that it is for.
    async fn allow_plain_http(&self, image: &Url) -> Result<()> {
        let what = "let the firmware boot over plain HTTP";
        let Some(attribute) = self.found.quirks.http_boot_needs_tls_attribute() else { return Ok(()) };
        if image.scheme() != "http" {
            return Ok(());
        }
        let system = self.service.read(&self.found.system, what).await?.resource;
        let Some(path) = system.link(&["Bios"]) else { return Ok(()) };
        let Some(bios) = self.service.find(path, what).await? else { return Ok(()) };
        let settings = bios.link(&["@Redfish.Settings", "SettingsObject"]);
        let (Some(mode), Some(settings)) = (bios.text(&["Attributes", attribute]), settings) else { return Ok(()) };
        if mode == "None" {
            return Ok(());
        }
        let body =
            json!({ "@Redfish.SettingsApplyTime": { "ApplyTime": "OnReset" }, "Attributes": { attribute: "None" } });
        let tag = self.service.read(settings, what).await?.tag;
        self.service.patch(settings, tag, &body, self.found.quirks, (what, Wait::Accepted)).await
    }
}

#[async_trait]
impl PowerControl for Controller {
    async fn on(&self) -> Result<()> {
        self.bring(Switch::On, PowerState::On).await
    }

    fn abilities(&self) -> Abilities<'_> {
        let found = &self.found;
        let mut able = Abilities::none().with_inventory(self);
        able.off = self.allows(Switch::Off).then_some(self);
        able.soft_off = self.allows(Switch::Soft).then_some(self);
        able.cycle = self.allows(Switch::Cycle).then_some(self);
        able.reset = self.allows(Switch::Reset).then_some(self);
        able.sense = found.has_state.then_some(self);
        able.next_boot = found.has_boot.then_some(self);
        able.identify = found.lamp.is_some().then_some(self);
        able.sensors = (!found.chassis.is_empty()).then_some(self);
        able.events = (!found.logs.is_empty()).then_some(self);
        able.http_boot = found.has_http_boot.then_some(self);
        able.media = (!found.media.is_empty()).then_some(self);
        able.firmware = found.updates.is_some().then_some(self);
        able
    }

    async fn close(&self) -> Result<()> {
        self.service.close().await
    }
}

#[async_trait]
impl PowerOff for Controller {
    async fn off(&self) -> Result<()> {
        self.bring(Switch::Off, PowerState::Off).await
    }
}

#[async_trait]
impl SoftOff for Controller {
    async fn soft_off(&self) -> Result<()> {
        self.bring(Switch::Soft, PowerState::Off).await
    }
}

#[async_trait]
impl PowerCycle for Controller {
    async fn cycle(&self) -> Result<()> {
        if self.power().await? == Some(PowerState::Off) {
            return self.switch(Switch::On).await;
        }
        let has_type = self.found.reset.as_ref().and_then(|reset| plan::reset_type(Switch::Cycle, &reset.allowed));
        match has_type {
            Some(_) => self.switch(Switch::Cycle).await,
            None => self.off_and_on().await,
        }
    }
}

#[async_trait]
impl Reset for Controller {
    async fn reset(&self) -> Result<()> {
        // Some switch on what is off, and some say yes and do nothing.
        if self.power().await? == Some(PowerState::Off) {
            let what = Switch::Reset.what().to_owned();
            return Err(PowerError::Refused { what, reason: "it is off".to_owned() });
        }
        self.switch(Switch::Reset).await
    }
}

#[async_trait]
impl PowerSense for Controller {
    async fn state(&self) -> Result<PowerState> {
        let nothing = || PowerError::Malformed { reason: "it says nothing of its power".to_owned() };
        self.power().await?.ok_or_else(nothing)
    }
}

#[async_trait]
impl NextBoot for Controller {
    async fn set_next_boot(&self, boot: Option<BootOverride>) -> Result<Option<BootOverride>> {
        let what = "set the boot device";
        for is_last in [false, true] {
            let read = self.boot(what).await?;
            let changes = plan::boot(&read.resource, boot, self.found.quirks)?;
            self.change(&self.found.boot, read, &changes, what).await?;
            let reverts = self.found.quirks.override_may_revert();
            sleep(reverts.unwrap_or(Duration::ZERO)).await;
            // There are controllers that keep less than they were told: what they say is what they will do.
            let kept = plan::boot_said(&self.boot(what).await?.resource);
            if is_last || reverts.is_none() || plan::is_kept(boot, kept) {
                return Ok(kept);
            }
        }
        Ok(None)
    }

    async fn next_boot(&self) -> Result<Option<BootOverride>> {
        Ok(plan::boot_said(&self.boot("tell the boot device").await?.resource))
    }
}

#[async_trait]
impl HttpBoot for Controller {
    async fn set_http_boot(&self, image: Option<&Url>) -> Result<Option<String>> {
        let what = "set the address to boot from";
        let read = self.boot(what).await?;
        let changes = match image {
            Some(image) => {
                self.allow_plain_http(image).await?;
                vec![plan::http_boot(&read.resource, image, self.found.quirks)]
            }
            None => plan::boot(&read.resource, None, self.found.quirks)?,
        };
        self.change(&self.found.boot, read, &changes, what).await?;
        self.http_boot().await
    }

    async fn http_boot(&self) -> Result<Option<String>> {
        Ok(plan::http_boot_said(&self.boot("tell the address that it boots from").await?.resource))
    }
}

#[async_trait]
impl Identify for Controller {
    /// Redfish knows no time: a lamp is lit until it is put out.
    async fn identify(&self, lit: Option<Duration>) -> Result<()> {
        let what = "light its lamp";
        let refused = |reason: &str| PowerError::Refused { what: what.to_owned(), reason: reason.to_owned() };
        let Some(Lamp { path, property }) = &self.found.lamp else { return Err(refused("it has none")) };
        let read = self.service.read(path, what).await?;
        self.change(path, read, &plan::lamp(*property, lit.is_some(), self.found.quirks), what).await?;
        let after: Resource = self.service.read(path, what).await?.resource;
        match plan::lamp_said(*property, &after, self.found.quirks) == Some(lit.is_some()) {
            true => Ok(()),
            false => Err(refused("it said yes, and the lamp is as it was")),
        }
    }
}

#[async_trait]
impl Sensors for Controller {
    async fn sensors(&self) -> Result<Vec<Sensor>> {
        self.read_sensors().await
    }
}

#[async_trait]
impl EventLog for Controller {
    async fn events(&self, most: usize) -> Result<Vec<LoggedEvent>> {
        self.read_events(most).await
    }
}

#[async_trait]
impl VirtualMedia for Controller {
    async fn insert(&self, image: &Url) -> Result<Option<String>> {
        self.insert_media(image).await
    }

    async fn eject(&self) -> Result<()> {
        self.eject_media().await
    }

    async fn inserted(&self) -> Result<Option<String>> {
        self.inserted_media().await
    }
}

#[async_trait]
impl Inventory for Controller {
    async fn inventory(&self) -> Result<crate::inventory::Inventory> {
        self.read_inventory().await
    }
}

#[async_trait]
impl Firmware for Controller {
    async fn firmware(&self) -> Result<Vec<FirmwareVersion>> {
        self.read_firmware().await
    }
}
