//! A disk that already carries a system, on a machine that nobody has seen: it comes up, and not a
//! byte of its disk is another.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::events::Fact;
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::process::output;
use crate::lab::run::Watch;
use crate::lab::serial::Mark;
use crate::lab::world::{CLOUD_KERNEL, Wish, World};
use crate::lab::{disk, image};

/// From the agent's first line to the system that was there all along.
const PATIENCE: Duration = Duration::from_secs(60);

pub(in crate::lab) fn adopt(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: usize::from(args.machines),
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    let mut digests = Vec::new();
    for machine in &machines {
        output(Command::new("cp").arg("--sparse=always").arg(&image.raw).arg(machine.disk()))?;
        // An own serial on the disk, and its root file system stays read-only.
        place(machine, &world, "/etc/dragonfly-nonce", &machine.nonce)?;
        place(machine, &world, "/etc/dragonfly-lab-read-only", "")?;
        digests.push(digest(machine)?);
    }
    for machine in &mut machines {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
        say(format_args!("{} ({}) is on, with a system on its disk", machine.name, machine.hardware.firmware.word()));
    }
    let mut watch = Watch::new(&machines, false);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut trouble = None;
    let up = interrupt.wait_until(end, || {
        trouble = watch.step(&world, &mut machines).err();
        trouble.is_some()
            || machines.iter().all(|m| watch.state(&m.name).echoes > 0 || watch.state(&m.name).error.is_some())
    });
    interrupt.check()?;
    if let Some(error) = trouble {
        return Err(error);
    }
    ensure!(up, "a machine's own system did not come up in {} s", args.timeout);
    for (machine, before) in machines.iter_mut().zip(digests) {
        judge(machine, &world, &mut watch)?;
        machine.stop();
        ensure!(digest(machine)? == before, "{}: its disk was changed", machine.name);
        say(format_args!("{}: adopted, its own system is up, its disk is the same to the byte", machine.name));
    }
    Ok(())
}

fn judge(machine: &Machine, world: &World, watch: &mut Watch) -> Result<()> {
    let state = watch.state(&machine.name).clone();
    if let Some(error) = state.error {
        anyhow::bail!("{}: {error}", machine.name);
    }
    ensure!(state.registered, "{} was never registered", machine.name);
    ensure!(state.began == 0, "{}: a workflow began", machine.name);
    let shown = world.server.machine(&machine.name)?;
    let adopted = shown
        .pointer("/status/conditions")
        .and_then(serde_json::Value::as_array)
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Adopted" && c["status"] == "True"));
    ensure!(adopted, "{} is not shown as adopted: {}", machine.name, shown["status"]["conditions"]);
    let found = shown.pointer("/status/existingOs/name").and_then(serde_json::Value::as_str).unwrap_or_default();
    ensure!(found.contains("Debian"), "{}: the system on its disk is shown as `{found}`", machine.name);
    let entries = world.timeline.all();
    let mage = entries
        .iter()
        .find(|e| matches!(e.fact, Fact::Serial(index, Mark::Mage) if index == machine.index))
        .context("the agent's first line was not seen")?;
    let echo = entries
        .iter()
        .find(|e| matches!(&e.fact, Fact::Echo(echo) if echo.mac.eq_ignore_ascii_case(&machine.mac)))
        .context("no echo")?;
    let took = echo.at.saturating_duration_since(mage.at);
    ensure!(took <= PATIENCE, "{}: {:.1} s from the agent's start to its own system", machine.name, took.as_secs_f64());
    say(format_args!("{}: {:.1} s from the agent's start to its own system", machine.name, took.as_secs_f64()));
    Ok(())
}

fn place(machine: &Machine, world: &World, path: &str, content: &str) -> Result<()> {
    let file = world.directory.join("placed");
    std::fs::write(&file, content)?;
    let disk = std::fs::File::open(machine.disk())?;
    let root = *disk::partitions(&disk)?.iter().max_by_key(|p| p.start).context("no partition")?;
    let device = format!("{}?offset={}", machine.disk().display(), root.start);
    let request = format!("write {} {path}", file.display());
    output(Command::new("debugfs").args(["-w", "-R", &request, &device]))?;
    Ok(())
}

fn digest(machine: &Machine) -> Result<String> {
    let length = std::fs::metadata(machine.disk())?.len();
    disk::digest(machine.disk(), 0, length)
}
