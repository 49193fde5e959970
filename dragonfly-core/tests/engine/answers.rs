//! What a person's answer is good for: the question that it was to, the agent and the machine that it was about, and no
//! longer than that is so. Each of these was done to the running program.

use super::truths::{Board, NONE, boots, boots_at_once, is_installed, known, writes};
use super::*;

const A: Board<'static> = (Some("SN-A"), Some(0xa), None);
const B: Board<'static> = (Some("SN-B"), Some(0xb), None);
const LIAR: Board<'static> = (Some("LIAR"), Some(0x666), None);

/// A machine that is to be installed, and has been seen once on its own board.
async fn planned(site: &Site, name: &str, card: u8, board: Board<'_>) {
    writes(site, name, &format!("macs: ['{}']", mac(card))).await;
    boots(site, &[card], board).await.unwrap();
    site.engine.assign(name, assign(), "me").await.unwrap();
}

/// Whether an agent with these cards and this board is given a plan to install, whatever machine it is taken for.
async fn is_wiped(site: &Site, cards: &[u8], board: Board<'_>) -> bool {
    match boots(site, cards, board).await {
        Ok(welcome) => is_installed(site, &welcome).await,
        Err(_) => false,
    }
}

fn question(site: &Site, name: &str) -> String {
    site.engine.why(name).unwrap().question.unwrap()
}

async fn deletes(site: &Site, name: &str) {
    let _ = site.engine.abort(name, "me").await;
    site.engine.delete(Kind::HARDWARE, name, "me").await.unwrap();
}

/// "Its card was moved" does not become "its board was replaced" when the machine that it was moved to is no more.
#[tokio::test]
async fn a_card_that_was_moved_brings_its_plan_to_no_other_board() {
    for what in ["deleted", "made anew", "has another board", "deleted and swept", "denied first"] {
        let site = Site::new().await;
        planned(&site, "a", 1, A).await;
        writes(&site, "b", &format!("macs: ['{}']", mac(2))).await;
        boots(&site, &[2], B).await.unwrap();
        boots(&site, &[1], B).await.unwrap_err();
        let asked = question(&site, "a");
        if what == "denied first" {
            site.deny("a", "me").await.unwrap();
        } else {
            site.engine.release_answering("a", &asked, "me").await.unwrap();
        }
        match what {
            "has another board" => {
                boots(&site, &[2], (Some("SN-B2"), Some(0xb2), None)).await.unwrap_err();
                site.release("b", "me").await.unwrap();
                boots(&site, &[2], (Some("SN-B2"), Some(0xb2), None)).await.unwrap();
            }
            _ => deletes(&site, "b").await,
        }
        match what {
            "made anew" => writes(&site, "b", &format!("macs: ['{}']", mac(2))).await,
            "deleted and swept" => site.engine.sweep().await.unwrap(),
            "denied first" => {
                // As `why` advised it before the other one was gone.
                let _ = site.engine.release_answering("a", &asked, "me").await;
            }
            _ => {}
        }
        assert!(!is_wiped(&site, &[1], B).await, "{what}: {:#?}", known(&site, "a").status);
        site.engine.sweep().await.unwrap();
        assert!(!is_wiped(&site, &[1], B).await, "{what}");
        // Its own board has its plan still, once what is asked by now was denied.
        if known(&site, "a").is_asked_about() {
            site.deny("a", "me").await.unwrap();
        }
        assert!(is_wiped(&site, &[1], A).await, "{what}: {:#?}", site.engine.why("a").unwrap().next);
    }
}

/// And "its board was replaced" does not become "its card was moved".
#[tokio::test]
async fn a_board_that_was_replaced_brings_no_card_to_another_machine() {
    let site = Site::new().await;
    planned(&site, "a", 1, A).await;
    let new = (Some("SN-C"), Some(0xc), None);
    boots(&site, &[1], new).await.unwrap_err();
    site.release("a", "me").await.unwrap();
    writes(&site, "c", &format!("macs: ['{}'], serial: SN-C", mac(3))).await;
    site.engine.assign("c", assign(), "me").await.unwrap();
    assert!(!is_wiped(&site, &[1], new).await);
    assert_eq!(known(&site, "a").spec.macs, [mac(1)]);
}

