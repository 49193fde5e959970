//! `image2disk`: which image goes where.

use dragonfly_core::text::shown_url;
use serde::Deserialize;
use url::Url;

use super::given::Word;
use super::{Check, Digest, DiskSelector, Given, Target};

/// Scheme of an image that lies on the server that the agent talks to: `/images/a.raw` in a template
/// is `dragonfly:///images/a.raw` to the agent's [`ImageSource`](dragonfly_core::action::ImageSource).
pub const SERVER_SCHEME: &str = "dragonfly";

/// Parameters of `image2disk`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageParams {
    /// Where the image is: `https://...`, `http://...`, or a path on the server.
    pub url: Given<ImageUrl>,
    /// Digest of the bytes as they are fetched. Required unless [`insecure_no_digest`](Self::insecure_no_digest).
    #[serde(default)]
    pub digest: Option<Given<Digest>>,
    /// Takes whatever comes. For experiments.
    #[serde(default)]
    pub insecure_no_digest: bool,
    /// Digest of the image after decompression, if it is to be checked as well.
    #[serde(default)]
    pub raw_digest: Option<Given<Digest>>,
    /// How it is packed.
    #[serde(default)]
    pub compression: Compression,
    /// Onto this whole disk; left out together with `target`, the only one that is not removable.
    #[serde(default)]
    pub disk: Option<DiskSelector>,
    /// Into this partition.
    #[serde(default)]
    pub target: Option<Target>,
    /// How much is read back from the disk and compared.
    #[serde(default)]
    pub read_back: ReadBack,
}

/// How an image is packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Found by content.
    #[default]
    Auto,
    /// Written as it comes, whatever it looks like.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format 1.1.
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
}

/// How much is read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadBack {
    /// The first MiB and 64 samples of 64 KiB from everywhere.
    #[default]
    Sample,
    /// Everything.
    Full,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUrl(pub Url);

impl Word for ImageUrl {
    const WHAT: &'static str = "an URL such as https://server/image.raw.zst";

    fn from_text(text: &str) -> Result<Self, String> {
        let absolute = match text.strip_prefix('/') {
            Some(path) if !path.starts_with('/') => format!("{SERVER_SCHEME}:///{path}"),
            _ => text.to_owned(),
        };
        let url = Url::parse(&absolute).map_err(|error| {
            format!("`{}` is not an URL ({error}); write https://..., http://... or /images/NAME", shown_url(text))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a password does not belong in an URL".to_owned());
        }
        match url.scheme() {
            "http" | "https" | SERVER_SCHEME => Ok(Self(url)),
            other => Err(format!(
                "`{}`: `{other}:` cannot be fetched; write https://..., http://... or /images/NAME",
                shown_url(text)
            )),
        }
    }
}

impl ImageParams {
    pub(crate) fn check(&self, check: &mut Check) {
        check.given("url", &self.url);
        match (check.optional("digest", self.digest.as_ref()), self.digest.is_some(), self.insecure_no_digest) {
            (None, false, false) => check.say(
                "digest",
                "is missing; write `digest: sha256:...` (what sha256sum prints for the file at the URL), \
                 or `insecureNoDigest: true` to write whatever comes",
            ),
            (_, true, true) => check.say("insecureNoDigest", "is true beside a digest; keep one of them"),
            _ => {}
        }
        check.optional("rawDigest", self.raw_digest.as_ref());
        if let Some(disk) = &self.disk {
            disk.check("disk", check);
        }
        if let Some(target) = &self.target {
            target.check("target", check);
            if self.disk.is_some() {
                check.say("target", "stands beside `disk`; write the disk inside the target, or keep one of them");
            }
        }
    }
}
