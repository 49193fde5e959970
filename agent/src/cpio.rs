//! Reading one file out of a `newc` cpio archive, the format of initial RAM disks.
//!
//! A header is the magic `070701` and 13 numbers of 8 hex digits; name and data follow, each padded
//! to 4 bytes. The archive may hold zeros before and after.

/// Length of a header in bytes.
const HEADER: usize = 110;

/// The content of the file called `wanted` (without a leading slash), if the archive holds it.
/// Anything that is not a whole archive up to that file gives `None`.
pub fn find<'a>(archive: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut rest = archive;
    loop {
        while let [0, 0, 0, 0, tail @ ..] = rest {
            rest = tail;
        }
        let header = rest.get(..HEADER)?;
        if !matches!(header.get(..6)?, b"070701" | b"070702") {
            return None;
        }
        let size = field(header, 6)?;
        let name_size = field(header, 11)?;
        let name_end = HEADER.checked_add(name_size)?;
        let name = rest.get(HEADER..name_end)?.strip_suffix(&[0])?;
        let data_start = align(name_end)?;
        let data_end = data_start.checked_add(size)?;
        let data = rest.get(data_start..data_end)?;
        if name == b"TRAILER!!!" {
            return None;
        }
        let name = name.strip_prefix(b"./").or(name.strip_prefix(b"/")).unwrap_or(name);
        if name == wanted.as_bytes() {
            return Some(data);
        }
        rest = rest.get(align(data_end)?..)?;
    }
}

fn field(header: &[u8], index: usize) -> Option<usize> {
    let at = 6 + index * 8;
    let text = std::str::from_utf8(header.get(at..at + 8)?).ok()?;
    usize::from_str_radix(text, 16).ok()
}

fn align(n: usize) -> Option<usize> {
    n.checked_next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, data: &[u8]) -> Vec<u8> {
        let mut out = format!("070701{:08x}{:08x}", 1, 0o100400);
        for n in [0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            out += &format!("{n:08x}");
        }
        let mut out = out.into_bytes();
        out.extend(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn finds_a_file_among_others() {
        let mut archive = vec![0; 8];
        archive.extend(entry("dragonfly", b""));
        archive.extend(entry("dragonfly/identity.json", b"{\"a\":1}"));
        archive.extend(entry("TRAILER!!!", b""));
        archive.extend([0; 512]);
        assert_eq!(find(&archive, "dragonfly/identity.json"), Some(&b"{\"a\":1}"[..]));
        assert_eq!(find(&archive, "other"), None);
        for cut in 0..archive.len() {
            let found = find(&archive[..cut], "dragonfly/identity.json");
            assert!(found.is_none_or(|f| f == b"{\"a\":1}"), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = find(&bytes, "x");
            let mut archive = entry("a", &bytes);
            archive.extend(entry("b", b"yes"));
            prop_assert_eq!(find(&archive, "b"), Some(&b"yes"[..]));
        }
    }
}
