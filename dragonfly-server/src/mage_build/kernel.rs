//! A kernel and its modules, from a Debian package or an Alpine netboot directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::run;

/// A kernel on disk.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// As `uname -r` will say.
    pub(super) release: String,
    /// The bootable image.
    pub(super) image: PathBuf,
    /// The directory with `modules.dep` in it.
    pub(super) modules: PathBuf,
}

/// The newest kernel that a Debian package such as `linux-image-amd64` stands for.
pub(super) fn from_package(package: &str, cache: &Path, say: &dyn Fn(&str)) -> Result<Kernel> {
    let real = real_package(package)?;
    let root = cache.join("kernels").join(&real);
    if !root.join("complete").exists() {
        say(&format!("fetching {real}"));
        let work = cache.join("kernels").join(format!("{real}.part"));
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        run("apt-get", &["download", &real], Some(&work), "apt")
            .context("the kernel package cannot be fetched; is the package list there? apt-get update")?;
        let deb = find(&work, |name| name.ends_with(".deb")).context("apt-get download left no package")?;
        run("dpkg", &["-x".as_ref(), deb.as_os_str(), work.as_os_str()], None, "dpkg")?;
        std::fs::remove_file(&deb)?;
        let release = one_entry(&work.join("lib/modules")).or_else(|_| one_entry(&work.join("usr/lib/modules")))?;
        let base = if work.join("lib/modules").exists() { work.clone() } else { work.join("usr") };
        run("depmod", &["-b".as_ref(), base.as_os_str(), release.as_ref()], None, "kmod")?;
        std::fs::write(work.join("complete"), &release)?;
        let _ = std::fs::remove_dir_all(&root);
        std::fs::rename(&work, &root).with_context(|| format!("cannot make {}", root.display()))?;
    }
    let release = std::fs::read_to_string(root.join("complete"))?;
    let modules = [root.join("lib/modules"), root.join("usr/lib/modules")].into_iter().find(|d| d.exists());
    let modules = modules.with_context(|| format!("{real} has no modules"))?.join(&release);
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    if !image.exists() {
        bail!("{real} has no kernel at boot/vmlinuz-{release}");
    }
    Ok(Kernel { release, image, modules })
}

/// What a package that only depends on the newest kernel depends on; itself if it is a kernel.
fn real_package(package: &str) -> Result<String> {
    if !package.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        || !package.starts_with("linux-image-")
    {
        bail!("`{package}` is not a Debian kernel package; try linux-image-amd64 or linux-image-cloud-amd64");
    }
    let text = run("apt-cache", &["depends", package], None, "apt")
        .with_context(|| format!("this host knows no package {package}; apt-get update"))?;
    Ok(first_kernel(&String::from_utf8_lossy(&text)).unwrap_or_else(|| package.to_owned()))
}

fn first_kernel(depends: &str) -> Option<String> {
    depends.lines().find_map(|line| {
        let name = line.trim().strip_prefix("Depends: ")?;
        name.strip_prefix("linux-image-")?.starts_with(|c: char| c.is_ascii_digit()).then(|| name.to_owned())
    })
}

