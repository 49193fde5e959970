//! A store from a backup.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::{Result, StoreError};
#[cfg(doc)]
use super::RedbStore;
use super::copy::{Verified, verify};
use super::place::{create, sync_directory};
use super::seal::{self, Judged};
use super::{NAME, blocking};

#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("{path} is no backup, or its end is missing: nothing was restored")]
    NotSealed { path: String },
    #[error("{path} is damaged, it is not what was backed up: nothing was restored; take another backup")]
    Altered { path: String },
    #[error("{path} holds what is no sound store ({first}): nothing was restored; take another backup")]
    Unsound { path: String, first: String },
}

/// Makes a store at `to`, which must not exist, from a [backup](RedbStore::backup), of which every byte is
/// checked first. `to` appears whole or not at all. It [is marked](RedbStore::is_restored) as what it is.
pub async fn restore(backup: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Result<Verified> {
    let (backup, to) = (backup.into(), to.into());
    blocking(move || {
        let mut draft = to.clone().into_os_string();
        draft.push(format!(".restored-{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let filled = fill(&backup, &draft, &to).and_then(|verified| {
            // Unlike a rename, a link never takes the place of what is there.
            let linked = std::fs::hard_link(&draft, &to).and_then(|()| sync_directory(&to));
            linked.map_err(|error| refused(format!("{} cannot be made", to.display()), error)).map(|()| verified)
        });
        std::fs::remove_file(&draft).ok();
        filled
    })
    .await
}

fn refused(what: String, error: std::io::Error) -> StoreError {
    StoreError::Unavailable { store: NAME, what, source: Some(error.into()) }
}

/// Writes a backup's content to `draft` and looks through it.
fn fill(backup: &Path, draft: &Path, to: &Path) -> Result<Verified> {
    let unusable = |error: RestoreError| StoreError::Backend { store: NAME, source: error.into() };
    let path = || backup.display().to_string();
    if to.exists() {
        let what = format!("{} is there already: stop its server and move it away first", to.display());
        return Err(refused(what, std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut from = File::open(backup).map_err(|error| refused(format!("{} cannot be read", path()), error))?;
    let mut copied = || {
        let mut file = create(draft)?;
        file.set_len(0)?;
        let judged = seal::unseal(&mut from, &mut file)?;
        file.sync_all()?;
        Ok(judged)
    };
    match copied().map_err(|error| refused(format!("{} cannot be copied to {}", path(), draft.display()), error))? {
        Judged::Whole => {}
        Judged::NotSealed => return Err(unusable(RestoreError::NotSealed { path: path() })),
        Judged::Altered => return Err(unusable(RestoreError::Altered { path: path() })),
    }
    let verified = verify(draft)?;
    match verified.problems.first() {
        Some(first) => Err(unusable(RestoreError::Unsound { path: path(), first: first.clone() })),
        None => Ok(verified),
    }
}
