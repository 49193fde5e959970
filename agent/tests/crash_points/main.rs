//! The agent is killed between any two steps of its work, once and twice: before each effect on the disk and after it,
//! while a report is on its way and while its answer is. Whatever the disk and the server know then, the agent that
//! starts next brings to the same end, and does nothing twice that it need not. Only the machine and the network are
//! made up here: the agent is the real one, and so is the engine.

#![allow(clippy::unwrap_used)]

mod machine;
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::action::{ImageError, ImageSource, ImageStream};
use dragonfly_core::engine::EngineError;
use dragonfly_core::wire::{Heard, Report, Work};
use mage::client::{CallError, Link, Reports};
use mage::console::Console;
use mage::journal::Journal;
use mage::run::{Outcome, Runner};
use mage::session::{Leave, serve};
use tokio::runtime::{Builder, Runtime};

use machine::{Disk, LEAVES, Machine, Pace, STEPS, actions};
use site::{Site, executed, hello};
use support::{Keys, Relay, Script, Server, json, reply};

/// No step here fetches anything.
#[derive(Debug)]
struct NoImages;

#[async_trait]
impl ImageSource for NoImages {
    async fn open(&self, url: &url::Url, _: u64, _: Option<&str>) -> Result<ImageStream, ImageError> {
        Err(ImageError::NotFound { url: url.to_string(), status: 404 })
    }
}

/// A log that nobody sees: thousands of runs say a lot.
fn journal() -> Journal {
    static QUIET: OnceLock<Console> = OnceLock::new();
    let console = QUIET.get_or_init(|| {
        let sysfs = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sysfs.path().join("class/tty/console")).unwrap();
        std::fs::write(sysfs.path().join("class/tty/console/active"), "null").unwrap();
        Console::of_the_kernel(sysfs.path(), Path::new("/dev"))
    });
    Journal::new(console.clone())
}

fn runner(machine: &Arc<Machine>, reports: Arc<dyn Reports>, journal: Journal) -> Runner {
    Runner {
        actions: actions(machine),
        images: Arc::new(NoImages),
        reports,
        journal,
        heartbeat: Duration::from_secs(12),
        is_hand_over: |action| action == LEAVES,
        handed_over: Arc::new(|_| Ok(())),
    }
}

/// The way to the server: the agent may die on it in either direction.
struct Line {
    site: Arc<Site>,
    machine: Arc<Machine>,
    session: String,
}

#[async_trait]
impl Reports for Line {
    async fn report(&self, report: &Report) -> Result<Heard, CallError> {
        self.machine.point().await;
        if self.machine.pace == Pace::Late {
            tokio::time::sleep(Duration::from_millis(4300)).await;
            self.machine.point().await;
        }
        let heard = self.site.hear(&self.session, report.clone()).await;
        self.machine.point().await;
        heard.map_err(|error| CallError::Refused { status: 500, detail: error.to_string() })
    }

    async fn report_once(&self, report: &Report) -> Result<Heard, CallError> {
        self.report(report).await
    }
}

/// How a life of the agent ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Died,
    Left,
    /// It never began: the server has the machine for installed.
    BootsItsDisk,
}

/// Everything of an agent lives in here: dropped, it is as dead as a process, tasks and all.
fn life_of_its_own() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// One life of the agent, which dies at this point.
fn live(site: &Arc<Site>, machine: &Arc<Machine>, dies_at: Option<usize>) -> End {
    machine.start(dies_at);
    let life = life_of_its_own();
    let given: Option<(Work, Option<Outcome>)> = life.block_on(async {
        let token = site.switch_on().await?;
        let session = site.hello(&token, hello()).await.unwrap().session.reveal().to_owned();
        let work = executed(site.work(&session).await.unwrap());
        let line = Line { site: Arc::clone(site), machine: Arc::clone(machine), session };
        let runner = runner(machine, Arc::new(line), journal());
        let outcome = machine.until_death(runner.execute(&work)).await;
        Some((*work, outcome))
    });
    drop(life);
    let Some((work, outcome)) = given else { return End::BootsItsDisk };
    machine.judge(&work, outcome.is_none());
    match outcome {
        None => End::Died,
        Some(Outcome::Leave(Some(by))) if by == LEAVES => End::Left,
        Some(other) => panic!("{other:?}"),
    }
}

