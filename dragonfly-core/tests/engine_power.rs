//! Power through the engine: what controllers are told, what is kept and told of it, and who is booted by itself.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider, BootRequest};
use dragonfly_core::clock::SystemClock;
use dragonfly_core::engine::{AssignRequest, BmcRequest, Engine, EngineError, POWERED, Settings};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::power::{
    BootDevice, BootOverride, Credential, Dispatcher, Limits, Operation, Outcome, PowerControl, PowerDriver,
    PowerDrivers, PowerError, PowerState, Result,
};
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::power::PowerPolicy;
use dragonfly_core::resource::{ConditionStatus, Hardware, HardwareSpec, Kind, TemplateSpec, condition};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::Store;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::testing::power::{FakeMachine, Habit};
use dragonfly_core::wire::{Ask, Hello, Orders, Versions};
use tokio_util::sync::CancellationToken;
use url::Url;

const MARK: &str = "marked-Password-7281";

#[derive(Debug)]
struct Any;

impl TemplateChecker for Any {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

/// `rack://1` is machine 1; keeps whom it was told to log in as.
#[derive(Debug, Clone, Default)]
struct Rack {
    machines: Arc<BTreeMap<String, FakeMachine>>,
    logins: Arc<Mutex<Vec<(String, String)>>>,
}

#[async_trait]
impl PowerDriver for Rack {
    fn scheme(&self) -> &'static str {
        "rack"
    }

    fn check(&self, address: &Url) -> Result<()> {
        match address.host_str() {
            Some(host) if self.machines.contains_key(host) => Ok(()),
            _ => Err(PowerError::InvalidAddress { address: address.to_string(), reason: "rack://1 to 4".into() }),
        }
    }

    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        let login = credential.map(|c| (c.username.clone(), c.password.reveal().to_owned())).unwrap_or_default();
        self.logins.lock().unwrap().push(login);
        Ok(Arc::new(self.machines[address.host_str().unwrap()].clone()))
    }
}

struct Site {
    engine: Engine,
    store: Arc<dyn Store>,
    rack: Rack,
    key: SealingKey,
    stop: CancellationToken,
}

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {name: root}, spec: {data: {password: correct-horse}}}
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec: { actions: [{ name: leave, action: reboot }] }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: secretive }
spec:
  values: { password: { valueFrom: { secretRef: { name: root, key: password } } } }
  actions: [{ name: write, action: writefile, with: { content: '{{ values.password }}' } }]
";

impl Site {
    async fn new() -> Self {
        let machines = (1..5).map(|n| (n.to_string(), FakeMachine::new(Habit::Honest))).collect();
        let rack = Rack { machines: Arc::new(machines), ..Rack::default() };
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let key = SealingKey::generate().unwrap();
        let stop = CancellationToken::new();
        let site = Self { engine: Self::open(&store, &rack, &key).await, store, rack, key, stop };
        site.engine.apply(SETUP, "test").await.unwrap();
        for n in 1..5 {
            let text = format!(
                "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: m{n}}}, spec: {{macs: ['{}']}}}}",
                mac(n)
            );
            site.engine.apply(&text, "test").await.unwrap();
            let request =
                json(&format!("{{\"address\":\"rack://{n}\",\"username\":\"admin\",\"password\":\"{MARK}\"}}"));
            site.engine.set_bmc(&format!("m{n}"), request, "test").await.unwrap();
        }
        site
    }

    async fn open(store: &Arc<dyn Store>, rack: &Rack, key: &SealingKey) -> Engine {
        let limits = Limits {
            settle: Duration::from_millis(50),
            pause: Duration::from_millis(5),
            call: Duration::from_millis(1500),
            ..Limits::default()
        };
        Engine::builder(Arc::clone(store), key.clone(), Arc::new(Any))
            .power(Dispatcher::new(PowerDrivers::new().with(rack.clone()), limits))
            .settings(Settings { server_pin: "ab".repeat(32), ..Settings::default() })
            .build()
            .await
            .unwrap()
    }

    fn run(&self) {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        tokio::spawn(async move { engine.run(stop).await });
    }

    fn machine(&self, name: &str) -> Arc<Hardware> {
        self.engine.cache().get::<HardwareSpec>(name).unwrap()
    }

    fn powered(&self, name: &str) -> Option<(ConditionStatus, String)> {
        let machine = self.machine(name);
        condition(&machine.status.conditions, POWERED).map(|c| (c.status, c.reason.clone()))
    }

