//! A machine and its run in the form that people look at: one line of a table, one page.

use std::net::IpAddr;

use dragonfly_core::Mac;
use dragonfly_core::action::{Progress, Unit};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{Engine, POWERED};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::{ConditionStatus, Hardware, Workflow, WorkflowSpec, condition};
use dragonfly_core::workflow::{RunState, StepState};
use serde::{Deserialize, Serialize};

/// A machine in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// The same with capitals.
    pub display_name: String,
    /// Where in its life it is; absent before its agent first reported.
    pub phase: Option<Phase>,
    /// Since when.
    pub phase_since: Option<Timestamp>,
    /// Why, for a person.
    pub message: String,
    /// Its network cards.
    pub macs: Vec<Mac>,
    /// Where it was last heard from.
    pub address: Option<IpAddr>,
    /// Vendor and product.
    pub model: String,
    /// When anything was last heard from it.
    pub last_seen: Option<Timestamp>,
    /// What it is to run, runs, or carries.
    pub template: Option<String>,
    /// How far its run has come.
    pub run: Option<Run>,
    /// Refuses assign and reimage.
    pub protected: bool,
    /// A person's word that nothing is to be done to it.
    pub hold: Option<String>,
    /// Why it is in doubt which machine it is, until somebody has settled that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// Found with an operating system that was there before us.
    pub adopted: bool,
    /// Whether it has power: `on`, `off`, `unknown`; absent when nobody can tell.
    #[serde(default)]
    pub power: Option<String>,
    /// It registered itself, and nobody has labelled it, edited it or assigned anything to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclaimed: bool,
    /// Whether it has a controller that can be told something.
    #[serde(default)]
    pub has_controller: bool,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The workflow's name.
    pub workflow: String,
    /// Its state.
    pub state: RunState,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// The step at work, or the one that failed.
    pub step: Option<String>,
    /// How many steps are done.
    pub steps_done: usize,
    /// How many there are.
    pub steps: usize,
    /// How much of the whole is done, each step counting the same.
    pub percent: u8,
    /// How much of the step at work is done, in its own unit.
    pub progress: Option<Progress>,
}

/// A machine with what is known of its run.
pub fn machine(engine: &Engine, hardware: &Hardware) -> Machine {
    let workflow = hardware.status.workflow.as_ref().and_then(|name| engine.cache().get::<WorkflowSpec>(name));
    let live = workflow.as_ref().and_then(|w| engine.progress(w.name()));
    let mut line = line(hardware, workflow.as_deref(), live);
    line.last_seen = line.last_seen.max(engine.agent_heard(hardware.name()));
    line
}

fn line(hardware: &Hardware, workflow: Option<&Workflow>, live: Option<(u32, usize, Progress)>) -> Machine {
    let (spec, status) = (&hardware.spec, &hardware.status);
    let system = status.inventory.as_ref().map(|i| &i.system);
    let part = |part: Option<&String>| part.map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
    let model = [part(system.and_then(|s| s.vendor.as_ref())), part(system.and_then(|s| s.product.as_ref()))];
    let adopted = condition(&status.conditions, "Adopted").is_some_and(|c| c.status == ConditionStatus::True);
    Machine {
        name: hardware.name().to_owned(),
        display_name: display_name(hardware).to_owned(),
        phase: status.phase,
        phase_since: status.phase_since,
        message: hardware.message().to_owned(),
        macs: spec.macs.clone(),
        address: status.address,
        model: model.into_iter().flatten().collect::<Vec<_>>().join(" "),
        last_seen: status.last_seen,
        template: template(hardware, workflow),
        run: workflow.map(|w| run(w, live)),
        protected: spec.protected,
        hold: spec.hold.clone(),
        conflict: hardware.conflict().map(|conflict| conflict.message.clone()),
        adopted,
        power: condition(&status.conditions, POWERED).map(|c| power_word(c.status).to_owned()),
        unclaimed: hardware.is_unclaimed(),
        has_controller: spec.bmc.is_some(),
    }
}

