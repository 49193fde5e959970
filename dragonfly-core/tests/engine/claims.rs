//! A board's numbers are said, and anybody can say them: what comes of a machine's number in the mouth of another's card.

use uuid::Uuid;

use super::*;

/// What an agent says: the cards that it names, of which it booted from the first; serial number; SMBIOS UUID.
type Says<'a> = (&'a [u8], Option<&'a str>, Option<u128>);

const A: Says<'static> = (&[1], Some("SN-A"), Some(0xa));
/// An innocent machine whose board says no serial number, as many virtual machines.
const INNOCENT: Says<'static> = (&[9], None, Some(0x9));

fn said((cards, serial, uuid): Says<'_>) -> dragonfly_core::wire::Hello {
    let mut said = hello(cards[0]);
    said.anchors.macs = cards.iter().map(|n| mac(*n)).collect();
    said.anchors.serial = serial.map(str::to_owned);
    said.anchors.smbios_uuid = uuid.map(Uuid::from_u128);
    said
}

async fn speaks_at_once(site: &Site, words: Says<'_>) -> Result<Welcome, String> {
    let card = words.0[0];
    let token = site.token(card).await.ok_or_else(|| format!("no identity: {}", site.fate(card)))?;
    site.engine.hello(&token, said(words), address(card)).await.map_err(|error| error.to_string())
}

async fn speaks(site: &Site, words: Says<'_>) -> Result<Welcome, String> {
    site.clock.advance(Duration::from_secs(40));
    speaks_at_once(site, words).await
}

async fn is_told_to_install(site: &Site, welcome: &Welcome) -> bool {
    let orders = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await;
    matches!(orders, Ok(Orders::Execute(_)))
}

async fn planned(site: &Site, name: &str, spec: &str) {
    let text =
        format!("{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{{spec}}}}}");
    site.engine.apply(&text, "me").await.unwrap();
    site.engine.assign(name, assign(), "me").await.unwrap();
}

/// He says a machine's serial number from a card of a third; then that third one boots.
#[tokio::test]
async fn a_number_that_is_said_makes_no_card_and_no_board_a_machines() {
    for spec in ["serial: SN-A".to_owned(), format!("macs: ['{}'], serial: SN-A", mac(1))] {
        let site = Site::new().await;
        planned(&site, "a", &spec).await;
        let _ = speaks(&site, (&[9], Some("SN-A"), Some(0x9))).await;
        let third = speaks(&site, INNOCENT).await.unwrap();
        assert!(third.machine != "a" && !is_told_to_install(&site, &third).await, "{spec}: {}", third.machine);
        let own = speaks(&site, A).await.unwrap();
        assert!(own.machine == "a" && is_told_to_install(&site, &own).await, "{spec}: {}", own.machine);
    }
}

/// What a person settles is said of who asked, card and board; whoever comes first with other words is not believed.
#[tokio::test]
async fn what_is_settled_is_said_of_who_asked() {
    let site = Site::new().await;
    let a = speaks(&site, A).await.unwrap().machine;
    let b = speaks(&site, (&[2], Some("SN-B"), Some(0xb))).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let on_b: Says<'_> = (&[1], Some("SN-B"), Some(0xb));
    speaks(&site, on_b).await.unwrap_err();
    site.release(&a, "me").await.unwrap();
    for cards in [&[9, 1][..], &[9]] {
        if let Ok(stranger) = speaks(&site, (cards, Some("SN-A"), Some(0x9))).await {
            assert!(!is_told_to_install(&site, &stranger).await, "{cards:?}");
        }
    }
    let third = speaks(&site, INNOCENT).await.unwrap();
    assert!(![&a, &b].contains(&&third.machine) && !is_told_to_install(&site, &third).await, "{}", third.machine);
    assert_eq!(speaks(&site, on_b).await.unwrap().machine, b, "of whom it was said");
    assert_eq!(site.engine.resolve(&mac(1).to_string()).unwrap(), b);
}

