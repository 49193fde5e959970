//! Cards that move and serial numbers that are wrong: what a person is told to do about them ends the conflict.

use uuid::Uuid;

use super::*;

/// An agent on this card, in the board with this serial number. Its machine, or what it is told.
async fn says(site: &Site, card: u8, others: &[u8], serial: &str) -> Result<String, String> {
    // Whoever spoke before is silent by now.
    site.clock.advance(Duration::from_secs(40));
    says_at_once(site, card, others, serial).await
}

async fn says_at_once(site: &Site, card: u8, others: &[u8], serial: &str) -> Result<String, String> {
    let Some(token) = site.token(card).await else { return Err(format!("no identity: {}", site.fate(card))) };
    let mut said = hello(card);
    said.anchors.serial = Some(serial.to_owned());
    said.anchors.macs.extend(others.iter().map(|n| mac(*n)));
    match site.engine.hello(&token, said, address(card)).await {
        Ok(welcome) => Ok(welcome.machine),
        Err(error) => Err(error.to_string()),
    }
}

/// What operators were told last of a conflict. Who asks is not told which machines there are.
fn told(site: &Site, refused: &str) -> String {
    assert!(refused.contains("identity in conflict") && !refused.contains("SN-"), "{refused}");
    let told = site.engine.events().subscribe(Some(0)).replay;
    told.iter().rev().find(|event| event.kind == "identity.conflict").map(|event| event.message.clone()).unwrap()
}

#[tokio::test]
async fn a_card_that_was_moved_is_the_other_machines_once_a_person_says_so() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    let refused = says(&site, 2, &[], "SN-A1").await.unwrap_err();
    let told = told(&site, &refused);
    let question = site.engine.why(&b).unwrap().question.unwrap();
    let yes = format!("dragonfly release {b} --question {question} if its card was moved to {a}");
    assert!(told.contains(&yes), "{told}");
    assert_eq!(site.fate(2), "hold", "nobody is believed before that");

    site.release(&b, "me").await.unwrap();
    assert_eq!(says(&site, 2, &[], "SN-A1").await, Ok(a.clone()));
    assert_eq!(site.engine.resolve(&mac(2).to_string()).unwrap(), a, "its card is looked for there from now on");
    assert_eq!(says(&site, 1, &[2], "SN-A1").await, Ok(a.clone()), "with both cards");
    // The other is known by its board, with a card of its own.
    assert_eq!(says(&site, 3, &[], "SN-B1").await, Ok(b.clone()));
    assert_eq!(site.engine.machines().len(), 2);

    // That was said for one move.
    let refused = says(&site, 1, &[], "SN-B1").await.unwrap_err();
    assert!(refused.contains("conflict"), "{refused}");
}

#[tokio::test]
async fn a_card_is_moved_by_an_agent_that_is_welcomed() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    says(&site, 2, &[], "SN-A1").await.unwrap_err();
    site.release(&b, "me").await.unwrap();
    // The board's own agent lives.
    assert_eq!(says(&site, 1, &[], "SN-A1").await, Ok(a.clone()));
    let refused = says_at_once(&site, 2, &[], "SN-A1").await.unwrap_err();
    assert!(refused.contains("another"), "{refused}");
    assert_eq!(site.engine.resolve(&mac(2).to_string()).unwrap(), b, "nothing was moved");
    assert_eq!(says(&site, 2, &[], "SN-A1").await, Ok(a), "what the person settled is good still");
}

#[tokio::test]
async fn a_machine_that_was_released_and_is_as_before_is_itself() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    says(&site, 2, &[], "SN-A1").await.unwrap_err();
    site.release(&b, "me").await.unwrap();
    assert_eq!(says(&site, 2, &[], "SN-B1").await, Ok(b.clone()));
    // Its card is in it: what was said of another one with that card is past, and does not wait for years.
    let refused = says(&site, 2, &[], "SN-A1").await.unwrap_err();
    assert!(refused.contains("conflict"), "{refused}");
    assert_eq!(says(&site, 1, &[], "SN-A1").await, Ok(a));
}

