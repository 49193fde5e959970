//! Takes secrets out of text that somebody else wrote: errors of programs, logs, failures.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::{BASE64, SecretString};
use crate::wire::Failure;

/// What stands where a secret stood.
const INSTEAD: &str = "[secret]";
/// Shorter values are left: they cannot be told from ordinary text, and text full of holes helps nobody.
const SHORTEST: usize = 4;
/// A line of a long secret, such as a private key, is taken out alone from this length on.
const SHORTEST_LINE: usize = 8;

/// Knows some secrets and takes them out of any text: as they are, line by line, and as JSON, Rust's
/// `Debug`, percent-encoding and base64 write them.
///
/// ```
/// use dragonfly_core::secret::Mask;
///
/// let mask = Mask::new(&["hunter2".to_owned().into()]);
/// assert_eq!(mask.hide("login with hunter2 failed"), "login with [secret] failed");
/// ```
#[derive(Clone, Default)]
pub struct Mask {
    /// Every form to look for, the longest first, so that a part never hides the whole.
    forms: Vec<Zeroizing<String>>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} forms)", self.forms.len())
    }
}

impl Mask {
    /// A mask for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut forms: Vec<Zeroizing<String>> = Vec::new();
        for secret in secrets {
            let whole = secret.reveal();
            let lines = whole.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
            for text in [whole, whole.trim()].into_iter().chain(lines).filter(|text| text.len() >= SHORTEST) {
                let quoted = format!("{text:?}");
                let json = serde_json::Value::from(text).to_string();
                forms.extend(
                    [
                        text.to_owned(),
                        quoted[1..quoted.len() - 1].to_owned(),
                        json[1..json.len() - 1].to_owned(),
                        url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>(),
                        url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20"),
                        // Without the padding, which says nothing.
                        BASE64.encode(text).trim_end_matches('=').to_owned(),
                    ]
                    .map(Zeroizing::new),
                );
            }
        }
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// The text without the secrets.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut shown = Cow::Borrowed(text);
        for form in &self.forms {
            if shown.contains(form.as_str()) {
                shown = Cow::Owned(shown.replace(form.as_str(), INSTEAD));
            }
        }
        shown
    }

    /// The failure without the secrets.
    pub fn hide_in(&self, failure: Failure) -> Failure {
        Failure {
            message: self.hide(&failure.message).into_owned(),
            causes: failure.causes.iter().map(|cause| self.hide(cause).into_owned()).collect(),
            kind: failure.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let secrets: Vec<SecretString> = secrets.iter().map(|s| SecretString::from((*s).to_owned())).collect();
        Mask::new(&secrets)
    }

    #[test]
    fn every_usual_form_is_taken_out() {
        let mask = mask(&["pa ss\"w\u{f6}rd/1"]);
        for text in [
            "login: pa ss\"w\u{f6}rd/1 refused",
            r#"{"login": "pa ss\"wörd/1"}"#,
            "invalid value `pa+ss%22w%C3%B6rd%2F1`",
            "https://x/?p=pa%20ss%22w%C3%B6rd%2F1",
            &format!("Authorization: Basic {}", BASE64.encode("pa ss\"w\u{f6}rd/1")),
            &format!("{:?}", "pa ss\"w\u{f6}rd/1"),
        ] {
            let shown = mask.hide(text);
            assert!(shown.contains(INSTEAD), "{text} -> {shown}");
            assert!(!shown.contains("ss"), "{text} -> {shown}");
        }
    }

    #[test]
    fn a_key_of_many_lines_is_taken_out_line_by_line() {
        let mask = mask(&["-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nabc\n-----END KEY-----\n"]);
        assert_eq!(mask.hide("+ echo MIIEvQIBADANBgkq"), "+ echo [secret]");
        assert_eq!(mask.hide("abc is an ordinary word"), "abc is an ordinary word");
    }

    #[test]
    fn the_longer_secret_goes_first_and_short_ones_stay() {
        assert_eq!(mask(&["hunter2", "hunter2-and-more"]).hide("hunter2-and-more"), INSTEAD);
        assert_eq!(mask(&["", "a", " "]).hide("a banana"), "a banana");
        assert!(matches!(Mask::default().hide("text"), Cow::Borrowed(_)));
    }

    #[test]
    fn it_does_not_print_what_it_knows() {
        assert!(!format!("{:?}", mask(&["hunter2"])).contains("hunter2"));
    }
}