/// He gives a silent machine's UUID to the card of a third: that one is itself when it boots, and no release is asked for.
#[tokio::test]
async fn a_card_is_not_a_machines_for_what_was_said_from_it() {
    let site = Site::new().await;
    let a = speaks(&site, A).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    speaks(&site, (&[9], None, Some(0xa))).await.unwrap();
    let third = speaks(&site, (&[9], Some("SN-9"), Some(0x9))).await.unwrap();
    assert!(third.machine != a && !is_told_to_install(&site, &third).await, "{}", third.machine);
    let own = speaks(&site, A).await.unwrap();
    assert!(own.machine == a && is_told_to_install(&site, &own).await);
}

/// A used token that names a machine's cards, shown all the while a person settles that machine's conflict.
#[tokio::test]
async fn a_used_token_moves_no_card() {
    let site = Site::new().await;
    let a = speaks(&site, A).await.unwrap().machine;
    let stranger = site.token(7).await.unwrap();
    let names: Says<'_> = (&[7, 1], Some("SN-7"), Some(0x7));
    site.engine.hello(&stranger, said((&[7], names.1, names.2)), address(7)).await.unwrap();
    let replaced: Says<'_> = (&[1], Some("SN-NEW"), Some(0xaa));
    speaks(&site, replaced).await.unwrap_err();
    site.release(&a, "me").await.unwrap();
    for token in [stranger, site.token(7).await.unwrap()] {
        let _ = site.engine.hello(&token, said(names), address(7)).await;
        assert_eq!(site.engine.resolve(&mac(1).to_string()).unwrap(), a, "it has its card still");
    }
    assert_eq!(speaks(&site, replaced).await.unwrap().machine, a, "and what was settled is good still");
}

/// He speaks for a silent machine by its number, from a card of his own, and goes on as if he were its agent.
#[tokio::test]
async fn who_boots_from_the_machines_card_takes_the_word() {
    let site = Site::new().await;
    let a = speaks(&site, A).await.unwrap().machine;
    let stranger = speaks(&site, (&[7], None, Some(0xa))).await.unwrap();
    assert_eq!(stranger.machine, a);
    site.engine.assign(&a, assign(), "me").await.unwrap();
    for _ in 0..3 {
        assert!(!is_told_to_install(&site, &stranger).await);
        assert_eq!(site.fate(1), "image", "he holds nobody");
    }
    // Tokens that he was refused with are not counted as the machine's own.
    let own = speaks_at_once(&site, A).await.unwrap();
    let spare = site.token(7).await.unwrap();
    for _ in 0..50 {
        site.engine.hello(&spare, said((&[7], None, Some(0xa))), address(7)).await.unwrap_err();
    }
    let again = speaks_at_once(&site, A).await;
    assert!(again.is_err_and(|why| why.contains("another agent")), "one boot of it lives, and no more is said of it");
    assert!(is_told_to_install(&site, &own).await);
    let lost = site.engine.work(stranger.session.reveal(), Ask { wait_seconds: 0 }).await;
    assert!(matches!(lost, Err(EngineError::Unauthenticated { .. })), "{lost:?}");
}

/// What a machine is known by is not for who asks: neither in a boot script, nor in orders, nor in a refusal.
#[tokio::test]
async fn what_contradicts_what_is_not_for_who_asks() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}'], serial: SN-SECRET", mac(1))).await;
    let refused = speaks(&site, (&[1], Some("guess"), None)).await.unwrap_err();
    assert!(!refused.contains("SECRET"), "{refused}");
    let decision = site.engine.decision(&BootRequest::from_mac(mac(1)));
    assert_eq!(decision.fate.word(), "hold");
    assert!(!decision.reason.contains("SECRET"), "{}", decision.reason);
    let conflict = site.engine.why("a").unwrap().conditions;
    assert!(conflict.iter().any(|c| c.message.contains("SN-SECRET")), "an operator is told: {conflict:?}");

    let known = speaks(&site, (&[2], Some("SN-SECRET-2"), Some(0x2))).await.unwrap();
    site.engine.assign(&known.machine, assign(), "me").await.unwrap();
    let refused = speaks_at_once(&site, (&[7], Some("SN-SECRET-2"), None)).await.unwrap_err();
    assert!(!refused.contains(&known.machine), "{refused}");
    let guesses = speaks(&site, (&[2], Some("guess"), None)).await.unwrap();
    let orders = site.engine.work(guesses.session.reveal(), Ask { wait_seconds: 0 }).await.unwrap();
    let Orders::BootLocal { reason } = orders else { panic!("{orders:?}") };
    assert!(!reason.contains("SECRET"), "{reason}");
}

