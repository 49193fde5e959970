//! A server in a process of its own, and what it is spoken to with.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const DRAGONFLY: &str = env!("CARGO_BIN_EXE_dragonfly");

pub(crate) const TEMPLATE: &str = "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: small, labels: { age: old } }
spec:
  description: One disk
  actions:
    - name: disk
      action: image2disk
      with:
        disk: { smallest: true }
        url: /images/small.raw
        digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
";

pub(crate) const SECRET: &str = "
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: bmc }
spec: { data: { username: root, password: hunter2-hunter2 } }
";

/// On an interface that is nowhere: it says so in its status.
pub(crate) const NETWORK: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: lab }
spec: { interface: nowhere0, dhcp: full, subnet: 10.9.0.0/24, pool: { start: 10.9.0.100, end: 10.9.0.199 } }
";

pub(crate) fn machine(name: &str, card: u8, rack: &str) -> String {
    format!(
        "apiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {{ name: {name}, labels: {{ rack: {rack} }} }}\n\
         spec: {{ macs: ['52:54:00:ab:cd:{card:02x}'] }}\n"
    )
}

/// Killed with this.
pub(crate) struct Site {
    child: Child,
    url: String,
    pub(crate) dir: TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Site {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(DRAGONFLY);
        command.arg("--data").arg(dir.path().join("data")).args(["--host", "127.0.0.1", "--port", "0"]);
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
        Self { child, url, dir }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `dragonfly` with these words.
    pub(crate) fn dragonfly(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(DRAGONFLY);
        command.args(words).env_clear().env("DRAGONFLY_SERVER", &self.url).env("DRAGONFLY_DATA", self.data());
        with_input(&mut command, input)
    }

    /// The same, which must succeed: what it said on standard output.
    pub(crate) fn done(&self, words: &[&str], input: &str) -> String {
        let output = self.dragonfly(words, input);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file that `dragonfly kubeconfig` has written.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.dir.path().join("kubeconfig");
        self.done(&["kubeconfig", "--out", file.to_str().unwrap()], "");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "its owner's alone");
        file
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub(crate) fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A program of the search path.
pub(crate) fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|at| at.is_file())
}

/// Where tests must run (`CI` is set), what they need has to be there.
pub(crate) fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "this test needs {what}");
    eprintln!("skipped: {what} is not here");
}

/// A directory that outlives this run: what is fetched is fetched once.
pub(crate) fn kept() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}
