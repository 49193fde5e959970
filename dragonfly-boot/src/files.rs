//! The boot files: iPXE's binaries, the agent's kernel and RAM disk, the unified kernel image.
//!
//! They lie in one directory, and iPXE's also where the distribution's package put them. A name never
//! leads out of its directory, neither by `..` nor by a symbolic link.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

/// iPXE for BIOS: the one that keeps the card's own driver.
pub const BIOS_LOADER: &str = "undionly.kpxe";
/// iPXE for UEFI on x86-64 that uses the firmware's driver, and its bigger sister with its own drivers.
pub const UEFI_LOADERS: [&str; 2] = ["snponly.efi", "ipxe.efi"];
/// iPXE for UEFI on arm64.
pub const ARM64_LOADER: &str = "ipxe-arm64.efi";
/// Boots the machine's own disk on UEFI: a GRUB image that chains the disk's loader.
pub const LOCAL_LOADER: &str = "local.efi";
/// The agent's kernel, RAM disk and command line in one UEFI program.
pub const UNIFIED_KERNEL: &str = "mage.efi";
/// The directory with firmware of network cards, each archive named by a card's bus ID.
pub const FIRMWARE: &str = "firmware";
/// Says where in [`UNIFIED_KERNEL`] an identity fits.
pub const MANIFEST: &str = "manifest.json";

/// Where Debian's `ipxe` package puts its files.
const IPXE_PACKAGE: [&str; 2] = ["/usr/lib/ipxe", "/boot"];
const IPXE_NAMES: [&str; 4] = [BIOS_LOADER, UEFI_LOADERS[0], UEFI_LOADERS[1], ARM64_LOADER];

/// The longest name that is looked at.
const MAX_NAME: usize = 255;

/// Directories in which boot files lie; the first that has a name wins.
#[derive(Debug, Clone)]
pub struct BootFiles {
    roots: Vec<Root>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
struct Root {
    dir: PathBuf,
    only: &'static [&'static str],
}

/// A file that was found, open.
#[derive(Debug)]
pub struct Found {
    /// It, open for reading.
    pub file: File,
    /// Its size in bytes.
    pub length: u64,
    /// When it was changed last, if the file system says.
    pub modified: Option<SystemTime>,
    /// Which file it is: device and inode.
    pub id: (u64, u64),
    pub(crate) place: Place,
}

