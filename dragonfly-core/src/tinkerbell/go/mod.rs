//! The template language of Tinkerbell: Go's `text/template`, as far as manifests use it.
//!
//! Text with `{{ ... }}`: fields, variables, pipelines, `if`, `with`, `range`, `define`, `template`, and the functions
//! of [`functions`]. What is not there is an error with line and column; a missing key is one too. Everything is
//! bounded: nesting, steps, the length of texts and lists, the output.

mod ast;
mod eval;
mod functions;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;
mod value;

pub(super) use functions::{LATE_BEGINS, LATE_ENDS, prefix_length};
pub(super) use value::{Keys, Value};

/// How deep templates and values may nest.
const MAX_DEPTH: usize = 50;
/// The longest output, and the longest text on the way to it, in bytes.
const MAX_TEXT: usize = 256 * 1024;
/// The longest list.
const MAX_LIST: usize = 10_000;
/// Steps that one template may take; a step is about one value made or one KiB copied.
const MAX_STEPS: usize = 200_000;

/// Where something stands, both from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    fn error(self, problem: impl Into<String>) -> GoError {
        GoError { place: self, problem: problem.into() }
    }
}

/// What is wrong with a template, or cannot be filled for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {problem}", .place.line, .place.column)]
pub(crate) struct GoError {
    pub(crate) place: Place,
    pub(crate) problem: String,
}

/// Fills a template with data.
pub(crate) fn render(source: &str, data: &Value) -> Result<String, GoError> {
    let start = Place { line: 1, column: 1 };
    if source.len() > 2 * MAX_TEXT {
        return Err(start.error(format!(
            "the template has {} bytes; at most {} are taken",
            source.len(),
            2 * MAX_TEXT
        )));
    }
    let template = parser::parse(lexer::tokens(source)?)?;
    eval::run(&template, data)
}
