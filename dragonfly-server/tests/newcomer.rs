//! What somebody meets who does it for the first time: misspelt names, unset values, missing images and
//! interfaces, guessed addresses. Each is told with what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use common::{Bench, NAME, TOKEN, bench, text};
use dragonfly_core::resource::network::SERVED;
use dragonfly_core::resource::{NetworkSpec, condition};
use serde_json::{Value, json};

const GREETING: &str = "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: greeting }
spec:
  description: <script>alert(1)</script>
  values: { motd: welcome }
  actions:
    - name: image
      action: image2disk
      with:
        disk: { smallest: true }
        url: /images/smal.raw
        digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
    - name: motd
      action: writefile
      with: { target: { label: root }, path: /etc/motd, content: '{{ values.motd }} {{ values.user }}' }
---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-1 }
spec: { macs: ['52:54:00:ab:cd:07'] }
";

async fn post(bench: &Bench, machine: &str, verb: &str, body: Value) -> (StatusCode, String) {
    let path = format!("/dragonfly/v1/machines/{machine}/{verb}");
    let (status, answer) = bench.admin(Method::POST, &path, Some(body)).await;
    (status, answer["detail"].as_str().unwrap_or_default().to_owned())
}

async fn why(bench: &Bench, machine: &str) -> Value {
    bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{machine}/why"), None).await.1
}

/// The page as a signed-in browser sees it.
async fn browse(bench: &Bench, path: &str) -> (StatusCode, String) {
    let request = Request::builder().uri(path).header("cookie", bench.cookie()).header("accept", "text/html,*/*");
    let response = bench.send(request.body(Body::empty()).unwrap()).await;
    (response.status(), text(response).await)
}

