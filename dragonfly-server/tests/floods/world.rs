//! Two namespaces and a cable: the real server at one end, everybody else at the other.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The server's address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// A relay that an honest machine stands behind, and the machine itself.
pub(crate) const HONEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the flood comes from.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

const NETWORK: &str = "apiVersion: dragonfly.computer/v1
kind: Network
metadata: {name: rack}
spec: {interface: v0, dhcp: full, subnet: 10.77.0.0/16, pool: {start: 10.77.1.1, end: 10.77.1.250}}
";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Both namespaces, and the server in one of them. They go with it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    names: Names,
    dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Names {
    server: String,
    client: String,
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            ip(&format!("netns del {name}"));
        }
    }
}

/// What the client's end knows.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// A file that is larger than what any socket takes.
    pub(crate) large: String,
}

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

impl World {
    /// With a server that may open so many files; `None`, with a message, where it cannot be had.
    pub(crate) fn new(files: u32) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: char| format!("df-flood-{}-{number}{end}", std::process::id());
        let names = Names { server: name('s'), client: name('c') };
        let (s, c) = (&names.server, &names.client);
        if !ip(&format!("netns add {s}")) {
            assert!(std::env::var_os("CI").is_none(), "in CI this must run: no right to make network namespaces");
            println!("skipped: no right to make network namespaces, or no iproute2");
            return None;
        }
        for words in [
            format!("netns add {c}"),
            format!("-n {s} link add v0 type veth peer name v1 netns {c}"),
            format!("-n {s} link set lo up"),
            format!("-n {c} link set lo up"),
            format!("-n {s} addr add {SERVER}/16 dev v0"),
            format!("-n {c} addr add {HONEST}/16 dev v1"),
            format!("-n {c} addr add {STRANGER}/16 dev v1"),
            format!("-n {s} link set v0 up"),
            format!("-n {c} link set v1 up"),
        ] {
            assert!(ip(&words), "ip {words}");
        }
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("boot");
        std::fs::create_dir(&boot).unwrap();
        std::fs::write(boot.join("vmlinuz"), vec![7; 100_000]).unwrap();
        std::fs::write(boot.join("snponly.efi"), vec![7; 100_000]).unwrap();
        File::create(boot.join("large")).unwrap().set_len(1 << 30).unwrap();
        let server = Server::start(s, &dir, files);
        Some(Self { server, names, dir })
    }

    /// Runs at the client's end.
    pub(crate) fn client_side(&self, work: impl AsyncFnOnce(Site) + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.names.client)).unwrap();
        // As many sockets as are allowed.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let site = Site { large: "/boot/files/large".to_owned() };
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                // Its threads are made from here, so they are in the namespace too.
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.unwrap().block_on(work(site));
            });
            thread.join()
        });
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        assert!(self.dir.path().exists());
    }
}

/// The server's process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(namespace: &str, dir: &tempfile::TempDir, files: u32) -> Self {
        let log = dir.path().join("log");
        let file = File::create(&log).unwrap();
        let program = env!("CARGO_BIN_EXE_dragonfly");
        let (data, boot) = (dir.path().join("data"), dir.path().join("boot"));
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, "sh", "-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh"])
            .arg(files.to_string())
            .arg(program)
            .args(["--port", "3000", "--data"])
            .arg(&data)
            .arg("--boot-files")
            .arg(&boot)
            .env_remove("DRAGONFLY_TOKEN")
            .env_remove("DRAGONFLY_FLOODS")
            .env_remove("DRAGONFLY_FLOODS_REPORT")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let server = Self { child, log };
        let manifest = dir.path().join("network.yaml");
        std::fs::write(&manifest, NETWORK).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        let apply = || {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, program, "apply", "-f"]).arg(&manifest);
            command.env("DRAGONFLY_DATA", &data).env("DRAGONFLY_SERVER", "http://127.0.0.1:3000");
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
        };
        while !apply() || !server.said().contains("boot services listen") {
            assert!(Instant::now() < end, "the server does not come up\n{}", server.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // Its warnings, and how it began and ended.
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.len().saturating_sub(40);
        let told = lines.iter().enumerate().filter(|(n, line)| *n < 20 || *n >= tail || line.contains("WARN"));
        told.map(|(_, line)| *line).take(200).collect::<Vec<_>>().join("\n")
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    pub(crate) fn most_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, what: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(what)).expect("the server runs");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
