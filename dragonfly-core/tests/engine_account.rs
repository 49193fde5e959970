//! Accounts on controllers: who is given one, that its password is kept first and told to nobody else, and what a
//! report changes.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider, BootRequest};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{Engine, EngineError, Settings};
use dragonfly_core::inventory::{BmcSeen, Inventory};
use dragonfly_core::power::{
    Credential, Dispatcher, Limits, Operation, PowerControl, PowerDriver, PowerDrivers, PowerError, Result,
};
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{Hardware, HardwareSpec, Kind, TemplateSpec};
use dragonfly_core::secret::{SealingKey, SecretString};
use dragonfly_core::store::Store;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::testing::ManualClock;
use dragonfly_core::testing::power::{FakeMachine, Habit};
use dragonfly_core::wire::{BmcAccount, BmcAccountReport, Failure, Heard, Hello, Versions, Welcome};
use url::Url;
use uuid::Uuid;

#[derive(Debug)]
struct Any;

impl TemplateChecker for Any {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

/// One controller at every `ipmi://` address; keeps whom it was told to log in as.
#[derive(Debug, Clone)]
struct Controller {
    machine: FakeMachine,
    logins: Arc<Mutex<Vec<(String, String)>>>,
}

#[async_trait]
impl PowerDriver for Controller {
    fn scheme(&self) -> &'static str {
        "ipmi"
    }

    fn check(&self, _: &Url) -> Result<(), PowerError> {
        Ok(())
    }

    async fn open(&self, _: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        let login = credential.map(|c| (c.username.clone(), c.password.reveal().to_owned())).unwrap_or_default();
        self.logins.lock().unwrap().push(login);
        Ok(Arc::new(self.machine.clone()))
    }
}

struct Site {
    engine: Engine,
    store: Arc<dyn Store>,
    key: SealingKey,
    controller: Controller,
    clock: ManualClock,
}

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m1}, spec: {macs: ['52:54:00:ab:cd:01']}}
";

impl Site {
    async fn new() -> Self {
        Self::with(true).await
    }

    async fn with(bmc_accounts: bool) -> Self {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        let controller = Controller { machine: FakeMachine::new(Habit::Honest), logins: Arc::default() };
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let key = SealingKey::generate().unwrap();
        let engine = open(&store, &key, &controller, &clock, bmc_accounts).await;
        engine.apply(SETUP, "test").await.unwrap();
        Self { engine, store, key, controller, clock }
    }

    /// A server that has started anew on what the first has left, when the agents of that time count as silent.
    async fn restarted(&self) -> Engine {
        let engine = open(&self.store, &self.key, &self.controller, &self.clock, true).await;
        self.clock.advance(Duration::from_secs(40));
        engine
    }

    fn machine(&self) -> Arc<Hardware> {
        self.engine.cache().get::<HardwareSpec>("m1").unwrap()
    }

    fn told(&self) -> Vec<String> {
        let all = self.engine.events().subscribe(Some(0)).replay;
        all.iter().filter(|event| event.kind == "bmc.account").map(|event| event.message.clone()).collect()
    }

    /// Everything that the server keeps, shows and tells.
    async fn everything(&self) -> String {
        let mut all = format!("{:?}", self.engine.events().subscribe(Some(0)).replay);
        for kind in [Kind::HARDWARE, Kind::SECRET] {
            for record in self.engine.list(kind, &Default::default(), 0, None).await.unwrap().items {
                all.push_str(&record.to_json().to_string());
            }
            for record in self.store.list(kind, &Default::default(), 0, None).await.unwrap().items {
                all.push_str(&record.to_json().to_string());
            }
        }
        all
    }
}

