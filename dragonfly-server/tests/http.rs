//! What the routes answer: problems, objects, verbs, pages.

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use common::{MAC, NAME, TOKEN, bench, text};
use dragonfly_server::http::table;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

fn as_admin(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"))
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let bench = bench().await;
    let big = "x".repeat(2 << 20);
    let table: Vec<(Request<Body>, u16, &str)> = vec![
        (as_admin(Method::GET, "/no/such/place").body(Body::empty()).unwrap(), 404, "nothing"),
        (as_admin(Method::DELETE, "/dragonfly/v1/machines").body(Body::empty()).unwrap(), 405, "DELETE"),
        (
            as_admin(Method::POST, "/dragonfly/v1/apply").body(Body::from(big)).unwrap(),
            413,
            "larger than this route takes: 1048576 bytes",
        ),
        (
            as_admin(Method::POST, "/dragonfly/v1/machines/x/assign").body(Body::from("{}")).unwrap(),
            415,
            "application/json",
        ),
        (
            common::with_json(
                as_admin(Method::POST, "/dragonfly/v1/machines/x/assign"),
                Some(json!({ "template": 3 })),
            ),
            422,
            "template",
        ),
        (
            common::with_json(as_admin(Method::POST, "/dragonfly/v1/machines/x/hold"), Some(json!({ "resaon": "y" }))),
            422,
            "resaon",
        ),
        (
            as_admin(Method::GET, "/dragonfly/v1/machines/x/events?limit=many").body(Body::empty()).unwrap(),
            400,
            "limit",
        ),
        (as_admin(Method::GET, "/dragonfly/v1/machines/%ff").body(Body::empty()).unwrap(), 400, ""),
        (as_admin(Method::POST, "/dragonfly/v1/apply").body(Body::from("kind: [")).unwrap(), 422, "line"),
        (as_admin(Method::POST, "/dragonfly/v1/machines/nobody/retry").body(Body::from("{}")).unwrap(), 404, "nobody"),
    ];
    for (request, want, word) in table {
        let about = format!("{} {}", request.method(), request.uri());
        let response = bench.send(request).await;
        assert_eq!(response.status().as_u16(), want, "{about}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{about}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{about}");
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(problem["status"], want, "{about}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(word), "{about}: {detail}");
    }
}

#[tokio::test]
async fn objects_in_kubernetes_shapes() {
    let bench = bench().await;
    const ALL: &str = "/apis/dragonfly.computer/v1/templates";
    let object = |name: &str, about: &str| {
        json!({
            "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": name },
            "spec": { "description": about, "actions": [{ "name": "r", "action": "reboot" }] },
        })
    };
    let (status, made) = bench.admin(Method::POST, ALL, Some(object("t", "one"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (status, again) = bench.admin(Method::POST, ALL, Some(object("t", "one"))).await;
    assert_eq!((status, &again["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")), "{again}");
    assert_eq!(again["kind"], "Status");

    let (_, list) = bench.admin(Method::GET, ALL, None).await;
    assert_eq!(list["kind"], "TemplateList");
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let (_, page) = bench.admin(Method::GET, &format!("{ALL}?limit=1"), None).await;
    let more = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = bench.admin(Method::GET, &format!("{ALL}?limit=1&continue={more}"), None).await;
    assert_eq!(rest["items"][0]["metadata"]["name"], "t");

    let mut changed = object("t", "two");
    changed["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let one = format!("{ALL}/t");
    let (status, put) = bench.admin(Method::PUT, &one, Some(changed.clone())).await;
    assert_eq!((status, &put["spec"]["description"]), (StatusCode::OK, &json!("two")), "{put}");
    changed["spec"]["description"] = "three".into();
    let (status, stale) = bench.admin(Method::PUT, &one, Some(changed)).await;
    assert_eq!((status, &stale["reason"]), (StatusCode::CONFLICT, &json!("Conflict")), "{stale}");
    let (status, _) = bench.admin(Method::PUT, &format!("{ALL}/other"), Some(object("t", "x"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = bench.admin(Method::PUT, &format!("{ALL}/none"), Some(object("none", "x"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let patch = as_admin(Method::PATCH, &format!("{ALL}/new")).header("content-type", "application/apply-patch+yaml");
    let response = bench.send(patch.body(Body::from(object("new", "x").to_string())).unwrap()).await;
    assert_eq!(response.status(), StatusCode::CREATED);

    let (status, _) = bench.admin(Method::DELETE, &one, None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, gone) = bench.admin(Method::GET, &one, None).await;
    assert_eq!((status, &gone["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")));
    let (status, unknown) = bench.admin(Method::GET, "/apis/dragonfly.computer/v1/pods", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(unknown["message"].as_str().unwrap().contains("templates"));
}

#[tokio::test]
async fn a_watch_begins_with_what_is_and_goes_on_with_what_changes() {
    let bench = bench().await;
    let request = as_admin(Method::GET, "/apis/dragonfly.computer/v1/templates?watch=1").body(Body::empty()).unwrap();
    let mut body = bench.send(request).await.into_body();
    let mut next = async || -> Value {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(5), body.frame()).await.unwrap();
        serde_json::from_slice(&frame.unwrap().unwrap().into_data().unwrap()).unwrap()
    };
    let first = next().await;
    assert_eq!((&first["type"], &first["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("small")));
    bench.app.engine.apply(&common::TEMPLATE.replace("One disk", "A disk"), "test").await.unwrap();
    let second = next().await;
    assert_eq!(second["type"], "MODIFIED");
    assert_eq!(second["object"]["spec"]["description"], "A disk, one image");
}

#[tokio::test]
async fn a_secret_is_never_read_back() {
    let bench = bench().await;
    let secret = json!({
        "apiVersion": "dragonfly.computer/v1", "kind": "Secret", "metadata": { "name": "bmc" },
        "spec": { "data": { "password": "hunter2-hunter2" } },
    });
    let (status, made) = bench.admin(Method::POST, "/apis/dragonfly.computer/v1/secrets", Some(secret)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    for path in ["/apis/dragonfly.computer/v1/secrets/bmc", "/apis/dragonfly.computer/v1/secrets"] {
        let (_, read) = bench.admin(Method::GET, path, None).await;
        assert!(read.to_string().contains("password") && !read.to_string().contains("hunter2"), "{read}");
    }
    assert!(!made.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_machine_by_any_of_its_names_from_first_boot_to_assignment() {
    let bench = bench().await;
    let script = bench.send(Request::builder().uri(format!("/boot/{MAC}")).body(Body::empty()).unwrap()).await;
    assert!(text(script).await.starts_with("#!ipxe"));
    bench.session().await;
    for word in [NAME, "CensusAbleQualityParent", MAC, "52-54-00-AB-CD-01"] {
        let (status, whole) = bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{word}"), None).await;
        assert_eq!(status, StatusCode::OK, "{word}");
        assert_eq!(whole["machine"]["name"], NAME);
        assert_eq!(whole["machine"]["phase"], "Registered");
    }
    let assign = format!("/dragonfly/v1/machines/{NAME}/assign");
    let (status, workflow) = bench.admin(Method::POST, &assign, Some(json!({ "template": "small" }))).await;
    assert_eq!(status, StatusCode::CREATED, "{workflow}");
    let (_, why) = bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{NAME}/why"), None).await;
    assert_eq!(why["phase"], "Assigned");
    assert!(why["decision"]["image"].is_object() || why["decision"].to_string().contains("image"), "{why}");
    let (status, _) = bench.admin(Method::POST, &format!("/dragonfly/v1/machines/{NAME}/abort"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) =
        bench.admin(Method::POST, &format!("/dragonfly/v1/machines/{NAME}/protect"), Some(json!({ "on": true }))).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, refused) = bench.admin(Method::POST, &assign, Some(json!({ "template": "small" }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(refused["detail"].as_str().unwrap().contains("protected"), "{refused}");
}

#[tokio::test]
async fn an_agent_by_its_routes_alone() {
    let bench = bench().await;
    let token = bench.boot_token().await;
    let post = |path: &str, bearer: &str, body: Value| {
        let request =
            Request::builder().method(Method::POST).uri(path).header("authorization", format!("Bearer {bearer}"));
        common::with_json(request, Some(body))
    };
    let hello = serde_json::to_value(common::hello()).unwrap();
    let response = bench.send(post("/dragonfly/v1/agent/hello", token.reveal(), hello)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let welcome = common::welcome(&text(response).await);
    assert_eq!(welcome.display_name, "CensusAbleQualityParent");
    let session = welcome.session.reveal();
    let orders = bench.send(post("/dragonfly/v1/agent/work", session, json!({ "waitSeconds": 0 }))).await;
    let orders: Value = serde_json::from_str(&text(orders).await).unwrap();
    assert_eq!(orders["order"], "wait", "{orders}");

    let log = Request::builder().method(Method::POST).uri("/dragonfly/v1/agent/log?offset=0");
    let log = log.header("authorization", format!("Bearer {session}")).body(Body::from("first line\n")).unwrap();
    assert_eq!(bench.send(log).await.status(), StatusCode::NO_CONTENT);
    let read = bench
        .send(as_admin(Method::GET, &format!("/dragonfly/v1/machines/{NAME}/log")).body(Body::empty()).unwrap())
        .await;
    assert_eq!(text(read).await, "first line\n");
}

#[tokio::test]
async fn who_may_log_in_to_a_controller_is_shown_and_an_agent_tells_of_its_account() {
    let bench = bench().await;
    let session = bench.session().await;
    let request = Request::builder().uri(format!("/machines/{NAME}")).header("cookie", bench.cookie());
    let page = text(bench.send(request.body(Body::empty()).unwrap()).await).await;
    assert!(page.contains("2 ADMIN (administrator), 3 ops (operator, off)"), "{page}");
    let report = |bearer: &str| {
        let request = Request::builder().method(Method::POST).uri("/dragonfly/v1/agent/bmc-account");
        let request = request.header("authorization", format!("Bearer {bearer}"));
        common::with_json(request, Some(json!({ "username": "dragonfly", "slot": 3, "verified": true })))
    };
    // Nobody has asked for one.
    let answer = bench.send(report(session.reveal())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(text(answer).await.contains("this server makes no accounts"));
    for bearer in [TOKEN, "x"] {
        assert_eq!(bench.send(report(bearer)).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn pages_escape_what_machines_say() {
    let bench = bench().await;
    bench.session().await;
    for path in ["/", &format!("/machines/{NAME}"), "/fragments/machines", &format!("/fragments/machines/{NAME}")] {
        let request = Request::builder().uri(path).header("cookie", bench.cookie()).body(Body::empty()).unwrap();
        let response = bench.send(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        let page = text(response).await;
        assert!(page.to_lowercase().contains(NAME), "{path}");
        assert!(!page.contains("<script>alert"), "{path}");
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "{path}: the policy forbids inline code");
        for script in page.split("<script").skip(1) {
            assert!(script.starts_with(" src="), "{path}: no inline script");
        }
    }
}

#[tokio::test]
async fn machines_are_searched_and_paged_by_the_server() {
    let bench = bench().await;
    bench.session().await;
    let many: String = (0..230)
        .map(|n| {
            format!(
                "---\napiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {{ name: node-{n:03}, labels: {{ rack: r{} }} }}\n\
                 spec: {{ macs: [\"02:00:00:00:01:{n:02x}\"] }}\n",
                n / 40
            )
        })
        .collect();
    bench.app.engine.apply(&many, "test").await.unwrap();
    let list = async |query: &str| bench.admin(Method::GET, &format!("/dragonfly/v1/machines{query}"), None).await;
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, all) = list("").await;
    assert_eq!((names(&all).len(), &all["continue"]), (231, &Value::Null), "programs that know no pages get all");
    let (mut seen, mut from, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, page) = list(&format!("?limit=100&continue={from}")).await;
        pages += 1;
        seen.extend(names(&page));
        match page["continue"].as_str() {
            Some(more) => more.clone_into(&mut from),
            None => break,
        }
    }
    assert_eq!((seen, pages), (names(&all), 3));
    let table = [
        ("?q=NODE-007", 1),
        ("?q=02-00-00-00-01-07", 1),
        ("?q=rack+stack", 1), // its model
        ("?q=rack+stacks", 0),
        ("?q=reboot", 1), // its serial number
        ("?phase=registered", 1),
        ("?phase=unseen&q=node-01", 10),
        ("?phase=Unseen,Registered&limit=500", 231),
        ("?labelSelector=rack%3Dr5", 30),
        ("?labelSelector=rack%3Dr5&q=22", 10),
        ("?q=nobody", 0),
    ];
    for (query, want) in table {
        let (status, page) = list(query).await;
        assert_eq!((status, names(&page).len()), (StatusCode::OK, want), "{query}: {:?}", names(&page));
    }
    for (query, word) in [("?phase=done", "provisioning"), ("?labelSelector=rack", "key=value"), ("?limit=x", "limit")]
    {
        let (status, problem) = list(query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
    }

    let page = async |path: &str| {
        let request = Request::builder().uri(path).header("cookie", bench.cookie()).body(Body::empty()).unwrap();
        let response = bench.send(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let total = response.headers().get("x-total").map(|n| n.to_str().unwrap().to_owned());
        (text(response).await, total)
    };
    let rows = |html: &str| html.matches("<tr id=\"m-").count();
    let (first, _) = page("/").await;
    assert_eq!(rows(&first), 100);
    assert!(first.contains("id=\"total\">231<") && first.contains("href=\"/?continue=node-098\""), "{first}");
    let (rest, total) = page("/fragments/machines?continue=node-098").await;
    assert_eq!((rows(&rest), total.as_deref()), (100, Some("231")));
    assert!(rest.contains("data-after=\"node-198\""), "{rest}");
    let (last, _) = page("/?continue=node-198").await;
    assert!(rows(&last) == 31 && !last.contains("id=\"more\"") && last.contains("From the first machine"), "{last}");
    let (few, _) = page("/?q=node-1+rack%3Dr3&phase=unseen").await;
    assert_eq!(rows(&few), 40);
    let (none, _) = page("/?q=nobody").await;
    assert!(none.contains("<p id=\"none\" class=\"hint\">"), "it says that none matches: {none}");
    // Of those that changed, the ones that are still meant.
    let (some, _) = page("/fragments/machines?names=node-001,node-002,gone&q=node-002").await;
    assert!(rows(&some) == 1 && some.contains("m-node-002"), "{some}");
}

#[tokio::test]
async fn forms_ask_before_data_is_lost() {
    let bench = bench().await;
    bench.session().await;
    let post = |verb: &str, body: &str| {
        Request::builder()
            .method(Method::POST)
            .uri(format!("/machines/{NAME}/{verb}"))
            .header("cookie", bench.cookie())
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let refused = bench.send(post("assign", "template=small&overwrite=SA1")).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(text(refused).await.contains("type the machine"), "it says what to do");
    let done = bench.send(post("assign", "template=small&overwrite=SA1&confirm=CensusAbleQualityParent")).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER, "{}", text(done).await);
    assert_eq!(bench.send(post("explode", "")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_description_names_every_route() {
    let bench = bench().await;
    let (_, described) = bench.admin(Method::GET, "/dragonfly/v1/openapi.json", None).await;
    assert_eq!(described["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for route in table(&bench.app) {
        let path = route.path.replace("{*", "{");
        let operation = &described["paths"][&path][route.method.as_str().to_lowercase()];
        assert_eq!(operation["summary"], route.about, "{} {}", route.method, route.path);
        assert!(ids.insert(operation["operationId"].to_string()), "{path}: an id of its own");
    }
}

#[tokio::test]
async fn counts_what_it_did() {
    let bench = bench().await;
    bench.send(Request::builder().uri(format!("/boot/{MAC}")).body(Body::empty()).unwrap()).await;
    bench.session().await;
    let metrics = text(bench.send(as_admin(Method::GET, "/metrics").body(Body::empty()).unwrap()).await).await;
    for line in ["dragonfly_machines{phase=\"Registered\"} 1", "dragonfly_boot_decisions_total{fate=\"discover\"} 1"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    // Each family is announced once, and each line is `name{labels} number`.
    for line in metrics.lines().filter(|l| !l.starts_with('#')) {
        assert!(line.rsplit_once(' ').is_some_and(|(_, n)| n.parse::<f64>().is_ok()), "{line}");
    }
}

#[tokio::test]
async fn one_timeline_from_the_first_packet_on() {
    use dragonfly_core::boot::{Asker, BootObserver as _, DhcpAsk, Seen, Sighting};
    let bench = bench().await;
    let asks = |mac: &str| Sighting {
        mac: mac.parse().ok(),
        from: None,
        seen: Seen::DhcpAsked {
            message: DhcpAsk::Discover,
            asker: Asker::Firmware,
            firmware: None,
            arch: None,
            network: "<script>alert(1)</script>".into(),
        },
    };
    bench.app.engine.saw(asks(MAC));
    // Before it is a machine: by its MAC and by the name it would get, also as a page.
    for word in [MAC, NAME, "CensusAbleQualityParent"] {
        let (status, told) = bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{word}/timeline"), None).await;
        assert_eq!((status, told["items"].as_array().unwrap().len()), (StatusCode::OK, 1), "{word}: {told}");
    }
    let as_browser = |path: String| Request::builder().uri(path).header("cookie", bench.cookie());
    for path in [format!("/machines/{MAC}"), format!("/fragments/timelines/{MAC}")] {
        let response = bench.send(as_browser(path.clone()).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let page = text(response).await;
        assert!(page.contains("dhcp.discover") && !page.contains("<script>alert"), "{page}");
    }
    assert_eq!(
        bench.send(as_browser("/machines/52:54:00:00:00:99".into()).body(Body::empty()).unwrap()).await.status(),
        StatusCode::NOT_FOUND
    );
    let fragment = bench.send(as_browser("/fragments/sightings".into()).body(Body::empty()).unwrap()).await;
    assert!(text(fragment).await.contains(&format!("href=\"/machines/{MAC}\"")));

    // Its script and kernel over HTTP, its agent, its log: all on the same one.
    std::fs::write(bench.dir.path().join("boot/vmlinuz"), [7; 3000]).unwrap();
    for path in [format!("/boot/{MAC}"), "/boot/files/vmlinuz".to_owned()] {
        text(bench.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await.map(|body| {
            // The kernel is not text; that it was read to its end is what counts.
            Body::new(http_body_util::BodyExt::map_frame(body, |frame| frame.map_data(|_| "".into())))
        }))
        .await;
    }
    let session = bench.session().await;
    let log = Request::builder().method(Method::POST).uri("/dragonfly/v1/agent/log?offset=0");
    let log = log.header("authorization", format!("Bearer {}", session.reveal()));
    bench.send(log.body(Body::from("     1.00 a line of the log\n")).unwrap()).await;
    let path = format!("/dragonfly/v1/machines/{NAME}/timeline");
    let (_, told) = bench.admin(Method::GET, &path, None).await;
    let kinds: Vec<_> = told["items"].as_array().unwrap().iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["dhcp.discover", "boot.script", "boot.file", "boot.done", "machine.registered", "agent.log"],
        "{told:#}"
    );
    assert_eq!(told["items"][3]["facts"]["passed"], 3000);
    let last = told["items"][5]["id"].as_u64().unwrap();
    assert_eq!(told["items"][5]["message"], "1.00 a line of the log");

    // A reader that waits is told of what is new, and of nothing twice.
    let later = format!("{path}?after={last}&waitSeconds=20");
    let (news, ()) = tokio::join!(bench.admin(Method::GET, &later, None), async {
        tokio::task::yield_now().await;
        bench.app.engine.saw(asks(MAC));
    });
    let items = news.1["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["type"], &items[0]["boot"]),
        (1, &json!("dhcp.discover"), &json!(2)),
        "{items:?}"
    );
    let (status, _) = bench.admin(Method::GET, &format!("{path}?after=many"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = bench.admin(Method::GET, "/dragonfly/v1/machines/nobody/timeline", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn why_names_the_fault_that_the_boot_services_saw() {
    use dragonfly_core::boot::{Asker, BootObserver as _, DhcpAsk, Seen, Sighting};
    let bench = bench().await;
    let (asker, file) = (Asker::Firmware, None);
    let saw = |seen| bench.app.engine.saw(Sighting { mac: MAC.parse().ok(), from: None, seen });
    saw(Seen::DhcpAsked { message: DhcpAsk::Discover, asker, firmware: None, arch: None, network: "lab".into() });
    saw(Seen::DhcpOffered { asker, address: "10.9.0.100".parse().ok(), file });
    let server = "10.9.0.66".parse().unwrap();
    saw(Seen::DhcpForeign { asker, server, address: "10.9.0.7".parse().ok(), expected: false });
    // The other server was asked what it offers, and does not answer.
    bench.clock.advance(std::time::Duration::from_secs(5));
    for word in [MAC, NAME] {
        let (_, why) = bench.admin(Method::GET, &format!("/dragonfly/v1/machines/{word}/why"), None).await;
        assert_eq!(why["causes"][0]["fault"], "foreign-offer", "{why:#}");
        assert!(why["causes"][0]["next"].as_str().unwrap().contains("10.9.0.66"), "{why:#}");
    }
    let page = Request::builder().uri(format!("/machines/{MAC}")).header("cookie", bench.cookie());
    let page = text(bench.send(page.body(Body::empty()).unwrap()).await).await;
    assert!(page.contains("foreign DHCP offer") && page.contains("10.9.0.66"), "{page}");
}
