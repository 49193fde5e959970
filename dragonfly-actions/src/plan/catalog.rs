//! Judges a whole template: every step by itself, then the steps together.

use std::collections::{BTreeMap, BTreeSet};

use dragonfly_core::action::{ActionError, Problem, TemplateChecker, parse_params};
use dragonfly_core::near::did_you_mean;
use dragonfly_core::resource::TemplateSpec;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

/// The actions that a template may use: ours, and those of others by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    others: BTreeMap<String, ()>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::builtin()
    }
}

/// The most steps one template may have.
const MOST_STEPS: usize = 200;

const OURS: [&str; 11] =
    [PARTITION, FORMAT, IMAGE2DISK, WRITEFILE, GROW, BOOTLOADER, CHROOT_EXEC, KEXEC, CHAIN, REBOOT, POWEROFF];

impl Catalog {
    /// The actions of this crate.
    pub fn builtin() -> Self {
        Self { others: BTreeMap::new() }
    }

    /// With an action of somebody else: its parameters are not judged here but by the agent that has it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>) -> Self {
        self.others.insert(name.into(), ());
        self
    }

    /// Every name a template may use.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = OURS.into_iter().chain(self.others.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// One step, as far as the others must know of it.
enum Step {
    Partition(PartitionParams),
    Format(FormatParams),
    Image(ImageParams),
    WriteFile(WriteFileParams),
    Grow(GrowParams),
    Bootloader(BootloaderParams),
    ChrootExec(ChrootExecParams),
    Kexec(KexecParams),
    Chain(ChainParams),
    Leave,
}

impl Step {
    fn parse(action: &str, with: &Value) -> Option<Result<Self, Vec<(String, String)>>> {
        fn typed<P: DeserializeOwned>(
            action: &'static str,
            with: &Value,
            make: fn(P) -> Step,
        ) -> Result<Step, Vec<(String, String)>> {
            parse_params(action, with).map(make).map_err(|errors| errors.into_iter().map(pair).collect())
        }
        Some(match action {
            PARTITION => typed(PARTITION, with, Self::Partition),
            FORMAT => typed(FORMAT, with, Self::Format),
            IMAGE2DISK => typed(IMAGE2DISK, with, Self::Image),
            WRITEFILE => typed(WRITEFILE, with, Self::WriteFile),
            GROW => typed(GROW, with, Self::Grow),
            BOOTLOADER => typed(BOOTLOADER, with, Self::Bootloader),
            CHROOT_EXEC => typed(CHROOT_EXEC, with, Self::ChrootExec),
            KEXEC => typed(KEXEC, with, Self::Kexec),
            CHAIN => typed(CHAIN, with, Self::Chain),
            REBOOT => typed::<LeaveParams>(REBOOT, with, |_| Self::Leave),
            POWEROFF => typed::<LeaveParams>(POWEROFF, with, |_| Self::Leave),
            _ => return None,
        })
    }

    fn check(&self, check: &mut Check) {
        match self {
            Self::Partition(p) => p.check(check),
            Self::Format(p) => p.check(check),
            Self::Image(p) => p.check(check),
            Self::WriteFile(p) => p.check(check),
            Self::Grow(p) => p.check(check),
            Self::Bootloader(p) => p.check(check),
            Self::ChrootExec(p) => p.check(check),
            Self::Kexec(p) => p.check(check),
            Self::Chain(p) => p.check(check),
            Self::Leave => {}
        }
    }

