//! What a crash of the agent leaves behind holds no secret: there is nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const NOBODY: u32 = 65_534;

/// Ended with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_crash_leaves_no_memory_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mage"));
    // Of root's own processes root is the owner anyway, and root's agent could restart this machine.
    if geteuid().is_root() {
        // That user may not get to where it was built.
        let program = dir.path().join("mage");
        fs::copy(env!("CARGO_BIN_EXE_mage"), &program).unwrap();
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
    }
    // As `/init` starts it. It waits for its identity, which never comes.
    command.arg("--agent").arg("--sysfs").arg(dir.path()).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut agent = Agent(command.spawn().unwrap());
    let about = |file: &str| format!("/proc/{}/{file}", agent.0.id());
    // Nobody but root may look into it while it runs.
    let until = Instant::now() + Duration::from_secs(30);
    while fs::metadata(about("mem")).unwrap().uid() != 0 {
        assert!(Instant::now() < until, "it can be looked into");
        std::thread::sleep(Duration::from_millis(10));
    }
    let limits = fs::read_to_string(about("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    kill(Pid::from_raw(agent.0.id().try_into().unwrap()), Signal::SIGABRT).unwrap();
    let status = agent.0.wait().unwrap();
    assert!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
}