/// One of the files that are open at one time. Counted, because each costs memory while it is sent.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<AtomicUsize>,
    others: usize,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        let others = open.fetch_add(1, Ordering::Relaxed);
        Self { open: Arc::clone(open), others }
    }

    /// How many others were open when this one was opened.
    pub(crate) fn others(&self) -> usize {
        self.others
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The name is none: it is empty, too long, hidden, or leads out of the directory.
    #[error("`{name}` is not the name of a boot file")]
    BadName {
        /// What was asked, cut to 80 characters.
        name: String,
    },
    /// There is no such file.
    #[error("there is no boot file `{name}`")]
    NotFound {
        /// What was asked.
        name: String,
    },
    /// It is there and cannot be read.
    #[error("boot file `{name}` cannot be read")]
    Io {
        /// What was asked.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl BootFiles {
    /// One directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { roots: vec![Root { dir: dir.into(), only: &[] }], open: Arc::default() }
    }

    /// And iPXE's binaries, and nothing else, from where the distribution's package puts them.
    #[must_use]
    pub fn with_ipxe_package(mut self) -> Self {
        self.roots.extend(IPXE_PACKAGE.map(|dir| Root { dir: dir.into(), only: &IPXE_NAMES }));
        self
    }

    /// And another directory of iPXE binaries; nothing else is taken from it.
    #[must_use]
    pub fn with_ipxe_from(mut self, dir: impl Into<PathBuf>) -> Self {
        self.roots.push(Root { dir: dir.into(), only: &IPXE_NAMES });
        self
    }

    /// Opens a file by its name, as `arm64/vmlinuz`. Blocks.
    pub fn open(&self, name: &str) -> Result<Found, FileError> {
        let relative = safe(name).ok_or_else(|| FileError::BadName { name: name.chars().take(80).collect() })?;
        for root in &self.roots {
            if root.only.is_empty() || root.only.contains(&name) {
                match open_beneath(&root.dir, relative, &self.open) {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => {}
                    Err(source) => return Err(FileError::Io { name: name.to_owned(), source }),
                }
            }
        }
        Err(FileError::NotFound { name: name.to_owned() })
    }

    /// Whether there is firmware of network cards. Blocks.
    pub fn has_firmware(&self) -> bool {
        self.roots.first().is_some_and(|root| root.dir.join(FIRMWARE).is_dir())
    }

    /// What of it there is. Blocks; cheap enough for every few seconds, not for every packet.
    pub fn loaders(&self) -> Loaders {
        let has = |name: &str| self.open(name).is_ok();
        let uefi = UEFI_LOADERS.into_iter().find(|name| has(name)).unwrap_or(UEFI_LOADERS[0]);
        let uefi_http = UEFI_LOADERS.into_iter().rev().find(|name| has(name)).unwrap_or(UEFI_LOADERS[1]);
        let unified_kernel = has(UNIFIED_KERNEL) && self.manifest().is_ok_and(|m| m.uki_identity.is_some());
        Loaders { bios: BIOS_LOADER, uefi, uefi_http, arm64: ARM64_LOADER, unified_kernel, local: has(LOCAL_LOADER) }
    }

    /// What the build of the agent's boot files says about them. Blocks.
    pub fn manifest(&self) -> Result<Manifest, FileError> {
        let found = self.open(MANIFEST)?;
        let mut text = String::new();
        let broken = |source| FileError::Io { name: MANIFEST.to_owned(), source };
        io::Read::read_to_string(&mut io::Read::take(found.file, 1 << 20), &mut text).map_err(broken)?;
        serde_json::from_str(&text).map_err(|e| broken(e.into()))
    }
}

/// What `manifest.json` says; written by the agent's build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Where the unified kernel image keeps room for an identity.
    #[serde(default)]
    pub uki_identity: Option<Area>,
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Area {
    /// Its first byte.
    pub offset: u64,
    /// Its size in bytes.
    pub length: u64,
}

/// Which boot loader each firmware is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaders {
    /// BIOS.
    pub bios: &'static str,
    /// UEFI on x86-64.
    pub uefi: &'static str,
    /// UEFI on x86-64 that boots by HTTP.
    pub uefi_http: &'static str,
    /// UEFI on arm64.
    pub arm64: &'static str,
    /// Whether there is a unified kernel image with room for an identity.
    pub unified_kernel: bool,
    /// Whether there is a loader that boots a disk on UEFI.
    pub local: bool,
}

impl Default for Loaders {
    fn default() -> Self {
        Self {
            bios: BIOS_LOADER,
            uefi: UEFI_LOADERS[0],
            uefi_http: UEFI_LOADERS[1],
            arm64: ARM64_LOADER,
            unified_kernel: false,
            local: false,
        }
    }
}

/// [`Loaders`], looked up again when they are older than a few seconds: files come and go while we run.
#[derive(Debug)]
pub(crate) struct LoaderCache {
    files: Arc<BootFiles>,
    last: tokio::sync::Mutex<Option<(Instant, Loaders)>>,
}

impl LoaderCache {
    const FRESH: Duration = Duration::from_secs(5);

    pub(crate) fn new(files: Arc<BootFiles>) -> Self {
        Self { files, last: tokio::sync::Mutex::new(None) }
    }

    pub(crate) async fn loaders(&self) -> Loaders {
        let mut last = self.last.lock().await;
        if let Some((at, loaders)) = *last
            && at.elapsed() < Self::FRESH
        {
            return loaders;
        }
        let files = self.files.clone();
        let loaders = tokio::task::spawn_blocking(move || files.loaders()).await.unwrap_or_default();
        *last = Some((Instant::now(), loaders));
        loaders
    }
}

