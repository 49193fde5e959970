//! `--scenario identity`: placeholder serial numbers, a network card that was replaced, an address that was
//! cloned: through real firmware, no two machines become one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::disk;
use crate::lab::events::Fact;
use crate::lab::image;
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::world::{CLOUD_KERNEL, Wish, World};

/// What boards leave the factory with when nobody wrote their own.
const PLACEHOLDER: &str = "To Be Filled By O.E.M.";
const SHARED_UUID: &str = "03000200-0400-0500-0006-000700080009";
/// The card that replaces the first machine's.
const NEW_CARD: &str = "52:54:00:77:01:01";

pub(in crate::lab) fn identity(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 4,
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
    let [first, second, third, fourth] = &mut machines[..] else { bail!("four machines") };
    board(first, "SN-FIRST-01", None);
    board(second, PLACEHOLDER, Some(SHARED_UUID));
    board(third, PLACEHOLDER, Some(SHARED_UUID));
    board(fourth, "SN-FOURTH-04", None);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let site = Site { world: &world, interrupt, end };

    for machine in [&mut *first, &mut *second, &mut *third, &mut *fourth] {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    site.wait("four machines register", || Ok(site.machines()?.len() == 4 && site.all_reported()?))?;
    let known = site.machines()?;
    say("placeholder serial numbers and a shared UUID: four machines are four objects");
    exchange(&site, first, fourth)?;
    ensure!(site.machines()? == known, "another object was made: {:?}", site.machines()?);
    fourth.stop();

    // The first machine's card is replaced: its board says who it is.
    let before = hellos(&world, &first.name);
    first.stop();
    let old_card = std::mem::replace(&mut first.hardware.mac, NEW_CARD.to_owned());
    first.power_on(&world.namespace, world.accel, &world.timeline)?;
    site.wait("the machine with another card says hello", || Ok(hellos(&world, &first.name) > before))?;
    ensure!(site.machines()? == known, "another object was made: {:?}", site.machines()?);
    let shown = world.server.machine(&first.name)?;
    let card = shown.pointer("/status/session/said/macs/0").and_then(Value::as_str).unwrap_or_default();
    ensure!(card.eq_ignore_ascii_case(NEW_CARD), "{card} speaks for it");
    // It is its own when a person has said so.
    let own = shown.pointer("/spec/macs").cloned().unwrap_or_default();
    ensure!(!own.to_string().contains(NEW_CARD), "its new card is written down: {own}");
    say(format_args!("{}: another card in the same board is the same machine", first.name));
    first.stop();

    // A third board, which is nobody's so far, comes with the card that the first machine had before.
    third.stop();
    board(third, "SN-FOREIGN-77", Some("5254cccc-7777-4000-8000-00000000cccc"));
    third.hardware.mac.clone_from(&old_card);
    let before = told(&world, "identity.conflict", &first.name);
    third.power_on(&world.namespace, world.accel, &world.timeline)?;
    site.wait("the conflict is told", || Ok(told(&world, "identity.conflict", &first.name) > before))?;
    let shown = world.server.machine(&first.name)?;
    ensure!(doubt(&shown) == Some("True"), "the conflict is not shown: {}", shown["status"]["conditions"]);
    ensure!(shown.pointer("/status/anchors/serial").is_some_and(|serial| serial == "SN-FIRST-01"), "merged: {shown:#}");
    ensure!(site.machines()? == known, "another object was made: {:?}", site.machines()?);
    // And whoever has that card from now on boots its own disk: nothing is written by it.
    let why = world.server.cli(&["why", &old_card])?;
    ensure!(why.contains("conflict") && why.contains("hold"), "{why}");
    ensure!(world.server.cli(&["get", "workflows", "-o", "name"])?.trim().is_empty(), "a workflow was made");
    third.stop();
    second.stop();
    for machine in [&*first, &*second, &*third, &*fourth] {
        let written = disk::first_written(machine.disk())?;
        ensure!(written.is_none(), "{}: byte {written:?} of its disk was written", machine.name);
    }
    say(format_args!("{}: a clone of its card {old_card} is a conflict, merges nothing, writes nothing", first.name));
    Ok(())
}

/// Two machines exchange their cards: both are in conflict, and each is itself with its new card when a person has said
/// of every card where it is.
fn exchange(site: &Site<'_>, one: &mut Machine, other: &mut Machine) -> Result<()> {
    let world = site.world;
    one.stop();
    other.stop();
    std::mem::swap(&mut one.hardware.mac, &mut other.hardware.mac);
    for machine in [&mut *one, &mut *other] {
        machine.power_on(&world.namespace, world.accel, &world.timeline)?;
    }
    // The card is who a machine is said to be.
    site.wait("both conflicts are told", || {
        Ok([&*one, &*other].iter().all(|m| told(world, "identity.conflict", &m.name) > 0))
    })?;
    for (machine, serial) in [(&*one, "SN-FIRST-01"), (&*other, "SN-FOURTH-04")] {
        let shown = world.server.machine(&machine.name)?;
        ensure!(shown.pointer("/status/anchors/serial").is_some_and(|is| is == serial), "merged: {shown:#}");
    }
    ensure!(world.server.cli(&["get", "workflows", "-o", "name"])?.trim().is_empty(), "a workflow was made");
    for machine in [&*one, &*other] {
        let why: Value = serde_json::from_str(&world.server.cli(&["why", &machine.name, "-o", "json"])?)?;
        let question = why["question"].as_str().context("nothing is asked")?;
        world.server.cli(&["release", &machine.name, "--question", question])?;
    }
    site.wait("each is itself with its new card", || {
        let has = |machine: &Machine| -> Result<bool> {
            let shown = world.server.machine(&machine.name)?;
            let card = shown.pointer("/status/session/said/macs/0").and_then(Value::as_str);
            Ok(card.is_some_and(|mac| mac.eq_ignore_ascii_case(&machine.hardware.mac)))
        };
        Ok(has(one)? && has(other)?)
    })?;
    say(format_args!(
        "{} and {} exchanged cards: a conflict, and once both are released each is itself",
        one.name, other.name
    ));
    Ok(())
}

/// Whether a machine's identity is in conflict, as its condition says.
fn doubt(shown: &Value) -> Option<&str> {
    let all = shown.pointer("/status/conditions").and_then(Value::as_array)?;
    all.iter().find(|condition| condition["type"] == "IdentityConflict")?["status"].as_str()
}

/// What its firmware says of the board.
fn board(machine: &mut Machine, serial: &str, uuid: Option<&str>) {
    if let Some(uuid) = uuid {
        uuid.clone_into(&mut machine.hardware.uuid);
    }
    machine.hardware.more =
        vec!["-smbios".into(), format!("type=1,manufacturer=Lab Systems,product=Rack Unit,serial={serial}")];
}

struct Site<'a> {
    world: &'a World,
    interrupt: &'a Interrupt,
    end: Instant,
}

