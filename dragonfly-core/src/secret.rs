//! Values that must not be shown: sealed at rest, never printed.
//!
//! Sealing is XChaCha20-Poly1305 with a random 24-byte nonce; the additional data names the object
//! and key, so that a sealed value cannot be moved to another place.

mod mask;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

pub use mask::Mask;

/// Text that does not print and is wiped from memory when dropped.
///
/// It reads from JSON but does not write to it: the few places that must send it say so with
/// [`expose`].
#[derive(Clone)]
pub struct SecretString(Zeroizing<String>);

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextAlone)
    }
}

/// Takes a text, and never says what stood there instead: `password: 12345` is a number, and a password.
struct TextAlone;

impl TextAlone {
    fn refuse<E: de::Error>() -> Result<SecretString, E> {
        Err(E::custom("a secret is a text: write it in quotes"))
    }
}

impl<'de> de::Visitor<'de> for TextAlone {
    type Value = SecretString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretString, E> {
        Ok(text.to_owned().into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<SecretString, E> {
        Ok(text.into())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretString, E> {
        Self::refuse()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretString, E> {
        Self::refuse()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretString, E> {
        Self::refuse()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretString, E> {
        Self::refuse()
    }

    fn visit_unit<E: de::Error>(self) -> Result<SecretString, E> {
        Self::refuse()
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretString, A::Error> {
        Self::refuse()
    }

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<SecretString, A::Error> {
        Self::refuse()
    }
}

impl SecretString {
    /// The text itself. Call it where the text leaves, nowhere earlier.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretString {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl PartialEq for SecretString {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}
impl Eq for SecretString {}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// For `#[serde(serialize_with)]` on the few fields whose purpose is to carry a secret.
pub fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.reveal())
}

/// [`expose`] for a list.
pub fn expose_all<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(SecretString::reveal))
}

/// A value that only the holder of the key can read: base64 of nonce and ciphertext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

/// The key that seals one server's secrets: 32 bytes, kept in a file beside the data.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealing key]")
    }
}

/// Why a value cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// It was sealed with another key, for another place, or was changed.
    #[error("the value was sealed with another key or for another place, or it was changed")]
    NotOurs,
    /// The file is not 32 bytes long.
    #[error("a sealing key is 32 bytes long")]
    KeyLength,
}

impl SealingKey {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut()).map_err(|_| SealError::NoRandom)?;
        Ok(Self(key))
    }

    /// The key that a file holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let key: [u8; 32] = bytes.try_into().map_err(|_| SealError::KeyLength)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// What is to be written to a file of mode 0600.
    pub fn to_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals a value for one place, as `Secret/bmc-1/password`.
    pub fn seal(&self, place: &str, value: &SecretString) -> Result<Sealed, SealError> {
        let mut nonce = [0u8; 24];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandom)?;
        let payload = Payload { msg: value.reveal().as_bytes(), aad: place.as_bytes() };
        let text = self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::NotOurs)?;
        Ok(Sealed(BASE64.encode([&nonce[..], &text].concat())))
    }

    /// Opens a value that was sealed for this place.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<SecretString, SealError> {
        let bytes = BASE64.decode(&sealed.0).map_err(|_| SealError::NotOurs)?;
        let (nonce, text) = bytes.split_first_chunk::<24>().ok_or(SealError::NotOurs)?;
        let payload = Payload { msg: text, aad: place.as_bytes() };
        let plain = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::NotOurs)?;
        let plain = String::from_utf8(plain).map_err(|_| SealError::NotOurs)?;
        Ok(plain.into())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(*self.0))
    }
}

/// A random token: 256 bits as 43 characters of URL-safe base64.
pub fn random_token() -> Result<SecretString, SealError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| SealError::NoRandom)?;
    Ok(BASE64URL.encode(bytes.as_ref()).into())
}

/// A random password for devices that take little: 16 letters and digits, at least one of each kind (95 bits). IPMI 2.0
/// has room for 16 or 20 bytes (22.30).
pub fn random_password() -> Result<SecretString, SealError> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const LENGTH: usize = 16;
    let mut text = Zeroizing::new(String::with_capacity(LENGTH));
    loop {
        let mut bytes = Zeroizing::new([0u8; 64]);
        getrandom::fill(bytes.as_mut()).map_err(|_| SealError::NoRandom)?;
        // 62 and 63 are left out: every letter is as likely as the next.
        let fair = bytes.iter().map(|byte| usize::from(byte >> 2));
        text.extend(fair.filter_map(|n| ALPHABET.get(n)).take(LENGTH).map(|letter| char::from(*letter)));
        let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
        if text.len() == LENGTH && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
        {
            return Ok(SecretString(text));
        }
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_and_not_repeated() {
        for given in ["90214", "-90214", "90214.5", "true", "null", "[90214]", "{\"90214\": 1}"] {
            let error = serde_json::from_str::<SecretString>(given).unwrap_err().to_string();
            assert!(
                error.contains("write it in quotes") && !error.contains("90214") && !error.contains("true"),
                "{error}"
            );
        }
        assert_eq!(serde_json::from_str::<SecretString>("\"90214\"").unwrap().reveal(), "90214");
        let manifest =
            "{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {name: a}, spec: {data: {password: 90214}}}";
        let error = crate::resource::manifest::parse(manifest).unwrap_err().to_string();
        assert!(error.contains("spec.data.password: a secret is a text") && !error.contains("90214"), "{error}");
    }

    #[test]
    fn opens_only_in_its_place_with_its_key() {
        let key = SealingKey::generate().unwrap();
        let secret = SecretString::from("hunter2".to_owned());
        let sealed = key.seal("Secret/a/password", &secret).unwrap();
        assert_eq!(key.open("Secret/a/password", &sealed).unwrap(), secret);
        assert_eq!(key.open("Secret/b/password", &sealed).unwrap_err(), SealError::NotOurs);
        let other = SealingKey::generate().unwrap();
        assert_eq!(other.open("Secret/a/password", &sealed).unwrap_err(), SealError::NotOurs);
        assert!(key.open("x", &Sealed("AAAA".into())).is_err());
    }

    #[test]
    fn passwords_that_every_device_takes() {
        let mut seen = std::collections::BTreeSet::new();
        let mut letters = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let password = random_password().unwrap();
            let text = password.reveal();
            assert!(text.len() == 16 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
            for kind in [char::is_uppercase, char::is_lowercase, char::is_numeric] {
                assert!(text.chars().any(kind));
            }
            letters.extend(text.bytes());
            assert!(seen.insert(text.to_owned()));
        }
        assert_eq!(letters.len(), 62, "every letter and digit comes");
    }

    #[test]
    fn does_not_print() {
        let secret = SecretString::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[secret]");
    }
}
