//! The log on standard error: one line for each thing, whatever strangers wrote into it.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;
use dragonfly_core::text::acts;
use tracing_subscriber::EnvFilter;

/// What is left out unless it is asked for: that the API server's certificate is not checked is told once, not with
/// every connection.
const QUIET: &str = "kube_client::client::tls=error";

/// Logs what `filter` lets through.
pub(crate) fn to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .and_then(|_| EnvFilter::try_new(beside(filter)))
        .with_context(|| format!("--log {filter}: write a level, as `info`, or `target=level` with commas"))?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = move || Lines { out: io::stderr(), colours };
    // A line that cannot be written, on a full disk, is dropped: told of on the same standard error, it would panic in
    // whoever logged, and machines would get no answer.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    // A second call, in tests, finds the first one's.
    let _ = log.with_env_filter(filter).with_writer(writer).with_ansi(colours).try_init();
    Ok(())
}

/// The person's filter counts where it says something of the same.
fn beside(filter: &str) -> String {
    if filter.contains("kube_client") { filter.to_owned() } else { format!("{QUIET},{filter}") }
}

/// Writes each record, which comes whole, as one line of characters that are only seen.
#[derive(Debug)]
struct Lines<W> {
    out: W,
    /// Whether the log's own colours are to stay.
    colours: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        self.out.write_all(line(&text, self.colours).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn line(record: &str, colours: bool) -> Cow<'_, str> {
    let (text, end) = record.strip_suffix('\n').map_or((record, ""), |text| (text, "\n"));
    if !text.chars().any(acts) {
        return record.into();
    }
    let mut out = String::with_capacity(record.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = if colours { colour_length(rest) } else { 0 };
        let taken = if colour > 0 { colour } else { c.len_utf8() };
        match c {
            _ if colour > 0 => out.push_str(&rest[..taken]),
            // A cause in several lines stays readable in one.
            '\n' => out.push(' '),
            c if acts(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
        rest = &rest[taken..];
    }
    out.push_str(end);
    out.into()
}

/// How long the sequence is that sets a colour or style, if one begins here: the only ones that are ours.
fn colour_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let length = parameters.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
    if length <= 16 && parameters.as_bytes().get(length) == Some(&b'm') { length + 3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quiet_is_heard_by_who_asks() {
        assert_eq!(beside("info"), "kube_client::client::tls=error,info");
        assert_eq!(beside("info,kube_client=debug"), "info,kube_client=debug");
        assert!(EnvFilter::try_new(beside("dragonfly_boot=debug,info")).is_ok());
    }

    #[test]
    fn a_record_is_one_line_and_commands_no_terminal() {
        let forged = "INFO asked: a\n2026-11-21 INFO machine.ready\r\u{1b}[2J\u{9b}31m\u{202e}\n";
        let shown = line(forged, false);
        assert_eq!(shown, "INFO asked: a 2026-11-21 INFO machine.ready\u{fffd}\u{fffd}[2J\u{fffd}31m\u{fffd}\n");
        let coloured = "\u{1b}[32m INFO\u{1b}[0m x\u{1b}[2J\u{1b}]0;title\u{7}\n";
        assert_eq!(line(coloured, true), "\u{1b}[32m INFO\u{1b}[0m x\u{fffd}[2J\u{fffd}]0;title\u{fffd}\n");
        assert!(matches!(line("plain \u{e9}\n", true), Cow::Borrowed(_)));
        let mut lines = Lines { out: Vec::new(), colours: false };
        lines.write_all(forged.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(lines.out).unwrap(), shown);
    }
}
