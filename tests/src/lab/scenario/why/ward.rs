//! One machine with its fault, from power-on until the fault is named, and mended.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dragonfly_core::clock::{Clock as _, SystemClock};
use dragonfly_core::event::Event;
use serde_json::{Value, json};

use super::case::{self, After, At, Case, GOOD, Strike};
use super::strike::{self, Rules, Site};
use crate::lab::events::{Entry, Fact};
use crate::lab::http;
use crate::lab::machine::Machine;
use crate::lab::report::WhyRow;
use crate::lab::run::machine_of;
use crate::lab::server;

/// How long a machine may take to where its fault strikes, and how long the fault may stay without its name.
/// The longest that the server itself waits before it speaks is 150 s.
const TO_NAME: Duration = Duration::from_secs(420);
/// How long a machine may take to get on when its fault has been mended.
const TO_MEND: Duration = Duration::from_secs(300);
/// How often the server is asked.
const ASK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// On its way to where the fault strikes.
    Healthy,
    /// The fault is there.
    Struck,
    /// The fault has been named and mended.
    Mended,
    Over,
}

#[derive(Debug)]
pub(super) struct Ward {
    pub(super) case: Case,
    pub(super) machine: Machine,
    state: State,
    /// When this state was entered.
    since: Instant,
    asked: Instant,
    assigned: bool,
    greeted: bool,
    rules: Option<Rules>,
    row: WhyRow,
}

