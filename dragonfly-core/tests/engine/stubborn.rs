//! Objects that cannot be written, or were written by others, and agents that say more than anybody wants to hear:
//! one machine's trouble is no other's, and ends.

use std::sync::Mutex;

use async_trait::async_trait;
use dragonfly_core::clock::Clock as _;
use dragonfly_core::resource::{MAX_OBJECT_BYTES, Record};
use dragonfly_core::store::{Key, Page, Result, Selector, WatchEvent};

use super::*;

/// A store that says of one object that it is too large.
#[derive(Debug)]
struct Stubborn {
    store: Arc<dyn Store>,
    full: Mutex<Option<String>>,
}

#[async_trait]
impl Store for Stubborn {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.store.get(key).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.store.list(kind, selector, limit, from).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        if self.full.lock().unwrap().as_ref() == Some(&record.metadata.name) {
            let key = Key::new(record.kind, record.metadata.name.clone());
            return Err(StoreError::TooLarge { key, bytes: MAX_OBJECT_BYTES + 1 });
        }
        self.store.put(record, part, when).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.store.delete(key, version).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> futures_core::stream::BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(kind, from)
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_written_keeps_no_other_from_its_deadline() {
    let site = Site::new().await;
    let store = Arc::new(Stubborn { store: Arc::clone(&site.store), full: Mutex::default() });
    let site = Site { store: Arc::clone(&store) as _, ..site }.restarted().await;
    let mut runs = Vec::new();
    for n in 1..=3 {
        let agent = site.boot(n).await;
        site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
        let work = agent.work().await;
        assert_eq!(agent.say(&work, ReportKind::Began).await, Heard::GoOn);
        runs.push((work.workflow, n));
    }
    runs.sort();
    let (full, whose) = runs[0].clone();
    *store.full.lock().unwrap() = Some(full);
    site.clock.advance(Duration::from_secs(3600));
    assert!(site.engine.sweep().await.unwrap_err().to_string().contains("bytes"));
    for n in 1..=3 {
        let want = if n == whose { Phase::Provisioning } else { Phase::Error };
        assert_eq!(site.phase(n), Some(want), "machine {n}");
    }
    // Nor from a start, which tells it and goes on.
    let site = site.restarted().await;
    *store.full.lock().unwrap() = None;
    site.clock.advance(Duration::from_secs(3600));
    site.engine.sweep().await.unwrap();
    assert_eq!(site.phase(whose), Some(Phase::Error));
}

#[tokio::test]
async fn an_agent_may_say_as_much_as_it_likes_and_its_run_ends() {
    let site = Site::new().await;
    let text = "x".repeat(100 * 1024);
    let large = format!(
        "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: {{ name: large }}
spec:
  actions:
    - {{ name: one, action: writefile, with: {{ content: {text} }} }}
    - {{ name: two, action: writefile, with: {{ content: {text} }} }}
    - {{ name: three, action: writefile, with: {{ content: {text} }} }}
"
    );
    site.engine.apply(&large, "me").await.unwrap();
    let agent = site.boot(1).await;
    let request = AssignRequest { template: "large".into(), ..AssignRequest::default() };
    let run = site.engine.assign(&agent.welcome.machine, request, "me").await.unwrap();
    let quotes = || "\"".repeat(10_000);
    for attempt in 0..40 {
        if site.phase(1) == Some(Phase::Error) {
            site.engine.retry(&agent.welcome.machine, "me").await.unwrap();
        }
        let work = agent.work().await;
        assert_eq!(agent.say(&work, ReportKind::Began).await, Heard::GoOn);
        site.engine.log(&agent.key, 0, "\"a line\"\n".repeat(10_000).into()).await.ok();
        for index in 0..work.steps.len() {
            assert_eq!(agent.step(&work, index, StepEvent::Began).await, Heard::GoOn, "attempt {attempt}");
            if index == attempt % work.steps.len() {
                let message = format!("{attempt} {}", quotes());
                let failure = Some(Failure { causes: vec![quotes(); 40], ..Failure::message(message) });
                let event = StepEvent::Failed;
                agent.say(&work, ReportKind::Step { index, event, progress: None, failure }).await;
                break;
            }
            assert_eq!(agent.step(&work, index, StepEvent::Succeeded).await, Heard::GoOn, "attempt {attempt}");
        }
        let (state, size) = {
            let run = site.run(run.name());
            (run.status.state, serde_json::to_vec(&*run).unwrap().len())
        };
        assert!(size <= MAX_OBJECT_BYTES, "attempt {attempt}: {size}");
        assert_ne!(state, RunState::Running, "attempt {attempt} has failed");
    }
    let run = site.run(run.name());
    assert_eq!(run.status.failures.first().map(|f| f.attempt), Some(1));
    assert_eq!(run.status.failures.last().map(|f| f.attempt), Some(40));
}

#[tokio::test]
async fn what_leaves_no_room_is_refused_when_it_is_assigned() {
    let site = Site::new().await;
    let text = "x".repeat(230 * 1024);
    let large = format!(
        "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: {{ name: large }}
spec:
  actions:
    - {{ name: one, action: writefile, with: {{ content: {text} }} }}
    - {{ name: two, action: writefile, with: {{ content: {text} }} }}
"
    );
    site.engine.apply(&large, "me").await.unwrap();
    let agent = site.boot(1).await;
    let request = AssignRequest { template: "large".into(), ..AssignRequest::default() };
    let refused = site.engine.assign(&agent.welcome.machine, request, "me").await.unwrap_err();
    assert!(matches!(&refused, EngineError::Invalid(problems) if problems[0].path == "spec"), "{refused}");
    assert_eq!(site.phase(1), Some(Phase::Registered));
}

#[tokio::test]
async fn after_a_restart_an_agent_has_time_to_be_heard_again() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    assert_eq!(agent.say(&work, ReportKind::Began).await, Heard::GoOn);
    let key = agent.key.clone();
    let site = site.restarted().await;

