//! What the fuzzer runs, over its seeds and inputs near them: without a nightly compiler, and briefly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "the bodies assert")]

#[path = "../fuzz/bodies/dhcp.rs"]
mod dhcp;
#[path = "../fuzz/bodies/http_path.rs"]
mod http_path;
#[path = "../fuzz/bodies/tftp.rs"]
mod tftp;

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
fn dhcp_holds() {
    run("dhcp", dhcp::dhcp);
}

#[test]
fn http_path_holds() {
    run("http_path", http_path::http_path);
}

#[test]
fn tftp_holds() {
    run("tftp", tftp::tftp);
}
