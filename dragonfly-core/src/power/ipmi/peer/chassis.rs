//! The machine behind a simulated controller.

use super::super::control::{VALID, decode};
use super::super::packet::Message;
use crate::power::BootOverride;

/// What a controller was told to do to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Off.
    Off = 0,
    /// On.
    On = 1,
    /// Off and on.
    Cycle = 2,
    /// Reset.
    Reset = 3,
    /// Soft off.
    Soft = 5,
}

impl Command {
    fn find(byte: u8) -> Option<Self> {
        [Self::Off, Self::On, Self::Cycle, Self::Reset, Self::Soft].into_iter().find(|known| *known as u8 == byte)
    }

    /// Whether a command changes something, for which a user's rights are too few.
    pub(super) fn changes(function: u8, command: u8) -> bool {
        function == 0 && matches!(command, 0x02 | 0x04 | 0x08)
    }
}

/// Whom a command is told, with what the machine boots from if it boots now.
type Hook = std::sync::Arc<dyn Fn(Command, Option<BootOverride>) + Send + Sync>;

/// The machine.
#[derive(Clone, Default)]
pub struct Chassis {
    /// Whether it has power.
    pub is_on: bool,
    /// Boot flags: parameter 5 as it was set.
    pub boot: [u8; 5],
    /// How long its lamp is lit.
    pub identify: u8,
    /// What was done to it, in order.
    pub done: Vec<Command>,
    /// Is told of each, after it was done; must not call the controller.
    pub hook: Option<Hook>,
    pub(super) lies: bool,
    pub(super) forgets_flags: bool,
}

impl std::fmt::Debug for Chassis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { is_on, boot, identify, done, .. } = self;
        f.debug_struct("Chassis")
            .field("is_on", is_on)
            .field("boot", boot)
            .field("identify", identify)
            .field("done", done)
            .finish_non_exhaustive()
    }
}

impl Chassis {
    pub(super) fn carry_out(&mut self, request: &Message) -> Vec<u8> {
        match (request.command, &request.data[..]) {
            (0x01, []) => vec![0, u8::from(self.is_on), 0, 0x40],
            (0x02, [byte]) => match Command::find(byte & 0x0f) {
                Some(command) => self.switch(command),
                None => vec![0xcc],
            },
            (0x04, [seconds, ..]) => {
                self.identify = *seconds;
                vec![0]
            }
            (0x08, [5, flags @ ..]) if flags.len() == 5 => {
                self.boot.copy_from_slice(flags);
                if self.forgets_flags {
                    self.boot[0] = 0;
                }
                vec![0]
            }
            // Everything else that clients set on the way: acknowledgements, the clearing of flags.
            (0x08, [0 | 3 | 4, ..]) => vec![0],
            (0x08, _) => vec![0x80],
            (0x09, [5, ..]) => [&[0, 1, 5], &self.boot[..]].concat(),
            (0x09, [parameter, ..]) => vec![0, 1, *parameter, 0],
            _ => vec![0xc1],
        }
    }

    fn switch(&mut self, command: Command) -> Vec<u8> {
        if !self.is_on && matches!(command, Command::Cycle | Command::Reset) {
            return vec![0xd5];
        }
        if self.lies {
            return vec![0];
        }
        self.is_on = !matches!(command, Command::Off | Command::Soft);
        self.done.push(command);
        let boot = decode(self.boot[0], self.boot[1]).filter(|_| self.boot[0] & VALID != 0);
        if let Some(hook) = &self.hook {
            // What holds for one boot is gone when it boots.
            if self.is_on && boot.is_some_and(|boot| !boot.persistent) {
                self.boot[0] &= !VALID;
            }
            hook(command, boot);
        }
        vec![0]
    }
}