#[tokio::test]
async fn cards_of_two_machines_on_a_third_ask_for_a_decision_that_can_be_made() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    let refused = says(&site, 3, &[1, 2], "SN-C1").await.unwrap_err();
    let told = told(&site, &refused);
    assert!(told.contains(&format!("add {} to its spec.macs", mac(3))), "{told}");
    assert!(told.contains("take its other cards from all others"), "{told}");
    // As it says.
    for (name, macs) in [(&a, format!("'{}', '{}'", mac(1), mac(3))), (&b, format!("'{}'", mac(9)))] {
        let edited = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{macs: [{macs}]}}}}"
        );
        site.engine.apply(&edited, "me").await.unwrap();
    }
    assert_eq!(says(&site, 3, &[1, 2], "SN-C1").await, Ok(a));
}

#[tokio::test]
async fn a_wrong_serial_number_is_settled_by_the_right_one() {
    let site = Site::new().await;
    let planned = |serial: &str| {
        format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: typo}}, \
             spec: {{macs: ['{}'], serial: {serial}}}}}",
            mac(1)
        )
    };
    site.engine.apply(&planned("WRONG1"), "me").await.unwrap();
    let refused = says(&site, 1, &[], "RIGHT1").await.unwrap_err();
    let told = told(&site, &refused);
    assert!(told.contains("correct spec.serial"), "{told}");
    assert_eq!(site.fate(1), "hold");
    site.engine.apply(&planned("RIGHT1"), "me").await.unwrap();
    assert_eq!(says(&site, 1, &[], "RIGHT1").await, Ok("typo".to_owned()));
}

#[tokio::test]
async fn an_address_that_is_taken_from_a_machine_may_be_given_to_another() {
    let site = Site::new().await;
    let name = says(&site, 1, &[], "SN-A1").await.unwrap();
    let manifest = |name: &str, card: u8| {
        let mac = mac(card);
        format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{macs: ['{mac}']}}}}"
        )
    };
    let refused = site.engine.apply(&manifest("db-2", 1), "me").await.unwrap_err().to_string();
    assert!(refused.contains(&name), "{refused}");
    site.engine.apply(&manifest(&name, 5), "me").await.unwrap();
    site.engine.apply(&manifest("db-2", 1), "me").await.unwrap();
    assert_eq!(site.engine.resolve(&mac(1).to_string()).unwrap(), "db-2");
}

