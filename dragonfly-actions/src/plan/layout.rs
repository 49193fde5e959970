//! Where partitions lie: sizes and the room there is become sectors. Pure.

use super::Check;
use super::given::Given;
use super::partition::PartitionSpec;
use super::size::{Size, human};

/// Every partition begins on such a boundary: it fits every sector size, RAID stripe and flash
/// block in use.
pub(crate) const ALIGN: u64 = 1 << 20;
/// The smallest partition.
pub(crate) const LEAST: u64 = ALIGN;

/// Where a partition lies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its first byte.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

impl Placed {
    /// The byte after its last one.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

fn bytes(given: Option<&Given<Size>>) -> Option<u64> {
    match given {
        Some(Given::Known(Size::Bytes(bytes))) => Some(*bytes),
        _ => None,
    }
}

fn align_up(value: u64) -> Option<u64> {
    value.checked_next_multiple_of(ALIGN)
}

/// Places every partition in the room from byte `first` to byte `end` (not included), or says which
/// does not fit: `(path, problem)`.
pub fn layout(specs: &[PartitionSpec], first: u64, end: u64) -> Result<Vec<Placed>, Vec<(String, String)>> {
    let Some(first) = align_up(first) else { return Err(vec![wrong("partitions", "the disk has no end")]) };
    // A partition ends on a boundary too, so that the next can begin there.
    let end = end / ALIGN * ALIGN;
    if end <= first {
        return Err(vec![wrong(
            "partitions",
            format!("the disk has no room for a partition: it ends at {}", human(end)),
        )]);
    }
    let room = end - first;
    let mut placed: Vec<Placed> = Vec::with_capacity(specs.len());
    let mut cursor = first;
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("partitions[{index}]");
        let start = match bytes(spec.start.as_ref()) {
            None => cursor,
            Some(start) => {
                let Some(start) = align_up(start) else {
                    return Err(vec![wrong(format!("{path}.start"), "lies beyond any disk")]);
                };
                if start < cursor {
                    let problem = overlap(index, start, cursor);
                    return Err(vec![wrong(format!("{path}.start"), problem)]);
                }
                start
            }
        };
        let length = match &spec.size {
            Given::Known(size) => wanted(*size, room),
            Given::Template(_) => return Err(vec![wrong(format!("{path}.size"), "was not filled in")]),
        };
        let length = match length {
            Some(length) => length,
            None => rest(&specs[index + 1..], start, end, room),
        };
        let placed_here = Placed { start, length };
        if length < LEAST || placed_here.end() > end {
            let left = end.saturating_sub(start);
            let problem = if matches!(spec.size, Given::Known(Size::Rest)) {
                "the others leave nothing for `rest`; make them smaller".to_owned()
            } else {
                format!("{} does not fit: only {} are left on the disk", human(length), human(left))
            };
            return Err(vec![wrong(format!("{path}.size"), problem)]);
        }
        cursor = placed_here.end();
        placed.push(placed_here);
    }
    Ok(placed)
}

/// How long a partition is to be; `None` is the rest.
fn wanted(size: Size, room: u64) -> Option<u64> {
    match size {
        Size::Bytes(bytes) => Some(align_up(bytes).unwrap_or(u64::MAX)),
        // Rounded down, so that percentages that add up to 100 fit.
        Size::Percent(percent) => Some((u128::from(room) * u128::from(percent) / 100) as u64 / ALIGN * ALIGN),
        Size::Rest => None,
    }
}

/// What those that follow leave: up to the next one with a fixed start, or to the end.
fn rest(following: &[PartitionSpec], start: u64, end: u64, room: u64) -> u64 {
    let mut limit = end;
    let mut taken = 0u64;
    for spec in following {
        if let Some(fixed) = bytes(spec.start.as_ref()) {
            limit = limit.min(fixed / ALIGN * ALIGN);
            break;
        }
        if let Given::Known(size) = &spec.size {
            taken = taken.saturating_add(wanted(*size, room).unwrap_or(0));
        }
    }
    limit.saturating_sub(start).saturating_sub(taken)
}

