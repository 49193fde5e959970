//! What somebody may have meant by a word that names nothing.

use std::fmt;

/// How many names are offered at most.
const MOST: usize = 3;
/// Longer words are no misspelt names, and comparing them would cost time.
const LONGEST: usize = 100;

/// The names nearest to a word, the nearest first: those that differ in a few letters, and those that begin
/// with it. Capitals do not count.
///
/// ```
/// use dragonfly_core::near::nearest;
/// assert_eq!(nearest("debain-12", ["debian-12", "debian-13", "rocky"]), ["debian-12", "debian-13"]);
/// assert!(nearest("sheep", ["debian-12", "rocky"]).is_empty());
/// ```
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    if length == 0 || length > LONGEST {
        return Vec::new();
    }
    // One letter of a short word, a third of a long one but never more than a person mistypes.
    let most = (length / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let begins = length >= 3 && lower.starts_with(&word);
            if !begins && lower.chars().count().abs_diff(length) > most {
                return None;
            }
            let distance = if begins { 1 } else { strsim::osa_distance(&word, &lower) };
            (distance <= most).then_some((distance, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// `` did you mean `a`, `b` or `c`? ``; `None` when nothing is near.
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    question(nearest(word, names))
}

/// The same for names that are known to be near.
pub(crate) fn question(names: impl IntoIterator<Item = impl fmt::Display>) -> Option<String> {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let (last, before) = quoted.split_last()?;
    Some(match before {
        [] => format!("did you mean {last}?"),
        _ => format!("did you mean {} or {last}?", before.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_was_meant_and_nothing_else() {
        let names = ["debian-12", "debian-13", "rocky-9", "CensusAbleQualityParent", "db"];
        let table: &[(&str, &[&str])] = &[
            ("debian-12", &["debian-12", "debian-13"]),
            ("debain-12", &["debian-12", "debian-13"]),
            ("debian", &["debian-12", "debian-13"]),
            ("DEBIAN-14", &["debian-12", "debian-13"]),
            ("rokcy-9", &["rocky-9"]),
            ("censusablequalityparnet", &["CensusAbleQualityParent"]),
            ("census", &["CensusAbleQualityParent"]),
            ("dc", &["db"]),
            ("x", &[]),
            ("", &[]),
            ("windows", &[]),
        ];
        for (word, want) in table {
            assert_eq!(nearest(word, names), *want, "{word}");
        }
        assert!(nearest(&"d".repeat(100_000), names).is_empty());
    }

    #[test]
    fn a_question_reads_well() {
        assert_eq!(did_you_mean("db1", ["db"]).as_deref(), Some("did you mean `db`?"));
        let three = did_you_mean("host1", ["host2", "host3", "host4", "host5"]);
        assert_eq!(three.as_deref(), Some("did you mean `host2`, `host3` or `host4`?"));
        assert_eq!(did_you_mean("sheep", ["db"]), None);
    }
}
