//! Lines for the person who runs the lab.

use std::fmt::Display;
use std::io::Write as _;

/// One line to standard output. A closed pipe is no reason to stop halfway through cleaning up.
pub(crate) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// One line to standard error.
pub(crate) fn complain(line: impl Display) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Asks a question that is answered with yes or no. Without an answer: no.
pub(crate) fn ask(question: impl Display) -> bool {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{question} [y/N] ").and_then(|()| out.flush());
    drop(out);
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(0) | Err(_) => false,
        Ok(_) => matches!(answer.trim(), "y" | "Y" | "yes"),
    }
}
