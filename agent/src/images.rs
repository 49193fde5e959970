//! Images over HTTP: from our server, and from others where their certificates can be judged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::Source;
use dragonfly_core::action::{ImageError, ImageSource, ImageStream};
use futures_util::StreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use crate::client::{Link, client, plain_client};
use crate::pin::{self, Pin};

/// Where a bundle of certificate authorities is, if the RAM disk carries one.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long a new session is waited for when the server refuses the one that was shown. Who fetches comes again.
const NEW_SESSION: Duration = Duration::from_secs(20);

/// Images over HTTP and HTTPS.
#[derive(Debug)]
pub struct HttpImages {
    /// The server's instances: what lies on one of them lies on all.
    servers: Vec<Url>,
    /// Which of them is asked.
    at: AtomicUsize,
    pinned: reqwest::Client,
    plain: reqwest::Client,
    /// For servers that are not ours; absent without a bundle of authorities.
    public: Option<reqwest::Client>,
    /// Whose session is shown to our server: the links in orders hold for an hour, a transfer may take longer.
    link: Option<Arc<Link>>,
}

impl HttpImages {
    /// For the server of an identity, by all its instances, and for others if `bundle` is there.
    pub fn new(servers: Vec<Url>, pin: Pin, bundle: &Path) -> Result<Self, String> {
        let tls = pin::client_config(pin).map_err(|e| e.to_string())?;
        let build = |builder: reqwest::ClientBuilder| {
            builder.read_timeout(Duration::from_secs(30)).build().map_err(|e| crate::client::chain(&e))
        };
        let public = match authorities(bundle) {
            Some(roots) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|e| e.to_string())?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some(build(client().tls_backend_preconfigured(tls))?)
            }
            None => None,
        };
        Ok(Self {
            servers,
            at: AtomicUsize::new(0),
            // A redirect must not lead out of the reach of the pin. To another host it goes without the session's key.
            pinned: build(client().tls_backend_preconfigured(tls).https_only(true))?,
            plain: plain_client().map_err(|e| crate::client::chain(&e))?,
            public,
            link: None,
        })
    }

    /// Shows our server the session of this link, whichever is in force.
    pub fn with_session(self, link: Arc<Link>) -> Self {
        Self { link: Some(link), ..self }
    }

    /// An image that a template names by path alone lies on the server that this agent talks to.
    fn resolve(&self, url: &Url, at: usize) -> Url {
        let is_named = url.scheme() == dragonfly_actions::plan::SERVER_SCHEME;
        match self.servers.get(at) {
            Some(server) if is_named || (at > 0 && self.is_ours(url)) => {
                let mut resolved = server.clone();
                resolved.set_path(url.path());
                resolved.set_query(url.query());
                resolved
            }
            _ => url.clone(),
        }
    }

    /// Whether it is on one of the server's instances.
    fn is_ours(&self, url: &Url) -> bool {
        let place = |url: &Url| (url.host().map(|host| host.to_owned()), url.port_or_known_default());
        url.scheme() == "https" && self.servers.iter().any(|server| place(server) == place(url))
    }

    /// This instance does not answer: the next one is asked from now on.
    fn move_on(&self, from: usize) {
        if self.servers.len() > 1 {
            // Of several streams that find out, one moves on.
            let next = (from + 1) % self.servers.len();
            let _ = self.at.compare_exchange(from, next, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Sends a request to the instance `at`, with the session of this agent if it goes to our server, or to another.
    async fn send(&self, request: RequestBuilder, url: &Url, at: usize) -> Result<Response, Source> {
        let is_ours = self.is_ours(url);
        let sent = async |request: RequestBuilder| {
            request.send().await.map_err(|e| {
                if is_ours {
                    self.move_on(at);
                }
                Source::from(e.without_url())
            })
        };
        let session = self.link.as_ref().filter(|_| is_ours).and_then(|link| Some((link, link.session_key()?)));
        let Some((link, (number, key))) = session else { return sent(request).await };
        let again = request.try_clone();
        let response = sent(request.bearer_auth(key.reveal())).await?;
        let Some(again) = again.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
            return Ok(response);
        };
        // The session has ended, and perhaps nothing else has noticed yet.
        match tokio::time::timeout(NEW_SESSION, link.session_key_after(number)).await {
            Ok(Ok((_, key))) => sent(again.bearer_auth(key.reveal())).await,
            // It wants no agent here now: what it answered stands.
            Ok(Err(_)) => Ok(response),
            Err(_) => Err("the session has ended, and the server gives no new one yet".into()),
        }
    }

    fn client_for(&self, url: &Url) -> Result<&reqwest::Client, ImageError> {
        match url.scheme() {
            "http" => Ok(&self.plain),
            "https" if self.is_ours(url) => Ok(&self.pinned),
            "https" => self.public.as_ref().ok_or_else(|| ImageError::Io {
                url: bare(url),
                source: "this agent carries no certificate authorities, so it can trust no https server but its own; \
                         put the image on the Dragonfly server, use http with a digest, or build the agent on a host \
                         that has ca-certificates"
                    .into(),
            }),
            _ => Err(ImageError::Refused { url: bare(url), status: 0 }),
        }
    }
}

fn authorities(bundle: &Path) -> Option<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(bundle).ok()?.filter_map(Result::ok);
    let (good, _) = roots.add_parsable_certificates(certificates);
    (good > 0).then_some(roots)
}

