//! The whole server on a real port: TLS and plain HTTP, strangers that are slow, an orderly end, and the
//! command line against it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dragonfly_server::auth::Auth;
use dragonfly_server::config::{Config, Options};
use dragonfly_server::serve::{Server, start};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    pin: String,
    dir: TempDir,
    auth: Arc<Auth>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

fn config(dir: &Path) -> Config {
    let options = Options {
        host: Some("127.0.0.1".parse().unwrap()),
        port: Some(0),
        data: Some(dir.to_owned()),
        ..Options::default()
    };
    options.settle().unwrap()
}

async fn run() -> Running {
    run_in(tempfile::tempdir().unwrap()).await
}

async fn run_in(dir: TempDir) -> Running {
    let stop = CancellationToken::new();
    let server: Server = start(config(dir.path()), stop.clone()).await.unwrap();
    let (address, pin) = (server.address(), server.pin().to_owned());
    let auth = Arc::clone(&server.app().auth);
    Running { address, pin, dir, auth, stop, task: tokio::spawn(server.run()) }
}

impl Running {
    /// Ends it in order, and leaves its data.
    async fn end(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.dir
    }
}

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The command line, as another process would run it.
async fn dragonfly(server: &Running, url: &str, pin: Option<&str>, words: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
    command.args(words).env_clear().env("DRAGONFLY_SERVER", url).env("DRAGONFLY_DATA", server.dir.path());
    if let Some(pin) = pin {
        command.env("DRAGONFLY_PIN", pin);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_speaks_both_and_ends_in_order() {
    let server = run().await;
    let plain = raw(server.address, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
    let foreign = raw(server.address, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    let url = format!("https://{}", server.address);
    let listed = dragonfly(&server, &url, Some(&server.pin), &["get", "machines"], "").await;
    assert!(listed.status.success(), "{}", err(&listed));

    // A stream of events is open when the server is told to stop.
    let token = std::fs::read_to_string(server.dir.path().join("admin.token")).unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /dragonfly/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0u8; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let begun = Instant::now();
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "took {:?}", begun.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
    // The store was closed in order: another server may open it.
    let stop = CancellationToken::new();
    start(config(server.dir.path()), stop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_outlives_a_restart() {
    let server = run().await;
    let sessions = [(); 2].map(|()| server.auth.new_session().unwrap());
    let [out, other] = sessions.each_ref().map(|session| format!("dragonfly_session={}", session.reveal()));
    let ask = |what: &str, cookie: &str| {
        format!(
            "{what} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n\r\n"
        )
    };
    let page = raw(server.address, &ask("GET /", &out)).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let left = raw(server.address, &ask("POST /logout", &out)).await;
    assert!(left.starts_with("HTTP/1.1 303"), "{left}");
    let dir = server.end().await;

    let server = run_in(dir).await;
    let page = raw(server.address, &ask("GET /", &out)).await;
    assert!(page.starts_with("HTTP/1.1 303") && page.contains("location: /login"), "{page}");
    let page = raw(server.address, &ask("GET /", &other)).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    // What cannot be written down is said; here and now it counts all the same.
    std::fs::create_dir_all(server.dir.path().join("signed-out.draft/x")).unwrap();
    let left = raw(server.address, &ask("POST /logout", &other)).await;
    assert!(left.starts_with("HTTP/1.1 500") && left.contains("could not write that down"), "{left}");
    let page = raw(server.address, &ask("GET /", &other)).await;
    assert!(page.starts_with("HTTP/1.1 303"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_with_a_key_that_is_none() {
    for (file, content, what) in [
        ("http.key", "", "it is empty"),
        ("http.key", "junk", "it holds 4 bytes, and a key is 32 bytes"),
        ("sealing.key", "", "it is empty"),
        ("sealing.key", &"\0".repeat(32), "all of its bytes are the same"),
        ("admin.token", "", "at least 32 characters"),
        ("tls/key.pem", "", "mend it, or delete cert.pem and key.pem"),
        ("tls/cert.pem", "junk", "mend it, or delete cert.pem and key.pem"),
        ("signed-out", "junk\n", "line 1 cannot be read"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        start(config(dir.path()), CancellationToken::new()).await.unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, content).unwrap();
        let error = format!("{:#}", start(config(dir.path()), CancellationToken::new()).await.unwrap_err());
        assert!(error.contains(path.to_str().unwrap()) && error.contains(what), "{file}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "{file} is left as it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_is_asked_is_told_once() {
    let server = run().await;
    let (here, evil) = (server.address.to_string(), "evil.example");
    let cookie = format!("Cookie: dragonfly_session={}\r\n", server.auth.new_session().unwrap().reveal());
    let origin = |host: &str| format!("{cookie}Origin: http://{host}\r\nContent-Length: 0\r\n");
    let host = |name: &str| format!("Host: {name}\r\n");
    for (what, headers, want) in [
        ("GET /login", host(&here), 200),
        ("GET /login", host(&here) + &host(&here), 400),
        ("GET /login", host(&here) + &host(evil), 400),
        ("GET /login", host(evil) + &host(&here), 400),
        ("GET /healthz", host(&here) + &host(evil), 400),
        ("GET /healthz", host(evil), 200),
        ("GET /login", String::new(), 400),
        ("GET /login", host("evil.example@127.0.0.1"), 400),
        // RFC 9112 section 3.2.2: the target counts, and Host does not.
        (&format!("GET http://{evil}/login"), host(&here), 421),
        (&format!("GET http://{here}/login"), host(evil), 200),
        (&format!("GET http://{here}/login"), host(&here) + &host(evil), 400),
        (&format!("GET http://x@{here}/login"), host(&here), 400),
        // Where a page of ours may change something, too.
        (&format!("POST http://{here}/logout"), host(evil) + &origin(evil), 403),
        (&format!("POST http://{here}/logout"), host(evil) + &origin(&here), 303),
    ] {
        let request = format!("{what} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        let answer = raw(server.address, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {want} ")), "{request}{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pinned_key_is_trusted() {
    let server = run().await;
    let url = format!("https://{}", server.address);
    let unknown = dragonfly(&server, &url, None, &["get", "machines"], "").await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains(&server.pin) && err(&unknown).contains("--pin"), "{}", err(&unknown));
    let wrong = dragonfly(&server, &url, Some(&"ab".repeat(32)), &["get", "machines"], "").await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("not trusted"), "{}", err(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_listed_page_by_page() {
    let server = run().await;
    let url = format!("http://{}", server.address);
    let machine = |n: usize| {
        format!(
            "---\napiVersion: dragonfly.computer/v1\nkind: Hardware\n\
             metadata: {{ name: node-{n:04}, labels: {{ half: h{} }} }}\nspec: {{ serial: SN-{n:04} }}\n",
            n % 2
        )
    };
    // More than the server gives at once.
    let many: String = (0..1003).map(machine).collect();
    let applied = dragonfly(&server, &url, None, &["apply", "-f", "-"], &many).await;
    assert!(applied.status.success(), "{}", err(&applied));
    for (words, want) in [
        (&["get", "machines"][..], 1003),
        (&["get", "machines", "-l", "half=h1", "-o", "wide"], 501),
        (&["get", "machines", "node-0007", "NODE-0008"], 2),
        (&["get", "machines", "-o", "name"], 1003),
    ] {
        let listed = dragonfly(&server, &url, None, words, "").await;
        assert!(listed.status.success(), "{words:?}: {}", err(&listed));
        let names: std::collections::BTreeSet<_> =
            out(&listed).lines().filter(|line| line.contains("node-")).map(str::to_owned).collect();
        assert_eq!(names.len(), want, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_people_and_scripts() {
    let server = run().await;
    let url = format!("http://{}", server.address);
    let network = "{apiVersion: dragonfly.computer/v1, kind: Network, metadata: {name: lab}, \
                   spec: {interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24}}";
    let applied = dragonfly(&server, &url, None, &["apply", "-f", "-"], network).await;
    assert_eq!(out(&applied), "network/lab created\n", "{}", err(&applied));
    let again = dragonfly(&server, &url, None, &["apply", "-f", "-"], network).await;
    assert_eq!(out(&again), "network/lab unchanged\n");

    let json = dragonfly(&server, &url, None, &["get", "network", "lab", "-o", "json"], "").await;
    let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(object["spec"]["subnet"], "10.9.0.0/24");
    let yaml = dragonfly(&server, &url, None, &["get", "network", "lab", "-o", "yaml"], "").await;
    let back = dragonfly(&server, &url, None, &["apply", "-f", "-"], &out(&yaml)).await;
    assert_eq!(out(&back), "network/lab unchanged\n", "{}\n{}", out(&yaml), err(&back));
    let name = dragonfly(&server, &url, None, &["get", "net", "-o", "name"], "").await;
    assert_eq!(out(&name), "network/lab\n");

    let wrong = dragonfly(
        &server,
        &url,
        None,
        &["apply", "-f", "-"],
        "apiVersion: dragonfly.computer/v1\nkind: Network\nmetadata: {name: x}\nspec:\n  interfase: eth0\n",
    )
    .await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("interfase") && err(&wrong).contains("line 5"), "{}", err(&wrong));
    let missing = dragonfly(&server, &url, None, &["get", "template", "none"], "").await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("none"), "{}", err(&missing));
    let usage = dragonfly(&server, &url, None, &["assign", "x"], "").await;
    assert_eq!(usage.status.code(), Some(2));
    assert!(err(&usage).contains("--template"), "{}", err(&usage));
    let named = dragonfly(&server, &url, None, &["name", "52:54:00:ab:cd:01"], "").await;
    assert_eq!(out(&named), "CensusAbleQualityParent\n");
    let why = dragonfly(&server, &url, None, &["why", "52:54:00:ab:cd:01"], "").await;
    assert!(out(&why).contains("discover"), "{}{}", out(&why), err(&why));
    // Nothing is destroyed without a person's word, and a script's word is --yes.
    let ask = dragonfly(&server, &url, None, &["assign", "m", "-t", "t", "--overwrite", "all"], "").await;
    assert!(err(&ask).contains("--yes"), "{}", err(&ask));
    let deleted = dragonfly(&server, &url, None, &["delete", "network", "lab"], "").await;
    assert_eq!(out(&deleted), "network/lab deleted\n", "{}", err(&deleted));
    let link = dragonfly(&server, &url, None, &["login"], "").await;
    assert!(out(&link).starts_with(&format!("{url}/login?once=")), "{}{}", out(&link), err(&link));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_never_sent_in_the_clear_over_a_network() {
    let server = run().await;
    let far = dragonfly(&server, "http://192.0.2.1:3000", None, &["get", "machines"], "").await;
    assert_eq!(far.status.code(), Some(1));
    assert!(err(&far).contains("https"), "{}", err(&far));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_is_refused_in_clear_words() {
    let server = run().await;
    let error = start(config(server.dir.path()), CancellationToken::new()).await.unwrap_err();
    let text = dragonfly_server::http::chain(error.as_ref());
    assert!(text.contains("store") && text.contains("another"), "{text}");
}

mod strangers {
    //! The listener alone, with short limits.

    use super::*;
    use axum::Router;
    use axum::routing::get;
    use dragonfly_server::listen::{Connection, Limits, serve};
    use dragonfly_server::tls;

    async fn listener(limits: Limits) -> (SocketAddr, CancellationToken) {
        let dir = tempfile::tempdir().unwrap();
        let tls = tls::server(dir.path(), &["localhost".to_owned()]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let app =
            Router::new().route("/", get(|about: axum::Extension<Connection>| async move { format!("{}", about.tls) }));
        tokio::spawn(serve(listener, tls.config, app, limits, stop.clone()));
        (address, stop)
    }

    fn short() -> Limits {
        let second = Duration::from_secs(1);
        Limits { connections: 4, handshake: second, head: second, stall: second, stop: second }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_says_nothing_or_little_is_cut_off() {
        let (address, _stop) = listener(short()).await;
        for opening in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "\u{16}", "\u{16}\u{3}\u{1}"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let mut rest = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
            assert!(read.is_ok(), "{opening:?} was held for {:?}", begun.elapsed());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crowd_that_holds_every_place_leaves_room_again() {
        let (address, _stop) = listener(short()).await;
        let mut crowd = Vec::new();
        for _ in 0..12 {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = tokio::time::timeout(
            Duration::from_secs(10),
            raw(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        );
        assert!(answer.await.expect("an answer").ends_with("false"));
    }
}
