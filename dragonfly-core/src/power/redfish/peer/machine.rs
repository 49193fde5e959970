//! The machine behind a simulated service.

use std::sync::Arc;

/// What a service was told to do to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Off.
    Off,
    /// On.
    On,
    /// Off and on.
    Cycle,
    /// Reset.
    Reset,
    /// Soft off.
    Soft,
}

impl Command {
    /// By the reset type that asks for it.
    pub(super) fn of(reset_type: &str) -> Option<Self> {
        match reset_type {
            "On" | "ForceOn" => Some(Self::On),
            "ForceOff" => Some(Self::Off),
            "GracefulShutdown" => Some(Self::Soft),
            "PowerCycle" => Some(Self::Cycle),
            "ForceRestart" | "GracefulRestart" => Some(Self::Reset),
            _ => None,
        }
    }
}

/// What it boots from, in the words of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSet {
    /// `Disabled`, `Once` or `Continuous`.
    pub enabled: String,
    /// `None`, `Pxe`, `Hdd`, `Cd`, `BiosSetup`, `UefiHttp`.
    pub target: String,
    /// `UEFI` or `Legacy`.
    pub mode: String,
    /// Where it boots from over HTTP.
    pub uri: Option<String>,
}

impl Default for BootSet {
    fn default() -> Self {
        Self { enabled: "Disabled".to_owned(), target: "None".to_owned(), mode: "UEFI".to_owned(), uri: None }
    }
}

/// Whom a command is told, with what the machine boots from if it boots now.
type Hook = Arc<dyn Fn(Command, &BootSet) + Send + Sync>;

/// The machine.
#[derive(Clone, Default)]
pub struct Machine {
    /// Whether it has power.
    pub is_on: bool,
    /// Its boot override. One for the next boot is gone when it boots.
    pub boot: BootSet,
    /// Whether its lamp is lit.
    pub is_lit: bool,
    /// What is in its virtual drive.
    pub media: Option<String>,
    /// A firmware attribute of some: whether it wants TLS to boot over HTTP.
    pub tls_mode: String,
    /// What was done to it, in order.
    pub done: Vec<Command>,
    /// Is told of each, after it was done; must not call the service.
    pub hook: Option<Hook>,
    /// Counts its changes.
    pub(super) version: u32,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { is_on, boot, is_lit, media, done, .. } = self;
        f.debug_struct("Machine")
            .field("is_on", is_on)
            .field("boot", boot)
            .field("is_lit", is_lit)
            .field("media", media)
            .field("done", done)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Whether a command can be given to it as it is: real ones refuse to switch on what is on.
    pub(super) fn can(&self, command: Command) -> bool {
        match command {
            Command::On => !self.is_on,
            Command::Off | Command::Soft | Command::Cycle | Command::Reset => self.is_on,
        }
    }

    pub(super) fn carry_out(&mut self, command: Command) {
        self.is_on = !matches!(command, Command::Off | Command::Soft);
        self.version += 1;
        let boot = self.boot.clone();
        if self.is_on && boot.enabled == "Once" {
            self.boot = BootSet { mode: boot.mode.clone(), ..BootSet::default() };
        }
        self.done.push(command);
        if let Some(hook) = &self.hook {
            hook(command, &boot);
        }
    }
}
