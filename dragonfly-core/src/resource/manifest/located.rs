//! YAML read into JSON values, with the line that each value stands on.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, ScalarStyle, YamlData};
use saphyr_parser::{Event, Parser};
use serde_json::{Map, Number, Value};

use super::ManifestError;

/// How deep a document may nest.
const MAX_DEPTH: usize = 64;
const TOO_DEEP: &str = "this nests too deep";

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
    Parser::new_from_str(text).load(&mut loader, true).map_err(|error| fail(&error))?;
    if let Some(error) = loader.error() {
        return Err(fail(error));
    }
    loader.into_documents().iter().map(|node| convert(node, "", 0)).collect()
}

/// Refuses nesting so deep that the loader, which calls itself for each level, could run out of stack. The parser's
/// events come one by one and need no stack: what indents deeply without nesting, as text does, is not counted.
fn shallow(text: &str) -> Result<(), ManifestError> {
    // What is open, and how many levels are in it so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    // An alias brings with it the levels of what it stands for.
    let mut anchors: BTreeMap<usize, usize> = BTreeMap::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            // The parser's own bound, on brackets that it has to look past.
            Err(error) if error.info().contains("recursion limit") => {
                return Err(ManifestError::one(error.marker().line(), "", TOO_DEEP));
            }
            // The loader finds it too, and tells: it comes no deeper than this.
            Err(_) => return Ok(()),
        };
        let (levels, anchor) = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, 0));
                (0, 0)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (anchor, levels) = open.pop().unwrap_or_default();
                (levels + 1, anchor)
            }
            Event::Scalar(_, _, anchor, _) => (0, anchor),
            Event::Alias(of) => (anchors.get(&of).copied().unwrap_or_default(), 0),
            Event::DocumentStart(_) => {
                open.clear();
                continue;
            }
            _ => continue,
        };
        if open.len() + levels > MAX_DEPTH + 1 {
            return Err(ManifestError::one(span.start.line(), "", TOO_DEEP));
        }
        if anchor > 0 {
            anchors.insert(anchor, levels);
        }
        if let Some((_, deepest)) = open.last_mut() {
            *deepest = levels.max(*deepest);
        }
    }
    Ok(())
}

fn convert(node: &MarkedYaml<'_>, path: &str, depth: usize) -> Result<(Value, Located), ManifestError> {
    let line = node.span.start.line();
    let fail = |problem: &str| Err(ManifestError::one(line, path, problem));
    if depth > MAX_DEPTH {
        return fail(TOO_DEEP);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads in a debug build on as little stack as a worker of the server has.
    fn refusal(text: String) -> Option<String> {
        let read = move || documents(&text).err().map(|error| error.to_string());
        std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap()
    }

    fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
        (0..count).map(line).collect()
    }

    #[test]
    fn nesting_is_bounded_before_it_costs_stack_however_it_is_written() {
        let table = [
            ("indentation", lines(1000, |i| format!("{}a:\n", " ".repeat(i))), 66),
            ("dashes and indentation", lines(100, |i| format!("{}{}\n", " ".repeat(120 * i), "- ".repeat(60))), 2),
            ("dashes", "- ".repeat(100_000), 1),
            ("question marks", "? ".repeat(100_000), 1),
            ("brackets", "[".repeat(100_000), 1),
            ("braces on lines", "{a:\n".repeat(1000), 256),
            ("indented brackets", lines(60, |i| format!("{}a:\n", " ".repeat(i))) + &" ".repeat(60) + "[[[[[[[[", 61),
            ("aliases", "- &a0 x\n".to_owned() + &lines(5000, |i| format!("- &a{} [*a{i}]\n", i + 1)), 66),
            ("an alias deep inside", format!("- &a {}x{}\n- {}*a", "[".repeat(50), "]".repeat(50), "- ".repeat(30)), 2),
        ];
        for (what, text, line) in table {
            let said = refusal(text).unwrap_or_else(|| panic!("{what} was read"));
            assert!(said.contains("this nests too deep") && said.contains(&format!("line {line}:")), "{what}: {said}");
        }
    }

    #[test]
    fn what_only_looks_deep_is_read() {
        let script = lines(400, |i| format!("  {}{}if [[ {{\n", " ".repeat(i), "- ".repeat(i % 90)));
        let table = [
            ("a block of text", format!("a: |\n{script}")),
            ("a folded text", format!("a: >-\n  x\n{script}")),
            ("quoted text", format!("a: \"{}\"", "[{".repeat(5000))),
            ("text over several lines", format!("a: \"\n{script}  \"")),
            ("a comment", format!("# {}\na: b", "[- ".repeat(5000))),
            ("as deep as may be", lines(64, |i| format!("{}a:\n", " ".repeat(i)))),
            ("wide", lines(2000, |i| format!("a{i}:\n{}b: [x, {{y: z}}]\n", " ".repeat(i % 100 + 1)))),
            ("many documents", "a: {b: [c]}\n---\n".repeat(200)),
        ];
        for (what, text) in table {
            assert_eq!(refusal(text), None, "{what}");
        }
    }
}