/// A machine's power in one word.
pub fn power_word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "on",
        ConditionStatus::False => "off",
        ConditionStatus::Unknown => "unknown",
    }
}

/// What a machine is to run or runs; else what is installed on it, unless a run that was called off has begun to
/// write over it.
fn template(hardware: &Hardware, workflow: Option<&Workflow>) -> Option<String> {
    let open = workflow.filter(|w| !w.status.state.is_final());
    let begun = |w: &Workflow| w.status.steps.iter().any(|step| step.state != StepState::Pending);
    let spoilt = workflow.is_some_and(|w| w.status.state == RunState::Aborted && begun(w));
    open.map(|w| w.spec.template.clone()).or_else(|| hardware.status.installed.clone().filter(|_| !spoilt))
}

/// The name with capitals, if it has one.
pub fn display_name(hardware: &Hardware) -> &str {
    if hardware.spec.display_name.is_empty() { hardware.name() } else { &hardware.spec.display_name }
}

/// How far a run has come. `live` is what its agent said last: attempt, step, progress.
pub fn run(workflow: &Workflow, live: Option<(u32, usize, Progress)>) -> Run {
    let status = &workflow.status;
    let done = status.steps.iter().filter(|s| is_done(s.state)).count();
    let at_work = status.steps.iter().position(|s| matches!(s.state, StepState::Running | StepState::Failed));
    let live = live.filter(|(attempt, step, _)| *attempt == status.attempt && Some(*step) == at_work).map(|l| l.2);
    let progress = live.or_else(|| at_work.and_then(|i| status.steps.get(i)).and_then(|s| s.progress));
    let running = at_work.and_then(|i| status.steps.get(i)).is_some_and(|s| s.state == StepState::Running);
    let part = progress.filter(|_| running).map_or(0.0, fraction);
    let steps = status.steps.len();
    let whole = if steps == 0 { 0.0 } else { (done as f64 + part) / steps as f64 };
    Run {
        workflow: workflow.name().to_owned(),
        state: status.state,
        attempt: status.attempt,
        step: at_work.and_then(|i| status.steps.get(i)).map(|s| s.name.clone()),
        steps_done: done,
        steps,
        percent: percent(if status.state == RunState::Succeeded { 1.0 } else { whole }),
        progress: progress.filter(|_| running),
    }
}

/// Whether nothing of a step is left to do.
pub fn is_done(state: StepState) -> bool {
    matches!(state, StepState::Succeeded | StepState::Skipped)
}

/// How much of a step is done, from 0 to 1; 0 when nobody knows the whole.
pub fn fraction(progress: Progress) -> f64 {
    match progress.total {
        Some(total) if total > 0 => (progress.done as f64 / total as f64).clamp(0.0, 1.0),
        _ => 0.0,
    }
}

/// A fraction as whole percent; 100 only when it is whole.
pub fn percent(fraction: f64) -> u8 {
    // In range after the clamp; floor keeps 99.9 from being told as done.
    (fraction * 100.0).floor().clamp(0.0, 100.0) as u8
}

/// Progress in words: `412 MiB of 2.0 GiB`.
pub fn progress_words(progress: Progress) -> String {
    let word = |n: u64| match progress.unit {
        Unit::Bytes => bytes(n),
        Unit::Items => n.to_string(),
    };
    match progress.total {
        Some(total) => format!("{} of {}", word(progress.done), word(total)),
        None => word(progress.done),
    }
}

/// A size in words: `412 MiB`, `2.0 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit_word = UNITS[unit];
    if unit == 0 || value >= 10.0 { format!("{value:.0} {unit_word}") } else { format!("{value:.1} {unit_word}") }
}

/// A disk's size as its label says it: decimal, `480 GB`.
pub fn disk_size(n: u64) -> String {
    let value = n as f64;
    if value >= 0.9995e12 { format!("{:.1} TB", value / 1e12) } else { format!("{:.0} GB", value / 1e9) }
}