    // Somebody else in the network, before the agent has had anything to say.
    site.clock.advance(Duration::from_secs(5));
    let token = site.token(1).await.unwrap();
    let refused = site.engine.hello(&token, hello(1), address(1)).await.unwrap_err();
    assert!(matches!(refused, EngineError::Busy { .. }), "{refused}");
    let report = Report {
        workflow: work.workflow.clone(),
        attempt: work.attempt,
        generation: work.permit.generation,
        what: ReportKind::Step { index: 0, event: StepEvent::Began, progress: None, failure: None },
    };
    assert_eq!(site.engine.report(&key, report).await.unwrap(), Heard::GoOn, "the agent is the one it was");

    // A machine that was switched off meanwhile is waited for as long as always.
    let site = site.restarted().await;
    site.clock.advance(Duration::from_secs(29));
    let token = site.token(1).await.unwrap();
    assert!(site.engine.hello(&token, hello(1), address(1)).await.is_err());
    site.clock.advance(Duration::from_secs(2));
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, hello(1), address(1)).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_was_handed_over_is_not_waited_for_after_a_restart() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    agent.finish(&work).await;
    let name = agent.welcome.machine.clone();
    let site = site.restarted().await;
    site.engine.reimage(&name, ReimageRequest::default(), "me").await.unwrap();
    site.clock.advance(Duration::from_secs(5));
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, hello(1), address(1)).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_silence() {
    let site = Site::new().await;
    drop(site.boot(1).await);
    site.clock.set(Timestamp::from_unix_seconds(site.clock.now().unix_seconds() - 9 * 3600));
    let hear = async |token: String| site.engine.hello(&token, hello(1), address(1)).await;
    let early = site.token(1).await.unwrap();
    assert!(matches!(hear(early.clone()).await, Err(EngineError::Busy { .. })));
    for _ in 0..3 {
        site.clock.advance(Duration::from_secs(32));
        let token = site.token(1).await.unwrap();
        hear(token.clone()).await.unwrap();
        site.clock.advance(Duration::from_secs(32));
        assert!(matches!(hear(token).await, Err(EngineError::Forbidden { .. })), "it was used");
        assert!(matches!(hear(early.clone()).await, Err(EngineError::Forbidden { .. })), "an earlier one");
    }
    let token = site.token(1).await.unwrap();
    site.clock.advance(Duration::from_secs(601));
    assert!(matches!(hear(token).await, Err(EngineError::Unproven { .. })), "it lasts no longer for that");
}

#[tokio::test]
async fn a_workflow_stays_what_it_was_made_of() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    let run = site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let mut object = site.engine.get(Kind::WORKFLOW, run.name()).await.unwrap().to_json();
    object["metadata"]["labels"]["rack"] = serde_json::json!("r1");
    site.engine.apply(&object.to_string(), "me").await.unwrap();
    assert_eq!(site.fate(1), "image", "a label says nothing of what is run");
    let mut object = site.engine.get(Kind::WORKFLOW, run.name()).await.unwrap().to_json();
    object["spec"]["content"]["actions"][1]["with"]["content"] = serde_json::json!("something else");
    let refused = site.engine.apply(&object.to_string(), "me").await.unwrap_err();
    assert!(matches!(refused, EngineError::Illegal { .. }), "{refused}");
    assert_eq!(site.fate(1), "image");

    // By somebody who writes to the store itself.
    let edit = |w: &mut dragonfly_core::resource::Workflow| {
        w.spec.content.timeout_seconds = Some(7);
        Ok::<(), StoreError>(())
    };
    site.store.update_spec::<WorkflowSpec, _, _>(run.name(), edit).await.unwrap();
    let site = site.restarted().await;
    let decided = site.engine.decision(&BootRequest::from_mac(mac(1)));
    assert_ne!(decided.fate.word(), "image");
    assert!(decided.reason.contains("changed after it was made"), "{}", decided.reason);
}
