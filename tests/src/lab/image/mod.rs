//! Operating system images, made with Debian's own tools and kept until their recipe changes.

mod assemble;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::args::{self, ImageChoice, TemplateChoice};
use super::artifacts::cache;
use super::console::say;
use super::interrupt::Interrupt;
use super::process::logged;

const SUITE: &str = "bookworm";
const BUILD: &str = include_str!("build.sh");
/// What `build.sh` puts into the system.
const FILES: [(&str, &str); 6] = [
    ("init", include_str!("init")),
    ("udhcpc", include_str!("udhcpc")),
    ("echo", include_str!("echo")),
    ("echo.service", include_str!("echo.service")),
    ("grub.cfg", include_str!("grub.cfg")),
    ("default-grub", include_str!("default-grub")),
];
/// This code is part of the recipe.
const ASSEMBLE: &str = include_str!("assemble.rs");

/// An image that a template can name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OsImage {
    /// Its file, compressed with zstd.
    pub(crate) file: PathBuf,
    /// SHA-256 of that file, in hexadecimal.
    pub(crate) sha256: String,
    /// Size of the file, in bytes.
    pub(crate) bytes: u64,
    /// Size when unpacked, in bytes.
    pub(crate) raw_bytes: u64,
    /// The image unpacked, sparse.
    pub(crate) raw: PathBuf,
}

impl OsImage {
    pub(crate) fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// `cargo lab image`.
pub(crate) fn make(args: &args::Image, interrupt: &Interrupt) -> Result<()> {
    super::host::prepare(false)?;
    let image = find_or_build(args.image, args.template, interrupt)?;
    say(format_args!(
        "{}\n  sha256:{}\n  {} bytes, {} unpacked",
        image.file.display(),
        image.sha256,
        image.bytes,
        image.raw_bytes
    ));
    Ok(())
}

/// The image from the cache, or a new one.
pub(crate) fn find_or_build(image: ImageChoice, template: TemplateChoice, interrupt: &Interrupt) -> Result<OsImage> {
    let variant = match (image, template) {
        (ImageChoice::Small, TemplateChoice::Disk) => "small",
        (ImageChoice::Small, TemplateChoice::Partitions) => "small-grub",
        (ImageChoice::Full, _) => "full",
    };
    let shape = match template {
        TemplateChoice::Disk => "disk",
        TemplateChoice::Partitions => "root",
    };
    let directory = cache()?.join(format!("image-{variant}-{}", &recipe(variant)[..16]));
    std::fs::create_dir_all(&directory)?;
    // Two labs at once build it once. Closing the file unlocks it.
    let lock = std::fs::File::create(directory.join("lock"))?;
    lock.lock()?;
    let note = directory.join(format!("{shape}.json"));
    if let Ok(text) = std::fs::read_to_string(&note)
        && let Ok(found) = serde_json::from_str::<OsImage>(&text)
        && found.file.exists()
        && found.raw.exists()
    {
        return Ok(found);
    }
    interrupt.check()?;
    let parts = directory.join("parts");
    if !parts.join("done").exists() {
        say(format_args!(
            "building Debian {SUITE} ({variant}): a minute or two, {} has the details",
            directory.join("log").display()
        ));
        build(variant, &parts, &directory.join("log"))?;
    }
    let raw = directory.join(format!("{variant}-{shape}.raw"));
    match template {
        TemplateChoice::Disk => assemble::disk(&parts, &raw)?,
        TemplateChoice::Partitions => assemble::root(&parts, &raw)?,
    }
    let file = directory.join(format!("{variant}-{shape}.raw.zst"));
    super::process::output(Command::new("zstd").args(["-q", "-f", "-3", "-T0"]).arg(&raw).arg("-o").arg(&file))?;
    let packed = std::fs::read(&file)?;
    let image = OsImage {
        sha256: hex::encode(Sha256::digest(&packed)),
        bytes: packed.len() as u64,
        raw_bytes: std::fs::metadata(&raw)?.len(),
        file,
        raw,
    };
    std::fs::write(&note, serde_json::to_vec_pretty(&image)?)?;
    Ok(image)
}

fn recipe(variant: &str) -> String {
    let mut digest = Sha256::new();
    for part in [variant, SUITE, BUILD, ASSEMBLE].into_iter().chain(FILES.iter().map(|(_, text)| *text)) {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

fn build(variant: &str, parts: &Path, log: &Path) -> Result<()> {
    if parts.exists() {
        std::fs::remove_dir_all(parts)?;
    }
    let files = parts.join("files");
    std::fs::create_dir_all(&files)?;
    for (name, text) in FILES {
        std::fs::write(files.join(name), text)?;
    }
    let script = files.join("build.sh");
    std::fs::write(&script, BUILD)?;
    logged(
        Command::new("bash").arg(&script).args([variant.as_ref(), parts.as_os_str(), files.as_os_str()]).arg(SUITE),
        log,
    )
    .context("the Debian image cannot be built")?;
    // As root, so that owners and device nodes come out as they went in.
    std::fs::create_dir(parts.join("root"))?;
    logged(Command::new("tar").arg("-C").arg(parts.join("root")).arg("-xpf").arg(parts.join("root.tar")), log)?;
    std::fs::remove_file(parts.join("root.tar"))?;
    std::fs::write(parts.join("done"), "")?;
    Ok(())
}
