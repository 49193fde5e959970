//! What a run tells of itself, kept so small that its object can always be written: who could not write a failure
//! down could not end the run either.

use super::WorkflowStatus;
use super::workflow::StepStatus;
use crate::wire::Failure;

/// How many bytes a run's status may have as JSON, its list of steps left out.
pub(crate) const STATUS_ROOM: usize = 128 * 1024;
/// How many bytes a step has in it beside its names: state, times, progress.
const STEP_ROOM: usize = 320;
/// How many attempts' failures are kept where there is no room for all.
const FAILURES: usize = 16;
/// How long a failure may be that was not the last, in bytes.
const SHORT: usize = 512;

/// How many bytes of JSON the list of these steps may come to.
pub(crate) fn room_of_steps<'a>(steps: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    steps.map(|(name, action)| STEP_ROOM + name.len() + action.len()).sum()
}

/// Cuts what matters least until the status has the size that it may have: causes of older failures, then the older
/// failures, then the beginning of the log's end.
pub(super) fn keep_small(status: &mut WorkflowStatus) {
    let names = |step: &StepStatus| STEP_ROOM + step.name.len() + step.action.len();
    let most = STATUS_ROOM + status.steps.iter().map(names).sum::<usize>();
    let fits = |status: &WorkflowStatus| serde_json::to_vec(status).is_ok_and(|json| json.len() <= most);
    if fits(status) {
        return;
    }
    let (attempt, last) = (status.attempt, status.failures.len().saturating_sub(1));
    status.failures.iter_mut().take(last).for_each(|f| shorten(&mut f.failure, SHORT));
    let older = status.steps.iter_mut().filter(|step| step.attempt != attempt);
    older.filter_map(|step| step.failure.as_mut()).for_each(|failure| shorten(failure, SHORT));
    if fits(status) {
        return;
    }
    // The first one tells how it began.
    status.failures.drain(1.min(last)..status.failures.len().saturating_sub(FAILURES).max(1.min(last)));
    while !fits(status) && !status.log_tail.is_empty() {
        status.log_tail = last_half(&status.log_tail).to_owned();
    }
    if fits(status) {
        return;
    }
    // More than an agent that means well says. The run's own message has the last words of all.
    status.failures.iter_mut().for_each(|f| shorten(&mut f.failure, SHORT));
    status.steps.iter_mut().for_each(|step| step.failure = None);
    shorten_text(&mut status.message, 4 * SHORT);
}

fn shorten(failure: &mut Failure, most: usize) {
    failure.causes.clear();
    shorten_text(&mut failure.message, most);
}

fn shorten_text(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

/// The second half, from the beginning of a line if there is one.
fn last_half(text: &str) -> &str {
    let half = text.get(text.ceil_char_boundary(text.len().div_ceil(2))..).unwrap_or_default();
    half.split_once('\n').map_or(half, |(_, lines)| lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::workflow::AttemptFailure;
    use crate::workflow::RunState;

    fn failure(size: usize, causes: usize) -> Failure {
        Failure { message: "\"".repeat(size), causes: vec!["\"".repeat(size); causes], kind: None }
    }

    /// What an agent may say at worst, in every place at once.
    fn worst(steps: usize, failures: u32) -> WorkflowStatus {
        let step = |n: usize| StepStatus {
            name: format!("step {n}"),
            action: "image2disk".to_owned(),
            attempt: u32::try_from(n % 3).unwrap(),
            failure: Some(failure(4096, 16)),
            ..StepStatus::default()
        };
        WorkflowStatus {
            state: RunState::Running,
            attempt: 2,
            steps: (0..steps).map(step).collect(),
            failures: (0..failures)
                .map(|attempt| AttemptFailure { attempt, step: None, failure: failure(4096, 16) })
                .collect(),
            message: "\"".repeat(8192),
            log_tail: "\"a line\"\n".repeat(64 * 1024 / 9),
            ..WorkflowStatus::default()
        }
    }

    #[test]
    fn whatever_is_told_there_is_room_for_it() {
        for steps in [0, 1, 7, 400] {
            for failures in [0, 1, 2, 16, 17, 300] {
                let mut status = worst(steps, failures);
                keep_small(&mut status);
                let size = serde_json::to_vec(&status).unwrap().len();
                let names = status.steps.iter().map(|s| (s.name.as_str(), s.action.as_str()));
                assert!(size <= STATUS_ROOM + room_of_steps(names), "{steps} steps, {failures} failures: {size}");
                assert_eq!((status.steps.len(), status.attempt, status.state), (steps, 2, RunState::Running));
                let kept: Vec<u32> = status.failures.iter().map(|f| f.attempt).collect();
                assert_eq!(kept.last(), failures.checked_sub(1).as_ref(), "the last failure stays");
                assert_eq!(kept.first(), (failures > 0).then_some(&0), "and the first");
                assert!(kept.len() <= FAILURES + 1 && !status.message.is_empty());
            }
        }
    }

    #[test]
    fn what_has_room_is_left_alone() {
        let mut status = worst(0, 1);
        status.log_tail.truncate(1000);
        status.failures[0].failure = failure(100, 3);
        let before = status.clone();
        keep_small(&mut status);
        assert_eq!(status, before);
    }

    #[test]
    fn the_end_of_the_log_is_what_stays_of_it() {
        let mut status = WorkflowStatus { log_tail: "ä \"line\"\n".repeat(20_000), ..WorkflowStatus::default() };
        status.log_tail.push_str("the last line\n");
        keep_small(&mut status);
        assert!(status.log_tail.starts_with("ä \"line\"\n") && status.log_tail.ends_with("the last line\n"));
        assert!(status.log_tail.len() > 16 * 1024);
    }
}
