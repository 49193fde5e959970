//! Which part of a file is asked for (RFC 9110 section 14).

use std::ops::Range;

/// What a `Range` header asks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: no header, another unit, several ranges, or a header that is not well formed.
    /// All of these may be ignored (section 14.2).
    Whole,
    /// These bytes; never empty.
    Bytes(Range<u64>),
    /// Bytes that do not exist.
    Beyond,
}

/// Reads `bytes=first-last`, `bytes=first-` and `bytes=-count`.
pub(crate) fn part(header: Option<&str>, length: u64) -> Part {
    let Some(set) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return Part::Whole;
    };
    match (number(first), number(last)) {
        (Some(Some(first)), Some(last)) => {
            let end = last.map_or(length, |last| last.saturating_add(1).min(length));
            match last {
                Some(last) if last < first => Part::Whole,
                _ if first >= length => Part::Beyond,
                _ => Part::Bytes(first..end),
            }
        }
        (Some(None), Some(Some(count))) => match count.min(length) {
            0 => Part::Beyond,
            count => Part::Bytes(length - count..length),
        },
        _ => Part::Whole,
    }
}

/// `None` when it is no number; `Some(None)` when nothing stands there. Larger than 2^64 is as large as it gets.
fn number(text: &str) -> Option<Option<u64>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.len() > 40 {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        let table = [
            (None, Part::Whole),
            (Some("bytes=0-"), Part::Bytes(0..100)),
            (Some("bytes=0-0"), Part::Bytes(0..1)),
            (Some("bytes=10-19"), Part::Bytes(10..20)),
            (Some("bytes=90-1000"), Part::Bytes(90..100)),
            (Some("bytes=0-99999999999999999999999"), Part::Bytes(0..100)),
            (Some("bytes=-10"), Part::Bytes(90..100)),
            (Some("bytes=-1000"), Part::Bytes(0..100)),
            (Some("bytes=100-"), Part::Beyond),
            (Some("bytes=-0"), Part::Beyond),
            (Some("bytes=9-3"), Part::Whole),
            (Some("bytes=a-b"), Part::Whole),
            (Some("bytes=-"), Part::Whole),
            (Some("bytes=0-1,5-6"), Part::Whole),
            (Some("lines=0-1"), Part::Whole),
        ];
        for (header, want) in table {
            assert_eq!(part(header, 100), want, "{header:?}");
        }
        assert_eq!(part(Some("bytes=0-"), 0), Part::Beyond);
    }

    proptest! {
        #[test]
        fn never_outside(header in "(bytes=)?[0-9]{0,22}-?[0-9]{0,22}", length: u64) {
            if let Part::Bytes(range) = part(Some(&header), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