async fn open(
    store: &Arc<dyn Store>,
    key: &SealingKey,
    controller: &Controller,
    clock: &ManualClock,
    bmc_accounts: bool,
) -> Engine {
    Engine::builder(Arc::clone(store), key.clone(), Arc::new(Any))
        .clock(Arc::new(clock.clone()))
        .power(Dispatcher::new(PowerDrivers::new().with(controller.clone()), Limits::default()))
        .settings(Settings { server_pin: "ab".repeat(32), bmc_accounts, ..Settings::default() })
        .build()
        .await
        .unwrap()
}

fn mac(n: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, n])
}

fn bmc(address: &str) -> Option<BmcSeen> {
    Some(BmcSeen { address: Some(address.parse().unwrap()), ..BmcSeen::default() })
}

async fn hello(engine: &Engine, bmc: Option<BmcSeen>, boot: Uuid, uuid: Option<Uuid>) -> Result<Welcome, EngineError> {
    let token = token(engine).await;
    hello_with(engine, &token, bmc, boot, uuid).await
}

const FROM: [u8; 4] = [10, 0, 0, 10];

async fn token(engine: &Engine) -> SecretString {
    let to = Some("10.0.0.1:3000".parse().unwrap());
    let request = BootRequest { from: Some(IpAddr::from(FROM)), to, ..BootRequest::from_mac(mac(1)) };
    engine.identity(&request).await.unwrap().unwrap().token
}

async fn hello_with(
    engine: &Engine,
    token: &SecretString,
    bmc: Option<BmcSeen>,
    boot: Uuid,
    uuid: Option<Uuid>,
) -> Result<Welcome, EngineError> {
    let hello = Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: boot,
        mac: mac(1),
        anchors: Anchors {
            macs: vec![mac(1)],
            smbios_uuid: uuid,
            serial: uuid.map(|uuid| format!("SN-{uuid}")),
            product: None,
        },
        inventory: Inventory { bmc, ..Inventory::default() },
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    };
    engine.hello(token.reveal(), hello, FROM.into()).await
}

/// The account that a first agent is given.
async fn given(engine: &Engine, boot: Uuid) -> (Welcome, Option<BmcAccount>) {
    let mut welcome = hello(engine, bmc("10.0.0.6"), boot, None).await.unwrap();
    let account = welcome.bmc_account.take();
    (welcome, account)
}

fn done() -> BmcAccountReport {
    BmcAccountReport { username: "dragonfly".into(), slot: Some(3), verified: true, failure: None }
}

#[tokio::test]
async fn an_account_is_given_kept_and_used() {
    let site = Site::new().await;
    let (welcome, account) = given(&site.engine, Uuid::new_v4()).await;
    let account = account.unwrap();
    assert_eq!(account.username, "dragonfly");
    let mark = account.password.reveal().to_owned();
    assert_eq!(mark.len(), 16);
    // It is kept before it can be used, and nothing names it yet.
    let secret = site.store.get(&dragonfly_core::store::Key::new(Kind::SECRET, "bmc-m1")).await.unwrap().unwrap();
    assert!(secret.spec["sealed"]["password"].is_string());
    assert_eq!(site.machine().spec.bmc, None);
    assert_eq!(site.told(), [""; 0]);

    let session = welcome.session.reveal();
    assert_eq!(site.engine.bmc_account(session, done()).await.unwrap(), Heard::GoOn);
    let set = site.machine().spec.bmc.clone().unwrap();
    assert_eq!(set.address.as_str(), "ipmi://10.0.0.6");
    assert_eq!(set.secret_ref.unwrap().name, "bmc-m1");
    let words = "its agent made the account `dragonfly` in slot 3 on its controller, ipmi://10.0.0.6";
    assert_eq!(site.told(), [words]);
    // The same once more changes nothing, nor is an account given to one that has a controller.
    let version = site.machine().metadata.resource_version.clone();
    assert_eq!(site.engine.bmc_account(session, done()).await.unwrap(), Heard::GoOn);
    assert_eq!(site.machine().metadata.resource_version, version);
    assert_eq!(site.told().len(), 1);
    site.engine.power("m1", Operation::Status, "test").await.unwrap();
    assert_eq!(site.controller.logins.lock().unwrap().as_slice(), [("dragonfly".to_owned(), mark.clone())]);
    let later = site.restarted().await;
    assert_eq!(given(&later, Uuid::new_v4()).await.1, None);

    let all = site.everything().await;
    assert!(all.contains("bmc-m1") && !all.contains(&mark));
    assert!(!format!("{welcome:?}{account:?}").contains(&mark));

    // It goes with the machine.
    site.engine.delete(Kind::HARDWARE, "m1", "test").await.unwrap();
    assert!(site.engine.get(Kind::SECRET, "bmc-m1").await.is_err());
}

