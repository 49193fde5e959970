//! The agent against a server that is killed, forgets sessions, refuses and stops.

#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dragonfly_core::action::{
    Action, ActionContext, ActionError, Actions, ImageError, ImageSource, Permit, Resume, Unit,
};
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::wire::{BmcAccount, Hello, Identity, Orders, ReportKind, Versions, Work, WorkStep};
use dragonfly_core::workflow::StepEvent;
use futures_util::StreamExt;
use mage::client::Link;
use mage::console::Console;
use mage::images::HttpImages;
use mage::journal::Journal;
use mage::run::Runner;
use mage::session::{Leave, serve, ship};
use serde::Deserialize;
use support::{Keys, Script, Server, Shared, identity};

/// Counts its runs; works for `millis`; fails when told so.
#[derive(Debug, Clone, Default)]
struct Toil {
    runs: Arc<AtomicU32>,
    verified: Arc<AtomicU32>,
    stopped: Arc<AtomicU32>,
    /// How often it was noted on the disks that the machine was handed over.
    noted: Arc<AtomicU32>,
    /// What it said, without the run's secrets.
    hidden: Arc<Mutex<Option<String>>>,
}

#[derive(Debug, Clone, Deserialize)]
struct ToilParams {
    #[serde(default)]
    millis: u64,
    #[serde(default)]
    fail: bool,
    /// Said in the log, and quoted in the failure.
    #[serde(default)]
    says: String,
}

impl Action for Toil {
    const NAME: &'static str = "toil";
    const RESUME: Resume = Resume::Verify;
    type Params = ToilParams;

    fn check(&self, _: &ToilParams) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn run(&self, params: ToilParams, cx: &ActionContext) -> Result<(), ActionError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        for n in 0..params.millis / 10 {
            cx.progress(n * 10, Some(params.millis), Unit::Bytes);
            if cx.check_cancelled().is_err() {
                self.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(ActionError::Cancelled);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cx.log(&params.says);
        *self.hidden.lock().unwrap() = Some(cx.mask().hide(&params.says).into_owned());
        let why = format!("the disk is on fire{}; put it out", params.says);
        if params.fail { Err(ActionError::because(why)) } else { Ok(()) }
    }

    async fn verify(&self, _: ToilParams, _: &ActionContext) -> Result<bool, ActionError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }
}

fn step(name: &str, with: serde_json::Value) -> WorkStep {
    WorkStep { name: name.into(), action: "toil".into(), with, timeout_seconds: 60, done_before: false }
}

fn work(attempt: u32, steps: Vec<WorkStep>) -> Orders {
    Orders::Execute(Box::new(Work {
        workflow: "w".into(),
        attempt,
        permit: Permit { generation: 7, ..Permit::default() },
        steps,
        secrets: Vec::new(),
    }))
}

struct Setup {
    keys: Arc<Keys>,
    script: Shared,
    server: Server,
    toil: Toil,
    journal: Journal,
}

async fn setup(orders: Vec<Orders>) -> Setup {
    let keys = Keys::new();
    let script = Arc::new(Mutex::new(Script { orders, ..Script::default() }));
    let server = Server::start(&keys, &script, None).await;
    Setup { keys, script, server, toil: Toil::default(), journal: Journal::new(Console::stderr()) }
}

impl Setup {
    fn link(&self) -> Arc<Link> {
        let identity = self.server.identity(&self.keys, "first");
        Arc::new(Link::new(identity, hello(), self.journal.clone()).unwrap())
    }

