//! `--scenario expected`: somebody writes down which machines are to come, and one command switches them on and says
//! who has come.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::args::{self, Bmc, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::controllers::Controllers;
use crate::lab::image;
use crate::lab::interrupt::Interrupt;
use crate::lab::world::{CLOUD_KERNEL, Wish, World};

/// Of a machine that nobody has racked: at its controller nobody answers.
const ABSENT: &str = "LAB-ABSENT";
const NOBODY: &str = "ipmi://127.0.0.1:6299";

pub(in crate::lab) fn expected(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 2,
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: false,
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    for (number, machine) in machines.iter_mut().enumerate() {
        machine.hardware.more.extend(["-smbios".to_owned(), format!("type=1,product=Lab,serial=LAB-{number}")]);
    }
    let kind = if args.bmc == Bmc::None { Bmc::Ipmi } else { args.bmc };
    let controllers = Controllers::start(kind, &world, &mut machines)?.context("no controllers")?;
    world.server.apply(&controllers.secret("rack"))?;
    // The first by its card and its serial number, the second by its serial number alone.
    let [first, second] = controllers.addresses() else { anyhow::bail!("two controllers") };
    let rows = format!(
        "mac,serial,bmc,secret\n{},LAB-0,{first},rack\n,LAB-1,{second},rack\n,{ABSENT},{NOBODY},rack\n",
        machines[0].mac
    );
    let file = world.directory.join("expected.csv");
    std::fs::write(&file, &rows)?;
    let (file, wait) = (file.display().to_string(), args.timeout.min(180).to_string());
    let (went_well, said) = std::thread::scope(|scope| {
        let words = ["import", "machines", &file, "--power-on", "--wait", &wait];
        let server = &world.server;
        let import = scope.spawn(move || server.cli_tried(&words));
        while !import.is_finished() && !interrupt.is_set() {
            controllers.step(&world, &mut machines)?;
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        import.join().map_err(|_| anyhow::anyhow!("the import died"))?
    })?;
    interrupt.check()?;
    say(said.trim_end());
    ensure!(!went_well, "one machine is not there, and the import says that all is well");
    for wanted in [
        "3 created, 0 known already",
        "2 boot from the network",
        &format!("{} has appeared", machines[0].name.to_lowercase()),
        "sn-lab-1 has appeared",
        "sn-lab-absent (line 4: LAB-ABSENT, ipmi://127.0.0.1:6299) did not appear: the controller cannot be reached",
    ] {
        ensure!(said.contains(wanted), "the import does not say: {wanted}");
    }
    // Each is the one that was expected, and there is no second one.
    let all: Value = serde_json::from_str(&world.server.cli(&["get", "machines", "-o", "json"])?)?;
    let items = all["items"].as_array().context("no machines")?;
    let serials: BTreeSet<&str> = items.iter().filter_map(|m| m.pointer("/status/anchors/serial")?.as_str()).collect();
    ensure!(items.len() == 3 && serials == BTreeSet::from(["LAB-0", "LAB-1"]), "the machines are {all:#}");
    let second = items.iter().find(|m| m["metadata"]["name"] == "sn-lab-1").context("the second")?;
    let cards = second.pointer("/status/anchors/macs").and_then(Value::as_array).context("its cards")?;
    ensure!(cards.iter().any(|mac| mac.as_str() == Some(&machines[1].mac)), "it is another one: {second:#}");
    machines.iter_mut().for_each(|machine| machine.stop());
    Ok(())
}
