//! The real server on this store: killed, twice on one directory, with a damaged file, on a full disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dragonfly-sqlite");

fn serving(data: &Path) -> Vec<String> {
    let words = ["--backend", "sqlite", "--data", data.to_str().unwrap(), "--host", "127.0.0.1", "--port", "0"];
    words.map(str::to_owned).into()
}

/// A server in a process of its own; killed with this.
struct Server {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::spawn(Command::new(PROGRAM).args(serving(data)), data)
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
        Self { child, url, data: data.to_owned() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn command(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(words).env_clear().env("DRAGONFLY_SERVER", &self.url).env("DRAGONFLY_DATA", &self.data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Writes a Network of that name and size; what was said when it failed.
    fn apply(&self, name: &str, bytes: usize) -> Result<(), String> {
        let text = "x".repeat(bytes);
        let network = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Network, metadata: {{name: {name}, annotations: {{a: {text}}}}}, \
             spec: {{interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24}}}}"
        );
        let output = self.command(&["apply", "-f", "-"], &network);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
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

/// What a server says that must not start.
fn refused(data: &Path) -> String {
    let output = Command::new(PROGRAM).args(serving(data)).env_remove("DRAGONFLY_DATA").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
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
        let said = refused(dir.path());
        assert!(said.contains("dragonfly.sqlite is in use by another process: stop that one"), "{said}");
        server.kill();
        server = Server::start(dir.path());
        assert_eq!(server.networks(), names);
    }
    let output = server.command(&["backup", dir.path().join("copy").to_str().unwrap()], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is backed up where it is kept"), "{said}");
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(dir.path());
    server.apply("before", 10).unwrap();
    server.kill();
    let path = dir.path().join("dragonfly.sqlite");
    for (spoilt, want) in [(4096, "move it away and restore a backup"), (0, "does not begin as an SQLite file does")] {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(bytes.len().max(4 * 4096), 0);
        bytes[spoilt..].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        // What is in there lies over the file's pages.
        std::fs::remove_file(dir.path().join("dragonfly.sqlite-wal")).ok();
        let said = refused(dir.path());
        assert!(said.contains("dragonfly.sqlite is damaged or is no store") && said.contains(want), "{said}");
        assert!(std::fs::read(&path).unwrap() == bytes, "it may be the only copy");
    }
}

/// In a mount namespace of its own, where its data directory is a small file system in memory.
#[test]
fn a_full_disk_is_told_and_the_server_goes_on_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=8m none \"$4\" && exec \"$0\" \"$@\"").arg(PROGRAM).args(serving(&data));
    let mut server = Server::spawn(&mut command, &data);
    // The token is in there too, and the room is taken from in there.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), data.display()));
    server.data = inside.clone();
    server.apply("before", 10).unwrap();

    let mut filler = std::fs::File::create(inside.join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let mut kept = vec!["before".to_owned()];
    let said = (0..40).find_map(|n| {
        // The WAL has some room of its own.
        let name = format!("while{n}");
        let done = server.apply(&name, 200_000);
        kept.extend(done.is_ok().then_some(name));
        done.err()
    });
    let said = said.unwrap();
    assert!(said.contains("make room on its disk") && said.contains("dragonfly.sqlite"), "{said}");
    let there = server.networks();
    assert!(kept.iter().all(|name| there.contains(name)), "{there:?}");

    std::fs::remove_file(inside.join("filler")).unwrap();
    drop(filler);
    server.apply("then", 200_000).unwrap();
    let there = server.networks();
    assert!(kept.iter().all(|name| there.contains(name)) && there.contains(&"then".to_owned()), "{there:?}");
}
