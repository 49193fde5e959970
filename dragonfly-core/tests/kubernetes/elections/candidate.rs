//! A server as far as leading goes, in a process of its own, so that it can be killed: it stands, it notes what it
//! believes, and where it leads it acts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::clock::{Clock as _, SystemClock, Timestamp};
use dragonfly_core::coordinate::{Coordinator as _, Leases, Term, Timing};
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{Key, KubernetesStore, Part, Store as _, When};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::CONTROLLERS;

/// What a process is told that is to be a candidate.
const PLAY: &str = "DRAGONFLY_TEST_CANDIDATE";
/// How often a candidate looks at what it believes.
const SAMPLE: Duration = Duration::from_millis(5);
/// How often it acts where it leads, and how long it thinks between the look at its lease and the act.
const ACT: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(60));
/// Bytes of a belief in the file.
const LINE: usize = 96;
/// What an act leaves on the object: when the lease was looked at.
pub(super) const AT: &str = "test/at";
/// Who acted, and in which term.
pub(super) const BY: [&str; 2] = ["who", "term"];

/// Nanoseconds of the clock that all processes of a machine share.
pub(super) fn now() -> u64 {
    u64::try_from(SystemClock.now().since(Timestamp::UNIX_EPOCH).as_nanos()).unwrap()
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) kubeconfig: PathBuf,
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) file: PathBuf,
}

/// That a candidate leads a controller in a term: for certain from one moment to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) controller: String,
    pub(super) term: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A candidate that runs. It ends with this.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    file: PathBuf,
    child: Child,
}

impl Candidate {
    pub(super) fn start(role: &Role) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["elections::candidate::plays", "--exact", "--nocapture"])
            .env(PLAY, serde_json::to_string(role).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { name: role.name.clone(), file: role.file.clone(), child }
    }

    /// As a power cut ends it.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `-STOP` or `-CONT`.
    pub(super) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Who it is in the leases, when it has said so.
    pub(super) fn identity(&self) -> Option<String> {
        Some(read(&self.file)?.0)
    }

    /// What it has believed so far.
    pub(super) fn beliefs(&self) -> Vec<Belief> {
        read(&self.file).map(|(_, beliefs)| beliefs).unwrap_or_default()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(file: &Path) -> Option<(String, Vec<Belief>)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (identity, rest) = text.split_once('\n')?;
    let belief = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [controller, term, from, to] = words[..] else { panic!("{line}") };
        let number = |word: &str| word.parse().unwrap();
        Belief { controller: controller.to_owned(), term: number(term), from: number(from), to: number(to) }
    };
    Some((identity.trim().to_owned(), rest.lines().map(belief).collect()))
}

/// Where beliefs are written down as they last: a process that is killed leaves what it believed.
struct Notes {
    file: File,
    slots: BTreeMap<(&'static str, Term), (u64, Belief)>,
}

impl Notes {
    fn begin(path: &Path, identity: &str) -> Self {
        let draft = path.with_extension("new");
        let mut file = File::create(&draft).unwrap();
        file.write_all(format!("{identity:<width$}\n", width = LINE - 1).as_bytes()).unwrap();
        std::fs::rename(&draft, path).unwrap();
        Self { file, slots: BTreeMap::new() }
    }

    /// It led at some moment from `before` to `after`.
    fn led(&mut self, controller: &'static str, term: Term, before: u64, after: u64) {
        let next = u64::try_from(self.slots.len() + 1).unwrap();
        let (slot, belief) = self.slots.entry((controller, term)).or_insert_with(|| {
            let belief = Belief { controller: controller.to_owned(), term: term.0, from: after, to: after };
            (next, belief)
        });
        belief.to = belief.to.max(before);
        let Belief { controller, term, from, to } = belief;
        let line = format!("{:<width$}\n", format!("{controller} {term} {from} {to}"), width = LINE - 1);
        self.file.write_all_at(line.as_bytes(), *slot * LINE as u64).unwrap();
    }
}

/// Acts on one object, as the engine does: it reads, sees whether it leads, and writes on condition that nothing
/// changed.
async fn acts(leases: &Leases, store: &KubernetesStore, controller: &str, who: &str) -> Option<Record> {
    let mut record = store.get(&Key::new(Kind::HARDWARE, controller)).await.ok()??;
    let at = now();
    let term = leases.leads(controller)?;
    tokio::time::sleep(ACT.1).await;
    let seen = When::Unchanged(record.metadata.resource_version.clone());
    let labels = [who.to_owned(), term.to_string()];
    record.metadata.labels = BY.map(str::to_owned).into_iter().zip(labels).collect();
    record.metadata.annotations = [(AT.to_owned(), at.to_string())].into();
    store.put(record, Part::Spec, seen).await.ok()
}

async fn play(role: Role) {
    let Role { name, kubeconfig, namespace, group, file } = role;
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), namespace, group, ..ConnectOptions::default() };
    let store = KubernetesStore::connect(options).await.unwrap();
    let leases = Leases::new(Arc::new(store.leases()), name.clone(), Timing::default());
    let mut notes = Notes::begin(&file, leases.identity());
    for controller in CONTROLLERS {
        let (leases, store, name) = (leases.clone(), store.clone(), name.clone());
        tokio::spawn(async move {
            loop {
                acts(&leases, &store, controller, &name).await;
                tokio::time::sleep(ACT.0).await;
            }
        });
    }
    let looks = leases.clone();
    std::thread::spawn(move || {
        loop {
            for controller in CONTROLLERS {
                let before = now();
                let led = looks.leads(controller);
                let after = now();
                if let Some(term) = led {
                    notes.led(controller, term, before, after);
                }
            }
            std::thread::sleep(SAMPLE);
        }
    });
    leases.run(CONTROLLERS.map(str::to_owned).into(), CancellationToken::new()).await;
}

/// Does something only in a process that [`Candidate::start`] has started: it ends with the one that did.
#[test]
fn plays() {
    let Ok(role) = std::env::var(PLAY) else { return };
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        std::process::abort();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(play(serde_json::from_str(&role).unwrap()));
}