/// A whole story: the first lives die at these points. After the first, a step's work is lost, if one is given.
struct Story {
    pace: Pace,
    deaths: Vec<usize>,
    loses: Option<usize>,
}

/// What came of one.
struct Told {
    disk: Disk,
    /// How many of the deaths there were: a life that has fewer points than it was to see lives on.
    died: usize,
    /// The points of the last life, and those of them that differ in what survives.
    points: usize,
    news: Vec<usize>,
    /// The steps whose work was on the disk at the first death.
    losable: Vec<usize>,
}

impl Story {
    fn play(&self) -> Told {
        let machine = Machine::new(self.pace);
        let site = Arc::new(life_of_its_own().block_on(Site::new(&machine)));
        let (mut died, mut losable) = (0, Vec::new());
        loop {
            let end = live(&site, &machine, self.deaths.get(died).copied());
            assert_eq!(machine.faults(), Vec::<String>::new(), "{} in life {}", self.name(), died + 1);
            if end != End::Died {
                break;
            }
            died += 1;
            if died == 1 {
                // Nobody looks after the disk of a machine that is installed.
                losable = if site.is_installed() { Vec::new() } else { machine.losable() };
                self.loses.into_iter().for_each(|step| machine.lose(step));
            }
        }
        assert!(site.is_installed(), "{}", self.name());
        Told { disk: machine.disk(), died, points: machine.points(), news: machine.news(), losable }
    }

    fn name(&self) -> String {
        format!("{:?}, dies at {:?}, loses {:?}", self.pace, self.deaths, self.loses)
    }
}

/// A death at every point; after it, in turn, the loss of each step's work; or a second death at every point of the life
/// that follows. Returns how many stories that makes.
fn at_every_point(pace: Pace) -> usize {
    let mut played = 0;
    let mut play = |deaths: &[usize], loses| {
        let story = Story { pace, deaths: deaths.to_vec(), loses };
        let told = story.play();
        played += 1;
        assert_eq!(told.died, deaths.len(), "{}", story.name());
        told
    };
    let calm = play(&[], None);
    // Of eleven effects, five steps and the attempt itself, before and after each, at the least.
    assert!(calm.points >= 2 * (11 + 2 * STEPS + 2) && calm.news.len() > 11 + 2 * STEPS + 2, "{:?}", calm.news);
    for first in 1..=calm.points {
        let once = play(&[first], None);
        assert_eq!(once.disk, calm.disk, "{pace:?}, dies at {first}");
        if !calm.news.contains(&first) {
            continue;
        }
        for step in once.losable {
            let told = play(&[first], Some(step));
            assert_eq!(told.disk, calm.disk, "{pace:?}, dies at {first} and loses the work of {step}");
        }
        for second in once.news {
            let told = play(&[first, second], None);
            assert_eq!(told.disk, calm.disk, "{pace:?}, dies at {first} and {second}");
        }
    }
    played
}

#[test]
fn killed_at_any_two_points_while_the_server_answers_at_once() {
    println!("{} stories", at_every_point(Pace::Prompt));
}

#[test]
fn killed_at_any_two_points_while_the_server_is_steps_behind() {
    println!("{} stories", at_every_point(Pace::Late));
}

/// The machine, its server and the calls under way, as they are for one agent.
type Now = Arc<Mutex<Option<(Arc<Site>, Arc<Machine>)>>>;

