//! Who may: the admin token, browser sessions, one-time sign-in links, signed image links.
//!
//! Everything a client shows is either a random token that is compared in constant time or a claim
//! with its HMAC-SHA256 under a key in the data directory. Nothing is kept per session, so a restart
//! signs nobody out and image links go on working; of sessions that were signed out it is kept that they were.

mod ended;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dragonfly_core::clock::{Clock, Timestamp};
use dragonfly_core::engine::ImageLinks;
use dragonfly_core::secret::{self, SealingKey, SecretString};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use crate::files;
use ended::Ended;

/// How long a browser stays signed in.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long a sign-in link waits to be used.
pub const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
/// How long a signed image link holds.
pub const IMAGE_LIFE: Duration = Duration::from_secs(3600);
/// The name of the session cookie.
pub const COOKIE: &str = "dragonfly_session";

/// The file of the admin token, in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// The file of the key that sessions and image links are signed with, there too.
pub(crate) const KEY_FILE: &str = "http.key";

/// The server's memory of who may.
#[derive(Debug)]
pub struct Auth {
    admin: [u8; 32],
    sessions: Signer,
    images: Signer,
    clock: Arc<dyn Clock>,
    /// SHA-256 of each open sign-in link and when it ends.
    links: Mutex<HashMap<[u8; 32], Timestamp>>,
    /// Sessions that were signed out.
    ended: Ended,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read or created.
    #[error("cannot read or create {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The admin token is too weak to be one.
    #[error("{path} must hold a token of at least 32 characters without spaces; delete it to have a new one made")]
    Token {
        /// Which.
        path: PathBuf,
    },
    /// A key is none: everybody knows what an empty one signs.
    #[error(
        "{path} cannot be used: {what}; put the right file back, or delete it to have a new one made: browsers then sign in \
         again, and links to images that were given out end"
    )]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What was signed out cannot be read.
    #[error(
        "{path}, line {line} cannot be read: it tells which browsers were signed out before their time; delete it, and \
         admin.token with it, which signs all of them out"
    )]
    SignedOut {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
    },
}

impl Auth {
    /// Reads the admin token and the signing key from the data directory, or makes them.
    pub fn open(data: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuthError> {
        let read = |name: &str, make: fn() -> Option<Vec<u8>>| {
            let path = data.join(name);
            let made = || make().ok_or_else(|| io::Error::other("the system gives no random numbers"));
            match files::read_or_create(&path, made) {
                Ok(bytes) => Ok((path, bytes)),
                Err(source) => Err(AuthError::File { path, source }),
            }
        };
        let (path, token) = read(TOKEN_FILE, || {
            let token = secret::random_token().ok()?;
            Some(format!("{}\n", token.reveal()).into_bytes())
        })?;
        let (key_path, key) = read(KEY_FILE, || SealingKey::generate().ok().map(|key| key.to_bytes().to_vec()))?;
        files::check_key(&key).map_err(|what| AuthError::Key { path: key_path, what })?;
        let token = token.trim_ascii();
        if token.len() < 32 || !token.iter().all(u8::is_ascii_graphic) {
            return Err(AuthError::Token { path });
        }
        Ok(Self { ended: Ended::open(data)?, ..Self::new(token, &key, clock) })
    }

    /// With a token and a key from elsewhere; what is signed out is known until a restart.
    pub fn new(token: &[u8], key: &[u8], clock: Arc<dyn Clock>) -> Self {
        let admin = Sha256::digest(token).into();
        // Sessions depend on the token as well: a new token signs everybody out.
        let sessions = Signer::new(key, &[b"browser session v1 ", &admin as &[u8]].concat());
        let images = Signer::new(key, b"image link v1");
        Self { admin, sessions, images, clock, links: Mutex::default(), ended: Ended::default() }
    }

    /// Whether this is the admin token.
    pub fn is_admin(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        given.ct_eq(&self.admin).into()
    }

    /// A token for one sign-in link.
    pub fn new_link(&self) -> Option<SecretString> {
        let token = secret::random_token().ok()?;
        let now = self.clock.now();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, ends| *ends > now);
        links.insert(Sha256::digest(token.reveal().as_bytes()).into(), now.plus(LINK_LIFE));
        Some(token)
    }

    /// Uses up a sign-in link: true once, while it holds.
    pub fn use_link(&self, token: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let ends = self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
        ends.is_some_and(|ends| ends > self.clock.now())
    }

