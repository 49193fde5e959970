//! Turning machines on and off: what a management controller (BMC) or hypervisor can do for one machine.
//!
//! A [`PowerDriver`] answers for a URL scheme and opens a [`PowerControl`]; everything beyond "on" is an
//! ability of its own, and [`Abilities`] holds those that this controller has. What a controller cannot
//! do is not there to be called, so there is no "unsupported" error at run time.
//!
//! Whoever writes a driver proves it with `testing::power::check`.

mod accounts;
mod dispatch;
mod drivers;
mod error;
#[cfg(any(feature = "proxmox", feature = "redfish"))]
// Each driver uses its part of it.
#[cfg_attr(not(all(feature = "proxmox", feature = "redfish")), allow(dead_code))]
pub(crate) mod https;
#[cfg(feature = "ipmi")]
pub mod ipmi;
mod media;
mod operation;
mod parts;
#[cfg(feature = "proxmox")]
pub mod proxmox;
#[cfg(feature = "redfish")]
pub mod redfish;
#[cfg(feature = "wol")]
pub mod wol;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use url::Url;

pub use dispatch::{Dispatcher, Limits, Target};
pub use drivers::PowerDrivers;
pub use error::PowerError;
pub use media::{HttpBoot, VirtualMedia};
pub use operation::{Operation, Outcome};
pub use parts::{Firmware, FirmwareVersion, Inventory};

use crate::clock::Timestamp;
use crate::secret::SecretString;

/// What a call of this module returns.
pub type Result<T, E = PowerError> = std::result::Result<T, E>;

/// Whether a machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerState {
    /// Standby power at most.
    Off,
    /// Running, or halted with the power on.
    On,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
        })
    }
}

/// What firmware boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BootDevice {
    /// The network card: PXE.
    Pxe,
    /// A local disk.
    Disk,
    /// Optical drive, real or virtual.
    Cdrom,
    /// The firmware's setup pages.
    Bios,
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pxe => "pxe",
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
            Self::Bios => "bios",
        })
    }
}

/// How firmware boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootMode {
    /// By boot sector (BIOS).
    Legacy,
    /// By EFI application.
    Uefi,
}

/// Another boot order than the firmware's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootOverride {
    /// What to boot from.
    pub device: BootDevice,
    /// At every boot from now on, not only at the next.
    #[serde(default)]
    pub persistent: bool,
    /// Firmware's own choice, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BootMode>,
}

impl BootOverride {
    /// From this device at the next boot, in the mode that the firmware is in.
    pub fn once(device: BootDevice) -> Self {
        Self { device, persistent: false, mode: None }
    }
}

impl fmt::Display for BootOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, if self.persistent { "at every boot" } else { "at the next boot" })?;
        match self.mode {
            None => Ok(()),
            Some(BootMode::Legacy) => f.write_str(", legacy"),
            Some(BootMode::Uefi) => f.write_str(", UEFI"),
        }
    }
}

/// Who logs in to a controller. Does not print.
#[derive(Clone)]
pub struct Credential {
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// One value that a controller measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sensor {
    /// As the controller calls it: `CPU1 Temp`.
    pub name: String,
    /// What is measured: `Temperature`, `Fan`, `Voltage`.
    pub kind: String,
    /// The value; absent when there is none at the moment, as of a part that is not fitted or has no power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// `degrees C`, `RPM`, `Volts`; empty for a value without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// What the controller thinks of it.
    pub health: Health,
}

/// What a controller thinks of a value or an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It says nothing of it.
    Unknown,
    /// Within its limits.
    Ok,
    /// Beyond a first limit.
    Warning,
    /// Beyond a limit that harms.
    Critical,
}

/// One entry of a controller's event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedEvent {
    /// As the controller numbers it.
    pub id: String,
    /// By the controller's clock; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What it is about.
    pub sensor: String,
    /// What happened.
    pub message: String,
    /// How grave it is.
    pub health: Health,
}

