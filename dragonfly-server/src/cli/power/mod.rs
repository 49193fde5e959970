//! `dragonfly power` and `dragonfly bmc`.

mod args;
mod parts;
mod password;

use anyhow::bail;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

pub(super) use args::{BmcCommand, PowerCommand};
use args::{Machines, Switched};

use super::args::Format;
use super::client::{Call, Client};
use super::objects::text;
use super::output::{self, Out};
use super::verbs::{about, ask};

/// How many machines are talked about at a time; the server has limits of its own.
const AT_ONCE: usize = 64;

fn path<'a>(machine: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["dragonfly", "v1", "machines", machine], rest].concat()
}

/// What came of one machine.
type Each = (String, anyhow::Result<Value>);

/// The machines that are meant.
async fn meant(client: &Client, which: Machines) -> anyhow::Result<Vec<String>> {
    let Some(selector) = which.selector else { return Ok(which.machines) };
    let mut names = Vec::new();
    let mut from = String::new();
    loop {
        let query = [("limit", "500"), ("continue", &*from), ("labelSelector", &selector)];
        let page = client.get(&["dragonfly", "v1", "machines"], &query).await?;
        let items = page.get("items").and_then(Value::as_array);
        names.extend(items.into_iter().flatten().map(|machine| text(machine, "/name").to_owned()));
        match page.get("continue").and_then(Value::as_str) {
            Some(more) if !more.is_empty() => more.clone_into(&mut from),
            _ => break,
        }
    }
    if names.is_empty() {
        bail!("no machine has the labels {selector}");
    }
    Ok(names)
}

/// The same for every machine, many at a time, each told when it is done, in the order of asking.
async fn each(client: &Client, machines: &[String], call: Call, rest: &[&str], body: Option<&Value>) -> Vec<Each> {
    let one = async |machine: &String| {
        let done = client.slow(call, &path(machine, rest), body).await;
        (machine.clone(), done.map_err(|error| about(machine, error)))
    };
    stream::iter(machines.iter().map(one)).buffered(AT_ONCE).collect().await
}

/// Tells the failures on standard error; fails when there are any, and says how many.
fn judge(all: Vec<Each>) -> anyhow::Result<Vec<(String, Value)>> {
    let (count, mut done) = (all.len(), Vec::new());
    let mut failures = Vec::new();
    for (machine, result) in all {
        match result {
            Ok(value) => done.push((machine, value)),
            Err(error) => failures.push(error),
        }
    }
    if count == 1
        && let Some(error) = failures.pop()
    {
        return Err(error);
    }
    failures.iter().for_each(output::complain);
    if !failures.is_empty() && done.is_empty() {
        bail!("all {count} failed");
    }
    Ok(done)
}

/// As [`judge`], for what is written line by line: fails after what was done has been told.
fn told(out: &Out, all: Vec<Each>, line: impl Fn(&str, &Value) -> String) -> anyhow::Result<()> {
    let count = all.len();
    let done = judge(all)?;
    for (machine, value) in &done {
        out.line(&line(machine, value))?;
    }
    some_failed(count, done.len())
}

fn some_failed(count: usize, done: usize) -> anyhow::Result<()> {
    if done < count {
        bail!("{} of {count} failed", count - done);
    }
    Ok(())
}

fn written(
    out: &Out,
    format: Format,
    head: &[&str],
    done: &[(String, Value)],
    rows: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    let items = || -> Vec<Value> {
        let named = |(machine, value): &(String, Value)| {
            let mut item = json!({ "machine": machine });
            if let (Some(item), Some(value)) = (item.as_object_mut(), value.as_object()) {
                item.extend(value.clone());
            }
            item
        };
        done.iter().map(named).collect()
    };
    match format {
        Format::Json => out.json(&json!({ "items": items() }))?,
        Format::Yaml => out.yaml(&json!({ "items": items() }))?,
        Format::Name => done.iter().try_for_each(|(machine, _)| out.line(machine))?,
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> =
                done.iter().map(|(machine, value)| [vec![machine.clone()], rows(value)].concat()).collect();
            out.table(head, &rows)?;
        }
    }
    Ok(())
}

