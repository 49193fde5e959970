//! YAML read into JSON values, with the line that each value stands on.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, ScalarStyle, YamlData};
use serde_json::{Map, Number, Value};

use super::ManifestError;

/// How deep a document may nest.
const MAX_DEPTH: usize = 64;

/// The line that each value of a document stands on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Located {
    line: usize,
    children: BTreeMap<String, Self>,
}

impl Located {
    /// The line of the value at `path`, or of the nearest enclosing one; 0 when lines are not known.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut here = self;
        let mut rest = path;
        while !rest.is_empty() {
            rest = rest.trim_start_matches('.');
            // A key may itself hold a dot: the longest one that fits is meant.
            let step = here
                .children
                .iter()
                .filter(|(key, _)| {
                    rest.strip_prefix(key.as_str())
                        .is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                })
                .max_by_key(|(key, _)| key.len());
            let Some((key, child)) = step else { break };
            here = child;
            rest = rest.get(key.len()..).unwrap_or_default();
        }
        here.line
    }

    /// The lines of one item of a list.
    #[cfg(feature = "tinkerbell")]
    pub(crate) fn item(&self, field: &str, index: usize) -> Self {
        let found = self.children.get(field).and_then(|list| list.children.get(&format!("[{index}]")));
        found.cloned().unwrap_or_default()
    }
}

/// A path as `serde_ignored` gives it (`actions.2.with`), with places in lists in brackets.
pub(super) fn bracketed(path: &serde_ignored::Path<'_>) -> String {
    fn write(path: &serde_ignored::Path<'_>, out: &mut String) {
        use serde_ignored::Path as P;
        match path {
            P::Root => {}
            P::Seq { parent, index } => {
                write(parent, out);
                out.push_str(&format!("[{index}]"));
            }
            P::Map { parent, key } => {
                write(parent, out);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            P::Some { parent } | P::NewtypeStruct { parent } | P::NewtypeVariant { parent } => write(parent, out),
        }
    }
    let mut out = String::new();
    write(path, &mut out);
    out
}

/// Every document of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<(Value, Located)>, ManifestError> {
    shallow(text)?;
    let nodes = MarkedYaml::load_from_str(text).map_err(|error| {
        let line = error.marker().line();
        ManifestError::one(line, "", format!("this is not YAML: {}", error.info()))
    })?;
    nodes.iter().map(|node| convert(node, "", 0)).collect()
}

/// Every document of a text, each scalar as the text that stands there: `0644` stays what it is.
#[cfg(feature = "tinkerbell")]
pub(crate) fn raw_documents(text: &str) -> Result<Vec<(Value, Located)>, ManifestError> {
    shallow(text)?;
    let fail = |error: &saphyr::ScanError| {
        ManifestError::one(error.marker().line(), "", format!("this is not YAML: {}", error.info()))
    };
    let mut loader = saphyr::YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    saphyr_parser::Parser::new_from_str(text).load(&mut loader, true).map_err(|error| fail(&error))?;
    if let Some(error) = loader.error() {
        return Err(fail(error));
    }
    loader.into_documents().iter().map(|node| convert(node, "", 0)).collect()
}

/// Refuses nesting so deep that a parser could run out of stack, before one sees it.
fn shallow(text: &str) -> Result<(), ManifestError> {
    let mut depth = 0usize;
    for (number, line) in text.lines().enumerate() {
        let dashes = line.bytes().take_while(|c| matches!(c, b' ' | b'-' | b'?')).filter(|c| *c != b' ').count();
        for c in line.bytes() {
            match c {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        // Brackets inside quoted text count too: the bound is far above what a manifest needs.
        if depth > 1000 || dashes > MAX_DEPTH {
            return Err(ManifestError::one(number + 1, "", "this nests too deep"));
        }
    }
    Ok(())
}

fn convert(node: &MarkedYaml<'_>, path: &str, depth: usize) -> Result<(Value, Located), ManifestError> {
    let line = node.span.start.line();
    let fail = |problem: &str| Err(ManifestError::one(line, path, problem));
    if depth > MAX_DEPTH {
        return fail("this nests too deep");
    }
    let mut located = Located { line, children: BTreeMap::new() };
    let value = match &node.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(b) => Value::Bool(*b),
            Scalar::Integer(n) => Value::Number((*n).into()),
            Scalar::FloatingPoint(n) => match Number::from_f64(n.into_inner()) {
                Some(number) => Value::Number(number),
                None => return fail("this number is not finite; quote it if it is text"),
            },
            Scalar::String(text) => Value::String(text.to_string()),
        },
        YamlData::Representation(text, ScalarStyle::Plain, _) if matches!(&**text, "" | "~" | "null") => Value::Null,
        YamlData::Representation(text, ..) => Value::String(text.to_string()),
        YamlData::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let key = format!("[{index}]");
                let (value, child) = convert(item, &format!("{path}{key}"), depth + 1)?;
                list.push(value);
                located.children.insert(key, child);
            }
            Value::Array(list)
        }
        YamlData::Mapping(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let name = match &key.data {
                    YamlData::Value(Scalar::String(text)) => text.to_string(),
                    YamlData::Value(Scalar::Integer(n)) => n.to_string(),
                    YamlData::Value(Scalar::Boolean(b)) => b.to_string(),
                    YamlData::Representation(text, ..) => text.to_string(),
                    _ => return fail("a key here is not text"),
                };
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (value, mut child) = convert(item, &below, depth + 1)?;
                // The key's own line: where a person looks for the field.
                child.line = key.span.start.line();
                map.insert(name.clone(), value);
                located.children.insert(name, child);
            }
            Value::Object(map)
        }
        YamlData::Tagged(tag, _) => return fail(&format!("the tag {tag} is not known here")),
        YamlData::Alias(_) => return fail("this alias points nowhere"),
        YamlData::BadValue => return fail("this value cannot be read"),
    };
    Ok((value, located))
}
