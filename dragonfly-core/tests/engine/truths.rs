//! Truthful machines beside a liar, and numbers that makers gave to many boards: nobody is installed in another's place,
//! and what an operator is told settles it.

use uuid::Uuid;

use super::*;

/// Serial number, SMBIOS UUID, product.
pub(crate) type Board<'a> = (Option<&'a str>, Option<u128>, Option<&'a str>);

pub(crate) const NONE: Board<'static> = (None, None, None);

/// An agent boots from the first of these cards, in this board.
pub(crate) async fn boots(site: &Site, cards: &[u8], board: Board<'_>) -> Result<Welcome, String> {
    site.clock.advance(Duration::from_secs(40));
    boots_at_once(site, cards, board).await
}

pub(crate) async fn boots_at_once(
    site: &Site,
    cards: &[u8],
    (serial, uuid, product): Board<'_>,
) -> Result<Welcome, String> {
    let token = site.token(cards[0]).await.ok_or_else(|| format!("no identity: {}", site.fate(cards[0])))?;
    let mut said = hello(cards[0]);
    said.anchors = Anchors {
        macs: cards.iter().map(|n| mac(*n)).collect(),
        serial: serial.map(str::to_owned),
        smbios_uuid: uuid.map(Uuid::from_u128),
        product: product.map(str::to_owned),
    };
    site.engine.hello(&token, said, address(cards[0])).await.map_err(|error| error.to_string())
}

pub(crate) async fn is_installed(site: &Site, welcome: &Welcome) -> bool {
    let orders = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await;
    matches!(orders, Ok(Orders::Execute(_)))
}

pub(crate) async fn writes(site: &Site, name: &str, spec: &str) {
    let text =
        format!("{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{{spec}}}}}");
    site.engine.apply(&text, "me").await.unwrap();
}

pub(crate) fn known(site: &Site, name: &str) -> Arc<dragonfly_core::resource::Hardware> {
    site.engine.cache().get::<HardwareSpec>(name).unwrap()
}

/// A machine's card in another known one, neither of whose boards says anything: it names a card of its own beside it.
#[tokio::test]
async fn a_card_in_another_board_without_numbers_is_asked_about() {
    for (was, is) in [(NONE, NONE), ((None, None, Some("P1")), (None, None, Some("P2")))] {
        let site = Site::new().await;
        let a = boots(&site, &[1], was).await.unwrap().machine;
        let b = boots(&site, &[2], is).await.unwrap().machine;
        site.engine.assign(&a, assign(), "me").await.unwrap();
        let moved = boots(&site, &[1, 2], is).await.unwrap();
        assert!(moved.machine == a && !is_installed(&site, &moved).await, "{b} has not been authorised");
        assert!(known(&site, &a).is_asked_about());
        // A person says that it is right: it has that board now.
        site.release(&a, "me").await.unwrap();
        let meant = boots(&site, &[1, 2], is).await.unwrap();
        assert!(meant.machine == a && is_installed(&site, &meant).await);
    }
}

/// The same number on a board of another make.
#[tokio::test]
async fn a_serial_number_counts_within_one_product() {
    let site = Site::new().await;
    let a = boots(&site, &[1], (Some("10000001"), None, Some("P1"))).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    if let Ok(other) = boots(&site, &[1], (Some("10000001"), None, Some("P2"))).await {
        assert!(!is_installed(&site, &other).await);
    }
    site.deny(&a, "me").await.unwrap();
    let own = boots(&site, &[1], (Some("10000001"), None, Some("P1"))).await.unwrap();
    assert!(own.machine == a && is_installed(&site, &own).await);
    // Firmware says another name for the same board.
    let site = Site::new().await;
    let a = boots(&site, &[1], (Some("10000001"), Some(0xa), Some("P1"))).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let updated = boots(&site, &[1], (Some("10000001"), Some(0xa), Some("P1 v2"))).await.unwrap();
    assert!(updated.machine == a && is_installed(&site, &updated).await);
}

/// Makers gave one UUID to many boards, whose serial numbers differ: each is itself.
#[tokio::test]
async fn boards_that_share_a_uuid_are_told_by_their_serial_numbers() {
    for is_written in [false, true] {
        let site = Site::new().await;
        if is_written {
            writes(&site, "a", &format!("macs: ['{}']", mac(1))).await;
            writes(&site, "b", &format!("macs: ['{}']", mac(2))).await;
        }
        let [a, b] = [(1, "SN-A"), (2, "SN-B")].map(|(card, serial)| ([card], serial));
        for _ in 0..2 {
            let one = boots(&site, &a.0, (Some(a.1), Some(0xdead), None)).await.unwrap().machine;
            let other = boots(&site, &b.0, (Some(b.1), Some(0xdead), None)).await.unwrap().machine;
            assert_ne!(one, other);
            assert!(known(&site, &one).conflict().is_none() && known(&site, &other).conflict().is_none());
        }
    }
}

