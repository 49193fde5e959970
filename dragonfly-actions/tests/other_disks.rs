//! Two disks: what lies on the other one stays as it is, however well its labels fit. On real block
//! devices; needs root.
#![cfg(all(feature = "run", target_os = "linux"))]
// Helpers outside `#[test]` functions unwrap too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use dragonfly_core::resource::hardware::Overwrite;
use serde_json::{Value, json};
use support::{Disk, Run, may_run, sh};
use tempfile::TempDir;

/// What the new system's table wants; its own disk has `OWN` alone.
const FSTAB: &str =
    "LABEL=OWN / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\nLABEL=UEFI /boot/efi ext4 defaults 0 2\n";

/// A machine with `sda`, where an older run put `BOOT` and `UEFI`, and `sdb`, where this one put `OWN`.
struct Machine {
    run: Run,
    sda: Disk,
    sdb: Disk,
    _tree: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let (sda, sdb, tree) = (Disk::new(64, 512), Disk::new(96, 512), tempfile::tempdir().unwrap());
        // Loop devices are never looked through; under these names they are.
        for (name, disk) in [("sda", &sda), ("sdb", &sdb)] {
            show(tree.path(), name, disk);
        }
        let on = |mut run: Run| {
            run.host.sys = tree.path().join("sys");
            run.host.dev = tree.path().join("dev");
            run
        };
        install(&on(Run::new()), "sda", &["BOOT", "UEFI"]).await;
        let run = on(Run::new());
        install(&run, "sdb", &["OWN", "SPARE"]).await;
        sda.mounted(1, |boot| tiny(boot, "theirs"));
        sdb.mounted(1, |root| {
            for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "boot/efi"] {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            for applet in ["sh", "touch"] {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
            fs::write(root.join("etc/fstab"), FSTAB).unwrap();
        });
        Self { run, sda, sdb, _tree: tree }
    }

    fn root() -> Value {
        json!({ "disk": { "name": "sdb" }, "label": "OWN" })
    }

    fn touch() -> Value {
        json!({ "target": Self::root(), "argv": ["sh", "-c", "touch /boot/made /boot/efi/made"] })
    }

    fn heard(&self, want: &str) -> bool {
        self.run.sink.lines().iter().any(|line| line.contains(want))
    }
}

/// Shows a disk under another name, as sysfs and device nodes have it.
fn show(tree: &Path, name: &str, disk: &Disk) {
    let (block, dev) = (tree.join("sys/block").join(name), tree.join("dev"));
    fs::create_dir_all(&block).unwrap();
    fs::create_dir_all(&dev).unwrap();
    let real = Path::new("/sys/block").join(disk.name());
    for file in ["size", "queue", "holders", "dev", "removable"] {
        symlink(real.join(file), block.join(file)).unwrap();
    }
    symlink(&disk.node, dev.join(name)).unwrap();
    for number in 1..4 {
        symlink(real.join(format!("{}p{number}", disk.name())), block.join(format!("{name}{number}"))).unwrap();
        symlink(disk.partition(number), dev.join(format!("{name}{number}"))).unwrap();
    }
}

/// Partitions of 30 MiB, each with a file system, called alike.
async fn install(run: &Run, disk: &str, labels: &[&str]) {
    let partitions: Vec<Value> = labels.iter().map(|l| json!({ "label": l, "size": "30MiB" })).collect();
    let table = json!({ "disk": { "name": disk }, "table": "gpt", "partitions": partitions });
    run.step("partition", table).await.unwrap();
    for label in labels {
        label_as(run, disk, label, label).await;
    }
}

async fn label_as(run: &Run, disk: &str, partition: &str, label: &str) {
    let target = json!({ "disk": { "name": disk }, "label": partition });
    run.step("format", json!({ "target": target, "fs": "ext4", "label": label })).await.unwrap();
}

