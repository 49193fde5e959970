//! Which `Boot####` an entry goes into, and where it stands in `BootOrder`. Pure.

use std::collections::BTreeMap;

use super::option::{LoadOption, Seen};

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The entry's number.
    pub(crate) number: u16,
    /// Whether the entry is there already, exactly so.
    pub(crate) same: bool,
    /// The boot order.
    pub(crate) order: Vec<u16>,
}

/// Places an entry. One of the same description that starts a file on a disk is written over.
///
/// With `first` it leads the order. Otherwise it comes right after the network entry: the one that the
/// machine was just booted by (`current`), else the first in the order. What stood before that stays
/// before it. *Right* after: firmware that tries IPv6 and HTTP in between would let a machine wait for
/// the better part of a minute on its way to the disk. Where nothing boots from the network, it leads.
///
/// `None`: all 65536 numbers are taken.
pub(crate) fn place(
    entries: &BTreeMap<u16, Option<Seen>>,
    order: &[u16],
    current: Option<u16>,
    option: &LoadOption,
    first: bool,
) -> Option<Change> {
    let ours = entries.iter().find_map(|(number, seen)| {
        let seen = seen.as_ref()?;
        let theirs = seen.option.as_ref()?;
        (seen.description == option.description).then_some((*number, theirs == option))
    });
    let (number, same) = match ours {
        Some(found) => found,
        // A number in the order without its entry may be one that the firmware makes anew at each boot.
        None => ((0..=u16::MAX).find(|n| !entries.contains_key(n) && !order.contains(n))?, false),
    };
    let mut order: Vec<u16> = order.iter().copied().filter(|n| *n != number).collect();
    let mut known = std::collections::BTreeSet::new();
    order.retain(|n| known.insert(*n));
    let network = |n: &u16| entries.get(n).and_then(Option::as_ref).is_some_and(|seen| seen.network);
    let after = current
        .filter(network)
        .and_then(|current| order.iter().position(|n| *n == current))
        .or_else(|| order.iter().position(network));
    let at = match after {
        Some(at) if !first => at + 1,
        _ => 0,
    };
    order.insert(at, number);
    Some(Change { number, same, order })
}

#[cfg(test)]
mod tests {
    use super::super::option::{ACTIVE, HardDrive, Signature};
    use super::*;

    fn option(description: &str, path: &str) -> LoadOption {
        LoadOption {
            attributes: ACTIVE,
            description: description.into(),
            partition: HardDrive { number: 1, start: 2048, size: 4096, signature: Signature::Mbr(7) },
            path: path.into(),
        }
    }

    fn entries(list: &[(u16, &str, &str)]) -> BTreeMap<u16, Option<Seen>> {
        list.iter()
            .map(|(number, description, kind)| {
                let seen = Seen {
                    description: (*description).into(),
                    network: *kind == "net",
                    option: kind.starts_with('\\').then(|| option(description, kind)),
                };
                (*number, (*kind != "damaged").then_some(seen))
            })
            .collect()
    }

    #[test]
    fn keeps_the_network_first_unless_told() {
        // As OVMF numbers them: menu, disk, PXEv4, PXEv6, HTTPv4, shell.
        let ovmf = entries(&[
            (0, "UiApp", "app"),
            (1, "QEMU DISK", "app"),
            (2, "PXEv4", "net"),
            (3, "PXEv6", "net"),
            (4, "HTTPv4", "net"),
            (5, "Shell", "app"),
        ]);
        let mut again = ovmf.clone();
        again.extend(entries(&[(6, "Linux", "\\x")]));
        let mut changed = ovmf.clone();
        changed.extend(entries(&[(6, "Linux", "\\other")]));
        let lone = entries(&[(0, "UiApp", "app")]);
        let clash = entries(&[(0, "Linux", "net"), (1, "x", "damaged")]);
        type Case<'a> = (&'a str, &'a BTreeMap<u16, Option<Seen>>, &'a [u16], Option<u16>, bool, u16, bool, &'a [u16]);
        let table: [Case<'_>; 11] = [
            (
                "after the entry that booted",
                &ovmf,
                &[0, 1, 2, 3, 4, 5],
                Some(2),
                false,
                6,
                false,
                &[0, 1, 2, 6, 3, 4, 5],
            ),
            ("booted by HTTP", &ovmf, &[4, 2, 1], Some(4), false, 6, false, &[4, 6, 2, 1]),
            ("the current entry is not in the order", &ovmf, &[3, 1], Some(2), false, 6, false, &[3, 6, 1]),
            ("booted from a disk", &ovmf, &[1, 2, 3], Some(1), false, 6, false, &[1, 2, 6, 3]),
            ("told to be first", &ovmf, &[2, 3, 1], Some(2), true, 6, false, &[6, 2, 3, 1]),
            ("done before", &again, &[2, 6, 3], Some(2), false, 6, true, &[2, 6, 3]),
            ("done before, stands last", &again, &[2, 3, 6], Some(2), false, 6, true, &[2, 6, 3]),
            ("the file is another", &changed, &[6, 2], Some(2), false, 6, false, &[2, 6]),
            ("no network", &lone, &[0], None, false, 1, false, &[1, 0]),
            ("an order that names what is gone, twice", &lone, &[1, 1, 0], None, false, 2, false, &[2, 1, 0]),
            ("a network entry of our name is not ours", &clash, &[0, 1], None, false, 2, false, &[0, 2, 1]),
        ];
        for (name, entries, order, current, first, number, same, want) in table {
            let got = place(entries, order, current, &option("Linux", "\\x"), first);
            assert_eq!(got, Some(Change { number, same, order: want.to_vec() }), "{name}");
        }
    }

    #[test]
    fn ends_when_every_number_is_taken() {
        let full: Vec<u16> = (0..=u16::MAX).collect();
        assert_eq!(place(&BTreeMap::new(), &full, None, &option("Linux", "\\x"), false), None);
    }
}