/// A board of another product is not the one that was asked about, with the same serial number.
#[tokio::test]
async fn an_answer_is_for_one_product() {
    let board = |serial, product| -> Board<'static> { (Some(serial), None, Some(product)) };
    for first in [true, false] {
        let site = Site::new().await;
        for (name, card) in [("a", 1), ("x", 2), ("y", 3)] {
            writes(&site, name, &format!("macs: ['{}']", mac(card))).await;
        }
        boots(&site, &[1], board("20000001", "PA")).await.unwrap();
        boots(&site, &[2], board("10000031", "P1")).await.unwrap();
        boots(&site, &[3], board("10000031", "P2")).await.unwrap();
        site.engine.assign("y", assign(), "me").await.unwrap();
        // Two who ask, with tokens that were made before either did.
        site.clock.advance(Duration::from_secs(40));
        let (older, newer) = (site.token(1).await.unwrap(), {
            site.clock.advance(Duration::from_secs(1));
            site.token(1).await.unwrap()
        });
        let says = async |token: &str, product: &str| {
            let mut said = hello(1);
            said.anchors = Anchors {
                macs: vec![mac(1)],
                serial: Some("10000031".into()),
                product: Some(product.into()),
                ..said.anchors
            };
            site.engine.hello(token, said, address(1)).await
        };
        says(&newer, "P1").await.unwrap_err();
        let asked = question(&site, "a");
        if first {
            says(&older, "P2").await.unwrap_err();
            assert_eq!(question(&site, "a"), asked, "what was read stands");
        }
        site.engine.release_answering("a", &asked, "me").await.unwrap();
        assert!(!is_wiped(&site, &[1], board("10000031", "P2")).await);
        assert_eq!(boots(&site, &[1], board("10000031", "P1")).await.unwrap().machine, "x");
    }
}

/// Where boards have no numbers it is said of the cards that were named.
#[tokio::test]
async fn an_answer_on_a_board_without_numbers_is_for_the_cards_that_were_named() {
    let site = Site::new().await;
    for (name, card) in [("a", 1), ("b", 2), ("c", 3)] {
        writes(&site, name, &format!("macs: ['{}']", mac(card))).await;
    }
    boots(&site, &[1], NONE).await.unwrap();
    site.engine.assign("a", assign(), "me").await.unwrap();
    assert!(!is_wiped(&site, &[1, 2], NONE).await);
    site.release("a", "me").await.unwrap();
    assert!(!is_wiped(&site, &[1, 3], NONE).await, "it names the card of a third");
    // That is asked now; once it was denied the other asks again.
    site.deny("a", "me").await.unwrap();
    site.clock.advance(Duration::from_secs(16 * 60));
    assert!(!is_wiped(&site, &[1, 2], NONE).await);
    site.release("a", "me").await.unwrap();
    assert!(is_wiped(&site, &[1, 2], NONE).await);

    // What it was without in between it may not name again.
    let site = Site::new().await;
    for (name, card) in [("a", 1), ("b", 2)] {
        writes(&site, name, &format!("macs: ['{}']", mac(card))).await;
    }
    boots(&site, &[1], NONE).await.unwrap();
    site.engine.assign("a", assign(), "me").await.unwrap();
    assert!(!is_wiped(&site, &[1, 2], NONE).await);
    site.release("a", "me").await.unwrap();
    boots(&site, &[1, 2], NONE).await.unwrap();
    boots(&site, &[1], NONE).await.unwrap();
    assert!(!is_wiped(&site, &[1, 2], NONE).await, "its card is in the other machine now");
}

/// A machine that is made anew under a name is another one.
#[tokio::test]
async fn an_answer_is_for_one_machine_of_a_name() {
    let site = Site::new().await;
    planned(&site, "a", 1, A).await;
    boots(&site, &[1], LIAR).await.unwrap_err();
    let asked = question(&site, "a");
    deletes(&site, "a").await;
    planned(&site, "a", 1, A).await;
    boots(&site, &[1], LIAR).await.unwrap_err();
    site.engine.release_answering("a", &asked, "me").await.unwrap_err();
    assert!(!is_wiped(&site, &[1], LIAR).await);
}