/// A configuration with one entry, and a kernel that is none.
fn tiny(boot: &Path, title: &str) {
    fs::create_dir_all(boot.join("grub")).unwrap();
    fs::write(boot.join("grub/grub.cfg"), format!("menuentry '{title}' {{\n linux /vmlinuz-1 ro\n}}\n")).unwrap();
    fs::write(boot.join("vmlinuz-1"), "not a kernel").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_this_run_may_not_write_is_not_mounted() {
    if !may_run() {
        return;
    }
    // Nothing but blank disks; another disk; all, but a later run's mark is on it.
    for (name, overwrite, generation, why) in [
        ("blank", Overwrite::Blank, 1, "sda carries data (gpt)"),
        ("another", Overwrite::Disks(vec!["sdb".into()]), 1, "sda carries data (gpt)"),
        ("outdated", Overwrite::All, 0, "sda was written by a later run"),
    ] {
        let mut machine = Machine::new().await;
        machine.run.permit.overwrite = overwrite;
        machine.run.permit.generation = generation;
        let before = machine.sda.bytes();
        machine.run.step("chroot-exec", Machine::touch()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(before == machine.sda.bytes(), "{name}: sda was written");
        for (label, place, path) in [("BOOT", "sda1", "/boot"), ("UEFI", "sda2", "/boot/efi")] {
            let want = format!("LABEL={label} is {place}; {path} is not mounted: {why}");
            assert!(machine.heard(&want), "{name}: {want} is missing in {:?}", machine.run.sink.lines());
        }
        machine.sdb.mounted(1, |root| assert!(root.join("boot/efi/made").exists(), "{name}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_this_run_may_write_is_mounted() {
    if !may_run() {
        return;
    }
    let mut machine = Machine::new().await;
    machine.run.permit.overwrite = Overwrite::Disks(vec!["sda".into()]);
    machine.run.step("chroot-exec", Machine::touch()).await.unwrap();
    for number in [1, 2] {
        machine.sda.mounted(number, |at| assert!(at.join("made").exists(), "{number}"));
    }
    machine.sdb.mounted(1, |root| assert!(!root.join("boot/made").exists()));

    // The root's own disk comes first, whatever else is allowed.
    label_as(&machine.run, "sdb", "SPARE", "BOOT").await;
    machine.sda.mounted(1, |boot| fs::remove_file(boot.join("made")).unwrap());
    machine.run.step("chroot-exec", Machine::touch()).await.unwrap();
    machine.sda.mounted(1, |boot| assert!(!boot.join("made").exists()));
    machine.sdb.mounted(2, |boot| assert!(boot.join("made").exists()));
}

/// A program that writes zeros to a device, by a node that it makes itself.
fn scribble(device: &Path) -> Value {
    let number = fs::metadata(device).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let words = format!(
        "mknod /tmp/other b {major} {minor} && dd if=/dev/zero of=/tmp/other bs=4096 seek=4 count=1 conv=fsync; \
         status=$?; rm /tmp/other; exit $status"
    );
    json!({ "target": Machine::root(), "argv": ["sh", "-c", words] })
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_write_no_disk_that_this_run_may_not_write() {
    if !may_run() {
        return;
    }
    let mut machine = Machine::new().await;
    let zero = machine.run.host.dev.join("zero");
    if fs::metadata(&zero).is_err() {
        nix::sys::stat::mknod(
            &zero,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::from_bits_truncate(0o666),
            nix::sys::stat::makedev(1, 5),
        )
        .unwrap();
    }
    machine.sdb.mounted(1, |root| {
        for applet in ["mknod", "dd", "rm"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    });
    machine.run.permit.overwrite = Overwrite::Blank;
    let nodes = [machine.sda.node.clone(), machine.sda.partition(1).into()];
    let before = machine.sda.bytes();
    for node in &nodes {
        let said = machine.run.fails("chroot-exec", scribble(node)).await;
        assert!(said.contains("not permitted") || said.contains("Read-only"), "{said}");
        assert!(before == machine.sda.bytes(), "{} was written", node.display());
    }
    let kept = "kept from being written by programs of the installed system: sda carries data (gpt)";
    assert!(machine.heard(kept), "{:?}", machine.run.sink.lines());
    let own = [machine.sdb.partition(2).into(), machine.sdb.node.clone()];
    for node in &own {
        machine.run.step("chroot-exec", scribble(node)).await.unwrap();
    }

    // Afterwards it is as it was, and who is allowed to may.
    let read_only = || sh("blockdev", &["--getro", &machine.sda.node.to_string_lossy()]);
    assert_eq!(read_only().trim(), "0");
    machine.run.permit.overwrite = Overwrite::Disks(vec!["sda".into()]);
    machine.run.step("chroot-exec", scribble(&nodes[1])).await.unwrap();
    assert!(before != machine.sda.bytes());

    // What was read-only before stays so.
    machine.run.permit.overwrite = Overwrite::Blank;
    sh("blockdev", &["--setro", &machine.sda.node.to_string_lossy()]);
    machine.run.fails("chroot-exec", scribble(&nodes[0])).await;
    assert_eq!(read_only().trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_loader_says_which_partition_it_lacks() {
    if !may_run() {
        return;
    }
    let machine = Machine::new().await;
    let before = machine.sda.bytes();
    let mut step = json!({ "kind": "grub", "root": Machine::root(), "firmware": "bios" });
    let said = machine.run.fails("bootloader", step.clone()).await;
    for want in [
        "/boot of its /etc/fstab is LABEL=BOOT on sda1, which is not mounted: sda carries data (gpt)",
        "make LABEL=BOOT a partition of sdb",
        "name the partition with `mounts`",
    ] {
        assert!(said.contains(want), "{want} is missing in {said}");
    }

    // With `/boot` named, the EFI system partition is what is missing.
    step["mounts"] = json!([{ "target": { "disk": { "name": "sdb" }, "label": "SPARE" }, "path": "/boot" }]);
    step["firmware"] = json!("auto");
    fs::create_dir_all(machine.run.host.sys.join("firmware/efi")).unwrap();
    machine.sdb.mounted(1, |root| {
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        fs::create_dir_all(root.join("usr/lib/grub").join(if cfg!(target_arch = "x86_64") {
            "x86_64-efi"
        } else {
            "arm64-efi"
        }))
        .unwrap();
        fs::write(root.join("usr/sbin/grub-install"), "#!/bin/sh\nexit 0\n").unwrap();
        sh("chmod", &["+x", &root.join("usr/sbin/grub-install").to_string_lossy()]);
    });
    let said = machine.run.fails("bootloader", step).await;
    let want = "/boot/efi of its /etc/fstab is LABEL=UEFI on sda2, which is not mounted: sda carries data (gpt)";
    assert!(said.contains("name it with `esp`") && said.contains(want), "{said}");
    assert!(before == machine.sda.bytes(), "sda was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn kexec_looks_and_writes_nothing() {
    if !may_run() {
        return;
    }
    let mut machine = Machine::new().await;
    let step = json!({ "target": Machine::root() });
    // As after a power cut: a journal to be replayed, a file to be deleted. A mount that is only
    // read-only does both.
    let cut = |disk: &Disk, file: &str| {
        let node = disk.partition(1);
        let inode = disk.mounted(1, |at| fs::metadata(at.join(file)).unwrap().ino());
        sh("debugfs", &["-w", "-R", "feature needs_recovery", &node]);
        sh("debugfs", &["-w", "-R", &format!("set_super_value last_orphan {inode}"), &node]);
        disk.bytes();
    };
    cut(&machine.sdb, "etc/fstab");
    cut(&machine.sda, "vmlinuz-1");
    let before = (machine.sda.bytes(), machine.sdb.bytes());
    let said = machine.run.fails("kexec", step.clone()).await;
    for want in ["no boot loader configuration was found", "LABEL=BOOT on sda1, which is not mounted: sda carries data"]
    {
        assert!(said.contains(want), "{want} is missing in {said}");
    }
    assert!(before.0 == machine.sda.bytes(), "sda was written");
    assert!(before.1 == machine.sdb.bytes(), "sdb was written");

    // Allowed, it is read, and no more than that.
    machine.run.permit.overwrite = Overwrite::Disks(vec!["sda".into()]);
    let said = machine.run.fails("kexec", step.clone()).await;
    assert!(said.contains("`reboot`") || said.contains("/vmlinuz-1 is not a kernel"), "{said}");
    assert!(machine.heard("/boot/grub/grub.cfg: `theirs`"), "{:?}", machine.run.sink.lines());
    assert!(before.0 == machine.sda.bytes(), "sda was written");
    assert!(before.1 == machine.sdb.bytes(), "sdb was written");

    // A look into a system without the directory makes none.
    sh("e2fsck", &["-fy", &machine.sdb.partition(1)]);
    machine.sdb.mounted(1, |root| fs::remove_dir_all(root.join("boot")).unwrap());
    let before = machine.sdb.bytes();
    let said = machine.run.fails("kexec", step.clone()).await;
    assert!(said.contains("there is no such directory") && said.contains("put a file into"), "{said}");
    assert!(before == machine.sdb.bytes(), "sdb was written");

    // What was cleanly unmounted is read as it was written; afterwards everything can be written again.
    machine.sdb.mounted(1, |root| tiny(&root.join("boot"), "ours"));
    machine.run.permit.overwrite = Overwrite::Blank;
    machine.run.fails("kexec", step).await;
    assert!(machine.heard("/boot/grub/grub.cfg: `ours`"), "{:?}", machine.run.sink.lines());
    machine.run.step("writefile", json!({ "target": Machine::root(), "path": "/a", "content": "" })).await.unwrap();
}
