//! Images never lie: random breaks and random falsehoods of an HTTP server on loopback, the agent's own client
//! (and one that believes anything), real steps onto real block devices. What comes of each is the image, bit for bit, or a failure and a disk that does not boot.
//!
//! `DRAGONFLY_IMAGE_CASES` says how many of each (60), `DRAGONFLY_IMAGE_SEED` where to begin: a failing case
//! names its seed, and `DRAGONFLY_IMAGE_CASES=1` with that seed is that case alone.
#![cfg(target_os = "linux")]
// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod case;
mod gullible;
mod server;
#[path = "../../../dragonfly-actions/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use case::{Case, Image, Must, Random};
use dragonfly_actions::run::{Marker, builtin_on};
use dragonfly_core::action::{ActionContext, ActionError, Canceller, ImageSource, Permit, Progress, ProgressSink};
use dragonfly_core::resource::hardware::Overwrite;
use gullible::Gullible;
use mage::images::HttpImages;
use serde_json::{Value, json};
use server::Server;
use sha2::{Digest, Sha256};
use support::{Disk, Run, may_run};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What lies on a disk before: whoever did not write is known by it.
const OLD: u8 = 0xA5;
/// What is made to look whole last, at each end.
const END: usize = 1 << 20;
/// Where our mark lies.
const MARK: std::ops::Range<usize> = 0xFF000..0x10_0000;

/// Tells the clock when the step waits before it tries again.
#[derive(Debug)]
struct Log {
    lines: Mutex<Vec<String>>,
    pauses: UnboundedSender<Duration>,
}

impl ProgressSink for Log {
    fn report(&self, _: Progress) {}

    fn log(&self, line: &str) {
        if line.contains("trying again in") {
            // Longer than any pause.
            let _ = self.pauses.send(Duration::from_secs(30));
        }
        self.lines.lock().unwrap().push(line.to_owned());
    }
}