/// The name as a path below a root, when it is nothing but plain, visible components.
fn safe(name: &str) -> Option<&Path> {
    if name.is_empty() || name.len() > MAX_NAME || name.bytes().any(|b| b < 0x20 || b == 0x7f || b == b'\\') {
        return None;
    }
    let path = Path::new(name);
    let plain = |part: Component<'_>| match part {
        Component::Normal(part) => !part.as_encoded_bytes().starts_with(b"."),
        _ => false,
    };
    path.components().all(plain).then_some(path)
}

/// Opens a regular file whose real path lies below `dir`.
fn open_beneath(dir: &Path, relative: &Path, open: &Arc<AtomicUsize>) -> io::Result<Option<Found>> {
    use std::os::unix::fs::MetadataExt as _;
    let absent = |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let real = match (fs::canonicalize(dir), fs::canonicalize(dir.join(relative))) {
        (Ok(dir), Ok(file)) if file.starts_with(&dir) => file,
        (Err(e), _) | (_, Err(e)) if !absent(&e) => return Err(e),
        _ => return Ok(None),
    };
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(&real)?.is_file() {
        return Ok(None);
    }
    let file = match File::open(real) {
        Ok(file) => file,
        Err(e) if absent(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta = file.metadata()?;
    let id = (meta.dev(), meta.ino());
    Ok(Some(Found { length: meta.len(), modified: meta.modified().ok(), id, file, place: Place::take(open) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("arm64")).unwrap();
        for name in ["vmlinuz", "arm64/vmlinuz", ".hidden"] {
            fs::write(dir.path().join(name), "kernel").unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("vmlinuz", dir.path().join("inside")).unwrap();
        let files = BootFiles::new(dir.path());
        for good in ["vmlinuz", "arm64/vmlinuz", "inside"] {
            assert_eq!(files.open(good).unwrap().length, 6, "{good}");
        }
        let long = "a/".repeat(200);
        let bad = ["", ".", "..", "../x", "/etc/passwd", "arm64/../vmlinuz", ".hidden", "a\0b", "a\\b", &long];
        for name in bad {
            assert!(matches!(files.open(name), Err(FileError::BadName { .. })), "{name:?}");
        }
        for name in ["link", "out/secret", "arm64", "none", "vmlinuz/x"] {
            assert!(matches!(files.open(name), Err(FileError::NotFound { .. })), "{name:?}");
        }
    }

    #[test]
    fn files_that_are_open_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let files = BootFiles::new(dir.path());
        let (first, second) = (files.open("f").unwrap(), files.open("f").unwrap());
        assert_eq!((first.place.others(), second.place.others()), (0, 1));
        drop(first);
        assert_eq!(files.clone().open("f").unwrap().place.others(), 1);
        drop(second);
        assert_eq!(files.open("f").unwrap().place.others(), 0);
    }

    #[test]
    fn firmware_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let files = BootFiles::new(dir.path());
        assert!(!files.has_firmware());
        fs::write(dir.path().join(FIRMWARE), "x").unwrap();
        assert!(!files.has_firmware());
        fs::remove_file(dir.path().join(FIRMWARE)).unwrap();
        fs::create_dir(dir.path().join(FIRMWARE)).unwrap();
        assert!(files.has_firmware());
    }

    #[test]
    fn from_the_package_only_loaders_are_taken() {
        let (own, package) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["ipxe.efi", "initrd.img"] {
            fs::write(package.path().join(name), "x").unwrap();
        }
        let files = BootFiles::new(own.path()).with_ipxe_from(package.path());
        assert!(files.open("ipxe.efi").is_ok());
        assert!(files.open("initrd.img").is_err());
        assert_eq!(files.loaders().uefi, "ipxe.efi");
    }

    #[test]
    fn a_unified_kernel_counts_only_with_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let files = BootFiles::new(dir.path());
        fs::write(dir.path().join(UNIFIED_KERNEL), "x").unwrap();
        assert!(!files.loaders().unified_kernel);
        fs::write(dir.path().join(MANIFEST), r#"{"ukiIdentity":{"offset":1,"length":2},"kernel":"6.1"}"#).unwrap();
        assert!(files.loaders().unified_kernel);
        fs::write(dir.path().join(MANIFEST), "{").unwrap();
        assert!(!files.loaders().unified_kernel);
    }
}