/// How a third party teaches Dragonfly a new kind of management controller.
#[async_trait]
pub trait PowerDriver: fmt::Debug + Send + Sync + 'static {
    /// The URL scheme that this driver answers for, as `redfish`.
    fn scheme(&self) -> &'static str;

    /// Whether an address is one of this driver's. Sends nothing.
    fn check(&self, address: &Url) -> Result<()>;

    /// How many calls at a time one host takes. One, unless a host is no controller of a single machine but speaks for
    /// many.
    fn calls_a_host(&self) -> usize {
        1
    }

    /// The same driver, trusting also what the certificate authorities in a PEM text vouch for; `None` for one that
    /// asks for no certificates.
    ///
    /// # Errors
    /// `InvalidRoots` for a text without certificates, or with broken ones.
    fn with_authorities(&self, pem: &str) -> Result<Option<Arc<dyn PowerDriver>>> {
        let _ = pem;
        Ok(None)
    }

    /// Opens one controller; may log in at once or at the first call.
    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>>;
}

/// One machine's power, addressed and authenticated.
///
/// Calls are made one after the other: controllers break under parallel sessions.
#[async_trait]
pub trait PowerControl: fmt::Debug + Send + Sync + 'static {
    /// Switches on: the one thing that every controller can do. A machine that is on stays as it is.
    async fn on(&self) -> Result<()>;

    /// What else this controller can do.
    fn abilities(&self) -> Abilities<'_>;

    /// Gives back what the controller holds for us, as a session; a later call opens it anew.
    async fn close(&self) -> Result<()>;
}

/// Switching off.
#[async_trait]
pub trait PowerOff: Send + Sync {
    /// Takes the power away. A machine that is off stays so.
    async fn off(&self) -> Result<()>;
}

/// Asking the operating system to go.
#[async_trait]
pub trait SoftOff: Send + Sync {
    /// Presses the power button for a moment (ACPI); returns when that was done, not when it was obeyed.
    async fn soft_off(&self) -> Result<()>;
}

/// Off and on again.
#[async_trait]
pub trait PowerCycle: Send + Sync {
    /// Takes the power away for a moment; a machine that is off is switched on.
    async fn cycle(&self) -> Result<()>;
}

/// Resetting.
#[async_trait]
pub trait Reset: Send + Sync {
    /// Resets without taking the power away; refused for a machine that is off.
    async fn reset(&self) -> Result<()>;
}

/// Seeing the power.
#[async_trait]
pub trait PowerSense: Send + Sync {
    /// Whether it is on now.
    async fn state(&self) -> Result<PowerState>;
}

/// Choosing what firmware boots from.
#[async_trait]
pub trait NextBoot: Send + Sync {
    /// Sets it, or with `None` lets firmware boot as it likes. What the controller says of it afterwards is
    /// returned: many keep less than they were told, and none is an error of ours to hide.
    async fn set_next_boot(&self, boot: Option<BootOverride>) -> Result<Option<BootOverride>>;

    /// What is set.
    async fn next_boot(&self) -> Result<Option<BootOverride>>;
}

/// A light to find the machine by.
#[async_trait]
pub trait Identify: Send + Sync {
    /// Lit for so long (whole seconds, up to 255), or put out with `None`.
    async fn identify(&self, lit: Option<Duration>) -> Result<()>;
}

/// Measuring.
#[async_trait]
pub trait Sensors: Send + Sync {
    /// Every sensor, in the controller's order.
    async fn sensors(&self) -> Result<Vec<Sensor>>;
}

/// Remembering.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The last `most` entries, oldest first.
    async fn events(&self, most: usize) -> Result<Vec<LoggedEvent>>;
}

/// What a controller can do beyond [`PowerControl::on`], as the trait objects that do it.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Abilities<'a> {
    /// Off.
    pub off: Option<&'a dyn PowerOff>,
    /// Soft off.
    pub soft_off: Option<&'a dyn SoftOff>,
    /// Off and on.
    pub cycle: Option<&'a dyn PowerCycle>,
    /// Reset.
    pub reset: Option<&'a dyn Reset>,
    /// Power state.
    pub sense: Option<&'a dyn PowerSense>,
    /// Boot device.
    pub next_boot: Option<&'a dyn NextBoot>,
    /// Light.
    pub identify: Option<&'a dyn Identify>,
    /// Sensors.
    pub sensors: Option<&'a dyn Sensors>,
    /// Event log.
    pub events: Option<&'a dyn EventLog>,
    /// HTTP boot.
    pub http_boot: Option<&'a dyn HttpBoot>,
    /// Virtual media.
    pub media: Option<&'a dyn VirtualMedia>,
    /// Hardware.
    pub inventory: Option<&'a dyn Inventory>,
    /// Firmware versions.
    pub firmware: Option<&'a dyn Firmware>,
}

