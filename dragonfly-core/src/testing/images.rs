//! Images from memory, with every fault that a network and a server have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use url::Url;

use crate::action::{ImageError, ImageSource, ImageStream};

/// One image and how it misbehaves. As made, it does not.
#[derive(Debug, Clone)]
pub struct StaticImage {
    bytes: Bytes,
    chunk: usize,
    cuts: Vec<usize>,
    stall: Option<usize>,
    truncated: Option<usize>,
    corrupt: Option<usize>,
    status: Option<u16>,
    ranges: bool,
    length: bool,
    changes_after: Option<usize>,
}

impl StaticImage {
    /// An image that comes whole, from any offset, in pieces of 64 KiB.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            chunk: 64 << 10,
            cuts: Vec::new(),
            stall: None,
            truncated: None,
            corrupt: None,
            status: None,
            ranges: true,
            length: true,
            changes_after: None,
        }
    }

    /// Comes in pieces of this many bytes.
    #[must_use]
    pub fn in_chunks_of(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// The first transfer breaks after the first number of bytes, the second after the second, ...;
    /// later ones do not.
    #[must_use]
    pub fn cut_after(mut self, bytes: &[usize]) -> Self {
        self.cuts = bytes.to_vec();
        self
    }

    /// Every transfer says nothing more after this many bytes, and does not end.
    #[must_use]
    pub fn stall_after(mut self, bytes: usize) -> Self {
        self.stall = Some(bytes);
        self
    }

    /// Ends without an error at this offset of the image, short of the length it told.
    #[must_use]
    pub fn truncated_to(mut self, bytes: usize) -> Self {
        self.truncated = Some(bytes);
        self
    }

    /// The byte at this offset of the image is another.
    #[must_use]
    pub fn corrupt_at(mut self, offset: usize) -> Self {
        self.corrupt = Some(offset);
        self
    }

    /// Answers with this HTTP status: 404 and 410 as not found, 500 and above as a broken
    /// connection, the rest as refused.
    #[must_use]
    pub fn answering(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Cannot start in the middle.
    #[must_use]
    pub fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Does not tell its length.
    #[must_use]
    pub fn without_length(mut self) -> Self {
        self.length = false;
        self
    }

    /// Is another image, of the same length, from the transfer after this many on.
    #[must_use]
    pub fn changes_after(mut self, transfers: usize) -> Self {
        self.changes_after = Some(transfers);
        self
    }

    fn open(&self, url: &Url, offset: u64, validator: Option<&str>, earlier: usize) -> Result<ImageStream, ImageError> {
        let name = without_query(url);
        match self.status {
            Some(status @ (404 | 410)) => return Err(ImageError::NotFound { url: name, status }),
            Some(status @ 500..) => return Err(broken(name, &format!("the server answered {status}"))),
            Some(status) => return Err(ImageError::Refused { url: name, status }),
            None => {}
        }
        if offset > 0 && !self.ranges {
            return Err(ImageError::NoRange { url: name });
        }
        let changed = self.changes_after.is_some_and(|after| earlier >= after);
        let ours = if changed { "\"two\"" } else { "\"one\"" };
        if validator.is_some_and(|theirs| theirs != ours) {
            return Err(ImageError::Changed { url: name });
        }
        let mut bytes = self.bytes.to_vec();
        if changed {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        if let Some(byte) = self.corrupt.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x01;
        }
        bytes.truncate(self.truncated.unwrap_or(usize::MAX));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let mut rest = Bytes::from(bytes).slice(offset..);
        let cut = self.cuts.get(earlier).copied().filter(|cut| *cut < rest.len());
        let stall = self.stall.filter(|stall| *stall < rest.len() && cut.is_none_or(|cut| *stall <= cut));
        if let Some(end) = stall.or(cut) {
            rest.truncate(end);
        }
        let mut items = Vec::new();
        while !rest.is_empty() {
            items.push(Ok(rest.split_to(self.chunk.min(rest.len()))));
        }
        let ending = if stall.is_some() {
            stream::pending().left_stream()
        } else {
            stream::iter(cut.map(|_| Err(broken(name, "the connection was cut")))).right_stream()
        };
        Ok(ImageStream {
            bytes: stream::iter(items).chain(ending).boxed(),
            total: self.length.then_some(self.bytes.len() as u64),
            validator: Some(ours.to_owned()),
        })
    }
}

/// Images by the path of their URL, whatever the host. What is not here is answered 404.
#[derive(Debug, Clone, Default)]
pub struct StaticImages(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<String, StaticImage>,
    opened: Vec<(Url, u64)>,
}

impl StaticImages {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more, at this path: `/images/debian.raw`.
    #[must_use]
    pub fn with(self, path: &str, image: StaticImage) -> Self {
        self.set(path, image);
        self
    }

    /// Puts an image at this path, in place of the one there.
    pub fn set(&self, path: &str, image: StaticImage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).images.insert(path.to_owned(), image);
    }

    /// Every transfer that was asked for: URL and offset, in order.
    pub fn opened(&self) -> Vec<(Url, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).opened.clone()
    }
}

