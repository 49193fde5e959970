//! What is done to machines, and what is asked about one.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use dragonfly_core::resource::hardware::Overwrite;
use serde_json::{Value, json};

use super::args::Format;
use super::client::Client;
use super::output::{self, Out};
use crate::view;

const MACHINES: [&str; 3] = ["dragonfly", "v1", "machines"];

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

async fn verb(client: &Client, machine: &str, verb: &str, body: &Value) -> anyhow::Result<Value> {
    let path = [MACHINES[0], MACHINES[1], MACHINES[2], machine, verb];
    client.post(&path, body).await.with_context(|| machine.to_owned())
}

/// `KEY=VALUE`, several of them.
fn values(words: &[String]) -> anyhow::Result<BTreeMap<&str, &str>> {
    words
        .iter()
        .map(|word| {
            word.split_once('=').filter(|(key, _)| !key.is_empty()).context(format!("--value {word}: write KEY=VALUE"))
        })
        .collect()
}

fn overwrite(words: &[String]) -> Option<Overwrite> {
    match words {
        [] => None,
        all if all.iter().any(|word| word == "all") => Some(Overwrite::All),
        disks => Some(Overwrite::Disks(disks.to_vec())),
    }
}

pub(super) async fn assign(
    client: &Client,
    out: &Out,
    machines: &[String],
    template: &str,
    given: &[String],
    disks: &[String],
    yes: bool,
) -> anyhow::Result<()> {
    let overwrite = overwrite(disks).unwrap_or_default();
    if overwrite != Overwrite::Blank && !yes {
        let which = if overwrite == Overwrite::All {
            "every disk that the template names".to_owned()
        } else {
            disks.join(", ")
        };
        ask(&format!("Data on {which} of {} will be lost. Go on?", machines.join(", ")))?;
    }
    let body = json!({ "template": template, "values": values(given)?, "overwrite": overwrite });
    for machine in machines {
        let workflow = verb(client, machine, "assign", &body).await?;
        told(out, &workflow)?;
    }
    Ok(())
}

pub(super) async fn reimage(
    client: &Client,
    out: &Out,
    machines: &[String],
    template: Option<&str>,
    given: &[String],
    disks: &[String],
    yes: bool,
) -> anyhow::Result<()> {
    if !yes {
        for machine in machines {
            show_disks(client, out, machine).await?;
        }
        ask(&format!("What is on the disks of {} will be lost. Go on?", machines.join(", ")))?;
    }
    let body = json!({ "template": template, "values": values(given)?, "overwrite": overwrite(disks) });
    for machine in machines {
        let workflow = verb(client, machine, "reimage", &body).await?;
        told(out, &workflow)?;
    }
    Ok(())
}

fn ask(question: &str) -> anyhow::Result<()> {
    if output::confirm(question)? {
        return Ok(());
    }
    bail!("nothing was done; say --yes to go on without being asked")
}

async fn show_disks(client: &Client, out: &Out, machine: &str) -> anyhow::Result<()> {
    let whole = client.get(&[MACHINES[0], MACHINES[1], MACHINES[2], machine], &[]).await?;
    out.line(&format!("{}:", text(&whole, "/machine/displayName")))?;
    let disks = whole.pointer("/hardware/status/inventory/disks").and_then(Value::as_array);
    for disk in disks.map(Vec::as_slice).unwrap_or_default() {
        let size = disk.get("size").and_then(Value::as_u64).map(view::disk_size).unwrap_or_default();
        let state = match disk.get("blank").and_then(Value::as_bool) {
            Some(true) => "blank",
            Some(false) => "carries data",
            None => "unknown content",
        };
        let (name, model, serial) = (text(disk, "/name"), text(disk, "/model"), text(disk, "/serial"));
        out.line(&format!("  {name}  {size}  {model}  {serial}  {state}"))?;
    }
    Ok(())
}

fn told(out: &Out, workflow: &Value) -> anyhow::Result<()> {
    let (machine, name) = (text(workflow, "/spec/hardware"), text(workflow, "/metadata/name"));
    let template = text(workflow, "/spec/template");
    out.line(&format!("{machine} will run {template} (workflow {name}); follow it: dragonfly watch {machine}"))?;
    Ok(())
}

pub(super) async fn each(
    client: &Client,
    out: &Out,
    machines: &[String],
    word: &str,
    told: &str,
) -> anyhow::Result<()> {
    for machine in machines {
        verb(client, machine, word, &json!({})).await?;
        out.line(&format!("{machine} {told}"))?;
    }
    Ok(())
}

pub(super) async fn protect(client: &Client, out: &Out, machines: &[String], on: bool) -> anyhow::Result<()> {
    for machine in machines {
        verb(client, machine, "protect", &json!({ "on": on })).await?;
        out.line(&format!("{machine} is {}protected", if on { "" } else { "no longer " }))?;
    }
    Ok(())
}

pub(super) async fn hold(client: &Client, out: &Out, machines: &[String], reason: &str) -> anyhow::Result<()> {
    for machine in machines {
        verb(client, machine, "hold", &json!({ "reason": reason })).await?;
        out.line(&format!("{machine} is held: {reason}"))?;
    }
    Ok(())
}

