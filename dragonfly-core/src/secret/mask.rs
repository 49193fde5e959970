//! Takes secrets out of text that somebody else wrote: errors of programs, logs, failures.

mod forms;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use super::SecretString;
use crate::wire::Failure;

/// What stands where a secret stood.
const INSTEAD: &str = "[secret]";
/// Shorter values are left: they cannot be told from ordinary text, and text full of holes helps nobody.
const SHORTEST: usize = 4;
/// A line of a long secret, such as a private key, is taken out alone from this length on.
const SHORTEST_LINE: usize = 8;

/// Knows some secrets and takes them out of any text: as they are, line by line, and as JSON, Rust's
/// `Debug`, percent-encoding and base64 write them, base64 also where they are a part of what was encoded.
///
/// ```
/// use dragonfly_core::secret::Mask;
///
/// let mask = Mask::new(&["hunter2".to_owned().into()]);
/// assert_eq!(mask.hide("login with hunter2 failed"), "login with [secret] failed");
/// ```
#[derive(Clone, Default)]
pub struct Mask {
    /// Every form to look for.
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
                forms.extend(forms::of(text));
            }
        }
        forms.sort_unstable_by(|a, b| a.as_str().cmp(b));
        forms.dedup();
        Self { forms }
    }

    /// The text without the secrets.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        without(text, self.found(text))
    }

    /// As [`hide`](Self::hide), for a text whose end was cut off: what may be the beginning of a secret there goes too.
    pub fn hide_cut<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut found = self.found(text);
        found.extend(self.forms.iter().filter_map(|form| begun(text, form)));
        without(text, found)
    }

    /// Where the forms stand.
    fn found(&self, text: &str) -> Vec<Range<usize>> {
        self.forms
            .iter()
            .flat_map(|form| text.match_indices(form.as_str()).map(|(at, _)| at..at + form.len()))
            .collect()
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

/// Where the longest beginning of a form ends the text.
fn begun(text: &str, form: &str) -> Option<Range<usize>> {
    let lengths = (1..form.len()).rev().filter(|length| form.is_char_boundary(*length));
    let length = lengths.into_iter().find(|length| text.ends_with(&form[..*length]))?;
    Some(text.len() - length..text.len())
}

/// The text with one word for each of these places, and for those that overlap: what two secrets share must leave no
/// rest of either.
fn without(text: &str, mut places: Vec<Range<usize>>) -> Cow<'_, str> {
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_unstable_by_key(|place| (place.start, place.end));
    let mut shown = String::with_capacity(text.len());
    let mut told = 0;
    let mut places = places.into_iter().peekable();
    while let Some(Range { start, mut end }) = places.next() {
        while let Some(next) = places.next_if(|next| next.start < end) {
            end = end.max(next.end);
        }
        shown.push_str(&text[told..start]);
        shown.push_str(INSTEAD);
        told = end;
    }
    shown.push_str(&text[told..]);
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::secret::{BASE64, BASE64URL};

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
    fn what_two_secrets_share_leaves_no_rest_of_either() {
        let mask = mask(&["hunter2-and", "and-more"]);
        assert_eq!(mask.hide("say hunter2-and-more!"), "say [secret]!");
        assert_eq!(mask.hide("and-moreand-more"), "[secret][secret]");
    }

    #[test]
    fn base64_of_a_text_with_the_secret_in_it_is_taken_out_wherever_it_begins() {
        let secret = "p\u{f6}~s?>w/rd";
        let mask = mask(&[secret]);
        for before in ["", "u", "us", "user:", "admin:"] {
            for after in ["", "\n", "@h", ":x\n"] {
                let text = format!("{before}{secret}{after}");
                for coded in [BASE64.encode(&text), BASE64URL.encode(&text)] {
                    let line = format!("Authorization: Basic {coded}");
                    let shown = mask.hide(&line);
                    assert!(shown.contains(INSTEAD), "{text:?}: {line} -> {shown}");
                    // Of the secret's own bits no more stay than a letter at each end shares with what is around.
                    let left = shown.len() - INSTEAD.len() - "Authorization: Basic ".len();
                    assert!(left <= (before.len() + after.len()).div_ceil(3) * 4 + 4, "{text:?}: {line} -> {shown}");
                }
            }
        }
    }

    #[test]
    fn base64_of_a_short_secret_leaves_other_text_alone() {
        let mask = mask(&["ab", "abc", "test"]);
        let text = format!("{} the usual text", BASE64.encode("nothing of abc in it"));
        assert!(matches!(mask.hide(&text), Cow::Borrowed(_)), "{}", mask.hide(&text));
        // Four letters are the least that is looked for, encoded as well.
        assert!(mask.forms.iter().all(|form| form.len() >= SHORTEST), "{}", mask.forms.len());
    }

    #[test]
    fn percent_encoding_is_taken_out_as_each_program_writes_it() {
        let mask = mask(&["a~b!c/d e*f"]);
        for text in [
            "a%7Eb%21c%2Fd+e*f",
            "a~b%21c%2Fd%20e%2Af",
            "a~b%21c%2fd%20e%2af",
            "a~b!c%2Fd%20e*f",
            "a%7Eb%21c%2Fd%20e%2Af",
        ] {
            assert_eq!(mask.hide(&format!("GET /?p={text}&q=1")), "GET /?p=[secret]&q=1");
        }
    }

    #[test]
    fn what_may_be_a_secret_that_was_cut_off_is_taken_out() {
        let mask = mask(&["hunter2-and-m\u{f6}re"]);
        for (text, shown) in [
            ("it is hunter2-and-m", "it is [secret]"),
            ("it is hunter2-and-m\u{f6}", "it is [secret]"),
            ("it is hu", "it is [secret]"),
            ("it is hunter3", "it is hunter3"),
            ("hunter2-and-m\u{f6}re and hunter2", "[secret] and [secret]"),
        ] {
            assert_eq!(mask.hide_cut(text), shown);
        }
        assert_eq!(mask.hide("it is hunter2-and-m"), "it is hunter2-and-m");
        // As base64 writes it too.
        let coded = BASE64.encode("user:hunter2-and-m\u{f6}re");
        assert_eq!(mask.hide_cut(&coded[..coded.len() - 6]), format!("{}[secret]", &coded[..7]));
    }

    #[test]
    fn it_does_not_print_what_it_knows() {
        assert!(!format!("{:?}", mask(&["hunter2"])).contains("hunter2"));
    }
}
