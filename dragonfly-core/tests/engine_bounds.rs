//! What machines that nobody knows can make the server keep: records, inventories, logs.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootObserver as _, BootProvider, BootRequest, Seen, Sighting};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{Engine, EngineError, Settings};
use dragonfly_core::inventory::{Inventory, PciDevice};
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{ConditionStatus, HardwareSpec, Kind, TemplateSpec, condition};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::testing::ManualClock;
use dragonfly_core::wire::{Ask, Hello, Orders, Versions, Welcome};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Debug)]
struct Any;

impl TemplateChecker for Any {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
";

struct Site {
    engine: Engine,
    clock: Arc<ManualClock>,
    logs: tempfile::TempDir,
}

impl Site {
    async fn new(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let store = Arc::new(MemoryStore::new(Arc::clone(&clock) as _));
        let logs = tempfile::tempdir().unwrap();
        let engine = Engine::builder(store, SealingKey::generate().unwrap(), Arc::new(Any))
            .clock(Arc::clone(&clock) as _)
            .logs(logs.path().to_owned())
            .settings(Settings { server_pin: "ab".repeat(32), ..settings })
            .build()
            .await
            .unwrap();
        engine.apply(SETUP, "test").await.unwrap();
        Self { engine, clock, logs }
    }

    async fn hello(&self, n: u16, inventory: Inventory) -> Result<Welcome, EngineError> {
        // An agent that is silent has gone.
        self.clock.advance(Duration::from_secs(40));
        self.hello_of(n, Uuid::new_v4(), inventory).await
    }

    /// Of this boot, a moment later.
    async fn hello_of(&self, n: u16, boot_id: Uuid, inventory: Inventory) -> Result<Welcome, EngineError> {
        // Tokens are told apart by their time.
        self.clock.advance(Duration::from_millis(1));
        let [high, low] = n.to_be_bytes();
        let (mac, from) = (Mac::new([0x52, 0x54, 0, 0, high, low]), IpAddr::from([10, 0, 0, 1]));
        let to = Some("10.0.0.1:3000".parse().unwrap());
        let request = BootRequest { from: Some(from), to, ..BootRequest::from_mac(mac) };
        let token = self.engine.identity(&request).await.unwrap().unwrap().token;
        let hello = Hello {
            protocol: Versions::OURS,
            agent: "test".into(),
            boot_id,
            mac,
            anchors: Anchors { macs: vec![mac], ..Anchors::default() },
            inventory,
            existing_os: None,
            uptime_seconds: None,
            clock_offset_seconds: None,
        };
        self.engine.hello(token.reveal(), hello, from).await
    }

    async fn registers(&self, n: u16) -> Result<Welcome, EngineError> {
        self.hello(n, Inventory::default()).await
    }

    fn told(&self, kind: &str) -> Vec<String> {
        let all = self.engine.events().subscribe(Some(0)).replay;
        all.iter().filter(|event| event.kind == kind).map(|event| event.message.clone()).collect()
    }

    fn logs_of(&self, machine: &str) -> usize {
        std::fs::read_dir(self.logs.path().join(machine)).map_or(0, Iterator::count)
    }
}

fn is_too_many(answer: &Result<Welcome, EngineError>) -> bool {
    matches!(answer, Err(EngineError::TooMany { .. }))
}

#[tokio::test]
async fn records_that_nobody_claims_are_bounded_and_machines_that_are_known_go_on() {
    let site = Site::new(Settings { unclaimed: 2, ..Settings::default() }).await;
    let first = site.registers(1).await.unwrap().machine;
    let second = site.registers(2).await.unwrap().machine;
    assert!(site.told("machines.refused").is_empty());
    for n in 3..6 {
        assert!(is_too_many(&site.registers(n).await));
    }
    let told = site.told("machines.refused");
    assert!(told.len() == 1 && told[0].contains("dragonfly delete machines --unclaimed"), "{told:?}");
    site.registers(1).await.expect("it is known");
    // A label makes it somebody's.
    let label = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {first}, labels: {{rack: a1}}}}, \
         spec: {{macs: ['52:54:00:00:00:01']}}}}"
    );
    site.engine.apply(&label, "me").await.unwrap();
    site.registers(3).await.unwrap();
    assert!(is_too_many(&site.registers(4).await));
    // And a record that is deleted makes room.
    site.engine.delete(Kind::HARDWARE, &second, "me").await.unwrap();
    site.registers(4).await.unwrap();
    assert!(is_too_many(&site.registers(5).await));
    // It is told again after a while, not with each.
    site.clock.advance(Duration::from_secs(600));
    assert!(is_too_many(&site.registers(5).await));
    assert_eq!(site.told("machines.refused").len(), 2);
}

