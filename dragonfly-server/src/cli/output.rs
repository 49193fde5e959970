//! Writing for people and for programs.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use crate::http::chain;

/// Standard output.
#[derive(Debug)]
pub(super) struct Out {
    color: bool,
}

impl Out {
    pub(super) fn stdout() -> Self {
        let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { color }
    }

    /// One line. What strangers wrote cannot command the terminal.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        self.raw(&format!("{}\n", harmless(text)))
    }

    /// Text as it is.
    pub(super) fn raw(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// A table: columns as wide as they need to be, no wider.
    pub(super) fn table(&self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|c| harmless(c)).collect()).collect();
        self.raw(&layout(head, &rows, self.color))
    }

    pub(super) fn json(&self, value: &Value) -> io::Result<()> {
        self.raw(&format!("{value:#}\n"))
    }

    pub(super) fn yaml(&self, value: &Value) -> io::Result<()> {
        self.raw(&to_yaml(value))
    }
}

fn layout(head: &[&str], rows: &[Vec<String>], color: bool) -> String {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count());
        cells.chain(head.get(i).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            out.push_str(&format!("{cell:<width$}  "));
        }
        out.truncate(out.trim_end().len());
        out
    };
    let mut out = String::new();
    let header = line(&mut head.iter().copied());
    out.push_str(&if color { format!("\u{1b}[1m{header}\u{1b}[0m\n") } else { format!("{header}\n") });
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
        out.push('\n');
    }
    out
}

/// Text without control characters: serial numbers and log lines come from machines, and a terminal
/// obeys escape sequences.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`harmless`], but lines stay lines.
pub(super) fn harmless_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Says on standard error what went wrong.
pub(super) fn complain(error: &anyhow::Error) {
    let text = format!("dragonfly: {}\n", harmless_lines(&chain(error.as_ref())));
    // There is nobody left to tell when this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Says on standard error how far something has come.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(line));
}

/// Asks a person; false when there is none.
pub(super) fn confirm(question: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut err = io::stderr().lock();
    write!(err, "{} [y/N] ", harmless_lines(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// JSON as YAML, in block style. Text is quoted whenever YAML could read it as something else.
pub(super) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write_yaml(&mut out, value, 0);
    out
}

fn write_yaml(out: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                nested(out, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write_yaml(&mut inner, item, depth + 1);
                // The first line of the item stands beside its dash.
                out.push_str(&format!("{pad}- {}", inner.trim_start_matches(' ')));
            }
        }
        Value::Object(_) => out.push_str(&format!("{pad}{{}}\n")),
        Value::Array(_) => out.push_str(&format!("{pad}[]\n")),
        Value::String(text) => out.push_str(&format!("{pad}{}\n", scalar(text))),
        other => out.push_str(&format!("{pad}{other}\n")),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let blocks = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if blocks {
        out.push('\n');
        write_yaml(out, value, depth);
    } else {
        let mut inner = String::new();
        write_yaml(&mut inner, value, 0);
        out.push(' ');
        out.push_str(&inner);
    }
}

fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ ()+@".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with(' ')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "nan" | "inf"
        );
    // A JSON string is a YAML double-quoted one.
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(layout(&["NAME", "N"], &rows, false), "NAME    N\na       1\nlonger\n");
    }

    #[test]
    fn strangers_cannot_command_the_terminal() {
        assert_eq!(harmless("\u{1b}[2Jx\ny"), "\u{fffd}[2Jx\u{fffd}y");
        assert_eq!(harmless_lines("a\nb\u{7}"), "a\nb\u{fffd}");
    }

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let value = json!({
            "kind": "Template", "empty": {}, "none": [], "n": 3, "yes": "yes", "num": "007", "colon": "a: b",
            "list": [{ "a": 1, "b": { "c": "x" } }, "text", ["nested", "list"], {}],
            "lines": "one\ntwo\n", "dash": "- x", "star": "*x", "t": true, "z": null, "2": "key",
        });
        let manifest = json!({
            "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": "t" },
            "spec": { "actions": [{ "name": "a", "action": "x", "with": value }] },
        });
        let text = to_yaml(&manifest);
        let parsed = dragonfly_core::resource::manifest::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(parsed[0].record.to_json(), manifest, "{text}");
    }

    /// Any JSON, with the kinds of text that YAML reads as something else.
    fn values() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            any::<String>(),
            "[-?:,\\[\\]{}#&*!|>'\"%@`~ \n\t]{0,6}",
            "[0-9eExo._+-]{1,8}",
            "(true|False|NULL|~|yes|Off|nan|\\.inf|0x1F|1e3|2026-11-21)",
        ];
        let leaf = prop_oneof![
            word.prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z:#-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_parameters_survive_yaml(value in values()) {
            let manifest = json!({
                "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": "t" },
                "spec": { "actions": [{ "name": "a", "action": "x", "with": { "v": value } }] },
            });
            let text = to_yaml(&manifest);
            let parsed = dragonfly_core::resource::manifest::parse(&text)
                .map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
            prop_assert_eq!(parsed[0].record.to_json(), manifest, "{}", text);
        }
    }
}
