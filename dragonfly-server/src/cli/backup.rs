//! `backup` and `restore`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use dragonfly_core::store::redb;

use super::client::Client;
use super::output::{self, Out};
use crate::files;
use crate::serve::STORE_FILE;

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

/// Makes a data directory's store from a backup, if there is none.
pub(super) async fn restore(out: &Out, from: &Path, data: &Path) -> anyhow::Result<()> {
    files::create_dir(data).with_context(|| format!("the data directory {} cannot be made", data.display()))?;
    let to = data.join(STORE_FILE);
    let restored = redb::restore(from, &to).await?;
    for (plural, count) in restored.objects.iter().filter(|(_, count)| **count > 0) {
        out.line(&format!("{count} {plural}"))?;
    }
    if !data.join("sealing.key").exists() {
        output::note("no sealing.key is here: put the old one back before the server starts, or its secrets are lost");
    }
    Ok(())
}