type Board = (String, Option<Uuid>);
/// What a stranger says: cards, and a board.
type Words<'a> = &'a [(&'a [u8], Board)];

/// A stranger answers to the card of a machine that is silent, and gives it another machine's board and card, one after
/// the other; then that other machine boots, which nobody has assigned anything to.
#[tokio::test]
async fn nobody_is_installed_in_anothers_place() {
    let board = |serial: &str, uuid: Option<u128>| (serial.to_owned(), uuid.map(Uuid::from_u128));
    let speak = async |site: &Site, card: u8, cards: &[u8], (serial, uuid): Board| {
        site.clock.advance(Duration::from_secs(40));
        let token = site.token(card).await.ok_or_else(|| format!("no identity: {}", site.fate(card)))?;
        let mut said = hello(card);
        said.anchors.macs = cards.iter().map(|n| mac(*n)).collect();
        (said.anchors.serial, said.anchors.smbios_uuid) = (Some(serial), uuid);
        site.engine.hello(&token, said, address(card)).await.map_err(|error| error.to_string())
    };
    // Which cards and boards he names on the way, machine 1 having been seen before or not.
    let other = || board("SN-OTHER", Some(0xbb));
    let ways: [(&str, Words<'_>); 4] = [
        ("one anchor after the other", &[(&[1, 9], board("SN-OTHER", None)), (&[1, 9], other())]),
        ("its cards stay as they are", &[(&[1, 2, 9], other())]),
        ("only its board", &[(&[1], board("SN-OTHER", None)), (&[1], other())]),
        ("a card that it never booted from", &[(&[1, 9], board("SN-1", Some(0xaa)))]),
    ];
    for (way, words) in ways {
        for was_seen in [true, false] {
            let site = Site::new().await;
            if was_seen {
                speak(&site, 1, &[1, 2], board("SN-1", Some(0xaa))).await.unwrap();
            } else {
                let planned = format!(
                    "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: planned}}, spec: {{macs: ['{}']}}}}",
                    mac(1)
                );
                site.engine.apply(&planned, "me").await.unwrap();
            }
            let victim = site.engine.resolve(&mac(1).to_string()).unwrap();
            for (cards, board) in words {
                let _ = speak(&site, 1, cards, board.clone()).await;
            }
            site.clock.advance(Duration::from_secs(40));
            site.engine.assign(&victim, assign(), "me").await.ok();
            // The other machine itself: an honest agent. In one case its board has no numbers of its own.
            for its_board in [other(), board("", None)] {
                let Ok(welcome) = speak(&site, 9, &[9], its_board.clone()).await else { continue };
                let key = welcome.session.reveal().to_owned();
                let orders = site.engine.work(&key, Ask { wait_seconds: 0 }).await;
                let executes = matches!(&orders, Ok(Orders::Execute(_)));
                assert!(!executes, "{way}, seen {was_seen}, {its_board:?}: it is installed as {}", welcome.machine);
            }
        }
    }
}

/// A machine whose agent lives is not stopped by whoever answers to its card with another board.
#[tokio::test]
async fn a_hello_with_another_board_does_not_stop_an_agent_that_lives() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    says(&site, 2, &[], "SN-B1").await.unwrap();
    assert_eq!(says(&site, 1, &[], "SN-A1").await, Ok(a.clone()));
    // The board of another machine, with this card.
    let refused = says_at_once(&site, 1, &[], "SN-B1").await.unwrap_err();
    assert!(refused.contains("another agent speaks for"), "{refused}");
    assert_ne!(site.fate(1), "hold");
    assert!(site.engine.cache().get::<HardwareSpec>(&a).unwrap().conflict().is_none());
    // When it is silent, it is a conflict.
    says(&site, 1, &[], "SN-B1").await.unwrap_err();
    assert_eq!(site.fate(1), "hold");
}

/// An invented machine says that it has the card of one that nobody has seen: that one registers all the same.
#[tokio::test]
async fn a_card_is_not_taken_by_saying_that_one_has_it() {
    let site = Site::new().await;
    let invented = says(&site, 1, &[9], "SN-A1").await.unwrap();
    assert_eq!(site.engine.cache().get::<HardwareSpec>(&invented).unwrap().spec.macs, [mac(1)]);
    assert_eq!(site.fate(9), "discover");
    let real = says(&site, 9, &[], "SN-REAL").await.unwrap();
    assert_ne!(real, invented);
    assert_eq!(site.engine.resolve(&mac(9).to_string()).unwrap(), real);
    assert_eq!(site.fate(9), "discover");
}

/// A machine with several cards is itself by any of them, and is installed; with none of those that it is known to
/// have, a person is asked before anything is written.
#[tokio::test]
async fn a_machine_is_installed_by_any_of_its_cards_and_a_stranger_card_is_asked_about() {
    let site = Site::new().await;
    let name = says(&site, 1, &[2], "SN-A1").await.unwrap();
    site.engine.assign(&name, assign(), "me").await.unwrap();
    let session = async |card: u8, others: &[u8]| {
        site.clock.advance(Duration::from_secs(40));
        let token = site.token(card).await.unwrap();
        let mut said = hello(card);
        said.anchors.serial = Some("SN-A1".to_owned());
        said.anchors.macs.extend(others.iter().map(|n| mac(*n)));
        let welcome = site.engine.hello(&token, said, address(card)).await.unwrap();
        assert_eq!(welcome.machine, name);
        site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await.unwrap()
    };
    assert!(matches!(session(2, &[1]).await, Orders::Execute(_)), "by its other card");
    let orders = session(3, &[]).await;
    assert!(matches!(&orders, Orders::BootLocal { .. }), "{orders:?}");
    let known = site.engine.cache().get::<HardwareSpec>(&name).unwrap();
    let conflict = dragonfly_core::resource::condition(&known.status.conditions, "IdentityConflict").unwrap();
    assert!(conflict.message.contains("network cards"), "{conflict:?}");
    assert_eq!((conflict.status, site.fate(1).as_str()), (ConditionStatus::Unknown, "image"), "by its own it goes on");
    site.release(&name, "me").await.unwrap();
    assert!(matches!(session(3, &[]).await, Orders::Execute(_)), "once a person has said so");
}

/// A card that a machine booted from, and that nobody has said is its own, is whose board it is in: it is no conflict,
/// and nothing is merged.
#[tokio::test]
async fn a_card_that_is_nobodys_own_is_told_by_its_board() {
    let site = Site::new().await;
    let speak = async |card: u8, serial: &str, uuid: u128| {
        site.clock.advance(Duration::from_secs(40));
        let token = site.token(card).await.unwrap();
        let mut said = hello(card);
        said.anchors.serial = Some(serial.to_owned());
        said.anchors.smbios_uuid = Some(Uuid::from_u128(uuid));
        site.engine.hello(&token, said, address(card)).await.map(|welcome| welcome.machine)
    };
    let a = speak(1, "SN-A1", 0xaa).await.unwrap();
    assert_eq!(speak(7, "SN-A1", 0xaa).await.unwrap(), a, "another card in the same board");
    assert!(site.engine.cache().get::<HardwareSpec>(&a).unwrap().is_unclaimed());
    let other = speak(7, "SN-FOREIGN", 0xcc).await.unwrap();
    assert_ne!(other, a);
    let known = site.engine.cache().get::<HardwareSpec>(&a).unwrap();
    assert_eq!(known.status.anchors.as_ref().unwrap().serial.as_deref(), Some("SN-A1"), "nothing is merged");
    // It registered with it: from here on it is its own.
    let refused = speak(7, "SN-A1", 0xaa).await.unwrap_err().to_string();
    assert!(refused.contains("identity in conflict"), "{refused}");
    assert_eq!((site.engine.machines().len(), site.fate(7).as_str()), (2, "hold"));
}

/// Two known machines exchange their cards: nothing is merged, neither is given the other's work, and once a person
/// has said of each card where it is, each is itself with the card that it has now.
#[tokio::test]
async fn two_machines_that_exchange_their_cards_are_asked_about_and_then_themselves() {
    for boards_first in [true, false] {
        let site = Site::new().await;
        let speak = async |card: u8, serial: &str| {
            site.clock.advance(Duration::from_secs(40));
            let token = site.token(card).await.ok_or_else(|| format!("no identity: {}", site.fate(card)))?;
            let mut said = hello(card);
            said.anchors.serial = Some(serial.to_owned());
            said.anchors.smbios_uuid = Some(Uuid::from_u128(serial.len() as u128));
            let welcome = site.engine.hello(&token, said, address(card)).await.map_err(|error| error.to_string())?;
            let orders = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await.unwrap();
            Ok::<_, String>((welcome.machine, matches!(orders, Orders::Execute(_))))
        };
        let a = speak(1, "SN-A").await.unwrap().0;
        let b = speak(2, "SN-BOARD").await.unwrap().0;
        for name in [&a, &b] {
            site.engine.assign(name, assign(), "me").await.unwrap();
        }
        let exchanged = [(2, "SN-A", &a), (1, "SN-BOARD", &b)];
        for (card, serial, _) in if boards_first { exchanged } else { [exchanged[1], exchanged[0]] } {
            let refused = speak(card, serial).await.unwrap_err();
            assert!(refused.contains("identity in conflict") || refused.contains("no identity: hold"), "{refused}");
        }
        assert_eq!((site.fate(1), site.fate(2)), ("hold".to_owned(), "hold".to_owned()));
        for (name, serial) in [(&a, "SN-A"), (&b, "SN-BOARD")] {
            let known = site.engine.cache().get::<HardwareSpec>(name).unwrap();
            assert_eq!(known.status.anchors.as_ref().unwrap().serial.as_deref(), Some(serial), "nothing is merged");
            site.release(name, "me").await.unwrap();
        }
        assert_eq!(speak(2, "SN-A").await, Ok((a.clone(), true)), "it is installed, as itself");
        // Of its old card it was said where it is now, too.
        assert_eq!(speak(1, "SN-BOARD").await, Ok((b.clone(), true)), "it is installed, as itself");
        assert_eq!(speak(2, "SN-A").await.map(|(name, _)| name), Ok(a.clone()));
        for (card, name) in [(2, &a), (1, &b)] {
            assert_eq!(&site.engine.resolve(&mac(card).to_string()).unwrap(), name);
        }
        assert_eq!(site.engine.machines().len(), 2);
    }
}

/// The same while their agents live: the one that has got its new card is not held for where its old one is.
#[tokio::test]
async fn a_card_that_left_a_machine_whose_agent_lives_is_asked_about_and_moved() {
    for by_edit in [false, true] {
        moves_a_card_of_a_machine_that_lives(by_edit).await;
    }
}

/// `by_edit`: the person takes it out of the machine's spec.
async fn moves_a_card_of_a_machine_that_lives(by_edit: bool) {
    let site = Site::new().await;
    let speak = async |card: u8, serial: &str| {
        let token = site.token(card).await.unwrap();
        let mut said = hello(card);
        said.anchors.serial = Some(serial.to_owned());
        said.anchors.smbios_uuid = Some(Uuid::from_u128(serial.len() as u128));
        site.engine.hello(&token, said, address(card)).await
    };
    let orders = async |welcome: &Welcome| site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await;
    let a = speak(1, "SN-A").await.unwrap().machine;
    let b = speak(2, "SN-BOARD").await.unwrap().machine;
    site.clock.advance(Duration::from_secs(40));
    speak(2, "SN-A").await.unwrap_err();
    site.release(&b, "me").await.unwrap();
    let with_new_card = speak(2, "SN-A").await.unwrap();
    assert_eq!(with_new_card.machine, a);
    for _ in 0..2 {
        let refused = speak(1, "SN-BOARD").await.unwrap_err().to_string();
        assert!(refused.contains("identity in conflict"), "{refused}");
        let question = site.engine.why(&a).unwrap().question.unwrap();
        let settles = format!("dragonfly release {a} --question {question} if its card was moved to {b}");
        for name in [&a, &b] {
            let about = site.engine.why(name).unwrap().events;
            assert!(about.iter().any(|event| event.message.ends_with(&settles)), "{name}: {about:#?}");
        }
    }
    assert!(site.engine.why(&a).unwrap().next.iter().any(|next| next.contains(&format!("release {a}"))));
    assert!(site.engine.cache().get::<HardwareSpec>(&a).unwrap().conflict().is_none(), "its own agent goes on");
    assert!(orders(&with_new_card).await.is_ok());
    // Whoever has the card that it has, and its board, is a second agent, as ever.
    let second = speak(2, "SN-BOARD").await.unwrap_err().to_string();
    assert!(second.contains("another agent speaks"), "{second}");

    if by_edit {
        let text = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {a}}}, spec: {{macs: ['{}']}}}}",
            mac(2)
        );
        site.engine.apply(&text, "me").await.unwrap();
    } else {
        site.release(&a, "me").await.unwrap();
    }
    let other = speak(1, "SN-BOARD").await.unwrap();
    assert_eq!(other.machine, b);
    for (welcome, card, name) in [(&with_new_card, 2, &a), (&other, 1, &b)] {
        assert!(orders(welcome).await.is_ok(), "both agents go on");
        let is_own = site.engine.resolve(&mac(card).to_string()).is_ok_and(|owner| &owner == name);
        assert_eq!(is_own, !by_edit || card == 2, "who takes a card from one has not given it to the other");
    }
}

