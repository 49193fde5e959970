//! Choosing modules: the wanted drivers with all they stand on, and an index of just those.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules of one kernel, as depmod describes them.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    release: String,
    /// By module name: its file below the root, and the names of what it needs.
    files: BTreeMap<String, (String, Vec<String>)>,
    aliases: String,
    softdeps: String,
    builtin: BTreeSet<String>,
}

/// What goes into the RAM disk.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Module names.
    pub(super) files: BTreeSet<String>,
    /// Wanted drivers that are there, as modules or in the kernel.
    pub(super) drivers: Vec<String>,
    /// Wanted drivers that this kernel does not have.
    pub(super) missing: BTreeSet<String>,
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Tree {
    /// Reads what depmod wrote in a directory such as `lib/modules/6.1.0-56-amd64`.
    pub(super) fn open(root: &Path, release: &str) -> Result<Self> {
        let dep = root.join("modules.dep");
        let dep = std::fs::read_to_string(&dep).with_context(|| format!("cannot read {}", dep.display()))?;
        let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let files = dep
            .lines()
            .filter_map(|line| {
                let (path, needs) = line.split_once(':')?;
                Some((name_of(path), (path.to_owned(), needs.split_ascii_whitespace().map(name_of).collect())))
            })
            .collect();
        Ok(Self {
            root: root.to_owned(),
            release: release.to_owned(),
            files,
            aliases: text("modules.alias"),
            softdeps: text("modules.softdep"),
            builtin: text("modules.builtin").lines().map(name_of).collect(),
        })
    }

    /// How many modules there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The wanted drivers with everything they need, firmly or softly.
    pub(super) fn select<'a>(&self, wanted: impl Iterator<Item = &'a str>) -> Selection {
        let mut selection = Selection::default();
        for driver in wanted {
            if self.files.contains_key(driver) {
                self.add(driver, &mut selection.files);
                selection.drivers.push(driver.to_owned());
            } else if self.builtin.contains(driver) {
                selection.drivers.push(driver.to_owned());
            } else {
                selection.missing.insert(driver.to_owned());
            }
        }
        selection
    }

    fn add(&self, module: &str, into: &mut BTreeSet<String>) {
        let Some((_, needs)) = self.files.get(module) else {
            // A soft need may be an alias: `crc32c` is whatever computes it.
            for real in self.behind_alias(module) {
                self.add(&real, into);
            }
            return;
        };
        if !into.insert(module.to_owned()) {
            return;
        }
        for need in needs {
            self.add(need, into);
        }
        for soft in self.soft_needs(module) {
            self.add(&soft, into);
        }
    }

    fn behind_alias(&self, alias: &str) -> Vec<String> {
        let words = self.aliases.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("alias")).then(|| (words.next(), words.next()))
        });
        words
            .filter_map(|(name, module)| {
                let module = module?.replace('-', "_");
                (name?.replace('-', "_") == alias && self.files.contains_key(&module)).then_some(module)
            })
            .collect()
    }

    fn soft_needs(&self, module: &str) -> Vec<String> {
        self.softdeps
            .lines()
            .filter_map(|line| line.strip_prefix("softdep "))
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| name.replace('-', "_") == module)
            .flat_map(|(_, needs)| needs.split_ascii_whitespace())
            .filter(|word| !word.ends_with(':'))
            .map(|word| word.replace('-', "_"))
            .collect()
    }

    /// Every selected module: its path below `lib/modules/RELEASE`, without a compression suffix, and
    /// its content, decompressed: the archive around it is compressed as a whole.
    pub(super) fn contents(&self, selection: &Selection) -> Result<Vec<(String, Vec<u8>)>> {
        let mut contents = Vec::new();
        for name in &selection.files {
            let Some((path, _)) = self.files.get(name) else { continue };
            let file = self.root.join(path);
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let suffix = path.rsplit(".ko").next().unwrap_or_default();
            let plain = unpack(suffix, bytes).with_context(|| format!("cannot unpack {}", file.display()))?;
            contents.push((plain_name(path).to_owned(), plain));
        }
        Ok(contents)
    }

    /// `modules.dep`, `modules.alias` and `modules.softdep` of what was selected.
    pub(super) fn index(&self, selection: &Selection) -> [(&'static str, String); 3] {
        let mut dep = String::new();
        for name in &selection.files {
            let Some((path, needs)) = self.files.get(name) else { continue };
            dep += plain_name(path);
            dep.push(':');
            for need in needs.iter().filter_map(|n| self.files.get(n)) {
                dep.push(' ');
                dep += plain_name(&need.0);
            }
            dep.push('\n');
        }
        let keep = |text: &str, module: fn(&str) -> Option<&str>| -> String {
            let kept =
                text.lines().filter(|l| module(l).is_some_and(|m| selection.files.contains(&m.replace('-', "_"))));
            kept.map(|l| format!("{l}\n")).collect()
        };
        let alias = keep(&self.aliases, |l| l.strip_prefix("alias ")?.split_ascii_whitespace().nth(1));
        let softdep = keep(&self.softdeps, |l| l.strip_prefix("softdep ")?.split_ascii_whitespace().next());
        [("modules.dep", dep), ("modules.alias", alias), ("modules.softdep", softdep)]
    }

    /// Whether a module drives network cards.
    pub(super) fn is_network_driver(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|(path, _)| path.contains("/drivers/net/"))
    }

    /// What `modules.alias` says.
    pub(super) fn aliases(&self) -> &str {
        &self.aliases
    }

    /// Which kernel they belong to.
    pub(super) fn release(&self) -> &str {
        &self.release
    }
}

