//! Real API servers with an etcd of their own, on loopback, for as long as this process lives.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use dragonfly_core::resource::{Kind, schema};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{KubernetesStore, MemoryStore, Selector, Store};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// How long anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Which API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// That of custom resources alone, current.
    Crds,
    /// The whole one, of the oldest version.
    Whole,
}

impl Server {
    fn program(self) -> PathBuf {
        let name = if self == Self::Crds { "apiext" } else { "kube-apiserver" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes").join(name)
    }

    /// Whether tests with it are wanted; those that are have it.
    pub(crate) fn is_here(self) -> bool {
        if std::env::var_os("DRAGONFLY_TEST_KUBERNETES").is_none() {
            eprintln!("skipped: DRAGONFLY_TEST_KUBERNETES is not set; .ci/full kubernetes builds the servers");
            return false;
        }
        let program = self.program();
        assert!(program.exists(), "{} is not here: .ci/kubernetes builds it", program.display());
        true
    }

    /// The one that the tests of this process share.
    pub(crate) fn shared(self) -> &'static Cluster {
        static ALL: [OnceLock<Cluster>; 2] = [OnceLock::new(), OnceLock::new()];
        ALL[self as usize].get_or_init(|| Cluster::start(self))
    }
}

/// A program that ends when it is dropped, or when this process ends however it ends: a shell beside it waits for the
/// end of its own input, which only this process holds open.
#[derive(Debug)]
struct Program {
    shell: Child,
    pid: String,
}

