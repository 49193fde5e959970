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

pub(super) fn is_placeholder(text: &str) -> bool {
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
    /// The cards that are its own: a person wrote them down, or said so, or it registered with them.
    pub macs: Vec<Mac>,
    /// The serial number that a person says it has.
    pub expected: Option<&'a str>,
    /// What its board said when it asked from a card of its own; `None` when it never did.
    pub proven: Option<&'a Anchors>,
    /// Its uid.
    pub uid: Option<Uuid>,
    /// What a person has said of the very agent that asks, its card and its board.
    pub believed: Word<'a>,
    /// It wrote itself down, and nobody has had anything to do with it since.
    pub unclaimed: bool,
}

/// What a person has said of an agent that asks with a machine's card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// Nothing.
    None,
    /// That it is the machine, whatever its board says.
    IsIt,
    /// That the card was moved to the one of these machines (by uid) whose board it is.
    MovedTo(&'a [Uuid]),
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

/// Finds the machine that these anchors belong to, of which the card `booted` is the one that it booted from: of the
/// others it counts for nothing that they are named. `anchors` must be [`clean`] already.
pub fn find(anchors: &Anchors, booted: Mac, known: &[Known<'_>]) -> Match {
    let with = |test: &dyn Fn(&Known<'_>) -> bool| -> BTreeSet<&str> {
        known.iter().filter(|k| test(k)).map(|k| k.name).collect()
    };
    let by_card = with(&|k| k.macs.contains(&booted));
    // A serial number is unique within a product only.
    let same_serial = |other: &Anchors| anchors.serial == other.serial && anchors.product == other.product;
    // Some makers gave one UUID to many boards, whose serial numbers differ.
    let is_apart = |other: &Anchors| differs(&anchors.serial, &other.serial);
    let same_uuid = |other: &Anchors| anchors.smbios_uuid == other.smbios_uuid && !is_apart(other);
    let mut by_board: BTreeSet<&str> = BTreeSet::new();
    for (is_said, found) in [
        (anchors.serial.is_some(), with(&|k| k.proven.is_some_and(same_serial))),
        (anchors.smbios_uuid.is_some(), with(&|k| k.proven.is_some_and(same_uuid))),
        (anchors.serial.is_some(), with(&|k| k.expected == anchors.serial.as_deref())),
    ] {
        // An anchor seen on two machines tells nothing.
        if is_said && found.len() == 1 {
            by_board.extend(found);
        }
    }
    // A person's word comes before what an agent said of itself and nobody has looked at: in card and serial number, or
    // in the number alone where that record does not have it too.
    let as_written = with(&|k| k.expected.is_some() && k.expected == anchors.serial.as_deref());
    if let [written] = as_written.iter().copied().collect::<Vec<_>>()[..] {
        let has_card = by_card.len() == 1 && by_card.contains(written);
        let gives_way = |k: &Known<'_>| k.unclaimed && (has_card || !k.proven.is_some_and(same_serial));
        by_board.retain(|name| *name == written || !known.iter().any(|k| k.name == *name && gives_way(k)));
    }
    // It booted from a card of nobody's, on a board of nobody's, and says that it has cards of others: anybody can.
    if by_card.is_empty() && by_board.is_empty() {
        let named = with(&|k| k.macs.iter().any(|mac| anchors.macs.contains(mac)));
        if named.is_empty() {
            return Match::New;
        }
        let why = format!("it says that it has network cards of {}, and booted from {booted}", some(&named));
        return Match::Conflict { machines: named.iter().map(|n| (*n).to_owned()).collect(), why };
    }
    let named: BTreeSet<&str> = by_card.union(&by_board).copied().collect();
    // Who was released gives way, for its card, to the machine that was meant; what is on the board was never lent.
    let is_among = |to: &[Uuid]| {
        let on_board = || known.iter().filter(|k| by_board.contains(k.name));
        on_board().count() == 1 && on_board().all(|k| k.uid.is_some_and(|uid| to.contains(&uid)))
    };
    let gives_way = |name: &&str| {
        let is_said = |k: &Known<'_>| k.name == *name && matches!(k.believed, Word::MovedTo(to) if is_among(to));
        named.len() > 1 && !by_board.contains(name) && known.iter().any(is_said)
    };
    let (from, left): (Vec<&str>, Vec<&str>) = named.iter().copied().partition(gives_way);
    let is = |name: &str| match from[..] {
        [] => Match::Known(name.to_owned()),
        _ => Match::Moved { machine: name.to_owned(), from: from.iter().map(|n| (*n).to_owned()).collect() },
    };
    match left[..] {
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
            let old = machine.filter(|k| k.believed != Word::IsIt).and_then(|k| k.proven);
            match old.and_then(|old| contradiction(anchors, old, by_card.contains(name))) {
                None => is(name),
                Some(why) => Match::Conflict { machines: vec![name.to_owned()], why },
            }
        }
        _ => Match::Conflict {
            machines: named.iter().map(|n| (*n).to_owned()).collect(),
            why: format!("its network card and its board belong to different machines: {}", some(&named)),
        },
    }
}

/// The first few of names: a stranger may have any number of machines named.
fn some(names: &BTreeSet<&str>) -> String {
    let few: Vec<&str> = names.iter().copied().take(4).collect();
    let more = if names.len() > few.len() { format!(" and {} more", names.len() - few.len()) } else { String::new() };
    format!("{}{more}", few.join(", "))
}

fn differs(a: &Option<String>, b: &Option<String>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// What speaks against two sets of anchors being one machine. One number may have changed (a board or its battery was
/// replaced); when nothing on the board is as it was, the card was moved.
fn contradiction(new: &Anchors, old: &Anchors, by_card: bool) -> Option<String> {
    let serial = differs(&new.serial, &old.serial);
    let uuid = matches!((&new.smbios_uuid, &old.smbios_uuid), (Some(a), Some(b)) if a != b);
    // Boards that have no numbers of their own take cards of others too.
    if !has_no_board(old) && has_no_board(new) {
        return Some(
            "its network card is known, but its board says neither serial number nor SMBIOS UUID any more: was a card moved or an address cloned?"
                .to_owned(),
        );
    }
    if serial && uuid {
        return Some(
            "its network card is known, but serial number and SMBIOS UUID are another board's: was a card moved or an address cloned?"
                .to_owned(),
        );
    }
    if !by_card && (serial || uuid) {
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
        Known {
            name,
            macs: anchors.macs.clone(),
            expected: None,
            proven: Some(anchors),
            uid: None,
            believed: Word::None,
            unclaimed: false,
        }
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
        assert!(
            matches!(find(&anchors(&[1, 2], 0xa2, "SN-A2"), &fleet), Match::Conflict { .. }),
            "another board, whatever cards it names"
        );
        assert_eq!(find(&anchors(&[1], 0xa2, "SN-A"), &fleet), is("a"), "one anchor changed");
        assert!(
            matches!(find(&anchors(&[1, 9], 0xc1, "SN-C"), &fleet), Match::Conflict { .. }),
            "one card moved into another chassis"
        );
        assert_eq!(find(&anchors(&[1, 3], 0xa1, "SN-A"), &fleet), is("a"), "a card that it names beside its own");
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
        // Its card in a board that has no numbers of its own.
        for cards in [&[1][..], &[1, 2]] {
            let Match::Conflict { machines, .. } = find(&anchors(cards, 0, "None"), &fleet) else { panic!("merged") };
            assert_eq!(machines, ["a"]);
        }
        // A person has said of this agent that it is right: it is the machine with another board, or has its card now.
        let uid = |n| Some(Uuid::from_u128(n));
        let told = |believed, b| {
            [Known { believed, uid: uid(1), ..fleet[0].clone() }, Known { uid: uid(b), ..fleet[1].clone() }]
        };
        let to = [Uuid::from_u128(2)];
        let is_it = told(Word::IsIt, 2);
        assert_eq!(find(&anchors(&[1], 0xc1, "SN-C"), &is_it), is("a"));
        let moved = Match::Moved { machine: "b".into(), from: vec!["a".into()] };
        assert_eq!(find(&anchors(&[1], 0xb1, "SN-B"), &told(Word::MovedTo(&to), 2)), moved);
        // One word is not the other: where the board was replaced no card moves, and where a card was moved no board was
        // replaced, whatever has become of the machine that it was moved to.
        for (known, says) in [
            (&is_it[..], anchors(&[1], 0xb1, "SN-B")),
            (&told(Word::MovedTo(&to), 3), anchors(&[1], 0xb1, "SN-B")),
            (&told(Word::MovedTo(&to), 2)[..1], anchors(&[1], 0xb1, "SN-B")),
            (&told(Word::MovedTo(&to), 2), anchors(&[1], 0xc1, "SN-C")),
            (&told(Word::MovedTo(&to), 2), anchors(&[3], 0xa1, "SN-A")),
        ] {
            assert!(matches!(find(&says, known), Match::Conflict { .. }), "{says:?} {known:?}");
        }
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
            proven: None,
            uid: None,
            believed: Word::None,
            unclaimed: false,
        };
        assert_eq!(find(&anchors(&[7], 0x99, "SN-X"), std::slice::from_ref(&planned)), Match::Known("p".into()));
        // Or by its serial number, where somebody has written that down.
        let by_serial = Known {
            name: "s",
            macs: Vec::new(),
            expected: Some("SN-S"),
            proven: None,
            uid: None,
            believed: Word::None,
            unclaimed: false,
        };
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
