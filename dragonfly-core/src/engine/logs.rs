//! Agents' logs: a file for each attempt, 8 MiB at most, and its last 64 KiB in the workflow.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Engine, EngineError, Result};
use crate::resource::WorkflowSpec;
use crate::text::acts;
use crate::timeline::LogPart;

/// The most that is kept of one log.
const MAX_LOG: u64 = 8 * 1024 * 1024;
/// How much of a log a workflow carries.
const TAIL: u64 = 64 * 1024;

impl Engine {
    /// Adds to a machine's log at `offset` bytes from its beginning; a part sent twice changes nothing.
    ///
    /// # Errors
    /// `Unauthenticated`; `Log` when the disk fails.
    pub async fn log(&self, session: &str, offset: u64, bytes: Bytes) -> Result<()> {
        let (claims, machine) = self.session(session).await?;
        let run = machine.status.workflow.as_deref().and_then(|run| self.inner.cache.get::<WorkflowSpec>(run));
        let mask = run.map(|run| self.mask(&machine, &run)).unwrap_or_default();
        let part = LogPart { offset, bytes: &bytes };
        self.inner.recorder.log(machine.name(), claims.id, part, self.now(), |text| mask.hide(text).into_owned());
        let Some(path) = self.log_path(&claims.machine, &claims.id.to_string()) else { return Ok(()) };
        let name = machine.name().to_owned();
        let written = tokio::task::spawn_blocking(move || append(&path, offset, &bytes)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(EngineError::Log { machine: name, source }),
            Err(stopped) => Err(EngineError::Log { machine: name, source: std::io::Error::other(stopped) }),
        }
    }

    /// The last part of what a machine's agent wrote, 64 KiB at most.
    ///
    /// # Errors
    /// `NotFound`; `Log` when the disk fails.
    pub async fn read_log(&self, machine: &str) -> Result<String> {
        let name = self.resolve(machine)?;
        let object = self.machine(&name)?;
        let run = object.status.workflow.as_deref().and_then(|run| self.inner.cache.get::<WorkflowSpec>(run));
        let mask = run.map(|run| self.mask(&object, &run)).unwrap_or_default();
        let session = object.status.session.as_ref().map(|s| s.id.to_string());
        let Some(path) = session.and_then(|id| self.log_path(&name, &id)) else { return Ok(String::new()) };
        match tokio::task::spawn_blocking(move || tail(&path)).await {
            Ok(Ok(text)) => Ok(mask.hide(&text).into_owned()),
            Ok(Err(source)) if source.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Ok(Err(source)) => Err(EngineError::Log { machine: name, source }),
            Err(stopped) => Err(EngineError::Log { machine: name, source: std::io::Error::other(stopped) }),
        }
    }

    /// What a workflow is to carry of its log. Small and local: read in place.
    pub(super) fn log_tail(&self, machine: &str, run: &str, _attempt: u32) -> Option<String> {
        let run = self.inner.cache.get::<WorkflowSpec>(run)?;
        let text = tail(&self.log_path(machine, run.status.session.as_deref()?)?).ok()?;
        Some(self.mask(self.machine(machine).ok()?.as_ref(), &run).hide(&text).into_owned())
    }

    fn log_path(&self, machine: &str, session: &str) -> Option<PathBuf> {
        // Both are ours: a checked object name and a UUID.
        Some(self.inner.logs.as_ref()?.join(machine).join(format!("{session}.log")))
    }
}

fn append(path: &Path, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let have = file.metadata()?.len();
    // What was sent before is skipped; a part that is missing between is left as a gap of nothing.
    let skip = usize::try_from(have.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
    let room = usize::try_from(MAX_LOG.saturating_sub(have)).unwrap_or(usize::MAX);
    let part = bytes.get(skip..).unwrap_or_default();
    let part = part.get(..room.min(part.len())).unwrap_or_default();
    file.seek(SeekFrom::End(0))?;
    file.write_all(part)
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(clean(&bytes))
}

/// Text that can be shown anywhere: what an agent writes is a stranger's word. Control characters other
/// than line feeds and tabs are taken out.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !acts(*c) || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_may_come_twice_and_the_end_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m/s.log");
        append(&path, 0, b"hello ").unwrap();
        append(&path, 0, b"hello ").unwrap();
        append(&path, 3, b"lo world").unwrap();
        assert_eq!(tail(&path).unwrap(), "hello world");
        append(&path, 11, &vec![b'x'; MAX_LOG as usize]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_LOG);
        append(&path, MAX_LOG, b"more").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_LOG);
        assert_eq!(tail(&path).unwrap().len() as u64, TAIL);
    }

    #[test]
    fn terminal_codes_do_not_get_through() {
        assert_eq!(clean(b"a\x1b[31mb\x07\n\tc\xff"), "a[31mb\n\tc\u{fffd}");
    }
}
