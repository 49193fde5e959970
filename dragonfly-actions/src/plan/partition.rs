//! `partition`: what table a disk is to have.

use serde::Deserialize;
use uuid::Uuid;

use super::given::Given;
use super::layout::{LEAST, layout_problems};
use super::parttype::PartitionType;
use super::size::{Size, human};
use super::{Check, DiskSelector};

/// The most partitions a table may be asked to have; GPT as we write it has room for as many.
pub(crate) const MOST_GPT: usize = 128;
/// An MBR has four entries; logical partitions are not made.
pub(crate) const MOST_MBR: usize = 4;

/// Parameters of `partition`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionParams {
    /// On this disk; left out, the only one that is not removable.
    #[serde(default)]
    pub disk: DiskSelector,
    /// Which kind of table.
    #[serde(default)]
    pub table: TableKind,
    /// In order; the first is number 1.
    pub partitions: Vec<PartitionSpec>,
}

/// Kinds of partition table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// GUID partition table (UEFI 2.10, 5.3).
    #[default]
    Gpt,
    /// Master boot record, four primary partitions.
    Mbr,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionSpec {
    /// Its name in a GPT, at most 36 UTF-16 units; other steps find it by this.
    #[serde(default, alias = "name")]
    pub label: Option<String>,
    /// How large. One may be `rest`.
    pub size: Given<Size>,
    /// Where it begins, in bytes from the disk's start; left out, after the one before it. Rounded
    /// up to 1 MiB.
    #[serde(default)]
    pub start: Option<Given<Size>>,
    /// What it is for.
    #[serde(default, rename = "type")]
    pub kind: Option<Given<PartitionType>>,
    /// Its own GUID (GPT); left out, a random one.
    #[serde(default)]
    pub uuid: Option<Given<Uuid>>,
    /// GPT attributes.
    #[serde(default)]
    pub attributes: Vec<Attribute>,
    /// Whether it is marked active (MBR).
    #[serde(default)]
    pub active: bool,
}

/// GPT partition attributes (UEFI 2.10, 5.3.3; Discoverable Partitions Specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribute {
    /// Bit 0: the platform needs it.
    Required,
    /// Bit 1: firmware is to leave it alone.
    NoBlockIo,
    /// Bit 2: a legacy BIOS may boot it.
    LegacyBoot,
    /// Bit 59: grow its file system on first boot.
    GrowFs,
    /// Bit 60: read only.
    ReadOnly,
    /// Bit 63: not to be mounted by itself.
    NoAuto,
}

impl Attribute {
    /// Its bit in the table.
    pub fn bit(self) -> u64 {
        1 << match self {
            Self::Required => 0,
            Self::NoBlockIo => 1,
            Self::LegacyBoot => 2,
            Self::GrowFs => 59,
            Self::ReadOnly => 60,
            Self::NoAuto => 63,
        }
    }
}

impl PartitionSpec {
    /// What it is for.
    pub fn partition_type(&self) -> PartitionType {
        self.kind.as_ref().and_then(Given::known).copied().unwrap_or_default()
    }
}

impl PartitionParams {
    pub(crate) fn check(&self, check: &mut Check) {
        self.disk.check("disk", check);
        let most = match self.table {
            TableKind::Gpt => MOST_GPT,
            TableKind::Mbr => MOST_MBR,
        };
        if self.partitions.is_empty() {
            check.say("partitions", "is empty; write at least one partition");
        }
        if self.partitions.len() > most {
            let advice = if self.table == TableKind::Mbr { "; use `table: gpt`" } else { "" };
            check.say("partitions", format!("are {}; this table holds {most}{advice}", self.partitions.len()));
            return;
        }
        for (index, spec) in self.partitions.iter().enumerate() {
            let path = format!("partitions[{index}]");
            self.check_one(&path, spec, check);
            if let Some(label) = &spec.label
                && let Some(first) = self.partitions[..index].iter().position(|p| p.label.as_ref() == Some(label))
            {
                check.say(format!("{path}.label"), format!("`{label}` is already partitions[{first}]'s"));
            }
        }
        layout_problems(&self.partitions, check);
    }

    fn check_one(&self, path: &str, spec: &PartitionSpec, check: &mut Check) {
        if let Some(label) = &spec.label
            && let Some(text) = check.plain(&format!("{path}.label"), label)
            && text.encode_utf16().count() > 36
        {
            check.say(format!("{path}.label"), "is longer than the 36 characters that a GPT holds");
        }
        match check.given(&format!("{path}.size"), &spec.size) {
            Some(Size::Bytes(bytes)) if *bytes < LEAST => check.say(
                format!("{path}.size"),
                format!("{} is too small; a partition takes at least {}", human(*bytes), human(LEAST)),
            ),
            _ => {}
        }
        if let Some(Size::Percent(_) | Size::Rest) = check.optional(&format!("{path}.start"), spec.start.as_ref()) {
            check.say(format!("{path}.start"), "must be a number of bytes such as 1MiB");
        }
        let kind = check.optional(&format!("{path}.type"), spec.kind.as_ref());
        if let (TableKind::Mbr, Some(PartitionType { mbr: None, .. })) = (self.table, kind) {
            check.say(format!("{path}.type"), "a GUID means nothing in an MBR; write a name such as linux or swap");
        }
        check.optional(&format!("{path}.uuid"), spec.uuid.as_ref());
        match self.table {
            TableKind::Mbr => {
                if spec.uuid.is_some() {
                    check
                        .say(format!("{path}.uuid"), "an MBR has no partition GUIDs; leave it out or use `table: gpt`");
                }
                if !spec.attributes.is_empty() {
                    check.say(format!("{path}.attributes"), "an MBR has no attributes; `active: true` is what it has");
                }
            }
            TableKind::Gpt if spec.active => {
                check.say(format!("{path}.active"), "belongs to an MBR; in a GPT write `attributes: [legacy-boot]`");
            }
            TableKind::Gpt => {}
        }
    }
}
