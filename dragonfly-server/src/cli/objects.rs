//! get, describe, delete.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dragonfly_core::clock::{Clock as _, SystemClock, Timestamp};
use dragonfly_core::near::did_you_mean;
use dragonfly_core::resource::{Kind, manifest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::args::Format;
use super::client::Client;
use super::clusters;
use super::manifests;
use super::output::Out;
use super::rows::{rows, served};
use crate::view::{self, Machine};

/// The kind a person means; machines are hardware.
pub(super) fn kind(word: &str) -> anyhow::Result<Kind> {
    if word.eq_ignore_ascii_case("machines") || word.eq_ignore_ascii_case("machine") {
        return Ok(Kind::HARDWARE);
    }
    // `workflow` as well as `workflows`.
    let found = Kind::find(word);
    found.with_context(|| {
        let known = ["machines", "templates", "workflows", "networks", "secrets"];
        let meant = did_you_mean(word, known).unwrap_or_else(|| format!("there are: {}", known.join(", ")));
        format!("`{word}` is not a kind of object; {meant}")
    })
}

/// How many objects are asked for at a time.
const PAGE: &str = "500";

const GROUP: [&str; 3] = ["apis", "dragonfly.computer", "v1"];

/// An object's name as stored: a machine may be named in any spelling, or by MAC.
async fn stored_name(client: &Client, kind: Kind, word: &str) -> anyhow::Result<String> {
    if kind != Kind::HARDWARE {
        return Ok(word.to_owned());
    }
    let whole = client.get(&["dragonfly", "v1", "machines", word], &[]).await?;
    Ok(whole.pointer("/machine/name").and_then(Value::as_str).unwrap_or(word).to_owned())
}

fn only_one_way(selector: Option<&str>) -> anyhow::Result<()> {
    if selector.is_some() {
        bail!("give names or --selector, not both");
    }
    Ok(())
}

pub(super) async fn fetch(
    client: &Client,
    kind: Kind,
    names: &[String],
    selector: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    if !names.is_empty() {
        only_one_way(selector)?;
        let mut objects = Vec::new();
        for word in names {
            let name = stored_name(client, kind, word).await?;
            objects.push(client.get(&[GROUP[0], GROUP[1], GROUP[2], kind.plural, &name], &[]).await?);
        }
        return Ok(objects);
    }
    let mut objects = Vec::new();
    let mut from = String::new();
    loop {
        let query = [("limit", PAGE), ("continue", from.as_str()), ("labelSelector", selector.unwrap_or_default())];
        let mut page = client.get(&[GROUP[0], GROUP[1], GROUP[2], kind.plural], &query).await?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            objects.extend(items);
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(more) if !more.is_empty() => more.clone_into(&mut from),
            _ => return Ok(objects),
        }
    }
}

pub(super) async fn get(
    client: &Client,
    out: &Out,
    what: &str,
    names: &[String],
    selector: Option<&str>,
    format: Format,
) -> anyhow::Result<()> {
    if clusters::are_meant(what) {
        return clusters::get(client, out, names, selector, format).await;
    }
    let kind = kind(what)?;
    let table = matches!(format, Format::Table | Format::Wide);
    if table && kind == Kind::HARDWARE {
        return machines(client, out, names, selector, format == Format::Wide).await;
    }
    let objects = fetch(client, kind, names, selector).await?;
    if table {
        if objects.is_empty() {
            return Ok(out.line(&format!("No {} yet.", kind.plural))?);
        }
        let (head, rows) = rows(kind, &objects, format == Format::Wide, SystemClock.now());
        return Ok(out.table(&head, &rows)?);
    }
    // One that was asked for by name stands alone, as `apply` takes it.
    write(out, objects, names.len() == 1, format)
}

