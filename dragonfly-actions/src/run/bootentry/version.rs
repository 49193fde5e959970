//! Which of two versions is newer (UAPI.10 Version Format Specification).

use std::cmp::Ordering;

/// Compares two versions: `6.1.0-13` is older than `6.1.0-21`, `6.2~rc1` older than `6.2`.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let separator = |c: char| !c.is_ascii_alphanumeric() && !"~-^.".contains(c);
        a = a.trim_start_matches(separator);
        b = b.trim_start_matches(separator);
        // A tilde sorts before everything, the end included: release candidates.
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(x), Some(y)) => (a, b) = (x, y),
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let mut decided = None;
        for mark in ['-', '^', '.'] {
            match (a.strip_prefix(mark), b.strip_prefix(mark)) {
                (Some(x), Some(y)) => {
                    (a, b) = (x, y);
                    break;
                }
                (Some(_), None) => decided = decided.or(Some(Ordering::Less)),
                (None, Some(_)) => decided = decided.or(Some(Ordering::Greater)),
                (None, None) => continue,
            }
            break;
        }
        if let Some(decided) = decided {
            return decided;
        }
        let digit = |c: char| c.is_ascii_digit();
        let ordering = if a.starts_with(digit) || b.starts_with(digit) {
            let (x, y) = (take(&mut a, digit), take(&mut b, digit));
            let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            let letter = |c: char| c.is_ascii_alphabetic();
            take(&mut a, letter).cmp(take(&mut b, letter))
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

fn take<'a>(text: &mut &'a str, fits: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !fits(c)).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_kernel_versions() {
        let rising =
            ["5.15.0-9", "5.15.0-86-generic", "6.1.0-9-amd64", "6.1.0-13-amd64", "6.2~rc1", "6.2", "6.2.1", "6.10"];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare("6.1", "6.1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn is_antisymmetric_and_ends(a in "[0-9a-c.~^_-]{0,20}", b in "[0-9a-c.~^_-]{0,20}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
