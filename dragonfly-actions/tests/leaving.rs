//! An installed system is entered, made bootable and left, on real block devices. Needs root.
#![cfg(all(feature = "run", target_os = "linux"))]
// Helpers outside `#[test]` functions unwrap too.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Disk, Run, may_run, sh};

/// A disk with `/boot` on a partition of its own and a root whose programs are busybox.
async fn installed(run: &Run) -> Disk {
    let disk = Disk::new(128, 512);
    let table = json!({ "disk": disk.selector(), "table": "gpt", "partitions": [
        { "label": "esp", "type": "esp", "size": "40MiB" },
        { "label": "boot", "size": "16MiB" },
        { "label": "root", "size": "rest" },
    ]});
    run.step("partition", table).await.unwrap();
    // Not FAT: the kernel of a test machine may not know it.
    for (label, fs) in [("esp", "ext4"), ("boot", "ext4"), ("root", "ext4")] {
        let target = json!({ "disk": disk.selector(), "label": label });
        run.step("format", json!({ "target": target, "fs": fs, "label": label.to_uppercase() })).await.unwrap();
    }
    disk.mounted(3, |root| {
        for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "boot"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "setsid", "mount", "grep", "ls", "touch"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(
            root.join("etc/fstab"),
            "LABEL=ROOT / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\nUUID=none /var ext4 defaults 0 2\n",
        )
        .unwrap();
    });
    disk
}

fn shell(disk: &Disk, script: &str) -> Value {
    json!({ "target": { "disk": disk.selector(), "label": "root" }, "argv": ["sh", "-c", script] })
}

/// Nothing of a run stays mounted.
fn nothing_stays(disk: &Disk) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&format!("{}p", disk.node.display()))).collect();
    assert!(left.is_empty(), "still mounted: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_in_the_whole_system_and_everything_is_unmounted() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    let script = "echo one; echo two >&2; echo \"$GREETING\"; touch /boot/made /made; \
                  grep -q ' /boot ' /proc/self/mounts && test -c /dev/null && test -d /sys/block && echo whole; \
                  test -e /proc/self/status && ls /run >/dev/null && echo bound";
    let mut step = shell(&disk, script);
    step["env"] = json!({ "GREETING": "three words here" });
    run.step("chroot-exec", step).await.unwrap();
    let said = run.sink.lines();
    for want in ["one", "two", "three words here", "whole", "bound"] {
        assert!(said.iter().any(|line| line == want), "{want} is missing in {said:?}");
    }
    assert!(said.iter().any(|line| line.contains("no partition is UUID=none; /var is not mounted")), "{said:?}");
    nothing_stays(&disk);
    // On the partition that belongs there, not under it.
    disk.mounted(2, |boot| assert!(boot.join("made").exists()));
    disk.mounted(3, |root| assert!(root.join("made").exists() && !root.join("boot/made").exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_says_how() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    let said = run.fails("chroot-exec", shell(&disk, "echo first; echo the disk is on fire >&2; exit 7")).await;
    assert!(said.contains("exit code 7") && said.contains("the disk is on fire"), "{said}");
    nothing_stays(&disk);

    let mut step = shell(&disk, "");
    step["argv"] = json!(["apt-get", "update"]);
    let said = run.fails("chroot-exec", step).await;
    assert!(said.contains("no program `apt-get` in the system on"), "{said}");

    let mut step = shell(&disk, "echo begun; sleep 60");
    step["timeoutSeconds"] = json!(1);
    let begin = Instant::now();
    let said = run.fails("chroot-exec", step).await;
    assert!(said.contains("within 1 s") && begin.elapsed() < Duration::from_secs(20), "{said}");
    nothing_stays(&disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_leaves_running_is_killed() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    // In a session of its own, with a file open on either partition.
    let script = "setsid sh -c 'exec 8>/boot/held 9>/held; echo $$ >/left; sleep 300' >/dev/null 2>&1 & \
                  while ! test -s /left; do sleep 0.05; done";
    run.step("chroot-exec", shell(&disk, script)).await.unwrap();
    nothing_stays(&disk);
    let said = run.sink.lines();
    assert!(said.iter().any(|line| line.contains("was left running")), "{said:?}");
    let pid = disk.mounted(3, |root| fs::read_to_string(root.join("left")).unwrap());
    assert!(!Path::new("/proc").join(pid.trim()).join("exe").exists(), "{pid} lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_are_lent_and_taken_back() {
    if !may_run() {
        return;
    }
    let ours = fs::read_to_string("/etc/resolv.conf").expect("this machine has name servers");
    let run = Run::new();
    let disk = installed(&run).await;
    let mut step = shell(&disk, "cat /etc/resolv.conf && echo read");
    step["network"] = json!(true);
    // Missing; there; a link to what only the running system would make.
    let held = format!("../run/dragonfly-test-{}/stub.conf", std::process::id());
    for state in ["missing", "there", "link"] {
        disk.mounted(3, |root| {
            let file = root.join("etc/resolv.conf");
            match state {
                "there" => fs::write(file, "nameserver 192.0.2.1\n").unwrap(),
                "link" => {
                    fs::remove_file(&file).unwrap();
                    std::os::unix::fs::symlink(&held, file).unwrap();
                }
                _ => assert!(!file.exists()),
            }
        });
        run.step("chroot-exec", step.clone()).await.unwrap_or_else(|e| panic!("{state}: {e}"));
        let said = run.sink.lines();
        let first = ours.lines().find(|line| !line.trim().is_empty()).unwrap().trim_end();
        assert!(said.iter().any(|line| line == first), "{state}: {first:?} is missing in {said:?}");
        nothing_stays(&disk);
        disk.mounted(3, |root| {
            let file = root.join("etc/resolv.conf");
            match state {
                "missing" => assert!(fs::symlink_metadata(file).is_err(), "it was left behind"),
                "there" => assert_eq!(fs::read_to_string(file).unwrap(), "nameserver 192.0.2.1\n"),
                _ => assert_eq!(fs::read_link(file).unwrap(), Path::new(&held)),
            }
        });
    }
    let made = Path::new("/run").join(format!("dragonfly-test-{}", std::process::id()));
    assert!(!made.join("stub.conf").exists(), "it was left behind");
    let _ = fs::remove_dir(made);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_the_system_do_not_lead_out_of_it() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    disk.mounted(3, |root| {
        fs::remove_dir(root.join("boot")).unwrap();
        fs::remove_dir(root.join("run")).unwrap();
        // An absolute link is the system's own directory, never this machine's.
        fs::create_dir_all(root.join("real/boot")).unwrap();
        std::os::unix::fs::symlink("/real/boot", root.join("boot")).unwrap();
        std::os::unix::fs::symlink("../../../..", root.join("run")).unwrap();
    });
    let said = run.fails("chroot-exec", shell(&disk, "true")).await;
    assert!(said.contains("/run of the installed system is a link to its root"), "{said}");
    nothing_stays(&disk);
    disk.mounted(3, |root| fs::remove_file(root.join("run")).unwrap());
    run.step("chroot-exec", shell(&disk, "touch /boot/made")).await.unwrap();
    nothing_stays(&disk);
    disk.mounted(2, |boot| assert!(boot.join("made").exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_loader_that_is_not_there_is_named() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    let root = json!({ "disk": disk.selector(), "label": "root" });
    let esp = json!({ "disk": disk.selector(), "label": "esp" });
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "firmware": "bios" })).await;
    assert!(said.contains("has no GRUB (no grub-install)") && said.contains("Debian: grub-pc"), "{said}");
    disk.mounted(3, |root| {
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        fs::write(root.join("usr/sbin/grub-install"), "#!/bin/sh\nexit 0\n").unwrap();
        sh("chmod", &["+x", &root.join("usr/sbin/grub-install").to_string_lossy()]);
    });
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "esp": esp, "firmware": "uefi" })).await;
    assert!(said.contains("/usr/lib/grub/x86_64-efi is missing"), "{said}");
    disk.mounted(3, |root| {
        fs::create_dir_all(root.join("usr/lib/grub/x86_64-efi")).unwrap();
        fs::create_dir_all(root.join("usr/lib/grub/i386-pc")).unwrap();
    });
    // It ends with 0 and does nothing.
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "esp": esp, "firmware": "uefi" })).await;
    assert!(said.contains("/boot/efi/EFI/BOOT/BOOTX64.EFI is not there"), "{said}");
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "firmware": "bios" })).await;
    assert!(said.contains("{type: bios-boot, size: 1MiB}"), "{said}");
    sh("sgdisk", &["--typecode=1:ef02", &disk.node.to_string_lossy()]);
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "firmware": "bios" })).await;
    assert!(said.contains("/boot/grub/i386-pc/core.img is not there"), "{said}");
    let said = run.fails("bootloader", json!({ "kind": "grub", "root": root, "firmware": "uefi" })).await;
    assert!(said.contains("esp"), "{said}");
    nothing_stays(&disk);
}