/// A module's path without `.gz`, `.xz` or `.zst`.
fn plain_name(path: &str) -> &str {
    path.find(".ko").and_then(|at| path.get(..at + 3)).unwrap_or(path)
}

/// Unpacks a file by its name's suffix: nothing, `.gz`, `.xz` or `.zst`.
pub(super) fn unpack(suffix: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    /// No module and no firmware is this long.
    const MOST: u64 = 256 << 20;
    let mut plain = Vec::new();
    match suffix {
        "" => return Ok(bytes),
        ".gz" => flate2::read::MultiGzDecoder::new(&bytes[..]).take(MOST).read_to_end(&mut plain)?,
        ".zst" => zstd::Decoder::new(&bytes[..])?.take(MOST).read_to_end(&mut plain)?,
        ".xz" => liblzma::read::XzDecoder::new(&bytes[..]).take(MOST).read_to_end(&mut plain)?,
        _ => bail!("it is compressed in an unknown way"),
    };
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write(
            "modules.dep",
            b"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\nkernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc32c-generic.ko.gz:\n\
              kernel/net/other.ko:\n",
        );
        write("modules.alias", b"# x\nalias fs-ext4 ext4\nalias crc32c crc32c_generic\nalias pci:v1* other\n");
        write("modules.softdep", b"softdep ext4 pre: crc32c\nsoftdep other pre: ext4\n");
        write("modules.builtin", b"kernel/drivers/nvme/nvme.ko\n");
        write("kernel/fs/ext4/ext4.ko", b"ext4");
        write("kernel/fs/jbd2/jbd2.ko", b"jbd2");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"crc").unwrap();
        write("kernel/lib/crc32c-generic.ko.gz", &gz.finish().unwrap());
        let tree = Tree::open(dir.path(), "6.1").unwrap();
        (dir, tree)
    }

    #[test]
    fn takes_a_driver_with_all_it_stands_on() {
        let (_dir, tree) = tree();
        let selection = tree.select(["ext4", "nvme", "nothing"].into_iter());
        let names: Vec<&str> = selection.files.iter().map(String::as_str).collect();
        assert_eq!(names, ["crc32c_generic", "ext4", "jbd2"]);
        assert_eq!(selection.drivers, ["ext4", "nvme"]);
        assert!(selection.missing.contains("nothing"));
        let contents = tree.contents(&selection).unwrap();
        assert!(contents.contains(&("kernel/lib/crc32c-generic.ko".to_owned(), b"crc".to_vec())));
        let [dep, alias, softdep] = tree.index(&selection).map(|(_, text)| text);
        assert!(
            dep.contains("kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n")
                && dep.contains("kernel/lib/crc32c-generic.ko:\n"),
            "{dep}"
        );
        assert_eq!(alias, "alias fs-ext4 ext4\nalias crc32c crc32c_generic\n");
        assert_eq!(softdep, "softdep ext4 pre: crc32c\n");
    }
}
