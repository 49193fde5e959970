//! What is done to machines, and what is asked about one.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::resource::power::PowerPolicy;
use serde_json::{Value, json};

use super::args::{Format, Install};
use super::client::Client;
use super::output::{self, Out};
use crate::view;

const MACHINES: [&str; 3] = ["dragonfly", "v1", "machines"];

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

async fn verb(client: &Client, machine: &str, verb: &str, body: &Value) -> anyhow::Result<Value> {
    let path = [MACHINES[0], MACHINES[1], MACHINES[2], machine, verb];
    client.post(&path, body).await.map_err(|error| about(machine, error))
}

/// An error that says which machine it is about, once.
pub(super) fn about(machine: &str, error: anyhow::Error) -> anyhow::Error {
    let named = error.to_string().to_lowercase().contains(&machine.to_lowercase());
    if named { error } else { error.context(machine.to_owned()) }
}

/// Fails when one of several machines does not exist: nothing is done to the others then.
async fn all_known(client: &Client, machines: &[String]) -> anyhow::Result<()> {
    if machines.len() > 1 {
        for machine in machines {
            client.get(&[MACHINES[0], MACHINES[1], MACHINES[2], machine], &[]).await.context("nothing was done")?;
        }
    }
    Ok(())
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
    install: &Install,
) -> anyhow::Result<()> {
    all_known(client, machines).await?;
    let disks = &install.overwrite;
    let overwrite = overwrite(disks).unwrap_or_default();
    if overwrite != Overwrite::Blank && !install.yes {
        let which = if overwrite == Overwrite::All {
            "every disk that the template names".to_owned()
        } else {
            disks.join(", ")
        };
        ask(&format!("Data on {which} of {} will be lost. Go on?", machines.join(", ")))?;
    }
    let power = install.power.map(PowerPolicy::from);
    let body =
        json!({ "template": template, "values": values(&install.values)?, "overwrite": overwrite, "power": power });
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
    install: &Install,
) -> anyhow::Result<()> {
    all_known(client, machines).await?;
    let (overwrite, power) = (overwrite(&install.overwrite), install.power.map(PowerPolicy::from));
    let body =
        json!({ "template": template, "values": values(&install.values)?, "overwrite": overwrite, "power": power });
    if !install.yes {
        // Refusals come before the question, and all of the question on one stream.
        for machine in machines {
            let path = [MACHINES[0], MACHINES[1], MACHINES[2], machine, "reimage", "check"];
            let would = client.post(&path, &body).await.map_err(|error| about(machine, error))?;
            let whole = client.get(&[MACHINES[0], MACHINES[1], MACHINES[2], machine], &[]).await?;
            loses(&whole, text(&would, "/template")).iter().for_each(|line| output::note(line));
        }
        ask("What is on the disks that the template writes will be lost. Go on?")?;
    }
    for machine in machines {
        let workflow = verb(client, machine, "reimage", &body).await?;
        told(out, &workflow)?;
    }
    Ok(())
}

pub(super) fn ask(question: &str) -> anyhow::Result<()> {
    match output::confirm(question)? {
        Some(true) => Ok(()),
        Some(false) => bail!("nothing was done"),
        None => bail!("nobody can be asked here, so nothing was done; say --yes to go on without being asked"),
    }
}

/// What a reimage of a machine would do, and the disks that it has.
fn loses(whole: &Value, template: &str) -> Vec<String> {
    let carries = whole.pointer("/hardware/status/installed").and_then(Value::as_str);
    let instead = carries.map(|installed| format!(", which carries {installed} now")).unwrap_or_default();
    let mut lines = vec![format!("{template} would be installed on {}{instead}:", text(whole, "/machine/displayName"))];
    let disks = whole.pointer("/hardware/status/inventory/disks").and_then(Value::as_array);
    for disk in disks.into_iter().flatten() {
        let size = disk.get("size").and_then(Value::as_u64).map(view::disk_size).unwrap_or_default();
        let state = match disk.get("blank").and_then(Value::as_bool) {
            Some(true) => "blank",
            Some(false) => "carries data",
            None => "unknown content",
        };
        let (name, model, serial) = (text(disk, "/name"), text(disk, "/model"), text(disk, "/serial"));
        let words = [name, &size, model, serial, state].into_iter().filter(|word| !word.is_empty());
        lines.push(format!("  {}", words.collect::<Vec<_>>().join("  ")));
    }
    if lines.len() == 1 {
        lines.push("  its disks are not known: no agent has reported them".to_owned());
    }
    lines
}

fn told(out: &Out, workflow: &Value) -> anyhow::Result<()> {
    let (machine, name) = (text(workflow, "/spec/hardware"), text(workflow, "/metadata/name"));
    let template = text(workflow, "/spec/template");
    out.line(&format!("{machine} will run {template} (workflow {name}); follow it: dragonfly watch {machine}"))?;
    Ok(())
}

