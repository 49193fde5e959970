//! `apply`: texts of objects one after the other, and what came of each object when not all could be written.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use dragonfly_core::resource::MAX_OBJECT_BYTES;
use serde_json::{Value, json};

use super::args::Format;
use super::client::{Client, Refused, may_be_done};
use super::manifests;
use super::objects::{self, text};
use super::output::{self, Out};
use crate::http::{BODY_LIMIT, chain};

/// That it is safe to try again, which nobody should have to guess.
const AGAIN: &str = "Run the same again when that is mended: what is written already stays as it is.";

/// Sends one text. What came of each of its objects.
pub(super) async fn send(client: &Client, manifests: String) -> anyhow::Result<Vec<Value>> {
    if manifests.len() > BODY_LIMIT {
        // A server that refuses it may hang up before its answer is read.
        bail!(
            "it has {} bytes, and a server takes {BODY_LIMIT} at a time: put its objects into several files. One object \
             may have {MAX_OBJECT_BYTES}",
            manifests.len()
        );
    }
    let mut answer = client.post_text(&["dragonfly", "v1", "apply"], manifests).await?;
    Ok(match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    })
}

pub(super) async fn apply(client: &Client, out: &Out, files: &[PathBuf], format: Format) -> anyhow::Result<()> {
    let is_table = matches!(format, Format::Table | Format::Wide);
    let mut texts = manifests::read(files)?.into_iter();
    let mut written = Vec::new();
    let mut broken = None;
    for (file, manifests) in texts.by_ref() {
        let (items, error) = match send(client, manifests).await {
            Ok(items) => (items, None),
            Err(error) => (items_of(&error).to_vec(), Some(error)),
        };
        if is_table {
            for item in items.iter().filter(|item| is_written(item)) {
                let kind = text(item, "/object/kind").to_lowercase();
                out.line(&format!("{kind}/{} {}", text(item, "/object/metadata/name"), text(item, "/change")))?;
            }
        }
        warnings(&items).iter().for_each(|warning| output::note(warning));
        written.extend(items.into_iter().filter_map(|mut item| item.get_mut("object").map(Value::take)));
        if let Some(error) = error {
            broken = Some(Broken { file, error });
            break;
        }
    }
    let not_tried: Vec<String> = texts.map(|(file, _)| file).collect();
    // One document, however many files: programs read it.
    let said = broken.as_ref().map(|broken| broken.words(!written.is_empty(), &not_tried));
    let is_silent = is_table || (broken.is_some() && written.is_empty());
    if let Some(broken) = broken.filter(|_| format == Format::Json) {
        out.json(&json!({
            "apiVersion": "v1", "kind": "List", "items": written, "failed": broken.failed(), "notTried": not_tried,
        }))?;
    } else if !is_silent {
        let single = written.len() == 1;
        objects::write(out, written, single, format)?;
    }
    match said {
        None => Ok(()),
        Some(said) => Err(anyhow!(said)),
    }
}

/// The file at which it ended, and why.
struct Broken {
    file: String,
    error: anyhow::Error,
}

impl Broken {
    /// What is not written and why, for programs.
    fn failed(&self) -> Vec<Value> {
        let items = items_of(&self.error);
        if items.is_empty() {
            let mut whole = json!({ "file": self.file, "problem": chain(self.error.as_ref()) });
            if may_be_done(&self.error) {
                whole["written"] = "unknown".into();
            }
            return vec![whole];
        }
        let one = |item: &Value| {
            let field = |name| text(item, name);
            json!({ "file": self.file, "kind": field("/kind"), "name": field("/name"), "problem": field("/problem") })
        };
        items.iter().filter(|item| !is_written(item)).map(one).collect()
    }

    /// The same for people, and what is to be done.
    fn words(&self, some_written: bool, not_tried: &[String]) -> String {
        let mut lines = vec![format!("{}: {}", self.file, why(&self.error))];
        let is_told = !items_of(&self.error).is_empty() || may_be_done(&self.error);
        if !is_told && (some_written || !not_tried.is_empty()) {
            lines.push(format!("Nothing of {} was written.", self.file));
        }
        if !not_tried.is_empty() {
            lines.push(format!("Not tried: {}.", not_tried.join(", ")));
        }
        if is_told || some_written {
            lines.push(AGAIN.to_owned());
        }
        lines.join("\n")
    }
}

/// The error of a text that others than `apply` have sent, with how much of it was written.
pub(super) fn explained(file: Option<&str>, error: anyhow::Error) -> anyhow::Error {
    let place = file.map(|file| format!("{file}: ")).unwrap_or_default();
    if items_of(&error).is_empty() && !may_be_done(&error) {
        return error.context(format!("{place}nothing was done"));
    }
    anyhow!("{place}{}\n{AGAIN}", why(&error))
}

