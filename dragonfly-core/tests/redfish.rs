//! Redfish beside what others have made of it: our driver controls a machine of `sushy-emulator`, and the `sushy`
//! library takes our simulated service for a real one.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use dragonfly_core::power::redfish::{Controller, Patience, Redfish};
use dragonfly_core::power::{
    BootDevice, BootMode, BootOverride, Credential, PowerControl as _, PowerError, PowerState, Result,
};
use dragonfly_core::testing::power::check;
use dragonfly_core::testing::power::redfish::{Command as Done, Peer, Personality, Tags};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PACKAGES: [&str; 2] = ["sushy-tools==2.2.0", "sushy==5.14.0"];

/// A Python that has the packages. Where tests must run (`CI` is set), it has to be.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("redfish-python");
        let python = at.join("bin/python");
        let has_all = |python: &Path| {
            let imports = ["-c", "import sushy, sushy_tools.emulator.main, bcrypt"];
            Command::new(python).args(imports).stderr(Stdio::null()).status().is_ok_and(|done| done.success())
        };
        if !has_all(&python) {
            let run = |command: &mut Command| command.stdin(Stdio::null()).status().is_ok_and(|done| done.success());
            let _ = run(Command::new("python3").args(["-m", "venv"]).arg(&at))
                && run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        }
        has_all(&python).then_some(python)
    });
    assert!(made.is_some() || std::env::var_os("CI").is_none(), "these tests need Python with {PACKAGES:?}");
    if made.is_none() {
        eprintln!("skipped: there is no Python with {PACKAGES:?}");
    }
    made.as_deref()
}

fn credential(password: &str) -> Credential {
    Credential { username: "admin".to_owned(), password: password.to_owned().into() }
}

struct Keys {
    pem: String,
    key_pem: String,
    der: Vec<u8>,
    key_der: Vec<u8>,
    pin: String,
}

fn keys() -> Keys {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let der = certificate.der().to_vec();
    let pin = hex::encode(Sha256::digest(&der));
    Keys { pem: certificate.pem(), key_pem: key.serialize_pem(), der, key_der: key.serialize_der(), pin }
}

