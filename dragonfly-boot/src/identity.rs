//! The archive that tells the agent who it is: a second RAM disk image that the kernel unpacks over
//! the first.
//!
//! It holds the token that opens one session, so it is made anew for every boot and never kept.

use dragonfly_core::wire::Identity;

/// Where the agent finds it.
pub const PATH: &str = "dragonfly/identity.json";

/// Why an identity cannot be handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It does not become JSON.
    #[error("the identity cannot be written as JSON")]
    Json {
        /// The cause.
        #[source]
        source: dragonfly_core::Source,
    },
    /// The room that the unified kernel image reserves is too small.
    #[error("an identity of {needed} bytes does not fit into the {room} bytes that mage.efi reserves; build it anew")]
    TooLarge {
        /// The archive's size.
        needed: usize,
        /// The reserved size.
        room: u64,
    },
}

/// The archive: directory `dragonfly` (0700) and `identity.json` (0400) in it, both root's.
pub fn archive(identity: &Identity) -> Result<Vec<u8>, IdentityError> {
    let json = serde_json::to_vec(identity).map_err(|e| IdentityError::Json { source: e.into() })?;
    // Names and sizes are ours and small: the format's 32-bit fields hold them.
    let mut out = Vec::with_capacity(json.len() + 512);
    entry(&mut out, 1, DIRECTORY | 0o700, "dragonfly", &[]);
    entry(&mut out, 2, REGULAR | 0o400, PATH, &json);
    entry(&mut out, 0, 0, "TRAILER!!!", &[]);
    Ok(out)
}

/// The archive, filled with zeros to exactly `room` bytes: what takes the place of the reserved area
/// in a unified kernel image. The kernel skips zeros between and after archives.
pub fn fill(identity: &Identity, room: u64) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = archive(identity)?;
    match usize::try_from(room) {
        Ok(size) if bytes.len() <= size => bytes.resize(size, 0),
        _ => return Err(IdentityError::TooLarge { needed: bytes.len(), room }),
    }
    Ok(bytes)
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// One member in the "newc" form that the kernel reads (its documentation:
/// `driver-api/early-userspace/buffer-format`): a magic number, thirteen fields of eight hex digits,
/// the name, the content, each filled up to four bytes.
fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let links: u32 = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
    let [size, name_size] = [content.len(), name.len() + 1].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    // inode mode uid gid links mtime size dev-major dev-minor rdev-major rdev-minor name-size check
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::Mac;
    use dragonfly_core::clock::Timestamp;

    fn identity() -> Identity {
        Identity {
            server: "https://192.168.77.1:3000".parse().unwrap(),
            also: Vec::new(),
            pin: "ab".repeat(32),
            token: "t".repeat(43).into(),
            mac: Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]),
            time: Timestamp::from_unix_seconds(1_800_000_000),
        }
    }

    /// The judge is the reader that everybody has.
    #[test]
    fn cpio_unpacks_it() {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        use std::process::{Command, Stdio};
        let dir = tempfile::tempdir().unwrap();
        let spawned = Command::new("cpio")
            .args(["--extract", "--make-directories", "--quiet", "--no-preserve-owner"])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = spawned else {
            assert!(std::env::var_os("CI").is_none(), "cpio is not installed");
            println!("skipped: cpio is not installed");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&fill(&identity(), 8192).unwrap()).unwrap();
        assert!(cpio.wait().unwrap().success());
        let file = dir.path().join(PATH);
        let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&file), mode(&dir.path().join("dragonfly"))), (0o400, 0o700));
        let read: Identity = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(read, identity());
    }

    #[test]
    fn it_fits_exactly_or_not_at_all() {
        assert_eq!(fill(&identity(), 8192).unwrap().len(), 8192);
        let size = archive(&identity()).unwrap().len();
        assert_eq!(size % 4, 0);
        assert_eq!(fill(&identity(), size as u64).unwrap().len(), size);
        assert!(matches!(fill(&identity(), size as u64 - 1), Err(IdentityError::TooLarge { .. })));
    }
}
