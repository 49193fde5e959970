//! What a word of the command line must be: judged before a server is asked, where an empty one would mean all.

use dragonfly_core::Mac;
use url::Url;

/// A name, or a machine's MAC. A script whose variable is unset names nothing, and nothing is done to all for it.
pub(super) fn name(word: &str) -> Result<String, String> {
    match word.trim() {
        "" => Err("it is empty: give a name; is a variable unset?".to_owned()),
        "." | ".." => Err("that is no name".to_owned()),
        // No name has a colon.
        colons if colons.contains(':') && colons.parse::<Mac>().is_err() => {
            Err("that is neither a MAC (six pairs of hex digits, as 52:54:00:ab:cd:01) nor a name".to_owned())
        }
        good => Ok(good.to_owned()),
    }
}

/// Labels to choose by. None would choose everything.
pub(super) fn labels(word: &str) -> Result<String, String> {
    if word.split(',').all(|label| label.trim().is_empty()) {
        return Err("it names no label: write KEY=VALUE; is a variable unset?".to_owned());
    }
    Ok(word.to_owned())
}

/// A question about a machine. An empty one would be answered whatever it is.
pub(super) fn question(word: &str) -> Result<String, String> {
    match word.trim() {
        good if good.len() == 16 && good.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(good.to_ascii_lowercase()),
        _ => Err("a question is 16 hexadecimal digits, as `dragonfly why` says; is a variable unset?".to_owned()),
    }
}

/// Where a server is.
pub(super) fn server(word: &str) -> Result<Url, String> {
    let host = word.split(':').next().unwrap_or_default();
    let is_here = host == "localhost" || host.starts_with("127.") || word.starts_with("[::1]");
    url(word, if is_here { "http://" } else { "https://" })
}

/// Where agents reach a server.
pub(crate) fn agents_server(word: &str) -> Result<Url, String> {
    url(word, "https://")
}

/// Where a controller is.
pub(super) fn controller(word: &str) -> Result<Url, String> {
    url(word, "redfish://").map_err(|problem| format!("{problem} (or ipmi://, proxmox://, wol://)"))
}

/// Where something lies that is fetched. Which schemes do is for the server to say.
pub(super) fn link(word: &str) -> Result<Url, String> {
    match word.trim().parse::<Url>() {
        Ok(url) if word.contains("://") => Ok(url),
        _ => url(word, "http://"),
    }
}

/// An address with its scheme: without one, `localhost:3000` would be read as a scheme and a path.
fn url(word: &str, scheme: &str) -> Result<Url, String> {
    let word = word.trim();
    let like = format!("write {scheme}HOST or {scheme}HOST:PORT");
    match word.parse::<Url>() {
        _ if word.is_empty() => Err(format!("it is empty; {like}; is a variable unset?")),
        Ok(url) if url.has_host() => Ok(url),
        _ if !word.contains("://") => {
            // What stands before an `@` may be a password: it is not written once more.
            let whole = if word.contains(['@', '/']) { like } else { format!("write {scheme}{word}") };
            Err(format!("its scheme is missing: {whole}"))
        }
        Ok(_) => Err(format!("it names no host: {like}")),
        Err(error) => Err(format!("{error}: {like}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_names_something() {
        for good in ["db-1", "CensusAbleQualityParent", "52:54:00:ab:cd:01", "52-54-00-ab-cd-01", "aa-bb", " db-1\n"] {
            assert_eq!(name(good).as_deref(), Ok(good.trim()));
        }
        let table = [("", "is empty"), (" ", "is empty"), ("..", "no name"), (".", "no name")];
        let broken = ["aa:bb", "52:54:00:ab:cd", "52:54:00:ab:cd:0g", "52:54:00:ab:cd:01:02", ":"];
        for (bad, wanted) in table.into_iter().chain(broken.map(|word| (word, "neither a MAC"))) {
            assert!(name(bad).unwrap_err().contains(wanted), "{bad:?}");
        }
        assert!(labels("rack=a1").is_ok());
        for bad in ["", " ", ",", " , "] {
            assert!(labels(bad).unwrap_err().contains("no label"), "{bad:?}");
        }
    }

    #[test]
    fn a_question_is_written_as_why_writes_it() {
        assert_eq!(question(" 3F2a91c000112233\n").as_deref(), Ok("3f2a91c000112233"));
        for bad in ["", " ", "3f2a91c00011223", "3f2a91c0001122334", "3f2a91c00011223g", "ééééééé3"] {
            assert!(question(bad).unwrap_err().contains("16 hexadecimal digits"), "{bad:?}");
        }
    }

    #[test]
    fn an_address_without_its_scheme_is_told_how_it_is_written() {
        let table = [
            ("localhost:3000", "write http://localhost:3000"),
            ("127.0.0.1:3000", "write http://127.0.0.1:3000"),
            ("[::1]:3000", "write http://[::1]:3000"),
            ("10.0.0.1:3000", "write https://10.0.0.1:3000"),
            ("rack.example", "write https://rack.example"),
            ("", "it is empty"),
            ("admin:hunter2@10.0.0.1", "its scheme is missing: write https://HOST or"),
            ("https://", "write https://HOST"),
            ("file:///x", "it names no host: write https://HOST"),
            ("https://rack.example:port", "invalid port number: write https://HOST"),
        ];
        for (word, wanted) in table {
            let said = server(word).unwrap_err();
            assert!(said.contains(wanted), "{word:?}: {said}");
        }
        for good in ["https://rack.example:3000", "http:/127.0.0.1:3000", " http://[::1]:3000\n"] {
            assert_eq!(server(good).unwrap().port(), Some(3000), "{good:?}");
        }
        assert!(controller("10.0.0.6").unwrap_err().contains("write redfish://10.0.0.6 (or ipmi://"));
        assert!(controller("wol://52-54-00-12-34-56").is_ok() && link("10.0.0.1/x.iso").is_err());
        assert!(link("file:///x").is_ok(), "refused by its scheme, not for want of a host");
    }
}
