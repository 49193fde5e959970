//! A shell for the person who stands at a machine that failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::console::Console;

/// Offers shells on the consoles, once.
#[derive(Debug, Default)]
pub struct Rescue {
    offered: AtomicBool,
}

impl Rescue {
    /// From now on there is a shell on every console. It runs in the RAM disk beside the agent, which
    /// goes on.
    pub fn offer(&self, console: &Console) {
        if self.offered.swap(true, Ordering::AcqRel) || console.devices().is_empty() {
            return;
        }
        console.line("A rescue shell is on this console; the agent goes on beside it.");
        for device in console.devices() {
            let device = terminal(device);
            std::thread::spawn(move || {
                loop {
                    if shell(&device).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    }
}

/// `tty0` is whichever screen is shown and cannot control a shell; the first screen can.
fn terminal(device: &Path) -> PathBuf {
    if device.ends_with("tty0") { device.with_file_name("tty1") } else { device.to_owned() }
}

fn shell(device: &Path) -> std::io::Result<()> {
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(device);
    let (input, output, error) = (open()?, open()?, open()?);
    Command::new("/bin/busybox")
        .args(["setsid", "-c", "/bin/sh", "-l"])
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("PS1", "mage# ")
        .env("HOME", "/")
        .env("TERM", "linux")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(error))
        .status()
        .map(drop)
}
