//! A run: what Tinkerbell's controller says of it is what is shown.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::agents::{Agents, agent_of};
use super::reading::last_part;
use super::{Unwritable, text};
use crate::clock::Timestamp;
use crate::resource::WorkflowSpec;
use crate::resource::template::ValueSource;
use crate::resource::workflow::{StepStatus, WorkflowStatus};
use crate::wire::Failure;
use crate::workflow::{RunState, StepState};

/// Who writes the status of a run.
const WRITER: &str = "tinkerbell";
/// The entry of `hardwareMap` that is the machine.
const DEVICE: &str = "device_1";

/// Our spec: what was kept of it, or what theirs tells.
pub(super) fn show(theirs: &Value, seen: &Value, kept: Option<Value>, agents: &Agents) -> Value {
    let hardware = text(theirs, "/hardwareRef").map(str::to_owned).or_else(|| mapped(theirs, agents));
    let template = text(theirs, "/templateRef").unwrap_or_default();
    let is_kept = |kept: &Value| {
        text(kept, "/hardware") == hardware.as_deref() && text(kept, "/template").unwrap_or_default() == template
    };
    if let Some(kept) = kept.filter(is_kept) {
        return kept;
    }
    let actions: Vec<Value> = actions(seen).map(|(_, action)| shown_action(action)).collect();
    let mut spec = json!({
        "hardware": hardware.unwrap_or_default(), "template": template, "content": { "actions": actions },
    });
    let values: Map<String, Value> = map(theirs).filter(|(name, _)| *name != DEVICE).map(pair).collect();
    if !values.is_empty() {
        spec["values"] = values.into();
    }
    spec
}

/// Their spec for a new run. `is_booted`: its machine's controller boots it.
pub(super) fn put(
    ours: &Value,
    theirs: &Value,
    hardware: Option<&Value>,
    is_booted: bool,
) -> Result<Value, Unwritable> {
    let run: WorkflowSpec =
        serde_json::from_value(ours.clone()).map_err(|error| Unwritable::new("spec", error.to_string()))?;
    if !theirs.is_null() {
        let problem = "a Workflow of Tinkerbell begins as soon as it is made, and is not changed: make another";
        return Err(Unwritable::new("spec", problem));
    }
    let hardware = hardware.and_then(|hardware| hardware.get("spec")).ok_or_else(|| {
        Unwritable::new("spec.hardware", format!("there is no Hardware `{}` in Tinkerbell's namespace", run.hardware))
    })?;
    let Some(agent) = agent_of(hardware) else {
        let problem =
            format!("`{}` has no card and no agentID, by which Tinkerbell would know its agent", run.hardware);
        return Err(Unwritable::new("spec.hardware", problem));
    };
    let mut entries = Map::new();
    for (name, source) in run.content.values.iter().chain(&run.values) {
        let path = format!("spec.values.{name}");
        match source {
            ValueSource::Plain(_) if name == DEVICE => {
                return Err(Unwritable::new(path, "is the machine itself in Tinkerbell; call the value otherwise"));
            }
            ValueSource::Plain(value) => {
                entries.insert(name.clone(), json!(value));
            }
            ValueSource::From { .. } => {
                let problem = "comes from a Secret, and a Workflow of Tinkerbell shows its values to everybody who may \
                               read it; refer to the Secret in Tinkerbell's Template (secretRef)";
                return Err(Unwritable::new(path, problem));
            }
        }
    }
    entries.insert(DEVICE.to_owned(), json!(agent));
    // Afterwards it boots from its disk, as a machine that is Ready does.
    let mut boot = json!({ "toggleAllowNetboot": true });
    if is_booted && text(hardware, "/bmcRef/name").is_some() {
        boot["bootMode"] = json!("netboot");
    }
    Ok(json!({
        "templateRef": run.template, "hardwareRef": run.hardware, "hardwareMap": entries, "bootOptions": boot,
    }))
}

/// What is shown of a run that no controller has looked at.
pub(super) fn waiting() -> Value {
    json!({ "state": "Pending", "attempt": 1, "writer": WRITER, "message": "waits for Tinkerbell's controller" })
}

/// Our status; `None` where theirs says nothing yet.
pub(super) fn status(seen: &Value) -> Option<Value> {
    let word = text(seen, "/state").map(plain).unwrap_or_default();
    let unrendered = text(seen, "/templateRending") == Some("failed");
    if word.is_empty() && !unrendered {
        return None;
    }
    let steps: Vec<StepStatus> = actions(seen).map(|(_, action)| step(action)).collect();
    let begun = steps.iter().any(|step| step.state != StepState::Pending);
    let state = match word {
        "" | "PENDING" | "PREPARING" => RunState::Pending,
        "RUNNING" | "POST" => RunState::Running,
        "SUCCESS" => RunState::Succeeded,
        "FAILED" | "TIMEOUT" => RunState::Failed,
        // Of a later version.
        _ if begun => RunState::Running,
        _ => RunState::Pending,
    };
    let is_over = matches!(state, RunState::Succeeded | RunState::Failed);
    let last = steps.iter().filter_map(|step| step.ended_at.or(step.started_at)).max();
    let status = WorkflowStatus {
        state,
        attempt: 1,
        started_at: steps.iter().filter_map(|step| step.started_at).min(),
        ended_at: last.filter(|_| is_over),
        message: message(word, seen, &steps),
        writer: WRITER.to_owned(),
        steps,
        ..WorkflowStatus::default()
    };
    serde_json::to_value(status).ok()
}

