//! Collects what is wrong with parameters, with paths.

use super::given::{Given, is_template};

/// When parameters are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In a template: strings that hold `{{ ... }}` are not judged yet.
    Template,
    /// For one machine: every string is filled.
    Rendered,
}

/// What is wrong so far.
#[derive(Debug)]
pub(crate) struct Check {
    stage: Stage,
    problems: Vec<(String, String)>,
}

impl Check {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { stage, problems: Vec::new() }
    }

    pub(crate) fn into_problems(self) -> Vec<(String, String)> {
        self.problems
    }

    pub(crate) fn say(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.problems.push((path.into(), problem.into()));
    }

    /// The value, if it can be judged now. One that should be filled by now and is not is a problem.
    pub(crate) fn given<'a, T>(&mut self, path: &str, given: &'a Given<T>) -> Option<&'a T> {
        match given {
            Given::Known(value) => Some(value),
            Given::Template(text) => {
                if self.stage == Stage::Rendered {
                    self.say(path, format!("`{text}` was not filled in"));
                }
                None
            }
        }
    }

    /// The same for a field that may be left out.
    pub(crate) fn optional<'a, T>(&mut self, path: &str, given: Option<&'a Given<T>>) -> Option<&'a T> {
        given.and_then(|given| self.given(path, given))
    }

    /// Text, if it can be judged now.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Option<&'a str> {
        (self.stage == Stage::Rendered || !is_template(text)).then_some(text)
    }

    /// Text that ends up in a header, a path or an argument: neither empty nor with control characters.
    pub(crate) fn plain<'a>(&mut self, path: &str, text: &'a str) -> Option<&'a str> {
        let text = self.text(text)?;
        if text.is_empty() {
            self.say(path, "is empty; write something or leave the field out");
            return None;
        }
        if text.chars().any(char::is_control) {
            self.say(path, "holds a control character");
            return None;
        }
        Some(text)
    }

    /// An absolute path inside an installed system, without `..`.
    pub(crate) fn inside(&mut self, path: &str, text: &str) {
        let Some(text) = self.plain(path, text) else { return };
        if !text.starts_with('/') {
            self.say(path, format!("`{text}` is not an absolute path; write `/{text}`"));
        } else if text.ends_with('/') && text.len() > 1 {
            self.say(path, format!("`{text}` names a directory; write the file's path"));
        } else if text.split('/').any(|part| part == ".." || part == ".") {
            self.say(path, format!("`{text}` holds `.` or `..`; write the path out"));
        } else if text.len() > 4000 {
            self.say(path, "is longer than 4000 bytes");
        }
    }
}
