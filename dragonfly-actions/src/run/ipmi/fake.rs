//! A controller's user table in memory, with the habits of real ones.

use std::collections::BTreeMap;

use super::{IpmiError, Request};

/// How a controller differs from the specification, or uses its freedom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Plain,
    /// It knows 16-byte passwords alone.
    Sixteen,
    /// It takes no password of ours: its policy wants other characters.
    Policy,
    /// Enabling wants password bytes too, though nobody reads them.
    WantsFiller,
    /// It cannot test passwords.
    TestsNothing,
    /// It says that it took a password, and keeps another.
    Forgets,
    /// The enabled state of a user is not told.
    SaysNotWhoIsEnabled,
    /// It stops answering after so many commands.
    DiesAfter(usize),
}

/// One slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: [u8; 16],
    /// With its length: a password is tested in the length that it was set in.
    pub(super) password: Vec<u8>,
    pub(super) enabled: bool,
    /// By channel: messaging and privilege.
    pub(super) access: BTreeMap<u8, (bool, u8)>,
}

#[derive(Debug)]
pub(super) struct Fake {
    habit: Habit,
    /// Slots 1 to 10.
    pub(super) slots: BTreeMap<u8, Entry>,
    pub(super) fixed: u8,
    /// The LAN channel.
    pub(super) channel: u8,
    pub(super) asked: Vec<(u8, Vec<u8>)>,
}

impl Fake {
    pub(super) fn new(habit: Habit) -> Self {
        let slots = (1..=10).map(|id| (id, Entry::default())).collect();
        Self { habit, slots, fixed: 1, channel: 1, asked: Vec::new() }
    }

    pub(super) fn put(&mut self, id: u8, name: &str, enabled: bool, privilege: u8) {
        let mut entry = Entry { enabled, password: b"theirs".to_vec(), ..Entry::default() };
        entry.name[..name.len()].copy_from_slice(name.as_bytes());
        entry.access.insert(self.channel, (true, privilege));
        self.slots.insert(id, entry);
    }

    pub(super) fn with<T>(&mut self, f: impl FnOnce(&mut dyn FnMut(&Request) -> Result<Vec<u8>, IpmiError>) -> T) -> T {
        f(&mut |request| self.answer(request))
    }

    /// Who can log in with this, and as what.
    pub(super) fn login(&self, name: &str, password: &str) -> Option<u8> {
        let slot = self.slots.values().find(|slot| text(&slot.name) == name.as_bytes())?;
        let (messaging, privilege) = slot.access.get(&self.channel)?;
        let right = text(&slot.password) == password.as_bytes();
        (slot.enabled && *messaging && right).then_some(*privilege)
    }

    fn answer(&mut self, request: &Request) -> Result<Vec<u8>, IpmiError> {
        if matches!(self.habit, Habit::DiesAfter(most) if self.asked.len() >= most) {
            return Err(IpmiError::Silent);
        }
        self.asked.push((request.command, request.data.clone()));
        let data = request.data.as_slice();
        Ok(match (request.netfn, request.command, data) {
            (0x06, 0x42, [channel]) if *channel == self.channel => vec![0, *channel, 4, 1, 0x80, 0xf2, 0x1b, 0, 0, 0],
            (0x0c, 0x02, [_, 3, 0, 0]) => vec![0, 0x11, 10, 0, 0, 6],
            (0x06, 0x44, [channel, id]) => match self.slots.get(id) {
                Some(slot) => {
                    let (messaging, privilege) = slot.access.get(channel).copied().unwrap_or((false, 0x0f));
                    let enabled = match (self.habit, slot.enabled) {
                        (Habit::SaysNotWhoIsEnabled, _) => 0,
                        (_, true) => 0x40,
                        (_, false) => 0x80,
                    };
                    vec![0, 10, enabled | 1, self.fixed, u8::from(messaging) << 4 | privilege]
                }
                None => vec![0xcc],
            },
            (0x06, 0x46, [id]) => match self.slots.get(id) {
                Some(slot) => [&[0][..], &slot.name].concat(),
                None => vec![0xcc],
            },
            (0x06, 0x43, [first, id, privilege, ..]) => match self.slots.get_mut(id) {
                Some(slot) if first & 0x80 != 0 => {
                    slot.access.insert(first & 0x0f, (first & 0x10 != 0, *privilege));
                    vec![0]
                }
                _ => vec![0xcc],
            },
            (0x06, 0x45, [id, name @ ..]) => match (self.slots.get_mut(id), <[u8; 16]>::try_from(name)) {
                (Some(slot), Ok(name)) if *id > self.fixed => {
                    slot.name = name;
                    vec![0]
                }
                (_, Err(_)) => vec![0xc7],
                _ => vec![0xcc],
            },
            (0x06, 0x47, [id, operation, bytes @ ..]) => {
                vec![self.password(id & 0x3f, id & 0x80 != 0, *operation, bytes)]
            }
            _ => vec![0xc1],
        })
    }

    fn password(&mut self, id: u8, long: bool, operation: u8, bytes: &[u8]) -> u8 {
        let habit = self.habit;
        let Some(slot) = self.slots.get_mut(&id) else { return 0xcc };
        let whole = bytes.len() == if long { 20 } else { 16 };
        match operation & 3 {
            0 | 1 if habit == Habit::WantsFiller && !whole => 0xc7,
            0 | 1 => {
                slot.enabled = operation & 1 == 1;
                0
            }
            _ if !whole => 0xc7,
            _ if long && habit == Habit::Sixteen => 0xc7,
            2 if habit == Habit::Policy => 0x82,
            2 => {
                slot.password = if habit == Habit::Forgets { vec![b'?'; bytes.len()] } else { bytes.to_vec() };
                0
            }
            _ if habit == Habit::TestsNothing => 0xc1,
            _ if slot.password.len() != bytes.len() => 0x81,
            _ if slot.password != bytes => 0x80,
            _ => 0,
        }
    }
}

/// Without the zeros behind it.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