/// One is deleted and made anew while an agent of before was heard: nobody speaks for the new one.
#[tokio::test]
async fn a_machine_that_was_made_anew_waits_for_nobody() {
    let site = Site::new().await;
    let spec = format!("macs: ['{}']", mac(1));
    planned(&site, "a", &spec).await;
    speaks(&site, A).await.unwrap();
    site.engine.abort("a", "me").await.unwrap();
    site.engine.delete(Kind::HARDWARE, "a", "me").await.unwrap();
    planned(&site, "a", &spec).await;
    assert_eq!(speaks_at_once(&site, A).await.unwrap().machine, "a");
}

async fn asked_of(site: &Site, machine: &str) -> (ConditionStatus, Option<Vec<Mac>>) {
    let known = site.engine.cache().get::<HardwareSpec>(machine).unwrap();
    let conflict = dragonfly_core::resource::condition(&known.status.conditions, "IdentityConflict").unwrap();
    (conflict.status, known.status.in_doubt.as_ref().map(|asked| asked.said.macs.clone()))
}

/// An edit that is not about who asks settles nothing; nor does lifting a hold; nor does a board with half of the numbers.
#[tokio::test]
async fn an_answer_to_something_else_is_none() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}'], serial: SN-A", mac(1))).await;
    let claims: Says<'_> = (&[9], Some("SN-A"), Some(0x9));
    let stranger = speaks(&site, claims).await.unwrap();
    assert!(!is_told_to_install(&site, &stranger).await);
    assert_eq!(asked_of(&site, "a").await, (ConditionStatus::Unknown, Some(vec![mac(9)])));
    let edit = |macs: &[u8]| {
        let macs: Vec<_> = macs.iter().map(|n| format!("'{}'", mac(*n))).collect();
        let spec = format!("macs: [{}], serial: SN-A", macs.join(", "));
        format!("{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: a}}, spec: {{{spec}}}}}")
    };
    site.engine.apply(&edit(&[1, 2]), "me").await.unwrap();
    assert_eq!(asked_of(&site, "a").await, (ConditionStatus::False, None));
    let stranger = speaks(&site, claims).await.unwrap();
    assert!(!is_told_to_install(&site, &stranger).await);

    site.engine.hold("a", "new disk", "me").await.unwrap();
    site.release("a", "me").await.unwrap();
    assert_eq!(asked_of(&site, "a").await, (ConditionStatus::Unknown, Some(vec![mac(9)])), "that was not asked");
    let stranger = speaks(&site, claims).await.unwrap();
    assert!(!is_told_to_install(&site, &stranger).await);

    // A person says so after all. Of that board, and not of one with the same UUID alone.
    site.release("a", "me").await.unwrap();
    assert!(!is_told_to_install(&site, &stranger).await, "it is to boot again");
    assert_eq!(asked_of(&site, "a").await.0, ConditionStatus::False, "and that asks nothing anew");
    let meant = speaks(&site, claims).await.unwrap();
    assert!(is_told_to_install(&site, &meant).await);
    if let Ok(third) = speaks(&site, INNOCENT).await {
        assert!(!is_told_to_install(&site, &third).await);
    }
    // What a person has said of a card is written down, and can be taken back.
    assert!(site.engine.cache().get::<HardwareSpec>("a").unwrap().spec.macs.contains(&mac(9)));
    site.engine.apply(&edit(&[1, 2]), "me").await.unwrap();
    assert!(site.engine.resolve(&mac(9).to_string()).is_err());
}

