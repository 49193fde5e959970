//! What firmware loads: a unified kernel image, a loader for the machine's own disk, iPXE.

use std::path::Path;

use anyhow::{Context, Result};

use super::command::run;
use super::{IDENTITY_ROOM, Room, pe};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Kernel, RAM disk and command line in one UEFI program. The RAM disk is the last section and ends
/// with zeros, which the server replaces by a machine's identity.
pub(super) fn unified_image(kernel: &[u8], initramfs: &[u8], cmdline: &str, release: &str) -> Result<(Vec<u8>, Room)> {
    let stub = std::fs::read(STUB)
        .with_context(|| format!("{STUB} is missing on this host: apt-get install systemd-boot-efi"))?;
    // The kernel reads one archive after another and skips zeros between them; each begins at a
    // multiple of four.
    let mut initrd = initramfs.to_vec();
    initrd.resize(initrd.len().next_multiple_of(512), 0);
    let identity_at = initrd.len();
    initrd.resize(identity_at + IDENTITY_ROOM, 0);
    let os_release =
        format!("ID=mage\nNAME=Mage\nPRETTY_NAME=\"Mage ({release})\"\nVERSION_ID={}\n", env!("CARGO_PKG_VERSION"));
    let cmdline = format!("{cmdline}\0");
    let sections: [(&str, &[u8]); 4] =
        [(".osrel", os_release.as_bytes()), (".cmdline", cmdline.as_bytes()), (".linux", kernel), (".initrd", &initrd)];
    let (image, offsets) =
        pe::add_sections(&stub, &sections).with_context(|| format!("{STUB} cannot be built upon"))?;
    let initrd_at = offsets.last().copied().context("no sections")?;
    Ok((image, Room { offset: initrd_at + identity_at as u64, length: IDENTITY_ROOM as u64 }))
}

/// Boot loaders of installed systems, in the order in which they are tried: what systems install under
/// their own names first, the removable default last. `*` stands for a system's folder.
const DISK_LOADERS: &[&str] = &[
    "/EFI/*/shimx64.efi",
    "/EFI/*/shim.efi",
    "/EFI/*/grubx64.efi",
    "/EFI/systemd/systemd-bootx64.efi",
    "/EFI/Microsoft/Boot/bootmgfw.efi",
    "/EFI/VMware/safeboot64.efi",
    "/EFI/BOOT/BOOTX64.EFI",
    "/efi/boot/bootx64.efi",
];

/// The script of `local.efi`: on the first disk with one of the loaders, start it; else back to
/// whoever started this, with nothing changed.
fn local_script() -> String {
    // Disks only: a loader that comes by the network is how this one got here.
    let places: Vec<String> = DISK_LOADERS.iter().map(|path| format!("(hd*){path}")).collect();
    format!(
        "for file in {}; do\n  if [ -f \"$file\" ]; then\n    echo \"Starting $file\"\n    \
         regexp --set=1:root --set=2:path '^.([^)]*).(.*)$' \"$file\"\n    chainloader \"$path\"\n    boot\n  \
         fi\ndone\necho \"No boot loader was found on the disks of this machine:\"\nls\nsleep 5\nexit\n",
        places.join(" ")
    )
}

/// A UEFI program that starts what is installed on the machine's disk.
pub(super) fn local_loader() -> Result<Vec<u8>> {
    let work = tempfile::tempdir().context("no temporary directory")?;
    let memory = work.path().join("memory.tar");
    let out = work.path().join("local.efi");
    // The script needs `if`, which GRUB has only once its normal mode reads a file: so the script is
    // a file, in an archive inside the image.
    std::fs::write(&memory, tar_of_one("boot/grub.cfg", local_script().as_bytes()))?;
    if !Path::new("/usr/lib/grub/x86_64-efi").exists() {
        anyhow::bail!("/usr/lib/grub/x86_64-efi is missing on this host: apt-get install grub-efi-amd64-bin");
    }
    let mut args: Vec<std::ffi::OsString> = ["-O", "x86_64-efi", "-m"].map(Into::into).into();
    args.push(memory.into());
    // Behind `-m`, which sets a place of its own.
    args.extend(["-p", "(memdisk)/boot", "-o"].map(Into::into));
    args.push(out.clone().into());
    let modules = [
        "part_gpt",
        "part_msdos",
        "fat",
        "chain",
        "regexp",
        "ls",
        "test",
        "echo",
        "sleep",
        "normal",
        "memdisk",
        "tar",
        "configfile",
        "boot",
        "disk",
        "minicmd",
    ];
    args.extend(modules.map(Into::into));
    run("grub-mkimage", &args, None, "grub-common")?;
    std::fs::read(&out).context("grub-mkimage left no image")
}

/// A ustar archive (POSIX 1003.1) with one file.
fn tar_of_one(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| {
        for (to, from) in header.iter_mut().skip(at).zip(text.bytes()) {
            *to = from;
        }
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", data.len()));
    put(136, "00000000000\0");
    // The sum is taken with eight spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    let mut tar = header.to_vec();
    tar.extend_from_slice(data);
    // Two empty blocks end it.
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// iPXE as Debian builds it.
pub(super) fn ipxe() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let names = ["undionly.kpxe", "ipxe.efi", "snponly.efi", "ipxe.lkrn"];
    names
        .into_iter()
        .map(|name| {
            let bytes = ["/usr/lib/ipxe", "/boot"]
                .iter()
                .find_map(|dir| std::fs::read(Path::new(dir).join(name)).ok())
                .with_context(|| format!("/usr/lib/ipxe/{name} is missing on this host: apt-get install ipxe"))?;
            Ok((name, bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_loader_can_be_made_and_tries_the_default_last() {
        assert!(local_loader().unwrap().starts_with(b"MZ"));
        let script = local_script();
        assert!(script.find("/EFI/*/grubx64.efi").unwrap() < script.find("BOOT/BOOTX64.EFI").unwrap());
    }

    #[test]
    fn tar_reads_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        std::fs::write(&path, tar_of_one("boot/grub.cfg", b"exit\n")).unwrap();
        let output = std::process::Command::new("tar").arg("-xOf").arg(&path).arg("boot/grub.cfg").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"exit\n");
    }

    #[test]
    fn the_identity_goes_where_the_manifest_says() {
        let (image, room) = unified_image(&[1; 5000], &[2; 3001], "quiet", "6.1").unwrap();
        let at = room.offset as usize;
        assert!(image[at..at + IDENTITY_ROOM].iter().all(|b| *b == 0));
        assert_eq!(room.offset % 4, 0);
        assert_eq!(&image[at - 3072..at - 3072 + 3001], &[2; 3001][..]);
    }
}
