//! What SQLite's failures mean to those who use the store.

use std::path::Path;
use std::sync::Arc;

use dragonfly_core::store::StoreError;
use rusqlite::ffi::ErrorCode;

use crate::NAME;
use crate::place::FORMAT;

/// Why a call is not done: its own fault, or the file's.
pub(crate) enum Trouble {
    Its(StoreError),
    File(rusqlite::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Its(error)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error)
    }
}

impl From<rusqlite::types::FromSqlError> for Trouble {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::File(error.into())
    }
}

/// A file that trying again does not mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path} was written by a newer version (format {found}; this one knows {FORMAT}): use that version again")]
    Newer { path: String, found: i64 },
    #[error("{path} is an SQLite file, but not one of ours")]
    Foreign { path: String },
    #[error("{path} is damaged or is no store: move it away and restore a backup")]
    Damaged {
        path: String,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("{path} is damaged or is no store ({what}): move it away and restore a backup")]
    NoStore { path: String, what: &'static str },
    #[error(
        "{path} is gone, and {path}-wal, which holds its last writes, is there: put it back, or move that away too"
    )]
    Orphan { path: String },
    #[error("{path} failed")]
    Other {
        path: String,
        #[source]
        source: Arc<rusqlite::Error>,
    },
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::Backend { store: NAME, source: error.into() }
    }
}

/// What an error of SQLite's means.
pub(crate) fn failed(path: &Path, error: Arc<rusqlite::Error>) -> StoreError {
    let path = path.display().to_string();
    let what = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            "is locked by another process: stop what else has it open"
        }
        Some(ErrorCode::DiskFull) => "cannot grow: make room on its disk; the store goes on by itself",
        // A quota or a limit on the size of files comes as this.
        Some(ErrorCode::SystemIoFailure) => {
            "cannot be read or written: see whether its disk is full or broken; the store goes on by itself"
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => "may not be written by this user",
        Some(ErrorCode::CannotOpen) => "cannot be opened: see who may read and write it and its directory",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return FileError::Damaged { path, source: error }.into();
        }
        // A row that is not as we wrote it.
        None => return FileError::Damaged { path, source: error }.into(),
        Some(_) => return FileError::Other { path, source: error }.into(),
    };
    StoreError::Unavailable { store: NAME, what: format!("{path} {what}"), source: Some(error.into()) }
}

/// What an error beside SQLite means.
pub(crate) fn unreachable(path: &Path, error: std::io::Error) -> StoreError {
    let what = match error.kind() {
        std::io::ErrorKind::NotFound => ": its directory does not exist",
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            " may not be read and written by this user"
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => " cannot be made: make room on its disk",
        _ => " cannot be read or written",
    };
    StoreError::Unavailable { store: NAME, what: format!("{}{what}", path.display()), source: Some(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do() {
        let told = |code: i32| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let told = failed(Path::new("/d/s"), Arc::new(error));
            let text = match &told {
                StoreError::Backend { source, .. } => source.to_string(),
                other => other.to_string(),
            };
            (text, told.is_retryable())
        };
        // (SQLite's code, what is said, whether trying again may help)
        let table = [
            (rusqlite::ffi::SQLITE_BUSY, "locked by another process", true),
            (rusqlite::ffi::SQLITE_BUSY_SNAPSHOT, "locked by another process", true),
            (rusqlite::ffi::SQLITE_FULL, "make room on its disk", true),
            (rusqlite::ffi::SQLITE_IOERR_WRITE, "full or broken", true),
            (rusqlite::ffi::SQLITE_IOERR_FSYNC, "full or broken", true),
            (rusqlite::ffi::SQLITE_READONLY, "may not be written", true),
            (rusqlite::ffi::SQLITE_CANTOPEN, "cannot be opened", true),
            (rusqlite::ffi::SQLITE_CORRUPT, "restore a backup", false),
            (rusqlite::ffi::SQLITE_NOTADB, "restore a backup", false),
            (rusqlite::ffi::SQLITE_NOMEM, "failed", false),
        ];
        for (code, want, retryable) in table {
            let (text, may_pass) = told(code);
            assert!(text.contains(want) && text.contains("/d/s"), "{code}: {text}");
            assert_eq!(may_pass, retryable, "{code}: {text}");
        }
    }
}
