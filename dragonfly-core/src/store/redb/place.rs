//! Where the file is: how it comes into being, and is found.

use std::path::{Path, PathBuf};

use redb::Database;

use super::seal::{self, Judged};
use super::trial::is_whole;

/// Opens the file, or makes it when there is none. Every page is read first, if it is to be `checked`.
pub(super) fn open_path(path: &Path, page_cache: usize, checked: bool) -> Result<Database, redb::Error> {
    if !path.exists() {
        make(path)?;
    }
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    // redb takes an empty file for a new one: what was ours has lost all it held.
    if file.metadata()?.len() == 0 {
        return Err(redb::Error::Corrupted("it is empty".to_owned()));
    }
    // Nobody else writes to it while it is looked at.
    lock(&file)?;
    // A backup that was copied here by hand, not by `restore`.
    match seal::unseal(&mut file, &mut std::io::sink())? {
        Judged::NotSealed => {}
        Judged::Whole => seal::open(&file)?,
        Judged::Altered => return Err(redb::Error::Corrupted("it is a backup that was altered".to_owned())),
    }
    let whole = !checked || is_whole(&file, page_cache)?;
    let mut database = Database::builder().set_cache_size(page_cache).create_file(file)?;
    if !whole {
        database.check_integrity()?;
    }
    Ok(database)
}

/// For this process, as long as the file is open.
fn lock(file: &std::fs::File) -> Result<(), redb::Error> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(redb::Error::DatabaseAlreadyOpen),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Makes a file that is found whole or not at all: redb cannot open one that it had only begun when
/// the power went.
fn make(path: &Path) -> Result<(), redb::Error> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new-{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let file = create(&draft)?;
    lock(&file)?;
    // What an earlier start left of it.
    file.set_len(0)?;
    drop(Database::builder().create_file(file)?);
    // Unlike a rename, a link never takes the place of what another server has made meanwhile.
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft).ok();
    match linked {
        Err(error) if !path.exists() => Err(error.into()),
        _ => Ok(sync_directory(path)?),
    }
}

/// A file for its owner's eyes, with what is in it already.
pub(super) fn create(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Makes a new name durable: the file's own fsync does not.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory)?.sync_all()
}
