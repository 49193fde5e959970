//! A backup is put back: what it allowed when it was made, it does not allow now.

#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider, BootRequest, Fate};
use dragonfly_core::engine::{AssignRequest, Engine, EngineError};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{HardwareSpec, TemplateSpec, WorkflowSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::redb::{Options, RedbStore};
use dragonfly_core::testing::ManualClock;
use dragonfly_core::wire::{Ask, Heard, Hello, Orders, Report, ReportKind, Versions, Work};
use dragonfly_core::workflow::RunState;

#[derive(Debug)]
struct Anything;

impl TemplateChecker for Anything {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
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
spec: { actions: [{ name: image, action: image2disk }] }
";

const NAME: &str = "censusablequalityparent";
const CARD: Mac = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);
const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 17));

/// A server on the file, started as `dragonfly` starts it.
async fn serve(path: &Path, key: &SealingKey, clock: &ManualClock) -> (Engine, RedbStore) {
    let options = Options { clock: Arc::new(clock.clone()), ..Options::default() };
    let store = RedbStore::open_with(path, options).unwrap();
    let restored = store.is_restored().await.unwrap();
    let engine = Engine::builder(Arc::new(store.clone()), key.clone(), Arc::new(Anything))
        .clock(Arc::new(clock.clone()))
        .restored(restored)
        .build()
        .await
        .unwrap();
    store.settle_restored().await.unwrap();
    (engine, store)
}

/// The machine boots and says hello: its session.
async fn boot(engine: &Engine, clock: &ManualClock) -> String {
    clock.advance(Duration::from_secs(40));
    let to = Some("10.0.0.1:3000".parse().unwrap());
    let request = BootRequest { from: Some(FROM), to, ..BootRequest::from_mac(CARD) };
    let token = engine.identity(&request).await.unwrap().expect("its fate is to boot the agent").token;
    let anchors = Anchors { macs: vec![CARD], serial: Some("SN-0001X".into()), ..Anchors::default() };
    let hello = Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: uuid::Uuid::new_v4(),
        mac: CARD,
        anchors,
        inventory: Inventory::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    };
    engine.hello(token.reveal(), hello, FROM).await.unwrap().session.reveal().to_owned()
}

async fn orders(engine: &Engine, session: &str) -> Work {
    match engine.work(session, Ask { wait_seconds: 0 }).await.unwrap() {
        Orders::Execute(work) => *work,
        other => panic!("expected work, got {other:?}"),
    }
}

async fn begins(engine: &Engine, session: &str, work: &Work) -> Heard {
    let (workflow, attempt, generation) = (work.workflow.clone(), work.attempt, work.permit.generation);
    engine.report(session, Report { workflow, attempt, generation, what: ReportKind::Began }).await.unwrap()
}

fn assign() -> AssignRequest {
    AssignRequest { template: "debian".into(), ..AssignRequest::default() }
}

