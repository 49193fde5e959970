//! Proofs that the server gives out and later recognises without having kept them: a payload and
//! its HMAC-SHA256 under the server's own key. They survive a restart of the server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::{SealingKey, SecretString};

/// Signs and checks proofs of one kind; a proof of one kind is none of another.
#[derive(Clone)]
pub(crate) struct Signer {
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// For proofs of this kind. The key is derived (HMAC as a pseudo-random function), so that a
    /// proof never tells anything of the sealing key.
    pub(crate) fn new(root: &SealingKey, kind: &str) -> Self {
        let mut key = Zeroizing::new([0u8; 32]);
        key.copy_from_slice(&mac(root.to_bytes(), kind.as_bytes()));
        Self { key }
    }

    /// A proof of `claims`.
    pub(crate) fn sign<T: Serialize>(&self, claims: &T) -> SecretString {
        // Our own claims always serialise: plain structs with string keys.
        let payload = BASE64.encode(serde_json::to_vec(claims).unwrap_or_default());
        let tag = BASE64.encode(mac(self.key.as_ref(), payload.as_bytes()));
        format!("{payload}.{tag}").into()
    }

    /// What a proof claims, if it is one of ours.
    pub(crate) fn open<T: DeserializeOwned>(&self, proof: &str) -> Option<T> {
        if proof.len() > 4096 {
            return None;
        }
        let (payload, tag) = proof.split_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        let mut check = Hmac::<Sha256>::new_from_slice(self.key.as_ref()).ok()?;
        check.update(payload.as_bytes());
        // Constant time.
        check.verify_slice(&tag).ok()?;
        serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proofs_open() {
        let root = SealingKey::generate().unwrap();
        let signer = Signer::new(&root, "session");
        let proof = signer.sign(&("machine", 7));
        assert_eq!(signer.open::<(String, u32)>(proof.reveal()), Some(("machine".into(), 7)));
        assert_eq!(Signer::new(&root, "token").open::<(String, u32)>(proof.reveal()), None, "another kind");
        let other = SealingKey::generate().unwrap();
        assert_eq!(Signer::new(&other, "session").open::<(String, u32)>(proof.reveal()), None, "another server");
        let (payload, tag) = proof.reveal().split_once('.').unwrap();
        let forged = BASE64.encode(br#"["other",7]"#);
        for bad in [
            String::new(),
            ".".into(),
            payload.into(),
            format!("{forged}.{tag}"),
            format!("{payload}."),
            format!("{payload}.{}", &tag[1..]),
        ] {
            assert_eq!(signer.open::<(String, u32)>(&bad), None, "{bad}");
        }
    }
}
