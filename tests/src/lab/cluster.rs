//! A Kubernetes API server with etcd, in the lab's namespace: where several servers keep their state.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::artifacts;
use super::interrupt::Interrupt;
use super::namespace::{Door, SERVER};
use super::process::{Process, output, tail};

/// Where the API server answers, from every host on the bridge.
const PORT: u16 = 6443;
const ETCD: &str = "http://127.0.0.1:2379";
/// The lab's network has no other hosts than the lab's, and goes with it.
const TOKEN: &str = "lab-administrator";
/// How long either may take to answer on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both processes; they end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    door: Door,
    directory: PathBuf,
    // The API server ends before what it rests on.
    api: Process,
    etcd: Option<Process>,
}

impl Cluster {
    /// Starts both on an empty etcd and waits until the API server is ready.
    pub(crate) fn start(door: &Door, directory: &Path, interrupt: &Interrupt) -> Result<Self> {
        let program = program()?;
        let directory = directory.join("cluster");
        std::fs::create_dir_all(&directory)?;
        let etcd = start_etcd(door, &directory)?;
        let key = directory.join("service-account.key");
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048")).context("a key pair")?;
        let tokens = directory.join("tokens.csv");
        std::fs::write(&tokens, format!("{TOKEN},lab,lab,system:masters\n"))?;
        let mut command = door.command(&program);
        command
            .args([&format!("--etcd-servers={ETCD}"), "--bind-address=0.0.0.0", &format!("--secure-port={PORT}")])
            .args([&format!("--advertise-address={SERVER}"), "--service-cluster-ip-range=10.96.0.0/24"])
            .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
            .args(["--endpoint-reconciler-type=none", "--service-account-issuer=https://kubernetes.default.svc"])
            .arg(format!("--cert-dir={}", directory.join("certificates").display()))
            .arg(format!("--token-auth-file={}", tokens.display()))
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()));
        let api = Process::start("kube-apiserver", command, &directory.join("api.log"))?;
        let mut cluster = Self { door: door.clone(), directory, api, etcd: Some(etcd) };
        std::fs::write(cluster.kubeconfig(), kubeconfig())?;
        let ready = interrupt.wait_until(Instant::now() + PATIENCE, || {
            cluster.api.must_run().is_err() || cluster.answers("/readyz").is_ok()
        });
        cluster.api.must_run()?;
        interrupt.check()?;
        if !ready {
            bail!("the API server is not ready\n{}", tail(&cluster.directory.join("api.log"), 20));
        }
        Ok(cluster)
    }

    /// How its clients reach it, with every right.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    fn answers(&self, path: &str) -> Result<String> {
        let mut command = self.door.command("curl");
        command.args(["-sSfk", "--max-time", "5", "-H", &format!("Authorization: Bearer {TOKEN}")]);
        output(command.arg(format!("https://127.0.0.1:{PORT}{path}")))
    }

    /// Ends etcd as a power cut would.
    pub(crate) fn kill_etcd(&mut self) {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill();
        }
    }

    /// Starts etcd again on its data.
    pub(crate) fn start_etcd(&mut self) -> Result<()> {
        ensure!(self.etcd.is_none(), "etcd runs");
        self.etcd = Some(start_etcd(&self.door, &self.directory)?);
        Ok(())
    }
}

/// Where `.ci/kubernetes` puts it, unless told.
fn program() -> Result<PathBuf> {
    let program = match std::env::var_os("DRAGONFLY_KUBE_APISERVER") {
        Some(program) => program.into(),
        None => artifacts::target_directory()?.join("kubernetes/kube-apiserver"),
    };
    ensure!(
        program.is_file(),
        "there is no API server at {}: build it with .ci/kubernetes, or name one in DRAGONFLY_KUBE_APISERVER",
        program.display()
    );
    Ok(program)
}

fn start_etcd(door: &Door, directory: &Path) -> Result<Process> {
    let mut command = door.command("etcd");
    command
        .args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
        .args(["--initial-cluster", "default=http://127.0.0.1:2380", "--data-dir"])
        .arg(directory.join("etcd"));
    Process::start("etcd", command, &directory.join("etcd.log")).context("etcd: the package etcd-server brings it")
}

fn kubeconfig() -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: \"https://{SERVER}:{PORT}\", insecure-skip-tls-verify: true}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]
current-context: lab
users: [{{name: lab, user: {{token: {TOKEN}}}}}]
"
    )
}