    fn runner(&self, link: &Arc<Link>) -> Runner {
        let (script, noted) = (Arc::clone(&self.script), Arc::clone(&self.toil.noted));
        let images = HttpImages::new(
            vec![self.server.identity(&self.keys, "").server],
            self.keys.pin.parse().unwrap(),
            Path::new("/none"),
        );
        Runner {
            actions: Actions::new().with(self.toil.clone()),
            images: Arc::new(images.unwrap()),
            reports: Arc::clone(link) as Arc<dyn mage::client::Reports>,
            journal: self.journal.clone(),
            heartbeat: Duration::from_secs(2),
            is_hand_over: |_| false,
            handed_over: Arc::new(move |permit| {
                assert_eq!(permit.generation, 7);
                assert_eq!(events(&script).last().map(String::as_str), Some("handOver"), "the server knows first");
                noted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }),
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: uuid::Uuid::nil(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        anchors: Anchors::default(),
        inventory: Default::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came: {what}");
}

fn events(script: &Shared) -> Vec<String> {
    let script = script.lock().unwrap();
    let mut events: Vec<String> = script
        .reports
        .iter()
        .filter_map(|r| match r {
            ReportKind::Began => Some("began".to_owned()),
            ReportKind::HandOver => Some("handOver".to_owned()),
            ReportKind::Refused { .. } => Some("refused".to_owned()),
            ReportKind::Step { event: StepEvent::Progressed, .. } => None,
            ReportKind::Step { index, event, .. } => Some(format!("{index} {event:?}")),
            _ => None,
        })
        .collect();
    events.dedup();
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_restarted_in_the_middle_of_a_step_changes_nothing() {
    let s =
        setup(vec![work(1, vec![step("a", serde_json::json!({"millis": 1500})), step("b", serde_json::json!({}))])])
            .await;
    let link = s.link();
    link.connect().await.unwrap();
    let runner = s.runner(&link);
    let (script, keys, journal) = (Arc::clone(&s.script), Arc::clone(&s.keys), s.journal.clone());
    let agent = tokio::spawn({
        let link = Arc::clone(&link);
        async move { serve(&link, &runner, &journal, &|| {}).await }
    });
    until("the first step", || events(&script).contains(&"0 Began".to_owned())).await;
    let address = s.server.kill().await;
    // Long enough that the step ends while nobody listens.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _server = Server::start(&keys, &script, Some(address)).await;
    let leave = tokio::time::timeout(Duration::from_secs(60), agent).await.unwrap().unwrap();
    assert!(matches!(leave, Leave::Restart { .. }), "{leave:?}");
    assert_eq!(events(&script), ["began", "0 Began", "0 Succeeded", "1 Began", "1 Succeeded", "handOver"]);
    assert_eq!(s.toil.runs.load(Ordering::SeqCst), 2);
    assert_eq!(s.toil.noted.load(Ordering::SeqCst), 1, "and the disks bear it");
    assert_eq!(script.lock().unwrap().hellos.len(), 1, "the session outlives the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_instance_dies_another_hears_the_rest() {
    let orders = vec![work(1, vec![step("a", serde_json::json!({"millis": 1500})), step("b", serde_json::json!({}))])];
    let s = setup(orders).await;
    // The same state and the same key, elsewhere.
    let other = Server::start(&s.keys, &s.script, None).await;
    let also = vec![other.identity(&s.keys, "").server];
    let identity = Identity { also: also.clone(), ..s.server.identity(&s.keys, "first") };
    let images = HttpImages::new(mage::client::servers(&identity), s.keys.pin.parse().unwrap(), Path::new("/none"));
    let images = images.unwrap();
    let link = Arc::new(Link::new(identity, hello(), s.journal.clone()).unwrap());
    link.connect().await.unwrap();
    let runner = s.runner(&link);
    let (script, journal) = (Arc::clone(&s.script), s.journal.clone());
    let agent = tokio::spawn({
        let link = Arc::clone(&link);
        async move { serve(&link, &runner, &journal, &|| {}).await }
    });
    until("the first step", || events(&script).contains(&"0 Began".to_owned())).await;
    script.lock().unwrap().files.push(("/images/a.raw".into(), vec![7; 1000]));
    let gone = s.server.kill().await;
    let leave = tokio::time::timeout(Duration::from_secs(120), agent).await.unwrap().unwrap();
    assert!(matches!(leave, Leave::Restart { .. }), "{leave:?}");
    assert_eq!(events(&script), ["began", "0 Began", "0 Succeeded", "1 Began", "1 Succeeded", "handOver"]);
    assert_eq!(script.lock().unwrap().hellos.len(), 1, "the session is good at both");
    let (_, log) = s.journal.pending(100_000).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains(&format!("{gone}/ does not answer; asking {}", also[0])), "{log}");
    // An image that the one was to give is had from the other.
    let url: url::Url = format!("https://{gone}/images/a.raw").parse().unwrap();
    assert!(images.open(&url, 0, None).await.is_err(), "as it finds out");
    assert_eq!(images.open(&url, 0, None).await.unwrap().total, Some(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_opened_anew_with_a_fresh_identity() {
    let s = setup(vec![work(1, vec![step("a", serde_json::json!({}))])]).await;
    {
        let mut script = s.script.lock().unwrap();
        script.end_sessions = 1;
    }
    let link = s.link();
    link.connect().await.unwrap();
    // The first token is used up: the second hello is refused until it shows another.
    s.script.lock().unwrap().refuse_hellos = (1, 403);
    let leave = serve(&link, &s.runner(&link), &s.journal, &|| {}).await;
    assert!(matches!(leave, Leave::Restart { .. }));
    let script = s.script.lock().unwrap();
    assert_eq!(script.tokens, ["Bearer first", "Bearer first", "Bearer fresh-1"]);
    assert_eq!((script.hellos.len(), script.identities_given), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_stop_stops_the_step_at_work() {
    let s =
        setup(vec![work(1, vec![step("a", serde_json::json!({"millis": 30_000})), step("b", serde_json::json!({}))])])
            .await;
    let link = s.link();
    let runner = s.runner(&link);
    let (script, journal, toil) = (Arc::clone(&s.script), s.journal.clone(), s.toil.clone());
    let agent = tokio::spawn(async move { serve(&link, &runner, &journal, &|| {}).await });
    until("the first step", || events(&script).contains(&"0 Began".to_owned())).await;
    script.lock().unwrap().stop = Some("called off".into());
    until("the step stops", || toil.stopped.load(Ordering::SeqCst) == 1).await;
    {
        let mut script = script.lock().unwrap();
        script.stop = None;
        script.orders.push(Orders::BootLocal { reason: "held".into() });
    }
    let leave = agent.await.unwrap();
    assert_eq!(leave, Leave::Restart { reason: "boots its own disk: held".into() });
    assert_eq!(toil.runs.load(Ordering::SeqCst), 1, "the second step never ran");
    assert!(!events(&script).contains(&"handOver".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_a_retry_skips_what_holds() {
    let mut done = step("a", serde_json::json!({}));
    done.done_before = true;
    let s = setup(vec![
        work(1, vec![step("a", serde_json::json!({})), step("b", serde_json::json!({"fail": true}))]),
        work(2, vec![done, step("b", serde_json::json!({}))]),
    ])
    .await;
    let link = s.link();
    let shells = AtomicU32::new(0);
    let on_failure = || {
        shells.fetch_add(1, Ordering::SeqCst);
    };
    serve(&link, &s.runner(&link), &s.journal, &on_failure).await;
    assert_eq!(
        events(&s.script),
        [
            "began",
            "0 Began",
            "0 Succeeded",
            "1 Began",
            "1 Failed", // the first attempt
            "began",
            "0 Skipped",
            "1 Began",
            "1 Succeeded",
            "handOver",
        ]
    );
    assert_eq!((shells.load(Ordering::SeqCst), s.toil.verified.load(Ordering::SeqCst)), (1, 1));
    let script = s.script.lock().unwrap();
    let failure = script.reports.iter().find_map(|r| match r {
        ReportKind::Step { failure: Some(failure), .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert_eq!(failure.as_deref(), Some("the disk is on fire; put it out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_when_one_step_of_many_makes_no_plan() {
    let mut wrong = step("typo", serde_json::json!({"milis": 3}));
    let mut unknown = step("other", serde_json::json!({}));
    unknown.action = "toill".into();
    wrong.timeout_seconds = 1;
    let orders = vec![
        work(1, vec![step("a", serde_json::json!({})), wrong, unknown]),
        Orders::Reboot { reason: "enough".into() },
    ];
    let s = setup(orders).await;
    let link = s.link();
    serve(&link, &s.runner(&link), &s.journal, &|| {}).await;
    assert_eq!(s.toil.runs.load(Ordering::SeqCst), 0);
    let script = s.script.lock().unwrap();
    let [ReportKind::Refused { failure }] = &script.reports[..] else { panic!("{:?}", script.reports) };
    let text = failure.causes.join("\n");
    assert!(
        text.contains("step 2 `typo`")
            && text.contains("milis")
            && text.contains("step 3 `other`")
            && text.contains("toill"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_past_its_time_is_stopped_and_named() {
    let mut slow = step("slow", serde_json::json!({"millis": 60_000}));
    slow.timeout_seconds = 1;
    let s = setup(vec![work(1, vec![slow]), Orders::Reboot { reason: "enough".into() }]).await;
    let link = s.link();
    serve(&link, &s.runner(&link), &s.journal, &|| {}).await;
    assert_eq!(s.toil.stopped.load(Ordering::SeqCst), 1);
    let script = s.script.lock().unwrap();
    let told = script.reports.iter().any(|r| matches!(r, ReportKind::Step { failure: Some(f), .. } if f.message.contains("`slow` was stopped after 1 s")));
    assert!(told, "{:?}", script.reports);
}

#[tokio::test]
async fn what_came_of_the_account_is_told_even_when_the_session_has_ended() {
    let s = setup(Vec::new()).await;
    s.script.lock().unwrap().end_sessions = 1;
    let link = s.link();
    link.connect().await.unwrap();
    let account = BmcAccount { username: "dragonfly".into(), password: "Ab3Ab3Ab3Ab3Ab3z".to_owned().into() };
    // A machine without a controller's device.
    let dev = tempfile::tempdir().unwrap();
    mage::account::make(Arc::clone(&link), s.journal.clone(), dev.path().to_owned(), account).await;
    let script = s.script.lock().unwrap();
    assert_eq!(script.hellos.len(), 2);
    let [told] = &script.accounts[..] else { panic!("{:?}", script.accounts) };
    assert_eq!((told.username.as_str(), told.slot, told.verified), ("dragonfly", None, false));
    assert!(told.failure.as_ref().unwrap().message.contains("no driver"), "{told:?}");
    // Whatever is said later, by whichever workflow.
    s.journal.hide(dragonfly_core::secret::Mask::default());
    s.journal.note("the password is Ab3Ab3Ab3Ab3Ab3z");
    let (_, log) = s.journal.pending(100_000).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("the password is [secret]") && !log.contains("Ab3Ab3"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_key_hears_nothing() {
    let s = setup(Vec::new()).await;
    let other = Keys::new();
    let identity = identity(s.server.address, &other, "first");
    let link = Link::new(identity, hello(), s.journal.clone()).unwrap();
    let result = tokio::time::timeout(Duration::from_secs(3), link.connect()).await;
    assert!(result.is_err(), "it goes on trying");
    let script = s.script.lock().unwrap();
    assert!(script.hellos.is_empty() && script.tokens.is_empty(), "the token did not leave");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_arrives_whole_and_without_secrets() {
    let mut secret = step("a", serde_json::json!({"millis": 0}));
    secret.with = serde_json::json!({"millis": 10});
    let s = setup(vec![work(1, vec![secret])]).await;
    let link = s.link();
    link.connect().await.unwrap();
    tokio::spawn(ship(Arc::clone(&link), s.journal.clone()));
    s.journal.note("line one");
    serve(&link, &s.runner(&link), &s.journal, &|| {}).await;
    s.journal.note("the last line");
    until("the last line", || s.script.lock().unwrap().log.iter().any(|(_, t)| t.contains("the last line"))).await;
    let script = s.script.lock().unwrap();
    let mut at = 0;
    for (offset, text) in &script.log {
        assert_eq!(*offset, at);
        at += text.len() as u64;
        assert!(!text.contains("session-1") && !text.contains("first"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_resume_and_notice_a_change() {
    let s = setup(Vec::new()).await;
    let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    s.script.lock().unwrap().files.push(("/images/a.raw".into(), bytes.clone()));
    let server = s.server.identity(&s.keys, "").server;
    let images = HttpImages::new(vec![server.clone()], s.keys.pin.parse().unwrap(), Path::new("/none")).unwrap();
    let read = async |mut stream: dragonfly_core::action::ImageStream| {
        let mut all = Vec::new();
        while let Some(part) = stream.bytes.next().await {
            all.extend_from_slice(&part.unwrap());
        }
        all
    };
    // By its own name, by path alone, and in plain.
    for url in [
        server.join("/images/a.raw?signature=x").unwrap(),
        "dragonfly:///images/a.raw".parse().unwrap(),
        server.as_str().replace("https", "http").parse::<url::Url>().unwrap().join("/images/a.raw").unwrap(),
    ] {
        let first = images.open(&url, 0, None).await.unwrap();
        assert_eq!(first.total, Some(100_000));
        let tag = first.validator.clone().unwrap();
        assert_eq!(read(first).await, bytes);
        let rest = images.open(&url, 99_990, Some(&tag)).await.unwrap();
        assert_eq!(rest.total, Some(100_000));
        assert_eq!(read(rest).await, &bytes[99_990..]);
        let changed = images.open(&url, 5, Some("\"other\"")).await;
        assert!(matches!(changed, Err(ImageError::Changed { .. })), "{changed:?}");
    }
    let missing = images.open(&server.join("/images/none?signature=secret").unwrap(), 0, None).await.unwrap_err();
    assert!(
        matches!(missing, ImageError::NotFound { status: 404, .. }) && !missing.to_string().contains("secret"),
        "{missing}"
    );
    let foreign = images.open(&"https://198.51.100.1/x".parse().unwrap(), 0, None).await.unwrap_err();
    let why = mage::client::chain(&foreign);
    assert!(why.contains("no certificate authorities"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_had_by_the_session_when_its_link_has_expired_and_by_the_next_when_that_has_ended() {
    let s = setup(Vec::new()).await;
    s.script.lock().unwrap().files.push(("/images/a.raw".into(), vec![7; 1000]));
    let open_to = |session: &str| s.script.lock().unwrap().files_for = Some(format!("Bearer {session}"));
    let server = s.server.identity(&s.keys, "").server;
    let link = s.link();
    let images = HttpImages::new(vec![server.clone()], s.keys.pin.parse().unwrap(), Path::new("/none"));
    let images = images.unwrap().with_session(Arc::clone(&link));
    let (url, unnamed) = (server.join("/images/a.raw?expires=1&signature=x").unwrap(), "dragonfly:///images/a.raw");
    open_to("session-1");
    let early = images.open(&url, 0, None).await;
    assert!(matches!(early, Err(ImageError::Refused { status: 401, .. })), "there is no session yet");
    link.connect().await.unwrap();
    let whole = images.open(&url, 0, None).await.unwrap();
    let rest = images.open(&url, 900, whole.validator.as_deref()).await.unwrap();
    assert_eq!((whole.total, rest.total), (Some(1000), Some(1000)));
    images.open(&unnamed.parse().unwrap(), 0, None).await.unwrap();
    // It ends while an image is written, and the image is who finds out.
    open_to("session-2");
    assert_eq!(images.open(&url, 0, None).await.unwrap().total, Some(1000));
    // Another finds out: the image goes by the new one at once.
    s.script.lock().unwrap().end_sessions = 1;
    open_to("session-3");
    link.work().await.unwrap();
    s.script.lock().unwrap().shown.clear();
    assert_eq!(images.open(&url, 0, None).await.unwrap().total, Some(1000));
    assert_eq!(s.script.lock().unwrap().shown, ["Bearer session-3"]);
    // One that not even a new session opens is refused, and not asked for endlessly.
    open_to("nobody");
    let refused = images.open(&url, 0, None).await;
    assert!(matches!(refused, Err(ImageError::Refused { status: 401, .. })), "{refused:?}");
    assert_eq!(s.script.lock().unwrap().hellos.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_is_shown_to_our_server_alone() {
    let s = setup(Vec::new()).await;
    // Another host, which has the same key, so that nothing but its address tells it from ours.
    let elsewhere = Arc::new(Mutex::new(Script::default()));
    let other = Server::start(&s.keys, &elsewhere, None).await;
    for script in [&s.script, &elsewhere] {
        script.lock().unwrap().files.push(("/images/a.raw".into(), vec![7; 1000]));
    }
    let (server, address) = (s.server.identity(&s.keys, "").server, other.address);
    let redirect = |path: &str, to: String| s.script.lock().unwrap().redirects.push((path.to_owned(), to));
    redirect("/images/away.raw", format!("https://{address}/images/a.raw"));
    redirect("/images/plain.raw", server.as_str().replace("https", "http") + "images/a.raw");
    let link = s.link();
    link.connect().await.unwrap();
    let images = HttpImages::new(vec![server.clone()], s.keys.pin.parse().unwrap(), Path::new("/none"));
    let images = images.unwrap().with_session(Arc::clone(&link));
    images.open(&server.join("/images/away.raw").unwrap(), 0, None).await.unwrap();
    images.open(&format!("http://{address}/images/a.raw").parse().unwrap(), 0, None).await.unwrap();
    assert_eq!(elsewhere.lock().unwrap().shown, ["", ""]);
    let plain = format!("http://{}/images/a.raw", s.server.address).parse().unwrap();
    images.open(&plain, 0, None).await.unwrap();
    assert!(images.open(&server.join("/images/plain.raw").unwrap(), 0, None).await.is_err());
    assert_eq!(s.script.lock().unwrap().shown, ["Bearer session-1", "", "Bearer session-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_says_of_a_secret_leaves_the_machine_without_it() {
    let with = serde_json::json!({"fail": true, "says": ", chpasswd: correct-horse is too simple"});
    let Orders::Execute(mut orders) = work(1, vec![step("a", with)]) else { unreachable!() };
    orders.secrets = vec!["correct-horse".to_owned().into()];
    let s = setup(vec![Orders::Execute(orders)]).await;
    let link = s.link();
    link.connect().await.unwrap();
    let runner = s.runner(&link);
    let agent = tokio::spawn({
        let (link, journal) = (Arc::clone(&link), s.journal.clone());
        async move { serve(&link, &runner, &journal, &|| {}).await }
    });
    until("the failure", || events(&s.script).contains(&"0 Failed".to_owned())).await;
    agent.abort();
    let reports = format!("{:?}", s.script.lock().unwrap().reports);
    assert!(reports.contains("chpasswd: [secret] is too simple") && !reports.contains("correct-horse"), "{reports}");
    let (_, log) = s.journal.pending(usize::MAX).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("chpasswd: [secret] is too simple") && !log.contains("correct-horse"), "{log}");
    // Actions take it out by themselves before they cut a text.
    assert_eq!(s.toil.hidden.lock().unwrap().as_deref(), Some(", chpasswd: [secret] is too simple"));
}
