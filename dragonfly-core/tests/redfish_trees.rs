//! Redfish trees as they were recorded from a Dell PowerEdge (iDRAC 9) and an HPE ProLiant (iLO 5): discovery finds
//! its way, and each operation becomes the request that this controller takes.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dragonfly_core::power::redfish::{Controller, Redfish};
use dragonfly_core::power::{
    BootDevice, BootMode, BootOverride, Credential, EventLog as _, Firmware as _, Health, HttpBoot as _, Identify as _,
    Inventory as _, NextBoot as _, PowerControl as _, PowerCycle as _, PowerOff as _, PowerSense as _, PowerState,
    Reset as _, Sensors as _, SoftOff as _, VirtualMedia as _,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Writes = Arc<Mutex<Vec<(String, Value)>>>;

/// A service that says what was recorded, and says yes to every change and makes none.
struct Recorded {
    port: u16,
    writes: Writes,
    _directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorded {
    async fn start(name: &str) -> Option<Self> {
        let file = format!("redfish-{name}.tar.xz");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = ["../../shared/fixtures", "../../../shared/fixtures"].map(|at| dir.join(at).join(&file));
        let Some(file) = file.into_iter().find(|file| file.is_file()) else {
            eprintln!("skipped: the recorded trees are not at hand");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let done = Command::new("tar").arg("xJf").arg(file).arg("-C").arg(directory.path()).status().unwrap();
        assert!(done.success());
        let root = directory.path().join("tests/mockups").join(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let writes = Writes::default();
        let told = writes.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, root.clone(), told.clone()));
            }
        });
        Some(Self { port, writes, _directory: directory, task })
    }

    async fn open(&self) -> Controller {
        let url = format!("redfish://127.0.0.1:{}?tls=off", self.port).parse().unwrap();
        let credential = Credential { username: "admin".to_owned(), password: "secret".to_owned().into() };
        Redfish::new().controller(&url, Some(&credential)).await.unwrap()
    }

    /// What was asked to be changed since the last time.
    fn writes(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.writes.lock().unwrap())
    }
}

async fn serve(stream: TcpStream, root: PathBuf, writes: Writes) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if stream.read_line(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) <= 2 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap().split('?').next().unwrap());
        let (status, content) = match method {
            "GET" => match std::fs::read(root.join(path.trim_matches('/')).join("index.json")) {
                Ok(content) => ("200 OK", content),
                Err(_) => ("404 Not Found", b"{}".to_vec()),
            },
            "POST" if path.ends_with("/Sessions") => ("201 Created\r\nX-Auth-Token: token", b"{}".to_vec()),
            _ => {
                writes.lock().unwrap().push((format!("{method} {path}"), serde_json::from_slice(&body).unwrap()));
                ("200 OK", b"{}".to_vec())
            }
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", content.len());
        let _ = stream.write_all(&[head.as_bytes(), &content].concat()).await;
    }
}

