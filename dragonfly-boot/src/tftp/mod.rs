//! A read-only TFTP server without sockets: messages, one transfer, and where files come from.
//!
//! RFC 1350, with options blksize (2348), tsize and timeout (2349) and windowsize (7440). Writing
//! and netascii are refused.

mod packet;
mod transfer;

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use packet::{ErrorCode, Incoming, MAX_REQUEST, NotTftp, Request, data, error, option_ack};
pub use transfer::{Limits, Output, Terms, Transfer};

use crate::files::{BootFiles, FileError};

/// Where files come from.
#[async_trait]
pub trait FileSource: fmt::Debug + Send + Sync + 'static {
    /// The file of this name, as the client wrote it.
    async fn open(&self, name: &str) -> Result<Content, FileError>;
}

/// A file's content.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In an open file.
    File {
        /// It.
        file: Arc<std::fs::File>,
        /// Its size when it was opened.
        length: u64,
    },
}

impl Content {
    /// Its size.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// A stretch of it, shorter at its end. Blocks.
    pub fn read(&self, offset: u64, size: usize) -> io::Result<Bytes> {
        let size = usize::try_from(self.length().saturating_sub(offset)).unwrap_or(usize::MAX).min(size);
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..start + size))
            }
            Self::File { file, .. } => {
                let mut piece = vec![0; size];
                file.read_exact_at(&mut piece, offset)?;
                Ok(piece.into())
            }
        }
    }
}

#[async_trait]
impl FileSource for BootFiles {
    async fn open(&self, name: &str) -> Result<Content, FileError> {
        // Firmware writes names as it was told them, and some add a slash in front, or two.
        let name = name.trim_start_matches('/').to_owned();
        let files = self.clone();
        let opened = tokio::task::spawn_blocking(move || Self::open(&files, &name)).await;
        let found = opened.map_err(|e| FileError::Io { name: String::new(), source: io::Error::other(e) })??;
        Ok(Content::File { file: Arc::new(found.file), length: found.length })
    }
}
