//! The controller's user table: who may log in on its LAN channel (IPMI 2.0, 22.27 and 22.29).

use dragonfly_core::inventory::{BmcPrivilege, BmcUser};

use super::{Ask, IpmiError, Request, content};

/// User names are this long at most, filled up with zeros (22.28).
pub(super) const NAME: usize = 16;
/// The highest user ID that fits into its six bits.
const MOST: u8 = 63;

/// What a controller says of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// User ID.
    pub(super) id: u8,
    pub(super) name: Name,
    pub(super) access: Option<Access>,
}

/// What stands in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Nothing.
    Empty,
    /// This, without the zeros behind it.
    Set(Vec<u8>),
    /// It does not say.
    Unknown,
}

/// What a user may do on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// How many slots there are.
    most: u8,
    /// How many of them, from the first on, have names that cannot be changed.
    pub(super) fixed: u8,
    enabled: Option<bool>,
    messaging: bool,
    privilege: u8,
}

impl Access {
    /// Whether somebody may log in by it.
    fn opens(self) -> bool {
        self.messaging && (1..=5).contains(&self.privilege) && self.enabled != Some(false)
    }
}

impl Slot {
    /// Whether nobody uses it: it has no name, and nobody logs in without one.
    pub(super) fn is_free(&self) -> bool {
        self.name == Name::Empty && !self.access.is_some_and(Access::opens)
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        matches!(&self.name, Name::Set(bytes) if bytes == name.as_bytes())
    }

    /// As people are told; `None` for one that is not used.
    fn seen(&self) -> Option<BmcUser> {
        let name = match &self.name {
            Name::Set(bytes) => {
                Some(String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect::<String>())
            }
            Name::Empty | Name::Unknown => None,
        };
        let opens = self.access.is_some_and(Access::opens);
        (name.is_some() || opens).then(|| BmcUser {
            slot: self.id,
            name,
            enabled: self.access.and_then(|access| access.enabled),
            privilege: self.access.and_then(|access| privilege(access.privilege)),
        })
    }
}

/// Table 6-1's numbers; 0 is reserved, and says nothing.
fn privilege(limit: u8) -> Option<BmcPrivilege> {
    match limit {
        0 => None,
        1 => Some(BmcPrivilege::Callback),
        2 => Some(BmcPrivilege::User),
        3 => Some(BmcPrivilege::Operator),
        4 => Some(BmcPrivilege::Administrator),
        5 => Some(BmcPrivilege::Oem),
        0x0f => Some(BmcPrivilege::NoAccess),
        _ => Some(BmcPrivilege::Other),
    }
}

/// Get User Access (22.27).
fn get_access(channel: u8, id: u8) -> Request {
    Request { netfn: 0x06, command: 0x44, data: vec![channel & 0x0f, id & 0x3f] }
}

/// Get User Name (22.29).
fn get_name(id: u8) -> Request {
    Request { netfn: 0x06, command: 0x46, data: vec![id & 0x3f] }
}

fn access(answer: &[u8]) -> Result<Access, IpmiError> {
    let &[most, enabled, fixed, access, ..] = content(answer)? else { return Err(IpmiError::Short) };
    let enabled = match enabled >> 6 {
        1 => Some(true),
        2 => Some(false),
        _ => None,
    };
    let (messaging, privilege) = (access & 0x10 != 0, access & 0x0f);
    Ok(Access { most: most & 0x3f, fixed: fixed & 0x3f, enabled, messaging, privilege })
}

fn name(answer: Result<Vec<u8>, IpmiError>) -> Result<Name, IpmiError> {
    let bytes = match answer.and_then(|answer| content(&answer).map(<[u8]>::to_vec)) {
        Ok(bytes) => bytes,
        // "Not present" and "invalid data field" are how many say that a slot has no name.
        Err(IpmiError::Refused(0xcb | 0xcc)) => return Ok(Name::Empty),
        Err(IpmiError::Refused(_)) => return Ok(Name::Unknown),
        Err(error) => return Err(error),
    };
    let bytes = bytes.get(..NAME).unwrap_or(&bytes);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    // Flash that was never written, or filled up with spaces.
    if text.iter().all(|byte| matches!(byte, 0xff | b' ')) {
        return Ok(Name::Empty);
    }
    Ok(Name::Set(text.to_vec()))
}

/// Every slot, from 1 on. What is said of one may be missing; silence ends it.
pub(super) fn table(channel: u8, ask: Ask<'_>) -> Result<Vec<Slot>, IpmiError> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut most = 1;
    let mut id = 1;
    while id <= most {
        let access = match ask(&get_access(channel, id)).and_then(|answer| access(&answer)) {
            Ok(access) => Some(access),
            // Without a first one it is not known how many there are.
            Err(error @ (IpmiError::Refused(_) | IpmiError::Short)) if id == 1 => return Err(error),
            Err(IpmiError::Refused(_) | IpmiError::Short) => None,
            Err(error) => return Err(error),
        };
        if let Some(access) = access.filter(|_| id == 1) {
            most = access.most.min(MOST);
        }
        slots.push(Slot { id, name: name(ask(&get_name(id)))?, access });
        id += 1;
    }
    Ok(slots)
}