#[tokio::test]
async fn what_a_restored_backup_allowed_is_void_until_an_operator_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (path, backup) = (directory.path().join("dragonfly.redb"), directory.path().join("backup.redb"));
    let (key, clock) = (SealingKey::generate().unwrap(), ManualClock::default());

    let (engine, store) = serve(&path, &key, &clock).await;
    engine.apply(SETUP, "op").await.unwrap();
    boot(&engine, &clock).await;
    let run = engine.assign(NAME, assign(), "op").await.unwrap();
    store.backup(&backup).await.unwrap();
    assert!(!store.is_restored().await.unwrap(), "the original is no copy");
    // After the backup: called off, and installed from another order.
    engine.abort(NAME, "op").await.unwrap();
    let later = engine.assign(NAME, assign(), "op").await.unwrap();
    let later = engine.cache().get::<HardwareSpec>(NAME).unwrap().status.authorisation.clone().unwrap_or_else(|| {
        panic!("{} is authorised", later.name());
    });
    drop(engine);
    store.close().await.unwrap();

    // Put back by hand, without any command of ours.
    std::fs::copy(&backup, &path).unwrap();
    clock.advance(Duration::from_secs(3600));
    let (engine, store) = serve(&path, &key, &clock).await;
    assert!(!store.is_restored().await.unwrap(), "what was to be held is held");
    let machine = engine.cache().get::<HardwareSpec>(NAME).unwrap();
    assert_eq!((machine.status.phase, &machine.status.authorisation), (Some(Phase::Held), &None));
    assert_eq!(engine.cache().get::<WorkflowSpec>(run.name()).unwrap().status.state, RunState::Held);
    let why = engine.why(NAME).unwrap();
    assert_eq!(why.decision.fate, Fate::Hold);
    assert!(why.decision.reason.contains("restored from a backup"), "{}", why.decision.reason);
    assert!(why.decision.reason.contains(run.name()), "{}", why.decision.reason);
    assert!(why.events.iter().any(|event| event.kind == "machine.held"), "{:?}", why.events);
    for error in [
        engine.assign(NAME, assign(), "op").await.unwrap_err(),
        engine.retry(NAME, "op").await.unwrap_err(),
        engine.abort(NAME, "op").await.unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::Illegal { .. }), "{error:?}");
    }

    // It stays so over a restart, and the sweep leaves it alone.
    drop(engine);
    store.close().await.unwrap();
    clock.advance(Duration::from_secs(3600));
    let (engine, _store) = serve(&path, &key, &clock).await;
    engine.sweep().await.unwrap();
    assert_eq!(engine.cache().get::<WorkflowSpec>(run.name()).unwrap().status.state, RunState::Held);

    // Released, it waits; only a new order images it, under a number beyond any that a disk may bear.
    engine.release(NAME, "op").await.unwrap();
    assert_eq!(engine.cache().get::<WorkflowSpec>(run.name()).unwrap().status.state, RunState::Aborted);
    let session = boot(&engine, &clock).await;
    assert!(matches!(engine.work(&session, Ask { wait_seconds: 0 }).await.unwrap(), Orders::Wait { .. }));
    assert!(matches!(engine.retry(NAME, "op").await, Err(EngineError::Illegal { .. })));
    engine.assign(NAME, assign(), "op").await.unwrap();
    let work = orders(&engine, &session).await;
    assert!(work.permit.generation > later.generation, "{:?} after {later:?}", work.permit);
    assert_eq!(begins(&engine, &session, &work).await, Heard::GoOn);
}

#[tokio::test]
async fn the_last_look_before_a_disk_is_written_is_at_the_fate() {
    let directory = tempfile::tempdir().unwrap();
    let (key, clock) = (SealingKey::generate().unwrap(), ManualClock::default());
    let (engine, _store) = serve(&directory.path().join("dragonfly.redb"), &key, &clock).await;
    engine.apply(SETUP, "op").await.unwrap();
    let session = boot(&engine, &clock).await;
    engine.assign(NAME, assign(), "op").await.unwrap();
    let work = orders(&engine, &session).await;
    let stopped = async |why: &str| match begins(&engine, &session, &work).await {
        Heard::Stop { reason } => assert!(reason.contains(why), "{reason}"),
        other => panic!("{why}: {other:?}"),
    };
    // Between the order and the first step a person changed his mind.
    engine.hold(NAME, "its owner asked", "op").await.unwrap();
    stopped("its owner asked").await;
    engine.release(NAME, "op").await.unwrap();
    engine.protect(NAME, true, "op").await.unwrap();
    stopped("protected").await;
    assert_eq!(engine.why(NAME).unwrap().decision.fate, Fate::Hold);
    engine.protect(NAME, false, "op").await.unwrap();
    clock.advance(Duration::from_secs(24 * 3600));
    stopped("expired").await;
    let machine = engine.cache().get::<HardwareSpec>(NAME).unwrap();
    assert_eq!(machine.status.authorisation.as_ref().and_then(|a| a.used_at), None, "nothing was begun");
}