pub(super) async fn retry(client: &Client, out: &Out, machines: &[String]) -> anyhow::Result<()> {
    all_known(client, machines).await?;
    for machine in machines {
        let run = verb(client, machine, "retry", &json!({})).await?;
        out.line(&format!("{machine} gets another attempt"))?;
        // That the run is not what its template says by now.
        if let Some((_, besides)) = text(&run, "/status/message").split_once("; ") {
            output::note(besides);
        }
    }
    Ok(())
}

pub(super) async fn each(
    client: &Client,
    out: &Out,
    machines: &[String],
    word: &str,
    told: &str,
) -> anyhow::Result<()> {
    all_known(client, machines).await?;
    for machine in machines {
        verb(client, machine, word, &json!({})).await?;
        out.line(&format!("{machine} {told}"))?;
    }
    Ok(())
}

pub(super) async fn release(
    client: &Client,
    out: &Out,
    machines: &[String],
    question: Option<&str>,
) -> anyhow::Result<()> {
    match (machines, question) {
        (_, None) => each(client, out, machines, "release", "is released").await,
        ([machine], Some(question)) => answer(client, out, machine, question, ["release", "is who asked"]).await,
        _ => anyhow::bail!("--question is of one machine: answer for each by itself; nothing was done"),
    }
}

/// A person's answer to what is asked about a machine.
pub(super) async fn answer(
    client: &Client,
    out: &Out,
    machine: &str,
    question: &str,
    [word, told]: [&str; 2],
) -> anyhow::Result<()> {
    let path = [MACHINES[0], MACHINES[1], MACHINES[2], machine, word];
    let answered = client.post_with(&path, &[("question", question)]).await;
    answered.map_err(|error| about(machine, error))?;
    Ok(out.line(&format!("{machine} {told}"))?)
}

pub(super) async fn protect(client: &Client, out: &Out, machines: &[String], on: bool) -> anyhow::Result<()> {
    all_known(client, machines).await?;
    for machine in machines {
        verb(client, machine, "protect", &json!({ "on": on })).await?;
        out.line(&format!("{machine} is {}protected", if on { "" } else { "no longer " }))?;
    }
    Ok(())
}

pub(super) async fn hold(client: &Client, out: &Out, machines: &[String], reason: Option<&str>) -> anyhow::Result<()> {
    // The words of a reason, written as if they were machines, are the likeliest mistake.
    all_known(client, machines).await.with_context(|| {
        let first = machines.first().map_or("MACHINE", String::as_str);
        let words = machines.get(1..).map(|words| words.join(" ")).unwrap_or_default();
        format!("each word is a machine; a reason is given so: dragonfly hold {first} --reason \"{words}\"")
    })?;
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    for machine in machines {
        verb(client, machine, "hold", &body).await?;
        match reason {
            Some(reason) => out.line(&format!("{machine} is held: {reason}"))?,
            None => out.line(&format!("{machine} is held"))?,
        }
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
        out.line(&format!("{kind}: {status}{}", in_brackets(text(condition, "/message"))))?;
    }
    if let Some(run) = why.get("workflow").filter(|w| !w.is_null()) {
        let (name, state, message) = (text(run, "/name"), text(run, "/state"), text(run, "/message"));
        let step = run.get("step").and_then(Value::as_str).map(|s| format!(", step {s}")).unwrap_or_default();
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        out.line(&format!("Workflow {name} is {state}{step}{message}"))?;
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

fn in_brackets(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
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
    Ok(out.raw(&dragonfly_core::text::harmless_lines(&log))?)
}

pub(super) async fn login(client: &Client, out: &Out) -> anyhow::Result<()> {
    let answer = client.post(&["dragonfly", "v1", "login-link"], &json!({})).await?;
    let link = client.server().join(text(&answer, "/path")).context("the server's link is none")?;
    out.line(link.as_str())?;
    output::note("Open it in a browser: it signs in once, within 15 minutes.");
    Ok(())
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
    fn a_reimage_says_what_it_would_do_before_it_asks() {
        let whole = json!({
            "machine": { "displayName": "CensusAble" },
            "hardware": { "status": { "installed": "old", "inventory": { "disks": [
                { "name": "sda", "size": 480_000_000_000_u64, "serial": "S1", "blank": false },
            ] } } },
        });
        let said = loses(&whole, "debian");
        assert_eq!(said[0], "debian would be installed on CensusAble, which carries old now:");
        assert_eq!(said[1], "  sda  480 GB  S1  carries data");
        assert!(loses(&json!({}), "debian")[1].contains("not known"));
    }

    #[test]
    fn a_machine_is_named_once() {
        let said = |machine: &str, error: &'static str| format!("{:#}", about(machine, anyhow::anyhow!(error)));
        assert_eq!(said("DB-1", "machine `db-1` does not exist"), "machine `db-1` does not exist");
        assert_eq!(said("db-1", "values.x: unset"), "db-1: values.x: unset");
        assert_eq!(said("52:54:00:ab:cd:01", "db-1 is held"), "52:54:00:ab:cd:01: db-1 is held");
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
