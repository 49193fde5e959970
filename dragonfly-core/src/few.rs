//! Lists of messages, bounded while they are read: a list of nothing at all takes many times of its text once it is
//! parsed, so one that is only cut afterwards has taken what it takes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// The first so many of a list, for `deserialize_with`. The others are read over.
pub(crate) fn few<'de, const MOST: usize, D, T>(list: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list.deserialize_seq(Few::<MOST, T>(PhantomData))
}

struct Few<const MOST: usize, T>(PhantomData<T>);

impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Few<MOST, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MOST {
            let Some(item) = list.next_element()? else { break };
            kept.push(item);
        }
        if kept.len() == MOST {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        kept.shrink_to_fit();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_are_kept_and_the_others_are_still_read() {
        let read = |text: &str| {
            let mut text = serde_json::Deserializer::from_str(text);
            let kept = few::<3, _, u8>(&mut text).map_err(|error| error.to_string())?;
            text.end().map_err(|error| error.to_string())?;
            Ok::<_, String>(kept)
        };
        for (text, kept) in [
            ("[]", vec![]),
            ("[1,2]", vec![1, 2]),
            ("[1,2,3]", vec![1, 2, 3]),
            // What is read over is not judged.
            (r#"[1,2,3,4,"five",[6],{"seven":8}]"#, vec![1, 2, 3]),
        ] {
            assert_eq!(read(text).unwrap(), kept, "{text}");
        }
        for text in ["null", "{}", r#"[1,"two"]"#, "[1,2,3,4", "[1,2,3,]"] {
            read(text).unwrap_err();
        }
    }
}