pub(super) fn write(out: &Out, mut objects: Vec<Value>, single: bool, format: Format) -> anyhow::Result<()> {
    let value = match objects.pop() {
        Some(one) if single && objects.is_empty() => one,
        last => {
            objects.extend(last);
            json!({ "apiVersion": "v1", "kind": "List", "items": objects })
        }
    };
    match format {
        Format::Json => out.json(&value)?,
        Format::Yaml => match value.get("items").and_then(Value::as_array) {
            // Documents and not a list: a person reads them, and `apply` takes them.
            Some(items) => {
                for item in items {
                    out.raw("---\n")?;
                    out.yaml(item)?;
                }
            }
            None => out.yaml(&value)?,
        },
        Format::Table | Format::Wide | Format::Name => {
            let one = [value];
            let items = one[0].get("items").and_then(Value::as_array).map_or(&one[..], Vec::as_slice);
            for item in items {
                let kind = text(item, "/kind").to_lowercase();
                out.line(&format!("{kind}/{}", text(item, "/metadata/name")))?;
            }
        }
    }
    Ok(())
}

fn read_line<T: DeserializeOwned>(part: Option<&mut Value>) -> anyhow::Result<T> {
    serde_json::from_value(part.map(Value::take).unwrap_or_default())
        .context("the server describes its machines in another way: is it of another version?")
}

/// Machines as their lines of a table: a fleet's inventories are not fetched for that.
async fn lines(client: &Client, names: &[String], selector: Option<&str>) -> anyhow::Result<Vec<Machine>> {
    const MACHINES: [&str; 3] = ["dragonfly", "v1", "machines"];
    let mut lines: Vec<Machine> = Vec::new();
    if !names.is_empty() {
        only_one_way(selector)?;
        for word in names {
            let mut whole = client.get(&[MACHINES[0], MACHINES[1], MACHINES[2], word], &[]).await?;
            lines.push(read_line(whole.get_mut("machine"))?);
        }
        return Ok(lines);
    }
    let mut from = String::new();
    loop {
        let query = [("limit", PAGE), ("continue", from.as_str()), ("labelSelector", selector.unwrap_or_default())];
        let mut page = client.get(&MACHINES, &query).await?;
        lines.extend(read_line::<Vec<Machine>>(page.get_mut("items"))?);
        match page.get("continue").and_then(Value::as_str) {
            Some(more) => more.clone_into(&mut from),
            None => return Ok(lines),
        }
    }
}

async fn machines(
    client: &Client,
    out: &Out,
    names: &[String],
    selector: Option<&str>,
    wide: bool,
) -> anyhow::Result<()> {
    let lines = lines(client, names, selector).await?;
    if lines.is_empty() && selector.is_some() {
        return Ok(out.line("No machine has these labels.")?);
    }
    if lines.is_empty() {
        out.line(
            "No machines yet. Boot one from the network; `dragonfly get networks` shows where they are answered.",
        )?;
        return Ok(());
    }
    let now = SystemClock.now();
    let rows: Vec<Vec<String>> = lines.iter().map(|machine| machine_row(machine, wide, now)).collect();
    let mut head = vec!["NAME", "PHASE", "PROGRESS", "TEMPLATE", "ADDRESS", "SEEN"];
    if wide {
        head.extend(["POWER", "MAC", "MODEL", "MESSAGE"]);
    }
    Ok(out.table(&head, &rows)?)
}

fn machine_row(machine: &Machine, wide: bool, now: Timestamp) -> Vec<String> {
    let dash = || "-".to_owned();
    let mut phase = view::phase_word(machine.phase).to_owned();
    if machine.adopted {
        phase.push_str(", adopted");
    }
    if machine.protected {
        phase.push_str(", protected");
    }
    if machine.conflict.is_some() {
        phase.push_str(", in conflict");
    }
    if machine.hold.is_some() && machine.phase != Some(dragonfly_core::lifecycle::Phase::Held) {
        phase.push_str(", held");
    }
    let mut row = vec![
        machine.display_name.clone(),
        phase,
        progress(machine).unwrap_or_else(dash),
        machine.template.clone().unwrap_or_else(dash),
        machine.address.map_or_else(dash, |a| a.to_string()),
        machine.last_seen.map_or_else(dash, |then| format!("{} ago", view::ago(now, then))),
    ];
    if wide {
        row.push(machine.power.clone().unwrap_or_else(dash));
        row.push(machine.macs.first().map_or_else(dash, ToString::to_string));
        row.push(if machine.model.is_empty() { dash() } else { machine.model.clone() });
        row.push(machine.message.clone());
    }
    row
}

