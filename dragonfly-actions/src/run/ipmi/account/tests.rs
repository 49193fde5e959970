//! Which slot, which commands, and what comes of them with controllers of many habits.

use super::super::fake::{Fake, Habit};
use super::super::users::Name;
use super::*;

const PASSWORD: &str = "Ab3Ab3Ab3Ab3Ab3z";

fn account() -> BmcAccount {
    BmcAccount { username: "dragonfly".to_owned(), password: PASSWORD.to_owned().into() }
}

fn make(fake: &mut Fake) -> Result<Made, AccountError> {
    fake.with(|ask| make_account(&account(), ask))
}

#[test]
fn which_slot_it_goes_into() {
    // A slot per word: - is free, ? does not tell its name, ! opens something without a name; and how many names
    // are fixed.
    let cases = [
        ("- - - -", 1, Some((2, false))),
        ("- ADMIN - -", 1, Some((3, false))),
        ("- ADMIN - -", 2, Some((3, false))),
        ("- - - -", 3, Some((4, false))),
        ("Administrator ADMIN dragonfly -", 1, Some((3, true))),
        // By its name, wherever that stands.
        ("- - - dragonfly", 1, Some((4, true))),
        ("- - dragonfly dragonfly", 2, Some((3, true))),
        // Slot 1 is never ours.
        ("dragonfly - - -", 1, Some((2, false))),
        ("- Dragonfly -", 1, Some((3, false))),
        ("- a ? ! -", 1, Some((5, false))),
        ("- a b c", 1, None),
        ("- a ? !", 1, None),
        ("-", 1, None),
    ];
    for (table, fixed, want) in cases {
        let mut fake = Fake::new(Habit::Plain);
        fake.fixed = fixed;
        fake.slots.retain(|id, _| usize::from(*id) <= table.split(' ').count());
        for (id, word) in (1..).zip(table.split(' ')) {
            match word {
                "-" | "?" => {}
                "!" => fake.put(id, "", true, 3),
                name => fake.put(id, name, false, 4),
            }
        }
        let mut slots = fake.with(|ask| super::table(1, ask)).unwrap();
        slots.truncate(table.split(' ').count());
        for (slot, word) in slots.iter_mut().zip(table.split(' ')) {
            if word == "?" {
                slot.name = Name::Unknown;
            }
        }
        let got = place(&slots, "dragonfly").ok().map(|place| (place.slot, place.named));
        assert_eq!(got, want, "{table}, {fixed} fixed");
    }
}

