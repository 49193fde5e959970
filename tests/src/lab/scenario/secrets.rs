//! `--scenario secrets`: a marked secret goes through a whole installation, and is found nowhere but on the disk, although
//! a program that has it says it and fails.

mod guest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::traces::{Form, find, forms};
use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::run::{TEMPLATE, Watch};
use crate::lab::world::{CLOUD_KERNEL, Wish, World};
use crate::lab::{capture, disk, image, manifest};

/// How often processes are looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(in crate::lab) fn secrets(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 1,
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: false,
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let mut wire = capture::whole(&world.namespace, &world.directory)?;
    let mut machines = world.machines(1, args.firmware, args.dhcp)?;
    let mark = mark()?;
    apply(&world, &mark, &manifest::disk_steps(&image))?;
    let forms = forms(&mark);
    for machine in &mut machines {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    let mut watch = Watch::new(&machines, true);
    let mut traces = Traces::default();
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut looked = Instant::now();
    let mut said = false;
    while !watch.all_settled() && Instant::now() < end && !interrupt.is_set() {
        watch.step(&world, &mut machines)?;
        let machine = machines.first().context("a machine")?;
        if !said && let Some(why) = watch.state(&machine.name).error.take() {
            said = true;
            traces.look_at_failure(&world, machine, &why, &forms)?;
            world.server.cli(&["retry", &machine.name])?;
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            traces.look_at_processes(&forms)?;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    interrupt.check()?;
    watch.give_up(&machines);
    let machine = machines.first_mut().context("a machine")?;
    ensure!(watch.state(&machine.name).error.is_none(), "{:?}", watch.state(&machine.name).error);
    ensure!(said, "the step that was to fail did not");
    traces.ask(&world, machine, &forms)?;
    traces.back_up(&world)?;
    machine.stop();
    wire.stop(Duration::from_secs(5));
    traces.read(&world, machine, &forms)?;
    // It did get where it was to go.
    let found = disk::read_installed(machine.disk(), "/etc/dragonfly-lab-secret")?;
    ensure!(found == mark, "the disk holds `{found}` and not the secret");
    say("the secret is on the disk, and in none of:");
    for (what, bytes) in &traces.searched {
        say(format_args!("  {bytes:>11} bytes  {what}"));
    }
    ensure!(traces.found.is_empty(), "the secret is in:\n  {}", traces.found.join("\n  "));
    Ok(())
}

/// Random, and with characters that every encoding changes.
fn mark() -> Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)?;
    Ok(format!("mk{}/+ \"x{}", hex::encode(&bytes[..6]), hex::encode(&bytes[6..])))
}

fn apply(world: &World, mark: &str, steps: &str) -> Result<()> {
    let steps = steps.replacen("- name: grow\n", &format!("{}- name: grow\n", guest::steps()), 1);
    let template = manifest::template(TEMPLATE, &steps).replacen(
        "    nonce: unset\n",
        "    nonce: unset\n    mark: {valueFrom: {secretRef: {name: marked, key: mark}}}\n",
        1,
    );
    let data = serde_json::json!({ "mark": mark });
    let secret = format!(
        "apiVersion: dragonfly.computer/v1\nkind: Secret\nmetadata: {{name: marked}}\nspec: {{data: {data}}}\n---\n"
    );
    world.server.apply(&format!("{secret}{template}"))?;
    // What the lab itself wrote down is no trace.
    std::fs::remove_file(world.directory.join("manifest.yaml"))?;
    Ok(())
}

/// What was searched, and where something was found.
#[derive(Debug, Default)]
struct Traces {
    searched: BTreeMap<String, usize>,
    found: Vec<String>,
}

impl Traces {
    fn search(&mut self, what: &str, bytes: &[u8], forms: &[Form]) {
        *self.searched.entry(what.to_owned()).or_default() += bytes.len();
        for form in find(bytes, forms) {
            let line = format!("{what}, {}", form.word);
            if !self.found.contains(&line) {
                self.found.push(line);
            }
        }
    }

