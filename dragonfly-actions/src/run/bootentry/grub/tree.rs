//! GRUB's shell: from words to statements.

use super::words::{Token, Word};

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// A command with its arguments, or an assignment.
    Command(Vec<Word>),
    /// `if`, `elif`: condition and what follows from it; then `else`.
    If { arms: Vec<(Vec<Self>, Vec<Self>)>, otherwise: Vec<Self> },
    /// `menuentry` or `submenu`, its words and its body.
    Menu { words: Vec<Word>, body: Vec<Self> },
}

/// How deep statements may stand in one another.
const DEEPEST: usize = 40;

/// Reads a whole script. The error has the line it stands on.
pub(super) fn parse(tokens: &[(usize, Token)]) -> Result<Vec<Statement>, (usize, String)> {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let (statements, ended) = parser.statements(&[])?;
    match ended {
        None => Ok(statements),
        Some(word) => Err((parser.line(), format!("`{word}` is unexpected"))),
    }
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    depth: usize,
}

/// What opens and closes statements, where a command may begin.
const CLOSERS: [&str; 7] = ["then", "elif", "else", "fi", "do", "done", "}"];

type Ended = Option<String>;

impl Parser<'_> {
    fn line(&self) -> usize {
        self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last()).map_or(1, |(line, _)| *line)
    }

    /// Statements up to one of `ends` (which is taken), or the end.
    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, Ended), (usize, String)> {
        let begun = self.line();
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err((begun, format!("statements stand more than {DEEPEST} deep in one another")));
        }
        let mut found = Vec::new();
        loop {
            let word = match self.tokens.get(self.at) {
                None => {
                    self.depth -= 1;
                    return if ends.is_empty() {
                        Ok((found, None))
                    } else {
                        Err((begun, format!("the script ends where `{}` is expected", ends.join("` or `"))))
                    };
                }
                Some((_, Token::End)) => {
                    self.at += 1;
                    continue;
                }
                Some((_, Token::Word(word))) => word,
            };
            match word.bare() {
                Some(end) if CLOSERS.contains(&end) => {
                    self.at += 1;
                    self.depth -= 1;
                    let end = end.to_owned();
                    return if ends.contains(&end.as_str()) || ends.is_empty() {
                        Ok((found, Some(end)))
                    } else {
                        Err((self.line(), format!("`{end}` is unexpected")))
                    };
                }
                Some("if") => {
                    self.at += 1;
                    found.push(self.branch()?);
                }
                // Nothing that is booted depends on what loops do in the configurations we know.
                Some("for" | "while" | "until") => {
                    self.at += 1;
                    self.statements(&["do"])?;
                    self.statements(&["done"])?;
                }
                Some("function") => {
                    self.at += 1;
                    self.words();
                    self.open()?;
                    self.statements(&["}"])?;
                }
                Some("menuentry" | "submenu") => {
                    let words = self.words();
                    self.open()?;
                    let (body, _) = self.statements(&["}"])?;
                    found.push(Statement::Menu { words, body });
                }
                _ => {
                    let words = self.words();
                    found.push(Statement::Command(words));
                }
            }
        }
    }

    /// Words up to the end of the statement or a bare `{`.
    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some((_, Token::Word(word))) = self.tokens.get(self.at) {
            if word.bare() == Some("{") || (word.bare() == Some("}") && !words.is_empty()) {
                // A command that begins with a brace is nothing we know: step over it, or this ends nowhere.
                if words.is_empty() {
                    self.at += 1;
                    continue;
                }
                break;
            }
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn open(&mut self) -> Result<(), (usize, String)> {
        while let Some((_, Token::End)) = self.tokens.get(self.at) {
            self.at += 1;
        }
        match self.tokens.get(self.at) {
            Some((_, Token::Word(word))) if word.bare() == Some("{") => {
                self.at += 1;
                Ok(())
            }
            _ => Err((self.line(), "`{` is expected".to_owned())),
        }
    }

    /// After `if`.
    fn branch(&mut self) -> Result<Statement, (usize, String)> {
        let mut arms = Vec::new();
        loop {
            let (condition, _) = self.statements(&["then"])?;
            let (body, ended) = self.statements(&["elif", "else", "fi"])?;
            arms.push((condition, body));
            match ended.as_deref() {
                Some("elif") => {}
                Some("else") => {
                    let (otherwise, _) = self.statements(&["fi"])?;
                    return Ok(Statement::If { arms, otherwise });
                }
                _ => return Ok(Statement::If { arms, otherwise: Vec::new() }),
            }
        }
    }
}