#[test]
fn commands_as_the_specification_writes_them() {
    let plan = |named| {
        let steps = steps(Place { slot: 3, named }, 8, &account());
        let form = |form: Request| (form.netfn, form.command, form.data);
        steps.into_iter().map(|step| step.forms.into_iter().map(form).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let with = |first: &[u8], text: &str, length| [first, &padded(text, length)].concat();
    let want = [
        vec![(0x06, 0x45, with(&[3], "dragonfly", 16))],
        vec![(0x06, 0x47, with(&[0x83, 2], PASSWORD, 20)), (0x06, 0x47, with(&[3, 2], PASSWORD, 16))],
        vec![(0x06, 0x43, vec![0x98, 3, 4]), (0x06, 0x43, vec![0x98, 3, 4, 0])],
        vec![(0x06, 0x47, vec![3, 1]), (0x06, 0x47, with(&[3, 1], "", 16))],
    ];
    assert_eq!(plan(false), want);
    assert_eq!(plan(true), want[1..], "a name that stands there is left");
}

#[test]
fn an_account_that_opens_whatever_the_controllers_habits() {
    for (habit, verified) in [
        (Habit::Plain, true),
        (Habit::Sixteen, true),
        (Habit::WantsFiller, true),
        (Habit::TestsNothing, false),
        (Habit::SaysNotWhoIsEnabled, true),
    ] {
        let mut fake = Fake::new(habit);
        fake.put(2, "ADMIN", true, 4);
        // Its network is not where the specification's examples have it.
        fake.channel = 8;
        let theirs = fake.slots[&2].clone();
        assert_eq!(make(&mut fake).unwrap(), Made { slot: 3, verified }, "{habit:?}");
        assert_eq!(fake.login("dragonfly", PASSWORD), Some(4), "{habit:?}");
        assert_eq!(fake.slots[&2], theirs);
        // Once more, with another password: the same slot.
        let other = BmcAccount { password: "Other1Other1".to_owned().into(), ..account() };
        let again = fake.with(|ask| make_account(&other, ask)).unwrap();
        assert_eq!(again.slot, 3);
        assert_eq!((fake.login("dragonfly", "Other1Other1"), fake.login("dragonfly", PASSWORD)), (Some(4), None));
    }
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_left_open() {
    let failure = |fake: &mut Fake| make(fake).unwrap_err().to_string();
    let mut full = Fake::new(Habit::Plain);
    (2..=10).for_each(|id| full.put(id, "somebody", true, 4));
    let before = full.slots.clone();
    let words = "the management controller has no free slot for a user: none of its 10; delete one that nobody needs";
    assert_eq!(failure(&mut full), words);
    assert_eq!(full.slots, before);

    let mut strict = Fake::new(Habit::Policy);
    let words = "the management controller refuses Set User Password for user 2 with completion code 0x82, then 0x82";
    assert_eq!(failure(&mut strict), words);
    assert_eq!(strict.slots[&2].name, [0; 16], "the slot is free again");
    assert!(strict.slots.values().all(|slot| !slot.enabled));

    let mut forgetful = Fake::new(Habit::Forgets);
    let words = "the management controller took the password of user 2 and does not know it again";
    assert_eq!(failure(&mut forgetful), words);
    assert!(!forgetful.slots[&2].enabled);

    let mut deaf = Fake::new(Habit::Plain);
    deaf.channel = 0x0f;
    assert_eq!(failure(&mut deaf), "the management controller has no network channel");

    for (name, password, word) in [("", "x", "name"), ("a name", "x", "name"), ("a", "12345678901234567", "password")] {
        let account = BmcAccount { username: name.to_owned(), password: password.to_owned().into() };
        let mut fake = Fake::new(Habit::Plain);
        let error = fake.with(|ask| make_account(&account, ask)).unwrap_err();
        assert!(error.to_string().contains(word) && fake.asked.is_empty(), "{error}");
    }
}

#[test]
fn wherever_it_stops_the_next_try_ends_in_one_account() {
    let mut whole = Fake::new(Habit::Plain);
    make(&mut whole).unwrap();
    let commands = whole.asked.len();
    assert!(commands > 20);
    for stop in 0..commands {
        let mut fake = Fake::new(Habit::DiesAfter(stop));
        assert!(matches!(make(&mut fake), Err(AccountError::Ipmi(IpmiError::Silent))), "after {stop}");
        let open = fake.slots.values().filter(|slot| slot.enabled).count();
        assert!(open == 0 || fake.login("dragonfly", PASSWORD) == Some(4), "after {stop}");
        let mut again = Fake::new(Habit::Plain);
        again.slots = fake.slots.clone();
        assert_eq!(make(&mut again).unwrap().slot, 2, "after {stop}");
        let ours = again.slots.values().filter(|slot| slot.name.starts_with(b"dragonfly")).count();
        assert_eq!((ours, again.login("dragonfly", PASSWORD)), (1, Some(4)), "after {stop}");
    }
}

#[test]
fn the_password_is_in_no_debug_output() {
    let steps = steps(Place { slot: 3, named: false }, 1, &account());
    let shown = format!("{steps:?}");
    // As text and as the numbers of its bytes.
    assert!(!shown.contains("Ab3") && !shown.contains("65, 98, 51"), "{shown}");
    assert!(shown.contains("Set User Password"));
}
