//! Real block devices: files behind loop devices, of any size and sector size. Needs root.
// Helpers outside `#[test]` functions; not every test crate uses all of them.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dragonfly_actions::run::{Host, builtin_on};
use dragonfly_core::action::{ActionContext, ActionError, Canceller, Permit};
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::testing::{RecordingSink, StaticImages};
use serde_json::{Value, json};
use uuid::Uuid;

/// Whether this process may make loop devices. Where tests must run (`CI` is set), it has to.
pub(crate) fn may_run() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    let may = root && Path::new("/dev/loop-control").exists();
    assert!(may || std::env::var_os("CI").is_none(), "these tests need root and loop devices");
    if !may {
        eprintln!("skipped: needs root and loop devices");
    }
    may
}

/// A disk that goes away with the value.
pub(crate) struct Disk {
    pub(crate) file: PathBuf,
    pub(crate) node: PathBuf,
    _directory: tempfile::TempDir,
}

pub(crate) fn sh(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program} {args:?}: {text}");
    text
}

/// Unmounts, and waits a moment: what other tests start holds our files from fork to exec.
fn unmount(at: &Path) {
    for _ in 0..100 {
        if Command::new("umount").arg(at).output().is_ok_and(|out| out.status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    sh("umount", &[&at.to_string_lossy()]);
}

impl Disk {
    pub(crate) fn new(mib: u64, sector: u32) -> Self {
        Self::kept_in(tempfile::tempdir().unwrap(), mib, sector)
    }

    /// Its file in this directory.
    pub(crate) fn kept_in(directory: tempfile::TempDir, mib: u64, sector: u32) -> Self {
        let file = directory.path().join("disk.img");
        std::fs::File::create(&file).unwrap().set_len(mib << 20).unwrap();
        let sector = sector.to_string();
        // Another test may take the device that was free a moment ago.
        for _ in 0..20 {
            let out = Command::new("losetup")
                .args(["--find", "--show", "--sector-size", &sector])
                .arg(&file)
                .output()
                .unwrap();
            if out.status.success() {
                let node = String::from_utf8(out.stdout).unwrap().trim().into();
                return Self { file, node, _directory: directory };
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no loop device could be had");
    }

    pub(crate) fn name(&self) -> String {
        self.node.file_name().unwrap().to_string_lossy().into_owned()
    }

    pub(crate) fn selector(&self) -> Value {
        json!({ "name": self.name() })
    }

    pub(crate) fn partition(&self, number: u32) -> String {
        format!("{}p{number}", self.node.display())
    }

    /// Everything on it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        sh("blockdev", &["--flushbufs", &self.node.to_string_lossy()]);
        std::fs::read(&self.file).unwrap()
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, mib: u64) {
        std::fs::OpenOptions::new().write(true).open(&self.file).unwrap().set_len(mib << 20).unwrap();
        sh("losetup", &["--set-capacity", &self.node.to_string_lossy()]);
    }

    /// Runs something with a partition mounted.
    pub(crate) fn mounted<T>(&self, number: u32, work: impl FnOnce(&Path) -> T) -> T {
        let at = tempfile::tempdir().unwrap();
        sh("mount", &[&self.partition(number), &at.path().to_string_lossy()]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(at.path())));
        unmount(at.path());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The kernel remembers it for the next who is given this device.
        let _ = Command::new("blockdev").arg("--setrw").arg(&self.node).output();
        // May have no partitions.
        let _ = Command::new("partx").arg("--delete").arg(&self.node).output();
        let _ = Command::new("losetup").arg("--detach").arg(&self.node).output();
    }
}

/// A small file system: a disk kept in it takes that much and no more, and fails from there on.
pub(crate) struct Room(tempfile::TempDir);

impl Room {
    pub(crate) fn new(kib: u64) -> Self {
        let at = tempfile::tempdir().unwrap();
        sh("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs", &at.path().to_string_lossy()]);
        Self(at)
    }

    pub(crate) fn disk(&self, mib: u64) -> Disk {
        Disk::kept_in(tempfile::tempdir_in(self.0.path()).unwrap(), mib, 512)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        unmount(self.0.path());
    }
}

/// One run on this machine: its permit, its images, what it said.
pub(crate) struct Run {
    pub(crate) host: Host,
    pub(crate) permit: Permit,
    pub(crate) images: StaticImages,
    pub(crate) sink: Arc<RecordingSink>,
    pub(crate) canceller: Canceller,
}

impl Run {
    pub(crate) fn new() -> Self {
        let mut host = Host::default();
        host.scratch = std::env::temp_dir().join("dragonfly-actions-tests");
        Self {
            host,
            permit: Permit { workflow_uid: Uuid::new_v4(), generation: 1, overwrite: Overwrite::Blank },
            images: StaticImages::new(),
            sink: Arc::new(RecordingSink::default()),
            canceller: Canceller::default(),
        }
    }

    /// The same run after the machine has booted again: what was only in memory is gone.
    pub(crate) fn rebooted(&self) -> Self {
        Self { permit: self.permit.clone(), images: self.images.clone(), ..Self::new() }
    }

    pub(crate) fn cx(&self) -> ActionContext {
        ActionContext::new(&self.canceller, self.sink.clone(), Arc::new(self.images.clone()), self.permit.clone())
    }

    pub(crate) async fn step(&self, action: &str, with: Value) -> Result<(), ActionError> {
        let planned = builtin_on(self.host.clone()).plan(action, &with).map_err(|mut e| e.remove(0))?;
        planned.run(&self.cx()).await
    }

    pub(crate) async fn verify(&self, action: &str, with: Value) -> bool {
        builtin_on(self.host.clone()).plan(action, &with).unwrap().verify(&self.cx()).await.unwrap()
    }

    /// The error of a step that must fail, with its causes.
    pub(crate) async fn fails(&self, action: &str, with: Value) -> String {
        let error = self.step(action, with).await.expect_err("this must fail");
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            words = format!("{words}: {next}");
            cause = next.source();
        }
        words
    }
}
