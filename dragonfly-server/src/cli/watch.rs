//! Following what happens.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use dragonfly_core::clock::{Clock as _, SystemClock};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::{Mac, name};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::args::Until;
use super::client::{Client, NotThere};
use super::output::{self, Out};
use super::verbs::event_line;
use crate::view::{self, Machine};

/// Longest line of an event stream that is read.
const LONGEST: usize = 1024 * 1024;
/// How long nothing is told until the machine is looked at again.
const LOOK: Duration = Duration::from_secs(5);

pub(super) async fn watch(
    client: &Client,
    out: &Out,
    machine: Option<&str>,
    until: Option<Until>,
    seconds: Option<u64>,
) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + seconds.map_or(Duration::from_secs(u64::from(u32::MAX)), Duration::from_secs);
    let Ok(done) = timeout_at(end, follow(client, out, machine, until)).await else {
        anyhow::bail!("{} did not get there in {} seconds", machine.unwrap_or_default(), seconds.unwrap_or_default());
    };
    done
}

async fn follow(client: &Client, out: &Out, machine: Option<&str>, until: Option<Until>) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    let mut first = true;
    let mut way = Way::default();
    if let Some(machine) = machine {
        way.is_known = may_come(client, machine).await?;
    }
    loop {
        let mut query = Vec::new();
        if let Some(machine) = machine {
            query.push(("machine", machine));
        }
        if !last.is_empty() {
            query.push(("after", last.as_str()));
        }
        let stream = client.stream(&["dragonfly", "v1", "events"], &query).await;
        // A server that restarts is waited for; one that never answered is an error at once.
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) if first => return Err(error),
            Err(_) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        first = false;
        // Looked at after the stream stands, so that nothing falls between.
        if let Some(code) = arrived(client, out, machine, until, &mut way).await? {
            return Ok(code);
        }
        let mut frames = Frames::default();
        let mut bytes = stream.bytes_stream();
        loop {
            let Ok(chunk) = timeout(LOOK, bytes.next()).await else {
                // What was told a moment before it could be seen is seen now.
                if let Some(code) = arrived(client, out, machine, until, &mut way).await? {
                    return Ok(code);
                }
                continue;
            };
            let Some(Ok(chunk)) = chunk else { break };
            for frame in frames.add(&chunk)? {
                if !frame.id.is_empty() {
                    last.clone_from(&frame.id);
                }
                if frame.event == "gap" {
                    out.line("(some events were lost)")?;
                    continue;
                }
                let Ok(event) = serde_json::from_str::<Value>(&frame.data) else { continue };
                out.line(&event_line(&event))?;
                let kind = event.get("type").and_then(Value::as_str);
                way.is_at_work |= kind == Some("workflow.aborted");
                if kind != Some("step.progress")
                    && let Some(code) = arrived(client, out, machine, until, &mut way).await?
                {
                    return Ok(code);
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// How far a machine was on its way when it was last looked at.
#[derive(Debug, Default)]
struct Way {
    /// It was there: where it is no more, it was deleted.
    is_known: bool,
    /// It had a workflow before it: without one, that was called off.
    is_at_work: bool,
}

impl Way {
    /// Whether a machine that is in this phase now had its workflow called off.
    fn is_called_off(&mut self, phase: Option<Phase>) -> bool {
        let was_at_work = self.is_at_work;
        self.is_at_work = matches!(phase, Some(Phase::Assigned | Phase::Provisioning));
        was_at_work && matches!(phase, None | Some(Phase::Registered))
    }
}

/// Whether the machine is known. Says so when nobody has seen it yet, and fails when no machine can ever be called that.
async fn may_come(client: &Client, machine: &str) -> anyhow::Result<bool> {
    let unknown = match client.get(&["dragonfly", "v1", "machines", machine], &[]).await {
        Ok(_) => return Ok(true),
        Err(error) if error.is::<NotThere>() => error,
        Err(error) => return Err(error),
    };
    // One that has asked and not reported has a timeline.
    let timeline = client.get(&["dragonfly", "v1", "machines", machine, "timeline"], &[]).await.unwrap_or_default();
    if timeline.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty()) {
        return Ok(false);
    }
    if machine.parse::<Mac>().is_err() {
        name::check(&machine.to_lowercase()).with_context(|| {
            format!("no machine can be called `{machine}`; give its name, as CensusAbleQualityParent, or a MAC")
        })?;
    }
    output::note(&format!("nobody has seen {machine} yet; waiting for it ({unknown})"));
    Ok(false)
}

/// The exit code, once the machine is where it was waited for.
async fn arrived(
    client: &Client,
    out: &Out,
    machine: Option<&str>,
    until: Option<Until>,
    way: &mut Way,
) -> anyhow::Result<Option<ExitCode>> {
    let (Some(machine), Some(Until::Ready)) = (machine, until) else { return Ok(None) };
    let mut whole = match client.get(&["dragonfly", "v1", "machines", machine], &[]).await {
        Ok(whole) => whole,
        Err(error) if way.is_known && error.is::<NotThere>() => {
            anyhow::bail!("{machine} was deleted: it will not be ready");
        }
        // A machine may be waited for before it was ever seen.
        Err(_) => return Ok(None),
    };
    let line: Machine = serde_json::from_value(whole.get_mut("machine").map(Value::take).unwrap_or_default())
        .context("the server describes its machines in another way: is it of another version?")?;
    way.is_known = true;
    if way.is_called_off(line.phase) {
        anyhow::bail!("{} will not be ready, it has nothing to do any more: {}", line.display_name, line.message);
    }
    let failed = matches!(line.phase, Some(Phase::Error | Phase::Held));
    if line.phase == Some(Phase::Ready) || failed {
        let since = line.phase_since.map(|t| view::ago(SystemClock.now(), t)).unwrap_or_default();
        out.line(&format!(
            "{} is {} since {since}: {}",
            line.display_name,
            view::phase_word(line.phase),
            line.message
        ))?;
    }
    Ok(match line.phase {
        Some(Phase::Ready) => Some(ExitCode::SUCCESS),
        _ if failed => Some(ExitCode::FAILURE),
        _ => None,
    })
}

/// One server-sent event.
#[derive(Debug, Default, Clone, PartialEq)]
struct Frame {
    event: String,
    id: String,
    data: String,
}

/// Puts server-sent events together from pieces (WHATWG HTML, "server-sent events").
#[derive(Debug, Default)]
struct Frames {
    rest: Vec<u8>,
    now: Frame,
}

impl Frames {
    fn add(&mut self, chunk: &[u8]) -> anyhow::Result<Vec<Frame>> {
        self.rest.extend_from_slice(chunk);
        let mut done = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let frame = std::mem::take(&mut self.now);
                if !frame.data.is_empty() {
                    done.push(frame);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.now.event),
                "id" => value.clone_into(&mut self.now.id),
                "data" => {
                    if !self.now.data.is_empty() {
                        self.now.data.push('\n');
                    }
                    self.now.data.push_str(value);
                }
                _ => {}
            }
        }
        anyhow::ensure!(self.rest.len() + self.now.data.len() < LONGEST, "the server sends a line without end");
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together_from_any_pieces() {
        let text = b": hello\n\nevent: a\nid: 1.2\ndata: {\"x\":1}\n\nevent: gap\ndata: lost\n\n";
        let whole = Frames::default().add(text).unwrap();
        let mut frames = Frames::default();
        let pieces: Vec<Frame> = text.iter().flat_map(|b| frames.add(&[*b]).unwrap()).collect();
        assert_eq!(whole, pieces);
        assert_eq!((whole.len(), whole[0].id.as_str(), whole[1].event.as_str()), (2, "1.2", "gap"));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        assert!(Frames::default().add(&vec![b'x'; LONGEST + 1]).is_err());
    }
}
