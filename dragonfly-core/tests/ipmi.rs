//! IPMI beside what others have made of it: `ipmitool` and `ipmipower` take our simulated controller for a real
//! one, and our driver says of OpenIPMI's simulator what `ipmitool` says of it.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dragonfly_core::power::ipmi::{Ipmi, Patience};
use dragonfly_core::power::{BootDevice, BootOverride, Credential, PowerControl as _, PowerDriver as _, PowerState};
use dragonfly_core::testing::power::check;
use dragonfly_core::testing::power::ipmi::{Command as Done, Peer, Personality};

/// Whether these programs are here. Where tests must run (`CI` is set), they have to be.
fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !is_here(program)).collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "these tests need {missing:?}");
    if !missing.is_empty() {
        eprintln!("skipped: {missing:?} are not here");
    }
    missing.is_empty()
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([Path::new("/usr/sbin").into()]).any(|at| at.join(program).exists())
}

async fn run(program: &str, arguments: &[&str]) -> String {
    let (name, arguments) = (program.to_owned(), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let out = tokio::task::spawn_blocking(move || {
        Command::new(&name).args(&arguments).env("PATH", path).stdin(Stdio::null()).output().unwrap()
    });
    let out = out.await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program}: {text}");
    text
}

async fn ipmitool(to: SocketAddr, suite: &str, words: &str) -> String {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let mut all = vec!["-I", "lanplus", "-H", &host, "-p", &port, "-U", "admin", "-P", "secret", "-C", suite];
    all.extend(words.split(' '));
    run("ipmitool", &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_clients_take_our_controller_for_a_real_one() {
    if !have(&["ipmitool", "ipmipower"]) {
        return;
    }
    let peer = Peer::start("127.0.0.1:0".parse().unwrap(), Personality::default()).await.unwrap();
    let to = peer.address();
    for suite in ["3", "17"] {
        peer.change(|_, chassis| chassis.done.clear());
        assert!(ipmitool(to, suite, "chassis power status").await.contains("Power is off"));
        for (words, done) in [
            ("chassis power on", Done::On),
            ("chassis power cycle", Done::Cycle),
            ("chassis power reset", Done::Reset),
            ("chassis power soft", Done::Soft),
        ] {
            ipmitool(to, suite, words).await;
            assert_eq!(peer.chassis().done.last(), Some(&done), "-C {suite} {words}");
        }
        ipmitool(to, suite, "chassis bootdev pxe options=persistent,efiboot").await;
        assert_eq!(peer.chassis().boot[..2], [0xe0, 0x04], "-C {suite}");
        let flags = ipmitool(to, suite, "chassis bootparam get 5").await;
        assert!(flags.contains("Force PXE") && flags.contains("all future boots"), "{flags}");
        let sensors = ipmitool(to, suite, "sdr list").await;
        assert!(sensors.contains("CPU1 Temp") && sensors.contains("42 degrees C"), "{sensors}");
        let log = ipmitool(to, suite, "sel list").await;
        assert!(log.contains("Uncorrectable ECC"), "{log}");
        assert!(ipmitool(to, suite, "mc info").await.contains("Firmware Revision"));

        let at = to.to_string();
        let all = ["-h", &at, "-u", "admin", "-p", "secret", "-D", "LAN_2_0", "-I", suite];
        assert!(run("ipmipower", &[&all[..], &["--stat"]].concat()).await.contains("off"), "-I {suite}");
        assert!(run("ipmipower", &[&all[..], &["--on"]].concat()).await.contains("ok"), "-I {suite}");
        assert!(peer.chassis().is_on);
        run("ipmipower", &[&all[..], &["--off"]].concat()).await;
        assert!(!peer.chassis().is_on);
    }
    let seen = peer.seen();
    assert_eq!((seen.opened, seen.refused), (seen.closed, 0), "each of them says good-bye");
}

/// OpenIPMI's simulator; ended with the value.
struct Simulator {
    child: Child,
    address: SocketAddr,
    state: std::path::PathBuf,
    directory: tempfile::TempDir,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Simulator {
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::create_dir(at("state")).unwrap();
        std::fs::write(at("power"), "0").unwrap();
        // Asked `get power`, it says `power:1`; told `set power 0`, it does so.
        let chassis = format!(
            "#!/bin/sh\nshift\ndo=$1\nshift\nwhile [ $# -gt 0 ]; do\n  case $do,$1 in\n    get,power) echo power:$(cat {0}) ;;\n    \
             get,boot) echo boot:$(cat {1} 2>/dev/null || echo default) ;;\n    set,power) echo $2 > {0}; shift ;;\n    \
             set,boot) echo $2 > {1}; shift ;;\n    set,shutdown) echo 0 > {0}; shift ;;\n    set,*) shift ;;\n  esac\n  shift\ndone\n",
            at("power").display(),
            at("boot").display()
        );
        std::fs::write(at("chassis"), chassis).unwrap();
        std::fs::set_permissions(at("chassis"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "name \"test\"\nset_working_mc 0x20\n  startlan 1\n    addr {} {}\n    priv_limit admin\n    \
             allowed_auths_admin none md2 md5 straight\n    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
             chassis_control \"{} 0x20\"\n  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  \
             user 2 true \"admin\" \"secret\" admin 10 none md2 md5 straight\n",
            address.ip(),
            address.port(),
            at("chassis").display()
        );
        std::fs::write(at("lan.conf"), config).unwrap();
        let commands = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                        sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
        std::fs::write(at("commands"), commands).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(at("lan.conf"))
            .arg("-f")
            .arg(at("commands"))
            .arg("-s")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, address, state: at("power"), directory }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_driver_says_of_another_simulator_what_ipmitool_says() {
    if !have(&["ipmitool", "ipmi_sim"]) {
        return;
    }
    let simulator = Simulator::start();
    let url = format!("ipmi://{}", simulator.address).parse().unwrap();
    let credential = Credential { username: "admin".to_owned(), password: "secret".to_owned().into() };
    let driver = Ipmi::with_patience(Patience { first: Duration::from_millis(500), tries: 6 });
    let control = driver.controller(&url, Some(&credential)).unwrap();
    // It may not listen yet.
    for _ in 0..100 {
        if control.device_id().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let id = control.device_id().await.unwrap_or_else(|e| panic!("{e:?}: {}", simulator.log()));
    // It knows suite 3 alone, and says so of 17 in its own way.
    assert_eq!(control.cipher_suite().await, Some(3));
    let info = ipmitool(simulator.address, "3", "mc info").await;
    let number =
        |name: &str| info.lines().find(|line| line.starts_with(name)).and_then(|l| l.split(": ").nth(1)).map(str::trim);
    assert_eq!(number("Product ID").and_then(|n| n.split(' ').next()), Some(&*id.product.to_string()), "{info}");
    assert_eq!(number("Manufacturer ID"), Some(&*id.manufacturer.to_string()), "{info}");
    assert_eq!(number("Firmware Revision"), Some(&*id.firmware), "{info}");

    let able = control.abilities();
    let power = |wanted: PowerState| {
        let on_disk = std::fs::read_to_string(&simulator.state).unwrap();
        assert_eq!(on_disk.trim(), if wanted == PowerState::On { "1" } else { "0" });
    };
    let same = async |wanted: PowerState| {
        assert_eq!(able.sense.unwrap().state().await.unwrap(), wanted);
        let said = ipmitool(simulator.address, "3", "chassis power status").await;
        assert!(said.contains(&format!("Power is {wanted}")), "{said}");
        power(wanted);
    };
    same(PowerState::Off).await;
    control.on().await.unwrap();
    same(PowerState::On).await;
    able.reset.unwrap().reset().await.unwrap();
    able.off.unwrap().off().await.unwrap();
    same(PowerState::Off).await;
    // It keeps the device and loses the bits beside it, and that is what is said of it.
    for device in [BootDevice::Pxe, BootDevice::Cdrom, BootDevice::Bios] {
        let kept = able.next_boot.unwrap().set_next_boot(Some(BootOverride::once(device))).await.unwrap();
        assert_eq!(kept, Some(BootOverride::once(device)));
    }
    let log = ipmitool(simulator.address, "3", "sel list").await;
    let events = able.events.unwrap().events(100).await.unwrap();
    let lines = log.lines().filter(|line| line.contains('|')).count();
    assert_eq!(events.len(), lines, "{events:?}\n{log}");
    let listed = ipmitool(simulator.address, "3", "sdr elist all").await;
    let sensors = able.sensors.unwrap().sensors().await.unwrap();
    assert!(sensors.is_empty() && !listed.contains('|'), "its repository is empty: {sensors:?}\n{listed}");
    control.close().await.unwrap();

    let open = driver.open(&url, Some(&credential)).await.unwrap();
    let report = check(&*open, Duration::from_secs(5));
    match report.await {
        Ok(report) => assert_eq!(report.absent, ["http-boot", "media", "inventory", "firmware"]),
        // `boot disk` is a word that its script is never told.
        Err(broken) => assert_eq!(broken.promise, "the boot device reads back", "{broken}"),
    }
    let wrong = Credential { password: "wrong".to_owned().into(), ..credential };
    let error = driver.controller(&url, Some(&wrong)).unwrap().on().await.unwrap_err();
    assert!(matches!(error, dragonfly_core::power::PowerError::Unauthorised), "{error}");
}
