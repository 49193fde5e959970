//! `export` and `import`: every object from one server to another, whatever their stores are.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use dragonfly_core::resource::{Kind, manifest};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::objects::{self, text};
use super::output::{self, Out};
use crate::files;
use crate::yaml::to_yaml;

/// Kinds in the order in which they need one another.
const ORDER: [Kind; 5] = [Kind::SECRET, Kind::NETWORK, Kind::TEMPLATE, Kind::HARDWARE, Kind::WORKFLOW];
/// How much is sent at a time, in bytes of JSON: the server takes a MiB, and one object may have half of it.
const BATCH: usize = 256 * 1024;

/// Writes every object as a stream of YAML documents that `import` takes.
pub(super) async fn export(client: &Client, out: &Out, kind: Option<&str>, file: Option<&Path>) -> anyhow::Result<()> {
    let kinds = match kind {
        Some(word) => vec![objects::kind(word)?],
        None => ORDER.to_vec(),
    };
    if let Some(file) = file {
        anyhow::ensure!(!file.exists(), "{} is there already: name a new file", file.display());
    }
    let mut stream = String::new();
    let mut count = 0u64;
    for kind in kinds {
        for object in objects::fetch(client, kind, &[], None).await? {
            if kind == Kind::SECRET {
                let name = text(&object, "/metadata/name");
                output::note(&format!(
                    "secret/{name} is left out: its values never leave the server; apply it anew where this goes"
                ));
                continue;
            }
            stream.push_str("---\n");
            stream.push_str(&to_yaml(&portable(kind, object)));
            count += 1;
        }
    }
    let Some(file) = file else { return Ok(out.raw(&stream)?) };
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || format!("{} cannot be written", file.display());
    let mut draft = tempfile::NamedTempFile::new_in(beside).with_context(written)?;
    draft.write_all(stream.as_bytes()).with_context(written)?;
    draft.as_file().sync_all().with_context(written)?;
    draft.persist_noclobber(file).with_context(written)?;
    files::sync_directory(file)?;
    Ok(out.line(&format!("{}  {count} objects", file.display()))?)
}

/// What another server can make use of: not what only this one gave, nor what it allowed.
fn portable(kind: Kind, mut object: Value) -> Value {
    let keep = |map: Option<&mut Map<String, Value>>, wanted: &dyn Fn(&str) -> bool| {
        if let Some(map) = map {
            map.retain(|field, _| wanted(field));
        }
    };
    keep(object.get_mut("metadata").and_then(Value::as_object_mut), &|field| {
        matches!(field, "name" | "labels" | "annotations" | "finalizers")
    });
    keep(object.get_mut("status").and_then(Value::as_object_mut), &|field| {
        !matches!(field, "authorisation" | "authorisationGeneration" | "session")
    });
    let says = object.get("status").and_then(Value::as_object).is_some_and(|status| !status.is_empty());
    let is_kept = says && matches!(kind, Kind::HARDWARE | Kind::WORKFLOW);
    keep(object.as_object_mut(), &|field| field != "status" || is_kept);
    object
}

/// Takes what `export` has written. All of it is looked at before any of it is written.
pub(super) async fn import(client: &Client, out: &Out, file: &Path, dry_run: bool) -> anyhow::Result<()> {
    let mut objects = if file == Path::new("-") {
        read(std::io::stdin().lock()).context("standard input")?
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        read(opened).with_context(|| file.display().to_string())?
    };
    if objects.is_empty() {
        bail!("{}: there is no object in it", file.display());
    }
    objects.sort_by_key(|object| {
        let kind = text(object, "/kind");
        ORDER.iter().position(|known| known.name == kind)
    });
    let batches = batches(objects);
    // A look first: nothing is written of a file that cannot be taken as a whole.
    let mut problems = Vec::new();
    for batch in &batches {
        for item in send(client, batch, true).await? {
            if let Some(problem) = item.get("problem").and_then(Value::as_str) {
                problems.push(format!("{}: {problem}", named(&item)));
            } else if dry_run {
                out.line(&format!("{} {} (dry run)", named(&item), text(&item, "/change")))?;
            }
        }
    }
    if !problems.is_empty() {
        bail!("{}: nothing was written\n  {}", file.display(), problems.join("\n  "));
    }
    if dry_run {
        return Ok(());
    }
    let mut held = Vec::new();
    for batch in &batches {
        for item in send(client, batch, false).await? {
            match item.get("problem").and_then(Value::as_str) {
                Some(problem) => problems.push(format!("{}: {problem}", named(&item))),
                None => out.line(&format!("{} {}", named(&item), text(&item, "/change")))?,
            }
            let is_machine = text(&item, "/kind") == Kind::HARDWARE.name;
            if is_machine && item.get("held") == Some(&Value::Bool(true)) {
                held.push(text(&item, "/name").to_owned());
            }
        }
    }
    if !held.is_empty() {
        let held = held.join(" ");
        output::note(&format!("held, since work was under way there: {held}"));
        output::note(&format!("look at them, then release them: dragonfly release {held}"));
    }
    if !problems.is_empty() {
        bail!("{}: not all of it was written\n  {}", file.display(), problems.join("\n  "));
    }
    Ok(())
}

