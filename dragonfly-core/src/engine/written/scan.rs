//! What a text asks of the template engine, also where a branch is not taken. For texts that it has read already.

use std::collections::BTreeSet;

/// Names in a text by what they are used for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Used {
    /// `x | name`
    pub(super) filters: BTreeSet<String>,
    /// `x is name`
    pub(super) tests: BTreeSet<String>,
    /// `x.name()`
    pub(super) methods: BTreeSet<String>,
    /// Names that the text gives itself.
    pub(super) assigned: BTreeSet<String>,
    /// Names of which it asks whether they are there.
    pub(super) asked: BTreeSet<String>,
    /// Whether it asks that of something that is not a name.
    pub(super) asks: bool,
}

/// One word of an expression. What numbers and quoted texts say does not matter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    Sign(char),
    Other,
}

/// Finds them.
pub(super) fn used(text: &str) -> Used {
    let mut used = Used::default();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = rest.get(at..).unwrap_or_default();
        let (opens, end) = match rest.get(..2) {
            Some("{{") => ("{{", "}}"),
            Some("{%") => ("{%", "%}"),
            Some("{#") => {
                rest = rest.split_once("#}").map_or("", |(_, after)| after);
                continue;
            }
            _ => {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
        };
        let (tokens, after) = tokens(rest.get(opens.len()..).unwrap_or_default(), end);
        rest = after;
        if opens == "{%" && tokens == [Token::Name("raw")] {
            rest = after_raw(rest);
            continue;
        }
        note(&tokens, opens == "{%", &mut used);
    }
    // What was put into a name of its own, or into a list, may be any of them.
    let is_own = |name: &String| name.split('.').next().is_some_and(|root| used.assigned.contains(root));
    used.asks |= used.asked.iter().any(is_own) || ["select", "reject"].iter().any(|f| used.filters.contains(*f));
    used
}

/// The words up to the end of an expression, and what follows it.
fn tokens<'a>(text: &'a str, end: &str) -> (Vec<Token<'a>>, &'a str) {
    let (mut found, mut depth, mut rest) = (Vec::new(), 0_usize, text);
    rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    while let Some(c) = rest.chars().next() {
        // A brace may belong to a map.
        let trimmed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if let Some(after) = trimmed.strip_prefix(end).filter(|_| depth == 0) {
            return (found, after);
        }
        let length = match c {
            '"' | '\'' => {
                found.push(Token::Other);
                quoted(rest, c)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                found.push(Token::Name(rest.get(..length).unwrap_or_default()));
                length
            }
            c if c.is_ascii_digit() => {
                found.push(Token::Other);
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            c => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if !c.is_whitespace() {
                    found.push(Token::Sign(c));
                }
                c.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    (found, "")
}

/// How long a quoted text is, its quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// What follows `{% endraw %}`.
fn after_raw(text: &str) -> &str {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{%") {
        let bare = after.strip_prefix(['-', '+']).unwrap_or(after).trim_start();
        if bare.starts_with("endraw") {
            return bare.split_once("%}").map_or("", |(_, after)| after);
        }
        rest = after;
    }
    ""
}

fn note(tokens: &[Token<'_>], is_block: bool, used: &mut Used) {
    use Token::{Name, Sign};
    let statement = match tokens.first() {
        Some(Name(word)) if is_block => *word,
        _ => "",
    };
    if let ("filter", Some(Name(name))) = (statement, tokens.get(1)) {
        used.filters.insert((*name).to_owned());
    }
    // Up to `=` or `in` stand the names that are given.
    let gives = match statement {
        "set" => tokens.iter().position(|token| *token == Sign('=')).unwrap_or(tokens.len()),
        "for" => tokens.iter().position(|token| *token == Name("in")).unwrap_or(tokens.len()),
        _ => 0,
    };
    for token in tokens.iter().take(gives).skip(1) {
        if let Name(name) = token {
            used.assigned.insert((*name).to_owned());
        }
    }
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        match (token, tokens.get(at + 1), tokens.get(at + 2)) {
            (Sign('|'), Some(Name(name)), _) => {
                used.filters.insert((*name).to_owned());
                if matches!(*name, "default" | "d") {
                    ask(tokens.get(..at).unwrap_or_default(), used);
                }
            }
            (Name("is"), Some(Name("not")), Some(Name(name))) | (Name("is"), Some(Name(name)), _)
                if before.is_some_and(|before| *before != Sign('.')) =>
            {
                used.tests.insert((*name).to_owned());
                ask(tokens.get(..at).unwrap_or_default(), used);
            }
            (Sign('.'), Some(Name(name)), Some(Sign('('))) => _ = used.methods.insert((*name).to_owned()),
            (Name(name), Some(Sign('=')), next) if statement == "with" && next != Some(&Sign('=')) => {
                used.assigned.insert((*name).to_owned());
            }
            _ => {}
        }
    }
}

/// Notes what stands before a question.
fn ask(before: &[Token<'_>], used: &mut Used) {
    let mut parts = Vec::new();
    let mut rest = before;
    while let [earlier @ .., Token::Name(name)] = rest {
        parts.push(*name);
        match earlier {
            [earlier @ .., Token::Sign('.')] => rest = earlier,
            _ => {
                parts.reverse();
                used.asked.insert(parts.join("."));
                return;
            }
        }
    }
    used.asks = true;
}