/// Whoever speaks by its number alone keeps nobody out of whom a person has said that it is right.
#[tokio::test]
async fn who_was_released_takes_the_word() {
    let site = Site::new().await;
    let a = speaks(&site, A).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let replaced: Says<'_> = (&[2], Some("SN-A"), Some(0xa));
    let honest = speaks(&site, replaced).await.unwrap();
    assert!(!is_told_to_install(&site, &honest).await);
    let stranger = speaks(&site, (&[7], None, Some(0xa))).await.unwrap();
    assert!(!is_told_to_install(&site, &stranger).await);
    assert_eq!(asked_of(&site, &a).await.1, Some(vec![mac(2)]), "who asked first is who is asked about");
    // Nor does the machine's card in another board take its place.
    speaks_at_once(&site, (&[1], Some("SN-X"), Some(0xf))).await.unwrap_err();
    assert_eq!(asked_of(&site, &a).await.1, Some(vec![mac(2)]));
    site.release(&a, "me").await.unwrap();
    site.clock.advance(Duration::from_secs(1));
    let honest = speaks_at_once(&site, replaced).await.unwrap();
    assert!(is_told_to_install(&site, &honest).await);
}

/// Who only says that he is a machine says nothing of its disks, and stops nothing that runs on it.
#[tokio::test]
async fn what_is_seen_elsewhere_is_not_the_machines() {
    let site = Site::new().await;
    let own: Says<'_> = (&[1, 2], Some("SN-A"), Some(0xa));
    let debian = dragonfly_core::resource::hardware::ExistingOs {
        name: "Debian".into(),
        disk: "sda".into(),
        evidence: "os-release".into(),
    };
    let token = site.token(1).await.unwrap();
    let with_os = dragonfly_core::wire::Hello { existing_os: Some(debian.clone()), ..said(own) };
    let a = site.engine.hello(&token, with_os, address(1)).await.unwrap().machine;
    speaks(&site, (&[7], None, Some(0xa))).await.unwrap();
    let known = site.engine.cache().get::<HardwareSpec>(&a).unwrap();
    assert_eq!(known.status.existing_os, Some(debian));
    assert_eq!(known.status.address, Some(address(1)));

    // By its second card, and then somebody on its first one, in another board.
    site.engine.assign(&a, AssignRequest { overwrite: Overwrite::All, ..assign() }, "me").await.unwrap();
    let second = speaks(&site, (&[2, 1], Some("SN-A"), Some(0xa))).await.unwrap();
    assert!(is_told_to_install(&site, &second).await);
    for board in [Some(0xf), Some(0xa)] {
        let refused = speaks_at_once(&site, (&[1], Some("SN-X"), board)).await.unwrap_err();
        assert!(refused.contains("another agent"), "{refused}");
    }
    assert!(site.engine.cache().get::<HardwareSpec>(&a).unwrap().conflict().is_none());
    assert!(is_told_to_install(&site, &second).await);
}

/// A person says that who asks is not the machine: that one is refused, and the machine is installed as it was to be.
#[tokio::test]
async fn who_is_denied_holds_nobody_and_is_not_believed() {
    let liar: Says<'_> = (&[1], Some("SN-X"), Some(0x6));
    let on_foreign_card: Says<'_> = (&[9], None, Some(0xa));
    for (asks, takes_back) in [(liar, false), (liar, true), (on_foreign_card, false), (on_foreign_card, true)] {
        let site = Site::new().await;
        planned(&site, "a", &format!("macs: ['{}']", mac(1))).await;
        let own = speaks(&site, A).await.unwrap();
        assert!(matches!(site.deny("a", "me").await, Err(EngineError::Illegal { .. })), "nobody asks");
        drop(own);
        if let Ok(stranger) = speaks(&site, asks).await {
            assert!(!is_told_to_install(&site, &stranger).await);
        }
        let why = site.engine.why("a").unwrap();
        assert!(why.next.iter().any(|next| next.starts_with("dragonfly deny a")), "{asks:?}: {why:#?}");
        if takes_back {
            site.release("a", "me").await.unwrap();
        }
        site.deny("a", "me").await.unwrap();
        assert!(matches!(site.deny("a", "me").await, Err(EngineError::Illegal { .. })));
        for _ in 0..2 {
            site.clock.advance(Duration::from_secs(20 * 60));
            if let Ok(stranger) = speaks(&site, asks).await {
                assert!(!is_told_to_install(&site, &stranger).await);
            }
            assert_eq!(site.fate(1), "image", "it holds nobody any more");
        }
        let own = speaks(&site, A).await.unwrap();
        assert!(own.machine == "a" && is_told_to_install(&site, &own).await);
    }
}