/// Two machines exchange their cards, and the one that comes last fetched its token first: tokens of two cards say nothing
/// of each other.
#[tokio::test]
async fn a_token_that_waited_is_as_good_as_its_own_cards() {
    let site = Site::new().await;
    let with = async |token: &str, card: u8, serial: &str| {
        let mut said = hello(card);
        said.anchors.serial = Some(serial.to_owned());
        said.boot_id = Uuid::from_u128(u128::from(card) + 0x100);
        let welcome = site.engine.hello(token, said, address(card)).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(welcome.machine)
    };
    let a = says(&site, 1, &[], "SN-A").await.unwrap();
    let b = says(&site, 2, &[], "SN-B").await.unwrap();
    site.clock.advance(Duration::from_secs(40));
    let early = site.token(1).await.unwrap();
    site.clock.advance(Duration::from_secs(1));
    says_at_once(&site, 2, &[], "SN-A").await.unwrap_err();
    site.release(&b, "me").await.unwrap();
    let late = site.token(2).await.unwrap();
    assert_eq!(with(&late, 2, "SN-A").await, Ok(a.clone()));
    let refused = with(&early, 1, "SN-B").await.unwrap_err();
    assert!(refused.contains("identity in conflict"), "a person is asked: {refused}");
    site.release(&a, "me").await.unwrap();
    assert_eq!(with(&early, 1, "SN-B").await, Ok(b.clone()));
    for (token, card, serial) in [(&early, 1, "SN-B"), (&early, 1, "SN-A"), (&late, 2, "SN-A"), (&late, 2, "SN-B")] {
        let refused = with(token, card, serial).await.unwrap_err();
        assert!(refused.contains("has been used"), "{card} {serial}: {refused}");
    }
}

