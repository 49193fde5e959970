//! Who is this machine? Several anchors, none of which is trusted alone when it is a placeholder
//! or stands on two machines.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::Mac;
use crate::resource::hardware::Anchors;
use crate::text::harmless;

/// Serial numbers and products that boards leave the factory with, in lower case.
const PLACEHOLDERS: [&str; 16] = [
    "to be filled by o.e.m.",
    "to be filled by oem",
    "default string",
    "system serial number",
    "system product name",
    "chassis serial number",
    "serial number",
    "not specified",
    "not applicable",
    "not available",
    "unknown",
    "none",
    "n/a",
    "o.e.m.",
    "oem",
    "invalid",
];

/// SMBIOS UUIDs that many boards share.
const SHARED_UUIDS: [Uuid; 3] = [
    Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009),
    Uuid::from_u128(0x0002_0003_0004_0005_0006_0007_0008_0009),
    Uuid::from_u128(0x1234_5678_1234_1234_1234_1234_5678_90ab),
];

/// The anchors that can tell a machine from others: placeholders are taken out.
pub fn clean(anchors: &Anchors) -> Anchors {
    let mut macs: Vec<Mac> = anchors.macs.iter().copied().filter(|mac| mac.is_unicast()).collect();
    macs.sort_unstable();
    macs.dedup();
    macs.truncate(64);
    let text = |value: &Option<String>| {
        let value = harmless(value.as_deref()?.trim());
        (!is_placeholder(&value)).then(|| clip(&value, 128).trim_end().to_owned())
    };
    Anchors {
        macs,
        smbios_uuid: anchors.smbios_uuid.filter(|uuid| !is_shared_uuid(uuid)),
        serial: text(&anchors.serial),
        product: text(&anchors.product),
    }
}

fn clip(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut letters = lower.chars().filter(|c| c.is_alphanumeric());
    let first = letters.next();
    // Empty, only punctuation, one character repeated (`000000`, `xxxx`), or counting up from 0 or 1.
    let Some(first) = first else { return true };
    letters.all(|c| c == first) && lower.len() > 1
        || PLACEHOLDERS.contains(&lower.as_str())
        || (lower.len() >= 4 && ("0123456789".starts_with(&lower) || "1234567890".starts_with(&lower)))
}

fn is_shared_uuid(uuid: &Uuid) -> bool {
    let bytes = uuid.as_bytes();
    bytes.iter().all(|b| *b == bytes[0]) || SHARED_UUIDS.contains(uuid)
}

/// What is known of a machine that may be the one that asks.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// Addresses that a person gave it, or that it booted from. What agents say of other cards counts for nothing: it
    /// may be anybody's.
    pub macs: Vec<Mac>,
    /// The serial number that a person says it has.
    pub expected: Option<&'a str>,
    /// What it said of itself last; `None` when its agent never reported.
    pub anchors: Option<&'a Anchors>,
    /// A conflict about it was settled by a person and its agent has not been heard since: a card of its own that is
    /// seen in another machine is that one's now.
    pub released: bool,
}

/// Which machine asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// One that nobody has seen.
    New,
    /// This one.
    Known(String),
    /// This one, which has cards that were of others that a person has released.
    Moved {
        /// The machine.
        machine: String,
        /// Whose cards they were.
        from: Vec<String>,
    },
    /// The anchors name different machines, or one machine with contradicting anchors. No merge.
    Conflict {
        /// The machines named.
        machines: Vec<String>,
        /// What contradicts what.
        why: String,
    },
}