/// What nobody has used is not kept for years, and not past what contradicts it.
#[tokio::test]
async fn an_answer_that_is_not_used_is_past() {
    for past in ["its own agent has asked", "a day", "spec.serial says otherwise"] {
        let site = Site::new().await;
        planned(&site, "a", 1, A).await;
        boots(&site, &[1], LIAR).await.unwrap_err();
        site.release("a", "me").await.unwrap();
        let next = site.engine.why("a").unwrap().next;
        assert!(next.iter().any(|next| next.contains("takes back that a person has said yes")), "{next:?}");
        match past {
            "a day" => {
                site.clock.advance(Duration::from_secs(25 * 3600));
                site.engine.sweep().await.unwrap();
                site.engine.assign("a", assign(), "me").await.unwrap();
            }
            "spec.serial says otherwise" => writes(&site, "a", &format!("macs: ['{}'], serial: SN-A", mac(1))).await,
            _ => drop(boots(&site, &[1], A).await.unwrap()),
        }
        assert!(!is_wiped(&site, &[1], LIAR).await, "{past}");
        assert!(!is_wiped(&site, &[1], (None, Some(0x666), None)).await, "{past}");
    }
}

/// Also one that takes back what was answered long ago.
#[tokio::test]
async fn an_answer_counts_from_when_it_was_given() {
    let site = Site::new().await;
    planned(&site, "a", 1, A).await;
    boots(&site, &[1], LIAR).await.unwrap_err();
    site.deny("a", "me").await.unwrap();
    site.clock.advance(Duration::from_secs(25 * 3600));
    site.release("a", "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    site.engine.assign("a", assign(), "me").await.unwrap();
    assert!(is_wiped(&site, &[1], LIAR).await, "a person has just said so");
}

/// Whoever was denied and talks on keeps nobody out, whatever is asked or written since.
#[tokio::test]
async fn who_was_denied_keeps_nobody_out_by_talking_on() {
    let liar = (Some("LIAR"), Some(0xa), None);
    for since in ["nothing", "another asks", "an edit", "a restart"] {
        let mut site = Site::new().await;
        planned(&site, "a", 1, A).await;
        let key = boots(&site, &[1], liar).await.unwrap();
        assert!(!is_installed(&site, &key).await);
        site.deny("a", "me").await.unwrap();
        let talks = async |site: &Site, times: usize| {
            for _ in 0..times {
                site.clock.advance(Duration::from_secs(20));
                assert!(site.engine.work(key.session.reveal(), Ask { wait_seconds: 0 }).await.is_err());
            }
        };
        talks(&site, 3).await;
        match since {
            "another asks" => {
                talks(&site, 50).await;
                boots_at_once(&site, &[1], LIAR).await.unwrap_err();
                site.deny("a", "me").await.unwrap();
            }
            "an edit" => writes(&site, "a", &format!("macs: ['{}', '{}']", mac(1), mac(7))).await,
            "a restart" => site = site.restarted().await,
            _ => {
                for _ in 0..2 {
                    site.clock.advance(Duration::from_secs(20));
                    let refused = boots_at_once(&site, &[1], liar).await.unwrap_err();
                    assert!(refused.contains("a person has denied"), "{refused}");
                }
            }
        }
        talks(&site, 3).await;
        assert!(!site.engine.why("a").unwrap().next.iter().any(|next| next.contains("its agent is up")), "{since}");
        site.clock.advance(Duration::from_secs(1));
        let own = boots_at_once(&site, &[1], A).await.unwrap();
        assert!(own.machine == "a" && is_installed(&site, &own).await, "{since}");
    }
}

/// Nor is it undone by writing down the same cards in another order.
#[tokio::test]
async fn a_denial_outlives_the_order_of_cards() {
    let site = Site::new().await;
    writes(&site, "a", &format!("macs: ['{}', '{}']", mac(1), mac(7))).await;
    boots(&site, &[1], A).await.unwrap();
    boots(&site, &[1], LIAR).await.unwrap_err();
    site.deny("a", "me").await.unwrap();
    writes(&site, "a", &format!("macs: ['{}', '{}']", mac(7), mac(1))).await;
    let _ = boots(&site, &[1], LIAR).await;
    assert!(known(&site, "a").conflict().is_none() && !known(&site, "a").is_asked_about());
}

/// What holds a machine and what is asked about it are answered one by one, as `why` says.
#[tokio::test]
async fn a_machine_that_is_held_and_asked_about_gets_on_as_why_says() {
    let site = Site::new().await;
    planned(&site, "a", 1, A).await;
    // It falls over again and again, and then has another board.
    let mut token = None;
    for _ in 0..6 {
        site.clock.advance(Duration::from_secs(40));
        let Ok(welcome) = boots(&site, &[1], A).await else { break };
        token = site.token(1).await;
        let Ok(Orders::Execute(work)) = site.engine.work(welcome.session.reveal(), Ask { wait_seconds: 0 }).await
        else {
            break;
        };
        let began = dragonfly_core::wire::Report {
            workflow: work.workflow.clone(),
            attempt: work.attempt,
            generation: work.permit.generation,
            what: ReportKind::Began,
        };
        site.engine.report(welcome.session.reveal(), began).await.unwrap();
    }
    assert_eq!(known(&site, "a").status.phase, Some(Phase::Held));
    site.clock.advance(Duration::from_secs(40));
    let new: Board<'_> = (Some("SN-NEW"), Some(0x9), None);
    let mut said = hello(1);
    said.anchors = Anchors {
        macs: vec![mac(1)],
        serial: Some("SN-NEW".into()),
        smbios_uuid: Some(uuid::Uuid::from_u128(9)),
        product: None,
    };
    site.engine.hello(&token.unwrap(), said, address(1)).await.unwrap_err();
    let next = site.engine.why("a").unwrap().next;
    assert!(next.contains(&"dragonfly release a".to_owned()), "{next:?}");
    let yes = format!("dragonfly release a --question {}, if", question(&site, "a"));
    assert!(next.iter().any(|next| next.starts_with(&yes)), "{next:?}");
    assert!(!next.iter().any(|next| next.starts_with("dragonfly abort")), "there is nothing to abort: {next:?}");
    site.engine.release_answering("a", &question(&site, "a"), "me").await.unwrap();
    site.engine.release("a", "me").await.unwrap();
    site.engine.assign("a", assign(), "me").await.unwrap();
    assert!(is_wiped(&site, &[1], new).await);
}

/// What a person wrote down is to be said, not only not contradicted.
#[tokio::test]
async fn a_serial_number_that_was_written_is_asked_for() {
    for board in [NONE, (Some("Default string"), Some(0x5), None)] {
        let site = Site::new().await;
        writes(&site, "a", &format!("macs: ['{}'], serial: SN-A", mac(1))).await;
        site.engine.assign("a", assign(), "me").await.unwrap();
        assert!(!is_wiped(&site, &[1], board).await, "{board:?}");
        let why = site.engine.why("a").unwrap();
        let told = why.conditions.iter().any(|c| c.message.contains("no serial number, and spec.serial says SN-A"));
        assert!(told && why.next[0].starts_with("put spec.serial right"), "{why:#?}");
        // As it says.
        writes(&site, "a", &format!("macs: ['{}']", mac(1))).await;
        assert!(is_wiped(&site, &[1], board).await, "{board:?}");
    }
}

/// Whose session has ended reports nothing any more, but once more what was said already.
#[tokio::test]
async fn an_agent_that_has_left_reports_nothing() {
    let site = Site::new().await;
    planned(&site, "a", 1, A).await;
    let agent = boots(&site, &[1], A).await.unwrap();
    let key = agent.session.reveal().to_owned();
    let Ok(Orders::Execute(work)) = site.engine.work(&key, Ask { wait_seconds: 0 }).await else { panic!("no order") };
    let say = async |workflow: &str, attempt, generation, what| {
        let report = dragonfly_core::wire::Report { workflow: workflow.to_owned(), attempt, generation, what };
        site.engine.report(&key, report).await.unwrap()
    };
    let (run, generation) = (work.workflow.clone(), work.permit.generation);
    assert_eq!(say(&run, 1, generation, ReportKind::Began).await, Heard::GoOn);
    for index in 0..work.steps.len() {
        for event in [StepEvent::Began, StepEvent::Succeeded] {
            let step = ReportKind::Step { index, event, progress: None, failure: None };
            assert_eq!(say(&run, 1, generation, step).await, Heard::GoOn);
        }
    }
    assert_eq!(say(&run, 1, generation, ReportKind::HandOver).await, Heard::GoOn);
    assert_eq!(say(&run, 1, generation, ReportKind::HandOver).await, Heard::GoOn, "its answer was lost");
    let request = dragonfly_core::engine::ReimageRequest { overwrite: Some(Overwrite::All), ..Default::default() };
    let anew = site.engine.reimage("a", request, "me").await.unwrap();
    let generation = known(&site, "a").status.authorisation.as_ref().unwrap().generation;
    let refused = ReportKind::Refused { failure: dragonfly_core::wire::Failure::message("no disk") };
    for what in [ReportKind::Began, refused, ReportKind::HandOver] {
        let heard = say(anew.name(), 1, generation, what.clone()).await;
        assert!(matches!(heard, Heard::Stop { .. }), "{what:?}: {heard:?}");
    }
    assert_eq!(known(&site, "a").status.phase, Some(Phase::Assigned));
    assert!(known(&site, "a").status.authorisation.as_ref().unwrap().used_at.is_none());
}

/// No card stands on two machines: not of one text, not of two, not while a machine registers itself.
#[tokio::test]
async fn a_card_is_written_down_once() {
    let manifest = |name: &str| {
        format!(
            "---\n{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{macs: ['{}']}}}}\n",
            mac(1)
        )
    };
    let site = Site::new().await;
    let both = site.engine.apply(&(manifest("a") + &manifest("b")), "me").await;
    assert!(both.unwrap_err().to_string().contains("belongs to"), "of one text");
    assert_eq!(site.engine.machines().len(), 1);
    // At once.
    for _ in 0..20 {
        let site = Site::new().await;
        let token = site.token(1).await.unwrap();
        let (one, other) = (manifest("a"), manifest("b"));
        let _ = tokio::join!(
            site.engine.apply(&one, "me"),
            site.engine.hello(&token, hello(1), address(1)),
            site.engine.apply(&other, "me"),
        );
        assert_eq!(site.engine.machines().len(), 1);
        assert!(site.token(1).await.is_some(), "it boots");
    }
}

/// Where several servers wrote at once it may stand on two: that is told with its way out.
#[tokio::test]
async fn a_card_on_two_machines_is_told_with_the_way_out() {
    let site = Site::new().await;
    for name in ["a", "b"] {
        let machine = dragonfly_core::resource::Hardware::new(
            name,
            HardwareSpec { macs: vec![mac(1)], ..HardwareSpec::default() },
        );
        site.store.create(&machine).await.unwrap();
    }
    site.engine.cache().load(&*site.store).await.unwrap();
    for word in ["a", "b", &mac(1).to_string()] {
        let why = site.engine.why(word).unwrap();
        let way_out = format!("{} stands on a and b", mac(1));
        assert!(why.next[0].starts_with(&way_out), "{word}: {:?}", why.next);
        assert!(why.decision.reason.contains("belongs to 2 machines"), "{word}: {}", why.decision.reason);
    }
    deletes(&site, "b").await;
    assert_eq!(site.engine.why("a").unwrap().next, ["boot it from the network"]);
}

#[tokio::test]
async fn an_address_that_no_card_has_gets_no_token() {
    let site = Site::new().await;
    for octets in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let request =
            BootRequest { from: Some(address(1)), to: Some(server()), ..BootRequest::from_mac(Mac::new(octets)) };
        assert!(site.engine.identity(&request).await.unwrap().is_none(), "{octets:?}");
    }
    assert!(site.engine.machines().is_empty());
}