fn named(item: &Value) -> String {
    format!("{}/{}", text(item, "/kind").to_lowercase(), text(item, "/name"))
}

async fn send(client: &Client, batch: &[Value], dry_run: bool) -> anyhow::Result<Vec<Value>> {
    let mut answer =
        client.post(&["dragonfly", "v1", "import"], &json!({ "objects": batch, "dryRun": dry_run })).await?;
    match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => bail!("the answer is not understood: is the server of this version?"),
    }
}

fn batches(objects: Vec<Value>) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut size = usize::MAX;
    for object in objects {
        let more = object.to_string().len();
        size = size.saturating_add(more);
        if size > BATCH {
            batches.push(Vec::new());
            size = more;
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(object);
        }
    }
    batches
}

/// The objects of a stream, one document at a time: however many there are, each is small.
fn read(from: impl Read) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    let (mut document, mut first, mut number) = (String::new(), 1, 0);
    let mut take = |document: &mut String, first: usize| -> anyhow::Result<()> {
        let found = manifest::documents(document).map_err(|error| {
            let problem = error.problems.first();
            let line = problem.map_or(0, |p| p.line).saturating_sub(1) + first;
            anyhow::anyhow!("line {line}: {}", problem.map_or_else(String::new, |p| p.problem.clone()))
        })?;
        objects.extend(found);
        document.clear();
        Ok(())
    };
    for line in BufReader::new(from).lines() {
        let line = line?;
        number += 1;
        if line.trim_end() == "---" {
            take(&mut document, first)?;
            first = number + 1;
        } else {
            document.push_str(&line);
            document.push('\n');
        }
    }
    take(&mut document, first)?;
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_fits_into_what_is_sent() {
        let object = |name: &str, note: &str| {
            json!({
                "apiVersion": "dragonfly.computer/v1", "kind": "Hardware",
                "metadata": { "name": name, "uid": "u", "labels": { "a": "1" }, "annotations": { "n": note } },
                "spec": { "macs": [] },
                "status": { "phase": "Ready", "authorisation": {}, "authorisationGeneration": 7, "session": {} },
            })
        };
        let all: Vec<Value> = ["\n---\n: #", "", "null", "1e3", "\u{e9}\t\u{7f}"].map(|note| object("m", note)).into();
        let all: Vec<Value> = all.into_iter().map(|object| portable(Kind::HARDWARE, object)).collect();
        assert_eq!(all[0]["status"], json!({ "phase": "Ready" }));
        assert!(all[0]["metadata"].get("uid").is_none());
        let stream: String = all.iter().map(|object| format!("---\n{}", to_yaml(object))).collect();
        assert_eq!(read(stream.as_bytes()).unwrap(), all);
        assert!(portable(Kind::NETWORK, object("n", "")).get("status").is_none());

        let large: Vec<Value> = (0..5).map(|n| object(&n.to_string(), &"x".repeat(100_000))).collect();
        let sizes: Vec<usize> = batches(large).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(batches(vec![object("m", &"x".repeat(500_000))]).len(), 1);
    }

    #[test]
    fn a_broken_document_is_told_by_its_line() {
        let error = read("a: 1\n---\nb: 1\nc: [\n".as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 4: ") || error.starts_with("line 5: "), "{error}");
    }
}
