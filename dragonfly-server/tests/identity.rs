//! Somebody else on a machine's network who says that he is the machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use common::{Bench, MAC, NAME, bench, hello, hello_of, text};
use dragonfly_core::Mac;
use dragonfly_core::event::Event;
use serde_json::{Value, json};
use uuid::Uuid;

const HELLO: &str = "/dragonfly/v1/agent/hello";

const MARK: &str = "marked-secret-5f1d";

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: root }
spec: { data: { password: marked-secret-5f1d } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: secretive }
spec:
  values: { password: { valueFrom: { secretRef: { name: root, key: password } } } }
  actions:
    - name: password
      action: writefile
      with: { target: { label: root }, path: /root/password, content: '{{ values.password }}' }
";

/// Sends it, and holds that the answer tells nothing of the secret.
async fn send(bench: &Bench, request: Request<Body>) -> (StatusCode, String) {
    let response = bench.send(request).await;
    let (status, headers) = (response.status(), format!("{:?}", response.headers()));
    let body = text(response).await;
    assert!(!body.contains(MARK) && !headers.contains(MARK), "{headers} {body}");
    (status, body)
}

fn post(path: &str, bearer: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(Method::POST).uri(path);
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    common::with_json(request, Some(body.clone()))
}

fn said_hello(mac: &str) -> Value {
    serde_json::to_value(hello_of(mac.parse::<Mac>().unwrap())).unwrap()
}

/// Events so far, as text.
fn told(bench: &Bench) -> String {
    let events = bench.app.engine.events().subscribe(Some(0)).replay;
    let told = format!("{events:?}");
    assert!(!told.contains(MARK), "{told}");
    told
}

/// How often so far the machine's timeline says that an agent was refused, and how often an event says that its
/// identity was in dispute.
async fn refusals(bench: &Bench) -> (u64, usize) {
    let (status, timeline) = bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{NAME}/timeline"), None).await;
    assert_eq!(status, StatusCode::OK);
    let items = timeline["items"].as_array().unwrap().iter().filter(|item| item["type"] == "agent.refused");
    // What happens several times in a row is one item.
    let times = items.map(|item| item["times"].as_u64().unwrap_or(1)).sum();
    let events = bench.app.engine.events().subscribe(Some(0)).replay;
    let of_it =
        |event: &&std::sync::Arc<Event>| event.kind == "identity.refused" && event.machine.as_deref() == Some(NAME);
    (times, events.iter().filter(of_it).count())
}

/// Says hello as this machine, is refused, and is told of: once more on its timeline, and by an event.
async fn refused(bench: &Bench, token: Option<&str>, want: StatusCode) {
    let before = refusals(bench).await;
    let (status, answer) = send(bench, post(HELLO, token, &said_hello(MAC))).await;
    assert_eq!(status, want, "{token:?}: {answer}");
    let after = refusals(bench).await;
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{token:?}, {want}: {}", told(bench));
}

