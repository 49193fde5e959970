//! Sessions that were signed out before their time, in memory and in a file: a restart makes none of them good again.
//!
//! A line is the second in which the cookie would have ended by itself and the cookie's SHA-256. What is over is left
//! out when the file is written, so it holds what was signed out within the life of a session and no more.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dragonfly_core::clock::Timestamp;

use super::AuthError;
use crate::files;

/// The file, in the data directory.
const FILE: &str = "signed-out";

/// SHA-256 of each session that was signed out and when it would have ended.
type All = HashMap<[u8; 32], Timestamp>;

#[derive(Debug, Default)]
pub(super) struct Ended {
    /// `None`: they are kept in memory only.
    file: Option<PathBuf>,
    all: Mutex<All>,
    /// One writes the file at a time, and everything that is known then.
    writing: Mutex<()>,
}

impl Ended {
    /// Reads the file, if there is one.
    pub(super) fn open(data: &Path) -> Result<Self, AuthError> {
        let path = data.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            // No text, so none of ours.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => "?".to_owned(),
            Err(source) => return Err(AuthError::File { path, source }),
        };
        let lines = text
            .lines()
            .zip(1..)
            .map(|(line, number)| read(line).ok_or_else(|| AuthError::SignedOut { path: path.clone(), line: number }));
        let all = lines.collect::<Result<All, _>>()?;
        Ok(Self { file: Some(path), all: Mutex::new(all), writing: Mutex::default() })
    }

    pub(super) fn contains(&self, session: &[u8; 32]) -> bool {
        self.all().contains_key(session)
    }

    /// From now on this session is over; after `Ok` it is after a restart too. Waits for the disk.
    pub(super) fn add(&self, session: [u8; 32], ends: Timestamp, now: Timestamp) -> io::Result<()> {
        {
            let mut all = self.all();
            all.retain(|_, ends| *ends > now);
            all.insert(session, ends);
        }
        let Some(path) = &self.file else { return Ok(()) };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = self.all().iter().map(|(session, ends)| line(session, *ends)).collect();
        files::replace(path, |mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn line(session: &[u8; 32], ends: Timestamp) -> String {
    format!("{} {}\n", ends.unix_seconds(), hex::encode(session))
}

fn read(line: &str) -> Option<([u8; 32], Timestamp)> {
    let (ends, session) = line.split_once(' ')?;
    let mut hash = [0; 32];
    hex::decode_to_slice(session, &mut hash).ok()?;
    Some((hash, Timestamp::from_unix_seconds(ends.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlives_a_restart_and_holds_no_more_than_it_must() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_unix_seconds;
        let ended = Ended::open(dir.path()).unwrap();
        ended.add([1; 32], at(100), at(50)).unwrap();
        ended.add([2; 32], at(200), at(60)).unwrap();
        let restarted = Ended::open(dir.path()).unwrap();
        assert!(restarted.contains(&[1; 32]) && restarted.contains(&[2; 32]) && !restarted.contains(&[3; 32]));
        restarted.add([3; 32], at(300), at(150)).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 2, "the first is over by itself: {text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let good = line(&[1; 32], Timestamp::from_unix_seconds(100));
        for (content, line) in [
            (good.replace("100 ", "1x0 ").into_bytes(), 1),
            (format!("{good}{}", good.get(..20).unwrap()).into_bytes(), 2),
            (format!("{good}\n").into_bytes(), 2),
            (vec![0xff, 0xfe], 1),
            (vec![0; 64], 1),
        ] {
            std::fs::write(dir.path().join(FILE), &content).unwrap();
            let error = Ended::open(dir.path()).unwrap_err();
            let said = error.to_string();
            let place = format!("line {line} ");
            assert!(said.contains("signed-out") && said.contains(&place) && said.contains("admin.token"), "{said}");
        }
    }
}
