//! `dragonfly import`: machines that somebody expects, before any of them was seen.

mod foreign;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::apply;
use super::client::{Call, Client, is_not_there};
use super::objects::text;
use super::output::{self, Out};
pub(super) use foreign::{Foreign, foreign};
use rows::Expected;

/// The largest file: some hundred thousand machines.
const LARGEST: u64 = 32 << 20;
/// How much of their text goes out at a time, in bytes: a line of the file for each row before them comes to it.
const PART: usize = 256 << 10;
/// How many machines are talked about at a time.
const AT_ONCE: usize = 64;
/// How often it is looked who has appeared.
const LOOK: Duration = Duration::from_secs(2);

/// What is done with the machines of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Boot those that have a controller from the network.
    pub(super) power_on: bool,
    /// Wait so many seconds for them to appear.
    pub(super) wait: Option<u64>,
    /// Only say what would be done.
    pub(super) dry_run: bool,
}

pub(super) async fn machines(client: &Client, out: &Out, file: &Path, wish: Wish) -> anyhow::Result<()> {
    let text = whole(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let expected = rows::read(&text)
        .map_err(|problems| anyhow::anyhow!("{}: nothing was done\n  {}", file.display(), problems.join("\n  ")))?;
    // A machine that is known already is the one that is meant, under whatever name.
    let looked = stream::iter(expected.into_iter().map(async |row| known(client, row).await));
    let looked: Vec<anyhow::Result<(Expected, bool)>> = looked.buffered(AT_ONCE).collect().await;
    let all = looked.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for warning in without_secret(client, &all).await? {
        output::note(&warning);
    }
    if wish.dry_run {
        for (row, is_known) in &all {
            out.line(&format!("{}: {}", row.name, if *is_known { "is known already" } else { "would be created" }))?;
        }
        return Ok(());
    }
    let new: Vec<&Expected> = all.iter().filter(|(_, is_known)| !is_known).map(|(row, _)| row).collect();
    let mut created = 0;
    for part in parts(&new) {
        // All of a part is checked before any of it is written.
        apply::send(client, in_their_lines(part)).await.map_err(|error| {
            let error = apply::explained(Some(&file.display().to_string()), error);
            if created == 0 { error } else { error.context(format!("{created} were created; of the rest")) }
        })?;
        created += part.len();
    }
    for (row, _) in all.iter().filter(|(_, is_known)| *is_known) {
        if let Some(bmc) = &row.bmc {
            let body = json!({ "address": bmc, "secret": row.secret });
            client.slow(Call::Put, &path(&row.name, &["bmc"]), Some(&body)).await.with_context(|| row.name.clone())?;
        }
    }
    out.line(&format!("{} created, {} known already", new.len(), all.len() - new.len()))?;
    let rows: Vec<Expected> = all.into_iter().map(|(row, _)| row).collect();
    let unpowered = if wish.power_on { power_on(client, out, &rows).await? } else { 0 };
    let missing = match wish.wait {
        Some(seconds) => wait(client, out, &rows, Duration::from_secs(seconds)).await?,
        None => 0,
    };
    match (unpowered, missing) {
        (0, 0) => Ok(()),
        (failed, 0) => bail!("{failed} could not be booted"),
        (0, missing) => bail!("{missing} of {} did not appear", rows.len()),
        (failed, missing) => bail!("{failed} could not be booted, {missing} of {} did not appear", rows.len()),
    }
}

fn whole(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(LARGEST).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn path<'a>(machine: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["dragonfly", "v1", "machines", machine], rest].concat()
}

/// The row under the name that its machine has, if it is known by its card or its name.
async fn known(client: &Client, row: Expected) -> anyhow::Result<(Expected, bool)> {
    let words = row.mac.map(|mac| mac.to_string()).into_iter().chain([row.name.clone()]);
    for word in words {
        match client.get(&path(&word, &[]), &[]).await {
            Ok(whole) => {
                let name = whole.pointer("/machine/name").and_then(Value::as_str).unwrap_or(&row.name).to_owned();
                return Ok((Expected { name, ..row }, true));
            }
            Err(error) if is_not_there(&error) => {}
            Err(error) => return Err(error.context(format!("line {}", row.line))),
        }
    }
    Ok((row, false))
}

/// A warning for each Secret that rows name and that is not there, with their lines.
async fn without_secret(client: &Client, all: &[(Expected, bool)]) -> anyhow::Result<Vec<String>> {
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (row, _) in all {
        if let Some(secret) = &row.secret {
            lines.entry(secret).or_default().push(row.line.to_string());
        }
    }
    let mut warnings = Vec::new();
    for (secret, lines) in lines {
        let (word, lines) = (if lines.len() == 1 { "line" } else { "lines" }, lines.join(", "));
        match client.get(&["apis", "dragonfly.computer", "v1", "secrets", secret], &[]).await {
            Ok(_) => {}
            Err(error) if is_not_there(&error) => warnings.push(format!(
                "warning: {word} {lines}: there is no Secret `{secret}`; nobody can log in to these controllers until one \
                 with username and password is applied"
            )),
            Err(error) => return Err(error.context(format!("{word} {lines}"))),
        }
    }
    Ok(warnings)
}

/// The same rows in parts that a server takes at once.
fn parts<'a, 'b>(rows: &'a [&'b Expected]) -> Vec<&'a [&'b Expected]> {
    let (mut parts, mut rest, mut bytes, mut taken) = (Vec::new(), rows, 0, 0);
    for row in rows {
        let more = object(row).to_string().len();
        if taken > 0 && bytes + more > PART {
            let (part, after) = rest.split_at(taken);
            parts.push(part);
            (rest, bytes, taken) = (after, 0, 0);
        }
        (bytes, taken) = (bytes + more, taken + 1);
    }
    parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
    parts
}