    /// The value of a new session cookie.
    pub fn new_session(&self) -> Option<SecretString> {
        let nonce = secret::random_token().ok()?;
        let ends = self.clock.now().plus(SESSION_LIFE).unix_seconds();
        let claim = format!("{ends}.{}", nonce.reveal());
        let tag = self.sessions.tag(claim.as_bytes());
        Some(format!("{claim}.{tag}").into())
    }

    /// Whether a session cookie holds.
    pub fn is_session(&self, cookie: &str) -> bool {
        let Some(ends) = self.session_end(cookie) else { return false };
        ends > self.clock.now() && !self.ended.contains(&Sha256::digest(cookie.as_bytes()).into())
    }

    fn session_end(&self, cookie: &str) -> Option<Timestamp> {
        if cookie.len() > 256 {
            return None;
        }
        let (claim, tag) = cookie.rsplit_once('.')?;
        if !self.sessions.check(claim.as_bytes(), tag) {
            return None;
        }
        claim.split_once('.')?.0.parse().ok().map(Timestamp::from_unix_seconds)
    }

    /// Signs a browser out, whatever comes of it here until a restart. Waits for the disk.
    ///
    /// # Errors
    /// It could not be written down: after a restart the cookie is good again until it ends by itself.
    pub fn end_session(&self, cookie: &str) -> io::Result<()> {
        // Only what we signed ourselves is remembered: strangers cannot fill the list.
        let Some(ends) = self.session_end(cookie) else { return Ok(()) };
        let now = self.clock.now();
        if ends <= now {
            return Ok(());
        }
        self.ended.add(Sha256::digest(cookie.as_bytes()).into(), ends, now)
    }

    /// The query that opens one path until a moment: `expires=...&signature=...`.
    pub fn sign(&self, path: &str, expiry: Timestamp) -> String {
        let expires = expiry.unix_seconds();
        let tag = self.images.tag(format!("{expires} {path}").as_bytes());
        format!("expires={expires}&signature={tag}")
    }

    /// What a query is worth for this path now.
    pub fn judge(&self, path: &str, query: &str) -> ImageLink {
        let pairs: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).take(8).collect();
        let (Some(expires), Some(tag)) = (pairs.get("expires"), pairs.get("signature")) else { return ImageLink::None };
        let Ok(seconds) = expires.parse::<i64>() else { return ImageLink::None };
        if !self.images.check(format!("{seconds} {path}").as_bytes(), tag) {
            return ImageLink::None;
        }
        if self.clock.now() < Timestamp::from_unix_seconds(seconds) { ImageLink::Holds } else { ImageLink::Over }
    }
}

/// What a query is worth for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageLink {
    /// It opens it.
    Holds,
    /// It did once.
    Over,
    /// It is none of ours, or was made for something else.
    None,
}

impl ImageLinks for Auth {
    fn link(&self, server: &Url, path: &str) -> String {
        let Ok(mut url) = server.join(path) else { return path.to_owned() };
        let query = self.sign(url.path(), self.clock.now().plus(IMAGE_LIFE));
        url.set_query(Some(&query));
        url.into()
    }
}

