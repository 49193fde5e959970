//! What a stranger says of himself installs no innocent machine, and takes nothing from one: each of these was done to
//! the running program.

use uuid::Uuid;

use super::*;

struct Board(Option<&'static str>, Option<u128>);
const NONE: Board = Board(None, None);

/// An agent that booted from the first of these cards. Its machine, and whether it is told to install it.
async fn speaks(site: &Site, cards: &[u8], board: &Board) -> Result<(String, bool), String> {
    site.clock.advance(Duration::from_secs(40));
    speaks_at_once(site, cards, board).await
}

async fn speaks_at_once(site: &Site, cards: &[u8], board: &Board) -> Result<(String, bool), String> {
    let token = site.token(cards[0]).await.ok_or_else(|| format!("no identity: {}", site.fate(cards[0])))?;
    let mut said = hello(cards[0]);
    said.anchors.macs = cards.iter().map(|n| mac(*n)).collect();
    said.anchors.serial = board.0.map(str::to_owned);
    said.anchors.smbios_uuid = board.1.map(Uuid::from_u128);
    let welcome = site.engine.hello(&token, said, address(cards[0])).await.map_err(|error| error.to_string())?;
    let orders = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await.unwrap();
    Ok((welcome.machine, matches!(orders, Orders::Execute(_))))
}

async fn write_down(site: &Site, name: &str, spec: &str) {
    let text =
        format!("{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{{spec}}}}}");
    site.engine.apply(&text, "me").await.unwrap();
}

/// He names the card of a machine that nobody has seen, from a card of a third; then that third one boots.
#[tokio::test]
async fn naming_a_card_proves_nothing() {
    let site = Site::new().await;
    write_down(&site, "db-1", &format!("macs: ['{}']", mac(1))).await;
    site.engine.assign("db-1", assign(), "me").await.unwrap();
    let refused = speaks(&site, &[7, 1], &NONE).await.unwrap_err();
    assert!(refused.contains("identity in conflict"), "{refused}");
    let third = speaks(&site, &[7], &Board(Some("SN-X"), Some(0xee))).await.unwrap();
    assert!(third.0 != "db-1" && !third.1, "{third:?}");
    assert_eq!(speaks(&site, &[1], &Board(Some("SN-1"), Some(1))).await, Ok(("db-1".to_owned(), true)));
}

/// After a person has settled a conflict, who comes first with a card of nobody's is not believed for it.
#[tokio::test]
async fn what_a_person_settles_is_for_a_card_of_the_machine() {
    let site = Site::new().await;
    let own = Board(Some("SN-1"), Some(1));
    let name = speaks(&site, &[1], &own).await.unwrap().0;
    speaks(&site, &[1], &Board(Some("SN-NEW"), Some(2))).await.unwrap_err();
    site.release(&name, "me").await.unwrap();
    site.engine.assign(&name, assign(), "me").await.unwrap();
    speaks(&site, &[7, 1], &NONE).await.unwrap_err();
    let third = speaks(&site, &[7], &Board(Some("SN-X"), Some(0xee))).await.unwrap();
    assert!(third.0 != name && !third.1, "{third:?}");
    assert_eq!(speaks(&site, &[1], &Board(Some("SN-NEW"), Some(2))).await, Ok((name, true)), "whom it was said of");
}

/// He says the serial number by which a machine is written down, from a card of a third, which has no number.
#[tokio::test]
async fn a_serial_number_that_was_said_once_does_not_vouch_for_the_next() {
    let site = Site::new().await;
    write_down(&site, "db-s", "serial: SN-S").await;
    site.engine.assign("db-s", assign(), "me").await.unwrap();
    speaks(&site, &[7], &Board(Some("SN-S"), None)).await.unwrap();
    let third = speaks(&site, &[7], &Board(Some("Default string"), None)).await;
    assert!(third.as_ref().is_err() || !third.as_ref().unwrap().1, "{third:?}");
}

/// A person corrects what is written down of a machine: its old agent is asked about.
#[tokio::test]
async fn a_correction_counts_for_the_agent_that_is_there() {
    for (spec, board) in [("serial: SN-RIGHT", "SN-WRONG"), ("serial: SN-33", "SN-3")] {
        let site = Site::new().await;
        write_down(&site, "db", &format!("macs: ['{}']", mac(3))).await;
        let own = Board(Some(board), Some(3));
        assert_eq!(speaks(&site, &[3], &own).await.unwrap().0, "db");
        write_down(&site, "db", &format!("macs: ['{}'], {spec}", mac(3))).await;
        site.engine.assign("db", assign(), "me").await.unwrap();
        let said = speaks(&site, &[3], &own).await;
        assert!(said.is_err() || !said.as_ref().unwrap().1, "{spec}: {said:?}");
    }
    // Another card is written down in place of the one that it booted from.
    let site = Site::new().await;
    write_down(&site, "db", &format!("macs: ['{}']", mac(3))).await;
    let own = Board(Some("SN-3"), Some(3));
    speaks(&site, &[3], &own).await.unwrap();
    write_down(&site, "db", &format!("macs: ['{}']", mac(33))).await;
    site.engine.assign("db", assign(), "me").await.unwrap();
    let said = speaks(&site, &[3], &own).await;
    assert!(said.is_err() || !said.as_ref().unwrap().1, "{said:?}");
}

/// He names a hundred cards: none of them is his, nor has his fate; and of a Ready machine's nothing comes to him.
#[tokio::test]
async fn cards_that_are_named_are_nobodys() {
    let site = Site::new().await;
    let mut said = hello(7);
    said.anchors.macs = (7..70).map(mac).collect();
    said.existing_os = Some(dragonfly_core::resource::hardware::ExistingOs {
        name: "Debian".into(),
        disk: "sda".into(),
        evidence: "os-release".into(),
    });
    let token = site.token(7).await.unwrap();
    site.engine.hello(&token, said, address(7)).await.unwrap();
    assert_eq!(site.fate(8), "discover");
    write_down(&site, "db-8", &format!("macs: ['{}']", mac(8))).await;
    assert_eq!(
        speaks(&site, &[9], &Board(Some("SN-9"), Some(9))).await.unwrap().0,
        site.engine.resolve(&mac(9).to_string()).unwrap()
    );
}

/// He names the card of a machine that is known by one number or none, and waits for its next installation.
#[tokio::test]
async fn a_known_machine_is_not_taken_by_naming_its_card() {
    for board in [Board(Some("SN-E"), Some(5)), Board(Some("SN-E"), None), Board(None, Some(5)), NONE] {
        let site = Site::new().await;
        let name = speaks(&site, &[1], &board).await.unwrap().0;
        site.engine.assign(&name, assign(), "me").await.unwrap();
        let stranger = speaks(&site, &[7, 1], &NONE).await;
        assert!(stranger.is_err(), "{stranger:?}");
        assert_eq!(speaks_at_once(&site, &[1], &board).await, Ok((name, true)), "it is itself all the while");
    }
}

/// Whoever shows used tokens again and again keeps nobody out who has a new one, and fills no log.
#[tokio::test]
async fn used_tokens_use_up_nothing() {
    let site = Site::new().await;
    let used = site.token(1).await.unwrap();
    let say = async |token: &str, board: &Board| {
        let mut said = hello(1);
        said.anchors.serial = board.0.map(str::to_owned);
        said.anchors.smbios_uuid = board.1.map(Uuid::from_u128);
        site.engine.hello(token, said, address(1)).await
    };
    let own = Board(Some("SN-1"), Some(1));
    let name = say(&used, &own).await.unwrap().machine;
    site.clock.advance(Duration::from_secs(40));
    let token = site.token(1).await.unwrap();
    for _ in 0..100 {
        for board in [&own, &Board(Some("SN-X"), Some(2)), &NONE] {
            let refused = say(&used, board).await.unwrap_err();
            assert!(matches!(refused, EngineError::Forbidden { .. }), "{refused}");
        }
    }
    let events = site.engine.events().subscribe(Some(0)).replay;
    let told = events.iter().filter(|event| event.kind == "identity.refused").count();
    assert!((1..=10).contains(&told), "{told}");
    assert_eq!(site.fate(1), "discover", "it is not held for what a used token says");
    assert_eq!(say(&token, &own).await.unwrap().machine, name);
}