/// One document for each, on the line that it has in the file: what is wrong with it is told with that line.
fn in_their_lines(rows: &[&Expected]) -> String {
    let (mut text, mut line) = (String::new(), 1);
    for row in rows {
        while line < row.line {
            text.push('\n');
            line += 1;
        }
        text.push_str(&format!("--- {}\n", object(row)));
        line += 1;
    }
    text
}

fn object(row: &Expected) -> Value {
    let mut spec = json!({});
    if let Some(spec) = spec.as_object_mut() {
        if let Some(mac) = row.mac {
            spec.insert("macs".to_owned(), json!([mac]));
        }
        if let Some(serial) = &row.serial {
            spec.insert("serial".to_owned(), json!(serial));
        }
        if let Some(bmc) = &row.bmc {
            let secret = row.secret.as_ref().map(|name| json!({ "name": name }));
            let mut value = json!({ "address": bmc });
            if let (Some(secret), Some(value)) = (secret, value.as_object_mut()) {
                value.insert("secretRef".to_owned(), secret);
            }
            spec.insert("bmc".to_owned(), value);
        }
    }
    json!({
        "apiVersion": "dragonfly.computer/v1",
        "kind": "Hardware",
        "metadata": { "name": row.name, "labels": row.labels },
        "spec": spec,
    })
}

/// Boots those that can be booted and have not been seen. How many could not be.
async fn power_on(client: &Client, out: &Out, rows: &[Expected]) -> anyhow::Result<usize> {
    let body = json!({ "operation": "network-boot" });
    let boots = rows.iter().filter(|row| row.bmc.is_some()).map(async |row| {
        if appeared(client, &row.name).await? {
            return Ok(None);
        }
        let done = client.slow(Call::Post, &path(&row.name, &["power"]), Some(&body)).await;
        anyhow::Ok(Some((row, done)))
    });
    let mut boots = stream::iter(boots).buffer_unordered(AT_ONCE);
    let (mut done, mut failed) = (0, 0);
    while let Some(booted) = boots.next().await {
        match booted? {
            None => {}
            Some((_, Ok(_))) => done += 1,
            Some((row, Err(error))) => {
                failed += 1;
                output::complain(&error.context(format!("line {}, {}", row.line, row.name)));
            }
        }
    }
    out.line(&format!("{done} boot from the network"))?;
    Ok(failed)
}

async fn appeared(client: &Client, name: &str) -> anyhow::Result<bool> {
    let whole = client.get(&path(name, &[]), &[]).await?;
    Ok(whole.pointer("/machine/phase").is_some_and(|phase| !phase.is_null()))
}

/// Waits until all have been seen, telling each; names those that were not. How many that are.
async fn wait(client: &Client, out: &Out, rows: &[Expected], time: Duration) -> anyhow::Result<usize> {
    let end = Instant::now() + time;
    let mut missing: Vec<&Expected> = rows.iter().collect();
    loop {
        let looked = stream::iter(missing.iter().map(async |row| (*row, appeared(client, &row.name).await)));
        let looked: Vec<(&Expected, anyhow::Result<bool>)> = looked.buffered(AT_ONCE).collect().await;
        missing.clear();
        for (row, is_here) in looked {
            if is_here? {
                out.line(&format!("{} has appeared", row.name))?;
            } else {
                missing.push(row);
            }
        }
        if missing.is_empty() || Instant::now() >= end {
            break;
        }
        tokio::time::sleep(LOOK.min(end - Instant::now())).await;
    }
    for row in &missing {
        let known_by =
            [row.mac.map(|mac| mac.to_string()), row.serial.clone(), row.bmc.as_ref().map(ToString::to_string)];
        let known_by: Vec<String> = known_by.into_iter().flatten().collect();
        let why = client.get(&path(&row.name, &["why"]), &[]).await.unwrap_or_default();
        let power = why.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let power = power.clone().find(|c| text(c, "/type") == "Powered").map(|c| text(c, "/message").to_owned());
        let conflict = why.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let conflict = conflict.clone().find(|c| text(c, "/type") == "IdentityConflict");
        let conflict = conflict.map(|c| text(c, "/message").to_owned());
        let why = conflict.or(power).unwrap_or_else(|| "nothing was heard of it".to_owned());
        out.line(&format!("{} (line {}: {}) did not appear: {why}", row.name, row.line, known_by.join(", ")))?;
    }
    Ok(missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::BODY_LIMIT;

    #[test]
    fn a_long_file_goes_out_in_parts_that_fit_with_its_line_numbers() {
        let lines = (0..30_000)
            .map(|n| format!("node-{n:06},52:54:00:{:02x}:{:02x}:{:02x},rack=r1\n", n >> 16, (n >> 8) & 255, n & 255));
        let text: String = std::iter::once("name,mac,labels\n".to_owned()).chain(lines).collect();
        let rows = rows::read(&text).unwrap();
        let all: Vec<&Expected> = rows.iter().collect();
        let parts = parts(&all);
        assert!(parts.len() > 10);
        assert_eq!(parts.concat().iter().map(|row| row.line).collect::<Vec<_>>(), (2..30_002).collect::<Vec<_>>());
        for part in &parts {
            let text = in_their_lines(part);
            assert!(!part.is_empty() && text.len() <= BODY_LIMIT, "{}", text.len());
            let first = text.lines().position(|line| line.starts_with("---")).unwrap();
            assert_eq!(first + 1, part[0].line);
        }
        assert_eq!(super::parts(&[]).len(), 0);
    }
}
