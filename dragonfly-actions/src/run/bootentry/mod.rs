//! What an installed disk would boot: kernel, initial RAM disks and command line, read from the boot
//! loader's own configuration. Pure: the files come through [`Files`].
//!
//! GRUB's scripts, Boot Loader Specification entries and extlinux/syslinux configurations are
//! understood as far as they name Linux kernels. Everything read was written by a stranger: sizes,
//! counts and nesting are bounded.

mod bls;
mod grub;
mod syslinux;
pub(crate) mod version;

use std::collections::BTreeMap;

/// The longest configuration file that is read, in bytes. The largest seen in the field, Debian
/// with a dozen kernels, has 60 KiB.
pub const LONGEST_FILE: u64 = 1 << 20;
/// The most Boot Loader Specification entries that are read.
const MOST_ENTRIES: usize = 512;

/// A file system to look in. Paths are absolute, from the root of the file system.
pub trait Files {
    /// A file's text, if it is there and not longer than [`LONGEST_FILE`].
    fn read(&self, path: &str) -> Option<String>;
    /// The names in a directory, in any order; none if it is not there.
    fn names(&self, directory: &str) -> Vec<String>;
}

/// Something that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// As a menu shows it.
    pub title: String,
    /// The kernel's path, as the boot loader's configuration has it.
    pub kernel: String,
    /// The initial RAM disks' paths, in the order in which they are joined.
    pub initrds: Vec<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The configuration file that it is from.
    pub from: String,
}

/// Why there is nothing to boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootEntryError {
    /// No boot loader's configuration was found.
    #[error("no boot loader configuration was found; looked for {}; give `kernel`, `initrd` and `cmdline` instead", .looked.join(", "))]
    NoConfiguration {
        /// The paths that were tried.
        looked: Vec<&'static str>,
    },
    /// The configuration cannot be understood.
    #[error("{path}:{line}: {problem}; give `kernel`, `initrd` and `cmdline` instead")]
    Syntax {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// No entry has that title or id.
    #[error("{path} has no entry `{wanted}`; there are: {}", .known.join(", "))]
    NoSuchEntry {
        /// The file or directory.
        path: String,
        /// What was asked for.
        wanted: String,
        /// The titles that there are.
        known: Vec<String>,
    },
    /// The entry starts no Linux kernel.
    #[error("the entry `{title}` of {path} loads no Linux kernel; name another with `entry`, or give `kernel`")]
    NoKernel {
        /// The file or directory.
        path: String,
        /// The entry.
        title: String,
    },
    /// The configuration has no entries.
    #[error("{path} has no boot entries; give `kernel`, `initrd` and `cmdline` instead")]
    Empty {
        /// The file or directory.
        path: String,
    },
}

/// One line of a boot menu: an entry, or a submenu.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    title: String,
    id: Option<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Entry(Option<Loads>),
    Submenu(Vec<Item>),
}

/// What an entry loads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Loads {
    kernel: String,
    initrds: Vec<String>,
    cmdline: String,
}

/// A menu with the choice that is made when nobody presses a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Menu {
    items: Vec<Item>,
    default: String,
}

const GRUB: [&str; 4] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
const BLS: [&str; 4] = ["/boot/loader/entries", "/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries"];
const SYSLINUX: [&str; 8] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/boot/syslinux.cfg",
    "/syslinux.cfg",
];

/// What these files would boot: the boot loader's default, or the entry of this title or id.
pub fn find(files: &dyn Files, wanted: Option<&str>) -> Result<BootEntry, BootEntryError> {
    for path in GRUB {
        if let Some(text) = files.read(path) {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let environment = files.read(&format!("{directory}/grubenv"));
            let bls = |variables: &BTreeMap<String, String>| bls_items(files, variables).1;
            let menu = grub::read(path, directory, &text, environment.as_deref(), &bls)?;
            return choose(path, menu, wanted);
        }
    }
    let (directory, items) = bls_items(files, &BTreeMap::new());
    if let Some(directory) = directory {
        let loader = directory.strip_suffix("/entries").unwrap_or(directory);
        let settings = files.read(&format!("{loader}/loader.conf")).unwrap_or_default();
        let default = bls::default(&settings, &items);
        return choose(directory, Menu { items, default }, wanted);
    }
    for path in SYSLINUX {
        if let Some(text) = files.read(path) {
            return choose(path, syslinux::read(path, &text), wanted);
        }
    }
    Err(BootEntryError::NoConfiguration { looked: GRUB.into_iter().chain(BLS).chain(SYSLINUX).collect() })
}