    /// Every partition that it expects to be there, with its path in the parameters.
    fn targets(&self) -> Vec<(String, &Target)> {
        let mut found: Vec<(String, &Target)> = Vec::new();
        let mounts = |mounts: &'_ [ExtraMount]| -> Vec<String> {
            (0..mounts.len()).map(|i| format!("mounts[{i}].target")).collect()
        };
        match self {
            Self::Format(p) => found.push(("target".into(), &p.target)),
            Self::WriteFile(p) => found.push(("target".into(), &p.target)),
            Self::Kexec(p) => found.push(("target".into(), &p.target)),
            Self::Image(p) => found.extend(p.target.iter().map(|t| ("target".into(), t))),
            Self::Grow(p) => found.extend(p.target.iter().map(|t| ("target".into(), t))),
            Self::ChrootExec(p) => {
                found.push(("target".into(), &p.target));
                found.extend(mounts(&p.mounts).into_iter().zip(p.mounts.iter().map(|m| &m.target)));
            }
            Self::Bootloader(p) => {
                found.extend(p.root.iter().map(|t| ("root".into(), t)));
                found.extend(p.esp.iter().map(|t| ("esp".into(), t)));
                found.extend(mounts(&p.mounts).into_iter().zip(p.mounts.iter().map(|m| &m.target)));
            }
            Self::Partition(_) | Self::Chain(_) | Self::Leave => {}
        }
        found
    }
}

fn pair(error: ActionError) -> (String, String) {
    match error {
        ActionError::Invalid { path, problem, .. } => (path, problem),
        other => (".".to_owned(), other.to_string()),
    }
}

impl TemplateChecker for Catalog {
    fn check(&self, template: &TemplateSpec) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |path: String, problem: String| problems.push(Problem { path, problem });
        let actions = &template.actions;
        if actions.is_empty() {
            say("actions".into(), "is empty; write at least one step".into());
        }
        if actions.len() > MOST_STEPS {
            say("actions".into(), format!("has {} steps; at most {MOST_STEPS} are taken", actions.len()));
            return problems;
        }
        let mut names = BTreeMap::new();
        let mut steps = Vec::with_capacity(actions.len());
        for (index, action) in actions.iter().enumerate() {
            if action.name.trim().is_empty() {
                say(format!("actions[{index}].name"), "is empty; give the step a name".into());
            } else if let Some(first) = names.insert(action.name.as_str(), index) {
                say(
                    format!("actions[{index}].name"),
                    format!("`{}` is already the name of actions[{first}]", action.name),
                );
            }
            if is_hand_over(&action.action) && index + 1 < actions.len() {
                say(
                    format!("actions[{index}].action"),
                    format!("`{}` leaves the machine, so nothing can follow it; put it last", action.action),
                );
            }
            if action.timeout_seconds == Some(0) {
                say(format!("actions[{index}].timeoutSeconds"), "is 0: the step would be stopped at once".into());
            }
            let step = match Step::parse(&action.action, &action.with) {
                None => {
                    if !self.others.contains_key(&action.action) {
                        say(format!("actions[{index}].action"), self.unknown(&action.action));
                    }
                    None
                }
                Some(Err(wrong)) => {
                    for (path, problem) in wrong {
                        say(under(index, &path), problem);
                    }
                    None
                }
                Some(Ok(step)) => {
                    let mut check = Check::new(Stage::Template);
                    step.check(&mut check);
                    for (path, problem) in check.into_problems() {
                        say(under(index, &path), problem);
                    }
                    Some(step)
                }
            };
            steps.push(step);
        }
        for (path, problem) in together(&steps) {
            say(path, problem);
        }
        problems
    }
}

impl Catalog {
    fn unknown(&self, name: &str) -> String {
        let names = self.names();
        let meant = did_you_mean(name, names.iter().copied());
        let meant = meant.unwrap_or_else(|| format!("there are: {}", names.join(", ")));
        format!("no action is called `{name}`; {meant}")
    }
}

fn under(index: usize, path: &str) -> String {
    match path {
        "." | "" => format!("actions[{index}].with"),
        path => format!("actions[{index}].with.{path}"),
    }
}

/// What is known of a disk's table at some point of the run.
struct Made<'a> {
    index: usize,
    disk: &'a DiskSelector,
    labels: BTreeSet<&'a str>,
    count: usize,
}