/// Finds the machine that these anchors belong to, of which the card `booted` is the one that it booted from. `anchors`
/// must be [`clean`] already.
pub fn find(anchors: &Anchors, booted: Mac, known: &[Known<'_>]) -> Match {
    let by_mac: BTreeSet<&str> =
        known.iter().filter(|k| k.macs.iter().any(|mac| anchors.macs.contains(mac))).map(|k| k.name).collect();
    // A serial number is unique within a product only.
    let same_serial = |other: &Anchors| {
        anchors.serial.is_some() && anchors.serial == other.serial && anchors.product == other.product
    };
    let same_uuid = |other: &Anchors| anchors.smbios_uuid.is_some() && anchors.smbios_uuid == other.smbios_uuid;
    let mut by_board: BTreeSet<&str> = BTreeSet::new();
    for (this, test) in [
        (anchors.serial.is_some(), &same_serial as &dyn Fn(&Anchors) -> bool),
        (anchors.smbios_uuid.is_some(), &same_uuid),
    ] {
        let found: Vec<&str> = known.iter().filter(|k| k.anchors.is_some_and(test)).map(|k| k.name).collect();
        // An anchor seen on two machines tells nothing.
        if this && let [one] = found[..] {
            by_board.insert(one);
        }
    }
    if let Some(serial) = &anchors.serial {
        let found: Vec<&str> = known.iter().filter(|k| k.expected == Some(serial)).map(|k| k.name).collect();
        if let [one] = found[..] {
            by_board.insert(one);
        }
    }
    let named: BTreeSet<&str> = by_mac.union(&by_board).copied().collect();
    // It booted from a card of nobody's, on a board of nobody's, and says that it has cards of others: anybody can.
    if by_board.is_empty() && !known.iter().any(|k| k.macs.contains(&booted)) {
        if named.is_empty() {
            return Match::New;
        }
        let why = format!("it says that it has network cards of {}, and booted from {booted}", some(&named));
        return Match::Conflict { machines: named.iter().map(|n| (*n).to_owned()).collect(), why };
    }
    // Who was released gives way, for its cards; what is on the board was never lent.
    let gives_way = |name: &&str| {
        named.len() > 1 && !by_board.contains(name) && known.iter().any(|k| k.name == *name && k.released)
    };
    let (from, named): (Vec<&str>, Vec<&str>) = named.iter().copied().partition(gives_way);
    let is = |name: &str| match from[..] {
        [] => Match::Known(name.to_owned()),
        _ => Match::Moved { machine: name.to_owned(), from: from.iter().map(|n| (*n).to_owned()).collect() },
    };
    match named[..] {
        [] if from.is_empty() => Match::New,
        [name] => {
            let machine = known.iter().find(|k| k.name == name);
            if let (Some(expected), Some(serial)) = (machine.and_then(|k| k.expected), &anchors.serial)
                && expected != serial
            {
                let why = format!(
                    "its serial number is {serial}, and spec.serial says that it must be {expected}; \
                     if the machine is right, correct spec.serial: that settles it"
                );
                return Match::Conflict { machines: vec![name.to_owned()], why };
            }
            let Some(old) = machine.and_then(|k| k.anchors) else { return is(name) };
            match contradiction(anchors, old, by_mac.contains(name)) {
                None => is(name),
                Some(why) => Match::Conflict { machines: vec![name.to_owned()], why },
            }
        }
        _ => {
            let all: BTreeSet<&str> = named.iter().chain(&from).copied().collect();
            Match::Conflict {
                machines: named.iter().chain(&from).map(|n| (*n).to_owned()).collect(),
                why: format!("its network cards and its board belong to different machines: {}", some(&all)),
            }
        }
    }
}

/// The first few of names: a stranger may have any number of machines named.
fn some(names: &BTreeSet<&str>) -> String {
    let few: Vec<&str> = names.iter().copied().take(4).collect();
    let more = if names.len() > few.len() { format!(" and {} more", names.len() - few.len()) } else { String::new() };
    format!("{}{more}", few.join(", "))
}

/// What speaks against two sets of anchors being one machine. One anchor may have changed (a board or a
/// card was replaced); when nothing on the board is as it was, the card was moved.
fn contradiction(new: &Anchors, old: &Anchors, by_mac: bool) -> Option<String> {
    let differs = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    let serial = differs(&new.serial, &old.serial);
    let uuid = matches!((&new.smbios_uuid, &old.smbios_uuid), (Some(a), Some(b)) if a != b);
    let shared_cards = new.macs.iter().filter(|mac| old.macs.contains(mac)).count();
    let all_cards = shared_cards > 0 && shared_cards == old.macs.len() && old.macs.len() > 1;
    // Boards that have no numbers of their own take cards of others too.
    let is_gone = !has_no_board(old) && has_no_board(new);
    if is_gone && !all_cards {
        return Some(
            "its network card is known, but its board says neither serial number nor SMBIOS UUID any more: was a card moved or an address cloned?"
                .to_owned(),
        );
    }
    if serial && uuid && !all_cards {
        return Some(
            "its network card is known, but serial number and SMBIOS UUID are another board's: was a card moved or an address cloned?"
                .to_owned(),
        );
    }
    if !by_mac && shared_cards == 0 && (serial || uuid) {
        return Some("serial number and SMBIOS UUID do not belong together as before".to_owned());
    }
    None
}

/// Nothing but cards is known.
pub(super) fn has_no_board(anchors: &Anchors) -> bool {
    anchors.serial.is_none() && anchors.smbios_uuid.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors(macs: &[u8], uuid: u128, serial: &str) -> Anchors {
        clean(&Anchors {
            macs: macs.iter().map(|n| Mac::new([2, 0, 0, 0, 0, *n])).collect(),
            smbios_uuid: (uuid != 0).then(|| Uuid::from_u128(uuid)),
            serial: Some(serial.to_owned()),
            product: Some("R1".to_owned()),
        })
    }

    /// Who this is that booted from the first of its cards.
    fn find(anchors: &Anchors, known: &[Known<'_>]) -> Match {
        super::find(anchors, anchors.macs[0], known)
    }

    fn known<'a>(name: &'a str, anchors: &'a Anchors) -> Known<'a> {
        Known { name, macs: anchors.macs.clone(), expected: None, anchors: Some(anchors), released: false }
    }

    #[test]
    fn placeholders_are_no_anchors() {
        for serial in
            ["", " ", "0000000", "To Be Filled By O.E.M.", "Default string", "xxxxxx", "123456789", "N/A", "........"]
        {
            assert_eq!(anchors(&[1], 0, serial).serial, None, "{serial}");
        }
        assert_eq!(anchors(&[1], 0, "SN-0001").serial.as_deref(), Some("SN-0001"));
        for uuid in [u128::MAX, 0x0300_0200_0400_0500_0006_0007_0008_0009, 0x1111_1111_1111_1111_1111_1111_1111_1111] {
            assert_eq!(anchors(&[1], uuid, "").smbios_uuid, None, "{uuid:x}");
        }
        assert_eq!(
            clean(&Anchors { macs: vec![Mac::new([0; 6]), Mac::new([0xff; 6])], ..Anchors::default() }).macs,
            []
        );
    }

    #[test]
    fn who_is_who() {
        let a = anchors(&[1, 2], 0xa1, "SN-A");
        let b = anchors(&[3, 4], 0xb1, "SN-B");
        let fleet = [known("a", &a), known("b", &b)];
        let is = |name: &str| Match::Known(name.to_owned());
        // (cards, uuid, serial) -> who
        assert_eq!(find(&anchors(&[9], 0xc1, "SN-C"), &fleet), Match::New);
        assert_eq!(find(&a, &fleet), is("a"), "itself");
        assert_eq!(find(&anchors(&[9], 0xa1, "SN-A"), &fleet), is("a"), "all cards replaced");
        assert_eq!(find(&anchors(&[1, 2], 0xa2, "SN-A2"), &fleet), is("a"), "board replaced, all cards kept");
        assert_eq!(find(&anchors(&[1], 0xa2, "SN-A"), &fleet), is("a"), "one anchor changed");
        assert!(
            matches!(find(&anchors(&[1, 9], 0xc1, "SN-C"), &fleet), Match::Conflict { .. }),
            "one card moved into another chassis"
        );
        assert!(
            matches!(find(&anchors(&[1, 3], 0xa1, "SN-A"), &fleet), Match::Conflict { .. }),
            "cards of two machines"
        );
        assert!(
            matches!(find(&anchors(&[3], 0xa1, "SN-A"), &fleet), Match::Conflict { .. }),
            "board of one, card of another"
        );
        // It says that it has their cards, and booted from another.
        for cards in [&[1][..], &[1, 2], &[1, 3]] {
            for (uuid, serial) in [(0xc1, "SN-C"), (0, "None")] {
                let says = anchors(&[cards, &[9]].concat(), uuid, serial);
                let said = super::find(&says, Mac::new([2, 0, 0, 0, 0, 9]), &fleet);
                assert!(matches!(said, Match::Conflict { .. }), "{cards:?} {serial}: {said:?}");
            }
        }
        let other_card = super::find(&anchors(&[1, 9], 0xa1, "SN-A"), Mac::new([2, 0, 0, 0, 0, 9]), &fleet);
        assert_eq!(other_card, is("a"), "its board says so");
        // Its card in a board that has no numbers of its own; the same with all cards is a machine to look at: see
        // `unproven`.
        let Match::Conflict { machines, .. } = find(&anchors(&[1], 0, "None"), &fleet) else { panic!("merged") };
        assert_eq!(machines, ["a"]);
        assert_eq!(find(&anchors(&[1, 2], 0, "None"), &fleet), is("a"));
        // They exchanged their cards.
        for (cards, uuid, serial) in [(&[1, 2][..], 0xb1, "SN-B"), (&[3, 4], 0xa1, "SN-A"), (&[1], 0xb1, "SN-B")] {
            let Match::Conflict { machines, .. } = find(&anchors(cards, uuid, serial), &fleet) else {
                panic!("merged")
            };
            assert_eq!(machines, ["a", "b"]);
        }
        assert!(matches!(find(&anchors(&[9], 0xa1, "SN-B"), &fleet), Match::Conflict { .. }), "two boards at once");
    }

    #[test]
    fn an_anchor_on_two_machines_never_merges() {
        let a = anchors(&[1], 0x77, "SN-S");
        let b = anchors(&[2], 0x77, "SN-S");
        let fleet = [known("a", &a), known("b", &b)];
        assert_eq!(find(&anchors(&[3], 0x77, "SN-S"), &fleet), Match::New);
        assert_eq!(find(&anchors(&[2], 0x77, "SN-S"), &fleet), Match::Known("b".into()));
    }

    #[test]
    fn a_machine_written_down_before_it_was_seen_is_found_by_its_card() {
        let planned = Known {
            name: "p",
            macs: vec![Mac::new([2, 0, 0, 0, 0, 7])],
            expected: None,
            anchors: None,
            released: false,
        };
        assert_eq!(find(&anchors(&[7], 0x99, "SN-X"), std::slice::from_ref(&planned)), Match::Known("p".into()));
        // Or by its serial number, where somebody has written that down.
        let by_serial = Known { name: "s", macs: Vec::new(), expected: Some("SN-S"), anchors: None, released: false };
        let both = Known { expected: Some("SN-X"), ..planned };
        let fleet = [by_serial, both];
        assert_eq!(find(&anchors(&[9], 0x99, "SN-S"), &fleet), Match::Known("s".into()));
        assert_eq!(find(&anchors(&[7], 0x99, "SN-X"), &fleet), Match::Known("p".into()));
        assert_eq!(find(&anchors(&[7], 0x99, "Default string"), &fleet), Match::Known("p".into()), "it has none");
        let Match::Conflict { machines, why } = find(&anchors(&[7], 0x99, "SN-Y"), &fleet) else { panic!("merged") };
        assert_eq!((machines, why.contains("SN-X")), (vec!["p".to_owned()], true));
        assert!(
            matches!(find(&anchors(&[7], 0x99, "SN-S"), &fleet), Match::Conflict { .. }),
            "the one's card in the other"
        );
    }
}