/// `sushy-emulator` with two machines; ended with the value.
struct Emulator {
    child: Child,
    port: u16,
    pin: String,
    directory: tempfile::TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FIRST: &str = "/redfish/v1/Systems/5bfe2b6a-0000-4000-8000-000000000001";

impl Emulator {
    /// `features` is `full`, `vmedia` or `minimum`.
    fn start(python: &Path, features: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keys = keys();
        std::fs::write(at("cert.pem"), &keys.pem).unwrap();
        std::fs::write(at("key.pem"), &keys.key_pem).unwrap();
        let hash = "import bcrypt; print('admin:' + bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode())";
        let hash = Command::new(python).args(["-c", hash]).output().unwrap();
        std::fs::write(at("passwords"), hash.stdout).unwrap();
        std::fs::create_dir(at("state")).unwrap();
        let system = |number: u8| {
            format!(
                "{{'uuid': '{}{number}', 'name': 'node{number}', 'power_state': 'Off', 'external_notifier': False, \
                 'nics': [{{'mac': '52:54:00:ab:cd:0{number}', 'ip': '172.22.0.10{number}'}}]}}",
                FIRST.rsplit('/').next().unwrap().trim_end_matches('1')
            )
        };
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_SSL_CERT = '{0}/cert.pem'\nSUSHY_EMULATOR_SSL_KEY = '{0}/key.pem'\n\
             SUSHY_EMULATOR_AUTH_FILE = '{0}/passwords'\nSUSHY_EMULATOR_STATE_DIR = '{0}/state'\n\
             SUSHY_EMULATOR_FEATURE_SET = '{features}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{1}, {2}]\n",
            directory.path().display(),
            system(1),
            system(2)
        );
        std::fs::write(at("config"), config).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        // It takes up to eleven seconds to do what it said yes to; here it is one.
        let program = "import random\nrandom.randint = lambda least, most: least\n\
                       from sushy_tools.emulator.main import main\nmain()";
        let child = Command::new(python)
            .args(["-c", program, "--fake", "--config"])
            .arg(at("config"))
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, pin: keys.pin, directory }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until it listens.
    async fn ready(&self) -> Controller {
        for _ in 0..200 {
            match self.open(FIRST, &self.pin, "secret").await {
                Err(PowerError::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
                control => return control.unwrap_or_else(|error| panic!("{error:?}: {}", self.log())),
            }
        }
        panic!("it does not listen: {}", self.log());
    }

    async fn open(&self, path: &str, pin: &str, password: &str) -> Result<Controller> {
        let url = format!("redfish://127.0.0.1:{}{path}?tls=sha256:{pin}", self.port).parse().unwrap();
        let patience = Patience { poll: Duration::from_millis(200), ..Patience::default() };
        Redfish::new().with_patience(patience).controller(&url, Some(&credential(password))).await
    }
}

/// A server that has the same few bytes for everybody.
async fn image() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rescue.iso", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nboot").await;
        }
    });
    (url, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_driver_controls_another_emulator() {
    let Some(python) = python() else { return };
    let emulator = Emulator::start(python, "full");
    let control = emulator.ready().await;
    let error = emulator.open("", &emulator.pin, "secret").await.unwrap_err().to_string();
    assert!(error.contains("has 2 systems; name one") && error.contains(FIRST), "{error}");
    let error = emulator.open(FIRST, &"0".repeat(64), "secret").await.unwrap_err();
    assert!(matches!(&error, PowerError::NotTrusted { reason } if reason.contains(&emulator.pin)), "{error}");
    let error = emulator.open(FIRST, &emulator.pin, "wrong").await.unwrap_err();
    assert!(matches!(error, PowerError::Unauthorised), "{error}");

    let able = control.abilities();
    let (boot, sense) = (able.next_boot.unwrap(), able.sense.unwrap());
    assert_eq!(sense.state().await.unwrap(), PowerState::Off);
    for device in [BootDevice::Pxe, BootDevice::Cdrom, BootDevice::Disk] {
        let wish = BootOverride { mode: Some(BootMode::Uefi), ..BootOverride::once(device) };
        let kept = boot.set_next_boot(Some(wish)).await.unwrap();
        // It keeps every override for ever, and says so.
        assert_eq!(kept, Some(BootOverride { persistent: true, ..wish }));
    }
    assert_eq!(boot.set_next_boot(None).await.unwrap(), None);
    let error = boot.set_next_boot(Some(BootOverride::once(BootDevice::Bios))).await.unwrap_err().to_string();
    assert!(error.contains("it cannot boot from BiosSetup; it can from Pxe, Cd"), "{error}");

    let (url, server) = image().await;
    let media = able.media.unwrap();
    assert_eq!(media.inserted().await.unwrap(), None);
    for _ in 0..2 {
        let inserted = media.insert(&url.parse().unwrap()).await.unwrap();
        assert_eq!(inserted.as_deref(), Some(&*url), "{}", emulator.log());
    }
    media.eject().await.unwrap();
    media.eject().await.unwrap();
    assert_eq!(media.inserted().await.unwrap(), None);
    // It boots over HTTP only where libvirt does, and says so in words of its own.
    let error = able.http_boot.unwrap().set_http_boot(Some(&url.parse().unwrap())).await.unwrap_err();
    assert!(matches!(&error, PowerError::Refused { .. }), "{error}");
    server.abort();

    let sensors = able.sensors.unwrap().sensors().await.unwrap();
    assert!(sensors.iter().any(|sensor| sensor.name == "CPU Temp" && sensor.value == Some(41.0)), "{sensors:?}");
    let inventory = able.inventory.unwrap().inventory().await.unwrap();
    assert_eq!(inventory.nics[0].mac.to_string(), "52:54:00:ab:cd:01");
    assert_eq!(inventory.system.vendor.as_deref(), Some("Sushy Emulator"));
    able.firmware.unwrap().firmware().await.unwrap();

    let report = check(&control, Duration::from_secs(15)).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}: {}", emulator.log()));
    assert_eq!(report.absent, ["events"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_that_says_little_is_controlled_as_well() {
    let Some(python) = python() else { return };
    let emulator = Emulator::start(python, "minimum");
    let control = emulator.ready().await;
    let report = check(&control, Duration::from_secs(15)).await;
    let report = report.unwrap_or_else(|broken| panic!("{broken}: {}", emulator.log()));
    assert_eq!(report.absent, ["identify", "sensors", "events", "media", "firmware"]);
}

const CLIENT: &str = "
import sys, sushy
url, verify = sys.argv[1], sys.argv[2] or True
root = sushy.Sushy(url, username='admin', password='secret', verify=verify)
system = root.get_system('/redfish/v1/Systems/blade1')
print(system.power_state.value)
system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, sushy.BOOT_SOURCE_ENABLED_ONCE,
                               sushy.BOOT_SOURCE_MODE_UEFI)
system.refresh()
print(system.boot.target.value, system.boot.enabled.value, system.boot.mode.value)
system.reset_system(sushy.RESET_ON)
system.reset_system(sushy.RESET_FORCE_RESTART)
system.refresh()
print(system.power_state.value, system.boot.enabled.value)
cd = root.get_manager('/redfish/v1/Managers/blade1').virtual_media.get_members()[1]
cd.insert_media('http://10.0.0.1/a.iso')
cd.refresh(force=True)
print(cd.image)
cd.eject_media()
system.reset_system(sushy.RESET_FORCE_OFF)
print(system.processors.summary.count, system.memory_summary.size_gib)
root._auth.close()
";

#[tokio::test(flavor = "multi_thread")]
async fn another_client_takes_our_service_for_a_real_one() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let verify = directory.path().join("cert.pem");
    for tags in [Tags::Strong, Tags::Weak] {
        for is_tls in [false, true] {
            let (at, is) = ("127.0.0.1:0".parse().unwrap(), Personality { tags, ..Personality::default() });
            let keys = keys();
            std::fs::write(&verify, &keys.pem).unwrap();
            let peer = match is_tls {
                false => Peer::start(at, is).await.unwrap(),
                true => Peer::start_tls(at, is, keys.der, keys.key_der).await.unwrap(),
            };
            let url = format!("{}://{}/", if is_tls { "https" } else { "http" }, peer.address());
            let mut client = Command::new(python);
            client.args(["-c", CLIENT, &url]).arg(&verify).env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
            let out = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
            let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            let wanted = ["Off", "Pxe Once UEFI", "On Disabled", "http://10.0.0.1/a.iso", "16 16"];
            assert_eq!(said.lines().collect::<Vec<_>>(), wanted, "{errors}");
            let machine = peer.machine();
            assert_eq!(machine.done, [Done::On, Done::Reset, Done::Off]);
            assert_eq!(machine.media, None);
            let seen = peer.seen();
            assert_eq!((seen.opened, seen.closed, seen.refused), (1, 1, 0), "{:?}", seen.requests);
        }
    }
}