/// The card of a machine that is to be installed, in a board that has no numbers of its own: nothing is written there.
#[tokio::test]
async fn a_board_without_numbers_is_not_installed_for_having_the_card_of_another() {
    // What the machine says of its board, and of other cards.
    for (serial, uuid, others) in
        [("SN-A1", Some(0xaa), &[][..]), ("SN-A1", Some(0xaa), &[2]), ("SN-A1", None, &[]), ("", Some(0xaa), &[])]
    {
        let site = Site::new().await;
        let speak = async |serial: &str, uuid: Option<u128>| {
            site.clock.advance(Duration::from_secs(40));
            let token = site.token(1).await.unwrap();
            let mut said = hello(1);
            said.anchors.macs = [1].iter().chain(others).map(|n| mac(*n)).collect();
            said.anchors.serial = Some(serial.to_owned());
            said.anchors.smbios_uuid = uuid.map(Uuid::from_u128);
            let welcome = site.engine.hello(&token, said, address(1)).await.map_err(|error| error.to_string())?;
            let orders = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await.unwrap();
            Ok::<_, String>((welcome.machine, orders))
        };
        let name = speak(serial, uuid).await.unwrap().0;
        site.engine.assign(&name, assign(), "me").await.unwrap();
        match speak("To Be Filled By O.E.M.", None).await {
            Err(refused) => assert!(refused.contains("identity in conflict"), "{refused}"),
            Ok((_, orders)) => panic!("{serial} {uuid:?}: {orders:?}"),
        }
        assert_eq!(site.fate(1), "hold");
        // Its firmware lost them: a person says so.
        site.release(&name, "me").await.unwrap();
        let orders = speak("To Be Filled By O.E.M.", None).await.unwrap();
        assert!(matches!(orders.1, Orders::Execute(_)), "{orders:?}");
    }
}