/// What can be said without knowing the disk.
pub(crate) fn layout_problems(specs: &[PartitionSpec], check: &mut Check) {
    let rests: Vec<_> =
        specs.iter().enumerate().filter(|(_, s)| s.size == Given::Known(Size::Rest)).map(|(i, _)| i).collect();
    if let [first, second, ..] = rests[..] {
        check.say(
            format!("partitions[{second}].size"),
            format!("is `rest`, and so is partitions[{first}]; give one of them a size"),
        );
        return;
    }
    let percent: u32 = specs
        .iter()
        .filter_map(|s| match s.size {
            Given::Known(Size::Percent(p)) => Some(u32::from(p)),
            _ => None,
        })
        .sum();
    if percent > 100 {
        check.say("partitions", format!("take {percent}% of the disk together"));
    }
    // Overlaps among those whose places are known whatever the disk.
    let mut cursor = Some(ALIGN);
    for (index, spec) in specs.iter().enumerate() {
        let start = match (&spec.start, bytes(spec.start.as_ref())) {
            (None, _) => cursor,
            (Some(_), start) => start.and_then(align_up),
        };
        if spec.start.is_some()
            && let (Some(start), Some(cursor)) = (start, cursor)
            && start < cursor
        {
            check.say(format!("partitions[{index}].start"), overlap(index, start, cursor));
        }
        cursor = match (start, bytes(Some(&spec.size))) {
            (Some(start), Some(size)) => start.checked_add(size).and_then(align_up),
            _ => None,
        };
    }
}

/// A start that lies before the end of what comes before it.
fn overlap(index: usize, start: u64, end: u64) -> String {
    let before = match index.checked_sub(1) {
        Some(before) => format!("partitions[{before}]"),
        None => "the partition table".to_owned(),
    };
    format!("{} overlaps {before}, which ends at {}; write that or more", human(start), human(end))
}

fn wrong(path: impl Into<String>, problem: impl Into<String>) -> (String, String) {
    (path.into(), problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn specs(json: serde_json::Value) -> Vec<PartitionSpec> {
        serde_json::from_value(json).unwrap()
    }

    fn place(json: serde_json::Value, mib: u64) -> Result<Vec<(u64, u64)>, String> {
        match layout(&specs(json), 17408, mib * MIB - 16896) {
            Ok(placed) => Ok(placed.iter().map(|p| (p.start / MIB, p.length / MIB)).collect()),
            Err(problems) => Err(problems.iter().map(|(path, p)| format!("{path}: {p}")).collect()),
        }
    }

    #[test]
    fn places_partitions() {
        use serde_json::json;
        let table = [
            (json!([{"size": "rest"}]), 100, Ok(vec![(1, 98)])),
            (json!([{"size": "64MiB"}, {"size": "rest"}]), 200, Ok(vec![(1, 64), (65, 134)])),
            (json!([{"size": "rest"}, {"size": "64MiB"}]), 200, Ok(vec![(1, 134), (135, 64)])),
            (json!([{"size": "50%"}, {"size": "50%"}]), 102, Ok(vec![(1, 50), (51, 50)])),
            (json!([{"size": "1500000"}, {"size": "1MiB"}]), 10, Ok(vec![(1, 2), (3, 1)])),
            (json!([{"size": "rest"}, {"start": "50MiB", "size": "10MiB"}]), 100, Ok(vec![(1, 49), (50, 10)])),
            (json!([{"size": "64MiB"}]), 60, Err("partitions[0].size: 64 MiB does not fit")),
            (json!([{"size": "20MiB"}, {"size": "rest"}]), 22, Err("partitions[1].size: the others leave nothing")),
            (json!([{"size": "20MiB"}, {"start": "4MiB", "size": "1MiB"}]), 99, Err("overlaps partitions[0]")),
            (json!([{"size": "20MiB"}]), 1, Err("no room")),
        ];
        for (json, mib, want) in table {
            match (place(json.clone(), mib), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{json}"),
                (Err(said), Err(want)) => assert!(said.contains(want), "{json}: {said}"),
                (got, want) => panic!("{json}: {got:?}, wanted {want:?}"),
            }
        }
    }

    fn any_spec() -> impl Strategy<Value = PartitionSpec> {
        let size = prop_oneof![
            (0u64..1 << 40).prop_map(Size::Bytes),
            any::<u64>().prop_map(Size::Bytes),
            (1u8..=100).prop_map(Size::Percent),
            Just(Size::Rest),
        ];
        let start = proptest::option::of((0u64..1 << 41).prop_map(Size::Bytes));
        (size, start).prop_map(|(size, start)| PartitionSpec {
            label: None,
            size: size.into(),
            start: start.map(Given::Known),
            kind: None,
            uuid: None,
            attributes: Vec::new(),
            active: false,
        })
    }

    proptest! {
        #[test]
        fn what_is_placed_is_aligned_apart_and_on_the_disk(
            specs in proptest::collection::vec(any_spec(), 0..8),
            end in any::<u64>(),
        ) {
            if let Ok(placed) = layout(&specs, 17408, end) {
                prop_assert_eq!(placed.len(), specs.len());
                let mut cursor = ALIGN;
                for p in placed {
                    prop_assert!(p.start >= cursor && p.start.is_multiple_of(ALIGN) && p.length >= LEAST);
                    cursor = p.start.checked_add(p.length).unwrap();
                    prop_assert!(cursor <= end);
                }
            }
        }
    }
}
