//! `format`: which file system a partition is to have.

use serde::Deserialize;

use super::{Check, Given, Target};

/// Parameters of `format`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormatParams {
    /// This partition.
    pub target: Target,
    /// Which file system.
    #[serde(alias = "fs")]
    pub filesystem: FileSystem,
    /// The file system's label.
    #[serde(default)]
    pub label: Option<String>,
    /// The file system's UUID (not for vfat); left out, a random one.
    #[serde(default)]
    pub uuid: Option<Given<uuid::Uuid>>,
    /// Further arguments for the program that makes it, one each.
    #[serde(default)]
    pub options: Vec<String>,
}

/// File systems that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// `mke2fs -t ext4`.
    Ext4,
    /// `mkfs.fat -F 32` (or smaller where 32 does not fit).
    Vfat,
    /// `mkfs.xfs`.
    Xfs,
    /// `mkfs.btrfs`.
    Btrfs,
    /// `mkswap`.
    Swap,
}

impl FileSystem {
    /// Its name, as the kernel and [`crate::probe`] call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Vfat => "vfat",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Swap => "swap",
        }
    }

    /// The longest label it takes, in bytes.
    pub fn longest_label(self) -> usize {
        match self {
            Self::Ext4 | Self::Swap => 16 - usize::from(self == Self::Swap),
            Self::Vfat => 11,
            Self::Xfs => 12,
            Self::Btrfs => 255,
        }
    }
}

impl FormatParams {
    pub(crate) fn check(&self, check: &mut Check) {
        self.target.check("target", check);
        if let Some(label) = &self.label
            && let Some(label) = check.plain("label", label)
        {
            let longest = self.filesystem.longest_label();
            if label.len() > longest {
                check.say(
                    "label",
                    format!("`{label}` is longer than the {longest} bytes that {} takes", self.filesystem.name()),
                );
            }
            if self.filesystem == FileSystem::Vfat
                && label.chars().any(|c| !c.is_ascii() || "*?.,;:/\\|+=<>[]\"".contains(c))
            {
                check.say("label", format!("`{label}` holds a character that vfat does not take"));
            }
        }
        check.optional("uuid", self.uuid.as_ref());
        if self.uuid.is_some() && self.filesystem == FileSystem::Vfat {
            check.say("uuid", "vfat has no UUID; leave it out");
        }
        for (index, option) in self.options.iter().enumerate() {
            let path = format!("options[{index}]");
            if let Some(option) = check.plain(&path, option)
                && option.starts_with("/dev")
            {
                check.say(path, "is a device; the partition is said in `target`");
            }
        }
    }
}