fn boot(enabled: &str, target: &str) -> Value {
    json!({ "Boot": { "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target } })
}

/// One and the same way for every maker: what differs stands in the tables.
async fn requests(recorded: &Recorded, control: &Controller) -> Vec<(&'static str, Vec<(String, Value)>)> {
    let mut all = vec![];
    let once = |device| Some(BootOverride::once(device));
    assert_eq!(control.state().await.unwrap(), PowerState::On);
    control.on().await.unwrap();
    all.push(("on", recorded.writes()));
    control.off().await.unwrap();
    all.push(("off", recorded.writes()));
    control.soft_off().await.unwrap();
    all.push(("soft", recorded.writes()));
    control.cycle().await.unwrap();
    all.push(("cycle", recorded.writes()));
    control.reset().await.unwrap();
    all.push(("reset", recorded.writes()));
    let wish = BootOverride { mode: Some(BootMode::Legacy), persistent: true, device: BootDevice::Disk };
    assert_eq!(control.set_next_boot(Some(wish)).await.unwrap(), None, "it does nothing, and that is said");
    all.push(("boot disk, legacy, for ever", recorded.writes()));
    control.set_next_boot(once(BootDevice::Bios)).await.unwrap();
    all.push(("boot setup", recorded.writes()));
    control.set_next_boot(None).await.unwrap();
    all.push(("boot as it likes", recorded.writes()));
    control.set_http_boot(Some(&"http://10.0.0.1/boot.efi".parse().unwrap())).await.unwrap();
    all.push(("HTTP boot", recorded.writes()));
    control.insert(&"http://10.0.0.1/a.iso".parse().unwrap()).await.unwrap();
    all.push(("insert", recorded.writes()));
    let error = control.identify(Some(Duration::from_secs(5))).await.err().map(|error| error.to_string());
    all.push(("identify", recorded.writes()));
    assert!(error.is_none_or(|error| error.contains("the lamp is as it was")));
    all
}

fn request(text: &str, body: Value) -> (String, Value) {
    (text.to_owned(), body)
}

#[tokio::test]
async fn a_dell_is_asked_as_a_dell() {
    let Some(recorded) = Recorded::start("dell").await else { return };
    let control = recorded.open().await;
    let system = "/redfish/v1/Systems/System.Embedded.1";
    assert_eq!(control.system(), system);
    let words = control.abilities().words().join(", ");
    let all = "on, off, soft, cycle, reset, status, boot-device, identify, sensors, events, http-boot, media, inventory, \
               firmware";
    assert_eq!(words, all);
    let reset = |kind: &str| {
        vec![request(&format!("POST {system}/Actions/ComputerSystem.Reset"), json!({ "ResetType": kind }))]
    };
    let patch = |body: Value| request(&format!("PATCH {system}"), body);
    // One whose override does not stay is told twice.
    let twice = |body: Value| vec![patch(body.clone()), patch(body)];
    let mut legacy = boot("Continuous", "Hdd");
    legacy["Boot"]["BootSourceOverrideMode"] = "Legacy".into();
    let mut http = boot("Once", "UefiHttp");
    http["Boot"]["HttpBootUri"] = "http://10.0.0.1/boot.efi".into();
    http["Boot"]["BootSourceOverrideMode"] = "UEFI".into();
    let wanted = [
        ("on", vec![]),
        ("off", reset("ForceOff")),
        ("soft", reset("GracefulShutdown")),
        ("cycle", reset("PowerCycle")),
        ("reset", reset("ForceRestart")),
        ("boot disk, legacy, for ever", twice(legacy)),
        ("boot setup", twice(boot("Once", "BiosSetup"))),
        ("boot as it likes", vec![patch(boot("Disabled", "None"))]),
        // Its firmware wants no TLS for it already.
        ("HTTP boot", vec![patch(http)]),
        (
            "insert",
            vec![request(
                &format!("POST {system}/VirtualMedia/1/Actions/VirtualMedia.InsertMedia"),
                json!({ "Image": "http://10.0.0.1/a.iso", "Inserted": true, "WriteProtected": true }),
            )],
        ),
        ("identify", vec![patch(json!({ "IndicatorLED": "Blinking" }))]),
    ];
    assert_eq!(requests(&recorded, &control).await, wanted);

    let sensors = control.sensors().await.unwrap();
    let cpu = sensors.iter().find(|sensor| sensor.name == "CPU1 Temp").unwrap();
    assert_eq!((cpu.value, &*cpu.unit, cpu.health), (Some(37.0), "degrees C", Health::Ok));
    let events = control.events(3).await.unwrap();
    assert_eq!(events.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["1022", "1023", "1024"]);
    assert_eq!(events[2].at.unwrap().unix_seconds(), 1_718_082_780);
    let inventory = control.inventory().await.unwrap();
    assert_eq!(inventory.system.product.as_deref(), Some("PowerEdge R750"));
    let cpu = inventory.cpu;
    assert_eq!(
        (cpu.sockets, cpu.cores, cpu.threads, cpu.arch.as_deref()),
        (Some(2), Some(36), Some(72), Some("x86_64"))
    );
    assert_eq!((inventory.memory.modules.len(), inventory.memory.total.unwrap().0), (16, 512 << 30));
    assert_eq!((inventory.disks.len(), inventory.disks[0].size.0), (3, 1_920_383_410_176));
    assert!(inventory.nics.iter().any(|nic| nic.mac.to_string() == "e4:3d:1a:13:27:f0"), "{:?}", inventory.nics);
    let firmware = control.firmware().await.unwrap();
    assert!(firmware.iter().any(|part| part.name == "BIOS" && part.version == "1.8.2"), "{firmware:?}");
}

#[tokio::test]
async fn an_hpe_is_asked_as_an_hpe() {
    let Some(recorded) = Recorded::start("hpe").await else { return };
    let control = recorded.open().await;
    assert_eq!((control.system(), control.abilities().words().len()), ("/redfish/v1/Systems/1", 14));
    let reset = |kind: &str| {
        vec![request("POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset", json!({ "ResetType": kind }))]
    };
    let patch = |body: Value| vec![request("PATCH /redfish/v1/Systems/1", body)];
    let mut legacy = boot("Continuous", "Hdd");
    legacy["Boot"]["BootSourceOverrideMode"] = "Legacy".into();
    let mut http = boot("Once", "UefiHttp");
    http["Boot"]["HttpBootUri"] = "http://10.0.0.1/boot.efi".into();
    http["Boot"]["BootSourceOverrideMode"] = "UEFI".into();
    let wanted = [
        ("on", vec![]),
        ("off", reset("ForceOff")),
        ("soft", reset("GracefulShutdown")),
        // It has no PowerCycle.
        ("cycle", reset("ForceRestart")),
        ("reset", reset("ForceRestart")),
        ("boot disk, legacy, for ever", patch(legacy)),
        ("boot setup", patch(boot("Once", "BiosSetup"))),
        // It refuses the target None.
        ("boot as it likes", patch(json!({ "Boot": { "BootSourceOverrideEnabled": "Disabled" } }))),
        ("HTTP boot", patch(http)),
        (
            "insert",
            vec![request(
                "POST /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia",
                json!({ "Image": "http://10.0.0.1/a.iso", "Inserted": true, "WriteProtected": true }),
            )],
        ),
        ("identify", patch(json!({ "IndicatorLED": "Blinking" }))),
    ];
    assert_eq!(requests(&recorded, &control).await, wanted);

    let sensors = control.sensors().await.unwrap();
    let fan = sensors.iter().find(|sensor| sensor.name == "Fan 1").unwrap();
    assert_eq!((fan.value, &*fan.unit), (Some(51.0), "%"));
    assert!(sensors.iter().any(|sensor| sensor.kind == "Temperature" && sensor.value.is_some()), "{sensors:?}");
    let events = control.events(2).await.unwrap();
    assert!(events.len() == 2 && events[0].at <= events[1].at, "{events:?}");
    let inventory = control.inventory().await.unwrap();
    assert_eq!((inventory.cpu.sockets, inventory.cpu.cores, inventory.cpu.threads), (Some(2), Some(128), Some(256)));
    assert_eq!(inventory.memory.total.unwrap().0, 1024 << 30);
    assert!(inventory.disks.len() >= 16 && inventory.nics.len() >= 4, "{inventory:?}");
    let firmware = control.firmware().await.unwrap();
    assert!(firmware.iter().any(|part| part.name == "iLO 5"), "{firmware:?}");
}
