//! Boot Loader Specification entries (UAPI.1, type 1): `/loader/entries/*.conf`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Item, Loads, What, version};

/// One entry with what it is sorted by.
#[derive(Debug, Default)]
struct Entry {
    id: String,
    spent: bool,
    title: Option<String>,
    version: Option<String>,
    machine: Option<String>,
    sort_key: Option<String>,
    kernel: Option<String>,
    initrds: Vec<String>,
    options: Vec<String>,
}

/// The menu of these entries, given as file name and text, in the order of the specification.
/// GRUB's variables (`$kernelopts`) are filled from `variables`.
pub(super) fn items(texts: &[(String, String)], variables: &BTreeMap<String, String>) -> Vec<Item> {
    let mut entries: Vec<Entry> = texts.iter().map(|(name, text)| entry(name, text)).collect();
    entries.sort_by(order);
    entries
        .into_iter()
        .map(|entry| Item {
            title: entry.title.unwrap_or_else(|| entry.id.clone()),
            id: Some(entry.id),
            what: What::Entry(entry.kernel.map(|kernel| Loads {
                kernel,
                initrds: expand(&entry.initrds.join(" "), variables).split_whitespace().map(str::to_owned).collect(),
                cmdline: expand(&entry.options.join(" "), variables).split_whitespace().collect::<Vec<_>>().join(" "),
            })),
        })
        .collect()
}

/// The default that `loader.conf` names: a pattern over ids. The first entry without one.
pub(super) fn default(settings: &str, items: &[Item]) -> String {
    settings
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .filter(|(key, _)| *key == "default")
        .find_map(|(_, pattern)| {
            let pattern = pattern.trim();
            let pattern = pattern.strip_suffix(".conf").unwrap_or(pattern);
            items.iter().filter_map(|item| item.id.as_deref()).find(|id| matches(pattern, id))
        })
        .unwrap_or("0")
        .to_owned()
}

fn entry(name: &str, text: &str) -> Entry {
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    // Boot counting: `arch+3-1` has three tries left; `arch+0-4` has none.
    let (id, spent) = match stem.rsplit_once('+') {
        Some((id, count)) if count.chars().all(|c| c.is_ascii_digit() || c == '-') && !count.is_empty() => {
            let left = count.split('-').next().unwrap_or("");
            (id, !left.is_empty() && left.chars().all(|c| c == '0'))
        }
        _ => (stem, false),
    };
    let mut entry = Entry { id: id.to_owned(), spent, ..Entry::default() };
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        match key {
            "title" => entry.title = Some(value.to_owned()),
            "version" => entry.version = Some(value.to_owned()),
            "machine-id" => entry.machine = Some(value.to_owned()),
            "sort-key" => entry.sort_key = Some(value.to_owned()),
            "linux" => entry.kernel = Some(value.to_owned()),
            "initrd" => entry.initrds.push(value.to_owned()),
            "options" => entry.options.push(value.to_owned()),
            _ => {}
        }
    }
    entry
}

/// Newest first, as the specification sorts; entries without tries left come last.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let newest = |x: Option<&str>, y: Option<&str>| version::compare(y.unwrap_or(""), x.unwrap_or(""));
    a.spent.cmp(&b.spent).then_with(|| match (&a.sort_key, &b.sort_key) {
        (Some(x), Some(y)) => x
            .cmp(y)
            .then_with(|| a.machine.cmp(&b.machine))
            .then_with(|| newest(a.version.as_deref(), b.version.as_deref()))
            .then_with(|| newest(Some(&a.id), Some(&b.id))),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => newest(Some(&a.id), Some(&b.id)),
    })
}

/// `$name` and `${name}`, once: what they stand for is not looked through again.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(variables.get(name).map_or("", String::as_str));
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Shell patterns with `*` and `?`. Time is bounded by the product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().take(256).collect(), text.chars().take(256).collect());
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for p in pattern {
        let before = reached.clone();
        let mut any = false;
        for (at, now) in reached.iter_mut().enumerate() {
            any |= before[at];
            *now = match p {
                '*' => any,
                p => at > 0 && before[at - 1] && (p == '?' || text[at - 1] == p),
            };
        }
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(names: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<_> = names.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        items(&texts, &BTreeMap::new()).into_iter().map(|item| item.title).collect()
    }

    #[test]
    fn sorts_as_the_specification_says() {
        assert_eq!(
            titles(&[
                ("m-6.9.conf", "title old\nlinux /a"),
                ("m-6.10.conf", "title new\nlinux /b"),
                ("z+0-3.conf", "title spent\nsort-key a\nlinux /c"),
                ("k1.conf", "title keyed 1\nsort-key os\nversion 1\nlinux /c"),
                ("k2+2.conf", "title keyed 2\nsort-key os\nversion 2\nlinux /c"),
            ]),
            ["keyed 2", "keyed 1", "new", "old", "spent"]
        );
    }

    #[test]
    fn the_default_is_a_pattern() {
        let texts: Vec<_> =
            ["a-1", "arch", "b"].iter().map(|n| (format!("{n}.conf"), "linux /k\n".to_owned())).collect();
        let items = items(&texts, &BTreeMap::new());
        for (settings, want) in [
            ("default arch\n", "arch"),
            ("timeout 3\ndefault  a-*\n", "a-1"),
            ("default b.conf", "b"),
            ("default none*", "0"),
            ("", "0"),
        ] {
            assert_eq!(default(settings, &items), want, "{settings:?}");
        }
        assert!(matches("*-*x?", "aa-bbxc") && !matches("a*b", "acbd") && matches("*", "") && !matches("?", ""));
    }

    #[test]
    fn variables_are_filled_once() {
        let variables = BTreeMap::from([("a".to_owned(), "$b".to_owned()), ("b".to_owned(), "x".to_owned())]);
        // An unclosed brace is an empty name: the dollar stays, and so does the brace.
        for (text, want) in [("$a ${b}y $c $", "$b xy  $"), ("${b", "${b"), ("$b$b", "xx")] {
            assert_eq!(expand(text, &variables), want, "{text}");
        }
    }
}
