//! `--scenario why`: each fault is injected for real, and the server names it while it lasts.
//!
//! Every fault strikes one machine alone, so several may be at work at a time on one server.

mod case;
mod stranger;
mod strike;
mod ward;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dragonfly_core::diagnose::Fault;
use sha2::{Digest as _, Sha256};

use crate::lab::args::{self, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::image::{self, OsImage};
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::manifest;
use crate::lab::peer::Peer;
use crate::lab::report::{WhyReport, WhyRow};
use crate::lab::world::{CLOUD_KERNEL, Wish, World};
use case::{Case, NOISE, NOISE_BYTES};
use strike::Site;
use ward::Ward;

/// How often the machines are looked at.
const PAUSE: Duration = Duration::from_millis(30);

pub(in crate::lab) fn why(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let wanted = args.named_faults()?;
    let cases: Vec<Case> =
        case::all().into_iter().filter(|case| wanted.is_empty() || wanted.contains(&case.fault)).collect();
    ensure!(!cases.is_empty(), "no such fault is injected here; see --scenario faults");
    let image = image::find_or_build(args.image, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: cases.len(),
        dhcp: args::Dhcp::Full,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    world.server.apply(&manifest::network(wish.dhcp))?;
    publish(&world, &image)?;
    let mut wards = wards(&cases, &world)?;
    let struck = |fault| wards.iter().find(|ward| ward.case.fault == fault).map(|ward| &ward.machine);
    let more = strike::other_dhcp(struck(Fault::RogueDhcp), struck(Fault::ForeignOffer));
    let other = Peer::start(&world.namespace, &world.directory, &more)?;
    let site = Site { world: &world, other: &other };
    follow(usize::from(args.machines), &site, &mut wards, interrupt)?;
    let report = WhyReport { rows: wards.iter().map(Ward::row).collect() };
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    table(&report.rows);
    let failed: Vec<_> = report.rows.iter().filter(|row| row.error.is_some()).map(|row| row.fault).collect();
    ensure!(failed.is_empty(), "not as it must be: {}", failed.join(", "));
    Ok(())
}

/// One machine a fault.
fn wards(cases: &[Case], world: &World) -> Result<Vec<Ward>> {
    let one = |(index, case): (usize, &Case)| {
        let mut machine = Machine::new(index, case.firmware, &world.directory)?;
        case::furnish(case, &mut machine)?;
        Ok(Ward::new(*case, machine))
    };
    cases.iter().enumerate().map(one).collect()
}

/// The templates of the runs that are to fail or to be interrupted, and the file that they name.
fn publish(world: &World, image: &OsImage) -> Result<()> {
    let mut noise = std::fs::File::create_new(world.server.images().join(NOISE))?;
    noise.write_all(b"not zeros, and no system")?;
    noise.set_len(NOISE_BYTES)?;
    let right = hex::encode(Sha256::digest(std::fs::read(world.server.images().join(NOISE))?));
    let step = |digest: &str| {
        format!(
            "- name: image\n  action: image2disk\n  with: {{url: /images/{NOISE}, digest: \"sha256:{digest}\"}}\n- {{name: reboot, action: reboot}}\n"
        )
    };
    for (name, steps) in
        [(case::BAD, step(&"0".repeat(64))), (case::BIG, step(&right)), (case::GOOD, manifest::disk_steps(image))]
    {
        world.server.apply(&manifest::template(name, &steps))?;
    }
    Ok(())
}

/// Until every fault has been named and mended, or its time is over.
fn follow(lanes: usize, site: &Site<'_>, wards: &mut [Ward], interrupt: &Interrupt) -> Result<()> {
    let mut seen = 0;
    let began = Instant::now();
    while !wards.iter().all(Ward::is_over) {
        interrupt.check()?;
        let busy = wards.iter().filter(|ward| ward.is_at_work()).count();
        for ward in wards.iter_mut().filter(|ward| ward.is_waiting()).take(lanes.saturating_sub(busy)) {
            say(format_args!("{:7.1} s  {}", began.elapsed().as_secs_f64(), ward.title()));
            ward.begin(site)?;
        }
        let news = site.world.timeline.since(seen);
        seen += news.len();
        for ward in wards.iter_mut().filter(|ward| ward.is_at_work()) {
            ward.step(&news, site);
            if ward.is_over() {
                say(format_args!("{:7.1} s  {}", began.elapsed().as_secs_f64(), ward.verdict()));
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn table(rows: &[WhyRow]) {
    say("\nfault               named after  afterwards");
    for row in rows {
        let after = row.error.as_deref().unwrap_or(row.afterwards);
        say(format_args!("{:18} {:>10.1} s  {after}\n    {}", row.fault, row.seconds, row.says));
    }
}
