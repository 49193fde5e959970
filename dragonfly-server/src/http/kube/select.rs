//! Which objects a request means: Kubernetes' label and field selectors.

use std::fmt;

use dragonfly_core::resource::Record;
use dragonfly_core::store::Selector;

use super::super::problem::Problem;

/// Objects by label and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// What a store can look for itself.
    pub(super) equal: Selector,
    /// What is looked at besides.
    more: Vec<Requirement>,
    /// `metadata.name=x`.
    pub(super) name: Option<String>,
    /// `metadata.name!=x`.
    other_than: Vec<String>,
}

/// One more condition on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    /// Also true of an object without the label.
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// Two conditions that exclude each other.
    Nothing,
}

impl Selection {
    /// From the query's `labelSelector` and `fieldSelector`.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, Problem> {
        let mut selection = Self::default();
        let wrong = |problem: String| Problem::bad_request(format!("labelSelector: {problem}"));
        for requirement in Parser::new(labels).requirements().map_err(wrong)? {
            selection.add(requirement);
        }
        for (field, equal, value) in field_terms(fields)? {
            if field != "metadata.name" {
                let detail = format!("fieldSelector: objects are selected by metadata.name only, not by `{field}`");
                return Err(Problem::bad_request(detail));
            }
            match (equal, &selection.name) {
                (false, _) => selection.other_than.push(value),
                (true, Some(name)) if *name != value => selection.more.push(Requirement::Nothing),
                (true, _) => selection.name = Some(value),
            }
        }
        Ok(selection)
    }

    fn add(&mut self, requirement: Requirement) {
        match requirement {
            Requirement::In(key, values) if values.len() == 1 => {
                let [value] = values.try_into().unwrap_or_default();
                match self.equal.labels.insert(key, value.clone()) {
                    Some(other) if other != value => self.more.push(Requirement::Nothing),
                    _ => {}
                }
            }
            other => self.more.push(other),
        }
    }

    /// Whether a store's own selector says it all.
    pub(super) fn is_plain(&self) -> bool {
        self.more.is_empty() && self.name.is_none() && self.other_than.is_empty()
    }

    /// Whether every object is meant.
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an object of this name can be meant, whatever its labels.
    pub(super) fn may_match(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|wanted| wanted == name) && !self.other_than.iter().any(|other| other == name)
    }

    /// Whether an object is meant.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let labels = &record.metadata.labels;
        self.equal.matches(record)
            && self.may_match(&record.metadata.name)
            && self.more.iter().all(|requirement| match requirement {
                Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
                Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::Absent(key) => !labels.contains_key(key),
                Requirement::Nothing => false,
            })
    }
}

/// `field=value,field!=value`, each with whether it is to be equal.
pub(super) fn field_terms(text: &str) -> Result<Vec<(String, bool, String)>, Problem> {
    let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let split = |by: &str, equal| term.split_once(by).map(|(field, value)| (field, equal, value));
            let found = split("!=", false).or_else(|| split("==", true)).or_else(|| split("=", true));
            let (field, equal, value) = found.ok_or_else(|| {
                Problem::bad_request(format!("fieldSelector: `{term}` is not understood; write `field=value`"))
            })?;
            Ok((field.trim().to_owned(), equal, value.trim().to_owned()))
        })
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Sign(sign) => f.write_str(sign),
        }
    }
}

struct Parser {
    /// In reverse: the next one is the last.
    tokens: Vec<Token>,
}

