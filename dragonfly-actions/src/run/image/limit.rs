//! No more than there is room for.

use std::io::{self, Read};

/// A reader that fails when more comes than fits.
pub(crate) struct Limit<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Limit<R> {
    pub(crate) fn new(inner: R, room: u64) -> Self {
        Self { inner, left: room, exceeded: false }
    }

    /// Whether it failed because more came than fits.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded
    }
}

impl<R: Read> Read for Limit<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            // Full: the only thing that may come is the end.
            let mut one = [0u8; 1];
            return match self.inner.read(&mut one)? {
                0 => Ok(0),
                _ => {
                    self.exceeded = true;
                    Err(io::Error::new(io::ErrorKind::StorageFull, "more comes than fits"))
                }
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let amount = self.inner.read(&mut into[..most])?;
        self.left -= amount as u64;
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_exactly_fits() {
        for (room, fits) in [(10, true), (11, true), (9, false), (0, false)] {
            let mut limit = Limit::new(&[7u8; 10][..], room);
            let read = limit.read_to_end(&mut Vec::new());
            assert_eq!((read.is_ok(), limit.is_exceeded()), (fits, !fits), "room for {room}");
        }
    }
}