/// Asks before many machines lose what they are doing; of one, its name was typed.
fn sure(machines: &[String], what: &str, yes: bool) -> anyhow::Result<()> {
    if machines.len() > 1 && !yes {
        ask(&format!("{} machines {what}: {}. Go on?", machines.len(), machines.join(", ")))?;
    }
    Ok(())
}

pub(super) async fn power(client: &Client, out: &Out, command: PowerCommand) -> anyhow::Result<()> {
    let (word, switched, what) = match command {
        PowerCommand::On(which) => ("on", Switched { which, yes: true }, ""),
        PowerCommand::Off(switched) => ("off", switched, "lose their power"),
        PowerCommand::Soft(switched) => ("soft", switched, "shut down"),
        PowerCommand::Cycle(switched) => ("cycle", switched, "lose their power for a moment"),
        PowerCommand::Reset(switched) => ("reset", switched, "are reset"),
        PowerCommand::NetworkBoot(switched) => ("network-boot", switched, "restart and boot from the network"),
        PowerCommand::Status { which, output } => {
            let machines = meant(client, which).await?;
            let all = each(client, &machines, Call::Get, &["power"], None).await;
            let done = judge(all)?;
            written(out, output, &["MACHINE", "POWER"], &done, |value| vec![text(value, "/power").to_lowercase()])?;
            return some_failed(machines.len(), done.len());
        }
        PowerCommand::BootDevice { which, set, uri, persistent, mode, output } => {
            let wish = parts::Boot { set, uri, persistent, mode };
            return parts::boot_device(client, out, which, wish, output).await;
        }
        PowerCommand::Identify { which, seconds, off } => {
            let machines = meant(client, which).await?;
            let seconds = if off { 0 } else { seconds };
            let all = each(client, &machines, Call::Post, &["identify"], Some(&json!({ "seconds": seconds }))).await;
            return told(out, all, |machine, _| match seconds {
                0 => format!("{machine}: its lamp is out"),
                _ => format!("{machine}: its lamp is lit for {seconds} s"),
            });
        }
    };
    let machines = meant(client, switched.which).await?;
    sure(&machines, what, switched.yes)?;
    let all = each(client, &machines, Call::Post, &["power"], Some(&json!({ "operation": word }))).await;
    told(out, all, |machine, value| {
        let seen = value.get("seen").and_then(Value::as_bool).unwrap_or(false);
        match (word, seen) {
            ("on", true) => format!("{machine} is on"),
            ("off", true) => format!("{machine} is off"),
            ("cycle", true) => format!("{machine} was cycled and is on"),
            ("reset", _) => format!("{machine} was reset"),
            ("soft", _) => {
                format!("{machine} was asked to shut down; see whether it does: dragonfly power status {machine}")
            }
            ("network-boot", true) => format!("{machine} is on and boots from the network"),
            _ => format!("{machine} was told; its controller cannot tell whether it obeyed"),
        }
    })
}

