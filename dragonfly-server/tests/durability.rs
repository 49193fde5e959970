//! The real server, killed, on a full disk, with a damaged store, twice on one directory; and its backup.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const DRAGONFLY: &str = env!("CARGO_BIN_EXE_dragonfly");

/// A Network of that name and size.
fn network(name: &str, bytes: usize) -> String {
    format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Network, metadata: {{name: {name}, annotations: {{a: {}}}}}, \
         spec: {{interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24}}}}",
        "x".repeat(bytes)
    )
}

/// A server in a process of its own; killed with this.
struct Server {
    child: Child,
    url: String,
    data: PathBuf,
    /// What it said until it listened.
    said: String,
}

fn serving(data: &Path) -> Vec<String> {
    ["--data", data.to_str().unwrap(), "--host", "127.0.0.1", "--port", "0"].map(str::to_owned).into()
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(DRAGONFLY);
        Self::spawn(command.args(serving(data)), data)
    }

    fn spawn(command: &mut Command, data: &Path) -> Self {
        let mut child = command.env_remove("DRAGONFLY_DATA").stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let url = loop {
            let from = said.len();
            assert!(lines.read_line(&mut said).unwrap() > 0, "the server ended: {said}");
            if let Some((_, address)) = said[from..].split_once(" listens on ") {
                break format!("http://{}", address.trim());
            }
        };
        // It must not wait for who reads its log.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, url, data: data.to_owned(), said }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn command(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(DRAGONFLY);
        command.args(words).env_clear().env("DRAGONFLY_SERVER", &self.url).env("DRAGONFLY_DATA", &self.data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Writes a Network of that name and size; what was said when it failed.
    fn apply(&self, name: &str, bytes: usize) -> Result<(), String> {
        let output = self.command(&["apply", "-f", "-"], &network(name, bytes));
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// What `/readyz` answers: its head and body.
    fn readiness(&self) -> String {
        self.asked("/readyz").unwrap()
    }

    /// What is at a path by plain HTTP: its head and body.
    fn asked(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn networks(&self) -> Vec<String> {
        let output = self.command(&["get", "networks", "-o", "name"], "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.trim_start_matches("network/").to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a command says that must fail.
fn refused(words: &[&str]) -> String {
    let output = Command::new(DRAGONFLY).args(words).env_remove("DRAGONFLY_DATA").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn refused_to_serve(data: &Path) -> String {
    let words = serving(data);
    refused(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_killed_server_has_what_it_answered_and_a_second_one_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path());
    let mut names = Vec::new();
    for n in 0..3 {
        let name = format!("n{n}");
        server.apply(&name, 10).unwrap();
        names.push(name);
        let said = refused_to_serve(dir.path());
        assert!(said.contains("dragonfly.redb is in use by another process: stop that one"), "{said}");
        server.kill();
        server = Server::start(dir.path());
        assert_eq!(server.networks(), names);
    }
}

/// Somewhere to write to where there is never room.
fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = TempDir::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut words = serving(dir.path());
    words.pop();
    words.extend([port.to_string(), "--log".to_owned(), "debug".to_owned()]);
    let mut command = Command::new(DRAGONFLY);
    let child = command.args(words).env_remove("DRAGONFLY_DATA").stderr(full()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let mut server = Server { child, url, data: dir.path().to_owned(), said: String::new() };
    let begin = Instant::now();
    while server.asked("/healthz").is_err() {
        assert_eq!(server.child.try_wait().unwrap(), None, "it ended");
        assert!(begin.elapsed() < Duration::from_secs(60), "it never listened");
        std::thread::sleep(Duration::from_millis(50));
    }
    for n in 0..3 {
        let script = server.asked("/boot/52:54:00:ab:cd:01").unwrap();
        assert!(script.starts_with("HTTP/1.1 200 ") && script.contains("#!ipxe"), "{script}");
        server.apply(&format!("n{n}"), 10).unwrap();
    }
    assert!(!server.readiness().contains("panic"), "{}", server.readiness());
    assert_eq!(server.networks(), ["n0", "n1", "n2"]);
}

/// A reader that goes away is no mistake, and a full disk is told as what it is.
#[test]
fn output_that_cannot_be_written_is_told_and_one_that_nobody_reads_is_not() {
    let run = |out: Stdio| {
        let mut command = Command::new(DRAGONFLY);
        command.args(["completions", "bash"]).stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(full());
    assert_eq!(code, Some(1));
    assert!(said.contains("standard output cannot be written: No space left on device"), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // As a shell tells it of `cat`.
    assert_eq!(run(writer.into()), (Some(141), String::new()));
}

#[test]
fn a_damaged_store_is_named_and_left_alone_and_a_backup_takes_its_place() {
    let dir = TempDir::new().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.backup"));
    let (at, to) = (copy.to_str().unwrap(), data.to_str().unwrap());
    let mut server = Server::start(&data);
    server.apply("before", 10).unwrap();
    // It is taken while the server writes.
    let output = std::thread::scope(|scope| {
        let writes = scope.spawn(|| (0..3).map(|n| server.apply(&format!("while{n}"), 10)).collect::<Vec<_>>());
        let output = server.command(&["backup", at], "");
        assert!(writes.join().unwrap().iter().all(Result::is_ok));
        output
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.apply("after", 10).unwrap();
    let again = server.command(&["backup", at], "");
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"), "{again:?}");
    let left: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("backup-")), "{left:?}");
    server.kill();

    let store = data.join("dragonfly.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&store, &bytes).unwrap();
    let said = refused_to_serve(&data);
    assert!(said.contains("dragonfly.redb is damaged or is no store: move it away and restore a backup"), "{said}");
    assert!(std::fs::read(&store).unwrap() == bytes, "it may be the only copy");
    let said = refused(&["restore", at, "--data", to]);
    assert!(said.contains("dragonfly.redb is there already"), "{said}");
    assert!(std::fs::read(&store).unwrap() == bytes, "nothing is overwritten");

    std::fs::rename(&store, data.join("damaged.redb")).unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let mut one = whole.clone();
    one[whole.len() / 3] ^= 1;
    std::fs::write(&copy, &one).unwrap();
    let said = refused(&["restore", at, "--data", to]);
    assert!(said.contains("copy.backup is damaged") && said.contains("nothing was restored"), "{said}");
    assert!(!store.exists());

    std::fs::write(&copy, &whole).unwrap();
    let output = Command::new(DRAGONFLY).args(["restore", at, "--data", to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&data);
    let networks = server.networks();
    assert_eq!(networks[0], "before");
    assert!(!networks.contains(&"after".to_owned()), "{networks:?}");
    server.apply("anew", 10).unwrap();
}

/// Its store is gone from its place, and it still writes to it.
#[test]
fn nothing_is_restored_under_a_server_and_secrets_of_another_key_are_named() {
    let dir = TempDir::new().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.backup"));
    let (at, to) = (copy.to_str().unwrap(), data.to_str().unwrap());
    let mut server = Server::start(&data);
    let secret = "{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {name: rack-a1}, \
                  spec: {data: {username: admin, password: hunter2}}}";
    assert!(server.command(&["apply", "-f", "-"], secret).status.success());
    assert!(server.readiness().contains("\"warnings\":[]"), "{}", server.readiness());
    assert!(server.command(&["backup", at], "").status.success());
    let store = data.join("dragonfly.redb");
    for moved in [data.join("old.redb"), dir.path().join("elsewhere")] {
        std::fs::rename(&store, &moved).unwrap();
        let said = refused(&["restore", at, "--data", to]);
        assert!(said.contains("a server runs on this directory; stop it first"), "{said}");
        assert!(!store.exists());
        std::fs::rename(&moved, &store).unwrap();
    }
    server.apply("after", 10).unwrap();
    server.kill();

    std::fs::rename(&store, dir.path().join("elsewhere")).unwrap();
    std::fs::remove_file(data.join("sealing.key")).unwrap();
    let output = Command::new(DRAGONFLY).args(["restore", at, "--data", to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&data);
    let told = &server.said;
    assert!(told.contains("sealing.key cannot open these Secrets") && told.contains("another key: rack-a1."), "{told}");
    let answer = server.readiness();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("1 Secret was sealed with another"), "{answer}");
    assert!(!answer.contains("rack-a1"), "strangers may read it: {answer}");
    assert!(server.command(&["apply", "-f", "-"], secret).status.success());
    assert!(server.readiness().contains("\"warnings\":[]"), "{}", server.readiness());
}

/// In a mount namespace of its own, where its data directory is a small file system in memory.
#[test]
fn a_full_disk_is_told_and_the_server_goes_on_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=8m none \"$2\" && exec \"$0\" \"$@\"").arg(DRAGONFLY).args(serving(&data));
    let mut server = Server::spawn(&mut command, &data);
    // The token is in there too, and the room is taken from in there.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), data.display()));
    server.data = inside.clone();
    server.apply("before", 10).unwrap();
    assert!(!server.readiness().contains("nothing can be written"), "{}", server.readiness());

    let mut filler = std::fs::File::create(inside.join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let mut kept = vec!["before".to_owned()];
    let said = (0..20).find_map(|n| {
        // The file has some room of its own.
        let name = format!("while{n}");
        let done = server.apply(&name, 200_000);
        kept.extend(done.is_ok().then_some(name));
        done.err()
    });
    let said = said.unwrap();
    assert!(said.contains("make room on its disk") && said.contains("dragonfly.redb"), "{said}");
    // The backup goes to another disk, and is put together on this one.
    let copy = dir.path().join("copy.backup");
    let output = server.command(&["backup", copy.to_str().unwrap()], "");
    let said = String::from_utf8(output.stderr).unwrap();
    let place = format!("the disk of the server's data directory {} is full", data.display());
    assert!(said.contains(&place) && said.contains("make room there, up to "), "{said}");
    assert!(!copy.exists() && output.status.code() == Some(1));
    let there = server.networks();
    assert!(kept.iter().all(|name| there.contains(name)), "{there:?}");
    let full = format!("nothing can be written: the redb store is unavailable: the disk of {} is full", data.display());
    for _ in 0..3 {
        let answer = server.readiness();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(&full), "{answer}");
        // A small write finds room in the file itself, and the disk is full all the same.
        let small = server.apply("small", 10);
        kept.extend(small.is_ok().then(|| "small".to_owned()));
    }
    // Of several objects each is told by its name: the first is there already, for the others there is no room.
    let several: Vec<String> = (0..4).map(|n| network(&format!("many{n}"), 200_000)).collect();
    let (many, next) = (dir.path().join("many.yaml"), dir.path().join("next.yaml"));
    std::fs::write(&many, [network("before", 10), several.join("\n---\n")].join("\n---\n")).unwrap();
    std::fs::write(&next, network("next", 10)).unwrap();
    let apply = ["apply", "-f", many.to_str().unwrap(), "-f", next.to_str().unwrap()];
    let output = server.command(&apply, "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "network/before unchanged\n");
    assert!(said.contains("many.yaml: 4 of 5 objects were not written (1 written)"), "{said}");
    for n in 0..4 {
        assert!(said.contains(&format!("network/many{n}")), "{said}");
    }
    assert!(said.contains("the redb store is unavailable"), "{said}");
    assert!(said.contains("Not tried: ") && said.contains("next.yaml.\nRun the same again"), "{said}");
    let output = server.command(&[&apply[..], &["-o", "json"]].concat(), "");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(told["items"][0]["metadata"]["name"], "before");
    assert_eq!(told["failed"][3]["name"], "many3");
    assert!(told["failed"][3]["problem"].as_str().unwrap().contains("the redb store is unavailable"), "{told}");
    assert_eq!(told["notTried"][0], next.to_str().unwrap());
    let there = server.networks();
    assert!(!there.iter().any(|name| name.starts_with("many") || name == "next"), "{there:?}");

    std::fs::remove_file(inside.join("filler")).unwrap();
    drop(filler);
    let begin = Instant::now();
    while server.readiness().contains("nothing can be written") {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", server.readiness());
        std::thread::sleep(Duration::from_millis(200));
    }
    server.apply("then", 200_000).unwrap();
    // The same again does the rest.
    let output = server.command(&apply, "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("network/before unchanged\nnetwork/many0 created\n"), "{said}");
    assert!(said.ends_with("network/next created\n"), "{said}");
    let there = server.networks();
    assert!(kept.iter().all(|name| there.contains(name)) && there.contains(&"then".to_owned()), "{there:?}");
}
