//! Images onto real block devices, from servers with every fault.
#![cfg(all(feature = "run", target_os = "linux"))]
// Helpers outside `#[test]` functions unwrap too.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_actions::run::builtin_on;
use dragonfly_core::action::{ActionContext, Progress, ProgressSink};
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::testing::StaticImage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use support::{Disk, Room, Run, may_run, sh};

/// A disk image with a partition table and file system of its own, and holes.
fn image() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.raw");
    let path = file.to_string_lossy().into_owned();
    std::fs::File::create(&file).unwrap().set_len(11 << 20).unwrap();
    sh("mke2fs", &["-q", "-t", "ext4", "-L", "imgroot", "-E", "offset=2097152", &path, "8M"]);
    sh("sgdisk", &["-n1:2M:+8M", "-c1:root", &path]);
    std::fs::read(file).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn with(disk: &Disk, digest: &str, extra: Value) -> Value {
    let mut with = json!({"url": "http://server/i?signature=secret", "digest": digest, "disk": disk.selector()});
    with.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
    with
}

/// Whether firmware would find nothing to boot: no table, no boot code.
fn boots_nothing(disk: &Disk) -> bool {
    let bytes = disk.bytes();
    bytes[..0xFF000] == [0; 0xFF000] && bytes[bytes.len() - 4096..] == [0; 4096]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_arrives_whole_however_it_is_packed_and_cut() {
    if !may_run() {
        return;
    }
    let raw = image();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&raw).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(&raw).unwrap();
    let packings = [
        ("raw", raw.clone()),
        ("gzip", gzip(&raw)),
        ("xz", xz.finish().unwrap()),
        ("bzip2", bz.finish().unwrap()),
        ("zstd", zstd::encode_all(&raw[..], 3).unwrap()),
    ];
    for (name, packed) in packings {
        let disk = Disk::new(16, 512);
        // Old data in what will be holes of the image: it must not shine through.
        std::fs::write(&disk.node, vec![0xA5u8; 15 << 20]).unwrap();
        let mut run = Run::new();
        run.permit.overwrite = dragonfly_core::resource::hardware::Overwrite::All;
        let cuts = [1, 17, packed.len() / 3, 0, packed.len() / 4];
        run.images.set("/i", StaticImage::new(packed.clone()).in_chunks_of(9973).cut_after(&cuts));
        let step = with(
            &disk,
            &sha256(&packed),
            json!({"rawDigest": format!("sha512:{}", hex::encode(Sha512::digest(&raw))), "readBack": "full"}),
        );
        run.step("image2disk", step.clone()).await.unwrap_or_else(|e| panic!("{name}: {e} {:?}", run.sink));
        let bytes = disk.bytes();
        // Our mark lies where the image has nothing.
        assert!(bytes[..0xFF000] == raw[..0xFF000] && bytes[1 << 20..11 << 20] == raw[1 << 20..], "{name}");
        assert!(bytes[15 << 20..] == vec![0; 1 << 20], "{name}: nothing old is left at the end");
        let offsets: Vec<u64> = run.images.opened().iter().map(|(_, offset)| *offset).collect();
        assert_eq!(offsets.len(), 6, "{name}: {offsets:?}");
        assert!(offsets[1..].iter().all(|offset| *offset > 0), "{name} was resumed, not begun again: {offsets:?}");
        let log = run.sink.lines().join("\n");
        assert!(!log.contains("secret"), "{log}");
        let last = *run.sink.progress().last().unwrap();
        assert_eq!((last.done, last.total), (packed.len() as u64, Some(packed.len() as u64)), "{name}");

        // The kernel sees the image's partition, and later steps find it.
        run.step("writefile", json!({"target": "imgroot", "path": "/nonce", "content": name})).await.unwrap();
        run.step("grow", json!({})).await.unwrap();
        disk.mounted(1, |at| assert_eq!(std::fs::read_to_string(at.join("nonce")).unwrap(), name));
        assert!(sh("sgdisk", &["-v", &disk.node.to_string_lossy()]).contains("No problems found"), "{name}");
        // A retry after a reboot skips it.
        assert!(run.rebooted().verify("image2disk", step.clone()).await, "{name}");
        let other = with(&disk, &sha256(b"another"), json!({}));
        assert!(!run.rebooted().verify("image2disk", other).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_never_boots_and_never_ends_well() {
    if !may_run() {
        return;
    }
    let raw = image();
    let packed = zstd::encode_all(&raw[..], 3).unwrap();
    let zipped = gzip(&raw);
    let whole = |bytes: &[u8]| StaticImage::new(bytes.to_vec());
    let digest = sha256(&packed);
    let table: Vec<(&str, StaticImage, Value, &str)> = vec![
        ("404", whole(&packed).answering(404), json!({}), "there is no such image; check the template's `url`"),
        ("403", whole(&packed).answering(403), json!({}), "refuses to give the image"),
        (
            "wrong digest",
            whole(&packed),
            json!({"digest": sha256(b"x")}),
            "not the one that was asked for: its digest is sha256:",
        ),
        ("a flipped bit", whole(&packed).corrupt_at(packed.len() / 2), json!({}), ""),
        (
            "a flipped bit, raw",
            whole(&raw).corrupt_at(raw.len() - 1),
            json!({"digest": sha256(&raw)}),
            "not the one that was asked for",
        ),
        (
            "truncated at the source",
            whole(&packed[..packed.len() - 20]),
            json!({"insecureNoDigest": true, "digest": null}),
            "truncated",
        ),
        (
            "truncated gzip without length",
            whole(&zipped[..zipped.len() - 3]).without_length(),
            json!({"insecureNoDigest": true, "digest": null}),
            "truncated",
        ),
        (
            "truncated raw without length",
            whole(&raw[..raw.len() / 2]).without_length(),
            json!({"digest": sha256(&raw)}),
            "not the one that was asked for",
        ),
        (
            "garbage behind",
            whole(&[&zipped[..], b"garbage behind the image"].concat()),
            json!({"insecureNoDigest": true, "digest": null}),
            "damaged",
        ),
        (
            "changed in between",
            whole(&packed).cut_after(&[packed.len() / 2]).changes_after(1),
            json!({}),
            "replaced while it was fetched",
        ),
        ("wrong raw digest", whole(&packed), json!({"rawDigest": sha256(b"x")}), "the unpacked image is not the one"),
        (
            "fills the disk, wrong digest",
            whole(&[&raw[..], &vec![7; (16 << 20) - raw.len()]].concat()),
            json!({"digest": sha256(b"x")}),
            "not the one that was asked for",
        ),
        ("empty", whole(b""), json!({"insecureNoDigest": true, "digest": null}), "the image is empty"),
        (
            "too large, known",
            whole(&vec![1; 17 << 20]),
            json!({"insecureNoDigest": true, "digest": null}),
            "too small: the image has 17 MiB (17825792 bytes), and there are 16 MiB",
        ),
        (
            "too large, found out",
            whole(&gzip(&vec![1; 17 << 20])),
            json!({"insecureNoDigest": true, "digest": null}),
            "too small: the image has more than 16777216 bytes",
        ),
    ];
    for (name, image, extra, want) in table {
        let disk = Disk::new(16, 512);
        let run = Run::new();
        run.images.set("/i", image);
        let said = run.fails("image2disk", with(&disk, &digest, extra)).await;
        assert!(said.contains(want), "{name}: {said}");
        assert!(!said.contains("secret"), "{name}: {said}");
        assert!(boots_nothing(&disk), "{name}");
        assert!(!run.verify("image2disk", with(&disk, &digest, json!({}))).await, "{name}");
        // The same run may try again, even after a reboot.
        run.images.set("/i", whole(&packed));
        run.rebooted()
            .step("image2disk", with(&disk, &digest, json!({})))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(disk.bytes()[1 << 20..11 << 20] == raw[1 << 20..], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_when_the_image_cannot_fit_this_disk() {
    if !may_run() {
        return;
    }
    let raw = image();
    let disk = Disk::new(16, 4096);
    let run = Run::new();
    run.images.set("/i", StaticImage::new(raw.clone()));
    let said = run.fails("image2disk", with(&disk, &sha256(&raw), json!({}))).await;
    assert!(said.contains("made for disks with sectors of 512 bytes") && said.contains("has 4096"), "{said}");
    assert!(disk.bytes() == vec![0; 16 << 20]);
}

/// Takes away the room of a disk's first MiB, all but half of it, once the disk is being written.
#[derive(Debug)]
struct Shrinks {
    file: PathBuf,
}

impl ProgressSink for Shrinks {
    fn report(&self, _: Progress) {}

    fn log(&self, line: &str) {
        if !line.contains("trying again in") {
            return;
        }
        // The old head is gone, and our mark is in its place.
        let begun = || {
            let disk = std::fs::read(&self.file).unwrap();
            disk[0] == 0 && !matches!(disk[0xFF000], 0 | 0xA5)
        };
        while !begun() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let file = self.file.to_string_lossy();
        sh("fallocate", &["--punch-hole", "--offset", "0", "--length", "1MiB", &file]);
        std::fs::write(self.file.with_extension("fill"), vec![1; 1536 << 10]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_its_very_last_write_does_not_boot() {
    if !may_run() {
        return;
    }
    let raw: Vec<u8> = (0..8usize << 20).map(|n| (n / 977) as u8 | 1).collect();
    let room = Room::new(17 << 10);
    let disk = room.disk(16);
    std::fs::write(&disk.node, vec![0xA5u8; 16 << 20]).unwrap();
    disk.bytes();
    let mut run = Run::new();
    run.permit.overwrite = dragonfly_core::resource::hardware::Overwrite::All;
    run.images.set("/i", StaticImage::new(raw.clone()).in_chunks_of(65_536).cut_after(&[7 << 20]));
    let sink = Arc::new(Shrinks { file: disk.file.clone() });
    let cx = ActionContext::new(&run.canceller, sink, Arc::new(run.images.clone()), run.permit.clone());
    let planned = builtin_on(run.host.clone()).plan("image2disk", &with(&disk, &sha256(&raw), json!({}))).unwrap();
    let error = planned.run(&cx).await.unwrap_err();
    assert!(error.to_string().contains("did not reach it"), "{error}");
    assert_eq!(disk.bytes()[2 << 20..8 << 20], raw[2 << 20..], "it failed before its last write");
    assert!(boots_nothing(&disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_read_again_from_the_start() {
    if !may_run() {
        return;
    }
    let raw = image();
    let disk = Disk::new(16, 512);
    let run = Run::new();
    run.images.set("/i", StaticImage::new(raw.clone()).without_ranges().cut_after(&[1 << 20, 5 << 20]));
    run.step("image2disk", with(&disk, &sha256(&raw), json!({}))).await.unwrap();
    assert!(disk.bytes()[1 << 20..11 << 20] == raw[1 << 20..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_into_a_partition_and_nowhere_else() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(64, 512);
    let run = Run::new();
    let table = json!({"disk": disk.selector(), "partitions": [{"label": "root", "size": "24MiB"}, {"label": "data", "size": "rest"}]});
    run.step("partition", table).await.unwrap();
    run.step("format", json!({"target": "data", "filesystem": "ext4"})).await.unwrap();
    let before = disk.bytes();
    let system = {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(20 << 20).unwrap();
        sh("mke2fs", &["-q", "-t", "ext4", "-L", "sys", &file.path().to_string_lossy()]);
        std::fs::read(file.path()).unwrap()
    };
    run.images.set("/i", StaticImage::new(system.clone()));
    let step = json!({"url": "http://server/i", "digest": sha256(&system), "target": "root"});
    run.step("image2disk", step).await.unwrap();
    let after = disk.bytes();
    assert!(after[1 << 20..21 << 20] == system[..], "it is there");
    assert!(before[..1 << 20] == after[..1 << 20] && before[25 << 20..] == after[25 << 20..], "and nowhere else");
    sh("e2fsck", &["-fn", &disk.partition(1)]);
    // Over the disk that this run has partitioned: never.
    let said = run.fails("image2disk", with(&disk, &sha256(&system), json!({}))).await;
    assert!(said.contains("an earlier step of this run has partitioned"), "{said}");
    // Too large for the partition although the disk has room.
    run.images.set("/i", StaticImage::new(vec![1u8; 25 << 20]));
    let said =
        run.fails("image2disk", json!({"url": "http://server/i", "insecureNoDigest": true, "target": "root"})).await;
    assert!(said.contains("too small") && said.contains("24 MiB"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_called_off_stops() {
    if !may_run() {
        return;
    }
    let raw = image();
    let disk = Disk::new(16, 512);
    let run = Run::new();
    run.images.set("/i", StaticImage::new(raw.clone()).stall_after(4 << 20));
    let canceller = run.canceller.clone();
    let (result, ()) = tokio::join!(run.fails("image2disk", with(&disk, &sha256(&raw), json!({}))), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        canceller.cancel();
    });
    assert_eq!(result, "cancelled");
    assert!(boots_nothing(&disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_on_the_disk_is_kept_without_leave() {
    if !may_run() {
        return;
    }
    let raw = image();
    let disk = Disk::new(16, 512);
    std::fs::write(&disk.node, &raw).unwrap();
    let run = Run::new();
    run.images.set("/i", StaticImage::new(raw.clone()));
    let said = run.fails("image2disk", with(&disk, &sha256(&raw), json!({}))).await;
    assert!(said.contains("carries data (gpt)"), "{said}");
    assert!(disk.bytes()[..11 << 20] == raw[..]);
    assert!(run.images.opened().is_empty(), "not even asked for");
}

/// A server whose records were put back to an earlier time gives the same order again: what it installed is safe.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_handed_over_is_not_written_again_under_the_same_authorisation() {
    if !may_run() {
        return;
    }
    let raw = image();
    let disk = Disk::new(16, 512);
    let mut run = Run::new();
    run.permit.overwrite = Overwrite::All;
    run.images.set("/i", StaticImage::new(raw.clone()));
    let step = || with(&disk, &sha256(&raw), json!({}));
    run.step("image2disk", step()).await.unwrap();
    // A power cut before the server knows: it may be done again.
    let mut run = run.rebooted();
    run.step("image2disk", step()).await.unwrap();
    run.host.hand_over(&run.permit).unwrap();
    // Somebody works with it.
    std::fs::OpenOptions::new().write(true).open(&disk.node).unwrap().write_all_at(b"theirs", 12 << 20).unwrap();
    let before = disk.bytes();
    for (again, boot) in [(&run.rebooted(), "another"), (&run, "the same")] {
        for action in ["image2disk", "partition"] {
            let with = match action {
                "partition" => json!({"disk": disk.selector(), "partitions": [{"name": "root", "size": "rest"}]}),
                _ => step(),
            };
            let said = again.fails(action, with).await;
            assert!(said.contains("was handed over (authorisation 1)"), "{action} in {boot} boot: {said}");
        }
        assert!(disk.bytes() == before, "{boot} boot");
    }
    // A person says so again: another authorisation.
    run.permit.generation += 1;
    run.step("image2disk", step()).await.unwrap();
    assert!(disk.bytes() != before);
}
