//! An API server of Kubernetes and its etcd on loopback, for as long as a measurement lasts.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::http::directory;
use crate::lab::process::{Process, output, tail};

/// How long either may take to answer on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both processes and what they keep.
#[derive(Debug)]
pub(crate) struct ApiServer {
    // The API server ends before what it rests on, and their directory last.
    api: Process,
    _etcd: Process,
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl ApiServer {
    /// Starts both on an empty etcd, which syncs what it writes, and waits until the API server is ready.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let directory = directory()?;
        let at = |name: &str| directory.path().join(name);
        let (port, client, peer) = (free_port()?, free_port()?, free_port()?);
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        command
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--quota-backend-bytes", "8589934592"])
            .arg("--data-dir")
            .arg(at("etcd"));
        let etcd = Process::start("etcd", command, &at("etcd.log")).context("the package etcd-server brings it")?;
        let key = at("service-account.key");
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048")).context("a key pair")?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        private(&at("tokens.csv"), &format!("{token},bench,bench,system:masters\n"))?;
        private(&at("kubeconfig"), &kubeconfig(port, &token))?;
        private(&at("curl"), &format!("header = \"Authorization: Bearer {token}\"\n"))?;
        let mut command = Command::new(program);
        command
            .args([&format!("--etcd-servers={client}"), "--bind-address=127.0.0.1", &format!("--secure-port={port}")])
            .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
            .args(["--endpoint-reconciler-type=none", "--service-account-issuer=https://kubernetes.default.svc"])
            .arg("--service-cluster-ip-range=10.96.0.0/24")
            .arg(format!("--cert-dir={}", at("certificates").display()))
            .arg(format!("--token-auth-file={}", at("tokens.csv").display()))
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()));
        let api = Process::start("kube-apiserver", command, &at("api.log"))?;
        let mut server = Self { api, _etcd: etcd, directory, program: program.to_owned() };
        let begin = Instant::now();
        while !server.is_ready(port) {
            server.api.must_run()?;
            if begin.elapsed() > PATIENCE {
                bail!("the API server is not ready\n{}", tail(&server.directory.path().join("api.log"), 20));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// How its clients reach it, with every right.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    pub(crate) fn what(&self) -> String {
        format!("{} over TLS on loopback, one etcd on the same disk as the others", self.program.display())
    }

    fn is_ready(&self, port: u16) -> bool {
        let mut command = Command::new("curl");
        command.args(["-sSfk", "--max-time", "10", "--config"]).arg(self.directory.path().join("curl"));
        output(command.arg(format!("https://127.0.0.1:{port}/readyz"))).is_ok()
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// For its owner's eyes: the directory is made so that nobody else comes in, and what is in it too.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn kubeconfig(port: u16, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: bench, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
current-context: bench
users: [{{name: bench, user: {{token: {token}}}}}]
"
    )
}