#[tokio::test]
async fn an_inventory_that_is_too_large_is_cut_and_that_is_told() {
    let site = Site::new(Settings::default()).await;
    let pci = |n: usize| {
        let one = PciDevice { address: "x".repeat(500), id: "x".repeat(500), class: "0302".into(), driver: None };
        Inventory { pci: vec![one; n], ..Inventory::default() }
    };
    let machine = site.hello(1, pci(500)).await.unwrap().machine;
    let about = || {
        let machine = site.engine.cache().get::<HardwareSpec>(&machine).unwrap();
        let condition = condition(&machine.status.conditions, "InventoryCut").map(|c| (c.status, c.message.clone()));
        let bytes = serde_json::to_vec(&machine.status).unwrap().len();
        (condition, bytes, machine.status.inventory.as_ref().unwrap().pci.len())
    };
    let (condition, bytes, kept) = about();
    assert!(kept > 100 && bytes < 140 << 10, "{kept} of 500, {bytes} bytes");
    let words = format!("its agent saw more than is kept; left out: {} of 500 PCI devices", 500 - kept);
    assert_eq!(condition, Some((ConditionStatus::True, words)));
    assert_eq!(site.told("machine.cut").len(), 1);
    site.hello(1, pci(9)).await.unwrap();
    let (condition, _, kept) = about();
    assert_eq!((kept, condition.unwrap().0), (9, ConditionStatus::False));
    assert_eq!(site.told("machine.cut").len(), 1);
}

