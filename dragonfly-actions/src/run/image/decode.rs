//! The thread between network and disk: digest, decompress, limit, cut into pieces.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::mpsc::SyncSender;

use dragonfly_core::action::{ActionContext, ActionError, Unit};
use dragonfly_core::wire::FailureKind;
use tokio::sync::mpsc;

use super::Stopped;
use super::decompress::{PREFIX, announced, sniff, unpack};
use super::digest::{Digesting, Hasher};
use super::fetch::Fetched;
use super::limit::Limit;
use super::received::{Cut, Received};
use super::writer::{Destination, PIECE, Piece};
use crate::plan::{Compression, Digest, Given, ImageParams, human};

/// What the decoder must know.
#[derive(Debug)]
pub(crate) struct Decoding {
    digest: Option<Digest>,
    raw_digest: Option<Digest>,
    compression: Compression,
    /// Where it goes, for errors.
    to: String,
    /// How much room there is.
    room: u64,
    sector: u32,
    whole_disk: bool,
}

impl Decoding {
    pub(crate) fn new(params: &ImageParams, to: &Destination) -> Self {
        let known = |given: &Option<Given<Digest>>| given.as_ref().and_then(Given::known).cloned();
        Self {
            digest: known(&params.digest),
            raw_digest: known(&params.raw_digest),
            compression: params.compression,
            to: to.name().to_owned(),
            room: to.room(),
            sector: to.sector(),
            whole_disk: params.target.is_none(),
        }
    }

    /// Whether a digest judges what comes.
    pub(crate) fn is_judged(&self) -> bool {
        self.digest.is_some() || self.raw_digest.is_some()
    }

    /// A partition table in sectors of another size is not seen on this disk.
    fn fits_sectors(&self, piece: &[u8]) -> Result<(), ActionError> {
        let table_at = |sector: usize| piece.get(sector..).is_some_and(|rest| rest.starts_with(b"EFI PART"));
        let made_for = match (table_at(512), table_at(4096)) {
            (true, false) => 512,
            (false, true) => 4096,
            _ => return Ok(()),
        };
        if !self.whole_disk || made_for == self.sector {
            return Ok(());
        }
        Err(ActionError::because(format!(
            "the image is made for disks with sectors of {made_for} bytes, and {} has {}: it would not boot; \
             nothing was written. Use an image made for such disks, or partition this one and write the file systems",
            self.to, self.sector
        ))
        .of_kind(FailureKind::ImageUnfit))
    }

    fn too_small(&self, image: &str) -> ActionError {
        ActionError::because(format!(
            "{} is too small: the image has {image}, and there are {} ({} bytes); choose a larger disk or a smaller image",
            self.to,
            human(self.room),
            self.room
        ))
        .of_kind(FailureKind::TooLarge)
    }
}

/// Everything from the network to pieces of 1 MiB. Ends well only when every digest is right and
/// nothing lies behind the image. Blocks.
pub(crate) fn decode(
    from: mpsc::Receiver<Fetched>,
    decoding: Decoding,
    to: &SyncSender<Piece>,
    cx: &ActionContext,
) -> Result<(), Stopped> {
    let fetched = Cell::new(0);
    let mut received = Received::new(from);
    let total = received.begin().map_err(told)?;
    let mut packed = Digesting::new(received, decoding.digest.as_ref().map(Digest::algorithm), &fetched);
    let mut prefix = Vec::with_capacity(PREFIX);
    (&mut packed).take(PREFIX as u64).read_to_end(&mut prefix).map_err(told)?;
    if prefix.is_empty() {
        let empty = ActionError::because("the image is empty; check the template's `url`");
        return Err(empty.of_kind(FailureKind::ImageUnfit).into());
    }
    let kind = if decoding.compression == Compression::Auto { sniff(&prefix) } else { decoding.compression };
    if let Some(size) = announced(kind, &prefix, total)
        && size > decoding.room
    {
        return Err(decoding.too_small(&format!("{} ({size} bytes)", human(size))).into());
    }
    let mut source = Cursor::new(prefix).chain(&mut packed);
    let mut raw = decoding.raw_digest.as_ref().map(|digest| Hasher::new(digest.algorithm()));
    {
        let mut limited = Limit::new(unpack(kind, &mut source).map_err(told)?, decoding.room);
        let mut first = true;
        loop {
            cx.check_cancelled()?;
            let piece = next(&mut limited).map_err(|error| match limited.is_exceeded() {
                true => decoding.too_small(&format!("more than {} bytes", decoding.room)).into(),
                false => told(error),
            })?;
            if piece.is_empty() {
                break;
            }
            if std::mem::take(&mut first) {
                decoding.fits_sectors(&piece)?;
            }
            if let Some(raw) = &mut raw {
                raw.update(&piece);
            }
            if to.send(Piece::Bytes(piece)).is_err() {
                return Err(Stopped::Neighbour);
            }
            cx.progress(fetched.get(), total, Unit::Bytes);
        }
    }
    if !source.fill_buf().map_err(told)?.is_empty() {
        let what = "something lies behind the image's end; the file at the URL is damaged or is not an image";
        return Err(ActionError::because(what).of_kind(FailureKind::ImageUnfit).into());
    }
    drop(source);
    cx.progress(fetched.get(), total, Unit::Bytes);
    if let (Some(digest), Some(hasher)) = (&decoding.digest, packed.into_hasher()) {
        judge(hasher, digest, "the image at the URL", "digest")?;
    }
    if let (Some(digest), Some(hasher)) = (&decoding.raw_digest, raw) {
        judge(hasher, digest, "the unpacked image", "rawDigest")?;
    }
    to.send(Piece::End).map_err(|_| Stopped::Neighbour)
}

/// The next piece: full, but for the last; empty at the end.
fn next(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    from.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

fn judge(hasher: Hasher, wanted: &Digest, what: &str, field: &str) -> Result<(), ActionError> {
    hasher.judge(wanted).map_err(|got| {
        ActionError::because(format!(
            "{what} is not the one that was asked for: its digest is {got}, the template's `{field}` says {wanted}; \
             nothing on the disk will boot. Correct whichever is wrong and retry"
        ))
        .of_kind(FailureKind::ImageDigest)
    })
}

/// An error of the readers, for a person.
fn told(error: io::Error) -> Stopped {
    if error.get_ref().is_some_and(|inner| inner.is::<Cut>()) {
        return Stopped::Neighbour;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            ActionError::failed("the image is truncated: it ends in the middle of its compressed data", error)
        }
        _ => ActionError::failed("the image cannot be unpacked: the file at the URL is damaged", error),
    }
    .of_kind(FailureKind::ImageUnfit)
    .into()
}
