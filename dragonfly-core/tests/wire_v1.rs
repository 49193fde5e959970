//! The agent's protocol, version 1, as it was released: golden files.
//!
//! Agents of released versions boot from RAM disks that nobody updates in the middle of an
//! installation. **If a test here fails, do not change the test or its files**: change the code back,
//! or add version 2 beside version 1.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use dragonfly_core::Mac;
use dragonfly_core::action::{Permit, Progress, Unit};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::inventory::{
    BmcPrivilege, BmcSeen, BmcUser, Bytes, Cpu, Disk, FirmwareMode, Inventory, Lldp, MegabitsPerSecond, Memory,
    MemoryModule, Nic, PciDevice, Route, System,
};
use dragonfly_core::resource::hardware::{Anchors, ExistingOs, Overwrite};
use dragonfly_core::wire::{
    Ask, BmcAccount, BmcAccountReport, Failure, FailureKind, Heard, Hello, Identity, Orders, Problem, Report,
    ReportKind, Versions, Welcome, Work, WorkStep,
};
use dragonfly_core::workflow::StepEvent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

/// A message of version 1 means this value, this value is sent as that message, and fields of a
/// later version do not disturb it.
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file} cannot be read any more: {error}"));
    assert_eq!(read, *value, "{file} means something else now");
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(value).unwrap(), written, "{file} is written in another way now");
    let mut later = written;
    from_the_future(&mut later);
    let read: T = serde_json::from_value(later.clone())
        .unwrap_or_else(|error| panic!("{file} with fields of a later version cannot be read: {error}\n{later:#}"));
    assert_eq!(read, *value, "{file} with fields of a later version means something else");
}

/// Adds fields that version 1 does not have, everywhere but where the names of fields are data.
fn from_the_future(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if !matches!(name.as_str(), "with" | "overwrite") {
                    from_the_future(value);
                }
            }
            fields.insert("fieldOfALaterVersion".to_owned(), json!({ "deep": [1, null] }));
        }
        Value::Array(items) => items.iter_mut().for_each(from_the_future),
        _ => {}
    }
}

fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, last])
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn boot_id() -> Uuid {
    "7d444840-9dc0-11d1-b245-5ffdce74fad2".parse().unwrap()
}

/// 2026-11-20T21:00:00Z.
const TIME: i64 = 1_795_208_400;

#[test]
fn every_golden_file_is_tested() {
    let here = include_str!("wire_v1.rs");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(here.contains(&format!("{name}\"")), "{name} is tested nowhere");
        count += 1;
    }
    assert_eq!(count, 27, "a golden file was taken away");
}

#[test]
fn identity() {
    let identity = Identity {
        server: "https://192.168.77.1:3000".parse().unwrap(),
        also: Vec::new(),
        pin: "3b1f9c0d5e7a8246b1f0c3d2e4a59687f8b7a6c5d4e3f2019182736455463728".to_owned(),
        token: "boot-token".to_owned().into(),
        mac: mac(1),
        time: Timestamp::from_unix_seconds(TIME),
    };
    golden("identity.json", &identity);
}