/// `43% image2disk 412 MiB of 2.0 GiB`, while there is something to tell.
pub(super) fn progress(machine: &Machine) -> Option<String> {
    use dragonfly_core::lifecycle::Phase as P;
    let run = machine.run.as_ref()?;
    if !matches!(machine.phase, Some(P::Assigned | P::Provisioning | P::Error)) {
        return None;
    }
    let step = run.step.as_deref().map(|s| format!(" {s}")).unwrap_or_default();
    let detail = run.progress.map(|p| format!(" {}", view::progress_words(p))).unwrap_or_default();
    Some(format!("{}%{step}{detail}", run.percent))
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) async fn describe(client: &Client, out: &Out, what: &str, name: &str) -> anyhow::Result<()> {
    let kind = kind(what)?;
    let name = stored_name(client, kind, name).await?;
    let object = client.get(&[GROUP[0], GROUP[1], GROUP[2], kind.plural, &name], &[]).await?;
    if kind == Kind::HARDWARE {
        super::verbs::why(client, out, &name, Format::Table).await?;
        out.line("")?;
    }
    if kind == Kind::NETWORK {
        let (served, why) = served(&object);
        out.line(&format!("Served: {served} ({why})"))?;
        out.line("")?;
    }
    Ok(out.yaml(&object)?)
}

pub(super) async fn delete(
    client: &Client,
    out: &Out,
    what: Option<&str>,
    names: &[String],
    files: &[PathBuf],
) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    if let Some(what) = what {
        let kind = kind(what)?;
        for word in names {
            wanted.push((kind, stored_name(client, kind, word).await?));
        }
    }
    for (name, text) in manifests::read(files)? {
        let inside = manifest::parse(&text).context(name)?;
        wanted.extend(inside.into_iter().map(|m| (m.record.kind, m.record.metadata.name)));
    }
    for (kind, name) in wanted {
        client.delete(&[GROUP[0], GROUP[1], GROUP[2], kind.plural, &name]).await?;
        out.line(&format!("{}/{name} deleted", kind.name.to_lowercase()))?;
    }
    Ok(())
}

/// Deletes the machines that nobody has claimed and that are silent.
pub(super) async fn delete_unclaimed(client: &Client, out: &Out, what: &str) -> anyhow::Result<()> {
    if kind(what)? != Kind::HARDWARE {
        bail!("--unclaimed is for machines: dragonfly delete machines --unclaimed");
    }
    let now = SystemClock.now();
    for machine in lines(client, &[], None).await?.iter().filter(|machine| is_left(machine, now)) {
        client.delete(&[GROUP[0], GROUP[1], GROUP[2], Kind::HARDWARE.plural, &machine.name]).await?;
        out.line(&format!("hardware/{} deleted", machine.name))?;
    }
    Ok(())
}

fn is_left(machine: &Machine, now: Timestamp) -> bool {
    const SILENT: Duration = Duration::from_secs(3600);
    machine.unclaimed && machine.last_seen.is_none_or(|seen| now.since(seen) >= SILENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_in_every_spelling() {
        for word in ["machines", "machine", "hardware", "hw", "Hardware"] {
            assert_eq!(kind(word).unwrap(), Kind::HARDWARE, "{word}");
        }
        assert_eq!(kind("tpl").unwrap(), Kind::TEMPLATE);
        assert!(kind("pods").unwrap_err().to_string().contains("templates"));
        assert!(kind("templets").unwrap_err().to_string().ends_with("did you mean `templates`?"));
    }
}