/// A URL as it may be shown: a signed query is a key.
fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

/// Whether a connection failed because a certificate has ended or has not begun. An [`std::io::Error`] hides what
/// it was made of from `source`.
fn is_of_time(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::CertificateError as C;
    let of_time = |error: &rustls::Error| {
        let rustls::Error::InvalidCertificate(why) = error else { return false };
        matches!(why, C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. })
    };
    if error.downcast_ref::<rustls::Error>().is_some_and(of_time) {
        return true;
    }
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inside) => is_of_time(inside),
        None => error.source().is_some_and(is_of_time),
    }
}

/// What identifies this very content: the entity tag, else the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(ETAG).or_else(|| text(LAST_MODIFIED))
}

/// Whether a validator may stand in If-Range (RFC 9110 13.1.5): a weak tag may not.
fn is_strong(validator: &str) -> bool {
    !validator.starts_with("W/")
}

/// `bytes 5-9/10` -> (5, Some(10)).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

#[async_trait]
impl ImageSource for HttpImages {
    async fn open(&self, url: &Url, offset: u64, known: Option<&str>) -> Result<ImageStream, ImageError> {
        let at = self.at.load(Ordering::Acquire);
        let resolved = self.resolve(url, at);
        let url = &resolved;
        let shown = bare(url);
        let io = |source: Source| match is_of_time(&*source) {
            true => ImageError::Untimely { url: shown.clone(), source },
            false => ImageError::Io { url: shown.clone(), source },
        };
        let mut request = self.client_for(url)?.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
            if let Some(known) = known.filter(|k| is_strong(k)) {
                request = request.header(IF_RANGE, known);
            }
        }
        let response = self.send(request, url, at).await.map_err(io)?;
        let status = response.status().as_u16();
        let found = validator(response.headers());
        let changed = known.is_some() && found.as_deref() != known;
        let total = match status {
            200 if offset == 0 && !changed => response.content_length(),
            // A server that ignores the range because the content is another one says 200 too.
            200 if changed => return Err(ImageError::Changed { url: shown }),
            200 => return Err(ImageError::NoRange { url: shown }),
            206 if changed => return Err(ImageError::Changed { url: shown }),
            206 => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(content_range);
                match range {
                    Some((first, total)) if first == offset => total,
                    _ => return Err(io("the server sent another range than was asked for".into())),
                }
            }
            404 | 410 => return Err(ImageError::NotFound { url: shown, status }),
            // Asked for what lies behind the end: it has become shorter.
            416 => return Err(ImageError::Changed { url: shown }),
            408 | 425 | 429 | 500.. => return Err(io(format!("the server answers {status}").into())),
            _ => return Err(ImageError::Refused { url: shown, status }),
        };
        let bytes = response
            .bytes_stream()
            .map(move |part| part.map_err(|e| ImageError::Io { url: shown.clone(), source: e.without_url().into() }))
            .boxed();
        Ok(ImageStream { bytes, total, validator: found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "5-9/10", "", "bytes 5-9"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_told_apart_however_deep_it_lies() {
        use rustls::{CertificateError as C, Error as Tls};
        use std::io::Error as Io;
        let deep = |why: C| Io::other(Io::other(Tls::InvalidCertificate(why)));
        assert!(is_of_time(&deep(C::Expired)) && is_of_time(&Tls::InvalidCertificate(C::NotValidYet)));
        assert!(!is_of_time(&deep(C::UnknownIssuer)) && !is_of_time(&Io::other("refused")));
    }

    #[test]
    fn a_signed_url_is_shown_without_its_key() {
        let url = "http://u:p@host/images/a.raw?expires=1&signature=abc#x".parse().unwrap();
        assert_eq!(bare(&url), "http://host/images/a.raw");
    }
}