/// The users of a channel: the slots that have a name or open something.
///
/// # Errors
/// What kept the controller from telling all of them.
pub fn users(channel: u8, ask: Ask<'_>) -> Result<Vec<BmcUser>, IpmiError> {
    Ok(table(channel, ask)?.iter().filter_map(Slot::seen).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Habit};
    use super::*;

    fn user(slot: u8, name: Option<&str>, enabled: Option<bool>, privilege: Option<BmcPrivilege>) -> BmcUser {
        BmcUser { slot, name: name.map(str::to_owned), enabled, privilege }
    }

    #[test]
    fn commands_and_answers_byte_by_byte() {
        assert_eq!(get_access(8, 3), Request { netfn: 0x06, command: 0x44, data: vec![8, 3] });
        assert_eq!(get_name(63), Request { netfn: 0x06, command: 0x46, data: vec![63] });
        let got = access(&[0, 0x0a, 0x41, 0x02, 0x34]).unwrap();
        let want = Access { most: 10, fixed: 2, enabled: Some(true), messaging: true, privilege: 4 };
        assert_eq!(got, want);
        let got = access(&[0, 0x8f, 0x81, 0xc1, 0x0f, 9]).unwrap();
        let want = Access { most: 15, fixed: 1, enabled: Some(false), messaging: false, privilege: 15 };
        assert_eq!(got, want, "reserved bits say nothing");
        assert!(matches!(access(&[0, 1, 2, 3]), Err(IpmiError::Short)));
        let set = |bytes: &[u8]| Name::Set(bytes.to_vec());
        for (answer, want) in [
            (&b"\0ADMIN\0\0\0\0\0\0\0\0\0\0\0"[..], set(b"ADMIN")),
            (b"\0dragonfly-of-16b", set(b"dragonfly-of-16b")),
            (b"\0dragonfly-of-16bytes", set(b"dragonfly-of-16b")),
            (b"\0ops", set(b"ops")),
            (b"\0\0\0", Name::Empty),
            (b"\0", Name::Empty),
            (b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Name::Empty),
            (b"\0                ", Name::Empty),
            (b"\xcc", Name::Empty),
            (b"\xcb", Name::Empty),
            (b"\xd4", Name::Unknown),
        ] {
            assert_eq!(name(Ok(answer.to_vec())).unwrap(), want, "{answer:x?}");
        }
        assert!(matches!(name(Ok(vec![0xc3])), Err(IpmiError::Silent)));
    }

    #[test]
    fn those_who_may_log_in_are_told() {
        let mut fake = Fake::new(Habit::Plain);
        fake.put(2, "ADMIN", true, 4);
        fake.put(5, "ops", false, 3);
        fake.put(6, "", true, 2);
        let seen = fake.with(|ask| users(1, ask)).unwrap();
        let want = [
            user(2, Some("ADMIN"), Some(true), Some(BmcPrivilege::Administrator)),
            user(5, Some("ops"), Some(false), Some(BmcPrivilege::Operator)),
            user(6, None, Some(true), Some(BmcPrivilege::User)),
        ];
        assert_eq!(seen, want);
        // One that does not say whether a user is enabled.
        let mut fake = Fake::new(Habit::SaysNotWhoIsEnabled);
        fake.put(2, "root\u{7}", true, 4);
        let seen = fake.with(|ask| users(1, ask)).unwrap();
        assert_eq!(seen, [user(2, Some("root"), None, Some(BmcPrivilege::Administrator))]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_or_absent() {
        let users = |answer: fn(&Request) -> Vec<u8>| users(1, &mut |request| Ok(answer(request)));
        assert!(matches!(users(|_| vec![0xc1]), Err(IpmiError::Refused(0xc1))), "it knows no users");
        assert!(matches!(users(|_| vec![0]), Err(IpmiError::Short)));
        assert!(matches!(users(|_| vec![0xff]), Err(IpmiError::Silent)));
        // It has two slots, and tells nothing of the second but its name.
        let seen = users(|request| match (request.command, request.data.as_slice()) {
            (0x44, [1, 1]) => vec![0, 2, 0, 1, 0x0f],
            (0x46, [2]) => b"\0ops".to_vec(),
            _ => vec![0xcc],
        });
        assert_eq!(seen.unwrap(), [user(2, Some("ops"), None, None)]);
    }
}
