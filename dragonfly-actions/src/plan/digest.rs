//! `sha256:...`: what identifies an image's bytes.

use std::fmt;

use super::given::Word;

/// How a digest is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// FIPS 180-4, 32 bytes.
    Sha256,
    /// FIPS 180-4, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// Its name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A digest: algorithm and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    value: Vec<u8>,
}

impl Digest {
    /// A value of the right length for its algorithm.
    pub fn new(algorithm: Algorithm, value: &[u8]) -> Option<Self> {
        (value.len() == algorithm.length()).then(|| Self { algorithm, value: value.to_vec() })
    }

    /// How it is made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), hex::encode(&self.value))
    }
}

impl Word for Digest {
    const WHAT: &'static str = "a digest such as sha256:<64 hex digits>";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some((algorithm, value)) = text.split_once(':') else {
            return Err(match text.len() {
                64 => format!("names no algorithm; write `sha256:{text}`"),
                128 => format!("names no algorithm; write `sha512:{text}`"),
                _ => "is not a digest; write sha256: or sha512: and the hex digits that sha256sum or sha512sum prints"
                    .to_owned(),
            });
        };
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => return Err(format!("`{other}` is not an algorithm we know; write sha256: or sha512:")),
        };
        let bytes = hex::decode(value).map_err(|_| {
            format!("what follows `{}:` must be {} hex digits", algorithm.name(), algorithm.length() * 2)
        })?;
        Self::new(algorithm, &bytes).ok_or_else(|| {
            let (name, want, got) = (algorithm.name(), algorithm.length() * 2, value.len());
            format!("{name} has {want} hex digits, this has {got}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_digest() {
        let good = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(Digest::from_text(&good).unwrap().to_string(), good);
        let upper = format!("sha256:{}", "AB".repeat(32));
        assert_eq!(Digest::from_text(&upper).unwrap().to_string(), good);
        for (text, want) in [
            ("ab".repeat(32), "write `sha256:"),
            ("ab".repeat(64), "write `sha512:"),
            ("sha256:abcd".to_owned(), "this has 4"),
            (format!("sha256:{}", "zz".repeat(32)), "64 hex digits"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), "`md5`"),
            ("latest".to_owned(), "not a digest"),
        ] {
            let said = Digest::from_text(&text).unwrap_err();
            assert!(said.contains(want), "{text}: {said}");
        }
    }
}
