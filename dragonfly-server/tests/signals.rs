//! How the program ends when it is told to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use program::Server;

impl Server {
    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// How it ended, if it does within this time.
    fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            match self.child.try_wait().unwrap() {
                None if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                ended => return ended,
            }
        }
    }

    fn has_said(&self, words: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if self.said.lock().unwrap().contains(words) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

#[test]
fn each_of_the_three_signals_ends_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut server = Server::start();
        server.send(signal);
        let ended = server.ended(Duration::from_secs(30));
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{signal}: {ended:?}");
        assert!(server.has_said("stopping"), "{signal}");
    }
}

/// What a crash leaves behind holds no key: there is nothing.
#[test]
fn a_crash_leaves_no_memory_behind() {
    // Of root's own processes root is the owner anyway.
    let mut server = Server::as_nobody();
    server.ok(&["get", "machines"]);
    let about = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", server.child.id())).unwrap();
    let limits = about("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // Nobody but root may look into it while it runs either, not even who started it.
    let owner = std::fs::metadata(format!("/proc/{}/mem", server.child.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    server.send(Signal::SIGABRT);
    let status = server.ended(Duration::from_secs(30)).unwrap();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status}");
}

#[test]
fn a_second_signal_waits_for_nobody() {
    for second in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut server = Server::start();
        // A request whose body never comes is waited for.
        let mut slow = TcpStream::connect(server.address).unwrap();
        slow.write_all(
            b"POST /login HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 9\r\n\r\n",
        )
        .unwrap();
        // It has arrived when a later one was answered.
        server.ok(&["get", "machines"]);
        server.send(Signal::SIGTERM);
        assert!(server.has_said("stopping"));
        assert_eq!(server.ended(Duration::from_secs(1)), None, "it waits for the request");
        server.send(second);
        let ended = server.ended(Duration::from_secs(5));
        assert_eq!(ended.and_then(|status| status.code()), Some(1), "{second}: {ended:?}");
        assert!(server.has_said("ended at once by a second signal"));
    }
}

#[test]
fn one_that_was_started_with_nohup_stays_when_its_terminal_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_dragonfly")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.args(["--host", "127.0.0.1", "--port", "0", "--data"]).arg(dir.path().join("data"));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let child = command.spawn().unwrap();
    let said = std::sync::Arc::default();
    let mut server = Server { child, address: "127.0.0.1:1".parse().unwrap(), dir, said };
    let is_up =
        |server: &Server| std::fs::read_to_string(server.dir.path().join("log")).unwrap().contains("listens on ");
    let until = Instant::now() + Duration::from_secs(30);
    while !is_up(&server) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.send(Signal::SIGHUP);
    assert_eq!(server.ended(Duration::from_secs(1)), None, "it was told to ignore this");
    server.send(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(30)).and_then(|status| status.code()), Some(0));
}