    fn rack(&self, n: u8) -> &FakeMachine {
        &self.rack.machines[&n.to_string()]
    }

    async fn assign(&self, name: &str, template: &str, power: Option<PowerPolicy>) {
        let request = AssignRequest { template: template.into(), power, ..AssignRequest::default() };
        self.engine.assign(name, request, "test").await.unwrap();
    }

    /// An agent that starts on this machine; its session.
    async fn agent(&self, n: u8) -> String {
        let from: IpAddr = IpAddr::from([10, 0, 0, n]);
        let request = BootRequest {
            from: Some(from),
            to: Some("10.0.0.1:3000".parse().unwrap()),
            ..BootRequest::from_mac(mac(n))
        };
        let identity = self.engine.identity(&request).await.unwrap().unwrap();
        let hello = Hello {
            protocol: Versions::OURS,
            agent: "test".into(),
            boot_id: uuid::Uuid::new_v4(),
            mac: mac(n),
            anchors: Anchors { macs: vec![mac(n)], ..Anchors::default() },
            inventory: Inventory::default(),
            existing_os: None,
            uptime_seconds: None,
            clock_offset_seconds: None,
        };
        let welcome = self.engine.hello(identity.token.reveal(), hello, from).await.unwrap();
        welcome.session.reveal().to_owned()
    }

    async fn orders(&self, session: &str) -> Orders {
        self.engine.work(session, Ask { wait_seconds: 0 }).await.unwrap()
    }

    /// Waits until the last operation of a machine is this one, by the engine; gives its failure.
    async fn boots(&self, name: &str) -> Option<String> {
        for _ in 0..500 {
            let machine = self.machine(name);
            if let Some(last) =
                machine.status.power.as_ref().and_then(|p| p.last.as_ref()).filter(|l| l.by == "dragonfly")
            {
                return last.failure.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} was not booted: {:?}", self.machine(name).status);
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let all = self.engine.events().subscribe(Some(0)).replay;
        let some = all.iter().filter(|event| event.kind == kind);
        some.map(|event| format!("{} {}", event.machine.clone().unwrap_or_default(), event.message)).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn mac(n: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, n])
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn what_a_controller_is_told_is_kept_and_told() {
    let site = Site::new().await;
    let power = async |name: &str, operation| site.engine.power(name, operation, "ops").await;
    assert_eq!(power("m1", Operation::Status).await.unwrap(), Outcome::State(PowerState::Off));
    assert_eq!(site.powered("m1"), Some((ConditionStatus::False, "Seen".into())));
    let before = site.machine("m1").metadata.resource_version.clone();
    power("m1", Operation::Status).await.unwrap();
    assert_eq!(site.machine("m1").metadata.resource_version, before, "nothing new is not written");

    assert_eq!(power("m1", Operation::On).await.unwrap(), Outcome::Done);
    assert!(site.rack(1).is_on());
    assert_eq!(site.powered("m1"), Some((ConditionStatus::True, "Seen".into())));
    power("m1", Operation::Cycle).await.unwrap();
    let status = site.machine("m1").status.power.clone().unwrap();
    let last = status.last.unwrap();
    assert_eq!((last.operation.as_str(), last.by.as_str(), last.failure), ("cycle", "ops", None));
    assert_eq!(status.cycled_at, Some(last.at));
    assert_eq!(site.events("power.done"), ["m1 ops: on", "m1 ops: cycle"]);
    assert_eq!(site.events("power.changed"), ["m1 its controller says that it is off"]);
    assert_eq!(site.rack.logins.lock().unwrap()[0], ("admin".to_owned(), MARK.to_owned()));

    // By any name that people use.
    assert_eq!(power(&mac(1).to_string(), Operation::Status).await.unwrap(), Outcome::State(PowerState::On));
    let error = power("nobody", Operation::On).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
    site.engine.remove_bmc("m1", "ops").await.unwrap();
    let error = power("m1", Operation::On).await.unwrap_err();
    let words = "no power controller of m1 is known; say where it is: dragonfly bmc set m1 ADDRESS";
    assert_eq!(error.to_string(), words);
    assert_eq!(site.powered("m1"), None);
    assert!(site.engine.get(Kind::SECRET, "bmc-m1").await.is_err(), "its own Secret went with it");
}

#[tokio::test]
async fn each_failure_has_its_cause() {
    let site = Site::new().await;
    let power = async |operation| site.engine.power("m2", operation, "ops").await;
    site.rack(2).becomes(Habit::Lying);
    let error = power(Operation::On).await.unwrap_err();
    assert!(matches!(&error, EngineError::Power { source: PowerError::NotDone { .. }, .. }), "{error:?}");
    assert_eq!(site.powered("m2"), Some((ConditionStatus::False, "Seen".into())), "it says that it is off");
    let failed = site.events("power.failed");
    assert!(
        failed[0].starts_with("m2 ops: on: the controller accepted the command, but the machine is off"),
        "{failed:?}"
    );

    site.rack(2).becomes(Habit::Locked);
    for _ in 0..2 {
        let error = power(Operation::Status).await.unwrap_err();
        assert!(matches!(&error, EngineError::Power { source: PowerError::Unauthorised, .. }), "{error:?}");
    }
    let asked = site.rack(2).calls();
    let error = power(Operation::On).await.unwrap_err();
    assert!(matches!(&error, EngineError::Power { source: PowerError::LockedOut { times: 2 }, .. }), "{error:?}");
    assert_eq!(site.rack(2).calls(), asked);
    assert_eq!(site.powered("m2"), Some((ConditionStatus::Unknown, "Unauthorised".into())));
    // A test is a person's word that it is right now; so is another account.
    site.rack(2).becomes(Habit::Honest);
    let tested = site.engine.test_bmc("m2", "ops").await.unwrap();
    assert_eq!(tested.state, Some(PowerState::Off));
    assert!(tested.can.contains(&"cycle") && !tested.can.contains(&"sensors"), "{:?}", tested.can);

    let error = power(Operation::Sensors).await.unwrap_err();
    let words = "this controller cannot do `sensors`; it can: on, off, cycle, reset, status, boot-device";
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), words);
    let set = Operation::SetNextBoot(Some(BootOverride::once(BootDevice::Disk)));
    assert_eq!(power(set).await.unwrap(), Outcome::Boot(Some(BootOverride::once(BootDevice::Disk))));

