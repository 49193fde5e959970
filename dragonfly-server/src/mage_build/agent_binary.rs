//! Finding the agent's binary, or building it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::run;

const TARGET: &str = "x86_64-unknown-linux-musl";

/// The given one, else one beside this program, else one built from the workspace.
pub(super) fn find(given: Option<&Path>, say: &dyn Fn(&str)) -> Result<PathBuf> {
    if let Some(path) = given {
        check(path)?;
        return Ok(path.to_owned());
    }
    let here = std::env::current_exe().context("cannot find this program's own place")?;
    if let Some(beside) = here.parent().map(|dir| dir.join("mage"))
        && beside.exists()
        && check(&beside).is_ok()
    {
        return Ok(beside);
    }
    let Some(workspace) = workspace(&here) else {
        bail!(
            "no static agent was found beside {}; give one with --mage PATH, or run this from the source tree so that it \
             can be built: cargo build -p mage --profile agent --target {TARGET}",
            here.display()
        );
    };
    say("building the agent");
    let args = ["build", "--package", "mage", "--profile", "agent", "--target", TARGET, "--quiet"];
    // musl-gcc compiles the parts that are written in C.
    let mut cargo = std::process::Command::new("cargo");
    cargo.args(args).current_dir(&workspace).env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    let status = cargo.status().context("cargo is missing: install Rust, or give a built agent with --mage PATH")?;
    if !status.success() {
        bail!(
            "the agent could not be built ({status}); it needs `rustup target add {TARGET}` and `apt-get install musl-tools`"
        );
    }
    let metadata = run("cargo", &["metadata", "--no-deps", "--format-version", "1"], Some(&workspace), "cargo")?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let built = Path::new(target).join(TARGET).join("agent/mage");
    check(&built)?;
    Ok(built)
}

/// The workspace that this program was built in, or the one it is run from.
fn workspace(here: &Path) -> Option<PathBuf> {
    let cwd = std::env::current_dir().unwrap_or_default();
    here.ancestors().chain(cwd.ancestors()).find(|dir| dir.join("agent/Cargo.toml").is_file()).map(Path::to_owned)
}

/// The RAM disk has no loader for a program that wants shared libraries before it is up.
fn check(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the agent {}", path.display()))?;
    match wants_interpreter(&bytes) {
        None => bail!("{} is not a 64-bit x86 program", path.display()),
        Some(true) => bail!("{} is not static; build it with --target {TARGET}", path.display()),
        Some(false) => Ok(()),
    }
}

/// Whether an ELF file asks for a dynamic loader (a program header of type PT_INTERP); `None` when
/// it is not an x86-64 ELF file.
fn wants_interpreter(bytes: &[u8]) -> Option<bool> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if bytes.get(..6)? != b"\x7fELF\x02\x01" || u16_at(18)? != 62 {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for n in 0..count {
        let at = table.checked_add(n * size)?;
        if u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) == 3 {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_static_from_dynamic() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(wants_interpreter(&this), Some(true));
        assert_eq!(wants_interpreter(&std::fs::read("/bin/busybox").unwrap()), Some(false));
        assert_eq!(wants_interpreter(b"#!/bin/sh"), None);
        for cut in 0..200 {
            let _ = wants_interpreter(&this[..cut]);
        }
    }
}