/// How long ago something was: `12s`, `5m`, `3h`, `2d`.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A phase in one word, also for a machine that never reported.
pub fn phase_word(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "Unseen",
        Some(Phase::Registered) => "Registered",
        Some(Phase::Assigned) => "Assigned",
        Some(Phase::Provisioning) => "Provisioning",
        Some(Phase::Ready) => "Ready",
        Some(Phase::Error) => "Error",
        Some(Phase::Held) => "Held",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::resource::workflow::StepStatus;
    use dragonfly_core::resource::{Resource, TemplateSpec};

    fn workflow(states: &[StepState]) -> Workflow {
        let spec = WorkflowSpec {
            hardware: "m".into(),
            template: "t".into(),
            content: TemplateSpec::default(),
            values: Default::default(),
        };
        let mut workflow = Resource::new("w", spec);
        workflow.status.attempt = 1;
        workflow.status.steps = states
            .iter()
            .enumerate()
            .map(|(i, state)| StepStatus { name: format!("s{i}"), state: *state, ..StepStatus::default() })
            .collect();
        workflow
    }

    #[test]
    fn a_run_is_as_far_as_its_steps() {
        use StepState as S;
        let half = Progress { done: 1, total: Some(2), unit: Unit::Bytes };
        type Live = Option<(u32, usize, Progress)>;
        let table: &[(&[S], Live, u8, Option<&str>)] = &[
            (&[], None, 0, None),
            (&[S::Pending, S::Pending], None, 0, None),
            (&[S::Succeeded, S::Running], None, 50, Some("s1")),
            (&[S::Succeeded, S::Running], Some((1, 1, half)), 75, Some("s1")),
            // What another attempt or another step said is not this step's.
            (&[S::Succeeded, S::Running], Some((2, 1, half)), 50, Some("s1")),
            (&[S::Succeeded, S::Running], Some((1, 0, half)), 50, Some("s1")),
            (&[S::Skipped, S::Failed], Some((1, 1, half)), 50, Some("s1")),
            (&[S::Succeeded, S::Succeeded], None, 100, None),
        ];
        for (states, live, want, step) in table {
            let run = run(&workflow(states), *live);
            assert_eq!((run.percent, run.step.as_deref()), (*want, *step), "{states:?} {live:?}");
        }
    }

    #[test]
    fn the_template_is_what_it_is_to_run_or_carries() {
        use RunState as R;
        use StepState as S;
        type Case = (Option<R>, &'static [S], Option<&'static str>, Option<&'static str>);
        let table: &[Case] = &[
            (None, &[], None, None),
            (None, &[], Some("old"), Some("old")),
            (Some(R::Pending), &[S::Pending], Some("old"), Some("t")),
            (Some(R::Running), &[S::Running], Some("old"), Some("t")),
            (Some(R::Failed), &[S::Failed], None, Some("t")),
            (Some(R::Held), &[S::Running], None, Some("t")),
            (Some(R::Succeeded), &[S::Succeeded], Some("t"), Some("t")),
            (Some(R::Aborted), &[S::Pending], None, None),
            (Some(R::Aborted), &[S::Pending], Some("old"), Some("old")),
            (Some(R::Aborted), &[S::Succeeded, S::Running], Some("old"), None),
        ];
        for (state, steps, installed, want) in table {
            let mut hardware = Hardware::new("m", Default::default());
            hardware.status.installed = installed.map(str::to_owned);
            let run = state.map(|state| {
                let mut run = workflow(steps);
                run.status.state = state;
                run
            });
            assert_eq!(template(&hardware, run.as_ref()).as_deref(), *want, "{state:?} {steps:?} {installed:?}");
        }
    }

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(412 << 20)], ["0 B", "1023 B", "1.5 KiB", "412 MiB"]);
        assert_eq!([disk_size(480_103_981_056), disk_size(3_840_755_982_336)], ["480 GB", "3.8 TB"]);
        let at = Timestamp::from_unix_seconds;
        assert_eq!([ago(at(100), at(40)), ago(at(7200), at(0)), ago(at(0), at(50))], ["60s", "2h", "0s"]);
        assert_eq!(percent(0.999), 99);
    }
}
