//! Stores beside each other: ours in one file, SQLite with the same promises, Kubernetes as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Key, Part, RedbStore, Selector, Store, WatchEvent, When};
use futures_util::StreamExt as _;
use sqlite_store::SqliteStore;
use tokio::task::JoinSet;

use super::args::Bench;
use super::fill::{self, fill_store, machine, name};
use super::http::directory;
use super::kubernetes::{self, Cluster};
use super::report::{Report, Times};
use crate::lab::console::say;

const OURS: &str = "dragonfly";
const PEER: &str = "sqlite";
/// Objects of one turn that are written one after the other.
const WRITES: usize = 100;
/// Objects of one turn that are read one after the other.
const READS: usize = 2000;
/// Objects of a page.
const PAGE: usize = 500;
/// So many pages.
const PAGES: usize = 10;
/// Writers at once, and what each of them writes in one turn.
const WRITERS: [(usize, usize); 3] = [(1, 200), (8, 100), (64, 50)];
/// How long a watch may take to tell.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each case of [`turn`], for what is said of its growth.
const CASES: &[&str] = &[
    "create",
    "update of the spec",
    "update of the status",
    "get",
    "list of everything",
    "list of a page of 500",
    "list by a label",
    "watch: write to event, p50",
    "watch: write to event, p99",
    "durable writes, 1 at once",
    "durable writes, 8 at once",
    "durable writes, 64 at once",
];

pub(crate) async fn run(args: &Bench) -> Result<Report> {
    let cluster = Cluster::of(args).await?;
    let mut report = Report::new("store", "as each case says", args.report.as_deref());
    report.took_part(
        OURS,
        env!("CARGO_PKG_VERSION"),
        "RedbStore, defaults: page cache 64 MiB, at most 512 writes a commit",
        "redb Durability::Immediate: fsync before a write is answered",
    );
    report.took_part(
        PEER,
        sqlite_store::sqlite_version(),
        "SqliteStore, defaults: page cache 64 MiB, at most 512 writes a commit",
        "WAL, synchronous=FULL: the WAL is synced before a write is answered",
    );
    match &cluster {
        Some(cluster) => {
            report.took_part(kubernetes::WHO, cluster.version(), &cluster.what(), cluster.durability());
        }
        None => say("no --kubernetes KUBECONFIG and no --kube-apiserver PROGRAM: Kubernetes is left out"),
    }
    for &machines in &args.sizes {
        size(args, machines, cluster.as_ref(), &mut report).await?;
        report.keep(&format!("{machines} machines"))?;
    }
    if let [first, .., last] = &args.sizes[..] {
        let places = [first, last].map(|size| format!("{size} machines"));
        for case in CASES {
            report.growth(case, [&places[0], &places[1]]);
        }
        report.keep("all")?;
    }
    Ok(report)
}

/// One of those that are measured.
struct Peer {
    who: &'static str,
    store: Arc<dyn Store>,
    /// Writers at once that fill it.
    fillers: usize,
    /// Its file, if it has one.
    place: Option<PathBuf>,
}

async fn size(args: &Bench, machines: usize, cluster: Option<&Cluster>, report: &mut Report) -> Result<()> {
    ensure!(machines >= 100, "--sizes: {machines} machines are too few: 64 writers want one each, and more are read");
    let directory = directory()?;
    let places = [directory.path().join("store.redb"), directory.path().join("store.sqlite")];
    let [our_place, their_place] = places.clone();
    let [ours, theirs] = places;
    let (ours, theirs) =
        tokio::task::spawn_blocking(move || anyhow::Ok((RedbStore::open(ours)?, SqliteStore::open(theirs)?))).await??;
    let peer = |who, store, place| Peer { who, store, fillers: fill::WRITERS, place: Some(place) };
    let mut all =
        vec![peer(OURS, Arc::new(ours.clone()), our_place), peer(PEER, Arc::new(theirs.clone()), their_place)];
    let objects = match cluster {
        Some(cluster) => Some(cluster.objects(machines).await?),
        None => None,
    };
    all.extend(objects.as_ref().map(|objects| Peer {
        who: kubernetes::WHO,
        store: objects.store(),
        fillers: kubernetes::WRITERS,
        place: None,
    }));
    for Peer { who, store, fillers, .. } in &all {
        say(format_args!("{who}: filling with {machines} machines"));
        let begin = Instant::now();
        let bytes = fill_store(store, machines, *fillers).await.with_context(|| (*who).to_owned())?;
        // A machine is created, and then its status is written.
        let rate = 2.0 * machines as f64 / begin.elapsed().as_secs_f64();
        report.note(who, &format!("filling by {fillers} writers, {machines} machines"), "writes/s", rate);
        report.note(who, &format!("one object as JSON, {machines} machines"), "KiB", bytes as f64 / 1024.0);
    }
    for turn_number in 0..args.runs {
        // Who was first is last the next time.
        all.rotate_left(usize::from(turn_number > 0));
        for Peer { who, store, .. } in &all {
            say(format_args!("{who}: {machines} machines, turn {}", turn_number + 1));
            turn(report, who, store, machines, turn_number).await.with_context(|| (*who).to_owned())?;
        }
    }
    for Peer { who, place, .. } in &all {
        if let Some(place) = place {
            report.note(who, &format!("file after all of it, {machines} machines"), "MiB", on_disk(place)?);
        }
    }
    if let Some(objects) = objects {
        objects.remove().await?;
    }
    ours.close().await?;
    theirs.close().await?;
    Ok(())
}

/// A file and what belongs to it.
fn on_disk(place: &Path) -> Result<f64> {
    let mut bytes = std::fs::metadata(place)?.len();
    let mut wal = place.as_os_str().to_owned();
    wal.push("-wal");
    bytes += std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
    Ok(bytes as f64 / 1_048_576.0)
}

