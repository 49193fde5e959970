//! Links to this server's own images.

use std::fmt;

use async_trait::async_trait;
use url::Url;

/// Makes links to this server's own images, as `/images/debian.raw.zst`, that a machine can fetch.
#[async_trait]
pub trait ImageLinks: fmt::Debug + Send + Sync + 'static {
    /// The whole URL, with whatever proves that it may be fetched.
    fn link(&self, server: &Url, path: &str) -> String;

    /// What is wrong with the image behind this path and what to do, if it cannot be fetched now. Asked before a
    /// machine is authorised. Whoever does not know keeps this.
    async fn missing(&self, path: &str) -> Option<String> {
        let _ = path;
        None
    }
}

/// Links without proof: for an image directory that is open to all.
#[derive(Debug, Clone, Copy)]
pub struct OpenLinks;

impl ImageLinks for OpenLinks {
    fn link(&self, server: &Url, path: &str) -> String {
        server.join(path).map_or_else(|_| path.to_owned(), Into::into)
    }
}
