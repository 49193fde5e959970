//! Who may use what: every route of the table, with every kind of caller.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use common::{Bench, NAME, TOKEN, bench, hello, hello_of};
use dragonfly_boot::http::Route as BootRoute;
use dragonfly_core::clock::Timestamp;
use dragonfly_server::http::Access::{self, Agent, BootToken, Image, Open, Page, Person};
use dragonfly_server::http::{Route, table};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    WrongToken,
    Admin,
    Browser,
    /// A browser that a foreign page makes send something.
    ForeignPage,
    /// The agent of the very machine that the request is about.
    AgentSession,
    /// Its machine has nothing to do with whatever the request is about.
    OtherMachine,
    /// An agent that was booted and has not yet said hello.
    BootToken,
    /// The same; its token was made for another machine than the one that it says it is.
    OthersBootToken,
    /// A session that was good until its time was over.
    ExpiredAgent,
    /// A sign-in that was good until its time was over.
    ExpiredBrowser,
    /// A boot token that was good for the card that it comes with until its ten minutes were over.
    ExpiredBootToken,
    /// Whoever has the link of the image that is asked for.
    ImageLink,
    /// The same, when its time is over.
    ExpiredImageLink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    In,
    Unauthenticated,
    Forbidden,
    SentToSignIn,
    /// The server failed: that says nothing of whether it would have let anybody in.
    Failed(StatusCode),
}

const EVERYBODY: [Who; 14] = [
    Who::Nobody,
    Who::WrongToken,
    Who::Admin,
    Who::Browser,
    Who::ForeignPage,
    Who::AgentSession,
    Who::OtherMachine,
    Who::BootToken,
    Who::OthersBootToken,
    Who::ExpiredAgent,
    Who::ExpiredBrowser,
    Who::ExpiredBootToken,
    Who::ImageLink,
    Who::ExpiredImageLink,
];