impl Ward {
    pub(super) fn new(case: Case, machine: Machine) -> Self {
        let now = Instant::now();
        let row = WhyRow {
            fault: case.fault.code(),
            machine: machine.name.clone(),
            firmware: case.firmware.word(),
            afterwards: "",
            ..WhyRow::default()
        };
        Self {
            case,
            machine,
            state: State::Waiting,
            since: now,
            asked: now,
            assigned: false,
            greeted: false,
            rules: None,
            row,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub(super) fn is_at_work(&self) -> bool {
        !self.is_waiting() && !self.is_over()
    }

    pub(super) fn title(&self) -> String {
        format!("{:18} {} ({}, {})", self.row.fault, self.machine.name, self.machine.mac, self.row.firmware)
    }

    pub(super) fn verdict(&self) -> String {
        let words = self.row.error.as_deref().unwrap_or("named, and then as it must be");
        format!("{:18} {words}", self.row.fault)
    }

    pub(super) fn row(&self) -> WhyRow {
        self.row.clone()
    }

    /// Switches its machine on.
    pub(super) fn begin(&mut self, site: &Site<'_>) -> Result<()> {
        self.enter(State::Healthy);
        if self.case.at == At::Start {
            self.strike(None, site)?;
        }
        if self.case.strike != Strike::Alien {
            self.machine.start(&site.world.namespace, site.world.accel, &site.world.timeline)?;
        }
        Ok(())
    }

    /// Takes in what is new, and asks the server now and then.
    pub(super) fn step(&mut self, news: &[Entry], site: &Site<'_>) {
        if let Err(error) = self.try_step(news, site) {
            self.fail(format!("{error:#}"), site);
        }
    }

    fn enter(&mut self, state: State) {
        (self.state, self.since, self.asked) = (state, Instant::now(), Instant::now());
    }

    fn fail(&mut self, why: String, site: &Site<'_>) {
        self.keep(site);
        self.row.error = Some(why);
        self.end();
    }

    fn end(&mut self) {
        self.machine.stop();
        self.enter(State::Over);
    }

    fn try_step(&mut self, news: &[Entry], site: &Site<'_>) -> Result<()> {
        for entry in news {
            let Fact::Event(event) = &entry.fact else { continue };
            if machine_of(event, std::slice::from_ref(&self.machine)).is_some() {
                self.take(event, site)?;
            }
        }
        if self.case.strike != Strike::Alien {
            self.machine.must_run()?;
        }
        let limit = if self.state == State::Mended { TO_MEND } else { TO_NAME };
        let late = self.since.elapsed() > limit;
        if self.asked.elapsed() < ASK && !late {
            return Ok(());
        }
        self.asked = Instant::now();
        match self.state {
            State::Healthy => ensure!(!late, "the machine did not get to where its fault strikes ({:?})", self.case.at),
            State::Struck => {
                let why = self.why(site)?;
                if !self.is_named(&why) {
                    let told = self.row.others.join(", ");
                    ensure!(!late, "not named after {} s; named: {told}", limit.as_secs());
                    return Ok(());
                }
                // A run that is tried again meanwhile is asked again.
                let page = self.page(site)?;
                let silent = [self.case.fault.name(), why["causes"][0]["says"].as_str().unwrap_or_default()]
                    .into_iter()
                    .find(|words| !page.contains(&escaped(words)));
                if let Some(words) = silent {
                    ensure!(!late, "the machine's page does not say `{words}`");
                    return Ok(());
                }
                self.named(&why, site)?;
            }
            State::Mended => {
                let named = self.is_named(&self.why(site)?);
                let back = self.greeted || self.case.after == After::GoesOn;
                if back && !named {
                    self.row.afterwards = if self.greeted { "its agent is up" } else { "it went on" };
                    self.end();
                } else {
                    ensure!(!late, "mended, and {} s later {}", limit.as_secs(), after(back, named));
                }
            }
            State::Waiting | State::Over => {}
        }
        Ok(())
    }

    fn take(&mut self, event: &Event, site: &Site<'_>) -> Result<()> {
        let kind = event.kind.as_str();
        let greets = matches!(kind, "machine.registered" | "machine.hello");
        self.greeted |= greets && self.state == State::Mended;
        if greets && self.case.strike == Strike::Pause && !self.assigned {
            self.assigned = true;
            let value = format!("nonce={}", self.machine.nonce);
            site.world.server.cli(&["assign", &self.machine.name, "--template", GOOD, "--value", &value, "--yes"])?;
        }
        if self.state == State::Healthy && self.case.at == At::Event(kind_of(kind)) {
            self.strike(Some(event), site)?;
        }
        Ok(())
    }

    fn strike(&mut self, event: Option<&Event>, site: &Site<'_>) -> Result<()> {
        self.rules = strike::strike(&self.case, &self.machine, event, site)?;
        self.enter(State::Struck);
        Ok(())
    }

    fn why(&self, site: &Site<'_>) -> Result<Value> {
        Ok(serde_json::from_str(&site.world.server.cli(&["why", &self.machine.mac, "-o", "json"])?)?)
    }

    /// Whether the nearest cause is the one that was made. Any other name is taken down.
    fn is_named(&mut self, why: &Value) -> bool {
        let causes = why["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = causes.iter().filter_map(|cause| cause["fault"].as_str()).collect();
        for name in &names {
            if *name != self.row.fault && !self.row.others.iter().any(|other| other == name) {
                self.row.others.push((*name).to_owned());
                self.row.others_said.push(causes.iter().map(Value::to_string).collect());
            }
        }
        names.first() == Some(&self.row.fault)
    }

    fn named(&mut self, why: &Value, site: &Site<'_>) -> Result<()> {
        let cause = &why["causes"][0];
        let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
        (self.row.says, self.row.next) = (text("says"), text("next"));
        let evidence = cause["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.row.evidence = evidence.iter().filter_map(|seen| Some(seen["words"].as_str()?.to_owned())).collect();
        self.row.seconds = self.since.elapsed().as_secs_f64();
        self.keep(site);
        ensure!(!self.row.next.is_empty() && !self.row.evidence.is_empty(), "named without evidence or advice");
        ensure!(self.row.others.is_empty(), "named, but first as {}", self.row.others.join(", "));
        strike::mend(&self.case, &self.machine, self.rules.as_ref(), site)?;
        match self.case.after {
            After::Nothing => {
                self.end();
                return Ok(());
            }
            After::GoesOn => {}
            After::Boots => {
                self.machine.cut_power();
                case::refurnish(&self.case, &mut self.machine)?;
                self.machine.start(&site.world.namespace, site.world.accel, &site.world.timeline)?;
            }
        }
        self.enter(State::Mended);
        Ok(())
    }

    fn page(&self, site: &Site<'_>) -> Result<String> {
        let token = std::fs::read_to_string(site.world.server.token_file())?;
        let stream = site.world.namespace.door().connect(server::address())?;
        let answer = http::get(stream, &format!("/machines/{}", self.machine.mac), token.trim(), &[])?;
        ensure!(answer.status == 200, "the machine's page: {}", answer.status);
        answer.body.text(1 << 20)
    }

    /// The timeline as it is now, and what was made of it: for whoever looks into it later, and for the
    /// diagnoser's own tests, which read such files.
    fn keep(&self, site: &Site<'_>) {
        let shown = |verb: &str| {
            let text = site.world.server.cli(&[verb, &self.machine.mac, "-o", "json"]).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        let mut why = shown("why");
        if let Some(why) = why.as_mut().and_then(Value::as_object_mut) {
            // They are on the timeline.
            why.remove("events");
        }
        let kept = json!({
            "fault": self.row.fault,
            "at": SystemClock.now(),
            "why": why,
            "timeline": shown("timeline"),
        });
        let file = site.world.directory.join(format!("{:02}-{}.json", self.machine.index + 1, self.row.fault));
        let _ = std::fs::write(file, format!("{kept:#}\n"));
    }
}

/// As it stands in a table of cases.
fn kind_of(kind: &str) -> &'static str {
    let known = ["dhcp.offer", "boot.identity", "machine.registered", "step.began"];
    known.into_iter().find(|known| *known == kind).unwrap_or_default()
}

fn after(back: bool, named: bool) -> &'static str {
    match (back, named) {
        (false, _) => "its agent is not up",
        (true, _) => "the fault is named still",
    }
}

/// As it stands in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;").replace('\'', "&#39;").replace('"', "&#34;")
}