#[tokio::test]
async fn logs_go_with_their_machine() {
    let site = Site::new(Settings::default()).await;
    let (cancel, engine) = (CancellationToken::new(), site.engine.clone());
    let stop = cancel.clone();
    let running = tokio::spawn(async move { engine.run(stop).await });
    let mut names = Vec::new();
    for n in [1, 2, 1, 1, 1, 1] {
        let welcome = site.registers(n).await.unwrap();
        site.engine.log(welcome.session.reveal(), 0, Bytes::from_static(b"a line\n")).await.unwrap();
        names.push(welcome.machine);
    }
    let (gone, stays) = (&names[0], &names[1]);
    assert_eq!((site.logs_of(gone), site.logs_of(stays)), (4, 1));
    site.engine.delete(Kind::HARDWARE, gone, "me").await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while site.logs_of(gone) > 0 {
        assert!(std::time::Instant::now() < end, "its logs are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(site.logs_of(stays), 1);
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_machine_that_says_hello_without_an_end_is_not_heard() {
    let site = Site::new(Settings::default()).await;
    let boot = Uuid::new_v4();
    let hello = || site.hello_of(1, boot, Inventory::default());
    let machine = hello().await.unwrap().machine;
    // It is repeated where an answer was lost.
    for _ in 0..5 {
        hello().await.unwrap();
    }
    let version = || site.engine.cache().get::<HardwareSpec>(&machine).unwrap().metadata.resource_version.clone();
    let (before, answered) = (version(), site.told("machine.hello").len());
    for _ in 0..500 {
        let Err(EngineError::TooMany { wait, .. }) = hello().await else { panic!("it is heard") };
        assert!(wait <= Duration::from_secs(5));
    }
    assert_eq!((version(), site.told("machine.hello").len()), (before, answered), "nothing is written for it");
    site.hello_of(2, Uuid::new_v4(), Inventory::default()).await.expect("another is heard");
    site.clock.advance(Duration::from_secs(5));
    hello().await.unwrap();
    assert!(is_too_many(&hello().await));
}

#[tokio::test]
async fn a_token_that_was_used_is_refused_and_that_has_an_end() {
    let site = Site::new(Settings::default()).await;
    let machine = site.registers(1).await.unwrap().machine;
    // Within one moment tokens are as old as each other: the second opens nothing.
    let (mac, from) = (Mac::new([0x52, 0x54, 0, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
    let to = Some("10.0.0.1:3000".parse().unwrap());
    let request = BootRequest { from: Some(from), to, ..BootRequest::from_mac(mac) };
    site.clock.advance(Duration::from_secs(60));
    let token = site.engine.identity(&request).await.unwrap().unwrap().token;
    let hello = Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: Uuid::new_v4(),
        mac,
        anchors: Anchors { macs: vec![mac], ..Anchors::default() },
        inventory: Inventory::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    };
    site.engine.hello(token.reveal(), hello.clone(), from).await.unwrap();
    for n in 0..50 {
        let answer = site.engine.hello(token.reveal(), hello.clone(), from).await;
        assert!(matches!(answer, Err(EngineError::Forbidden { .. })), "{n}: {answer:?}");
    }
    assert_eq!(site.told("identity.refused").len(), 5, "{machine}");
    // They are not counted as the machine's own.
    site.clock.advance(Duration::from_secs(31));
    let token = site.engine.identity(&request).await.unwrap().unwrap().token;
    site.engine.hello(token.reveal(), Hello { boot_id: Uuid::new_v4(), ..hello }, from).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_session_one_question_waits() {
    let site = Site::new(Settings::default()).await;
    let session = site.registers(1).await.unwrap().session.reveal().to_owned();
    let ask = |wait_seconds| {
        let (engine, session) = (site.engine.clone(), session.clone());
        tokio::spawn(async move { engine.work(&session, Ask { wait_seconds }).await.unwrap() })
    };
    let asked: Vec<_> = (0..50).map(|_| ask(30)).collect();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let waiting = || asked.iter().filter(|one| !one.is_finished()).count();
    while waiting() != 1 {
        assert!(std::time::Instant::now() < end, "{} wait", waiting());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that does not wait takes nobody's place.
    assert!(matches!(ask(0).await.unwrap(), Orders::Wait { .. }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(waiting(), 1);
    let newest = ask(1);
    for one in asked {
        assert!(matches!(one.await.unwrap(), Orders::Wait { .. }));
    }
    assert!(matches!(newest.await.unwrap(), Orders::Wait { .. }));
}

#[tokio::test]
async fn whoever_registers_is_told_of_no_more_than_a_stranger() {
    let site = Site::new(Settings::default()).await;
    let (invented, ours) = (site.registers(1).await.unwrap().machine, site.registers(2).await.unwrap().machine);
    let label = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {ours}, labels: {{rack: a1}}}}, \
         spec: {{macs: ['52:54:00:00:00:02']}}}}"
    );
    site.engine.apply(&label, "me").await.unwrap();
    let told = |machine: &str| {
        let all = site.engine.events().subscribe(Some(0)).replay;
        all.iter().filter(|event| event.kind == "boot.file" && event.machine.as_deref() == Some(machine)).count()
    };
    for n in [1, 2] {
        for _ in 0..3000 {
            let seen = Seen::FileBegan { file: "vmlinuz".into(), bytes: 1 };
            let mac = Some(Mac::new([0x52, 0x54, 0, 0, 0, n]));
            site.engine.saw(Sighting { mac, from: None, seen });
        }
    }
    // A few words were said when they registered.
    assert!((900..=1000).contains(&told(&invented)), "{}", told(&invented));
    assert_eq!(told(&ours), 200);
    let timeline = site.engine.timeline(&ours, 0).unwrap().items;
    assert!(timeline.iter().any(|line| line.message.contains("vmlinuz")), "its timeline has it all the same");
}
