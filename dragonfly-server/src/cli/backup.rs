//! `backup` and `restore`.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use dragonfly_core::resource::Kind;
use dragonfly_core::store::redb;

use super::client::Client;
use super::output::{self, Out};
use crate::backend::STORE_FILE;
use crate::files;

/// Fetches a backup from the running server. The file appears when all of it is there.
pub(super) async fn backup(client: &Client, out: &Out, to: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!to.exists(), "{} is there already: name a new file", to.display());
    let mut answer = client.stream(&["dragonfly", "v1", "backup"], &[]).await?;
    let mut bytes = 0;
    // Beside its place, so that naming it is all that is left.
    let mut draft =
        tempfile::NamedTempFile::new_in(to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .with_context(|| format!("{} cannot be written", to.display()))?;
    while let Some(part) = answer.chunk().await.context("the backup broke off; nothing was kept of it")? {
        draft.write_all(&part).with_context(|| format!("{} cannot be written", to.display()))?;
        bytes += part.len() as u64;
    }
    draft.as_file().sync_all().with_context(|| format!("{} did not reach the disk", to.display()))?;
    draft.persist_noclobber(to).with_context(|| format!("{} cannot be made", to.display()))?;
    files::sync_directory(to)?;
    output::note(
        "the sealing key is not in it: keep sealing.key of the data directory elsewhere, or its secrets are lost",
    );
    Ok(out.line(&format!("{}  {}", to.display(), crate::view::bytes(bytes)))?)
}

/// `3 machines, 1 template`; of what there is something.
fn counted(objects: &BTreeMap<String, u64>) -> String {
    let words = objects.iter().filter(|(_, count)| **count > 0).map(|(plural, count)| {
        let word = if plural == Kind::HARDWARE.plural { "machines" } else { plural.as_str() };
        format!("{count} {}", if *count == 1 { word.trim_end_matches('s') } else { word })
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "it held no objects".to_owned() } else { words.join(", ") }
}

/// Refuses a directory that a server has open, and keeps others from it. Its store may have been moved away under it: a
/// server holds a lock on that file, wherever it is, and on its leases, which stay.
fn unserved(data: &Path) -> anyhow::Result<Vec<File>> {
    let found = std::fs::read_dir(data).with_context(|| format!("{} cannot be read", data.display()))?;
    let mut locked = Vec::new();
    for path in found.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "redb") {
            continue;
        }
        // What this user cannot open says nothing: where the store is to be is found out soon enough.
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "a server runs on this directory; stop it first: it has {} open. Nothing was restored",
                path.display()
            ),
            // Where files have no locks, no server runs.
            Err(TryLockError::Error(_)) => {}
            Ok(()) => locked.push(file),
        }
    }
    Ok(locked)
}

/// Makes a data directory's store from a backup, if there is none.
pub(super) async fn restore(out: &Out, from: &Path, data: &Path) -> anyhow::Result<()> {
    files::create_dir(data).with_context(|| format!("the data directory {} cannot be made", data.display()))?;
    let to = data.join(STORE_FILE);
    anyhow::ensure!(
        !to.exists(),
        "{} is there already, and a store is never overwritten: stop its server and move it away first",
        to.display()
    );
    let _closed = unserved(data)?;
    let restored = redb::restore(from, &to).await?;
    out.line(&format!("{} was restored from {}: {}", to.display(), from.display(), counted(&restored.objects)))?;
    if !data.join("sealing.key").exists() {
        output::note(&format!(
            "Put the old sealing.key into {} before the server starts, or the secrets are lost.",
            data.display()
        ));
    }
    out.line(&format!(
        "Next: start the server with dragonfly --data {}. Machines that had work under way are held then; look at them, \
         then dragonfly release them.",
        data.display()
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_words() {
        let objects = |pairs: &[(&str, u64)]| pairs.iter().map(|(plural, n)| ((*plural).to_owned(), *n)).collect();
        let all = objects(&[("hardware", 3), ("networks", 0), ("templates", 1), ("workflows", 2)]);
        assert_eq!(counted(&all), "3 machines, 1 template, 2 workflows");
        assert_eq!(counted(&objects(&[("hardware", 0)])), "it held no objects");
    }
}
