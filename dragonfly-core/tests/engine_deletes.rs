//! What goes with an object that is deleted, what stays, and what is not begun on one that is to go.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::clock::{Clock as _, Timestamp};
use dragonfly_core::engine::{AssignRequest, Deletion, Engine, EngineError, Settings, Write};
use dragonfly_core::power::ipmi::Ipmi;
use dragonfly_core::power::{Dispatcher, Limits, PowerDrivers};
use dragonfly_core::resource::{Hardware, HardwareSpec, Kind, TemplateSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::store::{Key, Store};
use dragonfly_core::testing::ManualClock;
use serde_json::json;

#[derive(Debug)]
struct Any;

impl TemplateChecker for Any {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

struct Site {
    engine: Engine,
    store: Arc<dyn Store>,
    key: SealingKey,
    clock: ManualClock,
}

impl Site {
    async fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let key = SealingKey::generate().unwrap();
        let engine = open(&store, &key, &clock).await;
        for name in ["m1", "m2"] {
            let n = &name[1..];
            let text = format!(
                "{HEAD}, kind: Hardware, metadata: {{name: {name}}}, spec: {{macs: ['52:54:00:ab:cd:0{n}']}}}}"
            );
            engine.apply(&text, "test").await.unwrap();
        }
        Self { engine, store, key, clock }
    }

    async fn set_bmc(&self, machine: &str, more: &str) {
        let request = format!("{{\"address\":\"ipmi://10.0.0.6\",{more}}}");
        self.engine.set_bmc(machine, serde_json::from_str(&request).unwrap(), "test").await.unwrap();
    }

    async fn secrets(&self) -> Vec<String> {
        let all = self.store.list(Kind::SECRET, &Default::default(), 0, None).await.unwrap();
        all.items.into_iter().map(|record| record.metadata.name).collect()
    }

    /// As a stop in the middle of a deletion leaves it: the machine is gone, and nothing else was done.
    async fn only_the_machine_goes(&self, name: &str) {
        let key = Key::new(Kind::HARDWARE, name);
        let found = self.store.get(&key).await.unwrap().unwrap();
        self.store.delete(&key, &found.metadata.resource_version).await.unwrap();
    }
}

async fn open(store: &Arc<dyn Store>, key: &SealingKey, clock: &ManualClock) -> Engine {
    Engine::builder(Arc::clone(store), key.clone(), Arc::new(Any))
        .clock(Arc::new(clock.clone()))
        .power(Dispatcher::new(PowerDrivers::new().with(Ipmi::default()), Limits::default()))
        .settings(Settings { server_pin: "ab".repeat(32), ..Settings::default() })
        .build()
        .await
        .unwrap()
}

const HEAD: &str = "{apiVersion: dragonfly.computer/v1";
const ACCOUNT: &str = "\"username\":\"admin\",\"password\":\"correct-horse\"";

#[tokio::test]
async fn a_machines_own_secret_goes_with_it() {
    let site = Site::new().await;
    for name in ["m1", "m2"] {
        site.set_bmc(name, ACCOUNT).await;
    }
    assert_eq!(site.secrets().await, ["bmc-m1", "bmc-m2"]);
    let dry = Write { by: "ops", dry_run: true };
    site.engine.delete_if(Kind::HARDWARE, "m1", &Deletion::default(), dry).await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m1", "bmc-m2"], "a dry run");
    site.engine.delete(Kind::HARDWARE, "m1", "ops").await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m2"]);
    let told = site.engine.events().subscribe(Some(0)).replay;
    assert!(told.iter().any(|event| event.message == "ops deleted Secret `bmc-m1`"), "{told:?}");
    // Also when it had got another account meanwhile: the Secret was for this machine alone.
    let other = format!("{HEAD}, kind: Secret, metadata: {{name: rack}}, spec: {{data: {{password: x}}}}}}");
    site.engine.apply(&other, "test").await.unwrap();
    site.set_bmc("m2", "\"secret\":\"rack\"").await;
    site.engine.delete(Kind::HARDWARE, "m2", "ops").await.unwrap();
    assert_eq!(site.secrets().await, ["rack"]);
}

#[tokio::test]
async fn machines_go_with_their_secrets_whatever_they_are_called() {
    // Names share locks: among so many, a machine and its Secret have the same.
    let site = Site::new().await;
    for n in 0..400 {
        let name = format!("rack-{n}");
        let text = format!("{HEAD}, kind: Hardware, metadata: {{name: {name}}}, spec: {{serial: {name}}}}}");
        site.engine.apply(&text, "test").await.unwrap();
        site.set_bmc(&name, ACCOUNT).await;
        let deleted = site.engine.delete(Kind::HARDWARE, &name, "ops");
        tokio::time::timeout(Duration::from_secs(60), deleted).await.expect(&name).unwrap();
    }
    assert_eq!(site.secrets().await, [""; 0]);
}

#[tokio::test]
async fn a_secret_that_people_wrote_or_that_is_used_stays() {
    // What a person wrote, before or over ours, is theirs.
    for own_first in [false, true] {
        let site = Site::new().await;
        if own_first {
            site.set_bmc("m1", ACCOUNT).await;
        }
        let theirs = format!("{HEAD}, kind: Secret, metadata: {{name: bmc-m1}}, spec: {{data: {{password: x}}}}}}");
        site.engine.apply(&theirs, "ops").await.unwrap();
        site.set_bmc("m1", "\"secret\":\"bmc-m1\"").await;
        site.engine.delete(Kind::HARDWARE, "m1", "ops").await.unwrap();
        assert_eq!(site.secrets().await, ["bmc-m1"]);
        site.clock.advance(Duration::from_secs(30 * 24 * 3600));
        site.engine.sweep().await.unwrap();
        assert_eq!(site.secrets().await, ["bmc-m1"]);
    }

    // A note that says another name than the Secret's is none.
    let site = Site::new().await;
    let named = format!(
        "{HEAD}, kind: Secret, metadata: {{name: x, annotations: {{dragonfly.computer/made-for: m1}}}}, spec: {{data: {{p: x}}}}}}"
    );
    site.engine.apply(&named, "ops").await.unwrap();
    // Another machine logs in with it.
    site.set_bmc("m1", ACCOUNT).await;
    site.set_bmc("m2", "\"secret\":\"bmc-m1\"").await;
    site.engine.delete(Kind::HARDWARE, "m1", "ops").await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m1", "x"]);
    site.clock.advance(Duration::from_secs(7200));
    // A template has its value from it.
    let template = format!(
        "{HEAD}, kind: Template, metadata: {{name: t}}, spec: {{values: {{p: {{valueFrom: {{secretRef: {{name: bmc-m1, key: password}}}}}}}}, \
         actions: [{{name: r, action: reboot}}]}}}}"
    );
    site.engine.apply(&template, "ops").await.unwrap();
    site.engine.delete(Kind::HARDWARE, "m2", "ops").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m1", "x"]);
    // Nobody any more.
    site.engine.delete(Kind::TEMPLATE, "t", "ops").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!(site.secrets().await, ["x"]);
}

#[tokio::test]
async fn a_stop_between_the_two_leaves_no_orphan_for_ever() {
    let site = Site::new().await;
    site.set_bmc("m1", ACCOUNT).await;
    site.only_the_machine_goes("m1").await;
    let engine = open(&site.store, &site.key, &site.clock).await;
    engine.sweep().await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m1"], "its machine may be about to be put back");
    site.clock.advance(Duration::from_secs(3601));
    engine.sweep().await.unwrap();
    assert_eq!(site.secrets().await, [""; 0]);

    let site = Site::new().await;
    site.set_bmc("m1", ACCOUNT).await;
    site.clock.advance(Duration::from_secs(7200));
    site.engine.sweep().await.unwrap();
    assert_eq!(site.secrets().await, ["bmc-m1"], "its machine is there");
}

#[tokio::test]
async fn finalizers_that_nothing_would_wait_for_are_refused() {
    let site = Site::new().await;
    let refused = |error: EngineError| {
        let said = error.to_string();
        assert!(
            said.contains("metadata.finalizers[0]") && said.contains("would not be waited for when Hardware"),
            "{said}"
        );
    };
    let text = "apiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata:\n  name: m3\n  finalizers: [a/b]\nspec: {serial: m3}\n";
    let both = format!("{text}---\n{}", text.replace("m3", "m4").replace("\n  finalizers: [a/b]", ""));
    let error = site.engine.apply(&both, "ops").await.unwrap_err();
    assert!(error.to_string().contains("line 5"), "{error}");
    refused(error);
    for name in ["m3", "m4"] {
        assert!(site.engine.get(Kind::HARDWARE, name).await.is_err(), "nothing of it is written");
    }
    let object = |name: &str, finalizers: &[&str]| {
        let metadata = json!({ "name": name, "finalizers": finalizers });
        json!({ "apiVersion": "dragonfly.computer/v1", "kind": "Hardware", "metadata": metadata, "spec": { "serial": name } })
    };
    refused(site.engine.create_object(object("m3", &["a/b"]), "ops").await.unwrap_err());
    refused(site.engine.replace_object(object("m1", &["a/b"]), "ops").await.unwrap_err());
    let patch = |finalizers: &'static [&'static str]| {
        move |object: &mut serde_json::Value| {
            object["metadata"]["finalizers"] = json!(finalizers);
            Ok(())
        }
    };
    let by = Write::by("ops");
    refused(site.engine.patch_object(Kind::HARDWARE, "m1", patch(&["a/b"]), by).await.unwrap_err());

    // What came with an import is shown, kept by those who do not speak of it, taken off, and no hindrance.
    for name in ["m5", "m6"] {
        site.engine.import_object(object(name, &["a/b", "c/d"]), by).await.unwrap();
    }
    let label = |object: &mut serde_json::Value| {
        object["metadata"]["labels"] = json!({ "rack": "a1" });
        Ok(())
    };
    let labelled = site.engine.patch_object(Kind::HARDWARE, "m5", label, by).await.unwrap();
    assert_eq!(labelled.metadata.finalizers, ["a/b", "c/d"]);
    site.engine.replace_object(object("m5", &["a/b", "c/d"]), "ops").await.unwrap();
    let fewer = site.engine.patch_object(Kind::HARDWARE, "m5", patch(&["c/d"]), by).await.unwrap();
    assert_eq!(fewer.metadata.finalizers, ["c/d"]);
    assert!(site.engine.patch_object(Kind::HARDWARE, "m5", patch(&["a/b", "c/d"]), by).await.is_err());
    for name in ["m5", "m6"] {
        site.engine.delete(Kind::HARDWARE, name, "ops").await.unwrap();
        assert!(site.engine.get(Kind::HARDWARE, name).await.is_err());
    }
}

#[tokio::test]
async fn nothing_is_begun_on_a_machine_that_is_being_deleted() {
    let site = Site::new().await;
    let template =
        format!("{HEAD}, kind: Template, metadata: {{name: t}}, spec: {{actions: [{{name: r, action: reboot}}]}}}}");
    site.engine.apply(&template, "ops").await.unwrap();
    // As a cluster shows it that waits for somebody's finalizer.
    let cache = site.engine.cache();
    let mut machine = Hardware::clone(&cache.get::<HardwareSpec>("m1").unwrap());
    machine.metadata.deletion_timestamp = Some(site.clock.now());
    machine.metadata.finalizers.push("a/b".to_owned());
    machine.metadata.resource_version = "1000".to_owned();
    cache.applied(&machine);
    let request = AssignRequest { template: "t".into(), ..AssignRequest::default() };
    let error = site.engine.assign("m1", request, "ops").await.unwrap_err().to_string();
    assert_eq!(error, "m1 is being deleted (it waits for a/b); nothing is begun on it");
    let error = site.engine.retry("m1", "ops").await.unwrap_err().to_string();
    assert!(error.contains("is being deleted"), "{error}");
}
