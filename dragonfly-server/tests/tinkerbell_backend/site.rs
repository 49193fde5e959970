//! The cluster, the program in it, and whoever else works there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dragonfly_core::resource::manifest;
use serde_json::{Value, json};

use crate::servers::{Cluster, PATIENCE, Server, until};

const DRAGONFLY: &str = env!("CARGO_BIN_EXE_dragonfly");
const NAMESPACE: &str = "tinkerbell";

/// A cluster, and a server that works in it.
pub(crate) struct Site {
    cluster: Cluster,
    dir: tempfile::TempDir,
    server: Option<Child>,
    url: String,
    said: Arc<Mutex<String>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

/// `dragonfly watch`, line by line.
pub(crate) struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    /// Has things happen until it tells of one.
    pub(crate) fn listens(&mut self, happen: impl Fn()) {
        let start = Instant::now();
        loop {
            happen();
            if self.lines.recv_timeout(std::time::Duration::from_secs(2)).is_ok() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "it tells nothing");
        }
    }

    #[track_caller]
    pub(crate) fn sees(&mut self, words: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("`{words}` is not in {seen:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(Server::Whole)).await.unwrap();
        // Its own namespaces are made last.
        cluster.ask("GET", "/api/v1/namespaces/default", None).await;
        let dir = tempfile::tempdir().unwrap();
        Self { cluster, dir, server: None, url: String::new(), said: Arc::default() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(DRAGONFLY);
        command.args(words).env_clear().env("DRAGONFLY_DATA", self.dir.path().join("data"));
        command.env("KUBECONFIG", self.cluster.options().kubeconfig.unwrap());
        command.env("DRAGONFLY_BACKEND", "tinkerbell");
        if !self.url.is_empty() {
            command.env("DRAGONFLY_SERVER", &self.url);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Whether it went well, and all that was said.
    fn output(&self, words: &[&str]) -> (bool, String) {
        let output = self.command(words).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said)
    }

    pub(crate) fn install(&self) -> (bool, String) {
        self.output(&["install", "--kubernetes", "--backend", "tinkerbell"])
    }

    pub(crate) fn fails_to_start(&self) -> String {
        let (done, said) = self.output(&["--host", "127.0.0.1", "--port", "0"]);
        assert!(!done, "{said}");
        said
    }

    pub(crate) fn start(&mut self) {
        let mut command = self.command(&["--host", "127.0.0.1", "--port", "0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        self.server = Some(child);
        let said = Arc::clone(&self.said);
        let keep = move |line: &str| said.lock().unwrap().push_str(&format!("{line}\n"));
        let address = lines
            .by_ref()
            .inspect(|line| keep(line))
            .find_map(|line| line.split_once(" listens on ").map(|(_, address)| address.trim().to_owned()));
        self.url = format!("http://{}", address.unwrap_or_else(|| panic!("{}", self.said())));
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || lines.for_each(|line| said.lock().unwrap().push_str(&format!("{line}\n"))));
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn run(&self, words: &[&str]) -> (String, bool) {
        let (done, said) = self.output(words);
        (said, done)
    }

    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let (done, said) = self.output(words);
        assert!(done, "{words:?}: {said}\n{}", self.said());
        said
    }

    #[track_caller]
    pub(crate) fn refuses(&self, words: &[&str]) -> String {
        let (done, said) = self.output(words);
        assert!(!done, "{words:?}: {said}");
        said
    }

    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[words, &["-o", "json"]].concat())).unwrap()
    }

    #[track_caller]
    pub(crate) fn apply(&self, text: &str, taken: bool) -> String {
        let mut command = self.command(&["apply", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert_eq!(output.status.success(), taken, "{said}");
        said
    }

    pub(crate) fn watch(&self, machine: &str) -> Watch {
        let mut child = self.command(&["watch", machine]).stdout(Stdio::piped()).spawn().unwrap();
        let (to, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Watch { child, lines }
    }

    /// Waits until a machine is in a phase.
    pub(crate) async fn phase(&self, machine: &str, phase: &str) -> Value {
        let start = Instant::now();
        loop {
            let now = self.json(&["get", "hw", machine]);
            if now["status"]["phase"] == phase {
                return now;
            }
            assert!(start.elapsed() < PATIENCE, "{machine} is not {phase}: {now}\n{}", self.said());
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    // Others, with kubectl.

    fn at(plural: &str) -> String {
        format!("/apis/tinkerbell.org/v1alpha1/namespaces/{NAMESPACE}/{plural}")
    }

    /// Defines what Tinkerbell defines, as far as it matters here: any field, and a status that is written apart.
    pub(crate) async fn define(&self) {
        for (group, plural, kind) in [
            ("tinkerbell.org", "hardware", "Hardware"),
            ("tinkerbell.org", "templates", "Template"),
            ("tinkerbell.org", "workflows", "Workflow"),
            ("bmc.tinkerbell.org", "machines", "Machine"),
        ] {
            let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            let names = json!({ "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") });
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": format!("{plural}.{group}") },
                "spec": {
                    "group": group, "scope": "Namespaced", "names": names,
                    "versions": [{
                        "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                        "schema": { "openAPIV3Schema": any },
                    }],
                },
            });
            self.cluster
                .ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(&definition))
                .await;
        }
        for plural in ["hardware", "templates", "workflows"] {
            self.list(plural).await;
        }
    }

    pub(crate) async fn create(&self, plural: &str, kind: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "tinkerbell.org/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        self.cluster.ask("POST", &Self::at(plural), Some(&object)).await;
    }

    pub(crate) async fn get(&self, plural: &str, name: &str) -> Value {
        self.cluster.ask("GET", &format!("{}/{name}", Self::at(plural)), None).await
    }

    pub(crate) async fn list(&self, plural: &str) -> Vec<Value> {
        self.cluster.ask("GET", &Self::at(plural), None).await["items"].as_array().unwrap().clone()
    }

    pub(crate) async fn remove(&self, plural: &str, name: &str) {
        self.cluster.ask("DELETE", &format!("{}/{name}", Self::at(plural)), None).await;
    }

    /// Tinkerbell's controller: the status of a Workflow, as a whole.
    pub(crate) async fn report(&self, name: &str, status: Value) {
        let path = format!("{}/{name}", Self::at("workflows"));
        until("the status is written", async || {
            let client = self.cluster.client().await;
            let mut now: Value = self.cluster.ask("GET", &path, None).await;
            now["status"] = status.clone();
            let request = http::Request::builder().method("PUT").uri(format!("{path}/status"));
            let request = request.header("content-type", "application/json");
            client.request::<Value>(request.body(now.to_string().into_bytes()).unwrap()).await
        })
        .await;
    }

    /// Tinkerbell's own manifests, where they are at hand.
    pub(crate) async fn put_fixtures(&self) -> bool {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/tinkerbell");
        let Ok(files) = std::fs::read_dir(&directory) else {
            eprintln!("skipped: {} is not here", directory.display());
            return false;
        };
        for file in files {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            // As `envsubst` fills them.
            let text = [("MAC", "52:54:00:12:34:56"), ("IP", "10.9.0.20"), ("ARCH", "x86_64"), ("PLATFORM", "amd64")]
                .iter()
                .fold(text, |text, (name, value)| text.replace(&format!("$TINKERBELL_CLIENT_{name}"), value))
                .replace("$DISK_DEVICE", "/dev/vda")
                .replace("$TINKERBELL_HOST_IP", "10.9.0.2");
            for mut object in manifest::documents(&text).unwrap() {
                let plural = match object["kind"].as_str().unwrap() {
                    "Hardware" => "hardware",
                    "Template" => "templates",
                    _ => "workflows",
                };
                object["metadata"]["namespace"] = json!(NAMESPACE);
                // The Template of this name that the test has made itself stays.
                if plural != "templates" || object["metadata"]["name"] != "debian" {
                    self.cluster.ask("POST", &Self::at(plural), Some(&object)).await;
                }
            }
        }
        true
    }
}
