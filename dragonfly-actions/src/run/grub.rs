//! What is decided about GRUB without looking at a disk.

use dragonfly_core::inventory::FirmwareMode;

use super::bootentry::version;

/// GRUB's name for a platform: `grub-install --target`, and the directory of its modules.
pub(crate) fn platform(firmware: FirmwareMode, arch: &str) -> Option<&'static str> {
    Some(match (firmware, arch) {
        (FirmwareMode::Bios, "x86_64" | "x86") => "i386-pc",
        (FirmwareMode::Uefi, "x86_64") => "x86_64-efi",
        (FirmwareMode::Uefi, "aarch64") => "arm64-efi",
        _ => return None,
    })
}

/// Where firmware looks on a disk that has no boot entry (UEFI specification, 3.5.1.1).
pub(crate) fn removable_path(arch: &str) -> &'static str {
    match arch {
        "aarch64" => "/EFI/BOOT/BOOTAA64.EFI",
        _ => "/EFI/BOOT/BOOTX64.EFI",
    }
}

/// A kernel in `/boot` with its initial RAM disk, both by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) version: String,
    pub(crate) kernel: String,
    pub(crate) initrd: Option<String>,
}

/// The newest kernel among the names in `/boot`.
pub(crate) fn newest(names: &[String]) -> Option<Kernel> {
    let version_of = |name: &str| {
        ["vmlinuz-", "vmlinux-", "kernel-"].iter().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned)
    };
    let numbered = names
        .iter()
        .filter_map(|name| Some((version_of(name)?, name)))
        // Fedora's rescue kernel carries a machine's id in the place of a version.
        .filter(|(version, _)| version.starts_with(|c: char| c.is_ascii_digit()) || !version.contains("rescue"))
        .max_by(|a, b| version::compare(&a.0, &b.0));
    let (version, kernel) = match numbered {
        Some((version, kernel)) => (version, kernel.clone()),
        None => (String::new(), names.iter().find(|name| *name == "vmlinuz" || *name == "Image")?.clone()),
    };
    let initrds = if version.is_empty() {
        ["initrd.img", "initrd", "initramfs.img"].map(str::to_owned)
    } else {
        [format!("initrd.img-{version}"), format!("initramfs-{version}.img"), format!("initrd-{version}")]
    };
    let initrd = initrds
        .into_iter()
        .chain((!version.is_empty()).then(|| format!("initramfs-{version}")))
        .find(|initrd| names.contains(initrd));
    Some(Kernel { version, kernel, initrd })
}

/// A configuration for a system that brings no `grub-mkconfig`: one entry.
///
/// `boot` is the UUID of the file system with the kernel and the directory of the kernel in it, `root`
/// the UUID of the root file system.
pub(crate) fn minimal(kernel: &Kernel, boot: (&str, &str), root: &str, arguments: &[String]) -> String {
    let (uuid, directory) = boot;
    let version = if kernel.version.is_empty() { "" } else { &kernel.version };
    let title = format!("Linux {version}");
    let path = |name: &str| quote(&format!("{directory}/{name}"));
    let mut line = format!("{} {} ro", path(&kernel.kernel), quote(&format!("root=UUID={root}")));
    for argument in arguments {
        line.push(' ');
        line.push_str(&quote(argument));
    }
    let initrd = kernel.initrd.as_ref().map_or(String::new(), |initrd| format!("\tinitrd\t{}\n", path(initrd)));
    format!(
        "# Written when the system was installed, because it brings no grub-mkconfig.\n\
         set default=0\nset timeout=1\n\
         search --no-floppy --fs-uuid --set=root {}\n\
         menuentry {} --id linux {{\n\tlinux\t{line}\n{initrd}}}\n",
        quote(uuid),
        quote(title.trim_end()),
    )
}

/// One word of GRUB's shell, whatever is in it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::bootentry::{Files, find};
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_newest_kernel_is_taken_with_its_own_initrd() {
        type Case<'a> = (&'a [&'a str], Option<(&'a str, &'a str, Option<&'a str>)>);
        let table: [Case<'_>; 7] = [
            (
                &[
                    "vmlinuz-6.1.0-9-amd64",
                    "initrd.img-6.1.0-13-amd64",
                    "vmlinuz-6.1.0-13-amd64",
                    "config-6.9",
                    "initrd.img-6.1.0-9-amd64",
                ],
                Some(("6.1.0-13-amd64", "vmlinuz-6.1.0-13-amd64", Some("initrd.img-6.1.0-13-amd64"))),
            ),
            (
                &["vmlinuz-0-rescue-9f", "vmlinuz-6.5.6-300.fc39.x86_64", "initramfs-6.5.6-300.fc39.x86_64.img"],
                Some((
                    "6.5.6-300.fc39.x86_64",
                    "vmlinuz-6.5.6-300.fc39.x86_64",
                    Some("initramfs-6.5.6-300.fc39.x86_64.img"),
                )),
            ),
            (&["vmlinuz-virt", "initramfs-virt"], Some(("virt", "vmlinuz-virt", Some("initramfs-virt")))),
            (&["vmlinuz", "initrd.img"], Some(("", "vmlinuz", Some("initrd.img")))),
            (&["vmlinuz-6.1", "initrd.img-6.0"], Some(("6.1", "vmlinuz-6.1", None))),
            (&["System.map-6.1"], None),
            (&[], None),
        ];
        for (given, want) in table {
            let got = newest(&names(given));
            let got = got.as_ref().map(|k| (k.version.as_str(), k.kernel.as_str(), k.initrd.as_deref()));
            assert_eq!(got, want, "{given:?}");
        }
    }

    struct One(String);
    impl Files for One {
        fn read(&self, path: &str) -> Option<String> {
            (path == "/boot/grub/grub.cfg").then(|| self.0.clone())
        }
        fn names(&self, _: &str) -> Vec<String> {
            Vec::new()
        }
    }

    proptest! {
        /// Our reader understands GRUB's shell; so what it reads is what GRUB will do.
        #[test]
        fn a_written_configuration_boots_what_it_was_written_for(arguments in proptest::collection::vec("[!-~]{1,20}", 0..5), initrd: bool) {
            let kernel = Kernel { version: "6.1".into(), kernel: "vmlinuz-6.1".into(), initrd: initrd.then(|| "initrd.img-6.1".into()) };
            let text = minimal(&kernel, ("AB-1", "/boot"), "77-7", &arguments);
            let entry = find(&One(text), None).unwrap();
            prop_assert_eq!(entry.kernel, "/boot/vmlinuz-6.1");
            prop_assert_eq!(entry.initrds, if initrd { vec!["/boot/initrd.img-6.1".to_owned()] } else { vec![] });
            let mut want = vec!["root=UUID=77-7".to_owned(), "ro".to_owned()];
            want.extend(arguments);
            prop_assert_eq!(entry.cmdline, want.join(" "));
            prop_assert_eq!(entry.title, "Linux 6.1");
        }
    }
}
