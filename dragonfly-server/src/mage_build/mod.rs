//! `dragonfly mage build`: a kernel, the agent's RAM disk, and what firmware needs to load them.
//!
//! The kernel and its modules come from a Debian package, fetched into a cache and unpacked there, or
//! from a directory laid out as Alpine's netboot. Nothing is installed on the build host.

mod agent_binary;
mod command;
mod cpio;
mod drivers;
mod firmware;
mod kernel;
mod loaders;
mod modules;
mod pe;
mod ramdisk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use drivers::RACK_DRIVERS;

/// Room for the identity at the end of the unified kernel image, in bytes.
pub const IDENTITY_ROOM: usize = 8192;
/// Where distributions install firmware.
const FIRMWARE: &str = "/lib/firmware";
/// What the unified kernel image gives its kernel. Boot scripts give their own.
const CMDLINE: &str = "console=tty0 console=ttyS0,115200 quiet";

/// What to build, and from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Where the files go; made if absent.
    pub out: PathBuf,
    /// The agent's static binary; found or built if absent.
    pub mage: Option<PathBuf>,
    /// A directory laid out as Alpine's netboot: `vmlinuz-*` and `modloop-*`.
    pub modules_from: Option<PathBuf>,
    /// The Debian package to take the kernel from: `linux-image-amd64` has the drivers of racks,
    /// `linux-image-cloud-amd64` those of virtual machines and starts sooner.
    pub kernel_package: String,
    /// Where packages are kept; the user's cache directory if absent.
    pub cache: Option<PathBuf>,
    /// A directory laid out as `/lib/firmware`; this host's own if absent.
    pub firmware: Option<PathBuf>,
}

impl BuildOptions {
    /// The generic Debian kernel into a directory.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            mage: None,
            modules_from: None,
            kernel_package: "linux-image-amd64".to_owned(),
            cache: None,
            firmware: None,
        }
    }
}

/// What was built; also `manifest.json` in the output directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Version of Dragonfly that built it.
    pub version: String,
    /// `x86-64`.
    pub arch: String,
    /// As `uname -r` will say.
    pub kernel: String,
    /// Every file by name.
    pub files: BTreeMap<String, BuiltFile>,
    /// Where the unified kernel image takes an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uki_identity: Option<Room>,
    /// The drivers in it, as modules or as part of the kernel.
    pub drivers: Vec<String>,
    /// Drivers that racks have and this kernel does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_drivers: Vec<String>,
    /// Firmware of network cards that machines fetch besides, by the name that drivers call it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub firmware: BTreeSet<String>,
}

/// One file that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltFile {
    /// In bytes.
    pub size: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Room {
    /// From the file's beginning, in bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
}

/// Builds everything. `progress` hears a line for each part.
///
/// # Errors
/// What is missing on this host and how to get it; a file that cannot be read or written.
pub async fn build(options: BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    let (lines, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let work = tokio::task::spawn_blocking(move || {
        build_blocking(&options, &|line: &str| {
            let _ = lines.send(line.to_owned());
        })
    });
    while let Some(line) = said.recv().await {
        progress(&line);
    }
    work.await.context("the build was interrupted")?
}

fn build_blocking(options: &BuildOptions, say: &dyn Fn(&str)) -> Result<Built> {
    let out = &options.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let cache = match &options.cache {
        Some(cache) => cache.clone(),
        None => default_cache()?,
    };
    let mage = agent_binary::find(options.mage.as_deref(), say)?;
    say(&format!("agent: {}", mage.display()));
    let kernel = match &options.modules_from {
        Some(dir) => kernel::from_netboot(dir, &cache, say)?,
        None => kernel::from_package(&options.kernel_package, &cache, say)?,
    };
    say(&format!("kernel: {}", kernel.release));
    let tree = modules::Tree::open(&kernel.modules, &kernel.release)?;
    let selected = tree.select(drivers::all());
    say(&format!("modules: {} of {}", selected.files.len(), tree.len()));
    let archive = ramdisk::archive(&mage, &kernel, &tree, &selected)?;
    let unpacked = archive.len();
    let initramfs = ramdisk::compress(&archive)?;
    say(&format!("initramfs: {} KiB ({} KiB unpacked)", initramfs.len() / 1024, unpacked / 1024));

    let mut files = Writer { out, files: BTreeMap::new() };
    let vmlinuz = std::fs::read(&kernel.image).with_context(|| format!("cannot read {}", kernel.image.display()))?;
    files.write("vmlinuz", &vmlinuz)?;
    files.write("initramfs", &initramfs)?;
    let (uki, room) = loaders::unified_image(&vmlinuz, &initramfs, CMDLINE, &kernel.release)?;
    files.write("mage.efi", &uki)?;
    say("mage.efi: kernel and RAM disk in one, for UEFI");
    files.write("local.efi", &loaders::local_loader()?)?;
    say("local.efi: starts what is on the disk, for UEFI");
    for (name, bytes) in loaders::ipxe()? {
        files.write(name, &bytes)?;
    }
    let wanted = firmware::wanted(&tree, &selected)?;
    let firmware = firmware::find(&wanted, options.firmware.as_deref().unwrap_or(Path::new(FIRMWARE)))?;
    write_firmware(out, &firmware.archives)?;
    for (driver, names) in &wanted.drivers {
        if RACK_DRIVERS.contains(&driver.as_str()) && names.is_disjoint(&firmware.files) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            say(&format!("no firmware for {driver} ({}): --firmware DIR says where it is", names.join(", ")));
        }
    }
    let built = Built {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        arch: "x86-64".to_owned(),
        kernel: kernel.release.clone(),
        files: files.files,
        uki_identity: Some(room),
        drivers: selected.drivers,
        missing_drivers: RACK_DRIVERS
            .iter()
            .filter(|d| selected.missing.contains(**d))
            .map(|d| (*d).to_owned())
            .collect(),
        firmware: firmware.files,
    };
    if !built.missing_drivers.is_empty() {
        say(&format!("this kernel has no driver {}", built.missing_drivers.join(", ")));
    }
    let mut text = serde_json::to_vec_pretty(&built)?;
    text.push(b'\n');
    replace(&out.join("manifest.json"), &text)?;
    Ok(built)
}

struct Writer<'a> {
    out: &'a Path,
    files: BTreeMap<String, BuiltFile>,
}

impl Writer<'_> {
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        replace(&self.out.join(name), bytes)?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        self.files.insert(name.to_owned(), BuiltFile { size: bytes.len() as u64, sha256 });
        Ok(())
    }
}

/// Writes a file whole or not at all: a server may be serving the one before.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts the archives of firmware into a directory of their own, in the place of the one before.
fn write_firmware(out: &Path, archives: &[(String, Vec<u8>, Vec<String>)]) -> Result<()> {
    let (dir, new) = (out.join(firmware::DIRECTORY), out.join(format!("{}.new", firmware::DIRECTORY)));
    let absent_is_fine = |done: std::io::Result<()>| match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let write = || {
        absent_is_fine(std::fs::remove_dir_all(&new))?;
        if !archives.is_empty() {
            std::fs::create_dir(&new)?;
        }
        for (name, bytes, others) in archives {
            std::fs::write(new.join(name), bytes)?;
            for other in others {
                std::os::unix::fs::symlink(name, new.join(other))?;
            }
        }
        absent_is_fine(std::fs::remove_dir_all(&dir))?;
        if archives.is_empty() { Ok(()) } else { std::fs::rename(&new, &dir) }
    };
    write().with_context(|| format!("cannot write {}", dir.display()))
}

fn default_cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .map(|dir| dir.join("dragonfly"))
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no place for packages; set one")
}