#[tokio::test]
async fn until_it_is_there_the_same_password_goes_out_again() {
    let site = Site::new().await;
    let boot = Uuid::new_v4();
    let first = given(&site.engine, boot).await.1.unwrap();
    // The agent lost the answer; then the server dies with everything that is not in its store.
    assert_eq!(given(&site.engine, boot).await.1.as_ref(), Some(&first));
    let again = site.restarted().await;
    let (welcome, account) = given(&again, Uuid::new_v4()).await;
    assert_eq!(account, Some(first));
    again.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert!(again.cache().get::<HardwareSpec>("m1").unwrap().spec.bmc.is_some());
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_without_the_password() {
    let site = Site::new().await;
    let boot = Uuid::new_v4();
    let (welcome, account) = given(&site.engine, boot).await;
    let mark = account.unwrap().password.reveal().to_owned();
    let failure = Failure {
        message: format!("the controller refuses the password {mark}\u{1b}[31m"),
        causes: vec![format!("0x82: {mark}")],
        kind: None,
    };
    let report = BmcAccountReport { slot: None, verified: false, failure: Some(failure), ..done() };
    assert_eq!(site.engine.bmc_account(welcome.session.reveal(), report).await.unwrap(), Heard::GoOn);
    assert_eq!(site.machine().spec.bmc, None);
    let told = site.told();
    assert_eq!(told.len(), 1);
    let wanted = "no account was made on its controller: the controller refuses the password [secret]";
    assert!(told[0].starts_with(wanted) && told[0].contains("0x82: [secret]"), "{told:?}");
    assert!(!told[0].contains('\u{1b}'));
    assert!(!site.everything().await.contains(&mark));
    // Its next hello tries again.
    assert_eq!(given(&site.engine, boot).await.1.unwrap().password.reveal(), mark);
}

#[tokio::test]
async fn who_gets_none() {
    // The option is off.
    let off = Site::with(false).await;
    let (welcome, account) = given(&off.engine, Uuid::new_v4()).await;
    assert_eq!(account, None);
    let heard = off.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert!(matches!(heard, Heard::Stop { .. }), "{heard:?}");
    assert_eq!(off.machine().spec.bmc, None);
    assert!(off.engine.get(Kind::SECRET, "bmc-m1").await.is_err());

    // There is no controller to be seen, or it has no address.
    let site = Site::new().await;
    let boot = Uuid::new_v4();
    for seen in [None, Some(BmcSeen::default())] {
        assert_eq!(hello(&site.engine, seen, boot, None).await.unwrap().bmc_account, None);
    }
    // Nobody was given an account, so a report of one is none.
    let mut welcome = hello(&site.engine, None, boot, None).await.unwrap();
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert_eq!(site.machine().spec.bmc, None);
    assert!(site.engine.get(Kind::SECRET, "bmc-m1").await.is_err(), "no password was made for nothing");

    // A person has said where it is.
    let request = serde_json::from_str(r#"{"address":"ipmi://10.0.0.7","username":"a","password":"b"}"#).unwrap();
    site.engine.set_bmc("m1", request, "ops").await.unwrap();
    welcome = hello(&site.engine, bmc("10.0.0.6"), boot, None).await.unwrap();
    assert_eq!(welcome.bmc_account, None);
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert_eq!(site.machine().spec.bmc.clone().unwrap().address.as_str(), "ipmi://10.0.0.7");

    // Who shows no session tells nothing.
    let error = site.engine.bmc_account("x", done()).await.unwrap_err();
    assert!(matches!(error, EngineError::Unauthenticated { .. }), "{error}");
}

#[tokio::test]
async fn a_secret_that_somebody_else_made_is_left_alone() {
    let site = Site::new().await;
    let text = "{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {name: bmc-m1}, \
                spec: {data: {username: root, password: calvin-and-hobbes}}}";
    site.engine.apply(text, "ops").await.unwrap();
    let (welcome, account) = given(&site.engine, Uuid::new_v4()).await;
    assert_eq!(account, None);
    assert!(site.told()[0].contains("Secret `bmc-m1` holds the account `root`"), "{:?}", site.told());
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert_eq!(site.machine().spec.bmc, None);
    assert!(!site.everything().await.contains("calvin"));
}

#[tokio::test]
async fn a_machine_in_conflict_is_given_no_password() {
    let site = Site::new().await;
    let board = |n: u128| Some(Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_0000 + n));
    // A machine is known; then somebody has its card and another board.
    let boot = Uuid::new_v4();
    let welcome = hello(&site.engine, None, boot, board(1)).await.unwrap();
    let token = token(&site.engine).await;
    let error = hello(&site.engine, bmc("10.0.0.66"), Uuid::new_v4(), board(2)).await.unwrap_err();
    assert!(error.to_string().contains("another agent speaks"), "{error}");
    site.clock.advance(Duration::from_secs(40));
    let error = hello(&site.engine, bmc("10.0.0.66"), Uuid::new_v4(), board(2)).await.unwrap_err();
    assert!(error.to_string().contains("identity in conflict"), "{error}");
    assert!(site.engine.get(Kind::SECRET, "bmc-m1").await.is_err());
    // The machine itself, while nobody has settled it: it speaks, and gets no password.
    let said = hello_with(&site.engine, &token, bmc("10.0.0.6"), boot, board(1)).await.unwrap();
    assert_eq!(said.bmc_account, None);
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert_eq!(site.machine().spec.bmc, None);
}

#[tokio::test]
async fn what_a_person_took_away_is_not_made_again() {
    let (site, boot) = (Site::new().await, Uuid::new_v4());
    let (welcome, account) = given(&site.engine, boot).await;
    assert!(account.is_some());
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert!(site.machine().spec.bmc.is_some());
    site.engine.remove_bmc("m1", "ops").await.unwrap();
    // A report that comes late does not name it again, nor does the next hello get an account.
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert_eq!(site.machine().spec.bmc, None);
    assert!(given(&site.engine, boot).await.1.is_none());

    // A person's word, and it is.
    site.engine.allow_bmc_account("m1", "ops").await.unwrap();
    let (welcome, account) = given(&site.engine, boot).await;
    assert!(account.is_some());
    site.engine.bmc_account(welcome.session.reveal(), done()).await.unwrap();
    assert!(site.machine().spec.bmc.is_some());
    let error = site.engine.allow_bmc_account("m1", "ops").await.unwrap_err().to_string();
    assert!(error.contains("nobody forbade an account on m1"), "{error}");
    // So does a controller that a person gives: without it, its agent makes one as it did at first.
    site.engine.remove_bmc("m1", "ops").await.unwrap();
    let bmc = serde_json::json!({ "address": "ipmi://10.0.0.7" });
    site.engine.set_bmc("m1", serde_json::from_value(bmc).unwrap(), "ops").await.unwrap();
    assert!(site.machine().metadata.annotations.is_empty(), "{:?}", site.machine().metadata.annotations);
    // It is kept with the machine: a server that starts anew knows it too.
    site.engine.remove_bmc("m1", "ops").await.unwrap();
    assert!(given(&site.restarted().await, Uuid::new_v4()).await.1.is_none());
}
