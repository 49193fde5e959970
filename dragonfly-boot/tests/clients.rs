//! Real clients and a real foreign server, in network namespaces of their own.
//!
//! Needs root, iproute2, busybox, dnsmasq, tftp-hpa, atftp, curl (with TFTP) and perfdhcp (package
//! `kea-admin`); skips without them, and fails instead where `CI` is set.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A namespace for the server (10.77.0.1) and one for a client, joined by a cable.
struct Bench {
    server: String,
    client: String,
    dir: tempfile::TempDir,
    running: Vec<Child>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn ip(words: &str) -> bool {
    run("ip", &words.split(' ').collect::<Vec<_>>()).status.success()
}

fn have(program: &str) -> bool {
    run("sh", &["-c", &format!("command -v {program}")]).status.success()
}

impl Bench {
    /// `None`, with a message, where it cannot be had.
    fn new(programs: &[&str]) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: char| format!("df-boott-{}-{number}{end}", std::process::id());
        let (server, client) = (name('s'), name('c'));
        let missing = programs.iter().find(|p| !have(p));
        if missing.is_some() || !ip(&format!("netns add {server}")) {
            let why = missing.map_or("no right to make network namespaces".to_owned(), |p| format!("no {p}"));
            assert!(std::env::var_os("CI").is_none(), "in CI this must run: {why}");
            println!("skipped: {why}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let bench = Self { server, client, dir, running: Vec::new() };
        let (s, c) = (&bench.server, &bench.client);
        for words in [
            format!("netns add {c}"),
            format!("-n {s} link add v0 type veth peer name v1 netns {c}"),
            format!("-n {s} link set lo up"),
            format!("-n {c} link set lo up"),
            format!("-n {s} addr add 10.77.0.1/16 dev v0"),
            format!("-n {s} link set v0 up"),
            format!("-n {c} link set v1 up"),
        ] {
            assert!(ip(&words), "ip {words}");
        }
        fs::create_dir(bench.files()).unwrap();
        Some(bench)
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts our server in this mode and waits until it listens.
    fn serve(&mut self, mode: &str) {
        // Examples lie beside the directory of test programs.
        let program = std::env::current_exe().unwrap();
        let program = program.parent().and_then(Path::parent).unwrap().join("examples/netboot");
        assert!(program.exists(), "{} is not built: run `cargo test -p dragonfly-boot`", program.display());
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let (files, program) = (self.files(), program.to_string_lossy().into_owned());
        let words = [program.as_str(), "v0", "10.77.0.0/16", mode, files.to_str().unwrap()];
        self.spawn(true, &words, Stdio::from(log));
        self.wait_for("NetworkStatus", 20);
    }

    fn wait_for(&self, words: &str, seconds: u64) {
        let begin = Instant::now();
        while !self.log().contains(words) {
            assert!(begin.elapsed() < Duration::from_secs(seconds), "no `{words}` in {seconds} s: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&mut self, server: bool, words: &[&str], out: Stdio) {
        let space = if server { &self.server } else { &self.client };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space]).args(words).stdout(out).stderr(Stdio::null());
        self.running.push(command.spawn().unwrap());
    }

    fn client(&self, words: &[&str]) -> Output {
        let all = [&["netns", "exec", &self.client], words].concat();
        Command::new("ip").args(all).current_dir(self.dir.path()).output().unwrap()
    }

    /// An address by DHCP, as an ordinary client.
    fn udhcpc(&self) -> Option<String> {
        let words = ["busybox", "udhcpc", "-i", "v1", "-n", "-q", "-f", "-t", "3", "-T", "2", "-s", "/bin/true"];
        let out = self.client(&words);
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        let line = text.lines().find(|line| line.contains("lease of"))?.to_owned();
        line.split_whitespace().find(|word| word.starts_with("10.")).map(|a| a.trim_end_matches(',').to_owned())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in [&self.server, &self.client] {
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn an_ordinary_client_gets_a_lease_and_the_same_again() {
    let Some(mut bench) = Bench::new(&["busybox"]) else { return };
    bench.serve("full");
    let first = bench.udhcpc().unwrap_or_else(|| panic!("no lease: {}", bench.log()));
    assert_eq!(bench.udhcpc(), Some(first));
}

#[test]
fn a_proxy_gives_no_address() {
    let Some(mut bench) = Bench::new(&["busybox"]) else { return };
    bench.serve("proxy");
    assert_eq!(bench.udhcpc(), None);
}

#[test]
fn auto_becomes_full_only_where_nobody_answers_and_yields_to_the_first_who_does() {
    let Some(mut bench) = Bench::new(&["busybox", "dnsmasq"]) else { return };
    bench.serve("auto");
    assert_eq!(bench.udhcpc(), None, "while it probes");
    bench.wait_for("no other server answered", 40);
    assert!(bench.udhcpc().is_some(), "{}", bench.log());
    // A client takes the offer of a server that is not there: so anybody can say.
    assert!(ip(&format!("-n {} addr add 10.77.0.9/16 dev v1", bench.client)));
    let mut forged = vec![0; 240];
    forged[..4].copy_from_slice(&[1, 1, 6, 0]);
    forged[28..34].copy_from_slice(&[0x52, 0x54, 0, 0xab, 0xcd, 1]);
    forged[236..].copy_from_slice(&[99, 130, 83, 99]);
    forged.extend([53, 1, 3, 54, 4, 10, 77, 0, 9, 50, 4, 10, 77, 9, 5, 255]);
    fs::write(bench.dir.path().join("forged"), forged).unwrap();
    let send = format!("cat {} > /dev/udp/10.77.0.1/67", bench.dir.path().join("forged").display());
    assert!(run("ip", &["netns", "exec", &bench.client, "bash", "-c", &send]).status.success());
    std::thread::sleep(Duration::from_secs(3));
    assert!(bench.udhcpc().is_some(), "{}", bench.log());
    // Another server appears; we hear what it offers to others, and ask by ourselves now and then.
    let leases = bench.dir.path().join("leases").to_string_lossy().into_owned();
    let leases = format!("--dhcp-leasefile={leases}");
    let range = "--dhcp-range=10.77.9.1,10.77.9.99";
    let words = ["dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=v1", "--bind-interfaces", range, &leases];
    bench.spawn(false, &[&words[..], &["--no-ping", "--user=root"]].concat(), Stdio::null());
    std::thread::sleep(Duration::from_secs(1));
    let all =
        ["netns", "exec", &bench.server, "busybox", "udhcpc", "-i", "v0", "-B", "-n", "-q", "-f", "-s", "/bin/true"];
    run("ip", &all);
    bench.wait_for("10.77.0.9 hands out addresses here", 10);
}

#[test]
fn auto_stays_proxy_beside_another_server() {
    let Some(mut bench) = Bench::new(&["dnsmasq"]) else { return };
    assert!(ip(&format!("-n {} addr add 10.77.0.9/16 dev v1", bench.client)));
    let leases = format!("--dhcp-leasefile={}", bench.dir.path().join("leases").display());
    let range = "--dhcp-range=10.77.9.1,10.77.9.99";
    let words = ["dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=v1", "--bind-interfaces", range, &leases];
    bench.spawn(false, &[&words[..], &["--no-ping", "--user=root"]].concat(), Stdio::null());
    std::thread::sleep(Duration::from_secs(1));
    bench.serve("auto");
    bench.wait_for("10.77.0.9 hands out addresses here", 15);
}

/// perfdhcp speaks as a relay would: giaddr is its own address, and it hears answers on port 67.
#[test]
fn a_rack_behind_a_relay_is_served_without_a_drop() {
    let Some(mut bench) = Bench::new(&["perfdhcp"]) else { return };
    assert!(ip(&format!("-n {} addr add 10.77.0.2/16 dev v1", bench.client)));
    bench.serve("full");
    let pxe = ["-o", "60,505845436c69656e743a417263683a30303030373a554e44493a303033303136", "-o", "93,0007"];
    // `-W` is in microseconds: the answers to the last requests are still on their way when it stops sending.
    let load = ["perfdhcp", "-4", "-l", "v1", "-r", "300", "-R", "2000", "-p", "4", "-d", "1", "-W", "2000000"];
    let out = bench.client(&[&load[..], &pxe, &["10.77.0.1"]].concat());
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let drops: Vec<_> = text.lines().filter(|l| l.trim_start().starts_with("drops:")).collect();
    assert!(drops.len() == 2 && drops.iter().all(|l| l.trim().ends_with(" 0")), "{text}");
    let received: Vec<_> = text.lines().filter(|l| l.contains("received packets:")).collect();
    assert!(received.iter().all(|l| l.rsplit(' ').next().and_then(|n| n.parse().ok()) > Some(900)), "{text}");
}

/// The hash of a card's address decides what it is offered first, so a server that has forgotten its
/// leases offers the same again; by then somebody has set it by hand.
#[test]
fn an_address_that_somebody_uses_is_not_leased() {
    let Some(mut bench) = Bench::new(&["busybox"]) else { return };
    bench.serve("full");
    let first = bench.udhcpc().unwrap_or_else(|| panic!("no lease: {}", bench.log()));
    let mut server = bench.running.pop().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(ip(&format!("-n {} addr add {first}/16 dev v1", bench.client)));
    // The kernel still waits for an answer to the question of a moment ago, when nobody was there.
    ip(&format!("-n {} neigh flush all", bench.server));
    bench.serve("full");
    let second = bench.udhcpc().unwrap_or_else(|| panic!("no lease: {}", bench.log()));
    assert_ne!(first, second, "{}", bench.log());
}

#[test]
fn a_lease_is_renewed() {
    let Some(mut bench) = Bench::new(&["busybox"]) else { return };
    bench.serve("full");
    let script = bench.dir.path().join("script");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/16 dev v1\nexit 0\n";
    fs::write(&script, text).unwrap();
    run("chmod", &["+x", script.to_str().unwrap()]);
    let words = ["busybox", "udhcpc", "-i", "v1", "-f", "-R", "-t", "3", "-T", "2", "-s", script.to_str().unwrap()];
    bench.spawn(false, &words, Stdio::null());
    bench.wait_for("dhcp.ack", 10);
    // SIGUSR1 makes it renew at once, by unicast.
    let client = bench.running.last().map(|child| child.id().to_string()).unwrap();
    let begin = Instant::now();
    while bench.log().matches("dhcp.ack").count() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(10), "no renewal: {}", bench.log());
        run("kill", &["-USR1", &client]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(!bench.log().contains("refused"));
}

/// Content that repeats in no period of a block.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        out.extend(next().to_le_bytes());
    }
    out.truncate(size);
    out
}

#[test]
fn four_tftp_clients_read_files_of_every_size() {
    let Some(mut bench) = Bench::new(&["busybox", "tftp", "atftp", "curl"]) else { return };
    assert!(ip(&format!("-n {} addr add 10.77.0.2/16 dev v1", bench.client)));
    // Empty, short, an exact multiple of 512 and of 1468, and past the 65536th block of 512 bytes.
    let sizes = [0, 1, 511, 512, 1468 * 512, 34_000_000];
    for size in sizes {
        fs::write(bench.files().join(format!("f{size}")), content(size)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", bench.files().join("link")).unwrap();
    bench.serve("full");
    for size in sizes {
        let name = format!("f{size}");
        let url = format!("tftp://10.77.0.1/{name}");
        let clients: [(&str, Vec<&str>); 6] = [
            ("tftp-hpa", vec!["tftp", "-m", "binary", "10.77.0.1", "-c", "get", &name, "got"]),
            ("busybox", vec!["busybox", "tftp", "-g", "-r", &name, "-l", "got", "-b", "1468", "10.77.0.1"]),
            ("curl", vec!["curl", "-s", "--tftp-blksize", "1468", "-o", "got", &url]),
            ("curl, no options", vec!["curl", "-s", "--tftp-no-options", "-o", "got", &url]),
            ("atftp", vec!["atftp", "-g", "-r", &name, "-l", "got", "--option", "blksize 1468", "10.77.0.1"]),
            (
                "atftp, window of 16",
                vec![
                    "atftp",
                    "-g",
                    "-r",
                    &name,
                    "-l",
                    "got",
                    "--option",
                    "blksize 1468",
                    "--option",
                    "windowsize 16",
                    "10.77.0.1",
                ],
            ),
        ];
        for (client, words) in clients {
            let got = bench.dir.path().join("got");
            let _ = fs::remove_file(&got);
            let out = bench.client(&words);
            let mut read = Vec::new();
            // Some do not make a file for nothing.
            if let Ok(mut file) = fs::File::open(&got) {
                file.read_to_end(&mut read).unwrap();
            }
            assert!(read == content(size), "{client}, {size} bytes: got {}, {out:?}", read.len());
        }
    }
    for bad in ["link", "../log", "none", "%2e%2e/log"] {
        let out = bench.client(&["curl", "-s", "--path-as-is", &format!("tftp://10.77.0.1/{bad}")]);
        assert!(!out.status.success() && out.stdout.is_empty(), "{bad}: {out:?}");
    }
    // netascii would change the bytes.
    let out = bench.client(&["tftp", "-m", "ascii", "10.77.0.1", "-c", "get", "f1", "got"]);
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(said.contains("octet"), "{said}");
}
