//! Cards that move and serial numbers that are wrong: what a person is told to do about them ends the conflict.

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

#[tokio::test]
async fn a_card_that_was_moved_is_the_other_machines_once_a_person_says_so() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    let refused = says(&site, 2, &[], "SN-A1").await.unwrap_err();
    assert!(refused.contains(&format!("dragonfly release {b} if its card was moved to {a}")), "{refused}");
    assert_eq!(site.fate(2), "hold", "nobody is believed before that");

    site.engine.release(&b, "me").await.unwrap();
    assert_eq!(says(&site, 2, &[], "SN-A1").await, Ok(a.clone()));
    assert_eq!(site.engine.resolve(&mac(2).to_string()).unwrap(), a, "its card is looked for there from now on");
    assert_eq!(says(&site, 1, &[2], "SN-A1").await, Ok(a.clone()), "with both cards");
    // The other is known by its board, with a card of its own.
    assert_eq!(says(&site, 3, &[], "SN-B1").await, Ok(b.clone()));
    assert_eq!(site.engine.machines().len(), 2);

    // That was said for one move.
    let refused = says(&site, 3, &[], "SN-A1").await.unwrap_err();
    assert!(refused.contains("conflict"), "{refused}");
}

#[tokio::test]
async fn a_card_is_moved_by_an_agent_that_is_welcomed() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    says(&site, 2, &[], "SN-A1").await.unwrap_err();
    site.engine.release(&b, "me").await.unwrap();
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
    site.engine.release(&b, "me").await.unwrap();
    assert_eq!(says(&site, 2, &[], "SN-B1").await, Ok(b.clone()));
    // Whoever was believed has used up what the person said.
    says(&site, 2, &[], "SN-A1").await.unwrap_err();
    assert_eq!(says(&site, 1, &[], "SN-A1").await, Ok(a));
}

#[tokio::test]
async fn cards_of_two_machines_on_a_third_ask_for_a_decision_that_can_be_made() {
    let site = Site::new().await;
    let a = says(&site, 1, &[], "SN-A1").await.unwrap();
    let b = says(&site, 2, &[], "SN-B1").await.unwrap();
    let refused = says(&site, 3, &[1, 2], "SN-C1").await.unwrap_err();
    assert!(refused.contains("take the addresses from all but one"), "{refused}");
    // As it says.
    let edited = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {b}}}, spec: {{macs: ['{}']}}}}",
        mac(9)
    );
    site.engine.apply(&edited, "me").await.unwrap();
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
    assert!(refused.contains("correct spec.serial"), "{refused}");
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