/// What came of each object, where the server failed at some and says so.
fn items_of(error: &anyhow::Error) -> &[Value] {
    error.downcast_ref::<Refused>().map(|refused| refused.items.as_slice()).unwrap_or_default()
}

fn is_written(item: &Value) -> bool {
    item.get("object").is_some()
}

/// Why a text is not written, or which objects of it are not.
fn why(error: &anyhow::Error) -> String {
    let items = items_of(error);
    if items.is_empty() {
        let unknown = if may_be_done(error) { "\nIt is not known what of it was written." } else { "" };
        return format!("{}{unknown}", chain(error.as_ref()));
    }
    // A reason that many share is told once.
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for item in items.iter().filter(|item| !is_written(item)) {
        let name = format!("{}/{}", text(item, "/kind").to_lowercase(), text(item, "/name"));
        let problem = text(item, "/problem");
        match reasons.iter_mut().find(|(reason, _)| *reason == problem) {
            Some((_, names)) => names.push(name),
            None => reasons.push((problem, vec![name])),
        }
    }
    let failed: usize = reasons.iter().map(|(_, names)| names.len()).sum();
    let rest = match items.len() - failed {
        0 => String::new(),
        rest => format!(" ({rest} written)"),
    };
    let mut lines = vec![format!("{failed} of {} objects were not written{rest}", items.len())];
    lines.extend(reasons.iter().map(|(reason, names)| format!("  {}: {reason}", names.join(", "))));
    lines.join("\n")
}

/// What a person should know of objects that were taken all the same. It goes to standard error, whatever the format.
pub(super) fn warnings(items: &[Value]) -> Vec<String> {
    let mut all = Vec::new();
    for item in items {
        let name = format!("{}/{}", text(item, "/object/kind").to_lowercase(), text(item, "/object/metadata/name"));
        let given = item.get("warnings").and_then(Value::as_array).into_iter().flatten();
        all.extend(given.filter_map(Value::as_str).map(|warning| format!("warning: {name}: {warning}")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(status: u16, items: Value) -> Broken {
        let items = items.as_array().cloned().unwrap_or_default();
        Broken { file: "a.yaml".to_owned(), error: Refused::of(status, "the disk is full", items).into() }
    }

    #[test]
    fn what_was_written_and_what_was_not_is_told_with_what_to_do() {
        let one = |name: &str| json!({ "kind": "Network", "name": name, "problem": "no room" });
        let part = || json!([{ "change": "created", "object": { "kind": "Network" } }, one("b"), one("c")]);
        let rest = ["b.yaml".to_owned(), "c.yaml".to_owned()];
        let table: [(Broken, bool, &[String], String); 5] = [
            (broken(422, json!([])), false, &[], "a.yaml: the disk is full".to_owned()),
            (
                broken(422, json!([])),
                true,
                &rest,
                format!(
                    "a.yaml: the disk is full\nNothing of a.yaml was written.\nNot tried: b.yaml, c.yaml.\n{AGAIN}"
                ),
            ),
            (
                broken(502, json!([])),
                false,
                &[],
                format!("a.yaml: the disk is full\nIt is not known what of it was written.\n{AGAIN}"),
            ),
            (
                broken(503, part()),
                true,
                &rest[..1],
                format!(
                    "a.yaml: 2 of 3 objects were not written (1 written)\n  network/b, network/c: no room\n\
                     Not tried: b.yaml.\n{AGAIN}"
                ),
            ),
            (
                broken(409, json!([one("b")])),
                false,
                &[],
                format!("a.yaml: 1 of 1 objects were not written\n  network/b: no room\n{AGAIN}"),
            ),
        ];
        for (broken, some_written, not_tried, wanted) in table {
            assert_eq!(broken.words(some_written, not_tried), wanted);
        }
        let failed = broken(503, part()).failed();
        assert_eq!(failed[1], json!({ "file": "a.yaml", "kind": "Network", "name": "c", "problem": "no room" }));
        assert_eq!(failed.len(), 2);
        assert_eq!(broken(502, json!([])).failed()[0]["written"], "unknown");
        assert_eq!(broken(422, json!([])).failed(), [json!({ "file": "a.yaml", "problem": "the disk is full" })]);
    }

    #[test]
    fn nothing_is_said_to_be_done_only_where_that_is_so() {
        let said = |broken: Broken| format!("{:#}", explained(Some("rack.csv"), broken.error));
        assert_eq!(said(broken(422, json!([]))), "rack.csv: nothing was done: the disk is full");
        let item = json!([{ "kind": "Hardware", "name": "db-1", "problem": "no room" }]);
        for unsure in [broken(503, json!([])), broken(503, item)] {
            let said = said(unsure);
            assert!(!said.contains("nothing was done") && said.ends_with(AGAIN), "{said}");
        }
    }
}