#[test]
fn hello() {
    let uuid: Uuid = "4c4c4544-0042-3510-8052-b4c04f333732".parse().unwrap();
    let inventory = Inventory {
        system: System {
            vendor: some("ACME"),
            product: some("R640"),
            serial: some("SN-0042"),
            uuid: Some(uuid),
            board_serial: some("BS-7"),
            bios: some("ACME 2.19.1"),
        },
        cpu: Cpu {
            model: some("Xeon Gold 6130"),
            arch: some("x86_64"),
            sockets: Some(2),
            cores: Some(32),
            threads: Some(64),
        },
        memory: Memory {
            total: Some(Bytes(67_108_864_000)),
            modules: vec![
                MemoryModule {
                    locator: "DIMM A1".to_owned(),
                    size: Bytes(34_359_738_368),
                    speed_mts: Some(2666),
                    manufacturer: some("ACME"),
                    part_number: some("M393"),
                    serial: some("MEM-1"),
                },
                MemoryModule {
                    locator: "DIMM B1".to_owned(),
                    size: Bytes(34_359_738_368),
                    speed_mts: None,
                    manufacturer: None,
                    part_number: None,
                    serial: None,
                },
            ],
        },
        disks: vec![
            Disk {
                name: "nvme0n1".to_owned(),
                size: Bytes(960_197_124_096),
                sector: Some(512),
                model: some("PM983"),
                serial: some("NV-1"),
                wwn: some("eui.0025385"),
                bus: some("nvme"),
                rotational: Some(false),
                removable: Some(false),
                wear_percent: Some(3),
                blank: Some(false),
                signatures: vec!["gpt".to_owned(), "ext4".to_owned()],
            },
            Disk {
                name: "sda".to_owned(),
                size: Bytes(4_000_787_030_016),
                sector: None,
                model: None,
                serial: None,
                wwn: None,
                bus: None,
                rotational: None,
                removable: None,
                wear_percent: None,
                blank: None,
                signatures: Vec::new(),
            },
        ],
        nics: vec![
            Nic {
                name: "eth0".to_owned(),
                mac: mac(1),
                driver: some("ixgbe"),
                link: Some(true),
                speed: Some(MegabitsPerSecond(10_000)),
                addresses: vec!["192.168.77.100/24".to_owned()],
                lldp: Some(Lldp { chassis: some("sw-1"), port: some("Eth1/7"), system: some("switch") }),
            },
            Nic {
                name: "eth1".to_owned(),
                mac: mac(2),
                driver: None,
                link: None,
                speed: None,
                addresses: Vec::new(),
                lldp: None,
            },
        ],
        pci: vec![PciDevice {
            address: "0000:3b:00.0".to_owned(),
            id: "10de:2330".to_owned(),
            class: "0302".to_owned(),
            driver: some("nvidia"),
        }],
        bmc: Some(BmcSeen {
            interface: some("KCS"),
            ipmi_version: some("2.0"),
            address: Some("10.0.0.6".parse().unwrap()),
            mac: Some(mac(0xff)),
            users: Vec::new(),
        }),
        firmware: Some(FirmwareMode::Uefi),
        tpm: some("2.0"),
        hypervisor: some("kvm"),
        routes: vec![Route { via: "192.168.77.1".parse().unwrap(), interface: "eth0".to_owned() }],
        boot_interface: some("eth0"),
    };
    let full = Hello {
        protocol: Versions { min: 1, max: 1 },
        agent: "0.1.0".to_owned(),
        boot_id: boot_id(),
        mac: mac(1),
        anchors: Anchors {
            macs: vec![mac(1), mac(2)],
            smbios_uuid: Some(uuid),
            serial: some("SN-0042"),
            product: some("R640"),
        },
        inventory,
        existing_os: Some(ExistingOs {
            name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            disk: "nvme0n1".to_owned(),
            evidence: "os-release".to_owned(),
        }),
        uptime_seconds: Some(4.5),
        clock_offset_seconds: None,
    };
    golden("hello.json", &full);
    let least = Hello {
        protocol: Versions { min: 1, max: 3 },
        anchors: Anchors::default(),
        inventory: Inventory::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
        ..full
    };
    golden("hello-least.json", &least);
    let user = |slot, name: Option<&str>, enabled, privilege| BmcUser {
        slot,
        name: name.map(str::to_owned),
        enabled,
        privilege,
    };
    let users = vec![
        user(1, None, Some(false), Some(BmcPrivilege::NoAccess)),
        user(2, Some("ADMIN"), Some(true), Some(BmcPrivilege::Administrator)),
        user(3, Some("ops"), None, None),
    ];
    let bmc = BmcSeen { users, ..BmcSeen::default() };
    let with_users = Hello { inventory: Inventory { bmc: Some(bmc), ..Inventory::default() }, ..least };
    golden("hello-bmc-users.json", &with_users);
}

#[test]
fn welcome() {
    let welcome = Welcome {
        protocol: 1,
        machine: "censusablequalityparent".to_owned(),
        display_name: "CensusAbleQualityParent".to_owned(),
        session: "session-key".to_owned().into(),
        time: Timestamp::from_unix_millis(TIME * 1000 + 1500),
        heartbeat_seconds: 30,
        bmc_account: None,
    };
    golden("welcome.json", &welcome);
    let account = BmcAccount { username: "dragonfly".to_owned(), password: "Correct4Horse7Ba".to_owned().into() };
    golden("welcome-bmc-account.json", &Welcome { bmc_account: Some(account), ..welcome });
}

#[test]
fn bmc_account() {
    let done = BmcAccountReport { username: "dragonfly".to_owned(), slot: Some(3), verified: true, failure: None };
    golden("bmc-account-done.json", &done);
    let failure = Failure::message("the controller has no free slot for a user");
    let failed = BmcAccountReport { slot: None, verified: false, failure: Some(failure), ..done };
    golden("bmc-account-failed.json", &failed);
}