/// An inventory with serial numbers alone is applied while a liar has a record with the numbers of one of them.
#[tokio::test]
async fn what_a_person_wrote_comes_before_what_was_said() {
    let board: Board<'_> = (Some("SN-A"), Some(0xa), None);
    for (spec, liar) in [
        (format!("macs: ['{}'], serial: SN-A", mac(1)), board),
        (format!("macs: ['{}'], serial: SN-A", mac(1)), (None, Some(0xa), None)),
        ("serial: SN-A".to_owned(), (None, Some(0xa), None)),
    ] {
        let site = Site::new().await;
        let stranger = boots(&site, &[9], liar).await.unwrap().machine;
        writes(&site, "a", &spec).await;
        site.engine.assign("a", assign(), "me").await.unwrap();
        assert_ne!(stranger, "a");
        let own = boots(&site, &[1], board).await;
        let own = own.unwrap_or_else(|why| panic!("{spec}, {liar:?}: {why}"));
        assert!(own.machine == "a" && is_installed(&site, &own).await, "{spec}, {liar:?}");
    }
}

/// A machine registered itself, and was written down by its serial number later: what an operator is told ends it.
#[tokio::test]
async fn a_plan_for_a_machine_that_registered_itself_is_told_how_to_have_it() {
    let site = Site::new().await;
    let board: Board<'_> = (Some("SN-A"), Some(0xa), None);
    let found = boots(&site, &[1], board).await.unwrap().machine;
    writes(&site, "rack1", "serial: SN-A").await;
    site.engine.assign("rack1", assign(), "me").await.unwrap();
    boots(&site, &[1], board).await.unwrap_err();
    let told = format!("dragonfly delete machine {found}, which wrote itself down, if this is rack1");
    let events = site.engine.why("rack1").unwrap().events;
    assert!(events.iter().any(|event| event.message.contains(&told)), "{events:#?}");
    site.engine.delete(Kind::HARDWARE, &found, "me").await.unwrap();
    let own = boots(&site, &[1], board).await.unwrap();
    assert!(own.machine == "rack1" && is_installed(&site, &own).await);
}