/// Time stands still but for what is asked for here: pauses and silences cost nothing.
async fn clock(asked: &mut UnboundedReceiver<Duration>) {
    while let Some(mut time) = asked.recv().await {
        while let Ok(more) = asked.try_recv() {
            time = time.max(more);
        }
        tokio::time::advance(time).await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn step(case: &Case, image: &Image, place: Value, url: &str) -> Value {
    let mut with = place;
    with["url"] = url.into();
    with["insecureNoDigest"] = true.into();
    let fields = with.as_object_mut().unwrap();
    if case.judged.packed() {
        fields.remove("insecureNoDigest");
        fields.insert("digest".into(), sha256(&case.packed).into());
    }
    if case.judged.raw() {
        fields.insert("rawDigest".into(), sha256(&image.raw).into());
    }
    if case.told {
        fields.insert("compression".into(), case.packing.into());
    }
    with
}

/// A disk with three partitions, of which images go into the one in the middle.
struct Parted {
    disk: Disk,
    run: Run,
    middle: std::ops::Range<usize>,
}

impl Parted {
    /// With as much room for an image as it has on a disk of its own.
    async fn new(image: &Image) -> Self {
        let mib = image.disk_mib();
        let middle = 2 * END..2 * END + (mib << 20);
        let (disk, mut run) = (Disk::new(mib as u64 + 5, 512), Run::new());
        run.permit.overwrite = Overwrite::All;
        let partitions = json!([
            {"label": "front", "size": "1MiB"}, {"label": "middle", "size": format!("{mib}MiB")}, {"label": "back", "size": "rest"},
        ]);
        run.step("partition", json!({"disk": disk.selector(), "partitions": partitions})).await.unwrap();
        let node = std::fs::File::options().write(true).open(&disk.node).unwrap();
        // Up to the second copy of the table.
        node.write_all_at(&vec![OLD; (mib + 3) << 20], END as u64).unwrap();
        node.sync_all().unwrap();
        Self { disk, run, middle }
    }
}

/// What is wrong with what came of it, in the place that it was written to.
fn judge(
    case: &Case,
    image: &Image,
    result: &Result<(), ActionError>,
    disk: &[u8],
    is_marked: bool,
) -> Result<(), String> {
    let zero = |range: std::ops::Range<usize>| disk[range].iter().all(|byte| *byte == 0);
    // A partition bears no mark.
    let start = if is_marked { MARK.start } else { END };
    let mark = Marker::parse(&disk[MARK]);
    if result.is_ok() {
        if case.must == Must::Fail {
            return Err("it must fail".into());
        }
        let length = image.raw.len();
        if let Some(at) = (0..length).find(|at| disk[*at] != image.raw[*at]) {
            return Err(format!("a wrong disk is called good: byte {at}"));
        }
        // Nothing old is left where boot loaders and second tables are looked for.
        if (length < start && !zero(length..start)) || !zero(length.max(disk.len() - END)..disk.len()) {
            return Err("something old is left".into());
        }
        if is_marked && length < MARK.start && !mark.is_some_and(|mark| mark.complete) {
            return Err("the mark does not say that it is complete".into());
        }
        return Ok(());
    }
    if case.must == Must::Succeed {
        return Err("it must succeed".into());
    }
    if disk.iter().all(|byte| *byte == OLD) {
        return Ok(());
    }
    if !zero(0..start) || !zero(disk.len() - END..disk.len()) {
        return Err("a failed image may boot".into());
    }
    match mark {
        _ if !is_marked => Ok(()),
        Some(mark) if !mark.complete => Ok(()),
        mark => Err(format!("a failed image is marked {mark:?}")),
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Plays cases of one kind; how many of each fault ended well, and in failure.
async fn play(make: fn(&mut Random, &[Image]) -> Case) -> BTreeMap<&'static str, (u32, u32)> {
    let images = case::images();
    let disks: Vec<Disk> = images.iter().map(|image| Disk::new(image.disk_mib() as u64, 512)).collect();
    let mut parted = Vec::new();
    for image in &images {
        parted.push(Parted::new(image).await);
    }
    let (ask, mut asked) = unbounded_channel();
    let server = Server::start(ask.clone());
    // Its own server and key are another's: these images come from somewhere else.
    let pin = "00".repeat(32).parse().unwrap();
    let agents =
        Arc::new(HttpImages::new(vec!["https://127.0.0.1:1".parse().unwrap()], pin, Path::new("/none")).unwrap());
    let (first, count) = (number("DRAGONFLY_IMAGE_SEED", 1), number("DRAGONFLY_IMAGE_CASES", 60));
    let mut ends = BTreeMap::new();
    for seed in first..first + count {
        let case = make(&mut Random(seed), &images);
        let image = &images[case.image];
        // One in four goes into a partition.
        let into = (seed % 4 == 0).then(|| &parted[case.image]);
        let disk = into.map_or(&disks[case.image], |into| &into.disk);
        let place = into.map_or(0..image.disk_mib() << 20, |into| into.middle.clone());
        let node = std::fs::File::options().write(true).open(&disk.node).unwrap();
        node.write_all_at(&vec![OLD; place.len()], place.start as u64).unwrap();
        drop(node);
        let before = disk.bytes();
        let path = format!("/{seed}");
        server.serve(&path, case.connections.clone());
        let target = into.map_or_else(|| json!({"disk": disk.selector()}), |_| json!({"target": "middle"}));
        let with = step(&case, image, target, &format!("http://{}{path}", server.address));
        let own = Run::new();
        let run = into.map_or(&own, |into| &into.run);
        let permit = Permit { overwrite: Overwrite::All, ..run.permit.clone() };
        let log = Arc::new(Log { lines: Mutex::default(), pauses: ask.clone() });
        let client: Arc<dyn ImageSource> = if case.gullible { Arc::new(Gullible) } else { agents.clone() };
        let cx = ActionContext::new(&Canceller::default(), log.clone(), client, permit);
        let planned = builtin_on(run.host.clone()).plan("image2disk", &with).unwrap();
        let result = tokio::select! {
            biased;
            result = planned.run(&cx) => result,
            () = clock(&mut asked) => panic!("the clock runs as long as there is somebody to ask"),
        };
        // As after a reboot: only the disk says what was done.
        let skipped = builtin_on(run.host.clone()).plan("image2disk", &with).unwrap().verify(&cx).await.unwrap();
        let told = || {
            format!(
                "seed {seed}: {} at {place:?}, {} of {} bytes ({} packed), {:?}, told {}, gullible {}, {} connections: {result:?} {:#?}",
                case.fault,
                case.packing,
                image.raw.len(),
                case.packed.len(),
                case.judged,
                case.told,
                case.gullible,
                server.connections(),
                log.lines.lock().unwrap(),
            )
        };
        let after = disk.bytes();
        if let Err(wrong) = judge(&case, image, &result, &after[place.clone()], into.is_none()) {
            panic!("{wrong}: {}", told());
        }
        let same = before[..place.start] == after[..place.start] && before[place.end..] == after[place.end..];
        assert!(same, "something was written beside the partition: {}", told());
        assert!(!skipped || result.is_ok(), "a retry would skip a failed image: {}", told());
        let end: &mut (u32, u32) = ends.entry(case.fault).or_default();
        if result.is_ok() { end.0 += 1 } else { end.1 += 1 }
    }
    eprintln!("seeds {first} to {}: (good, failed) {ends:#?}", first + count - 1);
    ends
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_breaks_ends_in_the_image_or_in_failure() {
    if may_run() {
        play(case::cuts).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lies_ends_in_the_image_or_in_failure() {
    if may_run() {
        play(case::corruptions).await;
    }
}