/// Every route and who may use it, written by hand: what the router says of itself is held against this. Each
/// `Open` is a decision: its reason stands beside it.
const ROUTES: &[(&str, &str, Access)] = &[
    ("GET", "/", Page),
    ("GET", "/api", Person),
    ("GET", "/api/", Person),
    ("GET", "/api/v1", Person),
    ("GET", "/api/v1/", Person),
    ("GET", "/api/v1/events", Person),
    ("GET", "/api/v1/namespaces", Person),
    ("GET", "/api/v1/namespaces/{name}/events", Person),
    ("GET", "/apis", Person),
    ("GET", "/apis/", Person),
    ("GET", "/apis/dragonfly.computer", Person),
    ("GET", "/apis/dragonfly.computer/", Person),
    ("GET", "/apis/dragonfly.computer/v1", Person),
    ("GET", "/apis/dragonfly.computer/v1/", Person),
    ("DELETE", "/apis/dragonfly.computer/v1/{plural}", Person),
    ("GET", "/apis/dragonfly.computer/v1/{plural}", Person),
    ("POST", "/apis/dragonfly.computer/v1/{plural}", Person),
    ("DELETE", "/apis/dragonfly.computer/v1/{plural}/{name}", Person),
    ("GET", "/apis/dragonfly.computer/v1/{plural}/{name}", Person),
    ("PATCH", "/apis/dragonfly.computer/v1/{plural}/{name}", Person),
    ("PUT", "/apis/dragonfly.computer/v1/{plural}/{name}", Person),
    ("GET", "/apis/dragonfly.computer/v1/{plural}/{name}/status", Person),
    ("PATCH", "/apis/dragonfly.computer/v1/{plural}/{name}/status", Person),
    ("PUT", "/apis/dragonfly.computer/v1/{plural}/{name}/status", Person),
    ("GET", "/assets/{file}", Open),                 // style and script of the way in
    ("GET", "/boot/phone-home/{capability}", Open),  // the path is the proof
    ("POST", "/boot/phone-home/{capability}", Open), // the same
    ("GET", "/clusters", Page),
    ("POST", "/dragonfly/v1/agent/bmc-account", Agent),
    ("POST", "/dragonfly/v1/agent/hello", BootToken),
    ("POST", "/dragonfly/v1/agent/log", Agent),
    ("POST", "/dragonfly/v1/agent/report", Agent),
    ("POST", "/dragonfly/v1/agent/work", Agent),
    ("POST", "/dragonfly/v1/apply", Person),
    ("GET", "/dragonfly/v1/backup", Person),
    ("GET", "/dragonfly/v1/clusters", Person),
    ("GET", "/dragonfly/v1/events", Person),
    ("POST", "/dragonfly/v1/import", Person),
    ("POST", "/dragonfly/v1/login-link", Person),
    ("GET", "/dragonfly/v1/machines", Person),
    ("GET", "/dragonfly/v1/machines/{name}", Person),
    ("POST", "/dragonfly/v1/machines/{name}/abort", Person),
    ("POST", "/dragonfly/v1/machines/{name}/assign", Person),
    ("DELETE", "/dragonfly/v1/machines/{name}/bmc", Person),
    ("PUT", "/dragonfly/v1/machines/{name}/bmc", Person),
    ("POST", "/dragonfly/v1/machines/{name}/bmc/account", Person),
    ("GET", "/dragonfly/v1/machines/{name}/bmc/events", Person),
    ("GET", "/dragonfly/v1/machines/{name}/bmc/firmware", Person),
    ("GET", "/dragonfly/v1/machines/{name}/bmc/inventory", Person),
    ("DELETE", "/dragonfly/v1/machines/{name}/bmc/media", Person),
    ("GET", "/dragonfly/v1/machines/{name}/bmc/media", Person),
    ("PUT", "/dragonfly/v1/machines/{name}/bmc/media", Person),
    ("GET", "/dragonfly/v1/machines/{name}/bmc/sensors", Person),
    ("POST", "/dragonfly/v1/machines/{name}/bmc/test", Person),
    ("DELETE", "/dragonfly/v1/machines/{name}/boot-device", Person),
    ("GET", "/dragonfly/v1/machines/{name}/boot-device", Person),
    ("PUT", "/dragonfly/v1/machines/{name}/boot-device", Person),
    ("GET", "/dragonfly/v1/machines/{name}/events", Person),
    ("POST", "/dragonfly/v1/machines/{name}/hold", Person),
    ("DELETE", "/dragonfly/v1/machines/{name}/http-boot", Person),
    ("GET", "/dragonfly/v1/machines/{name}/http-boot", Person),
    ("PUT", "/dragonfly/v1/machines/{name}/http-boot", Person),
    ("POST", "/dragonfly/v1/machines/{name}/identify", Person),
    ("GET", "/dragonfly/v1/machines/{name}/log", Person),
    ("GET", "/dragonfly/v1/machines/{name}/power", Person),
    ("POST", "/dragonfly/v1/machines/{name}/power", Person),
    ("POST", "/dragonfly/v1/machines/{name}/protect", Person),
    ("POST", "/dragonfly/v1/machines/{name}/reimage", Person),
    ("POST", "/dragonfly/v1/machines/{name}/reimage/check", Person),
    ("POST", "/dragonfly/v1/machines/{name}/release", Person),
    ("POST", "/dragonfly/v1/machines/{name}/deny", Person),
    ("POST", "/dragonfly/v1/machines/{name}/retry", Person),
    ("GET", "/dragonfly/v1/machines/{name}/timeline", Person),
    ("GET", "/dragonfly/v1/machines/{name}/why", Person),
    ("GET", "/dragonfly/v1/openapi.json", Person),
    ("GET", "/fragments/machines", Page),
    ("GET", "/fragments/machines/{name}", Page),
    ("GET", "/fragments/machines/{name}/controller/{verb}", Page),
    ("GET", "/fragments/sightings", Page),
    ("GET", "/fragments/timelines/{name}", Page),
    ("GET", "/healthz", Open), // for those who watch the process
    ("GET", "/images/{*path}", Image),
    ("GET", "/login", Open),  // the way in
    ("POST", "/login", Open), // the way in
    ("POST", "/logout", Page),
    ("GET", "/machines", Page),
    ("GET", "/machines/{name}", Page),
    ("GET", "/machines/{name}/controller/{verb}", Page),
    ("POST", "/machines/{name}/{verb}", Page),
    ("GET", "/metrics", Person),
    ("GET", "/networks", Page),
    ("GET", "/networks/{name}", Page),
    ("GET", "/openapi/v2", Person),
    ("GET", "/openapi/v3", Person),
    ("GET", "/openapi/v3/apis/dragonfly.computer/v1", Person),
    ("POST", "/power", Page),
    ("GET", "/readyz", Open), // the same; says what is wrong, no more
    ("GET", "/templates", Page),
    ("GET", "/templates/{name}", Page),
    ("GET", "/version", Person),
    ("GET", "/version/", Person),
];

