//! How much memory an image takes on its way to the disk, by the kernel's own count.
//!
//! Small images in every run; large ones, of 2 GiB, by `.ci/full long` or
//! `cargo test -p dragonfly-actions --test image_memory -- --ignored --nocapture memory_does_not_grow_with_the_image`
#![cfg(all(feature = "run", target_os = "linux"))]
// Helpers outside `#[test]` functions unwrap and say what they measured.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dragonfly_core::action::{ActionContext, ImageError, ImageSource, ImageStream};
use futures_util::{StreamExt, stream};
use serde_json::json;
use support::{Disk, Run, may_run};

const CHUNK: usize = 64 << 10;
/// What unpacking may take beside what an image takes that is not packed, in MiB: its window or dictionary.
const PACKINGS: [(&str, u64); 4] = [("none", 0), ("gzip", 1), ("zstd", 2), ("xz", 65)];
/// Set in the process that is measured: how many MiB, how packed, and in which file.
const CHILD: &str = "DRAGONFLY_IMAGE_MEMORY";

/// A sparse image: 64 KiB of data in every 16 MiB.
fn chunks(mib: usize) -> impl Iterator<Item = Bytes> + Send {
    // Each its own, as what comes from a network.
    (0..mib * 16).map(|n| vec![if n % 256 == 0 { 0x5A } else { 0 }; CHUNK].into())
}

/// Makes the image as it is asked for.
#[derive(Debug)]
struct Made {
    mib: usize,
    packed: Option<Bytes>,
}

#[async_trait]
impl ImageSource for Made {
    async fn open(&self, _: &url::Url, offset: u64, _: Option<&str>) -> Result<ImageStream, ImageError> {
        assert_eq!(offset, 0, "nothing breaks");
        let (bytes, total) = match self.packed.clone() {
            Some(packed) => (stream::iter([Ok(packed.clone())]).boxed(), packed.len()),
            None => (stream::iter(chunks(self.mib).map(Ok)).boxed(), self.mib << 20),
        };
        Ok(ImageStream { bytes, total: Some(total as u64), validator: None })
    }
}

/// `xz -9` has a dictionary of 64 MiB, the largest that it makes by itself, which an image fills; `gzip` has the same window always.
fn pack(mib: usize, packing: &str) -> Vec<u8> {
    fn fill<W: Write>(mut to: W, mib: usize) -> W {
        chunks(mib).for_each(|chunk| to.write_all(&chunk).unwrap());
        to
    }
    match packing {
        "gzip" => fill(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()), mib).finish().unwrap(),
        "xz" => fill(liblzma::write::XzEncoder::new(Vec::new(), 9), mib).finish().unwrap(),
        "zstd" => fill(zstd::Encoder::new(Vec::new(), 1).unwrap(), mib).finish().unwrap(),
        _ => Vec::new(),
    }
}

async fn write(mib: usize, packing: &str, packed: &Path) {
    let packed = (packing != "none").then(|| std::fs::read(packed).unwrap().into());
    let disk = Disk::new(mib as u64 + 16, 512);
    let run = Run::new();
    let cx = ActionContext::new(&run.canceller, run.sink.clone(), Arc::new(Made { mib, packed }), run.permit.clone());
    let with = json!({"url": "http://server/i", "disk": disk.selector(), "insecureNoDigest": true,
        "rawDigest": null, "readBack": "full"});
    let actions = dragonfly_actions::run::builtin_on(run.host.clone());
    actions.plan("image2disk", &with).unwrap().run(&cx).await.unwrap();
}

/// `VmHWM` of this process, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The peak of a process that writes such an image and nothing else.
fn peak_of(mib: usize, packing: &str) -> u64 {
    // Packing takes more memory than unpacking: not in the process that is measured.
    let packed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(packed.path(), pack(mib, packing)).unwrap();
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_one_image", "--nocapture"])
        .env(CHILD, format!("{mib} {packing} {}", packed.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let peak = text.lines().find_map(|line| line.split_once("peak ")).unwrap().1.trim().parse().unwrap();
    eprintln!("{mib} MiB, {packing}: {peak} KiB at most");
    peak
}

/// Not a test but the process that those below measure.
#[test]
#[ignore = "started by the tests of this file"]
fn write_one_image() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let mut words = what.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (mib, packing, packed) = (word().parse().unwrap(), word(), Path::new(word()));
    tokio::runtime::Runtime::new().unwrap().block_on(write(mib, packing, packed));
    println!("peak {}", peak());
}

/// An image of the larger size, in MiB, takes no more memory than one of the smaller, but for so many MiB; and packed no
/// more than `PACKINGS` says.
fn hold_equal(small: usize, large: usize, more: u64) {
    if !may_run() {
        return;
    }
    let mut plain = 0;
    for (packing, own) in PACKINGS {
        let (of_small, of_large) = (peak_of(small, packing), peak_of(large, packing));
        if packing == "none" {
            plain = of_large;
        }
        let most = plain + ((own + more) << 10);
        assert!(of_large < most, "{packing}: {of_large} KiB, and not packed {plain} KiB");
        // A small image does not fill a large dictionary.
        let more = more + own.saturating_sub(small as u64);
        // What may differ is how many of the bounded buffers happened to be full.
        assert!(
            of_large < of_small + (more << 10),
            "{packing}: {of_small} KiB for {small} MiB, {of_large} KiB for {large} MiB"
        );
    }
}

#[test]
fn memory_does_not_grow_with_a_small_image() {
    hold_equal(32, 256, 8);
}

#[test]
#[ignore = "writes 10 GiB"]
fn memory_does_not_grow_with_the_image() {
    hold_equal(256, 2048, 16);
}
