//! What the fuzzer runs, over its seeds and inputs near them: without a nightly compiler, and briefly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "the bodies assert")]

#[path = "../fuzz/bodies/bootentry.rs"]
mod bootentry;
#[path = "../fuzz/bodies/disk.rs"]
mod disk;
#[path = "../fuzz/bodies/template.rs"]
mod template;
#[path = "../fuzz/bodies/unpack.rs"]
mod unpack;

use std::path::Path;

use dragonfly_core::testing::mutations;

/// Inputs near each seed.
const EACH: usize = 400;

/// Runs every seed of this target and what is near it.
fn run(target: &str, body: fn(&[u8])) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", place.display());
    for path in seeds {
        let seed = std::fs::read(&path).unwrap();
        for (number, input) in mutations(&seed, EACH).enumerate() {
            let ended = std::panic::catch_unwind(|| body(&input));
            assert!(ended.is_ok(), "{} number {number}: {:?}", path.display(), String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn bootentry_holds() {
    run("bootentry", bootentry::bootentry);
}

#[test]
fn disk_holds() {
    run("disk", disk::disk);
}

#[test]
fn template_holds() {
    run("template", template::template);
}

#[test]
fn unpack_holds() {
    run("unpack", unpack::unpack);
}
