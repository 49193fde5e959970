//! The thread that writes, and reads back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;

use dragonfly_core::action::{ActionContext, ActionError};
use sha2::{Digest as _, Sha256};

use super::super::disk::OpenDisk;
use super::super::fail::{OrFailed, because};
use super::super::host::{Done, Host};
use super::super::partition::publish;
use super::super::sys;
use super::Stopped;
use crate::plan::{self, Given, ImageParams, ReadBack, human};
use crate::probe::WINDOW;

/// How much is handed over at a time, and how much of the start is written last.
pub(crate) const PIECE: usize = 1 << 20;
/// Zeros are looked for in blocks of this size: smaller ones cost more calls than they save.
const BLOCK: usize = 64 << 10;
/// How many blocks are read back as samples.
const SAMPLES: usize = 64;
/// How much is written before the kernel is asked to begin bringing it to the disk, while the next of
/// it is being unpacked.
const BEGIN: u64 = 4 << 20;
/// How much may wait in the kernel's cache before it is waited for: an error of the disk then shows
/// early, progress is honest, and the last flush is short.
const PUSH: u64 = 64 << 20;

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next [`PIECE`] bytes; fewer only at the end.
    Bytes(Vec<u8>),
    /// That was all, and it is right.
    End,
}

/// Where the image goes.
#[derive(Debug)]
pub(crate) struct Destination {
    host: Host,
    disk: OpenDisk,
    name: String,
    start: u64,
    room: u64,
    whole_disk: bool,
}

