//! Servers that lead by leases in a real cluster: killed, stopped for longer than a lease and continued, while the API
//! server stands and while it is away. Never do two lead by their own belief, nobody leads or acts beyond its lease,
//! and what was done was done in the order of the terms.

mod candidate;
mod observer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dragonfly_core::coordinate::{POWER, SWEEP};
use dragonfly_core::resource::{Kind, Metadata, Record};
use dragonfly_core::store::{KubernetesStore, Part, Store as _, When};
use serde_json::{Value, json};

use self::candidate::{Belief, Candidate, Role, now};
use self::observer::{Act, Observer, Story};
use crate::servers::{Cluster, PATIENCE, Server};

/// What they stand for.
const CONTROLLERS: [&str; 2] = [SWEEP, POWER];
const NAMESPACE: &str = "elections";
/// How long a leader leads after it sent what renewed its lease: the lease less the margin, of the default timing.
const LEADS: Duration = Duration::from_secs(12);

struct Site {
    cluster: Cluster,
    group: String,
    directory: tempfile::TempDir,
    all: Vec<Candidate>,
    /// Names of those that are gone or stand still.
    away: BTreeSet<String>,
    observer: Observer,
    stood_up: usize,
}

impl Site {
    async fn start() -> Self {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(Server::Whole)).await.unwrap();
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        cluster.ask("POST", "/api/v1/namespaces", Some(&namespace)).await;
        let store = cluster.store(&[Kind::HARDWARE]).await;
        for controller in CONTROLLERS {
            let metadata = Metadata { name: controller.to_owned(), ..Metadata::default() };
            let record = Record { kind: Kind::HARDWARE, metadata, spec: json!({}), status: Value::Null };
            store.put(record, Part::Spec, When::Absent).await.unwrap();
        }
        let observer = Observer::start(cluster.client().await, NAMESPACE, store.clone());
        let directory = tempfile::tempdir().unwrap();
        let group = group_of(&store);
        Self { cluster, group, directory, all: Vec::new(), away: BTreeSet::new(), observer, stood_up: 0 }
    }

    fn stand_up(&mut self) {
        self.stood_up += 1;
        let name = format!("server-{}", self.stood_up);
        let file: PathBuf = self.directory.path().join(&name);
        let kubeconfig = self.cluster.options().kubeconfig.unwrap();
        let (group, namespace) = (self.group.clone(), NAMESPACE.to_owned());
        self.all.push(Candidate::start(&Role { name, kubeconfig, namespace, group, file }));
    }

    fn of(&mut self, name: &str) -> &mut Candidate {
        self.all.iter_mut().find(|one| one.name == name).unwrap()
    }

    /// Who leads this controller and is here, by the latest belief; it believed so less than a second ago.
    fn leader(&self, controller: &str) -> Option<(String, Belief)> {
        let here = self.all.iter().filter(|one| !self.away.contains(&one.name));
        let beliefs = here.flat_map(|one| one.beliefs().into_iter().map(|belief| (one.name.clone(), belief)));
        let led = beliefs.filter(|(_, belief)| belief.controller == controller);
        let fresh = now().saturating_sub(1_000_000_000);
        led.filter(|(_, belief)| belief.to > fresh).max_by_key(|(_, belief)| belief.to)
    }

    /// Waits until every controller is led by somebody who is here, and gives who leads the first one. `since` is when
    /// it began to be waited for.
    async fn led(&self, what: &str, since: u64) -> String {
        let start = Instant::now();
        loop {
            let leaders = CONTROLLERS.map(|controller| self.leader(controller));
            if let [Some((first, _)), Some(_)] = &leaders {
                for (controller, (who, belief)) in CONTROLLERS.iter().zip(leaders.iter().flatten()) {
                    let after = Duration::from_nanos(belief.from.saturating_sub(since)).as_secs_f64();
                    eprintln!("{what}: {who} leads {controller} in term {} after {after:.1} s", belief.term);
                    self.acted(who, belief).await;
                }
                return first.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{what}: nobody leads all: {leaders:?}\n{}", self.cluster.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something is seen that this leader did: a watch may rest for a while after the API server was away.
    async fn acted(&self, who: &str, belief: &Belief) {
        let is_its = |act: &Act| act.who == who && act.term == belief.term && act.controller == belief.controller;
        let start = Instant::now();
        while !self.observer.story().acts.iter().any(is_its) {
            assert!(start.elapsed() < PATIENCE, "{who} leads and does nothing: {belief:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that must be so whatever happened.
    fn check(&self) {
        let story = self.observer.story();
        let mut all: Vec<(&str, Belief)> = Vec::new();
        for one in &self.all {
            let identity = one.identity();
            for belief in one.beliefs() {
                let held = |seen: &&observer::Seen| {
                    seen.controller == belief.controller
                        && seen.term == belief.term
                        && Some(&seen.holder) == identity.as_ref()
                };
                let renewed = story.leases.iter().filter(held).map(|seen| seen.at).max();
                let renewed = renewed.unwrap_or_else(|| panic!("{} had no lease for {belief:?}", one.name));
                let over = renewed + LEADS.as_nanos() as u64;
                assert!(belief.to <= over, "{} leads beyond its lease, {over}: {belief:?}", one.name);
                let acts = story.acts.iter().filter(|act| act.who == one.name && act.controller == belief.controller);
                for act in acts.filter(|act| act.term == belief.term) {
                    assert!(act.at <= over, "{} acts beyond its lease, {over}: {act:?}", one.name);
                }
                all.push((&one.name, belief));
            }
        }
        never_two(&all);
        in_order(&story);
    }
}

fn group_of(store: &KubernetesStore) -> String {
    let text = format!("{store:?}");
    text.split("group: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
}

/// Nobody leads while another does: from its first moment in a term to the last.
fn never_two(all: &[(&str, Belief)]) {
    for (n, (who, one)) in all.iter().enumerate() {
        for (other, another) in all.iter().skip(n + 1).filter(|(_, another)| another.controller == one.controller) {
            let (first, last) = if one.term < another.term { (one, another) } else { (another, one) };
            assert_ne!(first.term, last.term, "{who} and {other} lead in one term: {one:?} {another:?}");
            assert!(first.to <= last.from, "{who} and {other} lead at once: {one:?} {another:?}");
        }
    }
}

/// What was written was written in the order of the terms, each of them one candidate's.
fn in_order(story: &Story) {
    let mut last: BTreeMap<&str, &Act> = BTreeMap::new();
    for act in &story.acts {
        if let Some(before) = last.insert(&act.controller, act) {
            assert!(before.term <= act.term, "{act:?} was done after {before:?}");
            assert!(before.term < act.term || before.who == act.who, "{act:?} and {before:?}");
        }
    }
    let mut holders: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for seen in &story.leases {
        let holder = *holders.entry((&seen.controller, seen.term)).or_insert(&seen.holder);
        assert!(seen.holder.is_empty() || holder == seen.holder, "{holder} had the term of {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_servers_that_are_killed_or_stopped_never_do_two_lead() {
    if !Server::Whole.is_here() {
        return;
    }
    let (began, clock) = (Instant::now(), now());
    let mut site = Site::start().await;
    let mut since = now();
    for _ in 0..3 {
        site.stand_up();
    }
    let mut leader = site.led("three stand up", since).await;

    since = now();
    site.of(&leader).kill();
    site.away.insert(leader.clone());
    let killed = std::mem::replace(&mut leader, site.led("its leader killed", since).await);
    assert_ne!(leader, killed);
    site.check();

    since = now();
    site.of(&leader).signal("-STOP");
    site.away.insert(leader.clone());
    let stopped = std::mem::replace(&mut leader, site.led("its leader stopped", since).await);
    assert_ne!(leader, stopped);
    // It goes on in the middle of what it did.
    site.of(&stopped).signal("-CONT");
    site.away.remove(&stopped);
    tokio::time::sleep(Duration::from_secs(3)).await;
    site.check();

    // For longer than a lease: nobody leads then, and who comes back first may go on.
    since = now();
    site.cluster.kill_api();
    tokio::time::sleep(LEADS + Duration::from_secs(5)).await;
    assert!(CONTROLLERS.iter().all(|controller| site.leader(controller).is_none()), "nobody can know that it leads");
    site.cluster.start_api();
    leader = site.led("the API server gone for 17 s", since).await;
    site.check();

    since = now();
    site.cluster.kill_api();
    site.of(&leader).signal("-STOP");
    site.away.insert(leader.clone());
    site.stand_up();
    site.cluster.start_api();
    let stopped =
        std::mem::replace(&mut leader, site.led("its leader stopped while the API server starts", since).await);
    site.of(&stopped).signal("-CONT");
    site.away.remove(&stopped);
    since = now();
    site.of(&leader).kill();
    site.away.insert(leader.clone());
    site.led("the next one killed", since).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    site.check();

    let story = site.observer.story();
    let terms: BTreeSet<u64> = story.acts.iter().map(|act| act.term).collect();
    eprintln!("{} versions of leases, {} acts in the terms {terms:?}", story.leases.len(), story.acts.len());
    assert!(terms.len() >= 4, "it was led by one after the other, and each acted: {terms:?}");
    let set = now().abs_diff(clock + u64::try_from(began.elapsed().as_nanos()).unwrap());
    assert!(set < 50_000_000, "somebody set the clock by {set} ns meanwhile: nothing can be said");
}

#[test]
fn what_must_not_be_is_noticed() {
    let belief = |term, from, to| Belief { controller: SWEEP.to_owned(), term, from, to };
    never_two(&[("a", belief(1, 10, 20)), ("b", belief(2, 20, 30)), ("a", belief(3, 31, 40))]);
    let caught = |all: &[(&str, Belief)]| std::panic::catch_unwind(|| never_two(all)).is_err();
    assert!(caught(&[("a", belief(1, 10, 20)), ("b", belief(2, 19, 30))]));
    assert!(caught(&[("a", belief(2, 10, 20)), ("b", belief(1, 19, 30))]));
    assert!(caught(&[("a", belief(1, 10, 20)), ("b", belief(1, 30, 40))]));
    let act = |who: &str, term| Act { controller: SWEEP.to_owned(), who: who.to_owned(), term, at: 0 };
    let story = |acts: Vec<Act>| Story { leases: Vec::new(), acts };
    in_order(&story(vec![act("a", 1), act("a", 1), act("b", 2)]));
    for wrong in [vec![act("b", 2), act("a", 1)], vec![act("a", 1), act("b", 1)]] {
        assert!(std::panic::catch_unwind(|| in_order(&story(wrong))).is_err());
    }
}
