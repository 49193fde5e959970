//! The firmware's boot entries, through efivarfs.

mod option;
mod order;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dragonfly_core::action::ActionError;
use nix::mount::{MsFlags, mount};

use super::fail::{OrFailed, because};
use super::host::Host;
use super::sys;

pub(crate) use option::{ACTIVE, HardDrive, LoadOption, Signature};

/// `EFI_GLOBAL_VARIABLE` (UEFI specification, 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, visible while booting and at run time.
const KEPT: u32 = 7;
/// The longest variable that is read.
const LONGEST: u64 = 1 << 17;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) number: u16,
    pub(crate) order: Vec<u16>,
}

/// A directory of variables: efivarfs, or one laid out like it.
#[derive(Debug, Clone)]
pub(crate) struct Variables(PathBuf);

impl Host {
    /// This machine's variables; efivarfs is mounted if it is not.
    pub(crate) fn variables(&self) -> Result<Variables, ActionError> {
        if !self.sys.join("firmware/efi").is_dir() {
            return because(
                "this machine was booted by BIOS, which has no boot entries; leave the step out, or boot the machine by UEFI",
            );
        }
        let empty = fs::read_dir(&self.efivars).map(|mut entries| entries.next().is_none()).unwrap_or(true);
        if empty {
            let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("efivarfs"), &self.efivars, Some("efivarfs"), quiet, None::<&str>).or_failed(|| {
                format!(
                    "{} could not be mounted; this kernel reaches no EFI variables (`noefi`, or efivarfs is missing)",
                    self.efivars.display()
                )
            })?;
        }
        Ok(Variables(self.efivars.clone()))
    }
}

impl Variables {
    /// Variables in a directory.
    #[cfg(test)]
    pub(crate) fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Writes an entry and puts it into the boot order. Done again, it changes nothing.
    pub(crate) fn put_entry(&self, option: &LoadOption, first: bool) -> Result<Written, ActionError> {
        let Some(bytes) = option::encode(option) else {
            return because(format!("the boot entry `{}` is longer than EFI takes", option.description));
        };
        let entries = self.entries()?;
        let order = self.read("BootOrder")?.map(|bytes| numbers(&bytes)).unwrap_or_default();
        let current = self.read("BootCurrent")?.and_then(|bytes| numbers(&bytes).first().copied());
        let Some(change) = order::place(&entries, &order, current, option, first) else {
            return because("the firmware has no boot entry left to write; delete some in its setup");
        };
        if !change.same {
            self.write(&format!("Boot{:04X}", change.number), &bytes)?;
        }
        if change.order != order {
            let bytes: Vec<u8> = change.order.iter().flat_map(|n| n.to_le_bytes()).collect();
            self.write("BootOrder", &bytes)?;
        }
        Ok(Written { number: change.number, order: change.order })
    }

    /// Every `Boot####`; nothing for one that is damaged.
    fn entries(&self) -> Result<BTreeMap<u16, Option<option::Seen>>, ActionError> {
        let listing = fs::read_dir(&self.0).or_failed(|| format!("{} could not be read", self.0.display()))?;
        let mut entries = BTreeMap::new();
        for entry in listing.flatten() {
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(number) else { continue };
            let bytes = self.read(&format!("Boot{number:04X}"))?;
            entries.insert(number, bytes.and_then(|bytes| option::decode(&bytes)));
        }
        Ok(entries)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-{GLOBAL}"))
    }

    /// A variable's value; `None`: it is not there.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ActionError> {
        let path = self.file(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
            // Four bytes of attributes come first.
            Ok(_) => Ok(bytes.get(4..).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ActionError::failed(format!("{} could not be read", path.display()), error)),
        }
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<(), ActionError> {
        let path = self.file(name);
        let mut bytes = KEPT.to_le_bytes().to_vec();
        bytes.extend(value);
        write_at_once(&path, &bytes).or_failed(|| {
            format!(
                "the firmware does not take {name}; its variable store may be full or locked: clear old boot entries in \
                 its setup, or install with the removable-media path and without this step"
            )
        })
    }
}

/// efivarfs takes a variable in one `write`, and marks files that were there before us as immutable, so
/// that a careless `rm -r` does not brick a machine.
fn write_at_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Ok(file) = File::open(path) {
        sys::clear_immutable(&file)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let written = file.write(bytes)?;
    if written != bytes.len() {
        return Err(io::Error::other(format!("{written} of {} bytes were taken", bytes.len())));
    }
    Ok(())
}

/// `Boot0001-8be4df61-...` is 1. Four hexadecimal digits, in capitals.
fn number(name: &str) -> Option<u16> {
    let digits = name.strip_suffix(GLOBAL)?.strip_suffix('-')?.strip_prefix("Boot")?;
    let hex = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
    (digits.len() == 4 && digits.chars().all(hex)).then(|| u16::from_str_radix(digits, 16).ok())?
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: &str) -> LoadOption {
        LoadOption {
            attributes: ACTIVE,
            description: "Linux".into(),
            partition: HardDrive {
                number: 1,
                start: 2048,
                size: 4096,
                signature: Signature::Gpt(uuid::Uuid::from_u128(5)),
            },
            path: path.into(),
        }
    }

    #[test]
    fn an_entry_is_written_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(format!("{name}-{GLOBAL}"));
        let mut pxe = vec![7, 0, 0, 0, 1, 0, 0, 0, 41, 0, b'P', 0, 0, 0, 3, 11, 37, 0];
        pxe.extend([0; 33]);
        pxe.extend([0x7F, 0xFF, 4, 0]);
        fs::write(file("Boot0000"), pxe).unwrap();
        fs::write(file("BootOrder"), [7, 0, 0, 0, 0, 0]).unwrap();
        fs::write(file("BootCurrent"), [6, 0, 0, 0, 0, 0]).unwrap();
        fs::write(file("Boot000a"), b"not an entry: firmware writes capitals").unwrap();
        fs::write(directory.path().join("Boot0001-00000000-0000-0000-0000-000000000000"), b"of another vendor")
            .unwrap();
        let variables = Variables::at(directory.path());

        let written = variables.put_entry(&wanted(r"\EFI\BOOT\BOOTX64.EFI"), false).unwrap();
        assert_eq!(written, Written { number: 1, order: vec![0, 1] });
        let first = fs::read(file("Boot0001")).unwrap();
        assert_eq!(first[..4], [7, 0, 0, 0]);
        assert_eq!(option::decode(&first[4..]).unwrap().option, Some(wanted(r"\EFI\BOOT\BOOTX64.EFI")));
        assert_eq!(fs::read(file("BootOrder")).unwrap(), [7, 0, 0, 0, 0, 0, 1, 0]);

        // Again: nothing is written, so that flash does not wear.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        let before = fs::metadata(file("Boot0001")).unwrap().modified().unwrap();
        assert_eq!(variables.put_entry(&wanted(r"\EFI\BOOT\BOOTX64.EFI"), false).unwrap(), written);
        assert_eq!(fs::metadata(file("Boot0001")).unwrap().modified().unwrap(), before);

        let other = variables.put_entry(&wanted(r"\EFI\debian\grubx64.efi"), true).unwrap();
        assert_eq!(other, Written { number: 1, order: vec![1, 0] });
    }

    #[test]
    fn a_bios_machine_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let mut host = Host::default();
        host.sys = directory.path().into();
        let said = host.variables().unwrap_err().to_string();
        assert!(said.contains("booted by BIOS"), "{said}");
    }
}