/// Everything once, on one store.
async fn turn(report: &mut Report, who: &str, store: &Arc<dyn Store>, machines: usize, turn: usize) -> Result<()> {
    let place = format!("{machines} machines");
    let mut note = |case: &str, unit: &'static str, figure: f64| {
        debug_assert!(CASES.contains(&case), "{case}");
        report.note(who, &format!("{case}, {place}"), unit, figure);
    };
    // Spread over all of them, others in each turn.
    let some = |n: usize| name((n * 7919 + turn * 104_729) % machines);

    let mut times = Times::default();
    let mut made = Vec::new();
    for n in 0..WRITES {
        let record = Record::from(&machine(machines + n));
        let begin = Instant::now();
        made.push(store.put(record, Part::Spec, When::Absent).await?);
        times.add(begin.elapsed());
    }
    note("create", "ms", times.part(0.5));
    for record in made {
        let key = Key::new(record.kind, record.metadata.name);
        store.delete(&key, &record.metadata.resource_version).await?;
    }

    for (case, part) in [("update of the spec", Part::Spec), ("update of the status", Part::Status)] {
        let mut times = Times::default();
        for n in 0..WRITES {
            let mut record = read(store, &some(n)).await?;
            let seen = When::Unchanged(record.metadata.resource_version.clone());
            match part {
                Part::Spec => record.spec["displayName"] = format!("turn {turn}").into(),
                Part::Status => record.status["message"] = format!("turn {turn}").into(),
            }
            let begin = Instant::now();
            store.put(record, part, seen).await?;
            times.add(begin.elapsed());
        }
        note(case, "ms", times.part(0.5));
    }

    let begin = Instant::now();
    for n in 0..READS {
        read(store, &some(n)).await?;
    }
    note("get", "reads/s", READS as f64 / begin.elapsed().as_secs_f64());

    let begin = Instant::now();
    let page = store.list(Kind::HARDWARE, &Selector::all(), 0, None).await?;
    note("list of everything", "ms", milliseconds(begin));
    ensure!(page.items.len() == machines, "{} of {machines} machines are listed", page.items.len());
    drop(page);

    // One after the other, as whoever reads a list does: Kubernetes finds its place again by a token alone.
    let (mut times, mut from, mut last) = (Times::default(), None::<String>, String::new());
    for _ in 0..PAGES {
        let begin = Instant::now();
        let page = store.list(Kind::HARDWARE, &Selector::all(), PAGE, from.as_deref()).await?;
        times.add(begin.elapsed());
        ensure!(page.items.iter().all(|one| one.metadata.name > last), "a page that begins before its place");
        last = page.items.last().map_or_else(String::new, |one| one.metadata.name.clone());
        from = page.more;
        if from.is_none() {
            break;
        }
    }
    note("list of a page of 500", "ms", times.part(0.5));

    let rack = Selector { labels: [("rack".to_owned(), "r0".to_owned())].into() };
    let begin = Instant::now();
    let page = store.list(Kind::HARDWARE, &rack, 0, None).await?;
    note("list by a label", "ms", milliseconds(begin));
    ensure!(page.items.len() == machines.min(40), "{} machines in a rack", page.items.len());

    let told = watched(store, &some, turn).await?;
    note("watch: write to event, p50", "ms", told.part(0.5));
    note("watch: write to event, p99", "ms", told.part(0.99));

    for (writers, each) in WRITERS {
        let rate = concurrent(store, machines, writers, each).await?;
        note(&format!("durable writes, {writers} at once"), "writes/s", rate);
    }
    Ok(())
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

async fn read(store: &Arc<dyn Store>, name: &str) -> Result<Record> {
    store.get(&Key::new(Kind::HARDWARE, name)).await?.with_context(|| format!("{name} is not there"))
}

/// From the moment that a write is begun until a watch has told it.
async fn watched(store: &Arc<dyn Store>, some: &impl Fn(usize) -> String, turn: usize) -> Result<Times> {
    let from = store.list(Kind::HARDWARE, &Selector::all(), 1, None).await?.version;
    let mut watch = store.watch(Kind::HARDWARE, Some(from));
    let mut times = Times::default();
    for n in 0..WRITES {
        let mut record = read(store, &some(n)).await?;
        record.status["message"] = format!("watched in turn {turn}, {n}").into();
        let seen = When::Unchanged(record.metadata.resource_version.clone());
        let begin = Instant::now();
        let heard = async {
            let event = tokio::time::timeout(PATIENCE, watch.next()).await;
            let event = event.context("a watch says nothing")?.context("a watch ended")??;
            anyhow::Ok((event, begin.elapsed()))
        };
        let (written, heard) = tokio::join!(store.put(record, Part::Status, seen), heard);
        let (written, (event, after)) = (written?, heard?);
        ensure!(event == WatchEvent::Applied(Arc::new(written)), "a watch tells another write than the one");
        times.add(after);
    }
    Ok(times)
}

/// Each writer has objects of its own, so that none waits for another's version.
async fn concurrent(store: &Arc<dyn Store>, machines: usize, writers: usize, each: usize) -> Result<f64> {
    let mut records = Vec::new();
    for writer in 0..writers {
        records.push(read(store, &name(writer * machines / writers)).await?);
    }
    let mut all = JoinSet::new();
    let begin = Instant::now();
    for mut record in records {
        let store = Arc::clone(store);
        all.spawn(async move {
            for n in 0..each {
                record.status["message"] = format!("{n} of {each}").into();
                let seen = When::Unchanged(record.metadata.resource_version.clone());
                record = store.put(record, Part::Status, seen).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok((writers * each) as f64 / begin.elapsed().as_secs_f64())
}
