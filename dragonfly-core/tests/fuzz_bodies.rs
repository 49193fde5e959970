//! What the fuzzer runs, over its seeds and inputs near them: without a nightly compiler, and briefly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "the bodies assert")]

#[cfg(feature = "ipmi")]
#[path = "../fuzz/bodies/ipmi.rs"]
mod ipmi;
#[path = "../fuzz/bodies/manifest.rs"]
mod manifest;
#[path = "../fuzz/bodies/render.rs"]
mod render;
#[cfg(feature = "tinkerbell")]
#[path = "../fuzz/bodies/tinkerbell.rs"]
mod tinkerbell;
#[path = "../fuzz/bodies/wire.rs"]
mod wire;

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

#[cfg(feature = "ipmi")]
#[test]
fn ipmi_holds() {
    run("ipmi", ipmi::ipmi);
}

#[test]
fn manifest_holds() {
    run("manifest", manifest::manifest);
}

#[test]
fn wire_holds() {
    run("wire", wire::wire);
}

#[test]
fn render_holds() {
    run("render", render::render_text);
}

#[cfg(feature = "tinkerbell")]
#[test]
fn tinkerbell_holds() {
    run("tinkerbell", tinkerbell::tinkerbell);
}
