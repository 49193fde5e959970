//! Text and `{{ ... }}` taken apart into tokens, each with its place.

use super::{GoError, Place};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// What stands outside of `{{ }}`.
    Outside(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.` alone.
    Dot,
    /// `.Name`
    Field(String),
    /// `$name`, `$`.
    Variable(String),
    /// `if`, `index`, `true`.
    Word(String),
    /// A quoted or raw string.
    Text(String),
    /// A whole number, or a character.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `=`
    Assign,
    /// `:=`
    Declare,
    /// `,`
    Comma,
}

/// A token, where it begins, and whether a blank stands before it: `.a .b` are two arguments, `.a.b` is one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexed {
    pub(super) token: Token,
    pub(super) place: Place,
    pub(super) spaced: bool,
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Every token of a template.
pub(super) fn tokens(source: &str) -> Result<Vec<Lexed>, GoError> {
    let mut lexer = Lexer { rest: source, place: Place { line: 1, column: 1 }, out: Vec::new() };
    lexer.outside()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
    out: Vec<Lexed>,
}

impl<'a> Lexer<'a> {
    /// Takes so many bytes; the place moves with them.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        for c in taken.chars() {
            if c == '\n' {
                self.place.line += 1;
                self.place.column = 1;
            } else {
                self.place.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn blanks(&mut self) -> bool {
        let bytes = self.rest.len() - self.rest.trim_start().len();
        self.take(bytes);
        bytes > 0
    }

    fn push(&mut self, token: Token, place: Place, spaced: bool) {
        self.out.push(Lexed { token, place, spaced });
    }

    fn outside(&mut self) -> Result<(), GoError> {
        let mut trim_left = false;
        loop {
            let place = self.place;
            let length = self.rest.find(OPEN);
            let mut text = self.take(length.unwrap_or(self.rest.len()));
            if trim_left {
                text = text.trim_start();
            }
            let opened = self.place;
            let trims = length.is_some() && starts_trimmed(self.rest);
            if trims {
                text = text.trim_end();
            }
            if !text.is_empty() {
                self.push(Token::Outside(text.to_owned()), place, false);
            }
            if length.is_none() {
                return Ok(());
            }
            self.take(OPEN.len() + usize::from(trims));
            trim_left = match self.comment(opened)? {
                Some(trims) => trims,
                None => {
                    self.push(Token::Open, opened, false);
                    self.inside(opened)?
                }
            };
        }
    }

    /// `/* ... */}}`; whether what follows is trimmed. `None`: it is no comment.
    fn comment(&mut self, opened: Place) -> Result<Option<bool>, GoError> {
        let blanks = self.rest.len() - self.rest.trim_start().len();
        if !self.rest.trim_start().starts_with("/*") {
            return Ok(None);
        }
        self.take(blanks);
        let Some(end) = self.rest.find("*/") else { return Err(opened.error("this comment does not end")) };
        self.take(end + 2);
        let spaced = self.blanks();
        let trims = spaced && self.rest.starts_with('-');
        self.take(usize::from(trims));
        if !self.rest.starts_with(CLOSE) {
            return Err(self.place.error("`}}` must follow a comment"));
        }
        self.take(CLOSE.len());
        Ok(Some(trims))
    }

    /// Up to `}}`; whether what follows is trimmed.
    fn inside(&mut self, opened: Place) -> Result<bool, GoError> {
        loop {
            let spaced = self.blanks();
            let place = self.place;
            let trims = spaced && self.rest.starts_with("-}}");
            if trims || self.rest.starts_with(CLOSE) {
                self.take(CLOSE.len() + usize::from(trims));
                self.push(Token::Close, place, spaced);
                return Ok(trims);
            }
            let Some(first) = self.rest.chars().next() else { return Err(opened.error("this `{{` is not closed")) };
            let token = self.token(first, place)?;
            self.push(token, place, spaced);
        }
    }

    fn token(&mut self, first: char, place: Place) -> Result<Token, GoError> {
        let next = self.rest.chars().nth(1);
        let single = match first {
            '|' => Some(Token::Pipe),
            '(' => Some(Token::Left),
            ')' => Some(Token::Right),
            '=' => Some(Token::Assign),
            ',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = single {
            self.take(1);
            return Ok(token);
        }
        match first {
            ':' if next == Some('=') => {
                self.take(2);
                Ok(Token::Declare)
            }
            '"' => self.quoted('"', place).map(Token::Text),
            '\'' => {
                let text = self.quoted('\'', place)?;
                let mut letters = text.chars();
                match (letters.next(), letters.next()) {
                    (Some(c), None) => Ok(Token::Int(i64::from(u32::from(c)))),
                    _ => Err(place.error("'...' holds one character; write a text as \"...\"")),
                }
            }
            '`' => {
                let Some(end) = self.rest.get(1..).and_then(|rest| rest.find('`')) else {
                    return Err(place.error("this raw text does not end"));
                };
                let text = self.take(end + 2);
                Ok(Token::Text(text.trim_matches('`').replace('\r', "")))
            }
            '$' => {
                self.take(1);
                Ok(Token::Variable(self.name().to_owned()))
            }
            '.' if next.is_some_and(is_letter) => {
                self.take(1);
                Ok(Token::Field(self.name().to_owned()))
            }
            '.' if !next.is_some_and(|c| c.is_ascii_digit()) => {
                self.take(1);
                Ok(Token::Dot)
            }
            c if is_letter(c) => Ok(Token::Word(self.name().to_owned())),
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(place),
            other => Err(place.error(format!("`{other}` means nothing here"))),
        }
    }

    fn name(&mut self) -> &'a str {
        let bytes = self.rest.find(|c: char| !is_letter(c) && !c.is_numeric()).unwrap_or(self.rest.len());
        self.take(bytes)
    }

    fn number(&mut self, place: Place) -> Result<Token, GoError> {
        let fits = |(at, c): (usize, char)| {
            let sign = matches!(c, '+' | '-')
                && (at == 0 || self.rest.get(..at).is_some_and(|before| before.ends_with(['e', 'E'])));
            (!sign && !c.is_ascii_alphanumeric() && c != '.' && c != '_').then_some(at)
        };
        let bytes = self.rest.char_indices().find_map(fits).unwrap_or(self.rest.len());
        let text = self.take(bytes);
        let plain = text.replace('_', "");
        let (sign, digits) = match plain.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
        };
        let whole = match digits.get(..2) {
            Some("0x" | "0X") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 16),
            Some("0b" | "0B") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 2),
            Some("0o" | "0O") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 8),
            Some(octal) if octal.starts_with('0') && digits.bytes().all(|c| c.is_ascii_digit()) => {
                i64::from_str_radix(&format!("{sign}{digits}"), 8)
            }
            _ => format!("{sign}{digits}").parse(),
        };
        match (whole, plain.parse::<f64>()) {
            (Ok(number), _) => Ok(Token::Int(number)),
            (Err(_), Ok(number))
                if number.is_finite() && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') =>
            {
                Ok(Token::Float(number))
            }
            _ => Err(place.error(format!("`{text}` is not a number"))),
        }
    }

    fn quoted(&mut self, quote: char, place: Place) -> Result<String, GoError> {
        self.take(1);
        let mut text = String::new();
        loop {
            let Some(c) = self.rest.chars().next() else { return Err(place.error("this text does not end")) };
            let at = self.place;
            self.take(c.len_utf8());
            match c {
                c if c == quote => return Ok(text),
                '\n' => return Err(place.error("this text does not end on its line")),
                '\\' => {
                    let Some(escape) = self.rest.chars().next() else {
                        return Err(place.error("this text does not end"));
                    };
                    self.take(escape.len_utf8());
                    let hex = |digits: Option<&str>| {
                        digits.and_then(|d| u32::from_str_radix(d, 16).ok()).and_then(char::from_u32)
                    };
                    let (c, more) = match escape {
                        'n' => (Some('\n'), 0),
                        't' => (Some('\t'), 0),
                        'r' => (Some('\r'), 0),
                        'x' => (hex(self.rest.get(..2)), 2),
                        'u' => (hex(self.rest.get(..4)), 4),
                        '\\' | '"' | '\'' => (Some(escape), 0),
                        _ => (None, 0),
                    };
                    self.take(more);
                    text.push(c.ok_or_else(|| at.error(format!("`\\{escape}` is not known in a text")))?);
                }
                c => text.push(c),
            }
        }
    }
}

/// `{{-` with a blank behind it.
fn starts_trimmed(rest: &str) -> bool {
    rest.strip_prefix("{{-").is_some_and(|rest| rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}
