//! The RAM disk: the agent, a rescue shell, file system tools, modules.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::run;
use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules::{Selection, Tree};

/// Programs that actions call, the packages they come from, and their other names.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("mke2fs", "e2fsprogs", &["mkfs.ext4", "mkfs.ext3", "mkfs.ext2"]),
    ("e2fsck", "e2fsprogs", &["fsck.ext4"]),
    ("resize2fs", "e2fsprogs", &[]),
    ("tune2fs", "e2fsprogs", &[]),
    ("mkfs.fat", "dosfstools", &["mkfs.vfat"]),
    ("mkswap", "util-linux", &[]),
];
/// Taken along where the build host has them.
const OPTIONAL_PROGRAMS: &[&str] = &["mkfs.xfs", "xfs_growfs"];

/// The archive, not yet compressed.
pub(super) fn archive(mage: &Path, kernel: &Kernel, tree: &Tree, selection: &Selection) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["proc", "sys", "dev", "run", "tmp", "etc", "bin", "sbin", "lib", "mnt", "root"] {
        archive.dir(dir);
    }
    archive.link("usr/bin", "../bin");
    archive.link("usr/sbin", "../sbin");
    // The kernel gives process 1 this console before anything is mounted.
    archive.device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &read(mage)?);
    archive.link("bin/mage", "../init");
    archive.link("bin/udhcpc-event", "../init");
    archive.link("sbin/modprobe", "../init");
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n");
    busybox(&mut archive)?;
    programs(&mut archive)?;
    let formats = "/etc/mke2fs.conf";
    let bytes = std::fs::read(formats)
        .with_context(|| format!("{formats} is missing on this host: apt-get install e2fsprogs"))?;
    archive.file(formats, 0o644, &bytes);
    // Without it the agent trusts its own server only, and says so.
    if let Ok(bundle) = std::fs::read("/etc/ssl/certs/ca-certificates.crt") {
        archive.file("etc/ssl/certs/ca-certificates.crt", 0o644, &bundle);
    }
    // The action `chain` starts it.
    for (name, bytes) in super::loaders::ipxe()?.into_iter().filter(|(name, _)| *name == "ipxe.lkrn") {
        archive.file(&format!("usr/lib/ipxe/{name}"), 0o644, &bytes);
    }
    let modules = format!("lib/modules/{}", tree.release());
    debug_assert_eq!(tree.release(), kernel.release);
    for (path, bytes) in tree.contents(selection)? {
        archive.file(&format!("{modules}/{path}"), 0o644, &bytes);
    }
    for (name, text) in tree.index(selection) {
        archive.file(&format!("{modules}/{name}"), 0o644, text.as_bytes());
    }
    Ok(archive.finish())
}

/// Compresses as the kernel's decoder reads it.
///
/// zstd: of what Debian's and Alpine's kernels read it is the smallest that still unpacks at the speed
/// of memory; xz would be a tenth smaller and costs seconds on every boot.
pub(super) fn compress(archive: &[u8]) -> Result<Vec<u8>> {
    let mut packed = zstd::bulk::compress(archive, 19).context("the RAM disk cannot be compressed")?;
    // The identity follows it. Linux' EFI stub puts the archives end to end, and the kernel takes an
    // archive that is not compressed only where its place is a multiple of four.
    packed.resize(packed.len().next_multiple_of(512), 0);
    Ok(packed)
}

fn busybox(archive: &mut Archive) -> Result<()> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|p| p.exists());
    let Some(path) = path else { bail!("busybox is missing on this host: apt-get install busybox-static") };
    if !libraries(path)?.is_empty() {
        bail!("{} is not static: apt-get install busybox-static", path.display());
    }
    archive.file("bin/busybox", 0o755, &read(path)?);
    let list = run("/bin/busybox", &["--list"], None, "busybox-static")?;
    for applet in String::from_utf8_lossy(&list).lines().map(str::trim).filter(|a| !a.is_empty()) {
        // The agent is init and loads modules itself.
        if matches!(applet, "busybox" | "init" | "linuxrc" | "modprobe" | "mkswap" | "mkfs.vfat" | "mkdosfs") {
            continue;
        }
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}

fn programs(archive: &mut Archive) -> Result<()> {
    for (name, package, others) in PROGRAMS {
        let path =
            on_host(name).with_context(|| format!("{name} is missing on this host: apt-get install {package}"))?;
        program(archive, name, &path)?;
        for other in *others {
            archive.link(&format!("sbin/{other}"), name);
        }
    }
    for name in OPTIONAL_PROGRAMS {
        if let Some(path) = on_host(name) {
            program(archive, name, &path)?;
        }
    }
    Ok(())
}

fn program(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    archive.file(&format!("sbin/{name}"), 0o755, &read(path)?);
    for library in libraries(path)? {
        let place = library.to_string_lossy().into_owned();
        // Where /lib is a link to /usr/lib, both names mean one file; the RAM disk has /lib.
        let place = place.strip_prefix("/usr").unwrap_or(&place).to_owned();
        if !archive.has(&place) {
            archive.file(&place, 0o755, &read(&library)?);
        }
    }
    Ok(())
}

fn on_host(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists())
}

/// The shared libraries of a program, its loader among them; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // ldd fails on a static program.
    let Ok(text) = run("ldd", &[program], None, "libc-bin") else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&text);
    if let Some(line) = text.lines().find(|l| l.contains("not found")) {
        bail!("{} lacks a library on this host: {}", program.display(), line.trim());
    }
    Ok(library_paths(&text))
}

fn library_paths(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_ascii_whitespace().find(|w| w.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_may_follow_the_packed_one() {
        // A RAM disk of 6670894 bytes once hid the identity behind it from machines with UEFI.
        for length in [0usize, 1, 5, 1000, 70_001] {
            let archive: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
            let packed = compress(&archive).unwrap();
            assert_eq!(packed.len() % 4, 0, "{length}");
            let mut stream = zstd::stream::read::Decoder::new(packed.as_slice()).unwrap().single_frame();
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut unpacked).unwrap();
            assert_eq!(unpacked, archive);
        }
    }

    #[test]
    fn what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        let paths = library_paths(text);
        assert_eq!(paths, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }
}
