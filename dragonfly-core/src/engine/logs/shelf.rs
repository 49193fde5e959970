//! The directory of logs. Everything here waits for the disk: call it where that may be waited for.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use uuid::Uuid;

use super::files::{Files, Name};

/// The most that is kept of one log.
pub(super) const MAX_LOG: u64 = 8 * 1024 * 1024;
/// How a log's file is called, after its session.
const SUFFIX: &str = "log";

/// The directory, and what is known to be in it.
#[derive(Debug)]
pub(in crate::engine) struct Shelf {
    directory: PathBuf,
    most: u64,
    /// Held while a log is measured, added to and counted: parts of one may come at once. Logs share them.
    writing: [Mutex<()>; 16],
    /// Read when it is first needed.
    files: Mutex<Option<Files>>,
}

impl Shelf {
    pub(in crate::engine) fn new(directory: PathBuf, most: u64) -> Self {
        Self { directory, most, writing: Default::default(), files: Mutex::default() }
    }

    /// Where the log of a session is. Both are ours: a checked object name and a UUID.
    pub(super) fn path(&self, machine: &str, session: &str) -> PathBuf {
        self.directory.join(machine).join(format!("{session}.{SUFFIX}"))
    }

    /// Adds to a log, and deletes what is too much then.
    pub(super) fn append(&self, machine: &str, session: Uuid, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(machine, &session.to_string());
        // The array is never empty and the index is below its length.
        let turn = (session.as_u128() % self.writing.len() as u128) as usize;
        let turn = self.writing[turn].lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = append(&path, offset, bytes);
        // Its directory went between, with the last log in it.
        if matches!(&written, Err(error) if error.kind() == ErrorKind::NotFound) {
            written = append(&path, offset, bytes);
        }
        let length = written?;
        let go = self.with(|files| files.wrote(machine, session, length));
        drop(turn);
        self.delete(go);
        Ok(())
    }

    /// Deletes the logs of a machine that is gone, but for those of the session of one that has its name now.
    pub(super) fn forget(&self, machine: &str, but: Option<Uuid>) {
        self.delete(self.with(|files| files.gone(machine, but)));
    }

    /// Deletes the logs of all machines that are not known. They are asked for after it is known who has logs: a
    /// machine is known before its agent writes.
    pub(super) fn forget_all_but(&self, known: impl FnOnce() -> HashSet<String>) {
        let have: Vec<String> = self.with(|files| files.machines().map(str::to_owned).collect());
        if have.is_empty() {
            return;
        }
        let known = known();
        have.iter().filter(|machine| !known.contains(*machine)).for_each(|machine| self.forget(machine, None));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Files) -> T) -> T {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_with(|| {
            let (files, go) = read(&self.directory, self.most);
            self.delete(go);
            files
        });
        work(files)
    }

    fn delete(&self, logs: Vec<Name>) {
        for (machine, session) in logs {
            let path = self.path(&machine, &session.to_string());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "an old log cannot be deleted");
                }
                _ => {}
            }
            // Only an empty one can be removed.
            let _ = path.parent().map(fs::remove_dir);
        }
    }
}

