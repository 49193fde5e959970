//! The strict door: what people write, checked field by field, each error with its path and line.
//!
//! YAML 1.2 or JSON, several documents in one text. An unknown field, a wrong type or a value out
//! of range is an error that names where it stands; every error of a text is told at once.

pub(crate) mod located;
mod rules;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    API_VERSION, HardwareSpec, Kind, MAX_OBJECT_BYTES, Metadata, NetworkSpec, Record, SecretSpec, Spec, TemplateSpec,
    WorkflowSpec,
};
use crate::near::did_you_mean;
use crate::{fields, name};
use located::Located;

/// One object as somebody wrote it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The object; its status is left out, as Kubernetes does.
    pub record: Record,
    located: Located,
}

impl Manifest {
    /// The line that a path inside the object stands on, from 1; the nearest enclosing one when the
    /// path itself is absent.
    pub fn line_of(&self, path: &str) -> usize {
        self.located.line_of(path)
    }
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// The line it stands on, from 1; 0 when the text did not come in lines.
    pub line: usize,
    /// Where in the object: `spec.actions[2].with.url`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

/// Everything that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ManifestError {
    /// At least one.
    pub problems: Vec<ManifestProblem>,
}

impl ManifestError {
    fn one(line: usize, path: &str, problem: impl Into<String>) -> Self {
        Self { problems: vec![ManifestProblem { line, path: path.to_owned(), problem: problem.into() }] }
    }
}

/// Reads every document of a text. Either all of it is right or none of it is taken.
pub fn parse(text: &str) -> Result<Vec<Manifest>, ManifestError> {
    // A document may be MAX_OBJECT_BYTES; a text may hold a few hundred small ones.
    if text.len() > 8 * MAX_OBJECT_BYTES {
        return Err(ManifestError::one(0, "", "the text is larger than 4 MiB; split it"));
    }
    let documents = located::documents(text)?;
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    for (value, located) in documents {
        if value.is_null() {
            continue;
        }
        match object(value, &located) {
            Ok(record) => manifests.push(Manifest { record, located }),
            Err(error) => problems.extend(error.problems),
        }
    }
    if !problems.is_empty() {
        return Err(ManifestError { problems });
    }
    if manifests.is_empty() {
        return Err(ManifestError::one(0, "", "there is no object in it"));
    }
    Ok(manifests)
}

/// Every document of a text as it stands, unchecked: for who hands it on to where it is checked.
pub fn documents(text: &str) -> Result<Vec<Value>, ManifestError> {
    let all = located::documents(text)?;
    Ok(all.into_iter().map(|(value, _)| value).filter(|value| !value.is_null()).collect())
}

/// Checks one object that came as JSON.
pub fn from_json(value: Value) -> Result<Record, ManifestError> {
    object(value, &Located::default())
}

fn object(value: Value, located: &Located) -> Result<Record, ManifestError> {
    let at =
        |path: &str, problem: String| ManifestProblem { line: located.line_of(path), path: path.to_owned(), problem };
    let fail = |problem: ManifestProblem| ManifestError { problems: vec![problem] };
    let Value::Object(mut object) = value else {
        return Err(fail(at("", "an object begins with apiVersion, kind, metadata and spec".to_owned())));
    };
    let size = serde_json::to_vec(&object).map(|v| v.len()).unwrap_or(0);
    if size > MAX_OBJECT_BYTES {
        return Err(fail(at("", format!("the object has {size} bytes; an object may have {MAX_OBJECT_BYTES}"))));
    }
    match object.remove("apiVersion") {
        Some(Value::String(version)) if version == API_VERSION => {}
        Some(other) => return Err(fail(at("apiVersion", format!("it is {other}; write {API_VERSION}")))),
        None => return Err(fail(at("", format!("apiVersion is missing; write `apiVersion: {API_VERSION}`")))),
    }
    let kinds = || Kind::ALL.map(|k| k.name).join(", ");
    let kind = match object.remove("kind") {
        Some(Value::String(word)) => match Kind::ALL.into_iter().find(|k| k.name == word) {
            Some(kind) => kind,
            None => {
                let meant = did_you_mean(&word, Kind::ALL.iter().map(|k| k.name));
                let meant = meant.unwrap_or_else(|| format!("there are {}", kinds()));
                return Err(fail(at("kind", format!("there is no kind `{word}`; {meant}"))));
            }
        },
        Some(other) => return Err(fail(at("kind", format!("it is {other}; write one of {}", kinds())))),
        None => return Err(fail(at("", format!("kind is missing; write one of {}", kinds())))),
    };
    let mut problems = Vec::new();
    let metadata = object.remove("metadata").unwrap_or(Value::Null);
    let metadata = match metadata {
        Value::Object(mut fields) => {
            // What Kubernetes' own tools add and we have no use for.
            for field in ["managedFields", "selfLink", "namespace", "ownerReferences"] {
                fields.remove(field);
            }
            strict::<Metadata>("metadata", Value::Object(fields), &mut problems)
        }
        _ => {
            problems.push(("metadata".to_owned(), "metadata.name is missing".to_owned()));
            None
        }
    };
    if let Some(metadata) = &metadata
        && let Err(error) = name::check(&metadata.name)
    {
        problems.push(("metadata.name".to_owned(), error.to_string()));
    }
    let spec = object.remove("spec").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let spec = check_spec(kind, spec, &mut problems);
    object.remove("status");
    for field in object.keys() {
        let known = ["apiVersion", "kind", "metadata", "spec"];
        let meant = did_you_mean(field, known).unwrap_or_else(|| format!("there are: {}", known.join(", ")));
        problems.push((field.clone(), format!("there is no such field; {meant}")));
    }
    match (metadata, spec) {
        (Some(metadata), Some(spec)) if problems.is_empty() => Ok(Record { kind, metadata, spec, status: Value::Null }),
        _ => Err(ManifestError { problems: problems.into_iter().map(|(path, problem)| at(&path, problem)).collect() }),
    }
}

