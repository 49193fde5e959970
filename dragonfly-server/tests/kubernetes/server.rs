//! A server of mode `swarm` in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::servers::PATIENCE;

const DRAGONFLY: &str = env!("CARGO_BIN_EXE_dragonfly");

/// A program with these words, and nothing from this process' environment but what it is told.
pub(crate) fn dragonfly(words: &[&str], kubeconfig: &Path) -> Command {
    let mut command = Command::new(DRAGONFLY);
    command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("KUBECONFIG", kubeconfig);
    command
}

/// What a command says that must go well.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Killed with this.
pub(crate) struct Served {
    child: Child,
    data: PathBuf,
    log: Arc<Mutex<String>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Served {
    /// Starts it; where its cluster is away, it waits.
    pub(crate) fn start(name: &str, data: &Path, kubeconfig: &Path) -> Self {
        let words = ["--backend", "kubernetes", "--mode", "swarm", "--host", "127.0.0.1", "--port", "0"];
        let mut command = dragonfly(&words, kubeconfig);
        command.args(["--instance", name, "--data"]).arg(data);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push_str(&(line + "\n")));
        });
        Self { child, data: data.to_owned(), log }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where it listens, when it does.
    pub(crate) fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once(" listens on ")?;
        Some(rest.split_once('\n')?.0.trim().to_owned())
    }

    /// What `/readyz` answers.
    pub(crate) fn readiness(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address()?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Whether it is ready and leads this controller.
    pub(crate) fn leads(&self, controller: &str) -> bool {
        let says = self.readiness().unwrap_or_default();
        says["leads"].as_array().is_some_and(|all| all.iter().any(|one| one == controller))
    }

    /// Waits until it is so, for as long as it runs.
    pub(crate) fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "{what}: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = dragonfly(words, Path::new("/nowhere"));
        command.env("DRAGONFLY_SERVER", format!("http://{}", self.address().unwrap()));
        command.env("DRAGONFLY_DATA", &self.data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command says that must go well.
    pub(crate) fn done(&self, words: &[&str], input: &str) -> String {
        let output = self.run(words, input);
        assert!(output.status.success(), "{words:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8(output.stdout).unwrap()
    }
}
