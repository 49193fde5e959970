//! The report: medians, ratios, and every figure they were made from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::lab::console::complain;

const OURS: &str = "dragonfly";

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    what: &'static str,
    unit: &'static str,
    ours: BTreeMap<String, f64>,
    peers: BTreeMap<String, BTreeMap<String, f64>>,
    /// `peer/case` to how many times ours is better: inverted for times and sizes.
    ratio: BTreeMap<String, f64>,
    units: BTreeMap<String, &'static str>,
    raw: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    versions: BTreeMap<String, String>,
    commands: BTreeMap<String, String>,
    durability: BTreeMap<String, String>,
    host: BTreeMap<String, String>,
    /// Where it is kept.
    #[serde(skip)]
    file: Option<PathBuf>,
}

/// Whether less is better.
fn is_cost(unit: &str) -> bool {
    !unit.ends_with("/s")
}

impl Report {
    /// An empty one, kept in `file` if there is one.
    pub(crate) fn new(what: &'static str, unit: &'static str, file: Option<&Path>) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let host = BTreeMap::from([("cores".into(), cores.to_string()), ("load before".into(), load())]);
        let none = BTreeMap::new;
        let (ours, peers, ratio, raw) = (none(), BTreeMap::new(), none(), BTreeMap::new());
        let (versions, commands, durability) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (units, file) = (BTreeMap::new(), file.map(Path::to_owned));
        Self { what, unit, ours, peers, ratio, units, raw, versions, commands, durability, host, file }
    }

    /// One figure of ours.
    pub(crate) fn ours(&mut self, case: &str, unit: &'static str, figure: f64) {
        self.note(OURS, case, unit, figure);
    }

    /// One figure of somebody's. It is told at once, beside the report: a run takes many minutes.
    pub(crate) fn note(&mut self, who: &str, case: &str, unit: &'static str, figure: f64) {
        let (case, figure) = (format!("{case}, {unit}"), rounded(figure));
        complain(format_args!("{who}: {case}: {figure}"));
        self.raw.entry(who.to_owned()).or_default().entry(case.clone()).or_default().push(figure);
        self.units.insert(case, unit);
    }

    /// Who took part: its version, its command line, what it promises about the disk.
    pub(crate) fn took_part(&mut self, who: &str, version: &str, command: &str, durability: &str) {
        self.versions.insert(who.to_owned(), version.to_owned());
        self.commands.insert(who.to_owned(), command.to_owned());
        self.durability.insert(who.to_owned(), durability.to_owned());
    }

    /// How many times more a case costs somebody at the last of `places` than at the first: of its medians.
    pub(crate) fn growth(&mut self, case: &str, places: [&str; 2]) {
        let mut grown = Vec::new();
        for (who, cases) in &self.raw {
            for unit in self.units.values().copied().collect::<BTreeSet<_>>() {
                let at = |place: &str| cases.get(&format!("{case}, {place}, {unit}")).map(|figures| median(figures));
                if let [Some(first), Some(last)] = places.map(at) {
                    let times = if is_cost(unit) { last / first } else { first / last };
                    grown.push((who.clone(), times));
                }
            }
        }
        for (who, times) in grown {
            self.note(&who, &format!("{case}: {} beside {}", places[1], places[0]), "times the cost", times);
        }
    }

    /// A part is done: whatever becomes of the rest of the run, this much is in the file.
    pub(crate) fn keep(&mut self, part: &str) -> Result<()> {
        self.host.insert(format!("load after {part}"), load());
        self.sum_up();
        let Some(file) = &self.file else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        // Beside it and then into its place: a run that is cut in the middle of this keeps the one before.
        let mut beside = file.clone().into_os_string();
        beside.push(".part");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, file))
            .with_context(|| file.display().to_string())
    }

    /// Makes medians and ratios of what was noted.
    fn sum_up(&mut self) {
        for (who, cases) in &self.raw {
            let medians = cases.iter().map(|(case, figures)| (case.clone(), median(figures))).collect();
            if who == OURS {
                self.ours = medians;
            } else {
                self.peers.insert(who.clone(), medians);
            }
        }
        for (peer, cases) in &self.peers {
            for (case, theirs) in cases {
                let Some(ours) = self.ours.get(case) else { continue };
                let cost = self.units.get(case).is_some_and(|unit| is_cost(unit));
                let (more, less) = if cost { (theirs, ours) } else { (ours, theirs) };
                if *less > 0.0 {
                    self.ratio.insert(format!("{peer}/{case}"), rounded(more / less));
                }
            }
        }
    }

    /// For people: one line a case.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (case, ours) in &self.ours {
            let mut line = format!("{case}: {ours}");
            for (peer, cases) in &self.peers {
                if let Some(theirs) = cases.get(case) {
                    let ratio = self.ratio.get(&format!("{peer}/{case}")).copied().unwrap_or_default();
                    line.push_str(&format!("   {peer} {theirs} (x {ratio})"));
                }
            }
            lines.push(line);
        }
        lines
    }
}