impl Destination {
    /// Finds and claims it. Nothing is written yet. Blocks.
    pub(crate) fn open(host: &Host, params: &ImageParams, cx: &ActionContext) -> Result<Self, ActionError> {
        let permit = cx.permit();
        match &params.target {
            Some(target) => {
                let place = host.find(target, permit)?;
                let disk = host.claim(&place.disk, permit)?;
                let name = place.name();
                Ok(Self { host: host.clone(), disk, name, start: place.start, room: place.length, whole_disk: false })
            }
            None => {
                let chosen = match &params.disk {
                    Some(selector) => host.choose(selector)?,
                    None => host.choose_or_ours(None, permit)?,
                };
                if host.noted(permit.workflow_uid, &chosen.name) == Some(Done::Partitioned) {
                    return because(format!(
                        "an earlier step of this run has partitioned {}; an image of a whole disk would destroy that. \
                         Write it into a partition with `target`, or leave the partitioning out",
                        chosen.name
                    ));
                }
                let disk = host.claim(&chosen, permit)?;
                let (name, room) = (disk.name.clone(), disk.size);
                Ok(Self { host: host.clone(), disk, name, start: 0, room, whole_disk: true })
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn room(&self) -> u64 {
        self.room
    }

    pub(crate) fn sector(&self) -> u32 {
        self.disk.sector
    }

    /// Writes every piece, the first one last; then reads back. Blocks.
    pub(crate) fn write(
        mut self,
        from: &Receiver<Piece>,
        params: &ImageParams,
        cx: &ActionContext,
    ) -> Result<(), Stopped> {
        // Nothing is touched before something that can be unpacked has come.
        let head = match from.recv() {
            Ok(Piece::Bytes(head)) => head,
            Ok(Piece::End) => return Err(ActionError::because("the image unpacks to nothing").into()),
            Err(_) => return Err(Stopped::Neighbour),
        };
        let content = params.digest.as_ref().and_then(Given::known).map(ToString::to_string).unwrap_or_default();
        self.prepare(cx, &content)?;
        let mut sink = Sink::new(&self.disk.file, self.start, self.room, head.len() as u64, params.read_back);
        sink.see(&head, 0);
        let (mut begun, mut pushed) = (0, 0);
        loop {
            match from.recv() {
                Ok(Piece::Bytes(piece)) => sink.push(&piece).or_failed(|| self.broken())?,
                Ok(Piece::End) => break,
                Err(_) => return Err(Stopped::Neighbour),
            }
            if sink.position - begun >= BEGIN {
                // Only a wish: whoever cannot fulfil it does all of it at the next flush.
                let _ = sys::begin_writeback(&self.disk.file, self.start + begun, sink.position - begun);
                begun = sink.position;
            }
            if sink.position - pushed >= PUSH {
                pushed = sink.position;
                self.disk.file.sync_data().or_failed(|| self.broken())?;
            }
        }
        sink.settle().or_failed(|| self.broken())?;
        let Sink { position: length, seen, tail, .. } = sink;
        // Every other byte is on the medium before the first MiB makes the disk look whole.
        self.disk.sync()?;
        cx.check_cancelled()?;
        if let Err(error) = self.finish(&head, &tail, length, &seen, cx) {
            // It must not boot; what a failing disk refuses now changes nothing about why it failed.
            let _ = self.unmake();
            return Err(error.into());
        }
        cx.log(format!("{}: {} written and read back", self.name, human(length)));
        if self.whole_disk {
            self.disk.mark(cx.permit(), plan::IMAGE2DISK, true, &content)?;
            self.disk.sync()?;
            publish(&self.host, &mut self.disk)?;
        }
        Ok(())
    }

    /// Writes what makes the disk look whole, and reads all of it back.
    fn finish(
        &mut self,
        head: &[u8],
        tail: &[(u64, Vec<u8>)],
        length: u64,
        seen: &Seen,
        cx: &ActionContext,
    ) -> Result<(), ActionError> {
        for (offset, piece) in tail {
            self.disk.write_at(piece, self.start + offset)?;
        }
        self.disk.sync()?;
        self.disk.write_at(head, self.start)?;
        self.disk.sync()?;
        self.read_back(head, length, seen, cx)
    }

    /// Takes away again what `finish` may have written; each end by itself, for one may be broken.
    fn unmake(&mut self) -> Result<(), ActionError> {
        let part = self.room.min(WINDOW);
        let first = self.disk.zero(self.start, part);
        let last = self.disk.zero(self.start + self.room - part, part);
        let synced = self.disk.sync();
        first.and(last).and(synced)
    }

    /// Takes away what would make a half-written disk look like a whole one.
    fn prepare(&mut self, cx: &ActionContext, content: &str) -> Result<(), ActionError> {
        self.disk.note(cx.permit(), Done::Written);
        if self.whole_disk {
            self.host.announce(&self.disk, &[])?;
        }
        let part = self.room.min(WINDOW);
        self.disk.zero(self.start, part)?;
        // The second copy of a GPT, and metadata of arrays that lies at the end.
        self.disk.zero(self.start + self.room - part, part)?;
        if self.whole_disk {
            self.disk.mark(cx.permit(), plan::IMAGE2DISK, false, content)?;
        }
        self.disk.sync()
    }

    fn broken(&self) -> String {
        format!("{} could not be written; the disk may be failing", self.name)
    }

    /// Compares the disk with what was sent to it.
    fn read_back(&self, head: &[u8], length: u64, seen: &Seen, cx: &ActionContext) -> Result<(), ActionError> {
        // From the medium, not from the cache.
        sys::flush(&self.disk.file).or_failed(|| format!("{} could not be flushed", self.name))?;
        let read = |into: &mut [u8], offset: u64| {
            cx.check_cancelled()?;
            self.disk
                .file
                .read_exact_at(into, self.start + offset)
                .or_failed(|| format!("{} cannot be read back at byte {offset}", self.name))
        };
        match first_difference(head, length, seen, read)? {
            None => Ok(()),
            Some(at) => because(format!(
                "{} does not hold what was written to it: it differs at or after byte {at}; the disk is failing, replace it",
                self.name
            )),
        }
    }
}

/// Where what is read differs from what was seen: the start of the piece that does. `None`: nowhere.
fn first_difference(
    head: &[u8],
    length: u64,
    seen: &Seen,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), ActionError>,
) -> Result<Option<u64>, ActionError> {
    let mut buffer = vec![0u8; PIECE.max(head.len())];
    let first = &mut buffer[..head.len()];
    read(first, 0)?;
    if first != head {
        return Ok(Some(0));
    }
    match seen {
        Seen::Samples { samples, .. } => {
            for sample in samples {
                let piece = &mut buffer[..sample.length];
                read(piece, sample.offset)?;
                if Sha256::digest(piece)[..] != sample.digest {
                    return Ok(Some(sample.offset));
                }
            }
            Ok(None)
        }
        Seen::Full(wanted) => {
            let mut hasher = Sha256::new();
            let mut at = 0;
            while at < length {
                let part = (length - at).min(PIECE as u64);
                let piece = &mut buffer[..part as usize];
                read(piece, at)?;
                hasher.update(piece);
                at += part;
            }
            Ok((hasher.finalize() != wanted.clone().finalize()).then_some(head.len() as u64))
        }
    }
}

/// What is remembered of the image for the read-back.
enum Seen {
    /// Blocks of some pieces, each piece as likely as any other.
    Samples { samples: Vec<Sample>, count: u64, state: u64 },
    /// All of it.
    Full(Sha256),
}

struct Sample {
    offset: u64,
    length: usize,
    digest: [u8; 32],
}

/// Writes pieces behind the first one; runs of zeros are given to the device as such.
struct Sink<'a> {
    file: &'a File,
    start: u64,
    /// From here on pieces are held back: firmware may boot by a table's second copy, which ends an
    /// image that fills its disk.
    hold: u64,
    /// What was held back: at most 2 MiB.
    tail: Vec<(u64, Vec<u8>)>,
    position: u64,
    /// Zeros that are still to be made, up to the position.
    zeros: u64,
    seen: Seen,
}

impl<'a> Sink<'a> {
    fn new(file: &'a File, start: u64, room: u64, position: u64, read_back: ReadBack) -> Self {
        let seen = match read_back {
            ReadBack::Sample => {
                Seen::Samples { samples: Vec::with_capacity(SAMPLES), count: 0, state: 0x2545_F491_4F6C_DD1D }
            }
            ReadBack::Full => Seen::Full(Sha256::new()),
        };
        Self { file, start, hold: room.saturating_sub(WINDOW), tail: Vec::new(), position, zeros: 0, seen }
    }