/// A server whose answers are the engine's. The agent may die while any question or answer is under way.
fn relay(now: &Now, under_way: &Arc<AtomicUsize>) -> Relay {
    let (now, under_way) = (Arc::clone(now), Arc::clone(under_way));
    Arc::new(move |path, bearer, body| {
        let (now, under_way) = (Arc::clone(&now), Arc::clone(&under_way));
        Box::pin(async move {
            let (site, machine) = now.lock().unwrap().clone()?;
            under_way.fetch_add(1, Ordering::SeqCst);
            let mut answer = reply(503, "{}");
            if !machine.dies_here() {
                let answered = match path.as_str() {
                    "/dragonfly/v1/agent/hello" => {
                        site.hello(&bearer, serde_json::from_slice(&body).unwrap()).await.map(|welcome| json(&welcome))
                    }
                    "/dragonfly/v1/agent/work" => site.work(&bearer).await.map(|orders| json(&orders)),
                    _ => site.hear(&bearer, serde_json::from_slice(&body).unwrap()).await.map(|heard| json(&heard)),
                };
                let answered = answered.unwrap_or_else(|error: EngineError| {
                    machine.fault(format!("{path}: {error}"));
                    reply(500, "{}")
                });
                if !machine.dies_here() {
                    answer = answered;
                }
            }
            under_way.fetch_sub(1, Ordering::SeqCst);
            Some(answer)
        })
    })
}

#[test]
fn killed_at_any_point_from_its_first_word_to_its_last() {
    let keys = Keys::new();
    let (now, under_way) = (Now::default(), Arc::new(AtomicUsize::new(0)));
    let script = Script { relay: Some(relay(&now, &under_way)), ..Script::default() };
    let servers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = servers.block_on(Server::start(&keys, &Arc::new(Mutex::new(script)), None));

    let live = |site: &Arc<Site>, machine: &Arc<Machine>, dies_at| {
        machine.start(dies_at);
        // This one talks to the world outside: its time is real, and its death a little later than the call's.
        let life = Builder::new_current_thread().enable_all().build().unwrap();
        let end = life.block_on(async {
            let token = site.switch_on().await?;
            let journal = journal();
            let identity = server.identity(&keys, &token);
            let agent = async {
                let link = Arc::new(Link::new(identity, hello(), journal.clone()).unwrap());
                link.connect().await.unwrap();
                let runner = runner(machine, Arc::clone(&link) as Arc<dyn Reports>, journal.clone());
                serve(&link, &runner, &journal, &|| {}).await
            };
            let agent = tokio::time::timeout(Duration::from_secs(60), machine.until_death(agent));
            Some(agent.await.expect("the agent comes to an end"))
        });
        drop(life);
        while under_way.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(work) = site.orders() {
            machine.judge(&work, end == Some(None));
        }
        match end {
            None => End::BootsItsDisk,
            Some(None) => End::Died,
            Some(Some(Leave::HandOver(by))) if by == LEAVES => End::Left,
            Some(Some(other)) => panic!("{other:?}"),
        }
    };
    let play = |dies_at: Option<usize>| {
        let machine = Machine::new(Pace::Prompt);
        let site = Arc::new(life_of_its_own().block_on(Site::new(&machine)));
        *now.lock().unwrap() = Some((Arc::clone(&site), Arc::clone(&machine)));
        let mut died = 0;
        loop {
            let end = live(&site, &machine, dies_at.filter(|_| died == 0));
            assert_eq!(machine.faults(), Vec::<String>::new(), "dies at {dies_at:?}, life {}", died + 1);
            if end != End::Died {
                break;
            }
            died += 1;
        }
        assert!(site.is_installed(), "dies at {dies_at:?}");
        (machine.disk(), died, machine.points())
    };
    let (disk, _, points) = play(None);
    for dies_at in 1..=points {
        let (is, died, _) = play(Some(dies_at));
        assert_eq!((is, died), (disk.clone(), 1), "dies at {dies_at}");
    }
}
