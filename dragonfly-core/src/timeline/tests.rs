//! Bounds, floods, and cards that turn out to belong to a machine.

use super::*;
use crate::boot::{Asker, DhcpAsk};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac::new([2, 0, a, b, c, d])
}

fn asks(network: &str) -> What {
    What::Seen(Seen::DhcpAsked {
        message: DhcpAsk::Discover,
        asker: Asker::Firmware,
        firmware: None,
        arch: None,
        network: network.into(),
    })
}

fn file(name: &str) -> What {
    What::Seen(Seen::FileBegan { file: name.into(), bytes: 1 })
}

fn told(kind: &'static str, message: &str) -> What {
    What::Told { kind: kind.into(), message: message.into() }
}

fn logged(recorder: &Recorder, session: Uuid, offset: u64, bytes: &[u8]) {
    recorder.log("m", session, LogPart { offset, bytes }, NOW, |text| text.replace("hunter2", "[secret]"));
}

fn messages(entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| entry.message().into_owned()).collect()
}

#[test]
fn a_flood_of_invented_cards_pushes_out_no_machine_and_no_card_that_came_further() {
    let recorder = Recorder::default();
    recorder.record(Whose::Machine("db-1"), Some(mac(1)), NOW, asks("lab"));
    recorder.record(Whose::Card(mac(2)), None, NOW, asks("lab"));
    recorder.record(Whose::Card(mac(2)), None, NOW, file("vmlinuz"));
    recorder.record(Whose::Card(mac(3)), None, NOW, asks("lab"));
    for n in 1000..101_000 {
        recorder.record(Whose::Card(mac(n)), None, NOW, asks("flood"));
    }
    assert_eq!(recorder.read(Some("db-1"), &[mac(1)], 0).len(), 1);
    assert_eq!(
        recorder.read(None, &[mac(2)], 0).len(),
        2,
        "it has fetched a file: no stranger's question counts as much"
    );
    assert!(recorder.read(None, &[mac(3)], 0).is_empty(), "as good as any of the strangers, and older");
    let state = recorder.state();
    assert_eq!((state.cards.len(), state.asking.len(), state.coming.len()), (CARDS + 1, CARDS, 1));
}

