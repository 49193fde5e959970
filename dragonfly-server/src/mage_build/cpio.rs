//! Writing `newc` cpio archives, the format of initial RAM disks (Linux: buffer-format.rst).

use std::collections::BTreeSet;

/// An archive that grows. The same content gives the same bytes: times are zero, owners root.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    seen: BTreeSet<String>,
}

impl Archive {
    /// A directory and those above it.
    pub(super) fn dir(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.seen.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.dir(above);
        }
        self.entry(path, 0o040_755, (0, 0), &[]);
    }

    /// A file, with the directories it needs.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.above(path);
        self.entry(path, 0o100_000 | mode, (0, 0), data);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.above(path);
        self.entry(path, 0o120_777, (0, 0), to.as_bytes());
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.above(path);
        self.entry(path, 0o020_000 | mode, (major, minor), &[]);
    }

    /// Whether something of this name is in it.
    pub(super) fn has(&self, path: &str) -> bool {
        self.seen.contains(path.trim_matches('/'))
    }

    /// The whole archive, padded as cpio does.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((above, _)) = path.trim_matches('/').rsplit_once('/') {
            self.dir(above);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        let path = path.trim_matches('/');
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        self.inode += 1;
        self.bytes.extend_from_slice(b"070701");
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let fields =
            [self.inode, mode, 0, 0, links, 0, data.len() as u32, 0, 0, device.0, device.1, path.len() as u32 + 1, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn gnu_cpio_reads_it() {
        let mut archive = Archive::default();
        archive.file("a/b/c.txt", 0o640, b"hello");
        archive.link("a/l", "b/c.txt");
        archive.dir("a/b");
        archive.device("dev/console", 0o600, 5, 1);
        assert!(archive.has("/a/b"));
        let bytes = archive.finish();
        let mut cpio = Command::new("cpio")
            .arg("-itv")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        for want in ["-rw-r-----", "a/b/c.txt", "a/l -> b/c.txt", "5,   1", "dev/console"] {
            assert!(text.contains(want), "{want} in {text}");
        }
        assert_eq!(text.lines().count(), 6);
    }
}
