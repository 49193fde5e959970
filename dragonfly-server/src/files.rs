//! Small files that only their owner may read: keys and tokens.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What the file holds; if it does not exist, it is made with what `make` gives, mode 0600.
///
/// Two servers that start at once end with the same content: the file appears whole or not at all,
/// and the one that comes second reads what the first wrote.
pub(crate) fn read_or_create(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => {
            let bytes = other?;
            // An operator's `cp` may have opened it to others.
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            return Ok(bytes);
        }
    }
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    let bytes = make()?;
    let placed = place(path, |mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    })?;
    if placed { Ok(bytes) } else { std::fs::read(path) }
}

/// Makes a file, mode 0600, that appears whole or not at all: `fill` writes and syncs it. Whether it
/// is this one that is there now, and not another's.
pub(crate) fn place(path: &Path, fill: impl FnOnce(File) -> io::Result<()>) -> io::Result<bool> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    // Unlike a rename, a link never takes the place of what another has made meanwhile.
    let placed = fill(file).and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    match placed {
        Ok(()) => {
            sync_directory(path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a file, mode 0600, in the place of what is there: a reader sees the one or the other, whole. `fill` writes and
/// syncs it.
pub(crate) fn replace(path: &Path, fill: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    let draft = path.with_extension("draft");
    // What an end in the middle has left may belong to somebody else, or be open to others.
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    if let Err(error) = fill(file).and_then(|()| std::fs::rename(&draft, path)) {
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    sync_directory(path)
}

/// What is wrong with bytes that should be a key as this program makes them: 32 random ones.
pub(crate) fn check_key(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [] => Err("it is empty".to_owned()),
        [first, rest @ ..] if bytes.len() == 32 => match rest.iter().all(|byte| byte == first) {
            // What a file system may leave of a file after a power cut, and no random numbers.
            true => Err("all of its bytes are the same".to_owned()),
            false => Ok(()),
        },
        [_] => Err("it holds 1 byte, and a key is 32 bytes".to_owned()),
        _ => Err(format!("it holds {} bytes, and a key is 32 bytes", bytes.len())),
    }
}

/// Makes a new name durable: the file's own sync does not.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Makes a directory and those above it; new ones are closed to others.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        assert_eq!(read_or_create(&path, || Ok(b"one".to_vec())).unwrap(), b"one");
        assert_eq!(read_or_create(&path, || Ok(b"two".to_vec())).unwrap(), b"one");
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        read_or_create(&path, || unreachable!()).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    }
}