#[test]
fn a_machine_costs_no_more_than_its_bound_and_its_parts_do_not_push_each_other_out() {
    let recorder = Recorder::default();
    let machine = Whose::Machine("m");
    recorder.record(machine, None, NOW, told("workflow.failed", "the disk is full"));
    logged(&recorder, Uuid::nil(), 0, b"one line\n");
    for n in 0..10_000 {
        recorder.record(machine, Some(mac(1)), NOW, file(&format!("{n}{}", "x".repeat(n % 700))));
    }
    let all = recorder.read(Some("m"), &[], 0);
    assert_eq!(messages(&all)[..2], ["the disk is full", "one line"]);
    assert!(all.last().is_some_and(|last| last.message().starts_with("9999")));
    assert!(recorder.state().machines["m"].cost() <= MACHINE.boot + MACHINE.engine + MACHINE.log);
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[test]
fn what_repeats_is_counted_and_what_is_overtaken_goes() {
    let recorder = Recorder::default();
    let machine = Whose::Machine("m");
    for _ in 0..5 {
        recorder.record(machine, Some(mac(1)), NOW, asks("lab"));
    }
    for percent in 0..100 {
        recorder.record(machine, None, NOW, told("step.progress", &format!("image: {percent} %")));
    }
    let all = recorder.read(Some("m"), &[], 0);
    assert_eq!(all.iter().map(|entry| entry.times).collect::<Vec<_>>(), [5, 100]);
    assert_eq!(all[1].message(), "image: 99 %");
    assert_eq!(recorder.read(Some("m"), &[], all[0].id).len(), 1, "only what is new");
}

#[test]
fn what_a_card_did_moves_to_the_machine_it_belongs_to() {
    let recorder = Recorder::default();
    recorder.record(Whose::Card(mac(1)), None, NOW, asks("lab"));
    recorder.record(Whose::Card(mac(2)), None, NOW, file("vmlinuz"));
    let named = name::memorable(mac(2)).to_lowercase();
    assert_eq!(recorder.card_named(&named), Some(mac(2)));
    assert_eq!(recorder.cards(10).iter().map(|(mac, _)| *mac).collect::<Vec<_>>(), [mac(2), mac(1)]);
    assert_eq!(recorder.read(Some("m"), &[mac(1), mac(2)], 0).len(), 2, "by any card, before it is taken over");
    recorder.record(Whose::Machine("m"), Some(mac(1)), NOW, file("initramfs"));
    recorder.adopt("m", &[mac(1), mac(2)]);
    assert!(!recorder.knows(mac(1)) && !recorder.knows(mac(2)) && recorder.cards(10).is_empty());
    let all = recorder.read(Some("m"), &[], 0);
    assert_eq!(all.iter().map(|entry| entry.mac).collect::<Vec<_>>(), [Some(mac(1)), Some(mac(2)), Some(mac(1))]);
    assert_eq!(all.iter().map(|entry| entry.id).collect::<Vec<_>>(), [1, 2, 3]);
    recorder.forget("m");
    assert!(recorder.read(Some("m"), &[mac(1)], 0).is_empty());
}

#[test]
fn a_part_of_a_log_that_comes_twice_is_written_once() {
    let recorder = Recorder::default();
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    logged(&recorder, one, 0, b"first\nsecond\n");
    logged(&recorder, one, 0, b"first\nsecond\n");
    logged(&recorder, one, 6, b"second\nthird \x1b[31m\n");
    logged(&recorder, two, 0, b"first, hunter2\n");
    let all = ["first", "second", "third  [31m", "first, [secret]"];
    assert_eq!(messages(&recorder.read(Some("m"), &[], 0)), all);
}

#[test]
fn of_a_long_part_the_end_is_kept_and_no_line_is_cut() {
    let recorder = Recorder::default();
    let last = |recorder: &Recorder| messages(&recorder.read(Some("m"), &[], 0)).last().cloned();
    // The middle of a secret is where the part's end begins.
    let end = "\nsaid\nthe end\n";
    let rest = "y".repeat(LOOKED_AT - "ter2".len() - end.len());
    let part = ["x\n".repeat(100_000).as_str(), "hunter2", &rest, end].concat();
    logged(&recorder, Uuid::nil(), 0, part.as_bytes());
    let all = messages(&recorder.read(Some("m"), &[], 0));
    assert_eq!(last(&recorder).as_deref(), Some("the end"));
    assert!(all.iter().all(|line| !line.contains("ter2")), "{all:?}");
    // One line without an end: the file has it, the timeline has what comes after it.
    logged(&recorder, Uuid::nil(), part.len() as u64, &vec![b'z'; 3 * LOOKED_AT]);
    assert_eq!(last(&recorder).as_deref(), Some("the end"));
    logged(&recorder, Uuid::nil(), (part.len() + 3 * LOOKED_AT) as u64, b"\nafter it\n");
    assert_eq!(last(&recorder).as_deref(), Some("after it"));
    // Many lines at once are no more than there is room for, the last of them.
    let many: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    logged(&recorder, Uuid::from_u128(2), 0, many.as_bytes());
    assert_eq!(last(&recorder).as_deref(), Some("99999"));
    assert!(recorder.state().next < 1000, "{}", recorder.state().next);
}

#[test]
fn all_machines_together_have_a_bound_and_each_has_its_part() {
    let most = ALL / MACHINE.all();
    for (machines, times) in [(0, 0), (most, 0), (most + 1, 1), (2 * most, 1), (100_000, 3), (1_000_000, 6)] {
        assert_eq!(halved(machines), times, "{machines}");
        assert!(machines * MACHINE.halved(times).all() <= ALL, "{machines}");
    }
    // As many as need a second halving, the first of them with much to tell.
    let recorder = Recorder::default();
    for n in 0..500 {
        recorder.record(Whose::Machine("m0"), Some(mac(1)), NOW, file(&format!("{n}")));
    }
    let before = recorder.state().machines["m0"].cost();
    for n in 1..=2 * most + 1 {
        recorder.record(Whose::Machine(&format!("m{n}")), None, NOW, told("machine.hello", "up"));
    }
    let cost = recorder.state().machines["m0"].cost();
    assert!(cost <= MACHINE.boot / 4 && before > MACHINE.boot / 2, "{before} -> {cost}");
    let all = messages(&recorder.read(Some("m0"), &[], 0));
    assert!(all.last().is_some_and(|last| last.starts_with("499")), "the newest stays");
    // When they are gone there is room again.
    for n in 1..=2 * most + 1 {
        recorder.forget(&format!("m{n}"));
    }
    assert_eq!(recorder.state().halved, 0);
}
