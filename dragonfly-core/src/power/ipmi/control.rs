//! One controller: its commands, in a session that is opened when it is needed.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::session::{Patience, Session};
use super::suite::Suite;
use super::{Failed, Login};
use crate::power::{
    Abilities, BootDevice, BootMode, BootOverride, EventLog, Identify, LoggedEvent, NextBoot, PowerControl, PowerCycle,
    PowerError, PowerOff, PowerSense, PowerState, Reset, Result, Sensor, Sensors, SoftOff,
};

/// Network functions (IPMI 2.0, table 5-1).
const CHASSIS: u8 = 0x00;
const APP: u8 = 0x06;

/// "Not in this state": how some controllers answer "on" to a machine that is on.
const NOT_NOW: u8 = 0xd5;
/// "Busy": it may be asked again at once.
const BUSY: u8 = 0xc0;
/// How often a busy controller is asked, and how long it is left alone in between.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Bits of boot flags (table 28-14, parameter 5).
pub(super) const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;

/// Chassis control (28.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Switch {
    Off = 0,
    On = 1,
    Cycle = 2,
    Reset = 3,
    Soft = 5,
}

/// One controller.
#[derive(Debug)]
pub struct Controller {
    host: String,
    port: u16,
    login: Login,
    suites: Vec<Suite>,
    patience: Patience,
    session: Mutex<Option<Session>>,
}

impl Controller {
    pub(super) fn new(host: String, port: u16, login: Login, suites: Vec<Suite>, patience: Patience) -> Self {
        Self { host, port, login, suites, patience, session: Mutex::new(None) }
    }

    /// The number of the cipher suite that was agreed on; `None` before the first call.
    pub async fn cipher_suite(&self) -> Option<u8> {
        self.session.lock().await.as_ref().map(|session| session.suite().id())
    }

    async fn log_in(&self) -> Result<Session> {
        let unreachable = |error: std::io::Error| PowerError::Unreachable { source: error.into() };
        let found = tokio::net::lookup_host((&*self.host, self.port)).await.map_err(unreachable)?.next();
        let address = found.ok_or_else(|| PowerError::Unreachable { source: "the name has no address".into() })?;
        Session::open(address, &self.login, &self.suites, self.patience).await
    }

    /// One command, in the session that there is or in a new one. It may be carried out twice.
    pub(super) async fn request(&self, function: u8, command: u8, data: &[u8]) -> Result<Vec<u8>, Failed> {
        self.send((function, command), data, true).await
    }

    /// One command. One that may not be carried out twice is not sent again when nobody answered: the controller may
    /// have obeyed it, and only the answer be lost.
    async fn send(&self, (function, command): (u8, u8), data: &[u8], repeatable: bool) -> Result<Vec<u8>, Failed> {
        let mut place = self.session.lock().await;
        for time in 1.. {
            let is_new = place.is_none();
            let mut session = match place.take() {
                Some(session) => session,
                None => self.log_in().await?,
            };
            match session.request(function, command, data).await {
                // It forgets sessions that were silent for a minute, and answers nothing in them.
                Err(Failed::Power(PowerError::TimedOut { .. } | PowerError::Unreachable { .. }))
                    if !is_new && repeatable => {}
                Err(Failed::Power(error)) => return Err(error.into()),
                Err(Failed::Code(BUSY)) if time < BUSY_TRIES => {
                    *place = Some(session);
                    sleep(BUSY_PAUSE).await;
                }
                answer => {
                    *place = Some(session);
                    return answer;
                }
            }
        }
        Err(Failed::Code(BUSY))
    }

    async fn power(&self) -> Result<PowerState, Failed> {
        match self.request(CHASSIS, 0x01, &[]).await?.first() {
            Some(byte) if byte & 1 == 1 => Ok(PowerState::On),
            Some(_) => Ok(PowerState::Off),
            None => Err(PowerError::Malformed { reason: "a chassis status without content".to_owned() }.into()),
        }
    }

    async fn switch(&self, to: Switch) -> Result<(), Failed> {
        let repeatable = matches!(to, Switch::On | Switch::Off);
        self.send((CHASSIS, 0x02), &[to as u8], repeatable).await.map(drop)
    }

    /// Brings it into a state in which it may be already.
    async fn bring(&self, to: Switch, wanted: PowerState, what: &str) -> Result<()> {
        match self.switch(to).await {
            Err(Failed::Code(NOT_NOW)) if self.power().await.ok() == Some(wanted) => Ok(()),
            done => done.map_err(|failed| failed.because(what)),
        }
    }

