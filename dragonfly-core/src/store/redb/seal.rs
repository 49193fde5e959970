//! The last line of a backup: the digest of all that comes before it.
//!
//! redb's own checksums leave out what it does not use at the moment, and a byte of its head may choose
//! an older state. A backup is read by nobody until it is restored, so all of it is checked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

const WORDS: &[u8] = b"\ndragonfly backup 1 sha256:";
const LENGTH: usize = WORDS.len() + 64 + 1;

/// What a file that should be a backup turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// All is there, and as it was written.
    Whole,
    /// It has no such last line.
    NotSealed,
    /// It is not what was sealed.
    Altered,
}

/// Writes the last line, and all of the file to the disk.
pub(super) fn seal(file: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let digest = copy(file, u64::MAX, &mut io::sink())?;
    file.write_all(&line(&digest))?;
    file.sync_all()
}

/// Copies what was sealed, without the last line. `to` is of use only when it is whole.
pub(super) fn unseal(file: &mut File, to: &mut impl Write) -> io::Result<Judged> {
    let Some(content) = file.metadata()?.len().checked_sub(LENGTH as u64) else { return Ok(Judged::NotSealed) };
    let mut last = Vec::new();
    file.seek(SeekFrom::Start(content))?;
    file.take(LENGTH as u64).read_to_end(&mut last)?;
    // One that is damaged itself is still seen to be one.
    let alike = last.iter().zip(WORDS).filter(|(found, word)| found == word).count();
    if alike * 2 < WORDS.len() {
        return Ok(Judged::NotSealed);
    }
    file.seek(SeekFrom::Start(0))?;
    let digest = copy(file, content, to)?;
    Ok(if last == line(&digest) { Judged::Whole } else { Judged::Altered })
}

/// Takes the last line off: what is left is a store.
pub(super) fn open(file: &File) -> io::Result<()> {
    file.set_len(file.metadata()?.len().saturating_sub(LENGTH as u64))?;
    file.sync_all()
}

fn line(digest: &str) -> Vec<u8> {
    [WORDS, digest.as_bytes(), b"\n"].concat()
}

fn copy(from: &mut File, most: u64, to: &mut impl Write) -> io::Result<String> {
    let mut from = from.take(most);
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        let read = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        digest.update(part);
        to.write_all(part)?;
    }
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let sealed = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let mut file = sealed(b"content");
        seal(&mut file).unwrap();
        let mut whole = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut whole).unwrap();
        let judge = |bytes: &[u8]| {
            let mut out = Vec::new();
            (unseal(&mut sealed(bytes), &mut out).unwrap(), out)
        };
        assert_eq!(judge(&whole), (Judged::Whole, b"content".to_vec()));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(judge(&bytes).0, Judged::Altered, "byte {at}");
            let cut = judge(&whole[..at]).0;
            assert_ne!(cut, Judged::Whole, "cut at {at}");
        }
        assert_eq!(judge(b"content").0, Judged::NotSealed);
    }
}