    fn push(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.see(piece, self.position);
        if self.position + piece.len() as u64 > self.hold {
            self.settle()?;
            self.tail.push((self.position, piece.to_vec()));
            self.position += piece.len() as u64;
            return Ok(());
        }
        for block in piece.chunks(BLOCK) {
            if is_zero(block) {
                self.zeros += block.len() as u64;
                // A run of any length would be one call that nobody can interrupt.
                if self.zeros >= PUSH {
                    self.position += block.len() as u64;
                    self.settle()?;
                    continue;
                }
            } else {
                self.settle()?;
                self.file.write_all_at(block, self.start + self.position)?;
            }
            self.position += block.len() as u64;
        }
        Ok(())
    }

    /// Makes the zeros that wait.
    fn settle(&mut self) -> std::io::Result<()> {
        let zeros = std::mem::take(&mut self.zeros);
        super::super::disk::zero(self.file, self.start + self.position - zeros, zeros)
    }

    /// Remembers a piece for the read-back.
    fn see(&mut self, piece: &[u8], offset: u64) {
        match &mut self.seen {
            Seen::Full(hasher) => hasher.update(piece),
            Seen::Samples { samples, count, state } => {
                *count += 1;
                // Reservoir sampling; xorshift is random enough to choose pieces, and a block in each.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                let slot = (*state % *count) as usize;
                let blocks = piece.len().div_ceil(BLOCK).max(1) as u64;
                let at = ((*state >> 32) % blocks) as usize * BLOCK;
                let block = &piece[at.min(piece.len())..(at + BLOCK).min(piece.len())];
                let sample =
                    || Sample { offset: offset + at as u64, length: block.len(), digest: Sha256::digest(block).into() };
                if samples.len() < SAMPLES {
                    samples.push(sample());
                } else if let Some(place) = samples.get_mut(slot) {
                    *place = sample();
                }
            }
        }
    }
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    block.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an image of `pieces` pieces into a file as the action does, first piece last.
    fn written(pieces: usize, read_back: ReadBack) -> (tempfile::NamedTempFile, Vec<u8>, Seen) {
        let image: Vec<u8> =
            (0..pieces * PIECE).map(|n| if n % (3 * BLOCK) < BLOCK { 0 } else { (n / 977) as u8 | 1 }).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(image.len() as u64 + 4 * WINDOW).unwrap();
        let mut sink = Sink::new(file.as_file(), 0, image.len() as u64 + 4 * WINDOW, PIECE as u64, read_back);
        sink.see(&image[..PIECE], 0);
        for piece in image[PIECE..].chunks(PIECE) {
            sink.push(piece).unwrap();
        }
        sink.settle().unwrap();
        assert!(sink.tail.is_empty());
        let seen = sink.seen;
        file.as_file().write_all_at(&image[..PIECE], 0).unwrap();
        (file, image, seen)
    }

    fn difference(file: &File, image: &[u8], seen: &Seen) -> Option<u64> {
        let read = |into: &mut [u8], offset: u64| file.read_exact_at(into, offset).or_failed(|| "read");
        first_difference(&image[..PIECE], image.len() as u64, seen, read).unwrap()
    }

    #[test]
    fn a_disk_that_lies_is_caught() {
        for read_back in [ReadBack::Sample, ReadBack::Full] {
            let (file, image, seen) = written(6, read_back);
            assert_eq!(std::fs::read(file.path()).unwrap()[..image.len()], image[..], "{read_back:?}");
            assert_eq!(difference(file.as_file(), &image, &seen), None, "{read_back:?}");
            // With fewer pieces than samples each piece is one: a piece that went elsewhere shows.
            for at in (0..image.len()).step_by(PIECE) {
                let wrong: Vec<u8> = image[at..at + PIECE].iter().map(|b| !b).collect();
                file.as_file().write_all_at(&wrong, at as u64).unwrap();
                let found = difference(file.as_file(), &image, &seen);
                assert!(found.is_some(), "{read_back:?}: piece at {at}");
                file.as_file().write_all_at(&image[at..at + PIECE], at as u64).unwrap();
            }
        }
        let (file, image, seen) = written(3, ReadBack::Full);
        for at in [0, 5, PIECE - 1, PIECE, 2 * PIECE + 77, image.len() - 1] {
            file.as_file().write_all_at(&[image[at] ^ 0x40], at as u64).unwrap();
            assert!(difference(file.as_file(), &image, &seen).is_some(), "byte {at}");
            file.as_file().write_all_at(&image[at..=at], at as u64).unwrap();
        }
    }

    #[test]
    fn samples_are_bounded_and_spread() {
        let file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(&file, 0, 0, 0, ReadBack::Sample);
        let pieces = 4000u64;
        for n in 0..pieces {
            sink.see(&n.to_le_bytes(), n);
        }
        let Seen::Samples { samples, .. } = &sink.seen else { panic!("samples were asked for") };
        assert_eq!(samples.len(), SAMPLES);
        for quarter in 0..4 {
            let inside = samples.iter().filter(|s| s.offset / (pieces / 4) == quarter).count();
            assert!((4..=40).contains(&inside), "{inside} in quarter {quarter}");
        }
    }
}