    /// The boot flags: first byte and device.
    async fn boot_flags(&self) -> Result<(u8, u8), Failed> {
        let answer = self.request(CHASSIS, 0x09, &[5, 0, 0]).await?;
        match answer[..] {
            [_, _, flags, device, ..] => Ok((flags, device)),
            _ => Err(PowerError::Malformed { reason: "boot flags without content".to_owned() }.into()),
        }
    }

    /// What answers: manufacturer and product number, firmware revision (20.1).
    pub async fn device_id(&self) -> Result<DeviceId> {
        let answer = self.request(APP, 0x01, &[]).await.map_err(|failed| failed.because("tell what it is"))?;
        DeviceId::parse(&answer)
            .ok_or_else(|| PowerError::Malformed { reason: "a device id that is too short".to_owned() })
    }
}

/// What a controller says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceId {
    /// By the number that IANA gave it.
    pub manufacturer: u32,
    /// By the manufacturer's own number.
    pub product: u16,
    /// `2.14`
    pub firmware: String,
    /// `2.0`
    pub ipmi: String,
}

impl DeviceId {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let [_, _, major, minor, version, _, m0, m1, m2, p0, p1, ..] = *data else { return None };
        Some(Self {
            manufacturer: u32::from_le_bytes([m0, m1, m2 & 0x0f, 0]),
            product: u16::from_le_bytes([p0, p1]),
            // The second number is in BCD.
            firmware: format!("{}.{minor:02x}", major & 0x7f),
            ipmi: format!("{}.{}", version & 0x0f, version >> 4),
        })
    }
}

/// The boot flags for a wish (parameter 5).
fn encode(boot: Option<BootOverride>) -> [u8; 6] {
    let Some(boot) = boot else { return [5, 0, 0, 0, 0, 0] };
    let device = match boot.device {
        BootDevice::Pxe => 1,
        BootDevice::Disk => 2,
        BootDevice::Cdrom => 5,
        BootDevice::Bios => 6,
    };
    let persistent = if boot.persistent { PERSISTENT } else { 0 };
    let efi = if boot.mode == Some(BootMode::Uefi) { EFI } else { 0 };
    [5, VALID | persistent | efi, device << 2, 0, 0, 0]
}

/// The wish that boot flags stand for; `None` for none, or for a device that we have no word for.
pub(super) fn decode(flags: u8, device: u8) -> Option<BootOverride> {
    let device = match device >> 2 & 0x0f {
        1 => BootDevice::Pxe,
        2 | 3 | 0xb => BootDevice::Disk,
        5 | 8 => BootDevice::Cdrom,
        6 => BootDevice::Bios,
        _ => return None,
    };
    // Without the bit firmware may still be UEFI: then it boots as it is set.
    let mode = (flags & EFI != 0).then_some(BootMode::Uefi);
    Some(BootOverride { device, persistent: flags & PERSISTENT != 0, mode })
}

#[async_trait]
impl PowerControl for Controller {
    async fn on(&self) -> Result<()> {
        self.bring(Switch::On, PowerState::On, "switch on").await
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_off(self)
            .with_soft_off(self)
            .with_cycle(self)
            .with_reset(self)
            .with_sense(self)
            .with_next_boot(self)
            .with_identify(self)
            .with_sensors(self)
            .with_events(self)
    }

