//! `dragonfly watch` through the whole program: it ends when what is waited for cannot come any more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use program::Server;

const OBJECTS: &str = "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: greeting }
spec:
  description: One file
  actions:
    - name: motd
      action: writefile
      with: { target: { label: root }, path: /etc/motd, content: welcome }
---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-1 }
spec: { macs: ['52:54:00:ab:cd:07'] }
";

/// The exit code of a watch of db-1, and what it said, when `then` is done once it stands.
fn watched(server: &Server, then: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
    command.args(["watch", "db-1", "--until", "ready", "--timeout", "60"]).env_clear();
    command.env("DRAGONFLY_DATA", server.dir.path().join("data"));
    command.env("DRAGONFLY_SERVER", format!("http://{}", server.address));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (line, lines) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|text| drop(line.send(text))));
    // Something that it tells: then it follows.
    while lines.recv_timeout(Duration::from_millis(300)).is_err() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before");
        server.ok(&["protect", "db-1", "--off"]);
    }
    server.ok(then);
    let done = child.wait_with_output().unwrap();
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_watch_ends_when_the_run_is_called_off_or_the_machine_deleted() {
    let server = Server::start();
    assert!(server.run(&["apply", "-f", "-"], OBJECTS).status.success());
    server.ok(&["assign", "db-1", "--template", "greeting"]);
    let (code, said) = watched(&server, &["abort", "db-1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("db-1 will not be ready, it has nothing to do any more: ") && said.contains(" off"),
        "{said}"
    );
    // Nothing is before it, and it is waited for all the same.
    let (code, said) = watched(&server, &["delete", "machine", "db-1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("db-1 was deleted: it will not be ready"), "{said}");
}