/// How busy the machine has been: in the last minute, five, fifteen.
fn load() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => rounded(f64::midpoint(sorted[n / 2 - 1], sorted[n / 2])),
    }
}

/// Four digits that count.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return 0.0;
    }
    let places = 3 - figure.abs().log10().floor() as i32;
    let scale = 10f64.powi(places);
    (figure * scale).round() / scale
}

/// How long things took.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In milliseconds, the time that this part of them (0 to 1) did not exceed.
    pub(crate) fn part(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_means_ours_is_better_whatever_the_unit() {
        let mut report = Report::new("t", "mixed", None);
        for (rate, time) in [(10.0, 4.0), (30.0, 1.0), (20.0, 2.0)] {
            report.ours("a", "answers/s", rate);
            report.ours("a", "ms", time);
            report.note("peer", "a", "answers/s", rate * 2.0);
            report.note("peer", "a", "ms", time * 3.0);
        }
        report.ours("alone", "MiB", 1.0);
        report.sum_up();
        assert_eq!(report.ours["a, answers/s"], 20.0);
        assert_eq!(report.ours["a, ms"], 2.0);
        assert_eq!(report.ratio, BTreeMap::from([("peer/a, answers/s".into(), 0.5), ("peer/a, ms".into(), 3.0)]));
        assert_eq!(report.raw["peer"]["a, ms"], [12.0, 3.0, 6.0]);
    }

    #[test]
    fn growth_is_in_cost_whatever_the_unit() {
        let mut report = Report::new("t", "mixed", None);
        for (rate, time) in [(100.0, 1.0), (300.0, 3.0), (200.0, 2.0)] {
            report.ours("read, 10 machines", "reads/s", rate);
            report.ours("read, 100 machines", "reads/s", rate / 4.0);
            report.note("peer", "list, 10 machines", "ms", time);
            report.note("peer", "list, 100 machines", "ms", time * 8.0);
        }
        report.growth("read", ["10 machines", "100 machines"]);
        report.growth("list", ["10 machines", "100 machines"]);
        report.growth("read", ["10 machines", "1000 machines"]);
        report.sum_up();
        assert_eq!(report.ours["read: 100 machines beside 10 machines, times the cost"], 4.0);
        assert_eq!(report.peers["peer"]["list: 100 machines beside 10 machines, times the cost"], 8.0);
        assert_eq!(report.ours.len() + report.peers["peer"].len(), 6);
    }

    #[test]
    fn a_run_that_is_cut_keeps_the_parts_that_were_done() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.json");
        let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&file).unwrap()).unwrap();
        let mut report = Report::new("t", "mixed", Some(&file));
        report.ours("a", "ms", 1.0);
        report.keep("first").unwrap();
        assert_eq!((&read()["ours"]["a, ms"], read()["host"]["load after first"].is_string()), (&1.0.into(), true));
        report.ours("a", "ms", 4.0);
        report.ours("b", "ms", 5.0);
        assert_eq!(read()["ours"]["b, ms"], serde_json::Value::Null, "not done yet");
        report.keep("second").unwrap();
        assert_eq!((&read()["ours"]["a, ms"], &read()["ours"]["b, ms"]), (&2.5.into(), &5.0.into()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let mut times = Times::default();
        assert_eq!(times.part(0.99), 0.0);
        for n in (1..=100).rev() {
            times.add(Duration::from_millis(n));
        }
        assert_eq!([times.part(0.0), times.part(0.5), times.part(0.99), times.part(1.0)], [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(
            [median(&[3.0, 1.0]), median(&[5.0]), rounded(123_456.0), rounded(0.012_345)],
            [2.0, 5.0, 123_500.0, 0.012_35]
        );
    }
}
