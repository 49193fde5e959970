//! What this machine must have, and how it gets it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::console::{ask, say};
use super::process::output;

const PACKAGES: &str = include_str!("../../../.ci/packages");
/// The target of the agent: static, so that it runs as the only program in RAM.
pub(crate) const MUSL: &str = "x86_64-unknown-linux-musl";

/// Makes sure that everything is there; asks before it installs unless told not to.
pub(crate) fn prepare(yes: bool) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes a network namespace and builds Debian images: run it as root (sudo -E cargo lab)"
    );
    let consent = yes || std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
    packages(consent)?;
    target(consent)
}

/// The names of the packages that the lab needs.
fn needed() -> Vec<&'static str> {
    PACKAGES
        .lines()
        .filter_map(|line| line.split_once('#'))
        .filter(|(_, what)| what.trim_start().starts_with("lab"))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|done| String::from_utf8_lossy(&done.stdout).contains("ok installed"))
}

fn packages(consent: bool) -> Result<()> {
    let missing: Vec<_> = needed().into_iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    say(format_args!("these Debian packages are missing; this installs them:\n\n    {line}\n"));
    if !consent && !ask("Shall I run it?") {
        bail!("run the line above, then cargo lab again");
    }
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if apt(&install).is_ok() {
        return Ok(());
    }
    // Another release's qemu-utils and this release's qemu-system-x86 exclude each other.
    let fitting = candidate("qemu-system-x86").context("apt knows no qemu-system-x86")?;
    let utils = format!("qemu-utils={fitting}");
    say(format_args!("once more, with {utils} in place of the one that is in the way"));
    install.extend(["--allow-downgrades", &utils]);
    apt(&install).with_context(|| format!("apt cannot install what the lab needs; by hand: {line}"))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get: the lab needs Debian or one of its kin")?;
    ensure!(status.success(), "apt-get {}: {status}", arguments[0]);
    Ok(())
}

fn candidate(package: &str) -> Option<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package])).ok()?;
    policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ").map(str::to_owned))
}

fn target(consent: bool) -> Result<()> {
    let installed = output(Command::new("rustup").args(["target", "list", "--installed"]))
        .context("cannot ask rustup which targets are installed")?;
    if installed.lines().any(|line| line == MUSL) {
        return Ok(());
    }
    say(format_args!("the agent is built for {MUSL}; this adds it:\n\n    rustup target add {MUSL}\n"));
    if !consent && !ask("Shall I run it?") {
        bail!("run the line above, then cargo lab again");
    }
    output(Command::new("rustup").args(["target", "add", MUSL])).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_list_names_what_the_lab_runs() {
        let needed = needed();
        for package in ["qemu-system-x86", "ovmf", "mmdebstrap", "dnsmasq-base", "grub-pc-bin"] {
            assert!(needed.contains(&package), "{package} is not in {needed:?}");
        }
        assert!(!needed.contains(&"tftp-hpa"), "packages for tests are not the lab's");
        assert!(!needed.contains(&"qemu-utils"), "the lab does without qemu-utils");
    }
}