/// What a person has read is answered, and not what somebody else asks by the time the answer comes.
#[tokio::test]
async fn an_answer_is_to_the_question_that_was_read() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    speaks(&site, A).await.unwrap();
    assert_eq!(site.engine.why("a").unwrap().question, None);
    let (first, next): (Says<'_>, Says<'_>) = ((&[9], None, Some(0xa)), (&[8], None, Some(0xa)));
    let ask = async |asks: Says<'_>| {
        let stranger = speaks(&site, asks).await.unwrap();
        assert!(!is_told_to_install(&site, &stranger).await);
    };
    ask(first).await;
    let read = site.engine.why("a").unwrap().question.unwrap();
    // The machine's own agent ends that one, and another agent asks.
    speaks(&site, A).await.unwrap();
    let gone = site.engine.release_answering("a", &read, "me").await.unwrap_err();
    assert!(gone.to_string().contains("nobody is in doubt who asks to be a"), "{gone}");
    ask(next).await;
    let asked = site.engine.cache().get::<HardwareSpec>("a").unwrap();
    for refused in [
        site.engine.release_answering("a", &read, "me").await,
        site.engine.deny("a", &read, "me").await,
        site.engine.release_answering("a", "no question", "me").await,
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, EngineError::Illegal { .. }), "{refused:?}");
        let told = "what is asked about a has changed since you looked, and nothing was done: look again";
        assert!(refused.to_string().contains(told), "{refused}");
    }
    // Nor is one that names none an answer.
    let unnamed = site.engine.release("a", "me").await.unwrap_err();
    assert!(unnamed.to_string().contains("an answer names its question"), "{unnamed}");
    assert_eq!(site.engine.cache().get::<HardwareSpec>("a").unwrap().status, asked.status);

    // A hold and a question are two things: neither answer is the other's.
    site.engine.hold("a", "fan", "me").await.unwrap();
    let why = site.engine.why("a").unwrap();
    let now = why.question.unwrap();
    site.engine.release("a", "me").await.unwrap();
    assert!(site.engine.release("a", "me").await.is_err(), "a second press answers nothing");
    assert_eq!(site.engine.why("a").unwrap().question.as_ref(), Some(&now));
    let why = site.engine.why("a").unwrap();
    assert!(why.next.iter().any(|next| next.starts_with(&format!("dragonfly release a --question {now}, if"))));
    assert!(why.next.iter().any(|next| next.starts_with(&format!("dragonfly deny a --question {now}, if"))));
    site.engine.hold("a", "fan", "me").await.unwrap();
    site.engine.release_answering("a", &now, "me").await.unwrap();
    assert_eq!(site.engine.cache().get::<HardwareSpec>("a").unwrap().spec.hold.as_deref(), Some("fan"));
    site.engine.release("a", "me").await.unwrap();

    // Answered, and taken back by the same question; what was answered is told until it is used.
    let next_words = site.engine.why("a").unwrap().next;
    let back = format!("dragonfly deny a --question {now} takes back");
    assert!(next_words.iter().any(|next| next.starts_with(&back)), "{next_words:?}");
    assert!(site.engine.release_answering("a", &now, "me").await.is_err(), "it is answered");
    site.engine.deny("a", &now, "me").await.unwrap();
    assert!(site.engine.deny("a", &now, "me").await.is_err(), "it is answered");
    site.engine.release_answering("a", &now, "me").await.unwrap();
    let own = speaks(&site, next).await.unwrap();
    assert!(own.machine == "a" && is_told_to_install(&site, &own).await);
}

