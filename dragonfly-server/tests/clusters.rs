//! A Proxmox cluster through the whole program: named in the configuration file, found, listed by its labels, shown on
//! pages, left alone until it is adopted.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dragonfly_core::testing::power::proxmox::{Peer, Schema, World};
use serde_json::Value;
use tempfile::TempDir;

const MARK: &str = "marked-secret-5521";

/// The program, serving.
struct Server {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(configuration: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
        command.env_clear().args(["--host", "127.0.0.1", "--port", "0", "--config"]).arg(file).arg("--data");
        command.arg(dir.path().join("data")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(|line| line.unwrap())
            .find_map(|line| line.split_once("listens on ").map(|(_, address)| address.trim().parse().unwrap()))
            .expect("the server says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, dir }
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
        command.args(words).env_clear().env("DRAGONFLY_DATA", self.dir.path().join("data"));
        command.env("DRAGONFLY_SERVER", format!("http://{}", self.address));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command says that goes well.
    fn ok(&self, words: &[&str]) -> String {
        let done = self.run(words, "");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// The machines with this label.
    fn machines(&self, label: &str) -> Vec<Value> {
        let said = self.ok(&["get", "machines", "-l", label, "-o", "json"]);
        serde_json::from_str::<Value>(&said).unwrap()["items"].as_array().unwrap().clone()
    }

    /// Asks again until it is so.
    fn eventually(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is(self) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn published() -> Option<Schema> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../../shared/fixtures", "../../../shared/fixtures"];
    let file = places.iter().map(|at| dir.join(at).join("proxmox-api-8.4.json.xz")).find(|file| file.is_file());
    let Some(file) = file else {
        eprintln!("skipped: the published API of Proxmox VE is not at hand");
        return None;
    };
    let out = Command::new("xz").arg("-dc").arg(file).output().unwrap();
    Some(Schema::read(&*out.stdout).unwrap())
}

#[test]
fn a_cluster_that_is_not_one_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[[proxmox]]\naddress = \"proxmox://10.0.0.2/qemu/101\"\nsecret = \"pve\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
    let out = command.env_clear().arg("--config").arg(file).arg("--data").arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("entry 1 of [[proxmox]] is not right"), "{said}");
    assert!(said.contains("it names a VM; a cluster is proxmox://HOST"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_the_configuration_is_followed() {
    let Some(schema) = published() else { return };
    let mut world = World::new().with_vms(101, 6);
    world.accounts.iter_mut().for_each(|account| MARK.clone_into(&mut account.secret));
    let peer = Peer::start("127.0.0.1:0".parse().unwrap(), world, schema, None).await.unwrap();
    let address = format!("proxmox://{}?tls=off", peer.address());
    let server = Server::start(&format!("[[proxmox]]\naddress = \"{address}\"\nsecret = \"pve\"\n"));
    // Its Secret is not there yet; it is looked at as soon as it is.
    assert_eq!(peer.seen().requests.len(), 0);
    let secret = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {{name: pve}}, \
         spec: {{data: {{username: root@pam!dragonfly, password: {MARK}}}}}}}"
    );
    assert!(server.run(&["apply", "-f", "-"], &secret).status.success());
    server.eventually("six VMs", |server| server.machines("dragonfly.computer/proxmox-cluster=lab").len() == 6);
    let on_pve1 = server.machines("dragonfly.computer/proxmox-node=pve1");
    assert_eq!(on_pve1.len(), 2);
    let first = &server.machines("dragonfly.computer/proxmox-vmid=101")[0];
    let name = first["name"].as_str().or_else(|| first["metadata"]["name"].as_str()).unwrap();
    assert!(server.ok(&["get", "machines", "-o", "wide"]).contains("  off  "));

    let refused = server.run(&["power", "on", name], "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    let words =
        format!("{name} is held: found in Proxmox cluster lab; tag the VM `dragonfly` there, or `dragonfly release");
    assert!(said.contains(&words), "{said}");
    assert!(!peer.vm(101).unwrap().is_on);
    assert!(server.ok(&["why", name]).contains(&format!("dragonfly release {name}")));
    assert!(server.ok(&["power", "status", name]).contains("off"));
    server.ok(&["release", name]);
    assert_eq!(server.ok(&["power", "on", name]), format!("{name} is on\n"));
    assert!(peer.vm(101).unwrap().is_on);
    // The cluster itself, and what it is like when it does not answer.
    let said = server.ok(&["get", "clusters"]);
    assert!(said.lines().nth(1).unwrap().starts_with("lab      pve1, pve2, pve3  6    "), "{said}");
    assert!(said.trim_end().ends_with("followed"), "{said}");
    let said = serde_json::from_str::<Value>(&server.ok(&["get", "cluster", "lab", "-o", "json"])).unwrap();
    assert_eq!((&said["items"][0]["name"], &said["items"][0]["vms"]), (&"lab".into(), &6.into()));
    let refused = server.run(&["get", "clusters", "other"], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no cluster that answers is called `other`"));
    for words in [
        &["get", "clusters", "-o", "json"][..],
        &["get", "machines", "-o", "json"],
        &["get", "secrets", "-o", "json"],
        &["why", name],
    ] {
        assert!(!server.ok(words).contains(MARK), "{words:?}");
    }
    assert_eq!(peer.seen().faults, [""; 0]);
}
