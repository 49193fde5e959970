//! What a foreign page, a foreign name or a stranger's bytes may not do: each table is generated from the
//! router's, so that a new route is in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use common::{TOKEN, bench};
use dragonfly_server::config::Options;
use dragonfly_server::http::{Access, Route, table};
use dragonfly_server::serve::start;
use futures_util::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn path(route: &Route) -> String {
    let path = route
        .path
        .replace("{name}", "nobody-has-this-name")
        .replace("{plural}", "templates")
        .replace("{verb}", "retry")
        .replace("{file}", "app.css")
        .replace("{capability}", "x")
        .replace("{*path}", "none.raw");
    assert!(!path.contains('{'), "{}: say what stands for its parameters", route.path);
    path
}

fn changes(route: &Route) -> bool {
    !matches!(route.method, Method::GET | Method::HEAD)
}

/// A server on a port of its own, and its routes.
struct Running {
    address: SocketAddr,
    token: String,
    table: Vec<Route>,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        host: Some("127.0.0.1".parse().unwrap()),
        port: Some(0),
        data: Some(dir.path().join("data")),
        ..Options::default()
    };
    let stop = CancellationToken::new();
    let server = start(options.settle().unwrap(), stop.clone()).await.unwrap();
    let (address, table) = (server.address(), table(server.app()));
    let token = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap().trim().to_owned();
    tokio::spawn(server.run());
    Running { address, token, table, dir, stop }
}

impl Running {
    /// Sends bytes, reads until the server closes or says nothing for a while.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have answered and gone before all of it is sent.
        let _ = stream.write_all(request).await;
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        let wait = std::time::Duration::from_secs(2);
        while let Ok(Ok(got @ 1..)) = tokio::time::timeout(wait, stream.read(&mut buffer)).await {
            answer.extend_from_slice(&buffer[..got]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_pointed_at_us_opens_nothing() {
    let server = run().await;
    for route in &server.table {
        let firmware = ["/boot/", "/images/", "/healthz", "/readyz"].iter().any(|open| route.path.starts_with(open));
        for (host, ours) in [("evil.example", false), ("127.0.0.1.evil.example:3000", false), ("127.0.0.1:3000", true)]
        {
            let request = format!(
                "{} {} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                route.method,
                path(route),
                server.token
            );
            // An endless answer is as good as its head.
            if ours && route.path.contains("events") {
                continue;
            }
            let answer = server.raw(request.as_bytes()).await;
            assert_eq!(
                status(&answer) == 421,
                !ours && !firmware,
                "{} {} as {host}: {answer}",
                route.method,
                route.path
            );
        }
    }
}

#[tokio::test]
async fn a_foreign_page_changes_nothing_whatever_its_browser_says() {
    let bench = bench().await;
    for route in table(&bench.app).iter().filter(|route| changes(route)) {
        // These look at no cookie: what they take stands in the request itself.
        if matches!(route.access, Access::BootToken | Access::Agent) || route.path.starts_with("/boot/") {
            continue;
        }
        for told in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "https://10.9.0.1:3001")],
            &[("origin", "https://10.9.0.1:3000.evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://10.9.0.1:3000")],
            &[("sec-fetch-site", "none")],
            &[("referer", "https://10.9.0.1:3000/")],
            &[],
        ] {
            let mut request = Request::builder().method(&route.method).uri(path(route));
            request = request.header("host", "10.9.0.1:3000").header("cookie", bench.cookie());
            for (name, value) in told {
                request = request.header(*name, *value);
            }
            let body = format!("token={TOKEN}&template=small&on=true&reason=x");
            let form = request.header("content-type", "application/x-www-form-urlencoded");
            let response = bench.send(form.body(Body::from(body)).unwrap()).await;
            let set = response.headers().contains_key("set-cookie");
            assert_eq!(
                (response.status(), set),
                (StatusCode::FORBIDDEN, false),
                "{} {} {told:?}",
                route.method,
                route.path
            );
        }
    }
}

/// A body without an end, which counts what is taken of it.
struct Endless(Arc<AtomicUsize>);

impl Stream for Endless {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        const PIECE: usize = 1024;
        let taken = self.0.fetch_add(PIECE, Ordering::Relaxed);
        assert!(taken < 64 << 20, "nothing stops it");
        Poll::Ready(Some(Ok(Bytes::from_static(&[b' '; PIECE]))))
    }
}