impl<'a> Abilities<'a> {
    /// Nothing but on.
    pub fn none() -> Self {
        Self::default()
    }

    /// With [`PowerOff`].
    #[must_use]
    pub fn with_off(self, off: &'a dyn PowerOff) -> Self {
        Self { off: Some(off), ..self }
    }

    /// With [`SoftOff`].
    #[must_use]
    pub fn with_soft_off(self, soft_off: &'a dyn SoftOff) -> Self {
        Self { soft_off: Some(soft_off), ..self }
    }

    /// With [`PowerCycle`].
    #[must_use]
    pub fn with_cycle(self, cycle: &'a dyn PowerCycle) -> Self {
        Self { cycle: Some(cycle), ..self }
    }

    /// With [`Reset`].
    #[must_use]
    pub fn with_reset(self, reset: &'a dyn Reset) -> Self {
        Self { reset: Some(reset), ..self }
    }

    /// With [`PowerSense`].
    #[must_use]
    pub fn with_sense(self, sense: &'a dyn PowerSense) -> Self {
        Self { sense: Some(sense), ..self }
    }

    /// With [`NextBoot`].
    #[must_use]
    pub fn with_next_boot(self, next_boot: &'a dyn NextBoot) -> Self {
        Self { next_boot: Some(next_boot), ..self }
    }

    /// With [`Identify`].
    #[must_use]
    pub fn with_identify(self, identify: &'a dyn Identify) -> Self {
        Self { identify: Some(identify), ..self }
    }

    /// With [`Sensors`].
    #[must_use]
    pub fn with_sensors(self, sensors: &'a dyn Sensors) -> Self {
        Self { sensors: Some(sensors), ..self }
    }

    /// With [`EventLog`].
    #[must_use]
    pub fn with_events(self, events: &'a dyn EventLog) -> Self {
        Self { events: Some(events), ..self }
    }

    /// With [`HttpBoot`].
    #[must_use]
    pub fn with_http_boot(self, http_boot: &'a dyn HttpBoot) -> Self {
        Self { http_boot: Some(http_boot), ..self }
    }

    /// With [`VirtualMedia`].
    #[must_use]
    pub fn with_media(self, media: &'a dyn VirtualMedia) -> Self {
        Self { media: Some(media), ..self }
    }

    /// With [`Inventory`].
    #[must_use]
    pub fn with_inventory(self, inventory: &'a dyn Inventory) -> Self {
        Self { inventory: Some(inventory), ..self }
    }

    /// With [`Firmware`].
    #[must_use]
    pub fn with_firmware(self, firmware: &'a dyn Firmware) -> Self {
        Self { firmware: Some(firmware), ..self }
    }

    /// The words for what is there, for people: `on, off, cycle, status`.
    pub fn words(&self) -> Vec<&'static str> {
        let all = [
            ("on", true),
            ("off", self.off.is_some()),
            ("soft", self.soft_off.is_some()),
            ("cycle", self.cycle.is_some()),
            ("reset", self.reset.is_some()),
            ("status", self.sense.is_some()),
            ("boot-device", self.next_boot.is_some()),
            ("identify", self.identify.is_some()),
            ("sensors", self.sensors.is_some()),
            ("events", self.events.is_some()),
            ("http-boot", self.http_boot.is_some()),
            ("media", self.media.is_some()),
            ("inventory", self.inventory.is_some()),
            ("firmware", self.firmware.is_some()),
        ];
        all.into_iter().filter_map(|(word, there)| there.then_some(word)).collect()
    }
}

impl fmt::Debug for Abilities<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Abilities").field(&self.words()).finish()
    }
}
