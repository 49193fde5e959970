//! What the lab builds from this workspace: the server, the agent, the boot files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::args::{self, Bmc, Store};
use super::console::say;
use super::host::MUSL;
use super::process::logged;

/// Programs and files of this workspace, as built now.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    /// The server.
    pub(crate) dragonfly: PathBuf,
    /// Kernel, initramfs, unified kernel image, iPXE.
    pub(crate) boot_files: PathBuf,
}

fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests are not in a workspace")
}

pub(crate) fn target_directory() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => Ok(directory.into()),
        None => Ok(workspace()?.join("target")),
    }
}

/// Where images are kept between runs.
pub(crate) fn cache() -> Result<PathBuf> {
    let directory = match std::env::var_os("DRAGONFLY_LAB_CACHE") {
        Some(directory) => directory.into(),
        None => target_directory()?.join("lab").join("cache"),
    };
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory.canonicalize()?)
}

/// Which program is the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `dragonfly`.
    Plain,
    /// With the power driver of examples/power_driver.
    Driver,
    /// With the store of examples/store, and on it.
    Store,
}

impl Program {
    /// The one that these words ask for.
    pub(crate) fn of(args: &args::Run) -> Result<Self> {
        match (args.bmc, args.store) {
            (Bmc::Qmp, Store::Sqlite) => {
                bail!("--bmc qmp and --store sqlite are two programs: each of the examples adds one thing")
            }
            (Bmc::Qmp, Store::Redb | Store::Kubernetes) => Ok(Self::Driver),
            (_, Store::Sqlite) => Ok(Self::Store),
            (_, Store::Redb | Store::Kubernetes) => Ok(Self::Plain),
        }
    }

    /// What it is told beyond what every server is.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Driver => &[],
            Self::Store => &["--backend", "sqlite"],
        }
    }

    /// Its package, and its file's name.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain => ("dragonfly-server", "dragonfly"),
            Self::Driver => ("power_driver", "dragonfly-qmp"),
            Self::Store => ("sqlite_store", "dragonfly-sqlite"),
        }
    }
}

/// Builds what has changed. `kernel` is the Debian package that the machines boot, `program` the server.
pub(crate) fn build(kernel: &str, program: Program) -> Result<Artifacts> {
    let (dragonfly, mage) = programs(program)?;
    let mut digest = Sha256::new();
    digest.update(kernel);
    digest.update(std::fs::read(&mage).with_context(|| mage.display().to_string())?);
    digest_tree(&workspace()?.join("dragonfly-server/src/mage_build"), &mut digest)?;
    let boot_files = cache()?.join(format!("boot-{}", &hex::encode(digest.finalize())[..16]));
    // Two labs at once build them once. Closing the file unlocks it.
    let lock = std::fs::File::create(cache()?.join("boot.lock"))?;
    lock.lock()?;
    if !boot_files.join("manifest.json").exists() {
        let half = boot_files.with_extension("half");
        if half.exists() {
            std::fs::remove_dir_all(&half)?;
        }
        say(format_args!("building the boot files from {kernel}"));
        logged(
            Command::new(&dragonfly)
                .args(["mage", "build", "--out"])
                .arg(&half)
                .arg("--mage")
                .arg(&mage)
                .args(["--kernel-package", kernel]),
            &cache()?.join("mage-build.log"),
        )?;
        ensure!(half.join("manifest.json").exists(), "`dragonfly mage build` left no manifest.json");
        std::fs::rename(&half, &boot_files)?;
    }
    Ok(Artifacts { dragonfly, boot_files })
}

/// The server and the agent, built now; or those in the directory that DRAGONFLY_LAB_BIN names.
fn programs(program: Program) -> Result<(PathBuf, PathBuf)> {
    let (package, server) = program.place();
    if let Some(directory) = std::env::var_os("DRAGONFLY_LAB_BIN") {
        let directory = PathBuf::from(directory);
        say(format_args!("taking {server} and mage from {}", directory.display()));
        return Ok((directory.join(server), directory.join("mage")));
    }
    let target = target_directory()?;
    say("building the server and the agent: some 300 packages the first time, which takes two cores about six minutes");
    let mut build = vec!["build", "--locked", "-p", package, "--bin", server];
    if program != Program::Plain {
        build.extend(["--features", "server"]);
    }
    cargo(&build)?;
    cargo(&["build", "--locked", "-p", "mage", "--profile", "agent", "--target", MUSL])?;
    Ok((target.join("debug").join(server), target.join(MUSL).join("agent/mage")))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace()?).env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    // Its progress is for whoever waits.
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "`cargo {}`: {status}; what it said stands above", arguments.join(" "));
    Ok(())
}

fn digest_tree(directory: &Path, digest: &mut Sha256) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .with_context(|| directory.display().to_string())?
        .collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            digest_tree(&entry.path(), digest)?;
        } else {
            digest.update(std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
