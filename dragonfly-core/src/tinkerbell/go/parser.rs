//! Tokens made into a tree.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::ast::{Command, Node, Operand, Pipe, Root, Template};
use super::lexer::{Lexed, Token};
use super::value::Value;
use super::{GoError, MAX_DEPTH, Place};

/// The tree of a template.
pub(super) fn parse(tokens: Vec<Lexed>) -> Result<Template, GoError> {
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), defined: BTreeMap::new(), depth: 0, last: START };
    let (body, end) = parser.list()?;
    match end {
        End::Whole => Ok(Template { body, defined: parser.defined }),
        End::Else(place, _) => Err(place.error("this `else` belongs to no `if`, `with` or `range`")),
        End::Closed(place) => Err(place.error("this `end` ends nothing")),
    }
}

const START: Place = Place { line: 1, column: 1 };

struct Parser {
    tokens: Peekable<IntoIter<Lexed>>,
    defined: BTreeMap<String, Vec<Node>>,
    depth: usize,
    last: Place,
}

/// What ended a list of nodes.
enum End {
    Whole,
    Closed(Place),
    /// With the word behind it: `else if`, `else with`.
    Else(Place, Option<String>),
}

impl Parser {
    fn next(&mut self) -> Option<Lexed> {
        let next = self.tokens.next();
        if let Some(lexed) = &next {
            self.last = lexed.place;
        }
        next
    }

    fn need(&mut self) -> Result<Lexed, GoError> {
        let last = self.last;
        self.next().ok_or_else(|| last.error("the template ends here, within `{{ }}`"))
    }

    fn is_next(&mut self, token: &Token) -> bool {
        self.tokens.peek().is_some_and(|lexed| lexed.token == *token)
    }

