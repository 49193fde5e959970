//! `--scenario faults`: whatever fails on the way, the machine ends Ready.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::args;
use super::super::console::say;
use super::super::fault::{Fault, Point, Victim};
use super::super::interrupt::Interrupt;
use super::super::run::install;

/// How long a cable stays out: longer than any single retry of firmware, iPXE and agent.
const PULLED: Duration = Duration::from_secs(60);

/// One machine after the other, each with one fault: the server and the machine at every point, the cable at
/// three of them.
pub(crate) fn faults(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let everywhere = Point::ALL.map(|(_, point)| point);
    let cases: Vec<Fault> = if args.fault.is_empty() {
        let of = |victim| everywhere.map(|at| Fault { victim, at });
        let link = [Point::Kernel, Point::Began, Point::Image].map(|at| Fault { victim: Victim::Link(PULLED), at });
        [of(Victim::Server).as_slice(), of(Victim::Machine).as_slice(), link.as_slice()].concat()
    } else {
        args.faults_at_points()?
    };
    let mut rows = Vec::new();
    let mut failed = 0;
    for fault in &cases {
        interrupt.check()?;
        say(format_args!("--- {fault}"));
        let began = Instant::now();
        let one = args::Run { fault: vec![args::Wanted::At(*fault)], machines: 1, report: None, ..args.clone() };
        let end = install(&one, interrupt);
        failed += usize::from(end.is_err());
        let words = end.err().map_or("Ready".to_owned(), |error| format!("{error:#}"));
        rows.push(format!("{:22} {:6.1} s  {words}", fault.to_string(), began.elapsed().as_secs_f64()));
    }
    say("\nfault                  all in    end");
    for row in rows {
        say(row);
    }
    if failed > 0 {
        bail!("{failed} of {} faults did not end with a machine that is Ready", cases.len());
    }
    Ok(())
}
