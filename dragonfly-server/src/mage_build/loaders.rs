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
    let os_release = format!("ID=mage\nNAME=Mage\nPRETTY_NAME=\"Mage ({release})\"\nVERSION_ID={}\n", env!("CARGO_PKG_VERSION"));
    let cmdline = format!("{cmdline}\0");
    let sections: [(&str, &[u8]); 4] =
        [(".osrel", os_release.as_bytes()), (".cmdline", cmdline.as_bytes()), (".linux", kernel), (".initrd", &initrd)];
    let (image, offsets) = pe::add_sections(&stub, &sections).with_context(|| format!("{STUB} cannot be built upon"))?;
    let initrd_at = offsets.last().copied().context("no sections")?;
    Ok((image, Room { offset: initrd_at + identity_at as u64, length: IDENTITY_ROOM as u64 }))
}

/// Boot loaders of installed systems, in the order in which they are tried: what distributions install
/// under their own name first, the removable default last.
const DISK_LOADERS: &[&str] = &[
    "/EFI/debian/shimx64.efi",
    "/EFI/debian/grubx64.efi",
    "/EFI/ubuntu/shimx64.efi",
    "/EFI/ubuntu/grubx64.efi",
    "/EFI/fedora/shimx64.efi",
    "/EFI/rocky/shimx64.efi",
    "/EFI/almalinux/shimx64.efi",
    "/EFI/centos/shimx64.efi",
    "/EFI/redhat/shimx64.efi",
    "/EFI/opensuse/shim.efi",
    "/EFI/sles/shim.efi",
    "/EFI/arch/grubx64.efi",
    "/EFI/alpine/grubx64.efi",
    "/EFI/systemd/systemd-bootx64.efi",
    "/EFI/Microsoft/Boot/bootmgfw.efi",
    "/EFI/VMware/safeboot64.efi",
    "/EFI/BOOT/BOOTX64.EFI",
];

/// The script of `local.efi`: on the first disk with one of the loaders, start it; else back to
/// firmware, which tries what comes next in its order.
pub fn local_script() -> String {
    let mut script = String::from(
        "insmod part_gpt\ninsmod part_msdos\ninsmod fat\ninsmod chain\ninsmod search_fs_file\nset found=\n",
    );
    for path in DISK_LOADERS {
        // Disks only: a loader that came by the network is how this one got here.
        script += &format!(
            "if [ -z \"$found\" ]; then\n  unset disk\n  search --no-floppy --hint-efi=hd0,gpt1 --file {path} --set=disk\n  \
             if regexp '^hd' \"$disk\"; then\n    echo \"Starting ($disk){path}\"\n    set found=1\n    \
             chainloader ($disk){path}\n    boot\n  fi\nfi\n"
        );
    }
    script += "echo \"No boot loader was found on this machine's disks.\"\nsleep 3\nexit\n";
    script
}

/// A UEFI program that starts what is installed on the machine's disk.
pub(super) fn local_loader() -> Result<Vec<u8>> {
    let work = tempfile::tempdir().context("no temporary directory")?;
    let script = work.path().join("local.cfg");
    let out = work.path().join("local.efi");
    std::fs::write(&script, local_script())?;
    if !Path::new("/usr/lib/grub/x86_64-efi").exists() {
        anyhow::bail!("/usr/lib/grub/x86_64-efi is missing on this host: apt-get install grub-efi-amd64-bin");
    }
    let mut args: Vec<std::ffi::OsString> = ["-O", "x86_64-efi", "-p", "/EFI/none", "-c"].map(Into::into).into();
    args.push(script.into());
    args.push("-o".into());
    args.push(out.clone().into());
    let modules = [
        "part_gpt", "part_msdos", "fat", "chain", "search", "search_fs_file", "regexp", "test", "echo", "sleep", "normal",
        "configfile", "boot", "disk", "minicmd",
    ];
    args.extend(modules.map(Into::into));
    run("grub-mkimage", &args, None, "grub-common")?;
    std::fs::read(&out).context("grub-mkimage left no image")
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
        assert!(script.find("debian/grubx64.efi").unwrap() < script.find("BOOT/BOOTX64.EFI").unwrap());
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
