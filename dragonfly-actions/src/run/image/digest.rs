//! Digests of what passes by.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256, Sha512};

use crate::plan::{Algorithm, Digest};

/// A digest in the making.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Whether it came out as asked for; if not, what came out.
    pub(crate) fn judge(self, wanted: &Digest) -> Result<(), String> {
        let (name, got) = match self {
            Self::Sha256(hasher) => ("sha256", hasher.finalize().to_vec()),
            Self::Sha512(hasher) => ("sha512", hasher.finalize().to_vec()),
        };
        if got == wanted.value() { Ok(()) } else { Err(format!("{name}:{}", hex::encode(got))) }
    }
}

/// A reader whose bytes are counted and digested as they are consumed.
pub(crate) struct Digesting<'a, R> {
    inner: R,
    hasher: Option<Hasher>,
    /// Apart, so that it can be read while a decompressor holds the reader.
    count: &'a Cell<u64>,
}

impl<'a, R: BufRead> Digesting<'a, R> {
    pub(crate) fn new(inner: R, algorithm: Option<Algorithm>, count: &'a Cell<u64>) -> Self {
        Self { inner, hasher: algorithm.map(Hasher::new), count }
    }

    pub(crate) fn into_hasher(self) -> Option<Hasher> {
        self.hasher
    }
}

impl<R: BufRead> BufRead for Digesting<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let (Some(hasher), Ok(there)) = (&mut self.hasher, self.inner.fill_buf()) {
            // What is consumed was shown by `fill_buf` before, so it is there without reading on.
            hasher.update(&there[..amount.min(there.len())]);
        }
        self.count.set(self.count.get() + amount as u64);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Digesting<'_, R> {
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
