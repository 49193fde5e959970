//! What was fetched, as a reader on a thread that may block.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::fetch::Fetched;

/// Reads what the network brings. An end that nobody announced is an error: a transfer that stops is
/// not an image that ends.
#[derive(Debug)]
pub(crate) struct Received {
    from: mpsc::Receiver<Fetched>,
    current: Bytes,
    ended: bool,
}

impl Received {
    pub(crate) fn new(from: mpsc::Receiver<Fetched>) -> Self {
        Self { from, current: Bytes::new(), ended: false }
    }

    /// Waits for the transfer to begin: the image's length, if it is known.
    pub(crate) fn begin(&mut self) -> io::Result<Option<u64>> {
        match self.from.blocking_recv() {
            Some(Fetched::Begin(total)) => Ok(total),
            _ => Err(cut()),
        }
    }
}

/// The transfer has stopped; who fetched knows why.
#[derive(Debug, thiserror::Error)]
#[error("the transfer stopped")]
pub(crate) struct Cut;

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, Cut)
}

impl BufRead for Received {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.from.blocking_recv() {
                Some(Fetched::Bytes(bytes)) => self.current = bytes,
                Some(Fetched::End) => self.ended = true,
                Some(Fetched::Begin(_)) => {}
                None => return Err(cut()),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount.min(self.current.len()));
    }
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = {
            let there = self.fill_buf()?;
            let amount = there.len().min(into.len());
            into[..amount].copy_from_slice(&there[..amount]);
            amount
        };
        self.consume(amount);
        Ok(amount)
    }
}
