//! What people and the engine ask of a controller, and how one call of it goes.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

use super::media;
use super::{
    BootDevice, BootMode, BootOverride, FirmwareVersion, LoggedEvent, PowerControl, PowerError, PowerState, Result,
    Sensor, VirtualMedia,
};
use crate::inventory::Inventory;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Switch on, and see it on.
    On,
    /// Take the power away, and see it off.
    Off,
    /// Ask the operating system to shut down.
    SoftOff,
    /// Off and on again; what is off is switched on.
    Cycle,
    /// Reset; refused for a machine that is off.
    Reset,
    /// See whether it is on.
    Status,
    /// Log in, and see what the controller can do and whether the machine is on.
    Test,
    /// Set what it boots from; with `None`, as its firmware likes.
    SetNextBoot(Option<BootOverride>),
    /// See what it boots from.
    NextBoot,
    /// Light its lamp for so long, or put it out.
    Identify(Option<Duration>),
    /// Read its sensors.
    Sensors,
    /// Read the last so many entries of its log.
    Events(usize),
    /// Boot from this address over HTTP once; with `None`, as its firmware likes.
    SetHttpBoot(Option<Url>),
    /// See what address it boots from.
    HttpBoot,
    /// Put an image into its virtual drive.
    InsertMedia(Url),
    /// Take it out.
    EjectMedia,
    /// See what is in its virtual drive.
    Media,
    /// Read what hardware it has.
    Inventory,
    /// Read what firmware its parts have.
    Firmware,
    /// Boot it from the network once, whatever it does now: boot device, cycle, verify. A controller that cannot
    /// set a boot device leaves that to the firmware's own order; one that cannot cycle switches off and on, and one
    /// that can do nothing but switch on does that.
    NetworkBoot(Option<BootMode>),
}

impl Operation {
    /// The word for it, as in commands.
    pub fn word(&self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::SoftOff => "soft",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Test => "test",
            Self::SetNextBoot(_) | Self::NextBoot => "boot-device",
            Self::Identify(_) => "identify",
            Self::Sensors => "sensors",
            Self::Events(_) => "events",
            Self::SetHttpBoot(_) | Self::HttpBoot => "http-boot",
            Self::InsertMedia(_) | Self::EjectMedia | Self::Media => "media",
            Self::Inventory => "inventory",
            Self::Firmware => "firmware",
            Self::NetworkBoot(_) => "network-boot",
        }
    }

    /// What is wrong with it whatever the controller: an image whose address cannot be used. Sends nothing.
    ///
    /// # Errors
    /// `InvalidImage`.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::InsertMedia(image) => media::check_medium(image),
            Self::SetHttpBoot(Some(image)) => media::check_boot(image),
            _ => Ok(()),
        }
    }

    /// Whether it changes something, so that somebody will want to know who asked for it.
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Status
                | Self::Test
                | Self::NextBoot
                | Self::Sensors
                | Self::Events(_)
                | Self::HttpBoot
                | Self::Media
                | Self::Inventory
                | Self::Firmware
        )
    }

    /// Whether doing it twice is the same as doing it once, so that it may be tried again after no answer.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Self::SoftOff | Self::Cycle | Self::Reset | Self::NetworkBoot(_))
    }
}

/// Its word and what it is done with, for people who read what was done: `media insert http://10.0.0.1/a.iso`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::SetNextBoot(None) | Self::SetHttpBoot(None) => write!(f, "{word} none"),
            Self::SetNextBoot(Some(boot)) => write!(f, "{word} {boot}"),
            Self::SetHttpBoot(Some(image)) => write!(f, "{word} {}", media::shown(image)),
            Self::InsertMedia(image) => write!(f, "{word} insert {}", media::shown(image)),
            Self::EjectMedia => write!(f, "{word} eject"),
            _ => f.write_str(word),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was done; a change of power was seen.
    Done,
    /// The controller was told. It cannot tell whether the machine did it.
    Told,
    /// The machine is so.
    State(PowerState),
    /// This is what the controller can do, and whether the machine is on, where it can tell.
    Tested {
        /// Words of what it can do.
        can: Vec<&'static str>,
        /// Whether the machine is on.
        state: Option<PowerState>,
    },
    /// It boots from this, says the controller.
    Boot(Option<BootOverride>),
    /// Its sensors.
    Sensors(Vec<Sensor>),
    /// The end of its log.
    Events(Vec<LoggedEvent>),
    /// It boots from this address, or has this in its drive, as the controller writes it.
    Image(Option<String>),
    /// Its hardware.
    Inventory(Box<Inventory>),
    /// Its parts' firmware.
    Firmware(Vec<FirmwareVersion>),
}

