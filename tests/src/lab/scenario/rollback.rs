//! `--scenario rollback`: while a machine is being installed the server's data is copied; when the machine is Ready the
//! copy is put back, as a snapshot of a virtual machine is, and nobody says so. The disk is not written again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::args;
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::disk;
use crate::lab::events::Fact;
use crate::lab::image;
use crate::lab::interrupt::Interrupt;
use crate::lab::manifest;
use crate::lab::process::output;
use crate::lab::run::{TEMPLATE, Watch, steps};
use crate::lab::world::{CLOUD_KERNEL, Wish, World};

pub(in crate::lab) fn rollback(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(args.image, args.template, interrupt)?;
    let wish = Wish {
        machines: 1,
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let mut world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    world.server.apply(&manifest::template(TEMPLATE, &steps(args.template, &image)))?;
    let mut watch = Watch::new(&machines, true);
    for machine in &mut machines {
        machine.hardware.boot_again();
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let name = machines[0].name.clone();
    let copy = world.server.data().with_extension("copy");

    let phase = |world: &World| -> Option<String> {
        let shown = world.server.machine(&name).ok()?;
        shown.pointer("/status/phase")?.as_str().map(str::to_owned)
    };
    let begun = interrupt.wait_until(end, || {
        watch.step(&world, &mut machines).is_err() || phase(&world).as_deref() == Some("Provisioning")
    });
    ensure!(begun && phase(&world).as_deref() == Some("Provisioning"), "{name} is not being installed in time");
    world.server.kill();
    put(world.server.data(), &copy)?;
    world.server.run(interrupt)?;
    say(format_args!("           {name} is being installed: the server's data is copied"));
    let settled = interrupt.wait_until(end, || watch.step(&world, &mut machines).is_err() || watch.all_settled());
    interrupt.check()?;
    watch.give_up(&machines);
    let state = watch.state(&name).clone();
    ensure!(settled && state.error.is_none(), "{name} is not Ready: {}", state.error.unwrap_or_default());
    let before = disk::identity(machines[0].disk())?;

    world.server.kill();
    std::fs::remove_dir_all(world.server.data())?;
    put(&copy, world.server.data())?;
    let seen = world.timeline.all().len();
    world.server.run(interrupt)?;
    ensure!(phase(&world).as_deref() == Some("Provisioning"), "the server does not believe its copy");
    machines[0].reset()?;
    say(format_args!("           {name} is Ready; the server is put back to before that, and {name} is reset"));
    let refused = |fact: &Fact| {
        matches!(fact, Fact::Event(event)
            if event.kind == "workflow.failed" && event.message.contains("was handed over"))
    };
    let told = interrupt.wait_until(end, || {
        let failed = phase(&world).as_deref() == Some("Error");
        failed && world.timeline.since(seen).iter().any(|entry| refused(&entry.fact))
    });
    interrupt.check()?;
    ensure!(told, "that {name} was handed over before is not told: it is {:?}", phase(&world));
    if let Some(what) = disk::identity(machines[0].disk())?.differs(&before) {
        anyhow::bail!("{name} was Ready, and {what} is another");
    }
    let why = world.server.cli(&["why", &name])?;
    ensure!(why.contains("was handed over") && why.contains("reimage"), "{why}");
    say("           the disk is as it was, and `dragonfly why` says what to do");
    machines[0].stop();
    Ok(())
}

/// A copy of a directory, times and all.
fn put(from: &Path, to: &Path) -> Result<()> {
    output(Command::new("cp").arg("-a").arg("--").args([from, to])).map(drop)
}
