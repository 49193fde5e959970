//! Labels, annotations and finalizers as Kubernetes takes them, so that no object is kept that it would refuse later.

use super::Metadata;
use crate::text::harmless;

/// The longest name of a key, and the longest value of a label.
const LONGEST: usize = 63;
/// The longest prefix of a key.
const LONGEST_PREFIX: usize = 253;
/// What all annotations of an object may hold, keys and values together.
const ANNOTATIONS: usize = 256 * 1024;
/// How a key is written.
const KEY: &str = "a key is 1 to 63 of A-Z a-z 0-9 - _ . with a letter or digit first and last, perhaps after a DNS name \
                   in lower case and `/`: example.org/rack";

/// What Kubernetes would refuse: paths in the object, and what is wrong there.
pub(crate) fn problems(metadata: &Metadata) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut say = |part: &str, key: &str, problem: String| problems.push((format!("metadata.{part}.{key}"), problem));
    for (key, value) in &metadata.labels {
        if !is_key(key) {
            say("labels", key, format!("`{}` cannot be a label: {KEY}", shown(key)));
        }
        if !is_value(value) {
            let problem = format!(
                "`{}` cannot be a label's value: write 0 to {LONGEST} of A-Z a-z 0-9 - _ . with a letter or digit first \
                 and last; anything else goes into an annotation",
                shown(value)
            );
            say("labels", key, problem);
        }
    }
    for key in metadata.annotations.keys() {
        // Of annotations alone the prefix may have capitals.
        if !is_key(&key.to_ascii_lowercase()) {
            say("annotations", key, format!("`{}` cannot be an annotation: {KEY}", shown(key)));
        }
    }
    let size: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS {
        let largest = metadata.annotations.iter().max_by_key(|(_, value)| value.len()).map_or("", |(key, _)| key);
        let problem =
            format!("all annotations together have room for {ANNOTATIONS} bytes; the largest is `{}`", shown(largest));
        problems.push(("metadata.annotations".to_owned(), problem));
    }
    for (index, name) in metadata.finalizers.iter().enumerate() {
        if !is_key(name) {
            let problem = format!("`{}` cannot be a finalizer: {KEY}", shown(name));
            problems.push((format!("metadata.finalizers[{index}]"), problem));
        }
    }
    problems
}

/// As much of a word as a person needs to find it.
fn shown(word: &str) -> String {
    const MOST: usize = 80;
    let mut shown = harmless(&word.chars().take(MOST).collect::<String>()).into_owned();
    if word.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    shown
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => is_dns(prefix) && is_name(name),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && is_value(name)
}

fn is_value(value: &str) -> bool {
    let ends = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= LONGEST
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// As Kubernetes judges a DNS-1123 subdomain, which bounds its length as a whole alone.
fn is_dns(name: &str) -> bool {
    name.len() <= LONGEST_PREFIX
        && name.split('.').all(|part| {
            let ends = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            let bytes = part.as_bytes();
            ends(bytes.first())
                && ends(bytes.last())
                && bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> [bool; 2] {
        let labels = Metadata { labels: [(key.into(), value.into())].into(), ..Metadata::default() };
        let notes = Metadata { annotations: [(key.into(), value.into())].into(), ..Metadata::default() };
        [problems(&labels).is_empty(), problems(&notes).is_empty()]
    }

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        let (long, longer) = ("x".repeat(63), "x".repeat(64));
        let prefix = format!("{}.org/rack", vec!["x".repeat(49); 5].join("."));
        for (key, value, want) in [
            ("rack", "a1", [true, true]),
            ("rack", "", [true, true]),
            ("rack", "A1-b_c.d", [true, true]),
            ("dragonfly.computer/region", "north", [true, true]),
            ("kubectl.kubernetes.io/last-applied-configuration", "{\"a\": 1}", [false, true]),
            (&long, &long, [true, true]),
            ("rack", &longer, [false, true]),
            ("rack", "a b", [false, true]),
            ("rack", "-a", [false, true]),
            ("rack", "a.", [false, true]),
            ("rack", "\u{fc}ber", [false, true]),
            (&longer, "a", [false, false]),
            ("", "a", [false, false]),
            ("a b", "a", [false, false]),
            ("_a", "a", [false, false]),
            ("a/", "a", [false, false]),
            ("/a", "a", [false, false]),
            ("a/b/c", "a", [false, false]),
            ("a_b/c", "a", [false, false]),
            ("a..b/c", "a", [false, false]),
            ("Example.org/c", "a", [false, true]),
            (&prefix, "a", [true, true]),
            (&format!("x{prefix}"), "a", [false, false]),
        ] {
            assert_eq!(one(key, value), want, "{key}={value}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        let notes = [("a".to_owned(), "x".repeat(200_000)), ("b".to_owned(), "x".repeat(100_000))];
        let metadata = Metadata {
            labels: [("rack".to_owned(), "row 7".to_owned())].into(),
            annotations: notes.into(),
            finalizers: vec!["a/b".into(), "not this".into()],
            ..Metadata::default()
        };
        let found = problems(&metadata);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0].0, "metadata.labels.rack");
        assert!(found[0].1.starts_with("`row 7` cannot be a label's value: write 0 to 63"), "{found:?}");
        assert_eq!(found[1].0, "metadata.annotations");
        assert!(found[1].1.ends_with("the largest is `a`"), "{found:?}");
        assert_eq!(found[2].0, "metadata.finalizers[1]");
    }
}
