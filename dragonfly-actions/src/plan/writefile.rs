//! `writefile`: one file in what was installed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::given::Word;
use super::{Check, Given, Target};

/// The longest content, in bytes.
const LONGEST: usize = 256 * 1024;

/// Parameters of `writefile`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteFileParams {
    /// In this partition's file system.
    pub target: Target,
    /// From the root of that file system.
    pub path: String,
    /// What it is to hold, as text.
    #[serde(default)]
    pub content: Option<String>,
    /// What it is to hold, as base64.
    #[serde(default)]
    pub content_base64: Option<String>,
    /// Permissions, in quotes: `"0644"`.
    #[serde(default)]
    pub mode: Option<Given<Mode>>,
    /// Its owner; 0 unless told.
    #[serde(default)]
    pub uid: Option<Given<u32>>,
    /// Its group; 0 unless told.
    #[serde(default)]
    pub gid: Option<Given<u32>>,
    /// Permissions of directories that have to be made: `"0755"` unless told.
    #[serde(default)]
    pub dir_mode: Option<Given<Mode>>,
}

// By hand: the content may be a secret.
impl std::fmt::Debug for WriteFileParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteFileParams")
            .field("target", &self.target)
            .field("path", &self.path)
            .field("mode", &self.mode)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

/// POSIX permissions, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Word for Mode {
    const WHAT: &'static str = "permissions in octal and in quotes, such as \"0644\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(Self(mode)),
            _ => Err(format!("`{text}` is not a file mode; write {}", Self::WHAT)),
        }
    }

    /// YAML reads `0644` as a number, and whether that is octal depends on its version.
    fn from_number(_: u64) -> Result<Self, String> {
        Err("is a number; write permissions in quotes, such as \"0644\"".to_owned())
    }
}

impl WriteFileParams {
    /// What the file is to hold. Call it on parameters that have been checked.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.content, &self.content_base64) {
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(text)) => decode(text).ok(),
            _ => None,
        }
    }

    pub(crate) fn check(&self, check: &mut Check) {
        self.target.check("target", check);
        check.inside("path", &self.path);
        match (&self.content, &self.content_base64) {
            (None, None) => check.say("content", "is missing; write `content: |` or `contentBase64: ...`"),
            (Some(_), Some(_)) => check.say("contentBase64", "stands beside `content`; keep one of them"),
            (Some(text), None) if text.len() > LONGEST => {
                check.say("content", format!("is longer than {LONGEST} bytes; put large files into the image"));
            }
            (None, Some(text)) => {
                if let Some(text) = check.text(text) {
                    match decode(text) {
                        Err(()) => check.say("contentBase64", "is not base64 (RFC 4648 with padding)"),
                        Ok(bytes) if bytes.len() > LONGEST => {
                            check.say(
                                "contentBase64",
                                format!("holds more than {LONGEST} bytes; put large files into the image"),
                            );
                        }
                        Ok(_) => {}
                    }
                }
            }
            _ => {}
        }
        check.optional("mode", self.mode.as_ref());
        check.optional("uid", self.uid.as_ref());
        check.optional("gid", self.gid.as_ref());
        check.optional("dirMode", self.dir_mode.as_ref());
    }
}

/// Base64 as `base64` prints it: line feeds are allowed.
fn decode(text: &str) -> Result<Vec<u8>, ()> {
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(packed).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_text() {
        assert_eq!(Mode::from_text("0644"), Ok(Mode(0o644)));
        assert_eq!(Mode::from_text("4755"), Ok(Mode(0o4755)));
        for wrong in ["", "0888", "rw-r--r--", "10000", "-1", "+644"] {
            assert!(Mode::from_text(wrong).is_err(), "{wrong}");
        }
        assert!(Mode::from_number(644).unwrap_err().contains("in quotes"));
    }
}
