//! A machine's timeline, once or as it goes on.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::args::Format;
use super::client::Client;
use super::output::Out;
use super::verbs::to_millis;

/// How long one question waits for news.
const WAIT: &str = "25";

pub(super) async fn timeline(
    client: &Client,
    out: &Out,
    machine: &str,
    follow: bool,
    format: Format,
) -> anyhow::Result<()> {
    let path = ["dragonfly", "v1", "machines", machine, "timeline"];
    let answer = client.get(&path, &[]).await?;
    let mut place = Place::default();
    match (format, follow) {
        (Format::Json, false) => return Ok(out.json(&answer)?),
        (Format::Yaml, false) => return Ok(out.yaml(&answer)?),
        _ => show(out, &mut place, &answer, format)?,
    }
    if place.after == 0 && format == Format::Table {
        out.line(&format!("nothing was heard from {machine} since the server started"))?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        let after = place.after.to_string();
        match client.get(&path, &[("after", &after), ("waitSeconds", WAIT)]).await {
            Ok(answer) => show(out, &mut place, &answer, format)?,
            // A server that restarts is waited for.
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Where a reader stands.
#[derive(Debug, Default)]
struct Place {
    run: u64,
    after: u64,
    boot: Option<u64>,
}

impl Place {
    /// What of an answer is new. After a restart of the server its numbers begin anew.
    fn news<'a>(&mut self, answer: &'a Value) -> Vec<&'a Value> {
        let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or_default();
        let run = number(answer, "run");
        if self.run != run {
            let first = self.run == 0;
            *self = Self { run, ..Self::default() };
            if !first {
                // Asked by the old numbers: what came is not all.
                return Vec::new();
            }
        }
        let items: Vec<_> = answer.get("items").and_then(Value::as_array).into_iter().flatten().collect();
        self.after = items.last().map_or(self.after, |last| number(last, "id"));
        items
    }
}

fn show(out: &Out, place: &mut Place, answer: &Value, format: Format) -> anyhow::Result<()> {
    for line in place.news(answer) {
        if format == Format::Json {
            out.line(&line.to_string())?;
            continue;
        }
        let boot = line.get("boot").and_then(Value::as_u64).unwrap_or_default();
        if place.boot != Some(boot) {
            place.boot = Some(boot);
            out.line(&heading(boot))?;
        }
        out.line(&words(line))?;
    }
    Ok(())
}

fn heading(boot: u64) -> String {
    if boot == 0 { "--- before its first boot".to_owned() } else { format!("--- boot {boot}") }
}

/// One entry as a line: when, how long after the boot began, what.
fn words(line: &Value) -> String {
    let text = |field: &str| line.get(field).and_then(Value::as_str).unwrap_or_default();
    let seconds = line.get("seconds").and_then(Value::as_f64).unwrap_or_default();
    let times = match line.get("times").and_then(Value::as_u64) {
        Some(times) if times > 1 => format!(" ({times} times)"),
        _ => String::new(),
    };
    let (time, kind, message) = (to_millis(text("time")), text("type"), text("message"));
    // Before the first boot there is nothing to count from.
    let booted = line.get("boot").and_then(Value::as_u64) != Some(0);
    let after = if booted { format!("{seconds:+10.3} s") } else { " ".repeat(12) };
    format!("{time}  {after}  {kind:<18}  {message}{times}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_when_how_long_after_and_what() {
        let line = json!({
            "id": 7, "time": "2026-11-21T09:00:01.5Z", "boot": 1, "seconds": 1.25, "type": "dhcp.discover", "times": 3,
            "message": "firmware asks",
        });
        assert_eq!(words(&line), "2026-11-21T09:00:01.500      +1.250 s  dhcp.discover       firmware asks (3 times)");
    }

    #[test]
    fn what_was_done_before_the_first_boot_has_a_heading_and_no_seconds() {
        let line = json!({ "time": "2026-11-21T09:00:01Z", "boot": 0, "seconds": 0.0, "type": "object.applied", "message": "m" });
        assert_eq!(words(&line), "2026-11-21T09:00:01.000                object.applied      m");
        assert_eq!([heading(0), heading(2)], ["--- before its first boot", "--- boot 2"]);
    }

    #[test]
    fn each_line_is_shown_once_and_a_restart_begins_anew() {
        let answer = |run: u64, ids: &[u64]| json!({ "run": run, "items": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>() });
        let mut place = Place::default();
        assert_eq!(place.news(&answer(1, &[3, 4])).len(), 2);
        assert_eq!(place.after, 4);
        assert_eq!(place.news(&answer(1, &[])).len(), 0);
        assert_eq!(place.news(&answer(2, &[9])).len(), 0, "asked by numbers of another run");
        assert_eq!(place.after, 0);
        assert_eq!(place.news(&answer(2, &[1, 9])).len(), 2);
    }
}