/// A denial that was a mistake.
#[tokio::test]
async fn a_denial_is_taken_back() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    speaks(&site, A).await.unwrap();
    let replaced: Says<'_> = (&[1], Some("SN-NEW"), Some(0x6));
    speaks(&site, replaced).await.unwrap_err();
    site.deny("a", "me").await.unwrap();
    speaks(&site, replaced).await.unwrap_err();
    let next = site.engine.why("a").unwrap().next;
    assert!(next.iter().any(|next| next.starts_with("dragonfly release a") && next.contains("denied")), "{next:?}");
    site.release("a", "me").await.unwrap();
    let own = speaks(&site, replaced).await.unwrap();
    assert!(own.machine == "a" && is_told_to_install(&site, &own).await);
}

/// Who was denied speaks for the machine no more, and keeps nobody out.
#[tokio::test]
async fn who_is_denied_has_no_session() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    speaks(&site, A).await.unwrap();
    // With the machine's address, and one number of its board.
    let liar = speaks(&site, (&[1], Some("LIAR"), Some(0xa))).await.unwrap();
    assert!(!is_told_to_install(&site, &liar).await);
    site.deny("a", "me").await.unwrap();
    let lost = site.engine.work(liar.session.reveal(), Ask { wait_seconds: 0 }).await;
    assert!(matches!(lost, Err(EngineError::Unauthenticated { .. })), "{lost:?}");
    let own = speaks_at_once(&site, A).await.unwrap();
    assert!(own.machine == "a" && is_told_to_install(&site, &own).await);
}

/// The true serial number is written down while a liar, with the machine's own address, says it and not its UUID.
#[tokio::test]
async fn a_correction_of_what_was_not_in_question_makes_nobody_right() {
    for is_denied in [false, true] {
        let site = Site::new().await;
        let spec = format!("macs: ['{}']", mac(1));
        planned(&site, "a", &spec).await;
        speaks(&site, A).await.unwrap();
        let liar: Says<'_> = (&[1], Some("SN-A"), None);
        if let Ok(liar) = speaks(&site, liar).await {
            assert!(!is_told_to_install(&site, &liar).await);
        }
        if is_denied {
            site.deny("a", "me").await.unwrap();
        }
        let text = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: a}}, spec: {{{spec}, serial: SN-A}}}}"
        );
        site.engine.apply(&text, "me").await.unwrap();
        if let Ok(liar) = speaks(&site, liar).await {
            assert!(!is_told_to_install(&site, &liar).await, "denied: {is_denied}");
        }
    }
}

/// What a person reads is what he answers, however late.
#[tokio::test]
async fn an_open_question_stands() {
    let site = Site::new().await;
    planned(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    speaks(&site, A).await.unwrap();
    let replaced: Says<'_> = (&[2], Some("SN-A"), Some(0xa));
    let own = speaks(&site, replaced).await.unwrap();
    assert!(!is_told_to_install(&site, &own).await);
    site.clock.advance(Duration::from_secs(3600));
    let liar: Says<'_> = (&[7], None, Some(0xa));
    if let Ok(liar) = speaks(&site, liar).await {
        assert!(!is_told_to_install(&site, &liar).await);
    }
    assert_eq!(asked_of(&site, "a").await.1, Some(vec![mac(2)]));
    site.release("a", "me").await.unwrap();
    if let Ok(liar) = speaks(&site, liar).await {
        assert!(!is_told_to_install(&site, &liar).await);
    }
    let own = speaks(&site, replaced).await.unwrap();
    assert!(own.machine == "a" && is_told_to_install(&site, &own).await);
}
