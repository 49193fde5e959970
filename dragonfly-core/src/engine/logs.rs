//! Agents' logs: a file for each attempt, 8 MiB at most, and its last 64 KiB in the workflow. The last ones of each
//! machine are kept, and go with it.

mod files;
mod shelf;

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Engine, EngineError, Result};
use crate::resource::{HardwareSpec, Kind, WorkflowSpec};
use crate::text::acts;
use crate::timeline::LogPart;

pub(super) use shelf::Shelf;

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
        let Some(shelf) = self.inner.logs.clone() else { return Ok(()) };
        let name = machine.name().to_owned();
        let written =
            tokio::task::spawn_blocking(move || shelf.append(&claims.machine, claims.id, offset, &bytes)).await;
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
        Some(self.inner.logs.as_ref()?.path(machine, session))
    }

    /// A machine was deleted: its logs go, but not those of one that has registered under its name meanwhile.
    pub(super) fn forget_log(&self, machine: &str) {
        let Some(shelf) = self.inner.logs.clone() else { return };
        let now = self.inner.cache.get::<HardwareSpec>(machine);
        let but = now.and_then(|now| now.status.session.as_ref().map(|session| session.id));
        let machine = machine.to_owned();
        tokio::task::spawn_blocking(move || shelf.forget(&machine, but));
    }

    /// Machines may have been deleted while nobody told us: the logs of those that are not there go.
    pub(super) fn forget_logs_of_others(&self) {
        let Some(shelf) = self.inner.logs.clone() else { return };
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            shelf.forget_all_but(|| {
                let mut known = HashSet::new();
                engine.inner.cache.each_name(Kind::HARDWARE, |name| {
                    known.insert(name.to_owned());
                });
                known
            });
        });
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    if length > TAIL {
        // The line that it begins within is not shown: a secret that was cut could not be recognised any more.
        let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..begin);
    }
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
    fn the_end_is_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.log");
        std::fs::write(&path, "begin").unwrap();
        assert_eq!(tail(&path).unwrap(), "begin");
        std::fs::write(&path, vec![b'x'; TAIL as usize]).unwrap();
        assert_eq!(tail(&path).unwrap().len() as u64, TAIL);
        // What is cut is left out whole: it may be half a secret.
        std::fs::write(&path, [vec![b'x'; TAIL as usize], b"yz\nthe\nend".to_vec()].concat()).unwrap();
        assert_eq!(tail(&path).unwrap(), "the\nend");
    }

    #[test]
    fn terminal_codes_do_not_get_through() {
        assert_eq!(clean(b"a\x1b[31mb\x07\n\tc\xff"), "a[31mb\n\tc\u{fffd}");
    }
}