fn check_spec(kind: Kind, spec: Value, problems: &mut Vec<(String, String)>) -> Option<Value> {
    fn typed<S: Spec>(
        spec: Value,
        problems: &mut Vec<(String, String)>,
        rules: fn(&S) -> Vec<(String, String)>,
    ) -> Option<Value> {
        let parsed = strict::<S>("spec", spec.clone(), problems)?;
        problems.extend(rules(&parsed).into_iter().map(|(path, problem)| (format!("spec.{path}"), problem)));
        Some(spec)
    }
    match kind {
        Kind::HARDWARE => typed::<HardwareSpec>(spec, problems, rules::hardware),
        Kind::TEMPLATE => typed::<TemplateSpec>(spec, problems, rules::template),
        Kind::NETWORK => typed::<NetworkSpec>(spec, problems, rules::network),
        Kind::SECRET => typed::<SecretSpec>(spec, problems, rules::secret),
        Kind::WORKFLOW => typed::<WorkflowSpec>(spec, problems, |_| Vec::new()),
        _ => Some(spec),
    }
}

/// A value with its type, or what is wrong with it. Unknown fields are told all at once, a wrong
/// type ends the reading.
fn strict<T: DeserializeOwned>(root: &str, value: Value, problems: &mut Vec<(String, String)>) -> Option<T> {
    let join = |path: String| match path.as_str() {
        "" | "." => root.to_owned(),
        _ => format!("{root}.{path}"),
    };
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let parsed = {
        let mut note = |path: serde_ignored::Path<'_>| unknown.push((located::bracketed(&path), fields::steps(&path)));
        let inner = serde_path_to_error::Deserializer::new(value, &mut track);
        serde_ignored::deserialize::<_, _, T>(inner, &mut note)
    };
    let before = problems.len();
    problems.extend(unknown.into_iter().map(|(path, steps)| (join(path), fields::no_such_field::<T>(&steps))));
    match parsed {
        Ok(parsed) => (problems.len() == before).then_some(parsed),
        Err(error) => {
            problems.push((join(track.path().to_string()), error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: dragonfly.computer/v1
kind: Template
metadata:
  name: debian
spec:
  actions:
    - name: write
      action: image2disk
      with:
        url: /images/debian.raw
---
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack-1 }
spec:
  interface: eth0
  dhcp: full
  subnet: 10.0.0.0/24
  pool: { start: 10.0.0.10, end: 10.0.0.99 }
";

    fn problems(text: &str) -> Vec<String> {
        parse(text).unwrap_err().problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_several_documents() {
        let all = parse(GOOD).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].record.kind, Kind::TEMPLATE);
        assert_eq!(all[0].line_of("spec.actions[0].with.url"), 10);
        assert_eq!(all[0].line_of("spec.actions[0].with.digest"), 9, "the field it is missing from");
        assert_eq!(all[1].line_of("spec.dhcp"), 17);
    }

    #[test]
    fn names_every_wrong_thing_with_its_line() {
        let text = GOOD.replace("action: image2disk", "acton: image2disk").replace("dhcp: full", "dhcp: always");
        let told = problems(&text);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0], "line 8: spec.actions[0].acton: there is no such field; did you mean `action`?");
        assert!(told[1].contains("missing field `action`"), "{told:?}");
        assert!(told[2].starts_with("line 17: spec.dhcp: unknown variant `always`"), "{told:?}");
    }

    #[test]
    fn refuses_what_yaml_would_let_pass() {
        assert!(problems("a: 1\na: 2\n")[0].contains("line"), "a key twice");
        assert!(problems("{")[0].contains("line"));
        assert_eq!(problems(""), ["there is no object in it"]);
        assert!(problems(&GOOD.replacen("spec:", "specs:", 1)).join("").contains("did you mean `spec`?"));
        assert!(problems(&GOOD.replace("kind: Network", "kind: Netwrok"))[0].ends_with("did you mean `Network`?"));
        assert!(problems("- 1")[0].contains("apiVersion"));
        assert!(problems("kind: Template")[0].contains("apiVersion is missing"));
        assert!(
            problems("apiVersion: dragonfly.computer/v1\nkind: Sheep")[0].starts_with("line 2: kind: there is no kind")
        );
        let deep = "[".repeat(5000);
        assert!(!problems(&deep).is_empty());
        let wide = format!("a: &a [{}]\nb: &b [{}]\nc: [{}]", "x,".repeat(90), "*a,".repeat(90), "*b,".repeat(90));
        assert!(!problems(&wide).is_empty(), "an alias bomb");
    }

    #[test]
    fn values_are_checked_beyond_their_type() {
        let network = |from: &str, to: &str| problems(&GOOD.replace(from, to)).join("\n");
        assert!(network("end: 10.0.0.99", "end: 10.0.1.99").contains("line 19: spec.pool.end"));
        assert!(network("end: 10.0.0.99", "end: 10.0.0.9").contains("before it starts"));
        assert!(network("name: rack-1", "name: Rack_1").contains("metadata.name"));
        let hardware = "apiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {name: a}\nspec:\n  bmc:\n    address: ipmi://root:calvin@10.0.0.1\n";
        assert!(problems(hardware)[0].starts_with("line 6: spec.bmc.address: a password does not belong here"));
        assert!(!problems(hardware)[0].contains("calvin"));
        let held = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: a}, spec: {hold: ' '}}";
        assert!(problems(held)[0].contains("spec.hold: say why"), "{:?}", problems(held));
    }
}
