//! Tables and file systems on real block devices, judged by other people's tools.
#![cfg(all(feature = "run", target_os = "linux"))]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};
use support::{Disk, Run, may_run, sh};

fn layout(disk: &Disk) -> Value {
    json!({"disk": disk.selector(), "partitions": [
        {"label": "bios", "type": "bios-boot", "size": "1MiB"},
        {"label": "esp", "type": "esp", "size": "34MiB"},
        {"label": "swap", "type": "swap", "size": "8MiB"},
        {"label": "root", "size": "rest", "attributes": ["grow-fs"]},
    ]})
}

#[tokio::test]
async fn a_disk_is_partitioned_formatted_and_written() {
    if !may_run() {
        return;
    }
    for sector in [512, 4096] {
        let disk = Disk::new(160, sector);
        let run = Run::new();
        run.step("partition", layout(&disk)).await.unwrap();
        let told = sh("sgdisk", &["-v", "-p", &disk.node.to_string_lossy()]);
        assert!(told.contains("No problems found"), "{sector}: {told}");
        assert!(told.contains("root"), "{told}");

        for (target, fs, extra) in [
            ("esp", "vfat", json!({"label": "ESP"})),
            ("swap", "swap", json!({"label": "swap"})),
            ("root", "ext4", json!({"label": "sysroot", "uuid": "0fc63daf-8483-4772-8e79-3d69d8477de4"})),
        ] {
            let mut with = json!({"target": {"disk": disk.selector(), "label": target}, "filesystem": fs});
            with.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
            run.step("format", with.clone()).await.unwrap_or_else(|e| panic!("{fs}: {e} {:?}", run.sink));
            assert!(run.verify("format", with).await, "{fs}");
        }
        sh("fsck.vfat", &["-n", &disk.partition(2)]);
        sh("e2fsck", &["-fn", &disk.partition(4)]);
        let told = sh("blkid", &["-p", &disk.partition(4)]);
        assert!(told.contains("LABEL=\"sysroot\"") && told.contains("0fc63daf"), "{told}");
        assert!(sh("blkid", &["-p", &disk.partition(3)]).contains("TYPE=\"swap\""));

        // Found by the file system's label, on the disk that this run has written.
        let file = json!({"target": "sysroot", "path": "/etc/deep/nonce", "content": "one\n", "mode": "0600", "uid": 7, "gid": 8});
        run.step("writefile", file.clone()).await.unwrap();
        assert!(run.verify("writefile", file).await);
        disk.mounted(4, |at| {
            let path = at.join("etc/deep/nonce");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
            let meta = path.metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (7, 8, 0o600));
        });
        let said = run.fails("writefile", json!({"target": "rot", "path": "/a", "content": ""})).await;
        assert!(said.contains("partition `rot` is not there; there are:") && said.contains("`root`"), "{said}");
        let said = run.fails("writefile", json!({"target": "bios", "path": "/a", "content": ""})).await;
        assert!(said.contains("holds no file system; put a `format`"), "{said}");

        // A later try of the same run, after a reboot, finds what is done and goes on.
        let again = run.rebooted();
        assert!(again.verify("partition", layout(&disk)).await);
        let mut other = layout(&disk);
        other["partitions"][2]["size"] = json!("9MiB");
        assert!(!again.verify("partition", other).await);
        // Another run may not.
        let stranger = Run::new();
        assert!(!stranger.verify("partition", layout(&disk)).await);
        let said = stranger.fails("partition", layout(&disk)).await;
        assert!(said.contains("carries data (gpt)") && said.contains("nothing was written"), "{said}");
    }
}

#[tokio::test]
async fn an_mbr_is_written() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(64, 512);
    let run = Run::new();
    let with = json!({"disk": disk.selector(), "table": "mbr", "partitions": [
        {"size": "16MiB", "active": true}, {"size": "8MiB", "type": "swap"}, {"size": "rest", "type": "lvm"}]});
    run.step("partition", with.clone()).await.unwrap();
    let told = sh("sfdisk", &["--verify", "--dump", &disk.node.to_string_lossy()]);
    assert!(told.contains("start=        2048, size=       32768, type=83, bootable"), "{told}");
    assert!(told.contains("type=82") && told.contains("type=8e"), "{told}");
    assert!(run.verify("partition", with).await);
    run.step("format", json!({"target": {"partition": 1}, "filesystem": "ext4"})).await.unwrap();
    sh("e2fsck", &["-fn", &disk.partition(1)]);
}

#[tokio::test]
async fn the_last_partition_grows_with_the_disk() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(64, 512);
    let run = Run::new();
    let table = json!({"disk": disk.selector(), "partitions": [{"size": "4MiB"}, {"label": "root", "size": "rest"}]});
    run.step("partition", table).await.unwrap();
    run.step("format", json!({"target": "root", "filesystem": "ext4"})).await.unwrap();
    run.step("writefile", json!({"target": "root", "path": "/kept", "content": "kept"})).await.unwrap();
    disk.grow(128);
    assert!(!run.verify("grow", json!({})).await);
    run.step("grow", json!({})).await.unwrap_or_else(|e| panic!("{e} {:?}", run.sink));
    assert!(run.verify("grow", json!({"target": "root"})).await);
    let told = sh("sgdisk", &["-v", &disk.node.to_string_lossy()]);
    assert!(told.contains("No problems found"), "{told}");
    sh("e2fsck", &["-fn", &disk.partition(2)]);
    disk.mounted(2, |at| {
        let told = sh("df", &["-m", "--output=size", &at.to_string_lossy()]);
        let size: u64 = told.lines().last().unwrap().trim().parse().unwrap();
        assert!(size > 100, "{told}");
        assert_eq!(std::fs::read_to_string(at.join("kept")).unwrap(), "kept");
    });
    // Again: nothing to do.
    run.step("grow", json!({"disk": disk.selector()})).await.unwrap();
    let said = run.fails("grow", json!({"target": {"partition": 1}})).await;
    assert!(said.contains("partition 1 cannot grow: partition 2 lies behind it"), "{said}");
}

#[tokio::test]
async fn a_disk_in_use_is_refused() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(32, 512);
    let run = Run::new();
    let table = json!({"disk": disk.selector(), "partitions": [{"label": "root", "size": "rest"}]});
    run.step("partition", table.clone()).await.unwrap();
    run.step("format", json!({"target": "root", "filesystem": "ext4"})).await.unwrap();
    let before = disk.bytes();
    let at = tempfile::tempdir().unwrap();
    sh("mount", &[&disk.partition(1), &at.path().to_string_lossy()]);
    let said = run.fails("partition", table).await;
    sh("umount", &[&at.path().to_string_lossy()]);
    assert!(said.contains("is in use") && said.contains(&*at.path().to_string_lossy()), "{said}");
    assert_eq!(before[..1 << 20], disk.bytes()[..1 << 20]);
}

#[tokio::test]
async fn a_table_that_does_not_fit_changes_nothing() {
    if !may_run() {
        return;
    }
    let disk = Disk::new(16, 512);
    let run = Run::new();
    let said = run.fails("partition", json!({"disk": disk.selector(), "partitions": [{"size": "64MiB"}]})).await;
    assert!(said.contains("partitions[0].size: 64 MiB does not fit: only"), "{said}");
    assert!(disk.bytes().iter().all(|b| *b == 0));
    run.canceller.cancel();
    let said = run.fails("partition", json!({"disk": disk.selector(), "partitions": [{"size": "1MiB"}]})).await;
    assert_eq!(said, "cancelled");
    assert!(disk.bytes().iter().all(|b| *b == 0));
}