/// `vmlinuz-FLAVOUR` and `modloop-FLAVOUR`, a squashfs with `modules/RELEASE` in it.
pub(super) fn from_netboot(dir: &Path, cache: &Path, say: &dyn Fn(&str)) -> Result<Kernel> {
    let image = find(dir, |n| n.starts_with("vmlinuz"))
        .with_context(|| format!("{} has no vmlinuz-*; it should be laid out as Alpine's netboot", dir.display()))?;
    let modloop = find(dir, |n| n.starts_with("modloop"))
        .with_context(|| format!("{} has no modloop-*; it should be laid out as Alpine's netboot", dir.display()))?;
    // Named by content, so that a newer one of the same name is not mistaken for it.
    let bytes = std::fs::read(&modloop).with_context(|| format!("cannot read {}", modloop.display()))?;
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let root = cache.join("modloops").join(digest.get(..16).unwrap_or(&digest));
    if !root.join("complete").exists() {
        say(&format!("unpacking {}", modloop.display()));
        let work = root.with_extension("part");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let lib = work.join("lib");
        let args =
            ["-no-progress".as_ref(), "-no-xattrs".as_ref(), "-d".as_ref(), lib.as_os_str(), modloop.as_os_str()];
        run("unsquashfs", &args, None, "squashfs-tools")?;
        let release = one_entry(&lib.join("modules"))
            .with_context(|| format!("{} does not hold modules/RELEASE", modloop.display()))?;
        if !lib.join("modules").join(&release).join("modules.dep").exists() {
            run("depmod", &["-b".as_ref(), work.as_os_str(), release.as_ref()], None, "kmod")?;
        }
        std::fs::write(work.join("complete"), &release)?;
        let _ = std::fs::remove_dir_all(&root);
        std::fs::rename(&work, &root)?;
    }
    let release = std::fs::read_to_string(root.join("complete"))?;
    let modules = root.join("lib/modules").join(&release);
    Ok(Kernel { release, image, modules })
}

fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(&wanted))
        .map(|e| e.path())
        .collect();
    found.sort();
    found.into_iter().next()
}

/// The only kernel release below a directory of modules; Alpine keeps `firmware` beside it.
fn one_entry(dir: &Path) -> Result<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    match (names.pop(), names.pop()) {
        (Some(name), None) => Ok(name),
        (None, _) => bail!("{} holds no kernel's modules", dir.display()),
        _ => bail!("{} holds the modules of several kernels", dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_a_package() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(first_kernel(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(first_kernel("linux-image-6.1.0-56-amd64\n  Depends: kmod\n"), None);
    }

    #[test]
    fn only_kernel_packages() {
        for name in ["bash", "linux-image-amd64; reboot", "-o"] {
            assert!(real_package(name).unwrap_err().to_string().contains("not a Debian kernel package"), "{name}");
        }
    }

    #[test]
    fn a_directory_laid_out_as_alpines_netboot() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree/modules/6.6.7-0-lts/kernel/fs/ext4");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(dir.path().join("tree/modules/firmware")).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, b"a module").unwrap();
        std::fs::write(tree.join("ext4.ko.gz"), gz.finish().unwrap()).unwrap();
        std::fs::write(dir.path().join("tree/modules/6.6.7-0-lts/modules.dep"), "kernel/fs/ext4/ext4.ko.gz:\n")
            .unwrap();
        let netboot = dir.path().join("netboot");
        std::fs::create_dir(&netboot).unwrap();
        let error = from_netboot(&netboot, dir.path(), &|_| {}).unwrap_err().to_string();
        assert!(error.contains("vmlinuz-*"), "{error}");
        std::fs::write(netboot.join("vmlinuz-lts"), b"kernel").unwrap();
        let (source, modloop) = (dir.path().join("tree"), netboot.join("modloop-lts"));
        let args = [source.as_os_str(), modloop.as_os_str(), "-quiet".as_ref(), "-no-progress".as_ref()];
        run("mksquashfs", &args, None, "squashfs-tools").unwrap();
        // The second time it comes from the cache.
        for _ in 0..2 {
            let kernel = from_netboot(&netboot, dir.path(), &|_| {}).unwrap();
            assert_eq!(kernel.release, "6.6.7-0-lts");
            assert_eq!(kernel.image, netboot.join("vmlinuz-lts"));
            let tree = super::super::modules::Tree::open(&kernel.modules, &kernel.release).unwrap();
            let selection = tree.select(["ext4"].into_iter());
            let contents = tree.contents(&selection).unwrap();
            assert_eq!(contents, [("kernel/fs/ext4/ext4.ko".to_owned(), b"a module".to_vec())]);
        }
    }
}