    async fn close(&self) -> Result<()> {
        match self.session.lock().await.take() {
            Some(session) => session.close().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl PowerOff for Controller {
    async fn off(&self) -> Result<()> {
        self.bring(Switch::Off, PowerState::Off, "switch off").await
    }
}

#[async_trait]
impl SoftOff for Controller {
    async fn soft_off(&self) -> Result<()> {
        self.bring(Switch::Soft, PowerState::Off, "ask the operating system to shut down").await
    }
}

#[async_trait]
impl PowerCycle for Controller {
    async fn cycle(&self) -> Result<()> {
        let what = "cycle the power";
        // A machine that is off cannot be cycled (28.3): controllers refuse it, or do nothing and say nothing.
        match self.power().await.map_err(|failed| failed.because(what))? {
            PowerState::Off => self.on().await,
            PowerState::On => self.switch(Switch::Cycle).await.map_err(|failed| failed.because(what)),
        }
    }
}

#[async_trait]
impl Reset for Controller {
    async fn reset(&self) -> Result<()> {
        let what = "reset the machine";
        match self.power().await.map_err(|failed| failed.because(what))? {
            PowerState::Off => Err(PowerError::Refused { what: what.to_owned(), reason: "it is off".to_owned() }),
            PowerState::On => self.switch(Switch::Reset).await.map_err(|failed| failed.because(what)),
        }
    }
}

#[async_trait]
impl PowerSense for Controller {
    async fn state(&self) -> Result<PowerState> {
        self.power().await.map_err(|failed| failed.because("tell the power state"))
    }
}

#[async_trait]
impl NextBoot for Controller {
    async fn set_next_boot(&self, boot: Option<BootOverride>) -> Result<Option<BootOverride>> {
        let what = "set the boot device";
        let because = |failed: Failed| failed.because(what);
        // Else many forget the flags when the power cycles, or after a minute (parameter 3). Some do not know it.
        match self.request(CHASSIS, 0x08, &[3, 0x1f]).await {
            Ok(_) | Err(Failed::Code(_)) => {}
            Err(failed) => return Err(because(failed)),
        }
        self.request(CHASSIS, 0x08, &encode(boot)).await.map_err(because)?;
        // There are controllers that keep the device alone: what they say of it is still what they will do.
        let (flags, device) = self.boot_flags().await.map_err(because)?;
        Ok(decode(flags, device))
    }

    async fn next_boot(&self) -> Result<Option<BootOverride>> {
        let (flags, device) = self.boot_flags().await.map_err(|failed| failed.because("tell the boot device"))?;
        Ok(decode(flags, device).filter(|_| flags & VALID != 0))
    }
}

#[async_trait]
impl Identify for Controller {
    async fn identify(&self, lit: Option<Duration>) -> Result<()> {
        // Zero puts it out; a light of less than a second is one of a second.
        let seconds = lit.map_or(0, |lit| u8::try_from(lit.as_secs().max(1)).unwrap_or(u8::MAX));
        let done = self.request(CHASSIS, 0x04, &[seconds]).await;
        done.map(drop).map_err(|failed| failed.because("light its lamp"))
    }
}

#[async_trait]
impl Sensors for Controller {
    async fn sensors(&self) -> Result<Vec<Sensor>> {
        self.read_sensors().await.map_err(|failed| failed.because("tell its sensors"))
    }
}

#[async_trait]
impl EventLog for Controller {
    async fn events(&self, most: usize) -> Result<Vec<LoggedEvent>> {
        self.read_events(most).await.map_err(|failed| failed.because("tell its event log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_flags_as_the_specification_has_them() {
        let table = [
            (BootOverride::once(BootDevice::Pxe), [5, 0x80, 0x04]),
            (BootOverride { device: BootDevice::Disk, persistent: true, mode: None }, [5, 0xc0, 0x08]),
            (BootOverride { device: BootDevice::Pxe, persistent: true, mode: Some(BootMode::Uefi) }, [5, 0xe0, 0x04]),
            (BootOverride { device: BootDevice::Bios, persistent: false, mode: None }, [5, 0x80, 0x18]),
            (
                BootOverride { device: BootDevice::Cdrom, persistent: false, mode: Some(BootMode::Uefi) },
                [5, 0xa0, 0x14],
            ),
        ];
        for (wish, bytes) in table {
            let encoded = encode(Some(wish));
            assert_eq!((&encoded[..3], &encoded[3..]), (&bytes[..], &[0, 0, 0][..]), "{wish}");
            assert_eq!(decode(encoded[1], encoded[2]), Some(wish));
        }
        assert_eq!(encode(None), [5, 0, 0, 0, 0, 0]);
        assert_eq!(decode(0, 0), None);
        // Legacy is what the flags mean without the EFI bit.
        let legacy = BootOverride { mode: Some(BootMode::Legacy), ..BootOverride::once(BootDevice::Disk) };
        assert_eq!(encode(Some(legacy)), encode(Some(BootOverride::once(BootDevice::Disk))));
    }

    #[test]
    fn a_device_id() {
        // As ipmi_sim answers.
        let id = DeviceId::parse(&[0, 0, 9, 8, 2, 0x9f, 0x91, 0x12, 0, 0x02, 0x0f]).unwrap();
        let wanted = DeviceId { manufacturer: 0x1291, product: 0x0f02, firmware: "9.08".into(), ipmi: "2.0".into() };
        assert_eq!(id, wanted);
        assert_eq!(DeviceId::parse(&[0; 10]), None);
    }
}