/// HMAC-SHA256 under a key of its own: what one signer made, another refuses.
struct Signer(Hmac<Sha256>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    fn new(root: &[u8], purpose: &[u8]) -> Self {
        let derived = keyed(root).chain_update(purpose).finalize().into_bytes();
        Self(keyed(&derived))
    }

    fn tag(&self, message: &[u8]) -> String {
        BASE64.encode(self.0.clone().chain_update(message).finalize().into_bytes())
    }

    fn check(&self, message: &[u8], tag: &str) -> bool {
        let Ok(tag) = BASE64.decode(tag) else { return false };
        self.0.clone().chain_update(message).verify_slice(&tag).is_ok()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // Hashed to 32 bytes and filled up with zeros to a block, as RFC 2104 does with long keys.
    let mut block = [0u8; 64];
    if let Some(start) = block.first_chunk_mut::<32>() {
        *start = Sha256::digest(key).into();
    }
    Hmac::new(&block.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[derive(Debug, Default)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_seconds(1_800_000_000 + self.0.load(Ordering::SeqCst))
        }
    }

    fn auth() -> (Arc<Hand>, Auth) {
        let clock = Arc::new(Hand::default());
        let auth = Auth::new(b"the token", b"the key", Arc::clone(&clock) as _);
        (clock, auth)
    }

    #[test]
    fn a_link_signs_in_once_and_not_for_long() {
        let (clock, auth) = auth();
        let link = auth.new_link().unwrap();
        assert!(!auth.use_link("something else"));
        assert!(auth.use_link(link.reveal()));
        assert!(!auth.use_link(link.reveal()), "used up");
        let late = auth.new_link().unwrap();
        clock.0.store(16 * 60, Ordering::SeqCst);
        assert!(!auth.use_link(late.reveal()), "too late");
    }

    #[test]
    fn sessions_end_by_time_by_sign_out_and_by_a_new_token() {
        let (clock, auth) = auth();
        let cookie = auth.new_session().unwrap();
        assert!(auth.is_session(cookie.reveal()));
        let restarted = Auth::new(b"the token", b"the key", Arc::clone(&clock) as _);
        assert!(restarted.is_session(cookie.reveal()), "a restart signs nobody out");
        let rotated = Auth::new(b"another token", b"the key", Arc::clone(&clock) as _);
        assert!(!rotated.is_session(cookie.reveal()));
        let longer = cookie.reveal().replacen('1', "9", 1);
        assert!(!auth.is_session(&longer), "the end is signed too");
        auth.end_session(cookie.reveal()).unwrap();
        assert!(!auth.is_session(cookie.reveal()));
        let other = auth.new_session().unwrap();
        clock.0.store(13 * 3600, Ordering::SeqCst);
        assert!(!auth.is_session(other.reveal()));
    }

    #[test]
    fn an_image_link_opens_its_path_for_an_hour() {
        let (clock, auth) = auth();
        let link = auth.link(&"https://10.0.0.1:3000".parse().unwrap(), "/images/debian 12.raw");
        let url: Url = link.parse().unwrap();
        let query = url.query().unwrap().to_owned();
        assert_eq!(url.path(), "/images/debian%2012.raw");
        assert_eq!(auth.judge(url.path(), &query), ImageLink::Holds);
        let foreign = |path: &str, query: &str| assert_eq!(auth.judge(path, query), ImageLink::None, "{path}?{query}");
        foreign("/images/other.raw", &query);
        foreign(url.path(), &query.replace("expires=", "expires=2"));
        foreign(url.path(), "");
        clock.0.store(3601, Ordering::SeqCst);
        assert_eq!(auth.judge(url.path(), &query), ImageLink::Over);
        foreign("/images/other.raw", &query);
    }

    #[test]
    fn the_token_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Hand::default());
        let auth = Auth::open(dir.path(), Arc::clone(&clock)).unwrap();
        let token = std::fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap();
        assert!(auth.is_admin(token.trim()));
        assert!(!auth.is_admin(""));
        assert!(Auth::open(dir.path(), Arc::clone(&clock)).unwrap().is_admin(token.trim()));
        std::fs::write(dir.path().join(TOKEN_FILE), "short").unwrap();
        assert!(matches!(Auth::open(dir.path(), clock), Err(AuthError::Token { .. })));
    }

    #[test]
    fn a_session_that_was_signed_out_is_over_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Hand::default());
        let open = || Auth::open(dir.path(), Arc::clone(&clock)).unwrap();
        let auth = open();
        let (out, other) = (auth.new_session().unwrap(), auth.new_session().unwrap());
        auth.end_session(out.reveal()).unwrap();
        let restarted = open();
        assert!(!restarted.is_session(out.reveal()));
        assert!(restarted.is_session(other.reveal()), "a restart signs nobody out");
        restarted.end_session("9999999999.x.y").unwrap();
        let kept = std::fs::read_to_string(dir.path().join("signed-out")).unwrap();
        assert_eq!(kept.lines().count(), 1, "a stranger's cookie is not kept");
        assert!(!kept.contains(out.reveal()));
    }

    #[test]
    fn a_key_file_that_holds_no_key_is_named_and_left_as_it_is() {
        for (content, what) in [
            (&b""[..], "it is empty"),
            (b"\n", "it holds 1 byte, and a key is 32 bytes"),
            (&[7; 31], "it holds 31 bytes, and a key is 32 bytes"),
            (&[7; 33], "it holds 33 bytes, and a key is 32 bytes"),
            (&[0; 32], "all of its bytes are the same"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(KEY_FILE);
            std::fs::write(&path, content).unwrap();
            let error = Auth::open(dir.path(), Arc::new(Hand::default())).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} cannot be used: {what}; put the right", path.display())), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
