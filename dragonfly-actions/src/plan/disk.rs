//! Which disk: by what it is, never by what it happens to be called today (though that works too).

use dragonfly_core::inventory::Disk;
use serde::Deserialize;

use super::Check;
use super::given::Given;
use super::size::{Size, human};

/// Which disk is meant. Every field that is given must hold; [`smallest`](Self::smallest) or
/// [`largest`](Self::largest) then choose among those that are left. Removable disks are left out
/// unless they are asked for by `removable: true`, `name`, `serial` or `wwn`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    expecting = "what the disk is, such as {serial: S1}, {name: sda} or {smallest: true}"
)]
pub struct DiskSelector {
    /// Kernel name: `sda`, `nvme0n1`; `/dev/sda` is taken as well.
    pub name: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Model, exactly as the disk tells it.
    pub model: Option<String>,
    /// `nvme`, `sata`, `sas`, `virtio`, `usb`, `mmc`.
    pub bus: Option<String>,
    /// Whether it is an NVMe disk.
    pub nvme: Option<bool>,
    /// Whether it spins.
    pub rotational: Option<bool>,
    /// Whether it can be taken out.
    pub removable: Option<bool>,
    /// At least this large.
    pub min_size: Option<Given<Size>>,
    /// At most this large.
    pub max_size: Option<Given<Size>>,
    /// The smallest of them.
    pub smallest: bool,
    /// The largest of them.
    pub largest: bool,
    /// Of several that are alike, the first by kernel name.
    pub first: bool,
}

/// Why no disk could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// None fits.
    #[error("no disk fits {asked}; there {}", there(.candidates))]
    None {
        /// What was asked for.
        asked: String,
        /// The disks there are.
        candidates: Vec<String>,
    },
    /// Several fit.
    #[error(
        "{} disks fit {asked}: {}; say which with `serial`, `name`, `smallest: true` or `first: true`",
        .candidates.len(),
        .candidates.join(", ")
    )]
    Several {
        /// What was asked for.
        asked: String,
        /// Those that fit.
        candidates: Vec<String>,
    },
}

fn there(candidates: &[String]) -> String {
    if candidates.is_empty() { "is no disk at all".to_owned() } else { format!("are: {}", candidates.join(", ")) }
}

impl DiskSelector {
    /// The disk of this kernel name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// The kernel name that is asked for, without `/dev/`.
    pub fn kernel_name(&self) -> Option<&str> {
        self.name.as_deref().map(|name| name.strip_prefix("/dev/").unwrap_or(name))
    }

    /// The one disk that is meant.
    pub fn choose<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk, ChoiceError> {
        let mut fit: Vec<&Disk> = disks.iter().filter(|disk| self.fits(disk)).collect();
        let extreme = match (self.smallest, self.largest) {
            (true, _) => fit.iter().map(|d| d.size).min(),
            (_, true) => fit.iter().map(|d| d.size).max(),
            _ => None,
        };
        if let Some(size) = extreme {
            fit.retain(|disk| disk.size == size);
        }
        if self.first {
            // `sdb` before `sdaa`, `nvme2n1` before `nvme10n1`: as the kernel counts.
            fit.sort_by_key(|disk| (disk.name.len(), disk.name.clone()));
            fit.truncate(1);
        }
        let words = |disks: &[&Disk]| disks.iter().map(|disk| describe(disk)).collect();
        match fit[..] {
            [one] => Ok(one),
            [] => {
                Err(ChoiceError::None { asked: self.to_string(), candidates: words(&disks.iter().collect::<Vec<_>>()) })
            }
            _ => Err(ChoiceError::Several { asked: self.to_string(), candidates: words(&fit) }),
        }
    }

    fn fits(&self, disk: &Disk) -> bool {
        fn text(asked: Option<&str>, is: Option<&str>) -> bool {
            asked.is_none_or(|asked| is.is_some_and(|is| is.trim() == asked.trim()))
        }
        let bytes = |given: &Option<Given<Size>>| match given.as_ref().and_then(Given::known) {
            Some(Size::Bytes(bytes)) => Some(*bytes),
            _ => None,
        };
        let by_name = self.name.is_some() || self.serial.is_some() || self.wwn.is_some();
        let removable = disk.removable.unwrap_or(false);
        disk.size.0 > 0
            && self.kernel_name().is_none_or(|name| name == disk.name)
            && text(self.serial.as_deref(), disk.serial.as_deref())
            && text(self.wwn.as_deref(), disk.wwn.as_deref())
            && text(self.model.as_deref(), disk.model.as_deref())
            && text(self.bus.as_deref(), disk.bus.as_deref())
            && self.nvme.is_none_or(|asked| asked == (disk.bus.as_deref() == Some("nvme")))
            && self.rotational.is_none_or(|asked| disk.rotational == Some(asked))
            && self.removable.map_or(by_name || !removable, |asked| asked == removable)
            && bytes(&self.min_size).is_none_or(|least| disk.size.0 >= least)
            && bytes(&self.max_size).is_none_or(|most| disk.size.0 <= most)
    }

