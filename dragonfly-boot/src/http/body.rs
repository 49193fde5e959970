//! Response bodies: a few bytes, or a file in pieces, read as fast as the peer takes them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_core::Stream as _;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, Take};
use tokio_util::io::ReaderStream;

use crate::files::{Found, Place};

/// How much of a file is read at a time beside so many others: each answer keeps two or three such pieces
/// until its client takes them, so that thousands who take nothing cost little.
const PIECES: [(usize, usize); 3] = [(32, 256 * 1024), (128, 64 * 1024), (usize::MAX, 16 * 1024)];

fn piece_beside(others: usize) -> usize {
    PIECES.iter().find(|(fewer, _)| others < *fewer).map_or(PIECES[2].1, |(_, piece)| *piece)
}

/// The body of an answer of the boot services.
#[derive(Debug)]
pub struct BootBody {
    kind: Kind,
    left: u64,
    over: Option<Over>,
    _place: Option<Place>,
}

/// How much of a body was sent when it was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its length.
    pub bytes: u64,
    /// How much of it was given to the connection.
    pub passed: u64,
    /// How long that took.
    pub milliseconds: u64,
}

/// Somebody wants to know when a body is over: sent, or given up with its connection.
struct Over {
    bytes: u64,
    begun: Instant,
    tell: Option<Box<dyn FnOnce(Sent) + Send + Sync>>,
}

enum Kind {
    Bytes(Option<Bytes>),
    File { stream: Box<ReaderStream<Take<tokio::fs::File>>>, overlay: Option<Overlay>, at: u64 },
}

/// Bytes that stand in place of a file's own, from an offset on.
#[derive(Clone)]
pub(crate) struct Overlay {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

impl Overlay {
    /// `piece`, which begins at `at` in the file, with the overlay laid over it.
    fn over(&self, at: u64, piece: Bytes) -> Bytes {
        let (end, own_end) = (at + piece.len() as u64, self.offset + self.bytes.len() as u64);
        let (from, to) = (self.offset.max(at), own_end.min(end));
        if from >= to {
            return piece;
        }
        let mut piece = Vec::from(piece);
        let target = (from - at) as usize..(to - at) as usize;
        let source = (from - self.offset) as usize..(to - self.offset) as usize;
        if let (Some(target), Some(source)) = (piece.get_mut(target), self.bytes.get(source)) {
            target.copy_from_slice(source);
        }
        piece.into()
    }
}

impl BootBody {
    /// These bytes.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { left: bytes.len() as u64, kind: Kind::Bytes(Some(bytes)), over: None, _place: None }
    }

    /// A stretch of a file, with something laid over it.
    pub(crate) async fn file(
        Found { file, place, .. }: Found,
        range: std::ops::Range<u64>,
        overlay: Option<Overlay>,
    ) -> io::Result<Self> {
        let mut file = tokio::fs::File::from_std(file);
        let piece = piece_beside(place.others());
        file.set_max_buf_size(piece);
        if range.start > 0 {
            file.seek(io::SeekFrom::Start(range.start)).await?;
        }
        let left = range.end - range.start;
        let stream = Box::new(ReaderStream::with_capacity(file.take(left), piece));
        let kind = Kind::File { stream, overlay, at: range.start };
        Ok(Self { left, kind, over: None, _place: Some(place) })
    }

    /// The same body; when it is over, whichever way, this is called once. A body that is no file's
    /// tells nothing.
    #[must_use]
    pub fn when_over(mut self, tell: impl FnOnce(Sent) + Send + Sync + 'static) -> Self {
        if matches!(self.kind, Kind::File { .. }) {
            self.over = Some(Over { bytes: self.left, begun: Instant::now(), tell: Some(Box::new(tell)) });
        }
        self
    }

    fn tell_over(&mut self) {
        let Some(Over { bytes, begun, tell: Some(tell) }) = self.over.take() else { return };
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(Sent { bytes, passed: bytes - self.left.min(bytes), milliseconds });
    }
}

impl Body for BootBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let next = match &mut this.kind {
            Kind::Bytes(bytes) => bytes.take().filter(|b| !b.is_empty()).map(Ok),
            Kind::File { stream, overlay, at } => match Pin::new(stream).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => {
                    let begin = *at;
                    *at += piece.len() as u64;
                    Some(Ok(overlay.as_ref().map_or_else(|| piece.clone(), |o| o.over(begin, piece.clone()))))
                }
                // The length was promised: a file that became shorter must not look complete.
                Poll::Ready(None) if this.left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(other) => other,
            },
        };
        if let Some(Ok(piece)) = &next {
            this.left = this.left.saturating_sub(piece.len() as u64);
        }
        if this.left == 0 {
            this.tell_over();
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for BootBody {
    fn drop(&mut self) {
        self.tell_over();
    }
}

impl fmt::Debug for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds may be a token.
        f.write_str(match self {
            Self::Bytes(_) => "bytes",
            Self::File { .. } => "file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_more_are_sent_the_less_each_keeps() {
        let pieces: Vec<_> = [0, 31, 32, 127, 128, 100_000].map(|others| piece_beside(others) >> 10).into();
        assert_eq!(pieces, [256, 256, 64, 64, 16, 16]);
    }

    proptest! {
        #[test]
        fn an_overlay_in_pieces_is_the_overlay(offset in 0u64..40, size in 0usize..30, cut in 1usize..20) {
            let file: Vec<u8> = (0..60).collect();
            let overlay = Overlay { offset, bytes: vec![0xff; size.min(60 - offset as usize)].into() };
            let mut want = file.clone();
            want[offset as usize..offset as usize + overlay.bytes.len()].fill(0xff);
            let mut got = Vec::new();
            for (i, piece) in file.chunks(cut).enumerate() {
                got.extend(overlay.over((i * cut) as u64, Bytes::copy_from_slice(piece)));
            }
            prop_assert_eq!(got, want);
        }
    }
}
