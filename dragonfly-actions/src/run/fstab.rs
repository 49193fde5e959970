//! `/etc/fstab` of an installed system: which partitions belong into its root.

use uuid::Uuid;

use super::place::Place;
use crate::probe::Signature;

/// Where a boot loader or a package's script looks for files of the system.
const NEEDED: [&str; 6] = ["/boot", "/boot/efi", "/boot/firmware", "/efi", "/usr", "/var"];
/// More lines than any real table has.
const MOST_LINES: usize = 1000;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What is mounted.
    pub(crate) source: Source,
    /// Where.
    pub(crate) path: String,
}

/// How a line names a partition (fstab(5)). Names that the kernel gives (`/dev/sda1`) are those of the
/// installed system, not of this one, and name nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The file system's UUID.
    Uuid(String),
    /// The file system's label.
    Label(String),
    /// The GPT partition's UUID.
    PartUuid(String),
    /// The GPT partition's name.
    PartLabel(String),
    /// Something that names no partition here.
    Other(String),
}

impl Source {
    fn parse(text: &str) -> Self {
        let text = text.trim_matches('"');
        let (tag, value) = match text.split_once('=') {
            Some((tag, value)) => (tag.to_owned(), value),
            None => match text.strip_prefix("/dev/disk/by-").and_then(|rest| rest.split_once('/')) {
                Some((tag, value)) => (tag.to_ascii_uppercase(), value),
                None => (String::new(), text),
            },
        };
        let value = value.trim_matches('"').to_owned();
        match tag.as_str() {
            "UUID" => Self::Uuid(value),
            "LABEL" => Self::Label(value),
            "PARTUUID" => Self::PartUuid(value),
            "PARTLABEL" => Self::PartLabel(value),
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Whether it means this partition.
    pub(crate) fn is(&self, place: &Place) -> bool {
        let holds = |field: fn(&Signature) -> Option<&String>| place.holds.as_ref().and_then(field);
        match self {
            Self::Uuid(uuid) => holds(|s| s.uuid.as_ref()).is_some_and(|is| is.eq_ignore_ascii_case(uuid)),
            Self::Label(label) => holds(|s| s.label.as_ref()) == Some(label),
            Self::PartUuid(uuid) => {
                !place.partition.uuid.is_nil() && Uuid::try_parse(uuid).is_ok_and(|uuid| uuid == place.partition.uuid)
            }
            Self::PartLabel(name) => !name.is_empty() && place.partition.name == *name,
            Self::Other(_) => false,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(value) => write!(f, "UUID={value}"),
            Self::Label(value) => write!(f, "LABEL={value}"),
            Self::PartUuid(value) => write!(f, "PARTUUID={value}"),
            Self::PartLabel(value) => write!(f, "PARTLABEL={value}"),
            Self::Other(value) => f.write_str(value),
        }
    }
}

/// The lines that have to be mounted for a boot loader, parents before children.
pub(crate) fn needed(table: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = table
        .lines()
        .take(MOST_LINES)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (source, path) = (fields.next()?, fields.next()?);
            let path = match path.trim_end_matches('/') {
                _ if source.starts_with('#') => return None,
                path => path,
            };
            // A bind mount or a subvolume of the same file system is no partition of its own.
            let kind = fields.next()?;
            let options = fields.next().unwrap_or("");
            let partition = !matches!(kind, "none" | "swap" | "tmpfs" | "proc" | "sysfs" | "overlay")
                && !options.split(',').any(|o| o == "bind" || o == "rbind" || o.starts_with("subvol"));
            (partition && NEEDED.contains(&path))
                .then(|| Line { source: Source::parse(&unescape(source)), path: path.to_owned() })
        })
        .collect();
    lines.sort_by_key(|line| line.path.matches('/').count());
    lines
}

/// `\040` is a blank (fstab(5)).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Partition;
    use dragonfly_core::inventory::{Bytes, Disk};

    fn place(name: &str, uuid: u128, label: &str, fs: &str) -> Place {
        let disk = Disk {
            name: "sda".into(),
            size: Bytes(1 << 30),
            sector: None,
            model: None,
            serial: None,
            wwn: None,
            bus: None,
            rotational: None,
            removable: None,
            wear_percent: None,
            blank: None,
            signatures: Vec::new(),
        };
        let partition = Partition {
            number: 1,
            first_lba: 2048,
            sectors: 2048,
            name: name.into(),
            type_guid: Uuid::nil(),
            uuid: Uuid::from_u128(uuid),
            attributes: 0,
            mbr_type: 0,
            active: false,
        };
        let holds = Some(Signature { kind: "ext4", label: Some(label.into()), uuid: Some(fs.into()) });
        Place { disk, partition, start: 1 << 20, length: 1 << 20, holds }
    }

    #[test]
    fn finds_the_lines_that_a_boot_loader_needs() {
        let table = "# <file system> <mount point> <type> <options> <dump> <pass>\n\
            UUID=AB-12 /boot/efi/ vfat umask=0077 0 1\n\
            LABEL=my\\040boot\t/boot\text4\tdefaults\n\
            PARTUUID=00000000-0000-0000-0000-000000000007 /usr ext4 ro\n\
            /dev/disk/by-partlabel/var /var xfs defaults 0 0\n\
            /dev/sda7 /efi vfat defaults\n\
            #LABEL=x /boot ext4 defaults\n\
            UUID=1 /boot btrfs subvol=@boot 0 0\n\
            UUID=1 / ext4 errors=remount-ro 0 1\n\
            UUID=1 /home ext4 defaults 0 1\n\
            none /var tmpfs size=1g\n\
            broken\n";
        let found: Vec<String> = needed(table).iter().map(|l| format!("{} {}", l.source, l.path)).collect();
        assert_eq!(
            found,
            [
                "LABEL=my boot /boot",
                "PARTUUID=00000000-0000-0000-0000-000000000007 /usr",
                "PARTLABEL=var /var",
                "/dev/sda7 /efi",
                "UUID=AB-12 /boot/efi",
            ]
        );
        let place = place("var", 7, "my boot", "ab-12");
        let is: Vec<bool> = needed(table).iter().map(|l| l.source.is(&place)).collect();
        assert_eq!(is, [true, true, true, false, true]);
        assert!(!Source::parse("UUID=77").is(&place) && !Source::parse("PARTLABEL=").is(&place));
    }
}