impl Site<'_> {
    fn list(&self) -> Result<Vec<Value>> {
        let text = self.world.server.cli(&["get", "hardware", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list.get("items").or(Some(&list)).and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Name and UID of every machine that the server knows.
    fn machines(&self) -> Result<BTreeSet<(String, String)>> {
        let text = |object: &Value, at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(self.list()?.iter().map(|one| (text(one, "/metadata/name"), text(one, "/metadata/uid"))).collect())
    }

    /// A machine's anchors are written with its hello, which comes after its object.
    fn all_reported(&self) -> Result<bool> {
        Ok(self.list()?.iter().all(|one| one.pointer("/status/anchors").is_some_and(|anchors| !anchors.is_null())))
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let mut trouble = None;
        let there = self.interrupt.wait_until(self.end, || match done() {
            Ok(done) => done,
            Err(error) => {
                trouble = Some(error);
                true
            }
        });
        self.interrupt.check()?;
        if let Some(error) = trouble {
            return Err(error).with_context(|| what.to_owned());
        }
        ensure!(there, "time is over before this: {what}");
        Ok(())
    }
}

fn told(world: &World, kind: &str, machine: &str) -> usize {
    let is = |fact: &Fact| {
        matches!(fact, Fact::Event(event) if event.kind == kind
        && event.machine.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(machine)))
    };
    world.timeline.all().iter().filter(|entry| is(&entry.fact)).count()
}

fn hellos(world: &World, machine: &str) -> usize {
    told(world, "machine.hello", machine) + told(world, "machine.registered", machine)
}