impl Parser {
    fn new(text: &str) -> Self {
        const SIGNS: [&str; 7] = ["!=", "==", "=", "!", "(", ")", ","];
        let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
        while !rest.is_empty() {
            if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                tokens.push(Token::Sign(sign));
                rest = rest.get(sign.len()..).unwrap_or_default();
            } else {
                let end = rest.find(|c: char| c.is_whitespace() || "!=(),".contains(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                tokens.push(Token::Word(word.to_owned()));
                rest = after;
            }
            rest = rest.trim_start();
        }
        tokens.reverse();
        Self { tokens }
    }

    fn requirements(mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        while !self.tokens.is_empty() {
            all.push(self.requirement()?);
            match self.tokens.pop() {
                None => break,
                Some(Token::Sign(",")) if !self.tokens.is_empty() => {}
                Some(other) => return Err(format!("`{other}` is not understood after `{}`", all_words(&all))),
            }
        }
        Ok(all)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.take("!") {
            return Ok(Requirement::Absent(self.key()?));
        }
        let key = self.key()?;
        match self.tokens.last().cloned() {
            None | Some(Token::Sign(",")) => Ok(Requirement::Exists(key)),
            Some(Token::Sign("=" | "==")) => {
                self.tokens.pop();
                Ok(Requirement::In(key.clone(), vec![self.value(&key)?]))
            }
            Some(Token::Sign("!=")) => {
                self.tokens.pop();
                Ok(Requirement::NotIn(key.clone(), vec![self.value(&key)?]))
            }
            Some(Token::Word(word)) if word == "in" || word == "notin" => {
                self.tokens.pop();
                let values = self.values(&key)?;
                Ok(if word == "in" { Requirement::In(key, values) } else { Requirement::NotIn(key, values) })
            }
            Some(other) => Err(format!(
                "`{other}` is not understood after `{key}`; write `{key}=value`, `{key}!=value`, `{key} in (a,b)`, \
                 `{key} notin (a,b)`, `{key}` or `!{key}`"
            )),
        }
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let is_next = self.tokens.last() == Some(&Token::Sign(sign));
        if is_next {
            self.tokens.pop();
        }
        is_next
    }

    fn key(&mut self) -> Result<String, String> {
        match self.tokens.pop() {
            Some(Token::Word(word)) if is_key(&word) => Ok(word),
            Some(other) => Err(format!("`{other}` is not the key of a label")),
            None => Err("it ends where the key of a label was expected".to_owned()),
        }
    }

    /// One value; nothing at all is the empty one.
    fn value(&mut self, key: &str) -> Result<String, String> {
        match self.tokens.last() {
            Some(Token::Word(word)) if is_value(word) => {
                let word = word.clone();
                self.tokens.pop();
                Ok(word)
            }
            None | Some(Token::Sign("," | ")")) => Ok(String::new()),
            Some(other) => Err(format!("`{other}` is not the value of the label `{key}`")),
        }
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("write the values of `{key}` in parentheses: (a,b)"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value(key)?);
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(format!("the values of `{key}` have no closing parenthesis"));
            }
        }
    }
}

fn all_words(all: &[Requirement]) -> &str {
    match all.last() {
        Some(
            Requirement::In(key, _) | Requirement::NotIn(key, _) | Requirement::Exists(key) | Requirement::Absent(key),
        ) => key,
        _ => "",
    }
}

/// `name` or `prefix/name`, as Kubernetes has it.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_domain = |text: &str| {
        (1..=253).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_domain)
}

/// At most 63 of letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, or nothing.
fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && ends(text.chars().next())
        && ends(text.chars().last())
}

#[cfg(test)]
mod tests {
    use dragonfly_core::resource::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn record(labels: &[(&str, &str)]) -> Record {
        let mut record =
            Record { kind: Kind::TEMPLATE, metadata: Default::default(), spec: json!({}), status: Value::Null };
        record.metadata.name = "one".into();
        record.metadata.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        record
    }

    #[test]
    fn selects_as_kubernetes_does() {
        let (bare, ax, ay) = (record(&[]), record(&[("a", "x")]), record(&[("a", "y"), ("site/b", "1.0")]));
        let table: &[(&str, &str, [bool; 3])] = &[
            // labels, fields -> without labels, a=x, a=y with site/b
            ("", "", [true, true, true]),
            ("a=x", "", [false, true, false]),
            ("a == x", "", [false, true, false]),
            ("a!=x", "", [true, false, true]),
            ("a in (x, z)", "", [false, true, false]),
            ("a in (x,y)", "", [false, true, true]),
            ("a in (x)", "", [false, true, false]),
            ("a notin (x,z)", "", [true, false, true]),
            ("a", "", [false, true, true]),
            ("!a", "", [true, false, false]),
            ("a,site/b", "", [false, false, true]),
            ("a,!site/b", "", [false, true, false]),
            ("site/b=1.0,a!=x", "", [false, false, true]),
            ("a=x,a=y", "", [false, false, false]),
            ("a=", "", [false, false, false]),
            ("a in ()", "", [false, false, false]),
            ("in=x", "", [false, false, false]),
            ("", "metadata.name=one", [true, true, true]),
            ("", "metadata.name==two", [false, false, false]),
            ("a", "metadata.name!=two", [false, true, true]),
            ("", "metadata.name!=one", [false, false, false]),
            ("", "metadata.name=one,metadata.name=two", [false, false, false]),
        ];
        for (labels, fields, want) in table {
            let selection = Selection::parse(labels, fields).unwrap_or_else(|e| panic!("{labels}: {}", e.detail));
            let got = [&bare, &ax, &ay].map(|record| selection.matches(record));
            assert_eq!(got, *want, "{labels} {fields}");
        }
    }

    #[test]
    fn says_what_it_does_not_understand() {
        let wrong =
            ["=b", "a=b=c", "a b", "a in", "a in x", "a in (x", "!", "a,", ",a", "a=b)", "a=-b", "a/b/c", "é=1", "a>1"];
        for text in wrong {
            let problem = Selection::parse(text, "").unwrap_err();
            assert!(problem.detail.starts_with("labelSelector: "), "{text}: {}", problem.detail);
        }
        for text in ["spec.x=y", "metadata.name", "x"] {
            let problem = Selection::parse("", text).unwrap_err();
            assert!(problem.detail.starts_with("fieldSelector: "), "{text}: {}", problem.detail);
        }
    }
}