#[tokio::test]
async fn who_answers_to_a_machines_mac_learns_nothing_of_its_secrets() {
    let bench = bench().await;
    bench.app.engine.apply(SETUP, "test").await.unwrap();
    let first = bench.boot_token().await.reveal().to_owned();
    let (status, welcome) = {
        let response = bench.send(post(HELLO, Some(&first), &serde_json::to_value(hello()).unwrap())).await;
        (response.status(), common::welcome(&text(response).await))
    };
    assert_eq!(status, StatusCode::OK);
    let session = welcome.session.reveal();
    let assign = format!("/dragonfly/v1/machines/{NAME}/assign");
    let (status, run) = bench.admin(Method::POST, &assign, Some(json!({ "template": "secretive" }))).await;
    assert_eq!(status, StatusCode::CREATED, "{run}");

    // The machine itself is told: what follows is no vacuous truth.
    let orders = bench.send(post("/dragonfly/v1/agent/work", Some(session), &json!({ "waitSeconds": 0 }))).await;
    let orders = text(orders).await;
    assert!(orders.contains(MARK), "{orders}");
    let orders = serde_json::from_str::<Value>(&orders).unwrap();
    let run = orders["workflow"].as_str().unwrap().to_owned();
    let generation = orders["permit"]["generation"].as_u64().unwrap();

    // Without a token, with one that is nobody's, with the one that was used.
    for (token, want) in [
        (None, StatusCode::FORBIDDEN),
        (Some("guess"), StatusCode::FORBIDDEN),
        (Some(first.as_str()), StatusCode::CONFLICT),
    ] {
        refused(&bench, token, want).await;
    }
    // A script that he fetched for himself, and the identity that it names, while the machine's agent lives.
    let (status, script) =
        send(&bench, Request::builder().uri(format!("/boot/{MAC}")).body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{script}");
    bench.clock.advance(Duration::from_secs(5));
    let own = bench.boot_token().await;
    refused(&bench, Some(own.reveal()), StatusCode::CONFLICT).await;
    assert!(told(&bench).contains("a second agent asked"), "{}", told(&bench));

    // His own machine's session, for this machine's work.
    let other = bench.session_of("52:54:00:ab:cd:02".parse().unwrap()).await.reveal().to_owned();
    let (status, answer) =
        send(&bench, post("/dragonfly/v1/agent/work", Some(&other), &json!({ "waitSeconds": 0 }))).await;
    assert_eq!((status, answer.contains("\"wait\"")), (StatusCode::OK, true), "{answer}");
    for report in ["began", "handOver"] {
        let body = json!({ "workflow": run, "attempt": 1, "generation": generation, "report": report });
        let (_, answer) = send(&bench, post("/dragonfly/v1/agent/report", Some(&other), &body)).await;
        assert!(answer.contains("stop"), "{report}: {answer}");
    }
    let (status, _) = send(&bench, post("/dragonfly/v1/agent/log?offset=0", Some(&other), &json!("forged"))).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "into his own log");
    assert_eq!(bench.app.engine.read_log(NAME).await.unwrap(), "");

    // His machine's token, for this machine's card.
    let his = bench.token_of("52:54:00:ab:cd:04".parse().unwrap()).await;
    refused(&bench, Some(his.reveal()), StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn a_used_token_stays_used_when_its_agent_is_gone() {
    let bench = bench().await;
    let token = bench.boot_token().await.reveal().to_owned();
    assert_eq!(send(&bench, post(HELLO, Some(&token), &said_hello(MAC))).await.0, StatusCode::OK);
    // Silent for so long that another agent may speak for the machine.
    bench.clock.advance(Duration::from_secs(60));
    refused(&bench, Some(&token), StatusCode::FORBIDDEN).await;
    assert!(told(&bench).contains("a boot token was used a second time"), "{}", told(&bench));
    bench.clock.advance(Duration::from_secs(11 * 60));
    refused(&bench, Some(&token), StatusCode::FORBIDDEN).await;
    assert!(told(&bench).contains("without a good boot token: the boot token is older"), "{}", told(&bench));
}

/// Neither what is wrong with a token nor which cards there are is told to whoever has no good one.
#[tokio::test]
async fn a_hello_without_a_good_token_is_answered_the_same_whatever_it_names() {
    let bench = bench().await;
    bench.session().await;
    let (unknown, his) = ("52:54:00:ab:cd:07", "52:54:00:ab:cd:04");
    let old = bench.boot_token().await.reveal().to_owned();
    bench.clock.advance(Duration::from_secs(11 * 60));
    let his = bench.token_of(his.parse().unwrap()).await.reveal().to_owned();
    let mut answers = Vec::new();
    for card in [MAC, unknown] {
        for token in [None, Some("guess"), Some(old.as_str()), Some(his.as_str())] {
            let response = bench.send(post(HELLO, token, &said_hello(card))).await;
            answers.push((response.status(), format!("{:?}", response.headers()), text(response).await));
        }
    }
    assert_eq!(answers[0].0, StatusCode::FORBIDDEN);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    let told = told(&bench);
    assert_eq!(told.matches("identity.refused").count(), 4, "of the card that is a machine's: {told}");
}

#[tokio::test]
async fn whoever_has_no_token_floods_no_events_and_keeps_nobody_out() {
    let bench = bench().await;
    bench.session().await;
    let before = refusals(&bench).await;
    for _ in 0..500 {
        assert_eq!(send(&bench, post(HELLO, None, &said_hello(MAC))).await.0, StatusCode::FORBIDDEN);
    }
    let after = refusals(&bench).await;
    assert_eq!(after, (before.0 + 500, before.1 + 5), "each stands on the timeline, and few are events");
    // The machine itself is heard, though as many hellos were said in its name as are heard of it.
    bench.clock.advance(Duration::from_secs(40));
    let token = bench.boot_token().await.reveal().to_owned();
    let (status, answer) = send(&bench, post(HELLO, Some(&token), &said_hello(MAC))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// What a person read is answered, by a program and on the page, and not what is asked by the time the answer comes.
#[tokio::test]
async fn an_answer_names_its_question() {
    let bench = bench().await;
    for (serial, uuid, want) in [("SN-OWN", 1, StatusCode::OK), ("SN-OTHER", 2, StatusCode::CONFLICT)] {
        bench.clock.advance(Duration::from_secs(40));
        let (token, mut says) = (bench.boot_token().await, hello());
        (says.anchors.serial, says.anchors.smbios_uuid) = (Some(serial.to_owned()), Some(Uuid::from_u128(uuid)));
        let (status, answer) =
            send(&bench, post(HELLO, Some(token.reveal()), &serde_json::to_value(says).unwrap())).await;
        assert_eq!(status, want, "{answer}");
    }
    let api = format!("/dragonfly/v1/machines/{NAME}");
    let (_, why) = bench.admin(Method::GET, &format!("{api}/why"), None).await;
    let question = why["question"].as_str().unwrap();
    let advice = format!("dragonfly release {NAME} --question {question}, if it is who boots from {MAC}");
    assert!(why["next"][0].as_str().unwrap().starts_with(&advice), "{why}");

    let form = |verb: &str, body: String| {
        let request = Request::builder().method(Method::POST).uri(format!("/machines/{NAME}/{verb}"));
        let request = request.header("cookie", bench.cookie()).header("origin", "https://10.9.0.1:3000");
        let request = request.header("host", "10.9.0.1:3000");
        request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(body)).unwrap()
    };
    let another = "0123456789abcdef";
    for verb in ["release", "deny"] {
        let (status, problem) =
            bench.admin(Method::POST, &format!("{api}/{verb}?question={another}"), Some(json!({}))).await;
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("has changed since you looked"), "{problem}");
        let (status, _) = bench.admin(Method::POST, &format!("{api}/{verb}?questoin={question}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "a misspelt precondition is none");
        let (status, page) = send(&bench, form(verb, format!("question={another}"))).await;
        assert!(status == StatusCode::CONFLICT && page.contains("has changed since you looked"), "{status} {page}");
    }
    let (_, still) = bench.admin(Method::GET, &format!("{api}/why"), None).await;
    assert_eq!((&still["question"], &still["conditions"]), (&why["question"], &why["conditions"]));

    let page = Request::builder().uri(format!("/machines/{NAME}")).header("cookie", bench.cookie());
    let (_, page) = send(&bench, page.body(Body::empty()).unwrap()).await;
    let field = format!("<input type=\"hidden\" name=\"question\" value=\"{question}\">");
    assert_eq!(page.matches(&field).count(), 2, "one for yes, one for no");
    let (status, _) = send(&bench, form("deny", format!("question={question}"))).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let (status, _) = bench.admin(Method::POST, &format!("{api}/release?question={question}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
