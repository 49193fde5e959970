//! A disk on which the power is cut while an image is written does not boot: nothing that makes it look whole is handed
//! to the kernel before all the rest is on the medium. Told by the system calls of a process that writes one.
#![cfg(all(feature = "run", target_os = "linux"))]
// Helpers outside `#[test]` functions unwrap too.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::testing::StaticImage;
use serde_json::json;
use support::{Disk, Run, may_run, sh};

/// Set in the process that is looked at: the disk.
const CHILD: &str = "DRAGONFLY_IMAGE_ORDER";
const MIB: u64 = 1 << 20;
const SIZE: u64 = 8 * MIB;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Write { at: u64, bytes: u64 },
    Sync,
}

use Call::{Sync, Write};

/// What a thread did to this disk, of the lines that strace wrote about it.
fn calls(lines: &str, disk: &str) -> Vec<Call> {
    let call = |line: &str| {
        if line.starts_with("fsync(") || line.starts_with("fdatasync(") {
            return Some(Sync);
        }
        let (_, numbers) = line.strip_prefix("pwrite64(")?.split_once("..., ")?;
        let (bytes, at) = numbers.split_once(')')?.0.split_once(", ")?;
        Some(Write { at: at.parse().unwrap(), bytes: bytes.parse().unwrap() })
    };
    let ours = |line: &&str| line.contains(&format!("<{disk}>")) || line.contains(&format!("<{disk}<"));
    lines.lines().filter(ours).filter_map(call).collect()
}

/// What is wrong with the order of calls that wrote an image that fills its disk.
fn wrong(calls: &[Call]) -> Option<&'static str> {
    let writes = |is: &dyn Fn(u64, u64) -> bool| -> Vec<usize> {
        let is = |call: &Call| matches!(call, Write { at, bytes } if is(*at, *bytes));
        calls.iter().enumerate().filter(|(_, call)| is(call)).map(|(n, _)| n).collect()
    };
    let synced = |from: usize, to: usize| calls.get(from..to).is_some_and(|between| between.contains(&Sync));
    let body = writes(&|at, _| (MIB..SIZE - MIB).contains(&at));
    let (Some(first), Some(last)) = (body.first(), body.last()) else { return Some("nothing was written") };
    // Before all of it the disk's old ends are taken away, which may be written too.
    let tail = writes(&|at, bytes| at >= SIZE - MIB && bytes > 0);
    let tail: Vec<usize> = tail.into_iter().filter(|n| n > first).collect();
    let head: Vec<usize> = writes(&|at, _| at == 0).into_iter().filter(|n| n > first).collect();
    let (Some(tail_first), Some(tail_last), [head]) = (tail.first(), tail.last(), &head[..]) else {
        return Some("its ends were not written, or more than once");
    };
    if !synced(0, *first) {
        return Some("what was there before may boot while the image is written");
    }
    if !synced(*last, *tail_first) {
        return Some("the table's second copy may be there before what it leads to");
    }
    if !synced(*tail_last, *head) {
        return Some("the table may be there before what it leads to");
    }
    // The mark says that it is whole.
    match writes(&|at, _| (1..MIB).contains(&at)).last() {
        Some(mark) if mark > head && synced(*head, *mark) && synced(*mark, calls.len()) => None,
        _ => Some("the mark may say that the disk is whole before it is"),
    }
}

#[test]
fn what_makes_a_disk_look_whole_comes_last() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(SIZE / MIB, 512);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("calls");
    let node = disk.node.to_string_lossy().into_owned();
    let program = std::env::current_exe().unwrap();
    // A file for each thread: no call is cut in two by another's.
    let traced = Command::new("strace")
        .args(["-ff", "-y", "-s0", "-e", "trace=pwrite64,fsync,fdatasync", "-o"])
        .arg(&out)
        .arg(program)
        .args(["--ignored", "--exact", "write_one_image"])
        .env(CHILD, &node)
        .output()
        .expect("strace: apt-get install strace");
    let text = String::from_utf8_lossy(&traced.stdout);
    assert!(traced.status.success(), "{text}{}", String::from_utf8_lossy(&traced.stderr));
    let threads = std::fs::read_dir(directory.path()).unwrap();
    let threads: Vec<Vec<Call>> =
        threads.map(|file| calls(&std::fs::read_to_string(file.unwrap().path()).unwrap(), &node)).collect();
    let writer = threads.into_iter().max_by_key(Vec::len).unwrap();
    assert_eq!(wrong(&writer), None, "{writer:#?}");
}

/// The judge is a judge: every order that is wrong is seen.
#[test]
fn a_missing_sync_is_seen() {
    let write = |at: u64, bytes: u64| Write { at, bytes };
    let right = [
        write(0xFF000, 4096),
        Sync,
        write(MIB, MIB),
        write(6 * MIB, MIB),
        Sync,
        write(7 * MIB, MIB),
        Sync,
        write(0, MIB),
        Sync,
        write(0xFF000, 4096),
        Sync,
    ];
    assert_eq!(wrong(&right), None);
    for n in (0..right.len()).filter(|n| right[*n] == Sync) {
        let mut calls = right.to_vec();
        calls.remove(n);
        assert!(wrong(&calls).is_some(), "without sync {n}");
    }
    for (a, b) in [(5, 7), (2, 7), (3, 5), (7, 9)] {
        let mut calls = right.to_vec();
        calls.swap(a, b);
        assert!(wrong(&calls).is_some(), "{a} and {b} exchanged");
    }
    let line = r#"pwrite64(9</dev/loop0<block 7:0>>, ""..., 65536, 1048576) = 65536"#;
    let lines = format!("{line}\nfsync(9</dev/loop0<block 7:0>>) = 0\nfsync(4</dev/loop1<block 7:1>>) = 0\n");
    assert_eq!(calls(&lines, "/dev/loop0"), [write(MIB, 65536), Sync]);
}

/// The process that is looked at.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "what_makes_a_disk_look_whole_comes_last starts it"]
async fn write_one_image() {
    let Ok(node) = std::env::var(CHILD) else { return };
    let mut raw: Vec<u8> = (0..SIZE).map(|n| (n / 977) as u8 | 1).collect();
    // Room for our mark.
    raw[0xFF000..0x10_0000].fill(0);
    let mut run = Run::new();
    run.permit.overwrite = Overwrite::All;
    run.images.set("/i", StaticImage::new(raw));
    sh("blockdev", &["--getsize64", &node]);
    let name = node.strip_prefix("/dev/").unwrap();
    let with = json!({"url": "http://server/i", "disk": {"name": name}, "insecureNoDigest": true});
    run.step("image2disk", with).await.unwrap();
}