#[test]
fn work() {
    golden("ask.json", &Ask { wait_seconds: 30 });
    golden("orders-wait.json", &Orders::Wait { reason: "nothing is assigned".to_owned() });
    golden("orders-boot-local.json", &Orders::BootLocal { reason: "adopted".to_owned() });
    golden("orders-reboot.json", &Orders::Reboot { reason: "the run was called off".to_owned() });
    let workflow_uid = "01930000-0000-7000-8000-000000000001".parse().unwrap();
    let image = json!({
        "disk": { "nvme": true }, "url": "https://192.168.77.1:3000/images/debian.raw.zst", "sha256": "00ff"
    });
    let work = Work {
        workflow: "censusablequalityparent-01jd3v6x2k9m7q5r8t0w4y6z1b".to_owned(),
        attempt: 2,
        permit: Permit {
            workflow_uid,
            generation: 7,
            overwrite: Overwrite::Disks(vec!["NV-1".to_owned(), "sda".to_owned()]),
        },
        steps: vec![
            WorkStep {
                name: "image".to_owned(),
                action: "image2disk".to_owned(),
                with: image,
                timeout_seconds: 3600,
                done_before: true,
            },
            WorkStep {
                name: "leave".to_owned(),
                action: "reboot".to_owned(),
                with: json!({}),
                timeout_seconds: 60,
                done_before: false,
            },
        ],
        secrets: Vec::new(),
    };
    golden("orders-execute.json", &Orders::Execute(Box::new(work)));
    let all = Work {
        workflow: "w".to_owned(),
        attempt: 1,
        permit: Permit { workflow_uid, generation: 1, overwrite: Overwrite::All },
        steps: Vec::new(),
        secrets: Vec::new(),
    };
    golden("orders-execute-all-disks.json", &Orders::Execute(Box::new(all.clone())));
    let with_secrets = Work { secrets: vec!["correct-horse".to_owned().into()], ..all };
    golden("orders-execute-secrets.json", &Orders::Execute(Box::new(with_secrets)));
}

#[test]
fn report() {
    let say = |attempt, what| Report { workflow: "w".to_owned(), attempt, generation: 7, what };
    let step = |index, event, progress, failure| ReportKind::Step { index, event, progress, failure };
    let bytes = Progress { done: 1_048_576, total: Some(4_194_304), unit: Unit::Bytes };
    let items = Progress { done: 3, total: None, unit: Unit::Items };
    let digest = Failure {
        message: "the image is not the one that was asked for: its sha256 is 00ff".to_owned(),
        causes: vec!["digest mismatch".to_owned(), "sha256".to_owned()],
        kind: None,
    };
    golden("report-began.json", &say(1, ReportKind::Began));
    golden("report-step-began.json", &say(1, step(0, StepEvent::Began, None, None)));
    golden("report-step-progressed.json", &say(1, step(0, StepEvent::Progressed, Some(bytes), None)));
    golden("report-step-succeeded.json", &say(1, step(1, StepEvent::Succeeded, Some(items), None)));
    golden("report-step-skipped.json", &say(2, step(0, StepEvent::Skipped, None, None)));
    golden("report-step-failed.json", &say(1, step(2, StepEvent::Failed, None, Some(digest))));
    let kind = Failure::message("the image is not the one that was asked for").of_kind(FailureKind::ImageDigest);
    golden("report-step-failed-kind.json", &say(1, step(2, StepEvent::Failed, None, Some(kind))));
    let refused = ReportKind::Refused { failure: Failure::message("no disk is called sdz") };
    golden("report-refused.json", &say(1, refused));
    golden("report-hand-over.json", &say(1, ReportKind::HandOver));
}

#[test]
fn heard() {
    golden("heard-go-on.json", &Heard::GoOn);
    golden("heard-stop.json", &Heard::Stop { reason: "called off".to_owned() });
}

#[test]
fn problem() {
    let text = include_str!("wire/v1/problem.json");
    let read: Problem = serde_json::from_str(text).unwrap();
    let more = BTreeMap::from([
        ("type".to_owned(), json!("about:blank")),
        ("machine".to_owned(), json!("censusablequalityparent")),
    ]);
    let want = Problem {
        status: 409,
        title: "Conflict".to_owned(),
        detail: "another agent speaks for this machine".to_owned(),
        more,
    };
    // What a later version adds is kept with the rest, so this one is not held to be the same.
    assert_eq!(read, want);
    assert_eq!(serde_json::to_value(&want).unwrap(), serde_json::from_str::<Value>(text).unwrap());
}

#[test]
fn versions_that_meet_nowhere_are_told() {
    let table = [
        // (agent's, picked)
        ((1, 1), Some(1)),
        ((1, 9), Some(1)),
        ((0, 1), Some(1)),
        ((2, 9), None),
        ((0, 0), None),
    ];
    for ((min, max), want) in table {
        assert_eq!(Versions { min: 1, max: 1 }.pick(Versions { min, max }), want, "{min} to {max}");
    }
}