/// Adds to a file; its length then.
fn append(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let have = file.metadata()?.len();
    // What was sent before is skipped; a part that is missing between is left as a gap of nothing.
    let skip = usize::try_from(have.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
    let room = usize::try_from(MAX_LOG.saturating_sub(have)).unwrap_or(usize::MAX);
    let part = bytes.get(skip..).unwrap_or_default();
    let part = part.get(..room.min(part.len())).unwrap_or_default();
    file.seek(SeekFrom::End(0))?;
    file.write_all(part)?;
    Ok(have + part.len() as u64)
}

/// What is in a directory of logs, and what of it is too much. Files that are not ours are left alone.
fn read(directory: &Path, most: u64) -> (Files, Vec<Name>) {
    let inside = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, String, Uuid, u64)> = Vec::new();
    for machine in inside(directory) {
        let Ok(name) = machine.file_name().into_string() else { continue };
        for file in inside(&machine.path()) {
            let path = file.path();
            let session = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if path.extension().is_some_and(|end| end == SUFFIX)
                && let (Some(session), Ok(about)) = (session, file.metadata())
            {
                let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((written, name.clone(), session, about.len()));
            }
        }
    }
    found.sort_unstable();
    let mut files = Files::new(most);
    let go = found.into_iter().flat_map(|(_, machine, session, length)| files.wrote(&machine, session, length));
    let go = go.collect();
    (files, go)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(shelf: &Shelf) -> Vec<String> {
        let inside = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        let mut all: Vec<String> = inside(&shelf.directory)
            .iter()
            .flat_map(|machine| inside(machine))
            .map(|path| path.strip_prefix(&shelf.directory).unwrap().display().to_string())
            .collect();
        all.sort();
        all
    }

    fn named(machine: &str, n: u128) -> String {
        format!("{machine}/{}.log", Uuid::from_u128(n))
    }

    #[test]
    fn parts_may_come_twice_and_the_end_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m/s.log");
        append(&path, 0, b"hello ").unwrap();
        append(&path, 0, b"hello ").unwrap();
        assert_eq!(append(&path, 3, b"lo world").unwrap(), 11);
        assert_eq!(fs::read(&path).unwrap(), b"hello world");
        assert_eq!(append(&path, 11, &vec![b'x'; MAX_LOG as usize]).unwrap(), MAX_LOG);
        assert_eq!(append(&path, MAX_LOG, b"more").unwrap(), MAX_LOG);
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_LOG);
    }

    #[test]
    fn parts_that_come_at_once_do_not_pass_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().to_owned(), 1 << 30);
        let part = vec![b'x'; 3 << 20];
        // More than once: it is a matter of luck what comes between.
        for n in 1..=10 {
            let (machine, session) = (format!("m{n}"), Uuid::from_u128(n));
            let together = std::sync::Barrier::new(12);
            std::thread::scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|| {
                        together.wait();
                        shelf.append(&machine, session, MAX_LOG, &part).unwrap();
                    });
                }
            });
            let length = fs::metadata(shelf.path(&machine, &session.to_string())).unwrap().len();
            assert_eq!(length, MAX_LOG);
            assert_eq!(u128::from(shelf.with(|files| files.taken())), n * u128::from(MAX_LOG));
        }
    }

    #[test]
    fn old_logs_go_and_empty_directories_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("logs"), 7 * 4096);
        for n in 1..=6 {
            shelf.append("a", Uuid::from_u128(n), 0, b"word").unwrap();
        }
        assert_eq!(there(&shelf), [3, 4, 5, 6].map(|n| named("a", n)));
        shelf.append("b", Uuid::from_u128(7), 0, &[b'x'; 2 * 4096]).unwrap();
        shelf.append("c", Uuid::from_u128(8), 0, &[b'x'; 3 * 4096]).unwrap();
        assert_eq!(there(&shelf), [named("a", 5), named("a", 6), named("b", 7), named("c", 8)]);
        shelf.append("d", Uuid::from_u128(9), 0, &[b'x'; 4 * 4096]).unwrap();
        assert_eq!(there(&shelf), [named("c", 8), named("d", 9)]);
        assert!(!shelf.directory.join("a").exists());
    }

    #[test]
    fn what_an_earlier_run_left_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let large = Shelf::new(dir.path().to_owned(), 1 << 20);
        large.append("a", a, 0, b"first").unwrap();
        large.append("b", b, 0, b"second").unwrap();
        // Times of a file system may be coarse.
        let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(large.path("a", &a.to_string())).unwrap().set_modified(old).unwrap();
        fs::write(dir.path().join("b/notes.txt"), "a person's").unwrap();
        let small = Shelf::new(dir.path().to_owned(), 4096);
        small.forget_all_but(|| HashSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(there(&small), [named("b", 2), "b/notes.txt".to_owned()]);
        small.forget_all_but(HashSet::new);
        assert_eq!(there(&small), ["b/notes.txt"]);
    }

    #[test]
    fn who_is_gone_has_no_log_and_who_came_in_its_place_has() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("logs"), 1 << 20);
        for n in 1..=3 {
            shelf.append("a", Uuid::from_u128(n), 0, b"word").unwrap();
        }
        shelf.forget("a", Some(Uuid::from_u128(2)));
        assert_eq!(there(&shelf), [named("a", 2)]);
        shelf.forget("a", None);
        assert!(there(&shelf).is_empty());
        shelf.append("a", Uuid::from_u128(4), 9, b"anew").unwrap();
        assert_eq!(there(&shelf), [named("a", 4)]);
    }
}