/// Steps that contradict each other. One that is not known, or was not understood, may have made any
/// partition.
fn together(steps: &[Option<Step>]) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let nothing = DiskSelector::default();
    let mut made: Vec<Made<'_>> = Vec::new();
    let mut imaged: Vec<(usize, &DiskSelector)> = Vec::new();
    let mut any = false;
    for (index, step) in steps.iter().enumerate() {
        let Some(step) = step else {
            any = true;
            continue;
        };
        match step {
            Step::Partition(p) => {
                if let Some(earlier) = made.iter().find(|m| *m.disk == p.disk) {
                    problems.push((
                        under(index, "disk"),
                        format!("actions[{}] partitions the same disk; write one table", earlier.index),
                    ));
                }
                if let Some((earlier, _)) = imaged.iter().find(|(_, disk)| **disk == p.disk) {
                    problems.push((
                        under(index, "disk"),
                        format!("this would destroy the image that actions[{earlier}] writes to the same disk"),
                    ));
                }
                made.push(Made {
                    index,
                    disk: &p.disk,
                    labels: p.partitions.iter().filter_map(|s| s.label.as_deref()).collect(),
                    count: p.partitions.len(),
                });
            }
            Step::Image(p) if p.target.is_none() => {
                let disk = p.disk.as_ref().unwrap_or(&nothing);
                if let Some(earlier) = made.iter().find(|m| m.disk == disk) {
                    problems.push((
                        under(index, "disk"),
                        format!(
                            "this would destroy the table that actions[{}] writes to the same disk; write the image \
                             into a partition with `target`, or leave the partitioning out",
                            earlier.index
                        ),
                    ));
                }
                if let Some((earlier, _)) = imaged.iter().find(|(_, other)| *other == disk) {
                    problems
                        .push((under(index, "disk"), format!("actions[{earlier}] writes an image to the same disk")));
                }
                imaged.push((index, disk));
            }
            _ => {}
        }
        for (path, target) in step.targets() {
            if let Some(problem) = missing(target, &made, &imaged, steps, index).filter(|_| !any) {
                problems.push((under(index, &path), problem));
            }
        }
        // Labels of file systems name their partition from here on.
        if let Step::Format(p) = step
            && let Some(label) = &p.label
            && let Some(table) = made.last_mut()
        {
            table.labels.insert(label);
        }
    }
    problems
}

/// Why a partition cannot be there, if that is certain.
fn missing(
    target: &Target,
    made: &[Made<'_>],
    imaged: &[(usize, &DiskSelector)],
    steps: &[Option<Step>],
    index: usize,
) -> Option<String> {
    // An image brings partitions that nobody can know here; so does a disk that was there before.
    let on_disk: Vec<&Made<'_>> = match &target.disk {
        Some(disk) => made.iter().filter(|m| m.disk == disk).collect(),
        None if imaged.is_empty() => made.iter().collect(),
        None => return None,
    };
    let written = |label: &str| {
        steps[index..].iter().enumerate().find_map(|(after, step)| match step {
            Some(Step::Partition(p)) if p.partitions.iter().any(|s| s.label.as_deref() == Some(label)) => {
                Some(index + after)
            }
            _ => None,
        })
    };
    match (&target.label, &target.partition) {
        (Some(label), _) if !super::given::is_template(label) => {
            if let (true, Some(later)) = (on_disk.is_empty() && target.disk.is_none(), written(label)) {
                return Some(format!("`{label}` is made by actions[{later}], which comes later"));
            }
            if on_disk.is_empty() || on_disk.iter().any(|m| m.labels.contains(label.as_str())) {
                return None;
            }
            if on_disk.iter().any(|m| m.labels.iter().any(|l| super::given::is_template(l))) {
                return None;
            }
            let known: BTreeSet<&str> = on_disk.iter().flat_map(|m| m.labels.iter().copied()).collect();
            Some(match known.len() {
                0 => format!(
                    "no step makes a partition `{label}`: actions[{}] gives its partitions no labels",
                    on_disk.first().map_or(0, |m| m.index)
                ),
                _ => format!(
                    "no step makes a partition `{label}`; there are: {}",
                    known.into_iter().collect::<Vec<_>>().join(", ")
                ),
            })
        }
        (None, Some(Given::Known(number))) => {
            let most = on_disk.iter().map(|m| m.count).max()?;
            (*number as usize > most)
                .then(|| format!("there is no partition {number}: actions[{}] makes {most}", on_disk[0].index))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