    // No password anywhere.
    let mut all = format!("{:?}", site.engine.events().subscribe(Some(0)).replay);
    for kind in [Kind::HARDWARE, Kind::SECRET] {
        for record in site.engine.list(kind, &Default::default(), 0, None).await.unwrap().items {
            all.push_str(&record.to_json().to_string());
        }
        for record in site.store.list(kind, &Default::default(), 0, None).await.unwrap().items {
            all.push_str(&record.to_json().to_string());
        }
    }
    assert!(all.contains("bmc-m2") && !all.contains(MARK));
}

#[tokio::test]
async fn what_is_wrong_with_a_controller_is_named_before_anything_is_kept() {
    let site = Site::new().await;
    for (given, wanted) in [
        (r#"{"address":"ipmi://10.0.0.6"}"#, "address: there is no power driver for `ipmi://`; there are: rack"),
        (r#"{"address":"rack://9"}"#, "address: `rack://9` is no address of a controller: rack://1 to 4"),
        (r#"{"address":"rack://u:p@1"}"#, "address: user and password do not belong here"),
        (r#"{"address":"rack://1","username":"a"}"#, "password: missing"),
        (r#"{"address":"rack://1","secret":"none"}"#, "secret: Secret `none` does not exist"),
        (r#"{"address":"rack://1","password":"x","secret":"root"}"#, "secret: give either"),
    ] {
        let before = site.machine("m1").spec.clone();
        let error = site.engine.set_bmc("m1", json::<BmcRequest>(given), "ops").await.unwrap_err();
        assert!(matches!(error, EngineError::Invalid(_)) && error.to_string().contains(wanted), "{given}: {error}");
        assert_eq!(site.machine("m1").spec, before);
    }
    let text =
        "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m1}, spec: {bmc: {address: 'imi://1'}}}";
    let error = site.engine.apply(text, "ops").await.unwrap_err().to_string();
    assert!(error.contains("spec.bmc.address: there is no power driver for `imi://`"), "{error}");
}

#[tokio::test]
async fn an_assignment_boots_its_machine() {
    let site = Site::new().await;
    site.run();
    // m1 is off, m2 runs something, m3 waits in its agent, m4 is on and is to be left alone.
    site.rack(2).set_power(true);
    site.rack(4).set_power(true);
    site.agent(3).await;
    site.assign("m1", "debian", None).await;
    site.assign("m2", "debian", None).await;
    site.assign("m3", "debian", None).await;
    site.assign("m4", "debian", Some(PowerPolicy::On)).await;
    assert_eq!(site.boots("m1").await, None);
    assert!(site.rack(1).is_on());
    assert_eq!(site.rack(1).boot(), Some(BootOverride::once(BootDevice::Pxe)));
    assert_eq!(site.boots("m2").await, None);
    assert_eq!(site.rack(2).boot().map(|boot| boot.device), Some(BootDevice::Pxe));
    assert_eq!(site.boots("m4").await, None);
    assert_eq!(site.machine("m4").status.power.clone().unwrap().last.unwrap().operation, "left-on");
    assert_eq!((site.rack(3).calls(), site.rack(4).boot()), (0, None), "neither is cycled");
    // Once.
    let calls = site.rack(1).calls();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(site.rack(1).calls(), calls);
    let done = site.events("power.done");
    assert!(done.contains(&"m1 dragonfly: network-boot".to_owned()), "{done:?}");
}

#[tokio::test]
async fn an_assignment_that_cannot_boot_its_machine_says_why() {
    let site = Site::new().await;
    site.rack(1).becomes(Habit::Locked);
    site.rack(2).becomes(Habit::Deaf);
    site.run();
    site.assign("m1", "debian", None).await;
    site.assign("m2", "debian", None).await;
    assert!(site.boots("m1").await.unwrap().contains("refused the user or the password"));
    assert!(site.boots("m2").await.unwrap().contains("did not answer"));
    let why = site.engine.why("m1").unwrap();
    let words = serde_json::to_string(&why).unwrap();
    assert!(words.contains("refused the user or the password"), "{words}");
}

#[tokio::test]
async fn a_server_that_was_killed_after_an_assignment_boots_the_machine() {
    let mut site = Site::new().await;
    site.engine.power("m1", Operation::Status, "ops").await.unwrap();
    // Nobody runs this engine: the assignment is durable, the boot never came.
    site.assign("m1", "debian", None).await;
    assert!(!site.rack(1).is_on());
    tokio::time::sleep(Duration::from_millis(10)).await;
    site.engine = Site::open(&site.store, &site.rack, &site.key).await;
    site.run();
    assert_eq!(site.boots("m1").await, None);
    assert!(site.rack(1).is_on());
}

#[tokio::test]
async fn what_has_begun_is_not_cycled() {
    let site = Site::new().await;
    site.assign("m3", "debian", None).await;
    site.rack(3).becomes(Habit::Slow(Duration::from_millis(400)));
    // Somebody else is at the controller; meanwhile its agent comes by itself.
    let engine = site.engine.clone();
    let first = tokio::spawn(async move { engine.power("m3", Operation::Status, "ops").await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    site.run();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let session = site.agent(3).await;
    assert!(matches!(site.orders(&session).await, Orders::Execute(_)));
    first.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!((site.rack(3).boot(), site.rack(3).is_on()), (None, false));
}

#[tokio::test]
async fn secrets_that_want_a_power_cycle_get_one() {
    let site = Site::new().await;
    for n in [1, 2] {
        let text = format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: m{n}}}, spec: {{macs: ['{}'], \
             trust: bmc, bmc: {{address: 'rack://{n}', secretRef: {{name: bmc-m{n}}}}}}}}}",
            mac(n)
        );
        site.engine.apply(&text, "test").await.unwrap();
    }
    // Its agent was there before: it proves nothing.
    let before = site.agent(1).await;
    site.assign("m1", "secretive", None).await;
    let Orders::Wait { reason } = site.orders(&before).await else { panic!("it was given the secret") };
    assert!(reason.contains("spec.trust: bmc"), "{reason}");
    site.run();
    assert_eq!(site.boots("m1").await, None, "cycled, although an agent waits there");
    // The one that starts after the cycle gets it.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let after = site.agent(1).await;
    let orders = site.orders(&after).await;
    assert!(matches!(orders, Orders::Execute(_)), "{orders:?}");
    let old = site.engine.work(&before, Ask { wait_seconds: 0 }).await;
    assert!(!matches!(old, Ok(Orders::Execute(_))), "{old:?}");
    // Without secrets nothing is to be proven.
    let session = site.agent(2).await;
    site.assign("m2", "debian", Some(PowerPolicy::None)).await;
    assert!(matches!(site.orders(&session).await, Orders::Execute(_)));
}