    /// What every user of the lab's own machine can see of the processes that run: the server and its command line, and
    /// the emulator. The machine looks at its own by itself.
    fn look_at_processes(&mut self, forms: &[Form]) -> Result<()> {
        let own = std::process::id().to_string();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == own || !name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            for file in ["cmdline", "environ"] {
                // It may have ended meanwhile.
                let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                self.search(&format!("/proc/*/{file}"), &bytes, forms);
            }
        }
        Ok(())
    }

    /// A step has failed, and has said the secret: what is told of that is there, and without it.
    fn look_at_failure(&mut self, world: &World, machine: &Machine, why: &str, forms: &[Form]) -> Result<()> {
        ensure!(why.contains("failed twice with the same cause"), "it failed otherwise than it was to: {why}");
        // The log comes after the failure.
        let path = format!("/dragonfly/v1/machines/{}/log", machine.name.to_lowercase());
        let end = Instant::now() + Duration::from_secs(20);
        let mut missing = vec![""];
        while !missing.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(300));
            let log = world.server.get(&path)?;
            missing = guest::SAID.into_iter().filter(|words| !log.contains(words)).collect();
        }
        self.ask(world, machine, forms)?;
        ensure!(missing.is_empty(), "the log does not show {missing:?}, so what was searched is not what was said");
        let name = &machine.name;
        let told = [
            ("the event", why.to_owned()),
            ("the status", serde_json::to_string(&world.server.machine(name)?)?),
            ("`workflows`", world.server.cli(&["get", "workflows", "-o", "json"])?),
        ];
        for (what, text) in told {
            self.search("what is told of a failure", text.as_bytes(), forms);
            ensure!(text.contains(guest::FAILED), "{what} does not tell of the failure: {text}");
        }
        Ok(())
    }

    /// Everything that the server tells the administrator.
    fn ask(&mut self, world: &World, machine: &Machine, forms: &[Form]) -> Result<()> {
        let name = machine.name.to_lowercase();
        let mut paths: Vec<String> = ["", "/why", "/timeline", "/events", "/log"]
            .map(|part| format!("/dragonfly/v1/machines/{name}{part}"))
            .into();
        for kind in ["hardware", "workflows", "templates", "networks", "secrets"] {
            paths.push(format!("/apis/dragonfly.computer/v1/{kind}"));
        }
        paths.extend(
            ["/", "/metrics", "/dragonfly/v1/machines", "/apis/dragonfly.computer/v1/secrets/marked"]
                .map(str::to_owned),
        );
        paths.push(format!("/machines/{name}"));
        for path in paths {
            let answer = world.server.get(&path)?;
            self.search("answers to the administrator", answer.as_bytes(), forms);
        }
        for entry in world.timeline.all() {
            self.search("events", format!("{:?}", entry.fact).as_bytes(), forms);
        }
        for words in [
            vec!["describe", "machine", &name],
            vec!["why", &name],
            vec!["get", "secrets", "-o", "yaml"],
            vec!["get", "workflows", "-o", "json"],
        ] {
            self.search("the command line's answers", world.server.cli(&words)?.as_bytes(), forms);
        }
        Ok(())
    }

    fn back_up(&self, world: &World) -> Result<()> {
        let backup = world.directory.join("backup");
        world.server.cli(&["backup", &backup.display().to_string()])?;
        Ok(())
    }

    /// Every file that the run has left, but for the machine's disk and what is served to everybody.
    fn read(&mut self, world: &World, machine: &Machine, forms: &[Form]) -> Result<()> {
        let skipped = [machine.disk().to_owned(), world.server.images().to_owned()];
        for path in files(&world.directory)? {
            if skipped.iter().any(|skipped| path.starts_with(skipped)) {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let what = path.strip_prefix(&world.directory).unwrap_or(&path).display().to_string();
            self.search(&what, &bytes, forms);
        }
        let has = |part: &str| self.searched.iter().any(|(what, bytes)| what.ends_with(part) && *bytes > 0);
        for part in ["serial.log", "whole.pcap", "server.log", ".redb", "backup", ".log", "/proc/*/environ", "events"] {
            ensure!(has(part), "there is no trace called {part}: nothing was searched");
        }
        // The search finds what is there: each form, in a copy of a real trace.
        let serial = std::fs::read(&machine.hardware.serial_log)?;
        for form in forms {
            let mut planted = serial.clone();
            planted.splice(serial.len() / 2..serial.len() / 2, form.bytes.iter().copied());
            ensure!(
                find(&planted, forms).any(|found| found.word == form.word),
                "the search does not find {}",
                form.word
            );
        }
        Ok(())
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            all.extend(files(&entry.path())?);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
    Ok(all)
}
