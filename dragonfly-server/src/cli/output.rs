//! Writing for people and for programs.

use std::io::{self, IsTerminal as _, Write as _};

use dragonfly_core::text::{harmless, harmless_lines};
use serde_json::Value;

use crate::http::chain;
use crate::yaml::{quiet, to_yaml};

/// Standard output.
#[derive(Debug)]
pub(super) struct Out {
    color: bool,
}

/// What was to be read could not be written: not a file of ours, and not the server.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
struct Unwritable(#[source] io::Error);

/// Whether a command ended because nobody reads what it writes any more, as with `| head`.
pub(super) fn unread(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        cause.kind() == io::ErrorKind::BrokenPipe && cause.get_ref().is_some_and(|inner| inner.is::<Unwritable>())
    })
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
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(unwritable)
    }

    /// A table: columns as wide as they need to be, no wider.
    pub(super) fn table(&self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|c| harmless(c).into_owned()).collect()).collect();
        self.raw(&layout(head, &rows, self.color))
    }

    pub(super) fn json(&self, value: &Value) -> io::Result<()> {
        self.raw(&quiet(&format!("{value:#}\n")))
    }

    pub(super) fn yaml(&self, value: &Value) -> io::Result<()> {
        self.raw(&to_yaml(value))
    }
}

/// Help and versions, which look as clap writes them to a terminal.
pub(super) fn printed(text: &clap::Error) -> io::Result<()> {
    text.print().and_then(|()| io::stdout().flush()).map_err(unwritable)
}

fn unwritable(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritable(error))
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

/// Asks a person; `None` when there is none.
pub(super) fn confirm(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut err = io::stderr().lock();
    write!(err, "{} [y/N] ", harmless_lines(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
}

#[cfg(test)]
mod tests {
    use dragonfly_core::text::acts;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(layout(&["NAME", "N"], &rows, false), "NAME    N\na       1\nlonger\n");
    }

    #[test]
    fn strangers_cannot_command_the_terminal() {
        let hostile = json!({ "serial": "\u{1b}[2J\u{9b}31m\u{202e}x\u{7f}\n\u{2028}", "k\u{9b}": 1 });
        for text in [quiet(&format!("{hostile:#}")), to_yaml(&hostile)] {
            assert!(!text.chars().any(|c| acts(c) && c != '\n'), "{text:?}");
        }
        let read: Value = serde_json::from_str(&quiet(&hostile.to_string())).unwrap();
        assert_eq!(read, hostile);
    }
}
