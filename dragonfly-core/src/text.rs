//! Text that strangers wrote, made fit to be shown: a serial number may hold what a terminal obeys, what
//! begins a new line of a log, or what turns the reading direction round.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sighting::clip;

/// What stands in place of a character that is not shown.
const INSTEAD: char = '\u{fffd}';

/// The same in one line, without characters that do something instead of being seen.
pub fn harmless(text: &str) -> Cow<'_, str> {
    without(text, acts)
}

/// As [`harmless`], but lines and tabs stay.
pub fn harmless_lines(text: &str) -> Cow<'_, str> {
    without(text, |c| acts(c) && c != '\n' && c != '\t')
}

/// A URL, or what should be one, as a person may be told of it: without what may open something.
///
/// ```
/// assert_eq!(dragonfly_core::text::shown_url("ipmi://root:calvin@10.0.0.6/x?key=1"), "...@10.0.0.6/x");
/// ```
pub fn shown_url(text: &str) -> String {
    let bare = text.split(['?', '#']).next().unwrap_or_default();
    match bare.rsplit_once('@') {
        Some((_, host)) => format!("...@{}", harmless(host)),
        None => harmless(bare).into_owned(),
    }
}

fn without(text: &str, bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().any(&bad) {
        text.chars().map(|c| if bad(c) { INSTEAD } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// Whether a character acts on whatever shows it: control characters (C0, DEL, C1), separators of lines
/// and paragraphs, and the marks of the bidirectional algorithm (Unicode annex 9, section 2).
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The same value with every text in it made harmless by `clean` and at most so many bytes long.
pub(crate) fn tidy<T: Serialize + DeserializeOwned + Clone>(value: &T, most: usize, clean: Clean) -> T {
    let Ok(mut json) = serde_json::to_value(value) else { return value.clone() };
    tidy_json(&mut json, most, clean);
    serde_json::from_value(json).unwrap_or_else(|_| value.clone())
}

/// [`harmless`] or [`harmless_lines`].
type Clean = fn(&str) -> Cow<'_, str>;

fn tidy_json(value: &mut Value, most: usize, clean: Clean) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(changed) = clean(text) {
                *text = changed;
            }
            clip(text, most);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| tidy_json(item, most, clean)),
        Value::Object(map) => map.values_mut().for_each(|item| tidy_json(item, most, clean)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Failure;

    #[test]
    fn what_acts_is_taken_out_and_what_is_seen_stays() {
        for (text, line, lines) in [
            ("R740 \u{e9}\u{4e2d}", "R740 \u{e9}\u{4e2d}", "R740 \u{e9}\u{4e2d}"),
            ("a\nb\tc", "a\u{fffd}b\u{fffd}c", "a\nb\tc"),
            (
                "\u{1b}[2J\u{9b}1m\u{7f}\0\r",
                "\u{fffd}[2J\u{fffd}1m\u{fffd}\u{fffd}\u{fffd}",
                "\u{fffd}[2J\u{fffd}1m\u{fffd}\u{fffd}\u{fffd}",
            ),
            (
                "x\u{202e}fdp.exe\u{2066}\u{2028}",
                "x\u{fffd}fdp.exe\u{fffd}\u{fffd}",
                "x\u{fffd}fdp.exe\u{fffd}\u{fffd}",
            ),
        ] {
            assert_eq!(harmless(text), line);
            assert_eq!(harmless_lines(text), lines);
        }
    }

    #[test]
    fn every_text_of_a_value_is_tidied() {
        let failure = Failure { message: "a\nb".into(), causes: vec!["\u{e9}".repeat(100)], kind: None };
        for (clean, message) in [(harmless as Clean, "a\u{fffd}b"), (harmless_lines, "a\nb")] {
            let tidied = tidy(&failure, 5, clean);
            assert_eq!((tidied.message.as_str(), tidied.causes[0].as_str()), (message, "\u{e9}\u{e9}"));
        }
    }
}
