//! Who may use what: every route of the table, with every kind of caller.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use common::{Bench, TOKEN, bench, hello};
use dragonfly_server::http::{Access, Route, table};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    WrongToken,
    Admin,
    Browser,
    /// A browser that a foreign page makes send something.
    ForeignPage,
    AgentSession,
    /// Its machine has nothing to do with whatever the request is about.
    OtherMachine,
    /// A session that was good until its time was over.
    ExpiredAgent,
    /// A sign-in that was good until its time was over.
    ExpiredBrowser,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    In,
    Unauthenticated,
    Forbidden,
    SentToSignIn,
}

const EVERYBODY: [Who; 9] = [
    Who::Nobody,
    Who::WrongToken,
    Who::Admin,
    Who::Browser,
    Who::ForeignPage,
    Who::AgentSession,
    Who::OtherMachine,
    Who::ExpiredAgent,
    Who::ExpiredBrowser,
];

/// Routes that anybody may call. Each one more is a decision: write its reason beside it.
const OPEN: [(&str, &str); 7] = [
    ("GET", "/healthz"),                       // for those who watch the process
    ("GET", "/readyz"),                        // the same; says what is wrong, no more
    ("GET", "/boot/phone-home/{capability}"),  // the path is the proof
    ("POST", "/boot/phone-home/{capability}"), // the same
    ("GET", "/login"),                         // the way in
    ("POST", "/login"),                        // the way in
    ("GET", "/assets/{file}"),                 // style and script of the way in
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
        // Another machine is let in, and then sees its own things only: `identity.rs` has that.
        (Access::Image | Access::Agent, W::AgentSession | W::OtherMachine) => G::In,
        (Access::Person | Access::Page, W::AgentSession | W::OtherMachine) => G::Forbidden,
        // What is over is worth as much as nothing.
        (Access::Page, W::Nobody | W::WrongToken | W::ExpiredAgent | W::ExpiredBrowser) if safe => G::SentToSignIn,
        (
            Access::Person | Access::Page | Access::Image,
            W::Nobody | W::WrongToken | W::ExpiredAgent | W::ExpiredBrowser,
        ) => G::Unauthenticated,
        // A session is not the token of a boot.
        (Access::BootToken | Access::Agent, _) => G::Unauthenticated,
    }
}

async fn ask(bench: &Bench, sessions: &Sessions, route: &Route, who: Who) -> Got {
    let path = route
        .path
        .replace("{name}", "nobody-has-this-name")
        .replace("{plural}", "templates")
        .replace("{verb}", "retry")
        .replace("{file}", "app.css")
        .replace("{capability}", "x")
        .replace("{*path}", "none.raw");
    assert!(!path.contains('{'), "{}: say what stands for its parameters", route.path);
    let mut request = Request::builder().method(&route.method).uri(&path);
    if !safe(route) {
        request = request.header("content-type", "application/json").header("host", "10.9.0.1:3000");
    }
    request = match who {
        Who::Nobody => request,
        Who::WrongToken => request.header("authorization", "Bearer wrong"),
        Who::Admin => request.header("authorization", format!("Bearer {TOKEN}")),
        Who::Browser => request.header("cookie", bench.cookie()).header("origin", "https://10.9.0.1:3000"),
        Who::ForeignPage => request.header("cookie", bench.cookie()).header("origin", "https://evil.example"),
        Who::AgentSession => request.header("authorization", format!("Bearer {}", sessions.this)),
        Who::OtherMachine => request.header("authorization", format!("Bearer {}", sessions.other)),
        Who::ExpiredAgent => request.header("authorization", format!("Bearer {}", sessions.over)),
        Who::ExpiredBrowser => request.header("cookie", &sessions.signed_out),
    };
    let body = if route.path.ends_with("/hello") { serde_json::to_string(&hello()).unwrap() } else { "{}".to_owned() };
    let response = bench.send(request.body(Body::from(body)).unwrap()).await;
    match response.status() {
        StatusCode::UNAUTHORIZED => Got::Unauthenticated,
        StatusCode::FORBIDDEN => Got::Forbidden,
        StatusCode::SEE_OTHER if response.headers()["location"] == "/login" && route.path != "/logout" => {
            Got::SentToSignIn
        }
        _ => Got::In,
    }
}

struct Sessions {
    this: String,
    other: String,
    over: String,
    signed_out: String,
}

async fn sessions(bench: &Bench) -> Sessions {
    let over = bench.session_of("52:54:00:ab:cd:03".parse().unwrap()).await.reveal().to_owned();
    let signed_out = bench.cookie();
    let long =
        bench.app.engine.session_machine(&over).await.map(|_| std::time::Duration::from_secs(32 * 24 * 3600)).unwrap();
    bench.clock.advance(long);
    let this = bench.session().await.reveal().to_owned();
    let other = bench.session_of("52:54:00:ab:cd:02".parse().unwrap()).await.reveal().to_owned();
    Sessions { this, other, over, signed_out }
}

fn safe(route: &Route) -> bool {
    matches!(route.method, Method::GET | Method::HEAD)
}

#[tokio::test]
async fn every_route_admits_exactly_whom_it_should() {
    let bench = bench().await;
    let sessions = sessions(&bench).await;
    let table = table(&bench.app);
    assert!(table.len() > 30, "the table is the router's");
    let mut wrong = Vec::new();
    for route in &table {
        for who in EVERYBODY {
            let got = ask(&bench, &sessions, route, who).await;
            // These judge by themselves what they were sent; who sends it makes no difference.
            let judges = matches!((route.access, route.path), (Access::Open, path) if path == "/login" && !safe(route) || path.starts_with("/boot/phone-home"));
            let want = if judges {
                ask(&bench, &sessions, route, Who::Nobody).await
            } else {
                expected(route.access, safe(route), who)
            };
            if got != want && !(judges && route.path == "/login") {
                wrong.push(format!("{} {} as {who:?}: {got:?}, wanted {want:?}", route.method, route.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_list_of_open_routes_is_short_and_known() {
    let bench = bench().await;
    let mut open: Vec<(String, &str)> = table(&bench.app)
        .iter()
        .filter(|route| route.access == Access::Open)
        .map(|route| (route.method.to_string(), route.path))
        .collect();
    open.sort();
    let mut known: Vec<(String, &str)> = OPEN.iter().map(|(method, path)| ((*method).to_owned(), *path)).collect();
    known.sort();
    assert_eq!(open, known);
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
    bench.session().await;
    assert_eq!(rest(&agent).await.0, StatusCode::UNAUTHORIZED, "a later agent speaks for the machine");
}