fn message(word: &str, seen: &Value, steps: &[StepStatus]) -> String {
    let at = |wanted| steps.iter().find(|step: &&StepStatus| step.state == wanted);
    if let (Some(step), true) = (at(StepState::Failed), matches!(word, "FAILED" | "TIMEOUT")) {
        let why = step.failure.as_ref().map(|failure| failure.message.as_str()).unwrap_or_default();
        return format!("`{}` {why}", step.name);
    }
    let refused = ["TemplateRenderedSuccess", "BootJobSetupComplete", "BootJobComplete"];
    let failed = ["BootJobFailed", "BootJobSetupFailed", "NetbootJobFailed", "NetbootJobSetupFailed"];
    let conditions = seen.get("conditions").and_then(Value::as_array);
    let told = conditions.into_iter().flatten().find_map(|condition| {
        let (kind, status) = (text(condition, "/type")?, text(condition, "/status")?);
        let is_bad = (refused.contains(&kind) && status == "False") || (failed.contains(&kind) && status == "True");
        let why = text(condition, "/message").or_else(|| text(condition, "/reason")).unwrap_or("without a reason");
        is_bad.then(|| match kind {
            "TemplateRenderedSuccess" => format!("Tinkerbell cannot fill its Template: {why}"),
            _ => format!("the machine's controller could not boot it: {why}"),
        })
    });
    if let Some(told) = told {
        return told;
    }
    match word {
        "TIMEOUT" => "took longer than its Template allows".to_owned(),
        "FAILED" => "failed; Tinkerbell does not say why".to_owned(),
        "SUCCESS" => "every action is done".to_owned(),
        "POST" => "every action is done; Tinkerbell puts the machine's boot order back".to_owned(),
        "PREPARING" => "Tinkerbell prepares the machine's boot".to_owned(),
        "RUNNING" => {
            let done = steps.iter().filter(|step| step.state == StepState::Succeeded).count();
            match at(StepState::Running) {
                Some(step) => format!("`{}` runs, the {}. of {} actions", step.name, done + 1, steps.len()),
                None => format!("{done} of {} actions are done", steps.len()),
            }
        }
        "" | "PENDING" => "waits for Tinkerbell's agent on the machine".to_owned(),
        other => format!("is {other} in Tinkerbell"),
    }
}

fn step(action: &Value) -> StepStatus {
    let time = |field: &str| action.get(field).and_then(|time| serde_json::from_value::<Timestamp>(time.clone()).ok());
    let word = text(action, "/state").or_else(|| text(action, "/status")).map(plain).unwrap_or_default();
    let started_at = time("executionStart").or_else(|| time("startedAt"));
    let state = match word {
        "SUCCESS" => StepState::Succeeded,
        "FAILED" | "TIMEOUT" => StepState::Failed,
        "RUNNING" => StepState::Running,
        "" | "PENDING" | "PREPARING" => StepState::Pending,
        _ if started_at.is_some() => StepState::Running,
        _ => StepState::Pending,
    };
    let is_over = matches!(state, StepState::Succeeded | StepState::Failed);
    let seconds = action.get("seconds").and_then(Value::as_u64).map(Duration::from_secs);
    let after = started_at.zip(seconds).map(|(start, seconds)| start.plus(seconds));
    let said = text(action, "/message");
    let failure = (state == StepState::Failed).then(|| {
        Failure::message(match (word, said) {
            ("TIMEOUT", Some(said)) => format!("took too long: {said}"),
            ("TIMEOUT", None) => "took too long".to_owned(),
            (_, Some(said)) => format!("failed: {said}"),
            (_, None) => "failed; Tinkerbell does not say why".to_owned(),
        })
    });
    StepStatus {
        name: text(action, "/name").unwrap_or_default().to_owned(),
        action: last_part(text(action, "/image").unwrap_or_default()).to_owned(),
        state,
        attempt: u32::from(state != StepState::Pending),
        started_at,
        ended_at: time("executionStop").or(after).filter(|_| is_over),
        progress: None,
        failure,
    }
}

/// Every action of every task, in order.
fn actions(seen: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let tasks = seen.get("tasks").and_then(Value::as_array).into_iter().flatten();
    tasks.flat_map(|task| {
        let actions = task.get("actions").and_then(Value::as_array).into_iter().flatten();
        actions.map(move |action| (task, action))
    })
}

/// An action of a run, as a Template of ours has it.
fn shown_action(action: &Value) -> Value {
    let image = text(action, "/image").unwrap_or_default();
    let mut with = Map::from_iter([("image".to_owned(), json!(image))]);
    for field in ["environment", "command", "volumes", "pid"] {
        if let Some(value) = action.get(field) {
            with.insert(field.to_owned(), value.clone());
        }
    }
    let mut shown = json!({
        "name": text(action, "/name").unwrap_or_default(), "action": last_part(image), "with": with,
    });
    if let Some(seconds) = action.get("timeout").and_then(Value::as_u64).filter(|seconds| *seconds > 0) {
        shown["timeoutSeconds"] = json!(seconds);
    }
    shown
}

/// The machine that `hardwareMap` names; as it stands there, when no Hardware is known by it.
fn mapped(theirs: &Value, agents: &Agents) -> Option<String> {
    let values = || map(theirs).filter_map(|(_, value)| value.as_str());
    values().find_map(|id| agents.find(id)).or_else(|| {
        let device = map(theirs).find(|(name, _)| *name == DEVICE).and_then(|(_, value)| value.as_str());
        device.map(str::to_owned)
    })
}

fn map(theirs: &Value) -> impl Iterator<Item = (&String, &Value)> {
    theirs.get("hardwareMap").and_then(Value::as_object).into_iter().flatten()
}

fn pair((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// Older versions wrote `STATE_RUNNING`.
fn plain(word: &str) -> &str {
    word.strip_prefix("STATE_").unwrap_or(word)
}