/// The true serial number, written down while a liar says it from a card of his own.
#[tokio::test]
async fn a_true_serial_number_makes_no_liar_right() {
    let site = Site::new().await;
    let board: Board<'_> = (Some("SN-A"), Some(0xa), None);
    writes(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    boots(&site, &[1], board).await.unwrap();
    site.engine.assign("a", assign(), "me").await.unwrap();
    let liar = boots(&site, &[9], (Some("SN-A"), None, None)).await.unwrap();
    assert!(!is_installed(&site, &liar).await && known(&site, "a").is_asked_about());
    writes(&site, "a", &format!("macs: ['{}'], serial: SN-A", mac(1))).await;
    if let Ok(liar) = boots(&site, &[9], (Some("SN-A"), None, None)).await {
        assert!(!is_installed(&site, &liar).await);
    }
    assert!(!known(&site, "a").spec.macs.contains(&mac(9)));
    let own = boots(&site, &[1], board).await.unwrap();
    assert!(own.machine == "a" && is_installed(&site, &own).await);
}

/// Whose steps make no plan is who could begin them: not an agent that only says that it is the machine.
#[tokio::test]
async fn a_run_is_refused_by_who_could_begin_it() {
    let site = Site::new().await;
    let board: Board<'_> = (Some("SN-A"), Some(0xa), None);
    let a = boots(&site, &[1], board).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let run = known(&site, &a).status.authorisation.clone().unwrap();
    let refused = |attempt| Report {
        workflow: run.workflow.clone(),
        attempt,
        generation: run.generation,
        what: ReportKind::Refused { failure: Failure::message("the disk is broken") },
    };
    let state = || site.engine.cache().get::<WorkflowSpec>(&run.workflow).unwrap().status.state;
    let liar = boots(&site, &[9], (None, Some(0xa), None)).await.unwrap();
    let heard = site.engine.report(liar.session.reveal(), refused(1)).await.unwrap();
    assert!(matches!(heard, Heard::Stop { .. }) && state() == RunState::Pending, "{heard:?}");

    let own = boots(&site, &[1], board).await.unwrap();
    assert!(is_installed(&site, &own).await);
    let began = Report { what: ReportKind::Began, ..refused(1) };
    assert_eq!(site.engine.report(own.session.reveal(), began).await.unwrap(), Heard::GoOn);
    let liar = boots(&site, &[9], (None, Some(0xa), None)).await;
    if let Ok(liar) = liar {
        let heard = site.engine.report(liar.session.reveal(), refused(1)).await.unwrap();
        assert!(matches!(heard, Heard::Stop { .. }) && state() == RunState::Running, "{heard:?}");
    }
    // It was restarted, and its disk is gone: the attempt that it is given next is the one that it refuses.
    let again = boots(&site, &[1], board).await.unwrap();
    assert!(is_installed(&site, &again).await);
    let late = site.engine.report(again.session.reveal(), refused(1)).await.unwrap();
    assert!(matches!(late, Heard::Stop { .. }) && state() == RunState::Running, "{late:?}");
    assert_eq!(site.engine.report(again.session.reveal(), refused(2)).await.unwrap(), Heard::GoOn);
    assert_eq!(state(), RunState::Failed);
}

/// A machine boots from its second card, which nobody wrote down, while a liar who knows its UUID has a session.
#[tokio::test]
async fn who_is_proven_by_board_and_named_card_takes_the_word() {
    let site = Site::new().await;
    let board: Board<'_> = (Some("SN-A"), Some(0xa), None);
    let a = boots(&site, &[1], board).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let liar = boots(&site, &[9], (None, Some(0xa), None)).await.unwrap();
    assert_eq!(liar.machine, a);
    for _ in 0..20 {
        let _ = boots_at_once(&site, &[9], (None, Some(0xa), None)).await;
    }
    let own = boots_at_once(&site, &[2, 1], board).await.unwrap();
    assert!(own.machine == a && is_installed(&site, &own).await);
}

/// A machine that a liar made to look like another one: what `why` says of the innocent one is not what has it wiped.
#[tokio::test]
async fn a_question_about_a_card_that_moved_is_put_as_that() {
    let site = Site::new().await;
    writes(&site, "a", &format!("macs: ['{}']", mac(1))).await;
    writes(&site, "b", &format!("macs: ['{}']", mac(2))).await;
    site.engine.assign("a", assign(), "me").await.unwrap();
    let board: Board<'_> = (Some("SN-B"), Some(0xb), None);
    boots(&site, &[1], board).await.unwrap();
    boots(&site, &[2], board).await.unwrap_err();
    let next = site.engine.why("b").unwrap().next;
    let release = next.iter().find(|next| next.starts_with("dragonfly release b")).unwrap();
    assert!(release.contains("taken out of it") && release.contains("loses it"), "{next:?}");
    assert!(next.iter().any(|next| next.contains("delete machine OTHER")), "{next:?}");
    // As that says: what is known of the other is wrong.
    site.engine.sweep().await.unwrap();
    assert!(known(&site, "b").conflict().is_some(), "it is known still");
    site.engine.abort("a", "me").await.unwrap();
    site.engine.delete(Kind::HARDWARE, "a", "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert!(known(&site, "b").conflict().is_none());
    assert_eq!(boots(&site, &[2], board).await.unwrap().machine, "b");
}

/// A board that is known, and protected, is not another machine for what was written of that one.
#[tokio::test]
async fn a_known_machine_gives_way_to_no_number_that_was_written_elsewhere() {
    let board: Board<'_> = (Some("SN-B"), Some(0xb), None);
    let site = Site::new().await;
    let b = boots(&site, &[2], board).await.unwrap().machine;
    site.engine.protect(&b, true, "me").await.unwrap();
    writes(&site, "w", &format!("macs: ['{}'], serial: SN-B", mac(1))).await;
    site.engine.assign("w", assign(), "me").await.unwrap();
    if let Ok(said) = boots(&site, &[1, 2], board).await {
        assert!(!is_installed(&site, &said).await, "{}", said.machine);
    }
    // One that registered itself with the number that was written for another: a person was asked, and has denied it.
    let site = Site::new().await;
    let n = boots(&site, &[1], board).await.unwrap().machine;
    writes(&site, "w", "serial: SN-B").await;
    site.engine.assign("w", assign(), "me").await.unwrap();
    boots(&site, &[1], board).await.unwrap_err();
    site.deny(&n, "me").await.unwrap();
    if let Ok(said) = boots(&site, &[2], board).await {
        assert!(!is_installed(&site, &said).await, "{}", said.machine);
    }
}

/// A UUID and an address go over the wire when a machine boots: from a card that is not its own they are not enough.
#[tokio::test]
async fn a_uuid_and_an_address_install_nobody() {
    let site = Site::new().await;
    let a = boots(&site, &[1], (None, Some(0xa), Some("P1"))).await.unwrap().machine;
    site.engine.assign(&a, assign(), "me").await.unwrap();
    for (cards, product) in [(&[9, 1][..], "P1"), (&[1], "P2")] {
        if let Ok(said) = boots(&site, cards, (None, Some(0xa), Some(product))).await {
            assert!(!is_installed(&site, &said).await, "{cards:?} {product}");
        }
    }
    site.deny(&a, "me").await.unwrap();
    let own = boots(&site, &[1], (None, Some(0xa), Some("P1"))).await.unwrap();
    assert!(own.machine == a && is_installed(&site, &own).await);
}

/// A person's word that a machine has another's card holds for its next boots, too.
#[tokio::test]
async fn a_card_of_another_that_was_accepted_is_asked_about_once() {
    let site = Site::new().await;
    let a = boots(&site, &[1], NONE).await.unwrap().machine;
    boots(&site, &[2], NONE).await.unwrap();
    site.engine.assign(&a, assign(), "me").await.unwrap();
    let doubted = boots(&site, &[1, 2], NONE).await.unwrap();
    assert!(!is_installed(&site, &doubted).await);
    site.release(&a, "me").await.unwrap();
    for _ in 0..3 {
        let own = boots(&site, &[1, 2], NONE).await.unwrap();
        assert!(own.machine == a && is_installed(&site, &own).await);
    }
}
