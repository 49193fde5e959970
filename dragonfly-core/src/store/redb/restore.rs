//! A store from a backup.

use std::fs::File;
use std::path::{Path, PathBuf};

use futures_util::TryFutureExt as _;

use super::super::{Part, Result, Selector, Store as _, StoreError, StoreExt as _, When};
use super::copy::{Verified, verify};
use super::place::{create, sync_directory};
use super::seal::{self, Judged};
use super::{NAME, RedbStore, blocking};
use crate::lifecycle::Phase;
use crate::resource::{Hardware, HardwareSpec, Kind};

/// Why machines are held after a restore.
const HELD: &str = "restored from a backup in which work on it was under way: look what runs on it, then release it";

/// What a restored store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was found in it.
    pub verified: Verified,
    /// Machines that work was under way on when the backup was made: they are held now, for what that
    /// work has come to since is not known.
    pub held: Vec<String>,
}

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
/// checked first. `to` appears whole or not at all.
pub async fn restore(backup: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Result<Restored> {
    let (backup, to) = (backup.into(), to.into());
    let mut draft = to.clone().into_os_string();
    draft.push(format!(".restored-{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let (from, place, target) = (backup, draft.clone(), to.clone());
    let written = blocking(move || fill(&from, &place, &target)).and_then(|verified| async {
        let held = hold(&draft).await?;
        Ok(Restored { verified, held })
    });
    let restored = written.await;
    let place = draft.clone();
    blocking(move || {
        let linked = restored.and_then(|restored| {
            // Unlike a rename, a link never takes the place of what is there.
            let linked = std::fs::hard_link(&place, &to).and_then(|()| sync_directory(&to));
            linked.map_err(|error| refused(format!("{} cannot be made", to.display()), error)).map(|()| restored)
        });
        std::fs::remove_file(&place).ok();
        linked
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

/// Holds every machine that work was under way on.
async fn hold(draft: &Path) -> Result<Vec<String>> {
    let path = draft.to_owned();
    let store = blocking(move || RedbStore::open(path)).await?;
    let mut held = Vec::new();
    for machine in store.all::<HardwareSpec>(&Selector::all()).await? {
        if !at_work(&machine) || machine.spec.hold.is_some() {
            continue;
        }
        let key = super::super::Key::new(Kind::HARDWARE, machine.metadata.name.clone());
        // As it is stored, so that what this version does not know of stays.
        let Some(mut record) = store.get(&key).await? else { continue };
        record.spec["hold"] = HELD.into();
        let when = When::Unchanged(record.metadata.resource_version.clone());
        store.put(record, Part::Spec, when).await?;
        held.push(machine.metadata.name);
    }
    store.close().await?;
    Ok(held)
}

fn at_work(machine: &Hardware) -> bool {
    let status = &machine.status;
    status.authorisation.is_some() || matches!(status.phase, Some(Phase::Assigned | Phase::Provisioning))
}