/// This machine's kernel may have no kexec; then the whole way to the kernel is walked, and the error
/// must say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn kexec_takes_what_the_boot_loader_would_boot() {
    if !may_run() {
        return;
    }
    let run = Run::new();
    let disk = installed(&run).await;
    let target = json!({ "disk": disk.selector(), "label": "root" });
    let said = run.fails("kexec", json!({ "target": target })).await;
    assert!(said.contains("no boot loader configuration was found"), "{said}");
    disk.mounted(2, |boot| {
        fs::create_dir(boot.join("grub")).unwrap();
        let entry = "menuentry 'Tiny' {\n linux /vmlinuz-1 root=LABEL=ROOT ro\n initrd /a.img /b.img\n}\n";
        fs::write(boot.join("grub/grub.cfg"), entry).unwrap();
        fs::write(boot.join("a.img"), "abc").unwrap();
        fs::write(boot.join("b.img"), "def").unwrap();
    });
    let said = run.fails("kexec", json!({ "target": target })).await;
    assert!(said.contains("there is no /vmlinuz-1 on"), "{said}");
    disk.mounted(2, |boot| fs::write(boot.join("vmlinuz-1"), "not a kernel").unwrap());
    let said = run.fails("kexec", json!({ "target": target, "append": "quiet" })).await;
    assert!(
        said.contains("end the template with `reboot`")
            || said.contains("/vmlinuz-1 is not a kernel that kexec can start"),
        "{said}"
    );
    assert!(run.sink.lines().iter().any(|line| line.contains("/boot/grub/grub.cfg: `Tiny`")));
    nothing_stays(&disk);
}