/// How often a change of power is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// One try of an operation. `settle` is how long a change of power may take.
pub(super) async fn carry_out(control: &dyn PowerControl, operation: Operation, settle: Duration) -> Result<Outcome> {
    let able = control.abilities();
    let word = operation.word();
    let not_able = || PowerError::NotAble { what: word, can: able.words().join(", ") };
    match operation {
        Operation::On => {
            control.on().await?;
            return see(control, PowerState::On, settle).await;
        }
        Operation::Off => {
            able.off.ok_or_else(not_able)?.off().await?;
            return see(control, PowerState::Off, settle).await;
        }
        Operation::SoftOff => able.soft_off.ok_or_else(not_able)?.soft_off().await?,
        Operation::Cycle => {
            able.cycle.ok_or_else(not_able)?.cycle().await?;
            return see(control, PowerState::On, settle).await;
        }
        Operation::Reset => able.reset.ok_or_else(not_able)?.reset().await?,
        Operation::Test => {
            // One that can do nothing but switch on is asked nothing: whether it would is not to be tried.
            let state = match able.sense {
                Some(sense) => Some(sense.state().await?),
                None => None,
            };
            return Ok(Outcome::Tested { can: able.words(), state });
        }
        Operation::Status => return Ok(Outcome::State(able.sense.ok_or_else(not_able)?.state().await?)),
        Operation::SetNextBoot(boot) => {
            let kept = able.next_boot.ok_or_else(not_able)?.set_next_boot(boot).await?;
            return Ok(Outcome::Boot(kept));
        }
        Operation::NextBoot => {
            let set = able.next_boot.ok_or_else(not_able)?.next_boot().await?;
            // Booting over HTTP is no device.
            let image = match able.http_boot.filter(|_| set.is_none()) {
                Some(http) => http.http_boot().await?,
                None => None,
            };
            return Ok(image.map_or(Outcome::Boot(set), |image| Outcome::Image(Some(media::said(image)))));
        }
        Operation::Identify(lit) => able.identify.ok_or_else(not_able)?.identify(lit).await?,
        Operation::Sensors => return Ok(Outcome::Sensors(able.sensors.ok_or_else(not_able)?.sensors().await?)),
        Operation::Events(most) => return Ok(Outcome::Events(able.events.ok_or_else(not_able)?.events(most).await?)),
        Operation::NetworkBoot(mode) => return network_boot(control, mode, settle).await,
        Operation::SetHttpBoot(image) => {
            let kept = able.http_boot.ok_or_else(not_able)?.set_http_boot(image.as_ref()).await?;
            return match (image, kept) {
                (Some(_), None) => Err(empty("boot over HTTP", "nothing is set")),
                (_, kept) => Ok(Outcome::Image(kept.map(media::said))),
            };
        }
        Operation::HttpBoot => {
            let set = able.http_boot.ok_or_else(not_able)?.http_boot().await?;
            return Ok(Outcome::Image(set.map(media::said)));
        }
        Operation::InsertMedia(image) => {
            return insert(able.media.ok_or_else(not_able)?, &image, settle).await;
        }
        Operation::EjectMedia => able.media.ok_or_else(not_able)?.eject().await?,
        Operation::Media => {
            let inserted = able.media.ok_or_else(not_able)?.inserted().await?;
            return Ok(Outcome::Image(inserted.map(media::said)));
        }
        Operation::Inventory => {
            let inventory = able.inventory.ok_or_else(not_able)?.inventory().await?;
            return Ok(Outcome::Inventory(Box::new(inventory)));
        }
        Operation::Firmware => return Ok(Outcome::Firmware(able.firmware.ok_or_else(not_able)?.firmware().await?)),
    }
    Ok(Outcome::Done)
}

/// Puts an image in and sees it there: there are controllers that say yes first and fetch it then.
async fn insert(drive: &dyn VirtualMedia, image: &Url, settle: Duration) -> Result<Outcome> {
    let end = Instant::now() + settle;
    let mut kept = drive.insert(image).await?;
    loop {
        match kept {
            Some(kept) => return Ok(Outcome::Image(Some(media::said(kept)))),
            None if Instant::now() >= end => return Err(empty("insert an image", "its drive is empty")),
            None => sleep(LOOK).await,
        }
        kept = drive.inserted().await?;
    }
}

/// It said yes, and has nothing of it.
fn empty(what: &str, but: &str) -> PowerError {
    PowerError::Refused { what: what.to_owned(), reason: format!("it said yes, and says that {but}") }
}

async fn network_boot(control: &dyn PowerControl, mode: Option<BootMode>, settle: Duration) -> Result<Outcome> {
    let able = control.abilities();
    if let Some(next_boot) = able.next_boot {
        let wish = BootOverride { mode, ..BootOverride::once(BootDevice::Pxe) };
        let kept = next_boot.set_next_boot(Some(wish)).await?;
        if kept.map(|kept| kept.device) != Some(BootDevice::Pxe) {
            let reason = match kept {
                Some(kept) => format!("it says that it boots from {kept}"),
                None => "it says that nothing is set".to_owned(),
            };
            return Err(PowerError::Refused { what: "boot from the network".to_owned(), reason });
        }
    }
    match (able.cycle, able.off) {
        (Some(cycle), _) => cycle.cycle().await?,
        (None, Some(off)) => {
            off.off().await?;
            see(control, PowerState::Off, settle).await?;
            control.on().await?;
        }
        (None, None) => control.on().await?,
    }
    see(control, PowerState::On, settle).await
}

/// Looks until the machine is in this state: controllers say yes first and switch seconds later, or never. One that
/// cannot look is believed.
async fn see(control: &dyn PowerControl, wanted: PowerState, settle: Duration) -> Result<Outcome> {
    let Some(sense) = control.abilities().sense else { return Ok(Outcome::Told) };
    let end = Instant::now() + settle;
    loop {
        let found = sense.state().await?;
        if found == wanted {
            return Ok(Outcome::Done);
        }
        if Instant::now() >= end {
            return Err(PowerError::NotDone { wanted, found, after: settle });
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_without_what_opens_something() {
        let image = || "http://h/a.iso?key=1".parse::<Url>().unwrap();
        let pxe = BootOverride::once(BootDevice::Pxe);
        for (operation, want) in [
            (Operation::InsertMedia(image()), "media insert http://h/a.iso?..."),
            (Operation::EjectMedia, "media eject"),
            (Operation::SetHttpBoot(Some(image())), "http-boot http://h/a.iso?..."),
            (Operation::SetHttpBoot(None), "http-boot none"),
            (Operation::SetNextBoot(Some(pxe)), "boot-device pxe at the next boot"),
            (Operation::SetNextBoot(None), "boot-device none"),
            (Operation::Cycle, "cycle"),
        ] {
            assert_eq!(operation.to_string(), want);
            assert!(want.starts_with(operation.word()));
        }
    }
}
