//! How a secret may be written.

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::secret::BASE64;

/// What percent-encoding leaves as it is, beside letters and digits: nothing, RFC 3986, forms, and `encodeURIComponent`.
const KEPT: [&[u8]; 4] = [b"", b"-._~", b"*-._", b"-_.!~*'()"];

/// A text in every usual form.
pub(super) fn of(text: &str) -> Vec<Zeroizing<String>> {
    let quoted = format!("{text:?}");
    let json = serde_json::Value::from(text).to_string();
    let plain = [text.to_owned(), quoted[1..quoted.len() - 1].to_owned(), json[1..json.len() - 1].to_owned()];
    plain.into_iter().chain(percent(text)).chain(base64(text)).map(Zeroizing::new).collect()
}

fn percent(text: &str) -> impl Iterator<Item = String> {
    let one = |byte: u8, kept: &[u8], space: &str, capitals: bool| match byte {
        b' ' => space.to_owned(),
        _ if byte.is_ascii_alphanumeric() || kept.contains(&byte) => char::from(byte).to_string(),
        _ if capitals => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    };
    let ways = KEPT.into_iter().flat_map(|kept| ["%20", "+"].map(|space| (kept, space)));
    let ways = ways.flat_map(|(kept, space)| [true, false].map(|capitals| (kept, space, capitals)));
    ways.map(move |(kept, space, capitals)| text.bytes().map(|byte| one(byte, kept, space, capitals)).collect())
}

/// Alone, and within a longer text, where it may begin at any of the three places of a group: `user:password` of
/// HTTP's Basic. Of the latter without the letters at its ends that what is around it has bits in.
fn base64(text: &str) -> impl Iterator<Item = String> {
    // Without the padding, which says nothing.
    let alone = BASE64.encode(text).trim_end_matches('=').to_owned();
    let within = (0..3).map(move |before| {
        let padded = Zeroizing::new([&[0; 3][..before], text.as_bytes()].concat());
        // A letter has six bits.
        let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        BASE64.encode(&*padded)[first..end].to_owned()
    });
    let both = std::iter::once(alone).chain(within);
    both.flat_map(|coded| [coded.replace('+', "-").replace('/', "_"), coded])
}