fn expected(access: Access, safe: bool, who: Who) -> Got {
    use Got as G;
    use Who as W;
    match (access, who) {
        (Access::Open, _) => G::In,
        (Access::Person | Access::Page | Access::Image, W::Admin | W::Browser) => G::In,
        (Access::Person | Access::Page | Access::Image, W::ForeignPage) => {
            if safe {
                G::In
            } else {
                G::Forbidden
            }
        }
        (Access::Image, W::ImageLink) => G::In,
        // Another machine is let in, and then sees its own things only: `identity.rs` has that.
        (Access::Agent, W::AgentSession | W::OtherMachine) => G::In,
        // Not even what is about the agent's own machine. An image only beside the link that it was given: see below.
        (Access::Person | Access::Page | Access::Image, W::AgentSession | W::OtherMachine) => G::Forbidden,
        (Access::BootToken, W::BootToken) => G::In,
        // In the same words for all: `identity.rs` has that.
        (Access::BootToken, _) => G::Forbidden,
        // What is over, or was made for something else, is worth as much as nothing.
        (Access::Page, _) if safe => G::SentToSignIn,
        // A session is not the token of a boot, nor the other way round.
        (Access::Person | Access::Page | Access::Image | Access::Agent, _) => G::Unauthenticated,
    }
}

/// What a route answers that judges what it was sent, or that cannot do here what it is for. None but these may.
fn by_itself(access: Access, method: &Method, route: &str, who: Who) -> Option<Got> {
    match (method.as_str(), route) {
        // The path that is asked for here is nobody's proof.
        (_, "/boot/phone-home/{capability}") => Some(Got::Unauthenticated),
        // No token is sent, and only a page of ours may send one.
        ("POST", "/login") => Some(if who == Who::Browser { Got::Unauthenticated } else { Got::Forbidden }),
        // A store in memory has no backup, which only those are told who might have had it.
        ("GET", "/dragonfly/v1/backup") if expected(access, safe(method), who) == Got::In => {
            Some(Got::Failed(StatusCode::NOT_IMPLEMENTED))
        }
        _ => None,
    }
}

async fn ask(bench: &Bench, callers: &Callers, method: &Method, route: &str, who: Who) -> (Got, StatusCode) {
    let people = matches!(who, Who::Admin | Who::Browser | Who::ForeignPage);
    // Agents ask about the first machine, which is one of theirs. People, who are let in, are kept from changing
    // what the rows after this one need.
    let (plural, name) = if people { ("templates", "nobody-has-this-name") } else { ("hardware", NAME) };
    let path = route
        .replace("{name}", name)
        .replace("{plural}", plural)
        .replace("{verb}", "retry")
        .replace("{file}", "app.css")
        .replace("{capability}", "x")
        .replace("{*path}", "none.raw");
    assert!(!path.contains('{'), "{route}: say what stands for its parameters");
    let now = bench.app.engine.now();
    let uri = match who {
        Who::ImageLink => format!("{path}?{}", bench.app.auth.sign(&path, now.plus(MINUTE))),
        Who::ExpiredImageLink => format!("{path}?{}", bench.app.auth.sign(&path, callers.began.plus(MINUTE))),
        _ => path,
    };
    let mut request = Request::builder().method(method).uri(&uri);
    if !safe(method) {
        request = request.header("content-type", "application/json").header("host", "10.9.0.1:3000");
    }
    let bearer = |token: &str| format!("Bearer {token}");
    request = match who {
        Who::Nobody | Who::ImageLink | Who::ExpiredImageLink => request,
        Who::WrongToken => request.header("authorization", "Bearer wrong"),
        Who::Admin => request.header("authorization", bearer(TOKEN)),
        Who::Browser => request.header("cookie", bench.cookie()).header("origin", "https://10.9.0.1:3000"),
        Who::ForeignPage => request.header("cookie", bench.cookie()).header("origin", "https://evil.example"),
        Who::AgentSession => request.header("authorization", bearer(&callers.this)),
        Who::OtherMachine => request.header("authorization", bearer(&callers.other)),
        Who::BootToken | Who::OthersBootToken => request.header("authorization", bearer(&callers.booted)),
        Who::ExpiredBootToken => request.header("authorization", bearer(&callers.late)),
        Who::ExpiredAgent => request.header("authorization", bearer(&callers.over)),
        Who::ExpiredBrowser => request.header("cookie", &callers.signed_out),
    };
    let body = match (route.ends_with("/hello"), who) {
        (true, Who::BootToken) => serde_json::to_string(&hello_of(BOOTED.parse().unwrap())).unwrap(),
        (true, Who::ExpiredBootToken) => serde_json::to_string(&hello_of(LATE.parse().unwrap())).unwrap(),
        (true, _) => serde_json::to_string(&hello()).unwrap(),
        _ => "{}".to_owned(),
    };
    let response = bench.send(request.body(Body::from(body)).unwrap()).await;
    let status = response.status();
    let got = match status {
        StatusCode::UNAUTHORIZED => Got::Unauthenticated,
        StatusCode::FORBIDDEN => Got::Forbidden,
        StatusCode::SEE_OTHER if response.headers()["location"] == "/login" && route != "/logout" => Got::SentToSignIn,
        status if status.is_server_error() => Got::Failed(status),
        _ => Got::In,
    };
    (got, status)
}

