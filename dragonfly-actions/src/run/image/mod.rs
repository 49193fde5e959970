//! `image2disk`: an image onto a disk, or into a partition.
//!
//! Nested readers, one small file each, on threads of their own:
//!
//! ```text
//! fetch (async) -> received -> digest -> decompress -> limit | -> writer -> read-back
//! ```
//!
//! The first MiB is written last, after the digest is right: a half-written disk never boots, and a
//! truncated or corrupt image never ends in success. Memory is bounded by the channels, whatever
//! the image's size.

mod decode;
mod decompress;
mod digest;
mod fetch;
mod limit;
mod received;
mod writer;

use std::sync::mpsc as std_mpsc;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};
use tokio::sync::mpsc;

use self::decode::Decoding;
use self::writer::Destination;
use super::disk::OpenDisk;
use super::fail::{because, blocking};
use super::host::{Done, Host};
use super::partition::publish;
use crate::plan::{self, Check, Given, ImageParams, Stage};

pub(crate) use self::fetch::Patience;

/// Pieces of the network that may wait for the decoder.
const FETCHED: usize = 64;
/// Pieces of 1 MiB that may wait for the disk.
const DECODED: usize = 8;

/// Why one of the threads ended before its work was done.
#[derive(Debug)]
enum Stopped {
    /// This.
    Failed(ActionError),
    /// A neighbour stopped, and knows why.
    Neighbour,
}

impl From<ActionError> for Stopped {
    fn from(error: ActionError) -> Self {
        Self::Failed(error)
    }
}

/// Streams an image to a disk or a partition.
#[derive(Debug, Clone)]
pub(crate) struct ImageAction {
    pub(crate) host: Host,
    pub(crate) patience: Patience,
}

impl Action for ImageAction {
    const NAME: &'static str = plan::IMAGE2DISK;
    const RESUME: Resume = Resume::Verify;
    type Params = ImageParams;

    fn check(&self, params: &ImageParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: ImageParams, cx: &ActionContext) -> Result<(), ActionError> {
        cx.check_cancelled()?;
        let Some(plan::ImageUrl(url)) = params.url.known().cloned() else {
            return because("the image's URL was not filled in");
        };
        let host = self.host.clone();
        let (setup_cx, setup) = (cx.clone(), params.clone());
        let destination = blocking(move || Destination::open(&host, &setup, &setup_cx)).await?;
        cx.log(format!("{}: writing {}", destination.name(), bare(&url)));
        let decoding = Decoding::new(&params, &destination);
        let judged = decoding.is_judged();

        let (fetched, received) = mpsc::channel(FETCHED);
        let (decoded, written) = std_mpsc::sync_channel(DECODED);
        let (decode_cx, write_cx) = (cx.clone(), cx.clone());
        let (fetch, decode, write) = tokio::join!(
            fetch::fetch(cx, &url, fetched, self.patience, judged),
            tokio::task::spawn_blocking(move || decode::decode(received, decoding, &decoded, &decode_cx)),
            tokio::task::spawn_blocking(move || destination.write(&written, &params, &write_cx)),
        );
        let died = |error| ActionError::failed("a worker thread died; this is a defect of the agent", error);
        let (decode, write) = (decode.map_err(died)?, write.map_err(died)?);
        // Each of them stops when a neighbour does. Who failed knows why; the others only know that
        // somebody is gone.
        match (fetch, decode, write) {
            (Ok(()), Ok(()), Ok(())) => Ok(()),
            (_, Err(Stopped::Failed(error)), _) | (_, _, Err(Stopped::Failed(error))) | (Err(error), _, _) => {
                Err(error)
            }
            (Ok(()), _, _) => because("the image was given up and nobody said why; this is a defect of the agent"),
        }
    }

    async fn verify(&self, params: ImageParams, cx: &ActionContext) -> Result<bool, ActionError> {
        let (host, cx) = (self.host.clone(), cx.clone());
        blocking(move || {
            // A partition bears no mark of its own, and an image without a digest may be another by now.
            let Some(digest) = params.digest.as_ref().and_then(Given::known).filter(|_| params.target.is_none()) else {
                return Ok(false);
            };
            let disk = host.choose_or_ours(params.disk.as_ref(), cx.permit())?;
            let mut open = host.open_disk(&disk, false)?;
            let same = open.is_written(cx.permit(), plan::IMAGE2DISK, &digest.to_string())?;
            if same {
                open.note(cx.permit(), Done::Written);
                publish(&host, &mut open)?;
            }
            Ok(same)
        })
        .await
    }
}

/// Found by content, unpacked, counted.
#[cfg(any(fuzzing, debug_assertions))]
pub(crate) fn unpack_all(bytes: &[u8], most: u64) -> std::io::Result<u64> {
    let kind = decompress::sniff(bytes);
    let _ = decompress::announced(kind, &bytes[..bytes.len().min(decompress::PREFIX)], None);
    let mut limited = limit::Limit::new(decompress::unpack(kind, bytes)?, most);
    std::io::copy(&mut limited, &mut std::io::sink())
}

/// An URL for a log: queries may carry signatures.
fn bare(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

impl OpenDisk {
    /// Whether our mark says that this run has finished writing this very content.
    fn is_written(
        &mut self,
        permit: &dragonfly_core::action::Permit,
        step: &str,
        content: &str,
    ) -> Result<bool, ActionError> {
        use super::fail::OrFailed;
        let mark =
            super::marker::Marker::read(&mut self.file).or_failed(|| format!("{} could not be read", self.name))?;
        Ok(mark.is_some_and(|mark| {
            mark.workflow_uid == permit.workflow_uid && mark.complete && mark.step == step && mark.content == content
        }))
    }
}