    pub(crate) fn check(&self, path: &str, check: &mut Check) {
        for (field, text) in [
            ("name", &self.name),
            ("serial", &self.serial),
            ("wwn", &self.wwn),
            ("model", &self.model),
            ("bus", &self.bus),
        ] {
            if let Some(text) = text {
                check.plain(&format!("{path}.{field}"), text);
            }
        }
        if let Some(name) = self.kernel_name().and_then(|name| check.text(name))
            && (name.contains('/') || name.starts_with('.'))
        {
            check.say(format!("{path}.name"), format!("`{name}` is not a kernel name; write sda or nvme0n1"));
        }
        for (field, size) in [("minSize", &self.min_size), ("maxSize", &self.max_size)] {
            let path = format!("{path}.{field}");
            if let Some(Size::Percent(_) | Size::Rest) = check.optional(&path, size.as_ref()) {
                check.say(path, "must be a number of bytes such as 10GiB");
            }
        }
        if self.smallest && self.largest {
            check.say(path, "asks for the smallest and the largest; keep one of them");
        }
    }
}

/// One disk for a person: name, size, model, serial.
pub(crate) fn describe(disk: &Disk) -> String {
    let mut words = vec![human(disk.size.0)];
    if let Some(model) = &disk.model {
        words.push(model.trim().to_owned());
    }
    if let Some(serial) = &disk.serial {
        words.push(format!("serial {}", serial.trim()));
    }
    if disk.removable == Some(true) {
        words.push("removable".to_owned());
    }
    format!("{} ({})", disk.name, words.join(", "))
}

impl std::fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        for (field, text) in [
            ("name", &self.name),
            ("serial", &self.serial),
            ("wwn", &self.wwn),
            ("model", &self.model),
            ("bus", &self.bus),
        ] {
            if let Some(text) = text {
                words.push(format!("{field}: {text}"));
            }
        }
        for (field, flag) in [("nvme", self.nvme), ("rotational", self.rotational), ("removable", self.removable)] {
            if let Some(flag) = flag {
                words.push(format!("{field}: {flag}"));
            }
        }
        for (field, size) in [("minSize", &self.min_size), ("maxSize", &self.max_size)] {
            match size {
                Some(Given::Known(Size::Bytes(bytes))) => words.push(format!("{field}: {}", human(*bytes))),
                Some(_) => words.push(field.to_owned()),
                None => {}
            }
        }
        for (field, flag) in [("smallest", self.smallest), ("largest", self.largest), ("first", self.first)] {
            if flag {
                words.push(format!("{field}: true"));
            }
        }
        if words.is_empty() {
            return f.write_str("`disk` left out (the only disk that is not removable)");
        }
        write!(f, "`disk: {{{}}}`", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::inventory::Bytes;

    fn disk(name: &str, gib: u64, bus: &str, serial: &str) -> Disk {
        Disk {
            name: name.into(),
            size: Bytes(gib << 30),
            sector: Some(512),
            model: Some("QEMU HARDDISK".into()),
            serial: Some(serial.into()),
            wwn: None,
            bus: Some(bus.into()),
            rotational: Some(bus == "sata"),
            removable: Some(bus == "usb"),
            wear_percent: None,
            blank: None,
            signatures: Vec::new(),
        }
    }

    fn selector(json: serde_json::Value) -> DiskSelector {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn chooses_by_what_a_disk_is() {
        let disks = [
            disk("sda", 100, "sata", "A1"),
            disk("sdb", 8, "usb", "U1"),
            disk("nvme0n1", 500, "nvme", "N1"),
            disk("nvme1n1", 250, "nvme", "N2"),
            disk("nvme10n1", 250, "nvme", "N3"),
        ];
        use serde_json::json;
        let table = [
            (json!({"serial": "A1"}), Ok("sda")),
            (json!({"name": "/dev/sda"}), Ok("sda")),
            (json!({"name": "sdb"}), Ok("sdb")),
            (json!({"nvme": true, "largest": true}), Ok("nvme0n1")),
            (json!({"nvme": true, "smallest": true}), Err("2 disks fit")),
            (json!({"nvme": true, "smallest": true, "first": true}), Ok("nvme1n1")),
            (json!({"rotational": true}), Ok("sda")),
            (json!({"removable": true}), Ok("sdb")),
            (json!({"bus": "virtio"}), Err("no disk fits")),
            (json!({"minSize": "300GiB"}), Ok("nvme0n1")),
            (json!({"maxSize": "50GiB"}), Err("no disk fits")),
            (json!({}), Err("4 disks fit `disk` left out")),
        ];
        for (asked, want) in table {
            let got = selector(asked.clone()).choose(&disks).map(|d| d.name.clone()).map_err(|e| e.to_string());
            match (got, want) {
                (Ok(name), Ok(want)) => assert_eq!(name, want, "{asked}"),
                (Err(said), Err(want)) => assert!(said.contains(want), "{asked}: {said}"),
                (got, want) => panic!("{asked}: {got:?}, wanted {want:?}"),
            }
        }
        let said = selector(json!({"nvme": true})).choose(&disks).unwrap_err().to_string();
        assert!(said.contains("nvme0n1 (500 GiB, QEMU HARDDISK, serial N1)"), "{said}");
        assert!(DiskSelector::default().choose(&[]).unwrap_err().to_string().contains("no disk at all"));
        assert_eq!(DiskSelector::default().choose(&disks[..2]).unwrap().name, "sda", "the stick is not meant");
    }
}
