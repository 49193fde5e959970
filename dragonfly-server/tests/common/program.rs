//! The program as a process of its own, and its command line.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

/// The program, serving.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub dir: TempDir,
    pub said: Arc<Mutex<String>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more of the command line.
    pub fn with(words: &[&str]) -> Self {
        Self::serve(Command::new(env!("CARGO_BIN_EXE_dragonfly")), tempfile::tempdir().unwrap(), words)
    }

    /// As another user than root, also where the tests run as root.
    pub fn as_nobody() -> Self {
        const NOBODY: u32 = 65_534;
        if !nix::unistd::geteuid().is_root() {
            return Self::start();
        }
        let dir = tempfile::tempdir().unwrap();
        // That user may not get to where it was built.
        let program = dir.path().join("dragonfly");
        std::fs::copy(env!("CARGO_BIN_EXE_dragonfly"), &program).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
        Self::serve(command, dir, &[])
    }

    fn serve(mut command: Command, dir: TempDir, words: &[&str]) -> Self {
        command.env_clear().args(["--host", "127.0.0.1", "--port", "0", "--log", "debug,hyper=info", "--data"]);
        command
            .arg(dir.path().join("data"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let address = lines
            .by_ref()
            .map(|line| line.unwrap())
            .inspect(|line| said.lock().unwrap().push_str(line))
            .find_map(|line| line.split_once("listens on ").map(|(_, address)| address.trim().parse().unwrap()))
            .expect("the server says where it listens");
        let kept = Arc::clone(&said);
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push_str(&line)));
        Self { child, address, dir, said }
    }

    pub fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
        command.args(words).env_clear().env("DRAGONFLY_DATA", self.dir.path().join("data"));
        command.env("DRAGONFLY_SERVER", format!("http://{}", self.address));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let mut said = self.said.lock().unwrap();
        said.push_str(&String::from_utf8_lossy(&done.stdout));
        said.push_str(&String::from_utf8_lossy(&done.stderr));
        done
    }

    /// What a command says that goes well.
    pub fn ok(&self, words: &[&str]) -> String {
        let done = self.run(words, "");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a command says that fails: standard output and error.
    pub fn fails(&self, words: &[&str]) -> (String, String) {
        let done = self.run(words, "");
        assert_eq!(done.status.code(), Some(1), "{words:?}: {}", String::from_utf8_lossy(&done.stdout));
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