pub(super) async fn bmc(client: &Client, out: &Out, command: BmcCommand) -> anyhow::Result<()> {
    match command {
        BmcCommand::Set { machine, address, username, password_file, secret, boot_mode, no_test } => {
            let mut body = json!({ "address": address });
            if let Some(fields) = body.as_object_mut() {
                if let Some(username) = username {
                    let password = password::read(password_file.as_deref(), &username)?;
                    fields.insert("username".to_owned(), username.into());
                    fields.insert("password".to_owned(), password.reveal().into());
                }
                fields.extend(secret.map(|secret| ("secret".to_owned(), secret.into())));
                fields.extend(boot_mode.map(|mode| ("bootMode".to_owned(), mode.word().into())));
            }
            client
                .slow(Call::Put, &path(&machine, &["bmc"]), Some(&body))
                .await
                .map_err(|error| about(&machine, error))?;
            out.line(&format!("{machine}: its controller is {address}"))?;
            if !no_test {
                let all = each(client, std::slice::from_ref(&machine), Call::Post, &["bmc", "test"], None).await;
                return told(out, all, |machine, value| format!("{machine}: {}", tested(value)));
            }
            Ok(())
        }
        BmcCommand::Remove { machines } => {
            let all = each(client, &machines, Call::Delete, &["bmc"], None).await;
            told(out, all, |machine, _| format!("{machine} has no controller any more"))
        }
        BmcCommand::AllowAccount { machines } => {
            let all = each(client, &machines, Call::Post, &["bmc", "account"], None).await;
            told(out, all, |machine, _| format!("{machine}: its agent may make an account on its controller again"))
        }
        BmcCommand::Test { which, output } => {
            let machines = meant(client, which).await?;
            let done = judge(each(client, &machines, Call::Post, &["bmc", "test"], None).await)?;
            written(out, output, &["MACHINE", "POWER", "CAN", "ADDRESS"], &done, |value| {
                let power = text(value, "/state").to_lowercase();
                let power = if power.is_empty() { "unknown".to_owned() } else { power };
                vec![power, words(value), text(value, "/address").to_owned()]
            })?;
            for (machine, _) in done.iter().filter(|(_, value)| is_mute(value)) {
                output::note(&format!("{machine}: {MUTE}"));
            }
            some_failed(machines.len(), done.len())
        }
        BmcCommand::Media { machine, command, output } => parts::media(client, out, &machine, command, output).await,
        BmcCommand::Inventory { machine, output } => parts::inventory(client, out, &machine, output).await,
        BmcCommand::Firmware { machine, output } => parts::firmware(client, out, &machine, output).await,
        BmcCommand::Sensors { machine, output } => {
            let found = client.slow(Call::Get, &path(&machine, &["bmc", "sensors"]), None).await;
            let found = found.map_err(|error| about(&machine, error))?;
            list(out, output, &found, &["SENSOR", "KIND", "VALUE", "UNIT", "HEALTH"], |sensor| {
                let value = sensor.get("value").and_then(Value::as_f64).map(|value| format!("{value}"));
                let cell = |pointer| text(sensor, pointer).to_owned();
                vec![
                    cell("/name"),
                    cell("/kind"),
                    value.unwrap_or_else(|| "-".to_owned()),
                    cell("/unit"),
                    cell("/health"),
                ]
            })
        }
        BmcCommand::Events { machine, limit, output } => {
            let limit = limit.to_string();
            let found = client.get(&path(&machine, &["bmc", "events"]), &[("limit", &limit)]).await;
            let found = found.map_err(|error| about(&machine, error))?;
            list(out, output, &found, &["ID", "TIME", "HEALTH", "SENSOR", "MESSAGE"], |event| {
                let cell = |pointer| text(event, pointer).to_owned();
                vec![cell("/id"), cell("/at"), cell("/health"), cell("/sensor"), cell("/message")]
            })
        }
    }
}

fn words(tested: &Value) -> String {
    let can = tested.get("can").and_then(Value::as_array);
    can.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// What is known of a controller that never says a word.
const MUTE: &str = "Wake-on-LAN gives no answer, only its address was checked; whether the machine wakes is seen when it \
    is switched on";

fn is_mute(tested: &Value) -> bool {
    text(tested, "/address").starts_with("wol:")
}

fn tested(tested: &Value) -> String {
    if is_mute(tested) {
        return format!("{MUTE}; it can: {}", words(tested));
    }
    format!("it answers; {}", abilities(tested))
}

fn abilities(tested: &Value) -> String {
    match text(tested, "/state") {
        "" => format!("it can: {}", words(tested)),
        state => format!("the machine is {}, and it can: {}", state.to_lowercase(), words(tested)),
    }
}

fn list(
    out: &Out,
    format: Format,
    found: &Value,
    head: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    let items = found.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match format {
        Format::Json => out.json(found)?,
        Format::Yaml => out.yaml(found)?,
        Format::Name => items.iter().try_for_each(|item| out.line(&row(item)[0]))?,
        Format::Table | Format::Wide => out.table(head, &items.iter().map(row).collect::<Vec<_>>())?,
    }
    Ok(())
}
