//! Memorable names: four English words made from a MAC address.
//!
//! The low 44 bits of the address, as four groups of 11 bits, the most significant first, each an
//! index into the English word list of BIP39 (2048 words). The top four bits are left out, so two
//! cards whose addresses differ only there share a name; the engine then appends `-2`.

use crate::Mac;

/// The memorable name with its capitals: at most 32 letters.
///
/// ```
/// use dragonfly_core::name;
/// let mac = "52:54:00:ab:cd:01".parse().unwrap();
/// assert_eq!(name::memorable(mac), "CensusAbleQualityParent");
/// ```
pub fn memorable(mac: Mac) -> String {
    let number = mac.octets().iter().fold(0u64, |n, octet| n << 8 | u64::from(*octet));
    let words = bip39::Language::English.word_list();
    let mut name = String::with_capacity(32);
    for shift in [33, 22, 11, 0] {
        // Eleven bits index a list of 2048 words: `get` always finds one.
        let word = words.get((number >> shift & 0x7ff) as usize).copied().unwrap_or_default();
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

/// Why a text cannot be the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a name: {problem}")]
pub struct NameError {
    /// What was given, cut to 80 characters.
    pub name: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Whether a text can be `metadata.name`: a DNS subdomain in lower case (RFC 1123), 253 characters
/// at most, as Kubernetes wants it.
pub fn check(name: &str) -> Result<(), NameError> {
    let bad = |problem| Err(NameError { name: name.chars().take(80).collect(), problem });
    if name.is_empty() || name.len() > 253 {
        return bad("it needs 1 to 253 characters");
    }
    if !name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.')) {
        return bad("only a-z, 0-9, `-` and `.` may stand in it");
    }
    if name
        .split('.')
        .any(|label| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-'))
    {
        return bad("each part between dots needs 1 to 63 characters and begins and ends with a letter or digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fixed_for_ever() {
        for (mac, name) in [
            ("52:54:00:ab:cd:01", "CensusAbleQualityParent"),
            ("52:54:00:00:00:01", "CensusAbandonAbandonAbility"),
            ("00:00:00:00:00:00", "AbandonAbandonAbandonAbandon"),
            ("0f:ff:ff:ff:ff:ff", "ZooZooZooZoo"),
        ] {
            assert_eq!(memorable(mac.parse().unwrap()), name, "{mac}");
        }
    }

    #[test]
    fn the_top_four_bits_do_not_count() {
        let [a, b] = ["52:54:00:00:00:01", "02:54:00:00:00:01"].map(|m| memorable(m.parse().unwrap()));
        assert_eq!(a, b);
    }

    #[test]
    fn object_names_are_dns_subdomains() {
        for good in ["a", "censusablequalityparent", "debian-12", "a.b-c.d1"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a..b", "a_b", "a/b", "ä", &"a".repeat(254)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_address_has_a_legal_name(octets: [u8; 6]) {
            let name = memorable(Mac::new(octets));
            proptest::prop_assert!(name.len() <= 32);
            proptest::prop_assert!(check(&name.to_lowercase()).is_ok());
        }
    }
}
