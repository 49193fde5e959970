//! GRUB's shell: from text to words (GRUB manual, "Shell-like scripting").

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// A variable. Outside double quotes its value is split at blanks.
    Variable { name: String, quoted: bool },
}

/// One word of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
    /// Whether any of it was quoted: a quoted `{` or `fi` is a word like any other, and a quoted
    /// nothing is a word.
    pub(super) quoted: bool,
}

impl Word {
    /// The word, if it is bare text: only such words are keywords.
    pub(super) fn bare(&self) -> Option<&str> {
        match (&self.parts[..], self.quoted) {
            ([Part::Text(text)], false) => Some(text),
            _ => None,
        }
    }
}

/// What a script is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// Line feed or `;`.
    End,
}

/// The most tokens of one script.
const MOST_TOKENS: usize = 200_000;

/// Splits a script; each token with its line, from 1.
pub(super) fn split(text: &str) -> Result<Vec<(usize, Token)>, (usize, String)> {
    let mut splitter = Splitter { rest: text, line: 1, tokens: Vec::new(), word: None, begun: 1 };
    splitter.run()?;
    Ok(splitter.tokens)
}

struct Splitter<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<(usize, Token)>,
    word: Option<Word>,
    begun: usize,
}

impl Splitter<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn word(&mut self) -> &mut Word {
        if self.word.is_none() {
            self.begun = self.line;
        }
        self.word.get_or_insert_default()
    }

    fn push(&mut self, c: char) {
        let word = self.word();
        match word.parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => word.parts.push(Part::Text(c.into())),
        }
    }

    fn finish(&mut self) {
        if let Some(word) = self.word.take() {
            self.tokens.push((self.begun, Token::Word(word)));
        }
    }

    fn run(&mut self) -> Result<(), (usize, String)> {
        loop {
            if self.tokens.len() > MOST_TOKENS {
                return Err((self.line, format!("the script has more than {MOST_TOKENS} words")));
            }
            let line = self.line;
            let Some(c) = self.next() else { break };
            match c {
                '\n' | ';' => {
                    self.finish();
                    self.tokens.push((line, Token::End));
                }
                c if c.is_whitespace() => self.finish(),
                '#' if self.word.is_none() => {
                    self.rest = self.rest.find('\n').map_or("", |at| &self.rest[at..]);
                }
                '\\' => match self.next() {
                    // A line that goes on.
                    Some('\n') | None => {}
                    Some(c) => {
                        self.word().quoted = true;
                        self.push(c);
                    }
                },
                '\'' => self.single(line)?,
                '"' => self.double(line)?,
                '$' => self.variable(false)?,
                // `{` and `}` are words of their own, but belong to one that has begun.
                '{' | '}' if self.word.is_none() => {
                    self.push(c);
                    self.finish();
                }
                c => self.push(c),
            }
        }
        self.finish();
        Ok(())
    }

    fn single(&mut self, line: usize) -> Result<(), (usize, String)> {
        self.word().quoted = true;
        loop {
            match self.next() {
                None => return Err((line, "the quotation mark ' is not closed".to_owned())),
                Some('\'') => return Ok(()),
                Some(c) => self.push(c),
            }
        }
    }

    fn double(&mut self, line: usize) -> Result<(), (usize, String)> {
        self.word().quoted = true;
        loop {
            match self.next() {
                None => return Err((line, "the quotation mark \" is not closed".to_owned())),
                Some('"') => return Ok(()),
                Some('$') => self.variable(true)?,
                Some('\\') => match self.next() {
                    Some(c @ ('$' | '"' | '\\')) => self.push(c),
                    Some('\n') | None => {}
                    Some(c) => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                Some(c) => self.push(c),
            }
        }
    }

    /// After a `$`.
    fn variable(&mut self, quoted: bool) -> Result<(), (usize, String)> {
        let line = self.line;
        if let Some(inner) = self.rest.strip_prefix('{') {
            let Some((name, rest)) = inner.split_once('}') else {
                return Err((line, "`${` is not closed".to_owned()));
            };
            let name = name.to_owned();
            self.rest = rest;
            self.line += name.matches('\n').count();
            self.word().parts.push(Part::Variable { name, quoted });
            return Ok(());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = match self.rest.chars().next() {
            Some('?' | '*' | '@' | '#') => 1,
            Some(c) if c.is_ascii_digit() => self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len()),
            _ => self.rest.find(|c| !plain(c)).unwrap_or(self.rest.len()),
        };
        if end == 0 {
            // `$"..."` is a translated string; any other `$` stands for itself.
            if quoted || !self.rest.starts_with(['"', '\'']) {
                self.push('$');
            }
            return Ok(());
        }
        let (name, rest) = self.rest.split_at(end);
        let name = name.to_owned();
        self.rest = rest;
        self.word().parts.push(Part::Variable { name, quoted });
        Ok(())
    }
}