    fn deeper<T>(&mut self, place: Place, inner: impl FnOnce(&mut Self) -> Result<T, GoError>) -> Result<T, GoError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(place.error(format!("this nests deeper than {MAX_DEPTH}")));
        }
        let made = inner(self);
        self.depth -= 1;
        made
    }

    /// Nodes up to `end`, `else` or the template's end.
    fn list(&mut self) -> Result<(Vec<Node>, End), GoError> {
        let mut nodes = Vec::new();
        loop {
            let Some(lexed) = self.next() else { return Ok((nodes, End::Whole)) };
            match lexed.token {
                Token::Outside(text) => nodes.push(Node::Outside(text, lexed.place)),
                Token::Open => {
                    let word = match self.tokens.peek() {
                        Some(Lexed { token: Token::Word(word), .. }) => word.clone(),
                        _ => String::new(),
                    };
                    let place = lexed.place;
                    match word.as_str() {
                        "end" => {
                            self.next();
                            self.close()?;
                            return Ok((nodes, End::Closed(place)));
                        }
                        "else" => {
                            self.next();
                            let chained = match self.tokens.peek() {
                                Some(Lexed { token: Token::Word(word), .. }) => Some(word.clone()),
                                _ => None,
                            };
                            if chained.is_some() {
                                self.next();
                            } else {
                                self.close()?;
                            }
                            return Ok((nodes, End::Else(place, chained)));
                        }
                        "define" => self.deeper(place, |p| p.define(place))?,
                        "if" | "with" | "range" | "template" | "block" | "break" | "continue" => {
                            self.next();
                            nodes.push(self.deeper(place, |p| p.control(&word, place))?);
                        }
                        _ => {
                            let pipe = self.pipe(false)?;
                            self.close()?;
                            nodes.push(Node::Print(pipe));
                        }
                    }
                }
                // The lexer opens before anything else.
                _ => return Err(lexed.place.error("this stands outside of `{{ }}`")),
            }
        }
    }

    fn close(&mut self) -> Result<(), GoError> {
        let lexed = self.need()?;
        match lexed.token {
            Token::Close => Ok(()),
            other => Err(lexed.place.error(format!("{} is not expected here", words(&other)))),
        }
    }

    fn control(&mut self, word: &str, place: Place) -> Result<Node, GoError> {
        match word {
            "if" | "with" => self.arms(word, place),
            "range" => {
                let pipe = self.pipe(true)?;
                self.close()?;
                let (body, end) = self.list()?;
                let otherwise = self.otherwise(end, place, word)?;
                Ok(Node::Range { pipe, body, otherwise })
            }
            "break" => self.close().map(|()| Node::Break(place)),
            "continue" => self.close().map(|()| Node::Continue(place)),
            "block" => {
                let name = self.name()?;
                let pipe = self.pipe(false)?;
                self.close()?;
                let body = self.body(place, "block")?;
                self.defined.entry(name.clone()).or_insert(body);
                Ok(Node::Call { name, pipe: Some(pipe), place })
            }
            _ => {
                let name = self.name()?;
                let pipe = if self.is_next(&Token::Close) { None } else { Some(self.pipe(false)?) };
                self.close()?;
                Ok(Node::Call { name, pipe, place })
            }
        }
    }

    fn arms(&mut self, word: &str, place: Place) -> Result<Node, GoError> {
        let mut arms = Vec::new();
        let otherwise = loop {
            if arms.len() >= 1000 {
                return Err(place.error("this has more than 1000 `else if`"));
            }
            let pipe = self.pipe(true)?;
            self.close()?;
            let (body, end) = self.list()?;
            arms.push((pipe, body));
            match end {
                End::Else(_, Some(chained)) if chained == word => {}
                other => break self.otherwise(other, place, word)?,
            }
        };
        Ok(if word == "if" { Node::If { arms, otherwise } } else { Node::With { arms, otherwise } })
    }

    fn otherwise(&mut self, end: End, place: Place, word: &str) -> Result<Vec<Node>, GoError> {
        match end {
            End::Closed(_) => Ok(Vec::new()),
            End::Else(_, None) => self.body(place, word),
            End::Else(at, Some(chained)) => Err(at.error(format!("`else {chained}` cannot follow `{word}`"))),
            End::Whole => Err(place.error(format!("this `{word}` has no `end`"))),
        }
    }

    fn body(&mut self, place: Place, word: &str) -> Result<Vec<Node>, GoError> {
        match self.list()? {
            (nodes, End::Closed(_)) => Ok(nodes),
            (_, End::Whole) => Err(place.error(format!("this `{word}` has no `end`"))),
            (_, End::Else(at, _)) => Err(at.error(format!("this `else` does not belong to `{word}`"))),
        }
    }

    fn define(&mut self, place: Place) -> Result<(), GoError> {
        self.next();
        let name = self.name()?;
        self.close()?;
        let body = self.body(place, "define")?;
        self.defined.insert(name, body);
        Ok(())
    }

    fn name(&mut self) -> Result<String, GoError> {
        let lexed = self.need()?;
        match lexed.token {
            Token::Text(name) => Ok(name),
            other => Err(lexed.place.error(format!("a name in quotes is expected, not {}", words(&other)))),
        }
    }

    /// Commands set apart by `|`, up to `}}` or `)`, which stays.
    fn pipe(&mut self, two_variables: bool) -> Result<Pipe, GoError> {
        let place = self.tokens.peek().map_or(self.last, |lexed| lexed.place);
        let mut pipe = Pipe { place, variables: Vec::new(), declares: true, commands: Vec::new() };
        let mut first = None;
        if let Some(Lexed { token: Token::Variable(name), .. }) = self.tokens.peek() {
            let name = name.clone();
            let lexed = self.need()?;
            if self.is_next(&Token::Comma) && two_variables {
                self.next();
                let second = self.need()?;
                let Token::Variable(second_name) = second.token else {
                    return Err(second.place.error("a variable is expected behind `,`"));
                };
                pipe.variables = vec![name, second_name];
                if !self.is_next(&Token::Declare) {
                    return Err(second.place.error("`:=` is expected behind two variables"));
                }
                self.next();
            } else if self.is_next(&Token::Declare) || self.is_next(&Token::Assign) {
                pipe.declares = self.is_next(&Token::Declare);
                self.next();
                pipe.variables = vec![name];
            } else {
                first = Some(self.fields(Operand {
                    place: lexed.place,
                    root: Root::Variable(name),
                    fields: Vec::new(),
                })?);
            }
        }
        loop {
            let mut operands: Vec<Operand> = first.take().into_iter().collect();
            loop {
                match self.tokens.peek() {
                    Some(Lexed { token: Token::Close | Token::Right | Token::Pipe, .. }) | None => break,
                    Some(_) => operands.push(self.operand()?),
                }
            }
            if operands.is_empty() {
                return Err(self.tokens.peek().map_or(self.last, |l| l.place).error("a value is missing here"));
            }
            pipe.commands.push(Command { operands });
            if !self.is_next(&Token::Pipe) {
                return Ok(pipe);
            }
            self.next();
        }
    }

    fn operand(&mut self) -> Result<Operand, GoError> {
        let lexed = self.need()?;
        let place = lexed.place;
        let plain = |root: Root| Operand { place, root, fields: Vec::new() };
        let operand = match lexed.token {
            Token::Dot => return Ok(plain(Root::Dot)),
            Token::Field(name) => Operand { place, root: Root::Dot, fields: vec![name] },
            Token::Variable(name) => plain(Root::Variable(name)),
            Token::Word(word) => match word.as_str() {
                "true" => return Ok(plain(Root::Literal(Value::Bool(true)))),
                "false" => return Ok(plain(Root::Literal(Value::Bool(false)))),
                "nil" => return Ok(plain(Root::Literal(Value::Nil))),
                "if" | "else" | "end" | "with" | "range" | "define" | "template" | "block" => {
                    return Err(place.error(format!("`{word}` cannot stand here")));
                }
                _ => plain(Root::Function(word)),
            },
            Token::Text(text) => return Ok(plain(Root::Literal(Value::text(text)))),
            Token::Int(number) => return Ok(plain(Root::Literal(Value::Int(number)))),
            Token::Float(number) => return Ok(plain(Root::Literal(Value::Float(number)))),
            Token::Left => {
                let pipe = self.deeper(place, |p| p.pipe(false))?;
                let close = self.need()?;
                if close.token != Token::Right {
                    return Err(place.error("this `(` is not closed"));
                }
                plain(Root::Group(Box::new(pipe)))
            }
            other => return Err(place.error(format!("{} is not expected here", words(&other)))),
        };
        self.fields(operand)
    }

    /// `.a.b` that follows without a blank.
    fn fields(&mut self, mut operand: Operand) -> Result<Operand, GoError> {
        while let Some(Lexed { token: Token::Field(name), spaced: false, .. }) = self.tokens.peek() {
            operand.fields.push(name.clone());
            self.next();
        }
        Ok(operand)
    }
}

fn words(token: &Token) -> String {
    match token {
        Token::Outside(_) | Token::Open => "`{{`".to_owned(),
        Token::Close => "`}}`".to_owned(),
        Token::Dot => "`.`".to_owned(),
        Token::Field(name) => format!("`.{name}`"),
        Token::Variable(name) => format!("`${name}`"),
        Token::Word(word) => format!("`{word}`"),
        Token::Text(_) => "a text".to_owned(),
        Token::Int(number) => format!("`{number}`"),
        Token::Float(number) => format!("`{number}`"),
        Token::Pipe => "`|`".to_owned(),
        Token::Left => "`(`".to_owned(),
        Token::Right => "`)`".to_owned(),
        Token::Assign => "`=`".to_owned(),
        Token::Declare => "`:=`".to_owned(),
        Token::Comma => "`,`".to_owned(),
    }
}