/// The card of a machine that was booted and has not yet said hello.
const BOOTED: &str = "52:54:00:ab:cd:04";

/// The card of one that was booted and says hello too late.
const LATE: &str = "52:54:00:ab:cd:06";
const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

struct Callers {
    this: String,
    other: String,
    booted: String,
    late: String,
    /// When those whose time is over got what they show.
    began: Timestamp,
    over: String,
    signed_out: String,
}

async fn callers(bench: &Bench) -> Callers {
    let over = bench.session_of("52:54:00:ab:cd:03".parse().unwrap()).await.reveal().to_owned();
    let signed_out = bench.cookie();
    let late = bench.token_of(LATE.parse().unwrap()).await.reveal().to_owned();
    let began = bench.app.engine.now();
    let long =
        bench.app.engine.session_machine(&over).await.map(|_| std::time::Duration::from_secs(32 * 24 * 3600)).unwrap();
    bench.clock.advance(long);
    let this = bench.session().await.reveal().to_owned();
    assert_eq!(bench.app.engine.session_machine(&this).await.unwrap(), NAME, "this is the machine that is asked about");
    let other = bench.session_of("52:54:00:ab:cd:02".parse().unwrap()).await.reveal().to_owned();
    let booted = bench.token_of(BOOTED.parse().unwrap()).await.reveal().to_owned();
    Callers { this, other, booted, late, began, over, signed_out }
}