impl Program {
    /// With `last`, the directory goes with it: nobody drops what is static.
    fn start(directory: &Path, name: &str, program: &Path, arguments: &[String], last: bool) -> Self {
        let pid = directory.join(format!("{name}.pid"));
        fs::remove_file(&pid).ok();
        let script = r#"log=$1 pid=$2; shift 2; "$@" >>"$log" 2>&1 & child=$!; echo $child >"$pid.new"; mv "$pid.new" "$pid"
cat >/dev/null; kill -CONT $child; kill -KILL $child; wait; [ -z "$rubbish" ] || rm -rf "$rubbish""#;
        let shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(directory.join(format!("{name}.log")))
            .arg(&pid)
            .arg(program)
            .args(arguments)
            .env("rubbish", if last { directory.as_os_str() } else { "".as_ref() })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !pid.exists() {
            assert!(start.elapsed() < PATIENCE, "{name} does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { shell, pid: fs::read_to_string(pid).unwrap().trim().to_owned() }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
    }
}

/// An API server and its etcd.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: Server,
    directory: tempfile::TempDir,
    port: u16,
    etcd_port: u16,
    etcd: Program,
    api: Mutex<Option<Program>>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts one and waits until it answers.
    pub(crate) fn start(server: Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, etcd_port) = (free_port(), free_port());
        keys(directory.path(), port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let client = format!("http://127.0.0.1:{etcd_port}");
        let etcd = [
            "--data-dir",
            &directory.path().join("etcd").display().to_string(),
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
            "--unsafe-no-fsync",
        ]
        .map(str::to_owned);
        let etcd = Program::start(directory.path(), "etcd", Path::new("etcd"), &etcd, true);
        let cluster = Self { server, directory, port, etcd_port, etcd, api: Mutex::new(None) };
        cluster.start_api();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "the API server does not listen: {}", cluster.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    pub(crate) fn start_api(&self) {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", at("certificates")),
            format!("--client-ca-file={}", at("ca.crt")),
        ];
        match self.server {
            Server::Crds => {
                let nowhere = at("nowhere.kubeconfig");
                arguments.extend(
                    ["authentication-kubeconfig", "authorization-kubeconfig", "kubeconfig"]
                        .map(|option| format!("--{option}={nowhere}")),
                );
                arguments.extend(
                    [
                        "--etcd-prefix=/apiext",
                        "--authentication-skip-lookup",
                        "--enable-priority-and-fairness=false",
                        "--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,\
                         ValidatingAdmissionWebhook,ValidatingAdmissionPolicy,MutatingAdmissionPolicy",
                    ]
                    .map(str::to_owned),
                );
            }
            Server::Whole => arguments.extend([
                "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
                format!("--token-auth-file={}", at("tokens.csv")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", at("accounts.pub")),
                format!("--service-account-signing-key-file={}", at("accounts.key")),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--audit-policy-file={}", at("audit.yaml")),
                format!("--audit-log-path={}", at("audit.log")),
            ]),
        }
        let program = Program::start(self.directory.path(), "api", &self.server.program(), &arguments, false);
        *self.api.lock().unwrap() = Some(program);
    }

    /// Ends the API server as a power cut does.
    pub(crate) fn kill_api(&self) {
        self.api.lock().unwrap().take();
    }

    /// `-STOP` or `-CONT` to etcd.
    pub(crate) fn signal_etcd(&self, signal: &str) {
        self.etcd.signal(signal);
    }

    /// Makes etcd forget what was before this version.
    pub(crate) fn compact(&self, version: &str) {
        let endpoint = format!("--endpoints=http://127.0.0.1:{}", self.etcd_port);
        let out =
            Command::new("etcdctl").env("ETCDCTL_API", "3").args([&endpoint, "compact", version]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Every request that the whole server has answered, or begun to answer where that does not end, as its audit log
    /// has it.
    #[allow(dead_code, reason = "tests of the server read it")]
    pub(crate) fn audited(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("audit.log")).unwrap();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A kubeconfig for who has this token, in the cluster's directory.
    pub(crate) fn kubeconfig_of(&self, name: &str, token: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{name}.kubeconfig"));
        fs::write(&path, kubeconfig(self.port, json!({ "token": token }))).unwrap();
        path
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("api.log")).unwrap_or_default()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let kubeconfig = Some(self.directory.path().join("admin.kubeconfig"));
        ConnectOptions { kubeconfig, timeout: Duration::from_secs(60), ..ConnectOptions::default() }
    }

    /// Somebody with a token and no permission but those that are granted to `name`.
    pub(crate) fn options_of(&self, name: &str) -> ConnectOptions {
        let kubeconfig = Some(self.kubeconfig_of(name, &format!("token-of-{name}")));
        ConnectOptions { kubeconfig, ..self.options() }
    }

    /// Kubernetes' own client, as an administrator.
    pub(crate) async fn client(&self) -> kube::Client {
        let file = kube::config::Kubeconfig::read_from(self.directory.path().join("admin.kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Asks until the answer is no error.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let client = self.client().await;
        let start = Instant::now();
        loop {
            let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
            match client.request::<Value>(request.body(bytes).unwrap()).await {
                Ok(answer) => return answer,
                Err(error) if start.elapsed() < PATIENCE => {
                    if matches!(&error, kube::Error::Api(status) if [409, 422].contains(&status.code)) {
                        panic!("{method} {path}: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{method} {path}: {error}\n{}", self.log()),
            }
        }
    }

    /// A new, empty store: definitions under a group of its own.
    pub(crate) async fn store(&self, kinds: &[Kind]) -> KubernetesStore {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let group = format!("t{}.dragonfly.computer", COUNT.fetch_add(1, Ordering::Relaxed));
        for kind in kinds {
            let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            self.ask("POST", definitions, Some(&schema::crd(*kind, &group))).await;
        }
        let store = KubernetesStore::connect(ConnectOptions { group, ..self.options() }).await.unwrap();
        for kind in kinds {
            until("the definition is served", async || {
                store.list(*kind, &Selector::all(), 1, None).await.map(|_| ()).map_err(|e| e.to_string())
            })
            .await;
        }
        store
    }
}

/// Tries until it goes well.
pub(crate) async fn until<T, E: std::fmt::Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{what}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A new, empty store for one promise; where these tests are not wanted, one that needs no cluster.
pub(crate) async fn fresh(server: Server) -> Box<dyn Store> {
    if !server.is_here() {
        return Box::new(MemoryStore::default());
    }
    let cluster = tokio::task::spawn_blocking(move || server.shared()).await.unwrap();
    Box::new(cluster.store(&[Kind::HARDWARE, Kind::TEMPLATE]).await)
}

/// A certificate authority, an administrator's certificate, tokens, and the kubeconfigs that name them.
fn keys(directory: &Path, port: u16) {
    let write =
        |name: &str, text: &str| fs::File::create(directory.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    write("ca.crt", &ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let key = KeyPair::generate().unwrap();
    write("admin.crt", &admin.signed_by(&key, &issuer).unwrap().pem());
    write("admin.key", &key.serialize_pem());
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    let audit = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata" }],
    });
    write("audit.yaml", &audit.to_string());
    write("tokens.csv", "token-of-narrow,narrow,2,\ntoken-of-nobody,nobody,3,\n");
    let at = |name: &str| directory.join(name).display().to_string();
    let user = json!({ "client-certificate": at("admin.crt"), "client-key": at("admin.key") });
    write("admin.kubeconfig", &kubeconfig(port, user));
    write("nowhere.kubeconfig", &kubeconfig(1, json!({})).replace("https:", "http:"));
}

fn kubeconfig(port: u16, user: Value) -> String {
    let cluster = json!({ "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": cluster }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "c",
        "users": [{ "name": "u", "user": user }],
    })
    .to_string()
}