pub(super) async fn why(client: &Client, out: &Out, machine: &str, format: Format) -> anyhow::Result<()> {
    let why = client.get(&[MACHINES[0], MACHINES[1], MACHINES[2], machine, "why"], &[]).await?;
    match format {
        Format::Json => return Ok(out.json(&why)?),
        Format::Yaml => return Ok(out.yaml(&why)?),
        Format::Name => return Ok(out.line(text(&why, "/machine"))?),
        Format::Table | Format::Wide => {}
    }
    let phase = why.get("phase").and_then(Value::as_str).unwrap_or("Unseen");
    out.line(&format!("{} is {phase}: {}", text(&why, "/machine"), text(&why, "/message")))?;
    out.line(&format!("Boots now: {} ({})", fate(&why["decision"]), text(&why, "/decision/reason")))?;
    for condition in why.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        out.line(&format!("{kind}: {status} ({})", text(condition, "/message")))?;
    }
    if let Some(run) = why.get("workflow").filter(|w| !w.is_null()) {
        let (name, state, message) = (text(run, "/name"), text(run, "/state"), text(run, "/message"));
        let step = run.get("step").and_then(Value::as_str).map(|s| format!(", step {s}")).unwrap_or_default();
        out.line(format!("Workflow {name}: {state}{step} {message}").trim_end())?;
    }
    for cause in why.get("causes").and_then(Value::as_array).into_iter().flatten() {
        out.line(&format!("Cause: {} - {}", text(cause, "/name"), text(cause, "/says")))?;
        for seen in cause.get("evidence").and_then(Value::as_array).into_iter().flatten() {
            let time = to_millis(text(seen, "/time"));
            let time = if text(seen, "/time").is_empty() { String::new() } else { format!("{time}  ") };
            out.line(&format!("  seen: {time}{}", text(seen, "/words")))?;
        }
        out.line(&format!("  do: {}", text(cause, "/next")))?;
    }
    if let Some(waits) = why.get("waits").filter(|w| !w.is_null()) {
        let until = waits.get("until").and_then(Value::as_str).map(|t| format!(", until {t}")).unwrap_or_default();
        out.line(&format!("Waits for: {}{until} ({})", text(waits, "/owner"), text(waits, "/cause")))?;
    }
    let next: Vec<&str> =
        why.get("next").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !next.is_empty() {
        out.line(&format!("Next: {}", next.join("; or ")))?;
    }
    Ok(())
}

/// A decision's fate is a word, or an object with the word as its key.
fn fate(decision: &Value) -> String {
    const FATES: [&str; 5] = ["discover", "image", "local", "hold", "chain"];
    let word = FATES.into_iter().find(|word| decision.get(word).is_some());
    word.or_else(|| decision.get("fate").and_then(Value::as_str)).unwrap_or("unknown").to_owned()
}

/// One event as a line.
pub(super) fn event_line(event: &Value) -> String {
    let time = to_millis(text(event, "/time"));
    let (machine, kind, message) = (text(event, "/machine"), text(event, "/type"), text(event, "/message"));
    format!("{time}  {machine:<28}  {kind:<20}  {message}").trim_end().to_owned()
}

/// To the millisecond: what firmware does is told apart there.
pub(super) fn to_millis(time: &str) -> String {
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{seconds}.{:0<3}", fraction.get(..3).unwrap_or(fraction))
}

pub(super) async fn log(client: &Client, out: &Out, machine: &str) -> anyhow::Result<()> {
    let log = client.text(&[MACHINES[0], MACHINES[1], MACHINES[2], machine, "log"]).await?;
    Ok(out.raw(&output::harmless_lines(&log))?)
}

pub(super) async fn login(client: &Client, out: &Out) -> anyhow::Result<()> {
    let answer = client.post(&["dragonfly", "v1", "login-link"], &json!({})).await?;
    let link = client.server().join(text(&answer, "/path")).context("the server's link is none")?;
    Ok(out.line(link.as_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_disks_as_typed() {
        let words = ["a=b=c".to_owned(), "d=".to_owned()];
        assert_eq!(values(&words).unwrap(), BTreeMap::from([("a", "b=c"), ("d", "")]));
        assert!(values(&["ab".to_owned()]).unwrap_err().to_string().contains("KEY=VALUE"));
        assert_eq!(overwrite(&[]), None);
        assert_eq!(overwrite(&["all".to_owned()]), Some(Overwrite::All));
        assert_eq!(overwrite(&["sda".to_owned()]), Some(Overwrite::Disks(vec!["sda".to_owned()])));
    }

    #[test]
    fn every_fate_is_read_as_the_server_writes_it() {
        use dragonfly_core::boot::{Decision, Fate};
        let fates = [
            Fate::Discover,
            Fate::Image { workflow: "w".into() },
            Fate::Local,
            Fate::Hold,
            Fate::Chain { url: "http://a/b".parse().unwrap() },
        ];
        for wanted in fates {
            let decision = Decision {
                fate: wanted.clone(),
                reason: "r".into(),
                machine: None,
                address: None,
                hostname: None,
                console: None,
            };
            assert_eq!(fate(&serde_json::to_value(&decision).unwrap()), wanted.word());
        }
    }
}