fn bls_items(files: &dyn Files, variables: &BTreeMap<String, String>) -> (Option<&'static str>, Vec<Item>) {
    for directory in BLS {
        let mut names: Vec<String> =
            files.names(directory).into_iter().filter(|name| name.ends_with(".conf")).take(MOST_ENTRIES).collect();
        names.sort();
        let texts: Vec<(String, String)> = names
            .into_iter()
            .filter_map(|name| files.read(&format!("{directory}/{name}")).map(|text| (name, text)))
            .collect();
        if !texts.is_empty() {
            return (Some(directory), bls::items(&texts, variables));
        }
    }
    (None, Vec::new())
}

fn choose(path: &str, menu: Menu, wanted: Option<&str>) -> Result<BootEntry, BootEntryError> {
    let item = match wanted {
        Some(wanted) => by_path(&menu.items, wanted).or_else(|| anywhere(&menu.items, wanted)).ok_or_else(|| {
            BootEntryError::NoSuchEntry { path: path.into(), wanted: wanted.into(), known: titles(&menu.items) }
        })?,
        // A default that is not there is the first entry: so do GRUB and syslinux.
        None => by_path(&menu.items, &menu.default)
            .or_else(|| menu.items.first())
            .ok_or_else(|| BootEntryError::Empty { path: path.into() })?,
    };
    let mut item = item;
    // A submenu as the choice opens with its first line.
    while let What::Submenu(items) = &item.what {
        item = items.first().ok_or_else(|| BootEntryError::Empty { path: format!("{path}: {}", item.title) })?;
    }
    match &item.what {
        What::Entry(Some(loads)) => Ok(BootEntry {
            title: item.title.clone(),
            kernel: loads.kernel.clone(),
            initrds: loads.initrds.clone(),
            cmdline: loads.cmdline.clone(),
            from: path.to_owned(),
        }),
        _ => Err(BootEntryError::NoKernel { path: path.into(), title: item.title.clone() }),
    }
}

/// `1>2`, `gnulinux-advanced-x>gnulinux-6.1`, a title, an id, a number: as GRUB's `default` has it.
fn by_path<'a>(items: &'a [Item], path: &str) -> Option<&'a Item> {
    // A title may itself contain `>`: the whole first.
    if let Some(item) = named(items, path) {
        return Some(item);
    }
    let (first, rest) = path.split_once('>')?;
    match &named(items, first)?.what {
        What::Submenu(items) => by_path(items, rest),
        What::Entry(_) => None,
    }
}

fn named<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    let is = |item: &&Item| item.id.as_deref() == Some(name) || item.title == name;
    items.iter().find(is).or_else(|| items.get(name.parse::<usize>().ok()?))
}

fn anywhere<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    items.iter().find_map(|item| match &item.what {
        _ if item.id.as_deref() == Some(name) || item.title == name => Some(item),
        What::Submenu(items) => anywhere(items, name),
        What::Entry(_) => None,
    })
}

/// For an error: enough to choose from, not the whole menu of a stranger.
fn titles(items: &[Item]) -> Vec<String> {
    let mut titles = Vec::new();
    let mut rest: Vec<&Item> = items.iter().rev().collect();
    while let Some(item) = rest.pop() {
        if titles.len() == 20 {
            titles.push("...".to_owned());
            break;
        }
        match &item.what {
            What::Entry(_) => titles.push(format!("`{}`", item.title)),
            What::Submenu(items) => rest.extend(items.iter().rev()),
        }
    }
    titles
}

#[cfg(test)]
mod tests;
