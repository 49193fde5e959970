//! A secret in all the forms that it might be left in, and the search for them.

/// One form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) word: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// The forms of a secret: as it is, and as the usual encodings write it.
pub(super) fn forms(secret: &str) -> Vec<Form> {
    let json = serde_json::Value::from(secret).to_string();
    let percent = |space: &str| -> String {
        let one = |b: u8| match b {
            b' ' => space.to_owned(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        secret.bytes().map(one).collect()
    };
    let hexadecimal: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let texts = [
        ("as it is", secret.to_owned()),
        ("as JSON", json.trim_matches('"').to_owned()),
        ("percent-encoded", percent("%20")),
        ("as a form", percent("+")),
        ("hexadecimal", hexadecimal.clone()),
        ("hexadecimal in capitals", hexadecimal.to_uppercase()),
    ];
    let mut all: Vec<Form> = texts.into_iter().map(|(word, text)| Form { word, bytes: text.into_bytes() }).collect();
    // Within a longer text it may begin at any of three places of a group.
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend(secret.bytes());
        let whole = padded.len() / 3 * 3;
        let coded = base64(&padded[..whole]);
        let skip = if before == 0 { 0 } else { 4 };
        all.push(Form { word: "in base64", bytes: coded.as_bytes()[skip..].to_vec() });
        let safe = coded[skip..].replace('+', "-").replace('/', "_");
        all.push(Form { word: "in base64 for URLs", bytes: safe.into_bytes() });
    }
    // Pages, shells and texts within texts write its odd characters in ways of their own: its plain parts stay.
    let plain = |text: &&str| text.len() >= 12;
    for part in secret.split(|c: char| !c.is_ascii_alphanumeric()).filter(plain) {
        all.push(Form { word: "a part of it", bytes: part.as_bytes().to_vec() });
    }
    all.push(Form { word: "in UTF-16", bytes: secret.encode_utf16().flat_map(u16::to_le_bytes).collect() });
    all
}

/// Whole groups only.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let number = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
        [18, 12, 6, 0].map(|shift| char::from(LETTERS[(number >> shift & 63) as usize]))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// Which of the forms are in there.
pub(super) fn find<'a>(bytes: &'a [u8], forms: &'a [Form]) -> impl Iterator<Item = &'a Form> {
    forms.iter().filter(|form| contains(bytes, &form.bytes))
}

/// Looks for the first byte first: captures are large.
fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|left| left.iter().position(|b| b == first)) {
        at += next + 1;
        if bytes.get(at..at + rest.len()) == Some(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_wherever_it_begins() {
        let secret = "mk00ff/+ \"x!";
        let all = forms(secret);
        let found = |text: &[u8]| find(text, &all).map(|form| form.word).collect::<Vec<_>>();
        assert_eq!(found(b"nothing of it: mk00ff/+ x"), [""; 0]);
        assert!(found(b"say mk00ff/+ \"x! so").contains(&"as it is"));
        assert!(found(br#"{"a":"mk00ff/+ \"x!"}"#).contains(&"as JSON"));
        assert!(found(b"?p=mk00ff%2F%2B%20%22x%21&").contains(&"percent-encoded"));
        assert!(found(b"p=mk00ff%2F%2B+%22x%21&").contains(&"as a form"));
        assert!(found(b"6d6b303066662f2b20227821").contains(&"hexadecimal"));
        for before in ["", "a", "ab", "abc", "abcd"] {
            let mut text = format!("{before}{secret}");
            while text.len() % 3 != 0 {
                text.push('.');
            }
            assert!(found(base64(text.as_bytes()).as_bytes()).contains(&"in base64"), "{before}");
        }
        assert_eq!(base64(b"Man"), "TWFu");
        let all = forms("mk0123456789ab/+ \"xab9876543210");
        for text in ["title=\"mk0123456789ab/+ &#34;xab9876543210\"", r"say 'mk0123456789ab'\''", "xab9876543210"] {
            assert!(find(text.as_bytes(), &all).any(|form| form.word == "a part of it"), "{text}");
        }
    }
}