fn safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A new route fails here until somebody has decided, and written down, who may use it.
#[tokio::test]
async fn every_route_stands_in_the_list_with_who_may_use_it() {
    let bench = bench().await;
    let mut there: Vec<String> = table(&bench.app)
        .iter()
        .map(|Route { method, path, access, .. }| row(method.as_str(), path, *access))
        .collect();
    let mut known: Vec<String> = ROUTES.iter().map(|(method, path, access)| row(method, path, *access)).collect();
    there.sort();
    known.sort();
    let lacking = |of: &[String], from: &[String]| {
        of.iter().filter(|row| !from.contains(row)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(
        there == known,
        "the router and ROUTES differ. If these may be used by those whom they name, add them to ROUTES:\n{}\n\
         These are no more, or are for others now; if that is meant, take them out of ROUTES:\n{}",
        lacking(&there, &known),
        lacking(&known, &there)
    );
}

fn row(method: &str, path: &str, access: Access) -> String {
    format!("    (\"{method}\", \"{path}\", {access:?}),")
}

#[tokio::test]
async fn every_route_admits_exactly_whom_it_should() {
    let bench = bench().await;
    let callers = callers(&bench).await;
    let mut wrong = Vec::new();
    for (method, path, access) in ROUTES {
        let method: Method = method.parse().unwrap();
        for who in EVERYBODY {
            let (got, status) = ask(&bench, &callers, &method, path, who).await;
            let want = by_itself(*access, &method, path, who).unwrap_or(expected(*access, safe(&method), who));
            if got != want {
                wrong.push(format!("{method} {path} as {who:?}: {got:?} ({status}), wanted {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The boot services answer these; they are no part of the table. Firmware can show nothing, so all are open. Of what
/// they tell only the identity is worth anything: `identity.rs` has what it is worth to somebody else.
const BOOT: [&str; 4] = [
    "/boot/52:54:00:ab:cd:05",
    "/boot/52:54:00:ab:cd:05/identity",
    "/boot/52:54:00:ab:cd:05/mage.efi",
    "/boot/files/kernel",
];

/// Which of these a path is. Another kind of boot route does not compile until it has its path there and its number
/// here.
fn boot_route(path: &str) -> usize {
    match BootRoute::parse(path).unwrap() {
        BootRoute::Script(_) => 0,
        BootRoute::Identity(_) => 1,
        BootRoute::UnifiedKernel(_) => 2,
        BootRoute::File(_) => 3,
    }
}

#[tokio::test]
async fn boot_routes_are_open_to_anybody_for_reading() {
    let bench = bench().await;
    let boot = bench.dir.path().join("boot");
    std::fs::write(boot.join("kernel"), b"a kernel").unwrap();
    std::fs::write(boot.join("mage.efi"), vec![0; 16 << 10]).unwrap();
    std::fs::write(boot.join("manifest.json"), r#"{"ukiIdentity":{"offset":4096,"length":8192}}"#).unwrap();
    let callers = callers(&bench).await;
    let mut wrong = Vec::new();
    for (number, path) in BOOT.iter().enumerate() {
        assert_eq!(boot_route(path), number, "{path}");
        for who in EVERYBODY {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let (_, status) = ask(&bench, &callers, &method, path, who).await;
                let want = if safe(&method) { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
                if status != want {
                    wrong.push(format!("{method} {path} as {who:?}: {status}, wanted {want}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_one_time_link_signs_in_once() {
    let bench = bench().await;
    let (status, answer) = bench.admin(Method::POST, "/dragonfly/v1/login-link", Some(json!({}))).await;
    assert_eq!(status, StatusCode::OK);
    let path = answer["path"].as_str().unwrap().to_owned();
    let get = || Request::builder().uri(&path).body(Body::empty()).unwrap();
    let first = bench.send(get()).await;
    let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap();
    let page = bench.send(Request::builder().uri("/").header("cookie", pair).body(Body::empty()).unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
    let second = bench.send(get()).await;
    assert_eq!(second.status(), StatusCode::UNAUTHORIZED);
    assert!(second.headers().get("set-cookie").is_none());

    // Signing out ends the session itself, not only the cookie.
    let out = Request::builder().method(Method::POST).uri("/logout").header("cookie", pair);
    let out = out.header("sec-fetch-site", "same-origin").body(Body::empty()).unwrap();
    assert_eq!(bench.send(out).await.status(), StatusCode::SEE_OTHER);
    let page = bench.send(Request::builder().uri("/").header("cookie", pair).body(Body::empty()).unwrap()).await;
    assert_eq!(page.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_look_at_a_one_time_link_does_not_use_it_up() {
    let bench = bench().await;
    let (_, answer) = bench.admin(Method::POST, "/dragonfly/v1/login-link", Some(json!({}))).await;
    let path = answer["path"].as_str().unwrap().to_owned();
    let ask = |method, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let held = bench.send(ask(Method::HEAD, &path)).await;
    let wrong = bench.send(ask(Method::HEAD, "/login?once=wrong")).await;
    assert_eq!((held.status(), wrong.status()), (StatusCode::OK, StatusCode::OK), "it tells nobody whether it holds");
    assert!(held.headers().get("set-cookie").is_none());
    let used = bench.send(ask(Method::GET, &path)).await;
    assert_eq!(used.status(), StatusCode::OK);
    assert!(used.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn the_token_signs_in_from_our_own_page_only() {
    let bench = bench().await;
    let sign_in = |site: &'static str, token: &str| {
        let body = url::form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        Request::builder()
            .method(Method::POST)
            .uri("/login")
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(bench.send(sign_in("same-origin", TOKEN)).await.status(), StatusCode::OK);
    assert_eq!(bench.send(sign_in("cross-site", TOKEN)).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(bench.send(sign_in("same-origin", "guess")).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_signed_link_opens_its_image_and_no_other() {
    let bench = bench().await;
    std::fs::write(bench.dir.path().join("images/a.raw"), b"0123456789").unwrap();
    std::fs::write(bench.dir.path().join("images/b.raw"), b"secret").unwrap();
    let query = bench.app.auth.sign("/images/a.raw", bench.app.engine.now().plus(std::time::Duration::from_secs(60)));
    let get = |path: &str| {
        Request::builder().uri(format!("{path}?{query}")).header("range", "bytes=2-4").body(Body::empty()).unwrap()
    };
    let part = bench.send(get("/images/a.raw")).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(common::text(part).await, "234");
    assert_eq!(bench.send(get("/images/b.raw")).await.status(), StatusCode::UNAUTHORIZED);
    for path in ["/images/../admin.token", "/images/%2e%2e/admin.token", "/images/..%2fadmin.token"] {
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let status = bench.send(request.body(Body::empty()).unwrap()).await.status();
        assert!(status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST, "{path}: {status}");
    }
}

#[tokio::test]
async fn an_agent_has_the_rest_of_an_image_when_its_link_has_expired() {
    let bench = bench().await;
    let ends = bench.app.engine.now().plus(std::time::Duration::from_secs(3600));
    let path = format!("/images/small.raw?{}", bench.app.auth.sign("/images/small.raw", ends));
    let session = bench.session().await.reveal().to_owned();
    let rest = async |bearer: &str| {
        let request = Request::builder().uri(&path).header("range", "bytes=3-");
        let request = if bearer.is_empty() { request } else { request.header("authorization", bearer) };
        let response = bench.send(request.body(Body::empty()).unwrap()).await;
        (response.status(), common::text(response).await)
    };
    let (image, agent) = ((StatusCode::PARTIAL_CONTENT, "image".to_owned()), format!("Bearer {session}"));
    for bearer in ["", "Bearer wrong", &agent] {
        assert_eq!(rest(bearer).await, image, "{bearer}: the link holds");
    }
    bench.clock.advance(std::time::Duration::from_secs(2 * 3600));
    assert_eq!(rest(&agent).await, image);
    for bearer in ["", "Bearer wrong"] {
        assert_eq!(rest(bearer).await.0, StatusCode::UNAUTHORIZED, "{bearer}");
    }
    // Whoever may register a machine has a session: alone, or beside the link of another image, it opens none.
    let other = bench.app.auth.sign("/images/other.raw", ends);
    for query in ["", "?expires=1&signature=x", &format!("?{other}")] {
        let request = Request::builder().uri(format!("/images/small.raw{query}")).header("authorization", &agent);
        let status = bench.send(request.body(Body::empty()).unwrap()).await.status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{query}");
    }
    bench.session().await;
    assert_eq!(rest(&agent).await.0, StatusCode::UNAUTHORIZED, "a later agent speaks for the machine");
}

/// Named by its path or with this server's address before it; what lies elsewhere is fetched as it is named.
#[tokio::test]
async fn a_runs_orders_have_links_of_this_servers_own_images() {
    let elsewhere = "https://10.9.0.2:3000/images/small.raw";
    for url in ["/images/small.raw", "https://10.9.0.1:3000/images/small.raw", elsewhere] {
        let bench = bench().await;
        let template = format!(
            "apiVersion: dragonfly.computer/v1\nkind: Template\nmetadata: {{ name: links }}\nspec: {{ actions: [\
             {{ name: i, action: image2disk, with: {{ url: '{url}', insecureNoDigest: true, disk: {{ smallest: true }} }} }}] }}\n"
        );
        bench.app.engine.apply(&template, "test").await.unwrap();
        let session = bench.session().await.reveal().to_owned();
        let assign = format!("/dragonfly/v1/machines/{NAME}/assign");
        let (status, run) = bench.admin(Method::POST, &assign, Some(json!({ "template": "links" }))).await;
        assert_eq!(status, StatusCode::CREATED, "{run}");
        let request = Request::builder().method(Method::POST).uri("/dragonfly/v1/agent/work");
        let request = request.header("authorization", format!("Bearer {session}"));
        let request = common::with_json(request, Some(json!({ "waitSeconds": 0 })));
        let orders = common::text(bench.send(request).await).await;
        let link =
            orders.split('"').find(|word| word.contains("/images/small.raw")).unwrap_or_else(|| panic!("{orders}"));
        if url == elsewhere {
            assert_eq!(link, elsewhere);
            continue;
        }
        let query = link.strip_prefix("https://10.9.0.1:3000/images/small.raw?").unwrap_or_else(|| panic!("{link}"));
        let request = Request::builder().uri(format!("/images/small.raw?{query}")).body(Body::empty()).unwrap();
        assert_eq!(bench.send(request).await.status(), StatusCode::OK, "{link}");
    }
}