#[async_trait]
impl ImageSource for StaticImages {
    async fn open(&self, url: &Url, offset: u64, validator: Option<&str>) -> Result<ImageStream, ImageError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = state.opened.iter().filter(|(opened, _)| opened.path() == url.path()).count();
        state.opened.push((url.clone(), offset));
        match state.images.get(url.path()) {
            Some(image) => image.open(url, offset, validator, earlier),
            None => Err(ImageError::NotFound { url: without_query(url), status: 404 }),
        }
    }
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn broken(url: String, why: &str) -> ImageError {
    ImageError::Io { url, source: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, offset, validator, bytes, how it ends.
    type Case = (&'static str, u64, Option<&'static str>, &'static [u8], &'static str);

    fn url(path: &str) -> Url {
        format!("http://nowhere.test{path}?signature=secret").parse().unwrap()
    }

    /// What comes, and how it ends.
    async fn fetch(images: &StaticImages, path: &str, offset: u64, validator: Option<&str>) -> (Vec<u8>, String) {
        let stream = match images.open(&url(path), offset, validator).await {
            Ok(stream) => stream,
            Err(error) => return (Vec::new(), error.to_string()),
        };
        let (mut bytes, mut end) = (Vec::new(), format!("{:?} {:?}", stream.total, stream.validator));
        let mut pieces = stream.bytes;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => bytes.extend(piece),
                Err(error) => end = error.to_string(),
            }
        }
        (bytes, end)
    }

    #[tokio::test]
    async fn misbehaves_exactly_as_told() {
        let image = || StaticImage::new(&b"0123456789"[..]).in_chunks_of(3);
        let images = StaticImages::new()
            .with("/whole", image())
            .with("/cut", image().cut_after(&[4, 0]))
            .with("/short", image().truncated_to(7))
            .with("/bad", image().corrupt_at(2))
            .with("/gone", image().answering(404))
            .with("/no", image().answering(403))
            .with("/down", image().answering(503))
            .with("/straight", image().without_ranges().without_length())
            .with("/new", image().changes_after(1));
        let one = Some("\"one\"");
        let table: [Case; 14] = [
            ("/whole", 0, None, b"0123456789", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/whole", 6, one, b"6789", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/whole", 99, one, b"", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/cut", 0, None, b"0123", "http://nowhere.test/cut could not be fetched"),
            ("/cut", 4, one, b"", "http://nowhere.test/cut could not be fetched"),
            ("/cut", 4, one, b"456789", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/short", 5, None, b"56", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/bad", 0, None, b"0133456789", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/gone", 0, None, b"", "http://nowhere.test/gone does not exist (404)"),
            ("/no", 0, None, b"", "http://nowhere.test/no was refused (403)"),
            ("/down", 0, None, b"", "http://nowhere.test/down could not be fetched"),
            ("/straight", 1, one, b"", "http://nowhere.test/straight cannot be resumed: the server ignores ranges"),
            ("/new", 0, None, b"0123456789", "Some(10) Some(\"\\\"one\\\"\")"),
            ("/new", 2, one, b"", "http://nowhere.test/new changed while it was fetched"),
        ];
        for (path, offset, validator, bytes, end) in table {
            let got = fetch(&images, path, offset, validator).await;
            assert_eq!((got.0.as_slice(), got.1.as_str()), (bytes, end), "{path} from {offset}");
        }
        assert_eq!(images.opened().len(), 14);
        assert!(fetch(&images, "/none", 0, None).await.1.contains("404"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_transfer_does_not_end() {
        let images = StaticImages::new().with("/slow", StaticImage::new(&b"0123456789"[..]).stall_after(4));
        let mut stream = images.open(&url("/slow"), 0, None).await.unwrap();
        assert_eq!(stream.bytes.next().await.unwrap().unwrap(), "0123");
        let hour = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, stream.bytes.next()).await.is_err());
    }
}
