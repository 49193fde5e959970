//! `bootloader`: how the machine finds what was installed.

use serde::Deserialize;

use super::{Check, ExtraMount, Target};

/// Parameters of `bootloader`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootloaderParams {
    /// What is to be done.
    pub kind: BootloaderKind,
    /// The installed system's root (for `grub`).
    #[serde(default)]
    pub root: Option<Target>,
    /// The EFI system partition (for `efi-entry`, and for `grub` on UEFI).
    #[serde(default)]
    pub esp: Option<Target>,
    /// Further partitions to mount inside the root: `/boot`, for one.
    #[serde(default)]
    pub mounts: Vec<ExtraMount>,
    /// Which firmware it is for.
    #[serde(default)]
    pub firmware: FirmwareChoice,
    /// The boot entry's name in the firmware's menu; `Linux` unless told.
    #[serde(default)]
    pub label: Option<String>,
    /// The program on the EFI system partition, with `\` or `/`: `\EFI\debian\grubx64.efi`. Left out,
    /// the removable-media path `\EFI\BOOT\BOOTX64.EFI`.
    #[serde(default)]
    pub path: Option<String>,
    /// Puts the entry before the network in the boot order. Left out, the network stays first and
    /// the server decides at every boot.
    #[serde(default)]
    pub first: bool,
    /// Kernel arguments for a configuration that has to be written because the system brings no
    /// `grub-mkconfig`.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// What `bootloader` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootloaderKind {
    /// Runs the installed system's own `grub-install`, and makes its configuration.
    Grub,
    /// Writes a UEFI boot entry.
    EfiEntry,
}

/// Which firmware a boot loader is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareChoice {
    /// The one this machine was booted by.
    #[default]
    Auto,
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl BootloaderParams {
    pub(crate) fn check(&self, check: &mut Check) {
        for (path, target) in [("root", &self.root), ("esp", &self.esp)] {
            if let Some(target) = target {
                target.check(path, check);
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            mount.check(&format!("mounts[{index}]"), check);
        }
        match self.kind {
            BootloaderKind::Grub => {
                if self.root.is_none() {
                    check
                        .say("root", "is missing; write the partition with the installed system, `root: root` for one");
                }
                if self.firmware == FirmwareChoice::Uefi && self.esp.is_none() {
                    check.say("esp", "is missing; GRUB for UEFI needs the EFI system partition");
                }
                if self.path.is_some() {
                    check.say("path", "belongs to `kind: efi-entry`; grub-install chooses its own");
                }
            }
            BootloaderKind::EfiEntry => {
                if self.esp.is_none() {
                    check.say("esp", "is missing; write the EFI system partition, `esp: esp` for one");
                }
                if self.root.is_some() || !self.mounts.is_empty() || !self.arguments.is_empty() {
                    check.say(
                        "kind",
                        "`efi-entry` writes a boot entry only; root, mounts and arguments belong to `grub`",
                    );
                }
                if self.firmware == FirmwareChoice::Bios {
                    check.say("firmware", "`bios` has no boot entries");
                }
            }
        }
        if let Some(label) = &self.label
            && let Some(label) = check.plain("label", label)
            && label.len() > 100
        {
            check.say("label", "is longer than 100 bytes");
        }
        if let Some(path) = &self.path
            && let Some(path) = check.plain("path", path)
            && (path.len() > 200 || !path.starts_with(['\\', '/']))
        {
            check.say("path", format!("`{path}` must begin with `\\` and have at most 200 bytes"));
        }
        for (index, argument) in self.arguments.iter().enumerate() {
            check.plain(&format!("arguments[{index}]"), argument);
        }
    }
}
