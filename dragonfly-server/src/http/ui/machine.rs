//! The page of one machine.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{CLUSTER_LABEL, NAME_LABEL, NODE_LABEL, VMID_LABEL, Why};
use dragonfly_core::inventory::{FirmwareMode, Inventory};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::workflow::StepStatus;
use dragonfly_core::resource::{Hardware, HardwareSpec, TemplateSpec, Workflow, WorkflowSpec};
use dragonfly_core::workflow::StepState;

use super::list::Row;
use super::timeline::{self, Happened};
use super::{When, page, problem};
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};
use crate::view;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/machines/{name}", Access::Page, "One machine, as a page", whole).get(
        "/fragments/machines/{name}",
        Access::Page,
        "The part of a machine's page that changes",
        live,
    )
}

#[derive(Debug, Template)]
#[template(path = "machine.html")]
struct MachinePage {
    live: Live,
    facts: Vec<(&'static str, String)>,
    inventory: Option<Inventory>,
    log: String,
    verbs: Verbs,
}

#[derive(Debug, Template)]
#[template(path = "live.html")]
struct Live {
    row: Row,
    why: Why,
    since: Option<When>,
    run: Option<RunView>,
    happened: Vec<Happened>,
}

/// A run with its steps.
#[derive(Debug)]
struct RunView {
    name: String,
    template: String,
    state: String,
    attempt: u32,
    percent: u8,
    message: String,
    steps: Vec<Step>,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Step {
    name: String,
    action: String,
    class: &'static str,
    word: &'static str,
    /// Percent, when the whole is known.
    percent: Option<u8>,
    words: String,
    took: String,
    failure: Option<String>,
    causes: Vec<String>,
}

/// What can be done to the machine now.
#[derive(Debug)]
struct Verbs {
    name: String,
    display_name: String,
    phase: &'static str,
    templates: Vec<(String, String)>,
    installed: Option<String>,
    disks: Vec<DiskLine>,
    can_assign: bool,
    can_reimage: bool,
    can_retry: bool,
    can_abort: bool,
    can_release: bool,
    is_asked_about: bool,
    is_seen_elsewhere: bool,
    /// What the page asks: what has come since is not answered by it.
    question: String,
    can_hold: bool,
    protected: bool,
    /// Its controller's address, if it has one.
    controller: Option<String>,
}

impl Verbs {
    fn has_data(&self) -> bool {
        self.disks.iter().any(|disk| !disk.blank)
    }
}

#[derive(Debug)]
struct DiskLine {
    name: String,
    size: String,
    bus: String,
    model: String,
    serial: String,
    content: String,
    blank: bool,
}

impl DiskLine {
    /// What names it to the engine: the serial number stays the same when kernel names change.
    fn key(&self) -> &str {
        if self.serial.is_empty() { &self.name } else { &self.serial }
    }
}

async fn whole(State(app): State<App>, Path(word): Path<String>) -> Response {
    let found = app.engine.resolve(&word).map_err(Problem::from).and_then(|name| {
        let machine = app.engine.cache().get::<HardwareSpec>(&name);
        machine.ok_or_else(|| Problem::not_found(format!("machine `{name}` does not exist")))
    });
    let machine = match found {
        Ok(machine) => machine,
        // Perhaps a card that boots and has not reported.
        Err(refusal) => return timeline::unseen(&app, &word).unwrap_or_else(|| problem(&refusal, "/")),
    };
    let live = match describe(&app, &machine) {
        Ok(live) => live,
        Err(refusal) => return problem(&refusal, "/"),
    };
    let log = app.engine.read_log(machine.name()).await.unwrap_or_default();
    let inventory = machine.status.inventory.clone();
    let facts = facts(&machine);
    page(StatusCode::OK, &MachinePage { live, facts, inventory, log, verbs: verbs(&app, &machine) })
}

async fn live(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let machine = app.engine.cache().get::<HardwareSpec>(&name);
    let machine = machine.ok_or_else(|| Problem::not_found(format!("machine `{name}` does not exist")))?;
    Ok(page(StatusCode::OK, &describe(&app, &machine)?))
}

fn describe(app: &App, machine: &Hardware) -> Result<Live, Problem> {
    let now = app.engine.now();
    let workflow = machine.status.workflow.as_ref().and_then(|name| app.engine.cache().get::<WorkflowSpec>(name));
    Ok(Live {
        row: Row::new(view::machine(&app.engine, machine), now),
        why: app.engine.why(machine.name())?,
        since: machine.status.phase_since.map(|then| When::at(then, now)),
        run: workflow.map(|workflow| run(app, &workflow, now)),
        happened: timeline::shown(&app.engine.timeline(machine.name(), 0)?, now),
    })
}

fn run(app: &App, workflow: &Arc<Workflow>, now: Timestamp) -> RunView {
    let live = app.engine.progress(workflow.name());
    let so_far = view::run(workflow, live);
    let status = &workflow.status;
    let steps = status.steps.iter().map(|step| {
        let running = step.state == StepState::Running;
        let progress = if running { so_far.progress } else { step.progress };
        step_view(step, progress, now)
    });
    let failures = status.failures.iter().map(|failed| {
        let step = failed.step.as_deref().map(|s| format!(" in {s}")).unwrap_or_default();
        format!("Attempt {}{step}: {}", failed.attempt, failed.failure.message)
    });
    RunView {
        name: workflow.name().to_owned(),
        template: workflow.spec.template.clone(),
        state: format!("{:?}", status.state),
        attempt: status.attempt,
        percent: so_far.percent,
        message: status.message.clone(),
        steps: steps.collect(),
        failures: failures.collect(),
    }
}

fn step_view(step: &StepStatus, progress: Option<dragonfly_core::action::Progress>, now: Timestamp) -> Step {
    let (class, word) = match step.state {
        StepState::Pending => ("pending", "waits"),
        StepState::Running => ("running", "at work"),
        StepState::Succeeded => ("succeeded", "done"),
        StepState::Skipped => ("skipped", "done before"),
        StepState::Failed => ("failed", "failed"),
    };
    let took = step.started_at.map(|from| {
        let to = if step.state == StepState::Running { now } else { step.ended_at.unwrap_or(now) };
        format!("{:.1} s", to.since(from).as_secs_f64())
    });
    let known = progress.filter(|p| p.total.is_some());
    Step {
        name: step.name.clone(),
        action: step.action.clone(),
        class,
        word,
        percent: known.map(|p| view::percent(view::fraction(p))),
        words: progress.map(view::progress_words).unwrap_or_default(),
        took: took.filter(|_| step.state != StepState::Pending).unwrap_or_default(),
        failure: step.failure.as_ref().map(|f| f.message.clone()),
        causes: step.failure.as_ref().map(|f| f.causes.clone()).unwrap_or_default(),
    }
}

/// For the template, which passes references.
fn size(size: &dragonfly_core::inventory::Bytes) -> String {
    view::bytes(size.0)
}

/// For the template: `10 Gb/s`.
pub(super) fn speed(speed: &dragonfly_core::inventory::MegabitsPerSecond) -> String {
    match speed.0 {
        megabits if megabits >= 1000 && megabits % 500 == 0 => format!("{} Gb/s", megabits as f64 / 1000.0),
        megabits => format!("{megabits} Mb/s"),
    }
}

/// Which VM of which cluster it is.
fn vm(machine: &Hardware) -> Option<String> {
    let label = |key: &str| machine.metadata.labels.get(key);
    let (vmid, cluster) = (label(VMID_LABEL)?, label(CLUSTER_LABEL)?);
    let name = label(NAME_LABEL).map(|name| format!(" ({name})")).unwrap_or_default();
    let node = label(NODE_LABEL).map(|node| format!(" on {node}")).unwrap_or_default();
    Some(format!("VM {vmid}{name}{node}, cluster {cluster}"))
}

/// What is known of the machine as a whole, in the order of interest.
fn facts(machine: &Hardware) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |word, value: Option<String>| facts.extend(value.filter(|v| !v.trim().is_empty()).map(|v| (word, v)));
    add("Name", Some(machine.name().to_owned()));
    add("MAC", Some(machine.spec.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    add("Address", machine.status.address.map(|a| a.to_string()));
    add("Installed", machine.status.installed.clone());
    add("Found on disk", machine.status.existing_os.as_ref().map(|os| format!("{} on {}", os.name, os.disk)));
    add("BMC", machine.spec.bmc.as_ref().map(|bmc| bmc.address.to_string()));
    add("Proxmox", vm(machine));
    let Some(seen) = &machine.status.inventory else { return facts };
    add("Vendor", seen.system.vendor.clone());
    add("Product", seen.system.product.clone());
    add("Serial", seen.system.serial.clone());
    add("Board serial", seen.system.board_serial.clone());
    add("UUID", seen.system.uuid.map(|u| u.to_string()));
    add("Firmware", seen.system.bios.clone());
    add(
        "Boots by",
        seen.firmware.map(|mode| match mode {
            FirmwareMode::Bios => "BIOS".to_owned(),
            FirmwareMode::Uefi => "UEFI".to_owned(),
        }),
    );
    add("CPU", seen.cpu.model.clone());
    let counted = [(seen.cpu.sockets, "socket"), (seen.cpu.cores, "core"), (seen.cpu.threads, "thread")];
    let plural = |n| if n == 1 { "" } else { "s" };
    let counted = counted.into_iter().filter_map(|(n, word)| n.map(|n| format!("{n} {word}{}", plural(n))));
    add("Topology", Some(counted.collect::<Vec<_>>().join(", ")));
    add("Memory", seen.memory.total.map(|total| view::bytes(total.0)));
    add("TPM", seen.tpm.clone());
    add("Hypervisor", seen.hypervisor.clone());
    add(
        "BMC seen",
        seen.bmc.as_ref().map(|bmc| {
            let address = bmc.address.map(|a| a.to_string()).unwrap_or_default();
            format!("{} {address}", bmc.interface.clone().unwrap_or_default())
        }),
    );
    let users = seen.bmc.iter().flat_map(|bmc| &bmc.users).map(ToString::to_string);
    add("BMC users", Some(users.collect::<Vec<_>>().join(", ")));
    add("Boot interface", seen.boot_interface.clone());
    facts
}

fn verbs(app: &App, machine: &Hardware) -> Verbs {
    let phase = machine.status.phase;
    let templates = app.engine.cache().all::<TemplateSpec>();
    let disks = machine.status.inventory.as_ref().map(|i| i.disks.as_slice()).unwrap_or_default();
    let disks = disks.iter().map(|disk| DiskLine {
        name: disk.name.clone(),
        size: view::disk_size(disk.size.0),
        bus: disk.bus.clone().unwrap_or_default(),
        model: disk.model.clone().unwrap_or_default(),
        serial: disk.serial.clone().unwrap_or_default(),
        content: match (disk.blank, disk.signatures.is_empty()) {
            (Some(true), _) => "blank".to_owned(),
            (_, false) => disk.signatures.join(", "),
            (Some(false), true) => "carries data".to_owned(),
            (None, true) => "content unknown".to_owned(),
        },
        blank: disk.blank == Some(true),
    });
    let free = !machine.spec.protected && machine.spec.hold.is_none();
    Verbs {
        name: machine.name().to_owned(),
        display_name: view::display_name(machine).to_owned(),
        phase: view::phase_word(phase),
        templates: templates.iter().map(|t| (t.name().to_owned(), t.spec.description.clone())).collect(),
        installed: machine.status.installed.clone(),
        disks: disks.collect(),
        can_assign: free && matches!(phase, None | Some(Phase::Registered | Phase::Error)),
        can_reimage: free && phase == Some(Phase::Ready),
        can_retry: free && phase == Some(Phase::Error),
        can_abort: matches!(phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error)),
        can_release: phase == Some(Phase::Held) || machine.spec.hold.is_some(),
        is_asked_about: machine.is_asked_about(),
        is_seen_elsewhere: machine.is_seen_elsewhere(),
        question: machine.question().unwrap_or_default(),
        can_hold: machine.spec.hold.is_none(),
        protected: machine.spec.protected,
        controller: machine.spec.bmc.as_ref().map(|bmc| bmc.address.to_string()),
    }
}