/// One machine whose agent has reported, and one that was written down and never seen.
#[tokio::test]
async fn an_assignment_that_cannot_work_is_refused_with_what_is_missing() {
    let bench = bench().await;
    bench.session().await;
    bench.app.engine.apply(GREETING, "test").await.unwrap();
    for machine in [NAME, "db-1"] {
        let assign =
            |values: Value| post(&bench, machine, "assign", json!({ "template": "greeting", "values": values }));
        let (status, said) = assign(json!({})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{machine}: {said}");
        assert!(said.contains("actions[1].with.content: `values.user` is not set"), "{machine}: {said}");
        assert!(said.contains("--value user="), "{machine}: {said}");

        let (status, said) = assign(json!({ "user": "ops", "mtod": "hello" })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{machine}: {said}");
        assert!(said.contains("it uses `motd`, `user`; did you mean `motd`?"), "{machine}: {said}");

        let (status, said) = assign(json!({ "user": "ops" })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{machine}: {said}");
        let place = bench.dir.path().join("images/smal.raw").display().to_string();
        assert!(said.contains(&place) && said.contains("did you mean `small.raw`?"), "{machine}: {said}");
        assert!(said.contains("actions[0].with.url"), "{machine}: {said}");
    }
    assert!(bench.app.engine.cache().all::<dragonfly_core::resource::WorkflowSpec>().is_empty(), "nothing was begun");
    std::fs::rename(bench.dir.path().join("images/small.raw"), bench.dir.path().join("images/smal.raw")).unwrap();
    let right = json!({ "template": "greeting", "values": { "user": "ops" } });
    assert_eq!(post(&bench, "db-1", "assign", right).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_reimage_is_checked_before_anybody_is_asked_and_changes_nothing() {
    let bench = bench().await;
    bench.session().await;
    let (status, said) = post(&bench, NAME, "reimage/check", json!({})).await;
    assert_eq!((status, said.contains("say which template")), (StatusCode::CONFLICT, true), "{said}");
    let (status, said) = post(&bench, NAME, "reimage/check", json!({ "template": "smal" })).await;
    assert_eq!((status, said.contains("did you mean `small`?")), (StatusCode::NOT_FOUND, true), "{said}");
    let path = format!("/dragonfly/v1/machines/{NAME}/reimage/check");
    let (status, would) = bench.admin(Method::POST, &path, Some(json!({ "template": "small" }))).await;
    assert_eq!((status, would), (StatusCode::OK, json!({ "template": "small" })));
    assert_eq!(why(&bench, NAME).await["phase"], "Registered");
    assert!(bench.app.engine.cache().all::<dragonfly_core::resource::WorkflowSpec>().is_empty());
}

#[tokio::test]
async fn names_that_nobody_has_are_told_with_those_that_are_near() {
    let bench = bench().await;
    bench.session().await;
    let table = [
        (
            Method::GET,
            "/dragonfly/v1/machines/censusablequalityparnet".to_owned(),
            "did you mean `CensusAbleQualityParent`?",
        ),
        (Method::GET, "/dragonfly/v1/machines/sheep".to_owned(), "dragonfly get machines lists"),
        (Method::GET, "/apis/dragonfly.computer/v1/templates/smal".to_owned(), "did you mean `small`?"),
        (Method::GET, "/apis/dragonfly.computer/v1/networks/labb".to_owned(), "did you mean `lab`?"),
        (Method::GET, "/apis/dragonfly.computer/v1/secrets/x".to_owned(), "there are no secrets yet"),
        (Method::DELETE, "/apis/dragonfly.computer/v1/templates/smal".to_owned(), "did you mean `small`?"),
        (Method::GET, "/apis/dragonfly.computer/v1/template".to_owned(), "did you mean `templates`?"),
        (Method::GET, "/dragonfly/v1/machines/52:54:00:00:00:99".to_owned(), "boot it from the network"),
    ];
    for (method, path, want) in table {
        let (status, answer) = bench.admin(method, &path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        let said = ["detail", "message"].iter().find_map(|field| answer[field].as_str()).unwrap_or_default();
        assert!(said.contains(want), "{path}: {said}");
    }
    let (_, said) = post(&bench, NAME, "assign", json!({ "template": "smalll" })).await;
    assert_eq!(said, "Template `smalll` does not exist; did you mean `small`?");
    let wrong = GREETING.replace("label: root", "lable: root").replace("template", "").replace("macs", "mac");
    let request = Request::builder().method(Method::POST).uri("/dragonfly/v1/apply");
    let request = request.header("authorization", format!("Bearer {TOKEN}")).body(Body::from(wrong)).unwrap();
    let said = text(bench.send(request).await).await;
    assert!(said.contains("spec.mac: there is no such field; did you mean `macs`?"), "{said}");
}

#[tokio::test]
async fn a_network_that_cannot_be_answered_is_stored_with_a_warning() {
    let bench = bench().await;
    let network = |name: &str, interface: &str, subnet: &str| {
        json!({
            "apiVersion": "dragonfly.computer/v1", "kind": "Network", "metadata": { "name": name },
            "spec": { "interface": interface, "dhcp": "proxy", "subnet": subnet },
        })
    };
    let apply = |body: Value| {
        let request = Request::builder().method(Method::POST).uri("/dragonfly/v1/apply");
        let request = request.header("authorization", format!("Bearer {TOKEN}")).body(Body::from(body.to_string()));
        async { serde_json::from_str::<Value>(&text(bench.send(request.unwrap()).await).await).unwrap() }
    };
    let answer = apply(network("dark", "df-none0", "10.1.0.0/24")).await;
    assert_eq!(answer["items"][0]["change"], "created");
    let warning = answer["items"][0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("there is no interface df-none0 that is up"), "{warning}");
    // The loopback interface is everywhere.
    assert_eq!(apply(network("one", "lo", "127.0.0.0/8")).await["items"][0].get("warnings"), None);
    let answer = apply(network("two", "lo", "127.0.0.0/8")).await;
    let warning = answer["items"][0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("`one` answers on lo"), "{warning}");
    // Kubernetes' clients read a header.
    let path = "/apis/dragonfly.computer/v1/networks/dark";
    let request = Request::builder().method(Method::PUT).uri(path).header("authorization", format!("Bearer {TOKEN}"));
    let response = bench.send(common::with_json(request, Some(network("dark", "df-none1", "10.1.0.0/24")))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let header = response.headers()["warning"].to_str().unwrap();
    assert!(header.starts_with("299 dragonfly \"") && header.contains("df-none1"), "{header}");

    // What the boot services say of it later stands in its status.
    bench.app.engine.note_served("dark", false, "there is no interface df-none1 that is up").await.unwrap();
    let (_, object) = bench.admin(Method::GET, path, None).await;
    assert_eq!(object["status"]["conditions"][0]["type"], "Served", "{object}");
    assert_eq!(object["status"]["conditions"][0]["status"], "False");
    let version = object["metadata"]["resourceVersion"].clone();
    bench.app.engine.note_served("dark", false, "there is no interface df-none1 that is up").await.unwrap();
    bench.app.engine.note_served("nobody", true, "x").await.unwrap();
    let (_, object) = bench.admin(Method::GET, path, None).await;
    assert_eq!(object["metadata"]["resourceVersion"], version, "what is known is not written again");
}

#[tokio::test]
async fn nobody_is_said_to_wait_who_was_never_there() {
    let bench = bench().await;
    bench.app.engine.apply(GREETING, "test").await.unwrap();
    let fresh = why(&bench, "db-1").await;
    assert_eq!(fresh["message"], "its agent has never reported", "{fresh}");
    assert_eq!(post(&bench, "db-1", "assign", json!({ "template": "small" })).await.0, StatusCode::CREATED);
    let line =
        |answer: &Value| answer["items"].as_array().unwrap().iter().find(|m| m["name"] == "db-1").cloned().unwrap();
    let (_, all) = bench.admin(Method::GET, "/dragonfly/v1/machines", None).await;
    assert_eq!(line(&all)["template"], "small");
    assert_eq!(post(&bench, "db-1", "abort", json!({})).await.0, StatusCode::NO_CONTENT);
    let (_, all) = bench.admin(Method::GET, "/dragonfly/v1/machines", None).await;
    assert_eq!(line(&all)["template"], Value::Null, "what was called off is neither assigned nor installed");
    let called_off = why(&bench, "db-1").await;
    let reason = called_off["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("no agent has seen this machine"), "{reason}");

    // A hold needs no words, and never has an empty reason.
    assert_eq!(post(&bench, "db-1", "hold", json!({ "reason": " " })).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&bench, "db-1", "hold", json!({})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(why(&bench, "db-1").await["decision"]["reason"], "held: by an operator");

    // All of that came before any boot.
    let (_, told) = bench.admin(Method::GET, "/dragonfly/v1/machines/db-1/timeline", None).await;
    let boots: Vec<_> = told["items"].as_array().unwrap().iter().map(|line| line["boot"].as_u64().unwrap()).collect();
    assert!(boots.len() >= 3 && boots.iter().all(|boot| *boot == 0), "{told:#}");
    let (_, page) = browse(&bench, "/machines/db-1").await;
    assert!(page.contains("Before its first boot") && !page.contains("Boot 0"), "{page}");
}

#[tokio::test]
async fn guessed_addresses_lead_somewhere_and_pages_escape_what_is_written() {
    let bench = bench().await;
    bench.app.engine.apply(GREETING, "test").await.unwrap();
    bench.app.engine.note_served("lab", false, "<b>why</b>").await.unwrap();
    let (status, _) = browse(&bench, "/machines").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let table: [(&str, &[&str]); 4] = [
        ("/templates", &["href=\"/templates/greeting\"", "image2disk, writefile", "aria-current=\"page\">Templates"]),
        ("/templates/greeting", &["<strong>motd</strong>", "kind: Template", "welcome", "values.user"]),
        ("/networks", &["href=\"/networks/lab\"", "not answered", "why", "10.9.0.100 to 10.9.0.199"]),
        ("/networks/lab", &["not answered", "kind: Network", "interface: lab0"]),
    ];
    for (path, wanted) in table {
        let (status, page) = browse(&bench, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        for want in wanted {
            assert!(page.contains(want), "{path}: {want} in {page}");
        }
        assert!(!page.contains("<script>alert") && !page.contains("<b>why"), "{path}");
        assert!(!page.contains(" style=") && !page.contains("https://") && !page.contains("http://"), "{path}");
        for link in ["href=\"/\"", "href=\"/templates\"", "href=\"/networks\""] {
            assert!(page.contains(link), "{path}: {link}");
        }
    }
    for (path, want) in [
        ("/templates/greetnig", "did you mean"),
        ("/networks/x", "dragonfly get networks"),
        ("/dashboard", "nothing at this address"),
    ] {
        let (status, page) = browse(&bench, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.contains("<!doctype html>") && page.contains(want), "{path}: {page}");
    }
    // A program is answered as before.
    let program = Request::builder().uri("/dashboard").body(Body::empty()).unwrap();
    assert_eq!(bench.send(program).await.headers()["content-type"], "application/problem+json");
    let network = bench.app.engine.cache().get::<NetworkSpec>("lab").unwrap();
    assert_eq!(condition(&network.status.conditions, SERVED).unwrap().message, "<b>why</b>");
}
