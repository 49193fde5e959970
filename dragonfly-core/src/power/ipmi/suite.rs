//! Cipher suites of RMCP+ (IPMI 2.0, chapters 13.28 and 22.15): how a session is authenticated and encrypted.

use aes::Aes128;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use hmac::{Hmac, KeyInit, Mac};
use zeroize::Zeroizing;

/// A cipher suite. Those without encryption or with MD5 are not offered: whoever listens would own the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Cipher suite 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Sha1,
    /// Cipher suite 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Sha256,
}

impl Suite {
    /// The number that people know it by.
    pub fn id(self) -> u8 {
        match self {
            Self::Sha1 => 3,
            Self::Sha256 => 17,
        }
    }

    /// The suite with this number, if it is one of ours.
    pub fn from_id(id: u8) -> Option<Self> {
        [Self::Sha1, Self::Sha256].into_iter().find(|suite| suite.id() == id)
    }

    /// Numbers of the authentication, integrity and confidentiality algorithms (tables 13-17 to 13-19).
    pub(crate) fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Sha1 => [1, 1, 1],
            Self::Sha256 => [3, 4, 1],
        }
    }

    /// How many bytes of a code go with each packet.
    pub(crate) fn code_length(self) -> usize {
        match self {
            Self::Sha1 => 12,
            Self::Sha256 => 16,
        }
    }

    /// The keyed hash of these parts, one behind the other.
    pub(crate) fn hash(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        fn keyed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
            // HMAC takes keys of any length (RFC 2104, section 3).
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Zeroizing::default() };
            parts.iter().for_each(|part| mac.update(part));
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        match self {
            Self::Sha1 => keyed::<Hmac<sha1::Sha1>>(key, parts),
            Self::Sha256 => keyed::<Hmac<sha2::Sha256>>(key, parts),
        }
    }
}

/// The keys of one session (chapter 13.32).
pub(crate) struct Keys {
    suite: Suite,
    integrity: Zeroizing<Vec<u8>>,
    encryption: Zeroizing<[u8; 16]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Keys {
    /// From the session integrity key.
    pub(crate) fn derive(suite: Suite, sik: &[u8]) -> Self {
        let second = suite.hash(sik, &[&[2; 20]]);
        let mut encryption = Zeroizing::new([0; 16]);
        encryption.copy_from_slice(&second[..16]);
        Self { suite, integrity: suite.hash(sik, &[&[1; 20]]), encryption }
    }

    pub(crate) fn code_length(&self) -> usize {
        self.suite.code_length()
    }

    /// The code that goes behind a packet.
    pub(crate) fn code(&self, bytes: &[u8]) -> Vec<u8> {
        self.suite.hash(&self.integrity, &[bytes])[..self.code_length()].to_vec()
    }

    /// Encrypts a payload; its initialisation vector stands before it (table 13-20).
    pub(crate) fn encrypt(&self, iv: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let pad = (16 - (payload.len() + 1) % 16) % 16;
        let mut body = payload.to_vec();
        // 1, 2, 3, ..., and how many.
        body.extend((1..=pad as u8).chain([pad as u8]));
        let length = body.len();
        let done = cbc::Encryptor::<Aes128>::new((&*self.encryption).into(), &iv.into())
            .encrypt_padded::<NoPadding>(&mut body, length)
            .map(<[u8]>::len);
        debug_assert_eq!(done.ok(), Some(length), "whole blocks are encrypted in place");
        [&iv[..], &body].concat()
    }

    /// What [`Self::encrypt`] was given, if this is something of the kind.
    pub(crate) fn decrypt(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (iv, body) = payload.split_first_chunk::<16>()?;
        if body.is_empty() || body.len() % 16 != 0 {
            return None;
        }
        let mut body = body.to_vec();
        cbc::Decryptor::<Aes128>::new((&*self.encryption).into(), iv.into())
            .decrypt_padded::<NoPadding>(&mut body)
            .ok()?;
        let pad = usize::from(*body.last()?);
        body.truncate(body.len().checked_sub(pad + 1)?);
        Some(body)
    }
}
