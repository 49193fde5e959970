//! Process 1 of the RAM disk: mounts, takes the identity, and looks after the agent.
//!
//! The agent itself is a child. When it dies the kernel does not panic: the child is started again,
//! and the machine goes on where the server remembers it to be.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::console::Console;

/// Where the boot loader's second archive puts the identity.
pub const IDENTITY: &str = "/dragonfly/identity.json";

/// Runs as process 1; never ends while the machine runs.
pub fn run() -> ExitCode {
    let failed = mount_all();
    let console = Console::of_the_kernel(Path::new("/sys"), Path::new("/dev"));
    for what in failed {
        console.line(&format!("init: {what}"));
    }
    let identity = take(Path::new(IDENTITY));
    let mut crashes = 0u32;
    loop {
        let started = Instant::now();
        match spawn(identity.as_deref().unwrap_or_default()) {
            Ok(child) => {
                let end = look_after(&child);
                crashes = if started.elapsed() > Duration::from_secs(600) { 1 } else { crashes + 1 };
                console.line(&format!("init: the agent ended ({end}); it is started again"));
            }
            Err(error) => console.line(&format!("init: the agent cannot be started: {error}")),
        }
        // A crash that repeats must not keep the machine from being looked at.
        std::thread::sleep(Duration::from_secs(u64::from(crashes.min(6)) * 5));
    }
}

fn mount_all() -> Vec<String> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let table = [
        ("proc", "/proc", plain, None),
        ("sysfs", "/sys", plain, None),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, None),
        ("devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, None),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755")),
        ("tmpfs", "/tmp", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777")),
    ];
    let mut failed = Vec::new();
    for (kind, target, flags, data) in table {
        let _ = std::fs::create_dir_all(target);
        if let Err(error) = mount(Some(kind), target, Some(kind), flags, data) {
            // EBUSY: the kernel or a boot loader was there first.
            if error != nix::errno::Errno::EBUSY {
                failed.push(format!("{target} cannot be mounted: {error}"));
            }
        }
    }
    let _ = std::fs::create_dir_all("/run/mage");
    failed
}

/// Reads the identity and unlinks it: whoever looks at the RAM disk later finds none.
pub fn take(path: &Path) -> Option<Vec<u8>> {
    let text = std::fs::read(path).ok()?;
    let _ = std::fs::remove_file(path);
    Some(text)
}

fn spawn(identity: &[u8]) -> std::io::Result<Child> {
    let mut child = Command::new("/proc/self/exe")
        .arg("--agent")
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        // By a pipe: arguments and the environment can be read in /proc.
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A child that died at once is noticed by its end.
        let _ = pipe.write_all(identity);
    }
    Ok(child)
}

/// Waits for the agent to end. Process 1 inherits every orphan, so it waits for all of them.
fn look_after(agent: &Child) -> String {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() as u32 == agent.id() => {
                return format!("exit code {code}");
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == agent.id() => {
                return format!("{signal}");
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return error.to_string(),
        }
    }
}
