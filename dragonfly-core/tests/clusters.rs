//! VMs of Proxmox clusters as machines: found, followed, adopted, and the same machines that Mage registers.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider, BootRequest};
use dragonfly_core::clock::SystemClock;
use dragonfly_core::engine::{
    AssignRequest, CLUSTER_LABEL, ClusterSource, Clusters, DOUBLED, Engine, GONE, NAME_LABEL, NODE_LABEL, POWERED,
    Settings, Snapshots, VMID_LABEL,
};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::name::memorable;
use dragonfly_core::power::proxmox::{Found, Node, Proxmox, Snapshot};
use dragonfly_core::power::{Credential, Dispatcher, Limits, Operation, PowerDrivers, PowerError, PowerState, Result};
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{ConditionStatus, Hardware, HardwareSpec, TemplateSpec, condition};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::store::{Selector, Store};
use dragonfly_core::testing::power::proxmox::{Machine, Peer, Schema, World};
use dragonfly_core::wire::{Hello, Versions};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

#[derive(Debug)]
struct Any;

impl TemplateChecker for Any {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

/// What a cluster says, and how often it was asked.
struct Said {
    now: std::result::Result<Snapshot, Box<dyn Fn() -> PowerError + Send>>,
    looks: u32,
    opened: Vec<String>,
}

/// One cluster that says what it is told to.
#[derive(Clone)]
struct Fake(Arc<Mutex<Said>>);

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl Clusters for Fake {
    async fn open(&self, _: &Url, credential: &Credential) -> Result<Box<dyn Snapshots>> {
        self.0.lock().unwrap().opened.push(credential.password.reveal().to_owned());
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Snapshots for Fake {
    async fn snapshot(&self) -> Result<Snapshot> {
        let mut said = self.0.lock().unwrap();
        said.looks += 1;
        match &said.now {
            Ok(snapshot) => Ok(snapshot.clone()),
            Err(error) => Err(error()),
        }
    }
}

fn vm(vmid: u32, node: &str) -> Found {
    let [_, b, c, d] = vmid.to_be_bytes();
    Found {
        vmid,
        name: format!("vm{vmid}"),
        node: node.into(),
        cluster: "lab".into(),
        macs: vec![Mac::new([0xbc, 0x24, 0x11, b, c, d])],
        uuid: Some(Uuid::from_u128(u128::from(vmid))),
        state: Some(PowerState::Off),
        tags: vec![],
        template: false,
        adopted: false,
        trouble: None,
    }
}

/// The name under which a VM is found.
fn name(vmid: u32) -> String {
    memorable(vm(vmid, "").macs[0]).to_lowercase()
}

fn lab(first: u32, count: u32) -> Snapshot {
    let nodes = ["pve1", "pve2", "pve3"];
    let machines = (first..first + count).zip(nodes.iter().cycle()).map(|(vmid, node)| vm(vmid, node)).collect();
    let nodes = nodes.map(|name| Node { name: name.into(), online: true }).into();
    Snapshot { cluster: "lab".into(), nodes, machines, gaps: vec![] }
}

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec: { actions: [{ name: leave, action: reboot }] }
---
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: pve }
spec: { data: { username: root@pam!dragonfly, password: secret } }
";

struct Site {
    engine: Engine,
    fake: Fake,
    stop: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn engine(address: &str, clusters: Arc<dyn Clusters>) -> Engine {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let settings = Settings {
        server_pin: "ab".repeat(32),
        clusters: vec![ClusterSource { address: address.parse().unwrap(), secret: "pve".into() }],
        cluster_period: Duration::from_millis(20),
        ..Settings::default()
    };
    let engine = Engine::builder(store, SealingKey::generate().unwrap(), Arc::new(Any))
        .power(Dispatcher::new(PowerDrivers::new().with(Proxmox::default()), Limits::default()))
        .clusters(clusters)
        .settings(settings)
        .build()
        .await
        .unwrap();
    engine.apply(SETUP, "test").await.unwrap();
    engine
}

impl Site {
    /// An engine that follows a cluster of these VMs, which it has not looked at yet.
    async fn new(now: Snapshot) -> Self {
        let fake = Fake(Arc::new(Mutex::new(Said { now: Ok(now), looks: 0, opened: vec![] })));
        // Nobody is there: whatever is asked of a VM fails.
        let engine = engine("proxmox://127.0.0.1:1?tls=off", Arc::new(fake.clone())).await;
        Self { engine, fake, stop: CancellationToken::new() }
    }

    fn run(&self) {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        tokio::spawn(async move { engine.run(stop).await });
    }

    /// Follows it, and has looked once.
    async fn running(now: Snapshot) -> Self {
        let site = Self::new(now).await;
        site.run();
        site.look().await;
        site
    }

    /// Waits until all that the cluster says now has been written.
    async fn look(&self) {
        let looks = self.looks();
        // The next look begins when what the one before it said is written.
        eventually(|| self.looks() >= looks + 2).await;
    }

    fn looks(&self) -> u32 {
        self.fake.0.lock().unwrap().looks
    }

    async fn says(&self, change: impl FnOnce(&mut Snapshot)) {
        if let Ok(now) = &mut self.fake.0.lock().unwrap().now {
            change(now);
        }
        self.look().await;
    }

    fn machine(&self, name: &str) -> Arc<Hardware> {
        self.engine.cache().get::<HardwareSpec>(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn count(&self) -> usize {
        self.engine.machines().len()
    }

    fn label(&self, vmid: u32, key: &str) -> String {
        self.machine(&name(vmid)).metadata.labels[key].clone()
    }

    fn holds(&self, name: &str, kind: &str) -> Option<ConditionStatus> {
        condition(&self.machine(name).status.conditions, kind).map(|c| c.status)
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let all = self.engine.events().subscribe(Some(0)).replay;
        let some = all.iter().filter(|event| event.kind == kind);
        some.map(|event| format!("{} {}", event.machine.clone().unwrap_or_default(), event.message)).collect()
    }

    /// An agent that starts on a machine with this card; the machine that it is.
    async fn registers(&self, mac: Mac) -> String {
        let from = IpAddr::from([10, 0, 0, mac.octets()[5]]);
        let to = Some("10.0.0.1:3000".parse().unwrap());
        let request = BootRequest { from: Some(from), to, ..BootRequest::from_mac(mac) };
        let identity = self.engine.identity(&request).await.unwrap().unwrap();
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
        self.engine.hello(identity.token.reveal(), hello, from).await.unwrap().machine
    }
}

async fn eventually(mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn template() -> AssignRequest {
    AssignRequest { template: "debian".into(), ..AssignRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vm_of_a_cluster_is_a_machine() {
    let mut now = lab(100, 500);
    now.machines[7].template = true;
    now.machines[8].macs.clear();
    now.machines[9].state = Some(PowerState::On);
    let begin = Instant::now();
    let site = Site::new(now).await;
    site.run();
    eventually(|| site.looks() >= 2).await;
    eprintln!("500 VMs are machines after {:?}", begin.elapsed());
    assert_eq!(site.count(), 499, "a template is none");
    let selector = Selector { labels: BTreeMap::from([(NODE_LABEL.to_owned(), "pve1".to_owned())]) };
    let on_pve1 = site.engine.list(dragonfly_core::resource::Kind::HARDWARE, &selector, 0, None).await.unwrap();
    assert_eq!(on_pve1.items.len(), 167);
    let machine = site.machine(&name(109));
    assert_eq!(machine.spec.display_name.to_lowercase(), machine.name());
    let labels = [CLUSTER_LABEL, NODE_LABEL, VMID_LABEL, NAME_LABEL].map(|key| machine.metadata.labels[key].clone());
    assert_eq!(labels, ["lab", "pve1", "109", "vm109"]);
    assert_eq!(site.holds(machine.name(), POWERED), Some(ConditionStatus::True));
    assert_eq!(site.holds(&name(110), POWERED), Some(ConditionStatus::False));
    assert_eq!(site.machine("lab-108").spec.macs, []);
    let seen = site.events("cluster.seen");
    assert_eq!(seen, [" Proxmox cluster lab at proxmox://127.0.0.1:1?tls=off is followed: 500 VMs, 3 nodes"]);
    // The periodic pass notes since when each is held, once.
    let held = |machine: &Hardware| machine.spec.hold.is_some();
    let noted = |machine: &Hardware| machine.status.conditions.iter().any(|c| c.kind == "OnHold");
    eventually(|| site.engine.machines().iter().all(|m| held(m) == noted(m))).await;
    // What is as it was is not written again.
    let versions = || site.engine.machines().iter().map(|m| m.metadata.resource_version.clone()).collect::<Vec<_>>();
    let before = versions();
    site.look().await;
    assert_eq!((versions(), site.count()), (before, 499));
    assert_eq!(site.fake.0.lock().unwrap().opened, ["secret"], "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_vms_becomes_of_machines() {
    let site = Site::running(lab(101, 6)).await;
    let before = site.machine(&name(103));
    site.engine.protect(&name(103), true, "ops").await.unwrap();
    site.says(|now| {
        now.machines[0].node = "pve3".into();
        now.machines[1].name = "web".into();
        now.machines.remove(2);
        now.machines[2].state = Some(PowerState::On);
    })
    .await;
    assert_eq!(site.label(101, NODE_LABEL), "pve3");
    assert_eq!(site.events("machine.moved"), [format!("{} its VM moved from pve1 to pve3", name(101))]);
    assert_eq!(site.label(102, NAME_LABEL), "web");
    assert_eq!(site.holds(&name(104), POWERED), Some(ConditionStatus::True));
    let gone = site.machine(&name(103));
    assert_eq!(site.holds(gone.name(), GONE), Some(ConditionStatus::True));
    // There is nothing to install on, protected or not.
    site.engine.protect(gone.name(), false, "ops").await.unwrap();
    site.engine.release(gone.name(), "ops").await.unwrap();
    let error = site.engine.assign(gone.name(), template(), "ops").await.unwrap_err().to_string();
    assert!(error.contains("there is nothing to install on: its VM is no longer in Proxmox cluster lab"), "{error}");
    assert_eq!(site.engine.why(gone.name()).unwrap().next, [format!("dragonfly delete machine {}", gone.name())]);
    site.engine.protect(gone.name(), true, "ops").await.unwrap();
    assert!(gone.spec.protected && gone.metadata.labels == before.metadata.labels && gone.status.phase.is_none());
    assert_eq!(site.events("machine.gone").len(), 1);
    assert_eq!(site.count(), 6);
    site.says(|now| now.machines.push(vm(103, "pve1"))).await;
    assert_eq!(site.holds(&name(103), GONE), Some(ConditionStatus::False));
    assert_eq!((site.events("machine.gone").len(), site.count()), (1, 6));

    // A node that is offline takes nothing away, even where its VMs are not listed.
    site.says(|now| {
        now.nodes[1].online = false;
        now.machines.retain(|found| found.node != "pve2");
    })
    .await;
    assert_eq!((site.events("machine.gone").len(), site.count()), (1, 6));
    let seen = site.events("cluster.seen");
    assert!(seen.last().unwrap().ends_with("3 nodes, of which pve2 offline"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_a_vm_that_nobody_adopted() {
    let site = Site::running(lab(101, 3)).await;
    let [first, second] = [name(101), name(102)];
    let hold = site.machine(&first).spec.hold.clone().unwrap();
    assert!(hold.starts_with("found in Proxmox cluster lab; tag the VM `dragonfly` there"), "{hold}");
    let refused = site.engine.assign(&first, template(), "ops").await.unwrap_err().to_string();
    assert!(refused.contains(&hold), "{refused}");
    for operation in [Operation::Off, Operation::Cycle, Operation::On] {
        let error = site.engine.power(&first, operation, "ops").await.unwrap_err().to_string();
        assert_eq!(error, format!("{first} is held: {hold}"));
    }
    assert!(hold.contains(&format!("dragonfly release {first}")), "{hold}");
    // It is asked: that nobody answers is another matter.
    let error = site.engine.power(&first, Operation::Status, "ops").await.unwrap_err().to_string();
    assert_eq!(error, format!("`status` of {first} was not done"));

    // Adopted by its tag.
    site.says(|now| now.machines[0].adopted = true).await;
    assert_eq!(site.machine(&first).spec.hold, None);
    site.engine.assign(&first, template(), "ops").await.unwrap();
    // Released by a person, for good.
    site.engine.release(&second, "ops").await.unwrap();
    site.look().await;
    site.look().await;
    assert_eq!(site.machine(&second).spec.hold, None);
    let error = site.engine.power(&second, Operation::On, "ops").await.unwrap_err().to_string();
    assert_eq!(error, format!("`on` of {second} was not done"), "it was tried");
    // A person's hold is not taken back by a tag.
    site.engine.hold(&second, "mine", "ops").await.unwrap();
    site.says(|now| now.machines[1].adopted = true).await;
    assert_eq!(site.machine(&second).spec.hold.as_deref(), Some("mine"));
    assert!(site.machine(&name(103)).spec.hold.is_some(), "the others are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_registers_is_one_machine() {
    let mut now = lab(101, 3);
    now.machines[0].adopted = true;
    let site = Site::new(now).await;
    // One registered before it was found, one was written down by a person.
    let second = site.registers(vm(102, "").macs[0]).await;
    let text = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: mine, labels: {{rack: '7'}}}}, \
         spec: {{macs: ['{}'], bmc: {{address: 'proxmox://10.9.9.9/qemu/103'}}}}}}",
        vm(103, "").macs[0]
    );
    site.engine.apply(&text, "ops").await.unwrap();
    site.run();
    site.look().await;
    assert_eq!(site.count(), 3);
    let registered = site.machine(&second);
    let address = "proxmox://127.0.0.1:1/qemu/102?tls=off&uuid=00000000-0000-0000-0000-000000000066";
    assert_eq!(registered.spec.bmc.as_ref().unwrap().address.as_str(), address);
    assert_eq!((&*registered.metadata.labels[VMID_LABEL], &registered.spec.hold), ("102", &None));
    let mine = site.machine("mine");
    assert_eq!((&*mine.metadata.labels["rack"], &*mine.metadata.labels[VMID_LABEL]), ("7", "103"));
    assert_eq!(mine.spec.bmc.as_ref().unwrap().address.as_str(), "proxmox://10.9.9.9/qemu/103");
    assert_eq!(site.holds("mine", POWERED), Some(ConditionStatus::False));

    // And one that was found registers.
    assert_eq!(site.registers(vm(101, "").macs[0]).await, name(101));
    assert_eq!(site.count(), 3);
    assert!(site.machine(&name(101)).status.phase.is_some());
    site.look().await;
    assert_eq!(site.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_vms_with_one_mac_are_told_and_not_merged() {
    let mut now = lab(101, 2);
    now.machines[0].adopted = true;
    now.machines[1].adopted = true;
    let site = Site::running(now).await;
    let (first, second) = (name(101), name(102));
    site.engine.assign(&second, template(), "ops").await.unwrap();
    site.says(|now| {
        let copy = Found { macs: now.machines[0].macs.clone(), ..vm(900, "pve2") };
        now.machines.push(copy);
    })
    .await;
    site.look().await;
    let told = site.events("cluster.doubled");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("{} VM 900 of Proxmox cluster lab has the MAC bc:24:11:00:00:65", name(101))));
    assert_eq!((site.count(), site.label(101, VMID_LABEL)), (2, "101".to_owned()));
    // Neither of the two is installed, switched or given anything to boot, and what was assigned before waits.
    let why = "VM 101 and VM 900 have the MAC bc:24:11:00:00:65 (seen in Proxmox cluster lab)";
    assert_eq!(site.holds(&first, DOUBLED), Some(ConditionStatus::True));
    let error = site.engine.assign(&first, template(), "ops").await.unwrap_err().to_string();
    assert!(error.contains(&format!("{first} cannot be told from another: {why}")), "{error}");
    let error = site.engine.power(&first, Operation::Cycle, "ops").await.unwrap_err().to_string();
    assert_eq!(error, format!("{first} cannot be told from another: {why}"));
    let decision = site.engine.decision(&BootRequest::from_mac(vm(101, "").macs[0]));
    assert_eq!(decision.fate.word(), "hold", "{}", decision.reason);
    // Which they are is for operators: whoever boots reads the reason.
    assert!(decision.reason.contains("several virtual machines"), "{}", decision.reason);
    assert_eq!(
        site.engine.why(&first).unwrap().next,
        ["give one of the VMs another MAC, or delete the one that is a copy"]
    );
    let told = site.events("machine.doubled");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(why), "{told:?}");
    // The other machine is not meant, until a card of its VM gets that MAC too.
    assert_eq!(site.holds(&second, DOUBLED), None);
    assert_eq!(site.engine.decision_for(&site.machine(&second)).fate.word(), "image");
    site.says(|now| {
        let mac = now.machines[0].macs[0];
        now.machines[1].macs.push(mac);
    })
    .await;
    assert_eq!(site.holds(&second, DOUBLED), Some(ConditionStatus::True));
    assert_eq!(site.engine.decision_for(&site.machine(&second)).fate.word(), "hold");
    // Each has its own again.
    site.says(|now| {
        now.machines[2].macs = vm(900, "").macs;
        now.machines[1].macs = vm(102, "").macs;
    })
    .await;
    site.look().await;
    assert_eq!((site.count(), site.label(900, VMID_LABEL)), (3, "900".to_owned()));
    assert_eq!([&first, &second].map(|name| site.holds(name, DOUBLED)), [Some(ConditionStatus::False); 2]);
    assert_eq!(site.events("machine.distinct").len(), 2);
    assert_eq!(site.engine.decision_for(&site.machine(&second)).fate.word(), "image", "it goes on");
    site.engine.assign(&first, template(), "ops").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_fails_is_told_once() {
    let site = Site::running(lab(101, 3)).await;
    let fails = |error: fn() -> PowerError| site.fake.0.lock().unwrap().now = Err(Box::new(error));
    fails(|| PowerError::Unreachable { source: "no route to host".into() });
    // Three failures with pauses of 1, 2 and 4 periods.
    let looks = site.looks();
    eventually(|| site.looks() >= looks + 4).await;
    let at = "the Proxmox cluster at proxmox://127.0.0.1:1?tls=off cannot be followed";
    let unreachable = format!(" {at}: the controller cannot be reached: no route to host");
    assert_eq!(site.events("cluster.failed"), [unreachable]);
    assert_eq!((site.count(), site.events("machine.gone").len()), (3, 0));
    let refused = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&refused);
    site.fake.0.lock().unwrap().now = Err(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        PowerError::Unauthorised
    }));
    eventually(|| site.events("cluster.failed").len() == 2).await;
    // As people see it: what it was like, and why nothing newer is known.
    let view = site.engine.clusters().remove(0);
    assert_eq!((view.name.as_deref(), view.vms, view.nodes.len()), (Some("lab"), 3, 3));
    assert!(view.failure.unwrap().contains("refused the user or the password"));
    assert!(view.answered_at < view.polled_at, "{:?} {:?}", view.answered_at, view.polled_at);
    let failed = site.events("cluster.failed");
    assert!(failed[1].contains("refused the user or the password"), "{failed:?}");
    assert!(failed[1].ends_with("left alone until Secret `pve` changes"), "{failed:?}");
    assert_eq!(site.events("cluster.seen").len(), 1);
    // An account is locked after some wrong passwords: one is tried twice, however long it stands.
    eventually(|| refused.load(Ordering::SeqCst) == 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(refused.load(Ordering::SeqCst), 2);

    // Another password is tried at once, and it is well again.
    let opened = site.fake.0.lock().unwrap().opened.len();
    site.fake.0.lock().unwrap().now = Ok(lab(101, 3));
    let text = "{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {name: pve}, spec: {data: {username: \
                root@pam!dragonfly, password: other}}}";
    site.engine.apply(text, "ops").await.unwrap();
    eventually(|| site.events("cluster.seen").len() == 2).await;
    assert_eq!(site.fake.0.lock().unwrap().opened[opened..].last().unwrap(), "other");
    site.look().await;
    assert_eq!((site.events("cluster.failed").len(), site.events("cluster.seen").len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_finds_the_vms_of_a_cluster_over_http() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = ["../../shared/fixtures", "../../../shared/fixtures"];
    let mut file = file.iter().map(|at| dir.join(at).join("proxmox-api-8.4.json.xz"));
    let Some(file) = file.find(|file| file.is_file()) else {
        eprintln!("skipped: the published API of Proxmox VE is not at hand");
        return;
    };
    let out = Command::new("xz").arg("-dc").arg(file).output().unwrap();
    let schema = Schema::read(&*out.stdout).unwrap();
    let world = World::new().with_vms(101, 6);
    let peer = Peer::start("127.0.0.1:0".parse().unwrap(), world, schema, None).await.unwrap();
    let address = format!("proxmox://{}?tls=off", peer.address());
    let engine = engine(&address, Arc::new(Proxmox::default())).await;
    let stop = CancellationToken::new();
    let (running, cancel) = (engine.clone(), stop.clone());
    let run = tokio::spawn(async move { running.run(cancel).await });
    let machine = |vmid: u32| {
        let all = engine.machines();
        all.into_iter().find(|m| m.metadata.labels.get(VMID_LABEL) == Some(&vmid.to_string()))
    };
    eventually(|| engine.machines().len() == 6 && machine(106).is_some()).await;
    let first = machine(101).unwrap();
    assert!(engine.power(first.name(), Operation::On, "ops").await.is_err(), "it is not adopted");
    assert!(!peer.vm(101).unwrap().is_on);
    peer.migrate(102, "pve1");
    peer.change(|world| {
        world.vms.remove(&103);
        world.vms.get_mut(&101).unwrap().config.insert("tags".to_owned(), "web;dragonfly".to_owned());
        world.vms.insert(107, Machine::new(107, "pve3"));
    });
    let is_gone = || condition(&machine(103).unwrap().status.conditions, GONE).is_some();
    eventually(|| machine(107).is_some() && is_gone() && machine(101).unwrap().spec.hold.is_none()).await;
    assert_eq!(machine(102).unwrap().metadata.labels[NODE_LABEL], "pve1");
    // The address that it was given is one that works.
    engine.power(first.name(), Operation::On, "ops").await.unwrap();
    assert!(peer.vm(101).unwrap().is_on);
    eventually(|| {
        condition(&machine(101).unwrap().status.conditions, POWERED).is_some_and(|c| c.status == ConditionStatus::True)
    })
    .await;
    stop.cancel();
    run.await.unwrap();
    let seen = peer.seen();
    assert_eq!((seen.strange, seen.faults), (vec![], vec![]));
}