#[tokio::test]
async fn no_route_reads_more_than_it_says() {
    let bench = bench().await;
    let session = bench.session().await.reveal().to_owned();
    let boot = bench.boot_token().await.reveal().to_owned();
    for route in table(&bench.app).iter().filter(|route| changes(route)) {
        let most = match (&route.method, route.access) {
            (&Method::DELETE, Access::Person) => 64 << 10,
            (&Method::DELETE, _) => 0,
            (_, Access::Open) => 4 << 10,
            (_, Access::Page) => 64 << 10,
            _ => match route.path.rsplit('/').next().unwrap() {
                "hello" => 512 << 10,
                "work" => 4 << 10,
                "report" | "bmc-account" => 128 << 10,
                _ => 1 << 20,
            },
        };
        assert_eq!(route.body, most, "{} {}: its limit is stated here too", route.method, route.path);
        for (who, bearer, most) in [
            (
                "nobody",
                "",
                if route.path.ends_with("/hello") {
                    32 << 10
                } else if route.access == Access::Open {
                    most
                } else {
                    0
                },
            ),
            ("an agent", session.as_str(), if route.path.ends_with("/hello") { 32 << 10 } else { most }),
            ("a boot", boot.as_str(), most),
            ("the admin", TOKEN, if route.path.ends_with("/hello") { 32 << 10 } else { most }),
        ] {
            for announced in [false, true] {
                let taken = Arc::new(AtomicUsize::new(0));
                let mut request = Request::builder().method(&route.method).uri(format!("{}?offset=0", path(route)));
                request = request.header("content-type", "application/json").header("sec-fetch-site", "same-origin");
                if !bearer.is_empty() {
                    request = request.header("authorization", format!("Bearer {bearer}"));
                }
                if announced {
                    request = request.header("content-length", (64 << 20).to_string());
                }
                let response = bench.send(request.body(Body::from_stream(Endless(Arc::clone(&taken)))).unwrap()).await;
                let (taken, status) = (taken.load(Ordering::Relaxed), response.status());
                assert!(taken <= most + 2048, "{} {} as {who}: {taken} bytes were read", route.method, route.path);
                assert!(taken < most || status.is_client_error() || most == 0, "{} as {who}: {status}", route.path);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_a_directory() {
    let server = run().await;
    let data = server.dir.path().join("data");
    std::fs::write(data.join("secret"), "marked-secret").unwrap();
    for root in ["images", "boot"] {
        std::fs::write(data.join(root).join("inside"), "fine").unwrap();
        std::os::unix::fs::symlink(data.join("secret"), data.join(root).join("link")).unwrap();
        std::os::unix::fs::symlink(&data, data.join(root).join("up")).unwrap();
    }
    let absolute = data.join("secret").display().to_string();
    let encoded = absolute.replace('/', "%2f");
    for root in ["/images", "/boot/files"] {
        let get = |path: &str| {
            format!(
                "GET {root}/{path} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                server.token
            )
        };
        let fine = server.raw(get("inside").as_bytes()).await;
        assert!(fine.ends_with("fine"), "{fine}");
        for escape in [
            "../secret",
            "%2e%2e/secret",
            "..%2fsecret",
            "%2e%2e%2fsecret",
            "%252e%252e%252fsecret",
            "..%5csecret",
            "..\\secret",
            "x/../../secret",
            "./../secret",
            "....//secret",
            "..;/secret",
            "%c0%ae%c0%ae/secret",
            "\u{ff0e}\u{ff0e}/secret",
            "inside%00/../../secret",
            "inside%00",
            "secret%00.raw",
            "link",
            "up/secret",
            "up/../secret",
            "/secret",
            &absolute,
            &encoded,
            "",
            ".",
            "..",
            "inside/",
            "%0d%0aSet-Cookie:%20x=y",
        ] {
            let answer = server.raw(get(escape).as_bytes()).await;
            assert!(!answer.contains("marked-secret"), "{root}/{escape}: {answer}");
            assert!(matches!(status(&answer), 400 | 404), "{root}/{escape}: {answer}");
            let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase();
            assert!(!head.contains("\nset-cookie"), "{root}/{escape}: {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_framing_that_are_out_of_bounds_are_refused() {
    let server = run().await;
    let long = "a".repeat(40_000);
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let post =
        |framing: &str, body: &str| format!("POST /boot/phone-home/x HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}");
    for (what, request) in [
        ("a long path", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a long query", format!("GET /healthz?{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a long field", format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n")),
        ("many fields", format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        ("no method", "\r\n\r\n\0\0\0 / HTTP/1.1\r\n\r\n".to_owned()),
        ("a field with a line break of its own", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n".to_owned()),
        ("a space before the colon", "GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n".to_owned()),
        ("a length and chunks", post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}"))),
        ("chunks and a length", post("Transfer-Encoding: chunked\r\nContent-Length: 4", &format!("0\r\n\r\n{hidden}"))),
        ("two lengths", post("Content-Length: 4\r\nContent-Length: 40", &format!("abcd{hidden}"))),
        ("a length that is none", post("Content-Length: +4", &format!("abcd{hidden}"))),
        ("chunks that are none", post("Transfer-Encoding: xchunked", &format!("0\r\n\r\n{hidden}"))),
        ("chunks within something else", post("Transfer-Encoding: chunked, identity", &format!("0\r\n\r\n{hidden}"))),
        ("a chunk whose length is none", post("Transfer-Encoding: chunked", &format!("zz\r\n{hidden}"))),
    ] {
        let answer = server.raw(request.as_bytes()).await;
        // 401 is that route's own answer, which does not look at its body: what counts is that nothing follows.
        assert!(answer.is_empty() || matches!(status(&answer), 400 | 401 | 404 | 414 | 431), "{what}: {answer}");
        assert!(!answer.contains("200 OK"), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: it was read as two requests: {answer}");
    }
    // It is not the first that refuses: it answers what is in bounds.
    let fine = server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
}

#[tokio::test]
async fn nothing_is_unpacked_that_was_sent() {
    let bench = bench().await;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b' '; 16 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    for (path, kind) in
        [("/dragonfly/v1/apply", "application/yaml"), ("/dragonfly/v1/machines/x/assign", "application/json")]
    {
        let request = Request::builder().method(Method::POST).uri(path).header("content-encoding", "gzip");
        let request = request.header("content-type", kind).header("authorization", format!("Bearer {TOKEN}"));
        let response = bench.send(request.body(Body::from(bomb.clone())).unwrap()).await;
        assert!(response.status().is_client_error(), "{path}: {}", response.status());
    }
}
