//! The report: medians, ratios, and every figure they were made from.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

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
    host: BTreeMap<&'static str, String>,
}

/// Whether less is better.
fn is_cost(unit: &str) -> bool {
    !unit.ends_with("/s")
}

impl Report {
    pub(crate) fn new(what: &'static str, unit: &'static str) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let host = BTreeMap::from([
            ("cores", cores.to_string()),
            ("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ]);
        let none = BTreeMap::new;
        let (ours, peers, ratio, raw) = (none(), BTreeMap::new(), none(), BTreeMap::new());
        let (versions, commands, durability) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { what, unit, ours, peers, ratio, units: BTreeMap::new(), raw, versions, commands, durability, host }
    }

    /// One figure of ours.
    pub(crate) fn ours(&mut self, case: &str, unit: &'static str, figure: f64) {
        self.note(OURS, case, unit, figure);
    }

    /// One figure of somebody's.
    pub(crate) fn note(&mut self, who: &str, case: &str, unit: &'static str, figure: f64) {
        let case = format!("{case}, {unit}");
        self.raw.entry(who.to_owned()).or_default().entry(case.clone()).or_default().push(rounded(figure));
        self.units.insert(case, unit);
    }

    /// Who took part: its version, its command line, what it promises about the disk.
    pub(crate) fn took_part(&mut self, who: &str, version: &str, command: &str, durability: &str) {
        self.versions.insert(who.to_owned(), version.to_owned());
        self.commands.insert(who.to_owned(), command.to_owned());
        self.durability.insert(who.to_owned(), durability.to_owned());
    }

    /// Makes medians and ratios of what was noted.
    pub(crate) fn done(mut self) -> Self {
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
        self
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

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
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
        let mut report = Report::new("t", "mixed");
        for (rate, time) in [(10.0, 4.0), (30.0, 1.0), (20.0, 2.0)] {
            report.ours("a", "answers/s", rate);
            report.ours("a", "ms", time);
            report.note("peer", "a", "answers/s", rate * 2.0);
            report.note("peer", "a", "ms", time * 3.0);
        }
        report.ours("alone", "MiB", 1.0);
        let report = report.done();
        assert_eq!(report.ours["a, answers/s"], 20.0);
        assert_eq!(report.ours["a, ms"], 2.0);
        assert_eq!(report.ratio, BTreeMap::from([("peer/a, answers/s".into(), 0.5), ("peer/a, ms".into(), 3.0)]));
        assert_eq!(report.raw["peer"]["a, ms"], [12.0, 3.0, 6.0]);
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
