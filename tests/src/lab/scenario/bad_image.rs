//! Images and templates that are wrong: each ends in an error that names the cause.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::lab::args::{self, FirmwareChoice, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::console::say;
use crate::lab::disk;
use crate::lab::image::{self, OsImage};
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::manifest;
use crate::lab::report::{BadImageReport, CaseReport};
use crate::lab::run::Watch;
use crate::lab::world::{CLOUD_KERNEL, Wish, World};

/// A template that is refused as it stands, and the words that its error must hold.
struct Refused {
    name: &'static str,
    steps: String,
    words: &'static [&'static str],
}

/// A run that fails on the machine, and the words that its error must hold.
struct Fails {
    name: &'static str,
    steps: String,
    words: &'static [&'static str],
    /// The machine's disk, in bytes.
    disk: u64,
    /// Whether it is found before a byte is written.
    early: bool,
    /// An image that is there when it is assigned, before the machine is on, and not when it is fetched.
    gone: Option<&'static str>,
}

/// The blank machine that waits for work while wrong templates are offered for it.
const WITNESS: &str = "the waiting machine";

pub(in crate::lab) fn bad_image(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let fails = fails(&image);
    let wish = Wish {
        machines: fails.len() + 1,
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    publish_truncated(&world, &image)?;
    let mut machines = world.machines(wish.machines, FirmwareChoice::Bios, args.dhcp)?;
    for (case, machine) in fails.iter().zip(&machines) {
        world.server.apply(&manifest::template(case.name, &case.steps))?;
        File::options().write(true).open(machine.disk())?.set_len(case.disk)?;
        if let Some(image) = case.gone {
            assign_and_lose(&world, case, machine, image)?;
        }
    }
    for machine in &mut machines {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    let mut report = BadImageReport::default();
    follow(args, &world, &refused(&image), &fails, &mut machines, &mut report, interrupt)?;
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    ensure!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    say("every wrong image and template ended in an error that names its cause");
    Ok(())
}

fn follow(
    args: &args::Run,
    world: &World,
    refused: &[Refused],
    fails: &[Fails],
    machines: &mut [Machine],
    report: &mut BadImageReport,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut watch = Watch::new(machines, false);
    let mut assigned: Vec<bool> = fails.iter().map(|case| case.gone.is_some()).collect();
    let mut offered = false;
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut trouble = None;
    interrupt.wait_until(end, || {
        let mut step = || {
            watch.step(world, machines)?;
            for ((case, machine), assigned) in fails.iter().zip(&*machines).zip(&mut assigned) {
                if watch.state(&machine.name).registered && !*assigned {
                    *assigned = true;
                    if let Err(error) = world.server.cli(&["assign", &machine.name, "--template", case.name, "--yes"]) {
                        watch.fail(&machine.name, format!("{error:#}"));
                    }
                }
            }
            let witness = machines.last().context(WITNESS)?;
            if watch.state(&witness.name).registered && !offered {
                offered = true;
                for case in refused {
                    offer(world, case, witness, report)?;
                }
            }
            anyhow::Ok(offered)
        };
        let offered = match step() {
            Ok(offered) => offered,
            Err(error) => {
                trouble = Some(error);
                return true;
            }
        };
        let mut is_over = |m: &Machine| watch.state(&m.name).error.is_some() || watch.state(&m.name).ready;
        offered && machines.iter().take(fails.len()).all(&mut is_over)
    });
    interrupt.check()?;
    if let Some(error) = trouble {
        return Err(error);
    }
    for machine in &mut *machines {
        machine.stop();
    }
    let witness = machines.last().context(WITNESS)?;
    ensure!(offered, "{WITNESS} never registered: {:?}", watch.state(&witness.name).error);
    if let Some(error) = &watch.state(&witness.name).error {
        report.wrong.push(format!("{WITNESS}: {error}"));
    }
    if watch.state(&witness.name).began > 0 {
        report.wrong.push(format!("{WITNESS}: a workflow began"));
    }
    // It has waited all the time since: nothing came late either.
    match must_be_zeros(witness) {
        Ok(()) => {
            say(format_args!("{WITNESS}: its whole disk ({} bytes) is zeros", std::fs::metadata(witness.disk())?.len()))
        }
        Err(error) => report.wrong.push(format!("{WITNESS}: {error:#}")),
    }
    for (case, machine) in fails.iter().zip(machines) {
        let error = watch.state(&machine.name).error.clone();
        judge(case.name, error.as_deref().unwrap_or_default(), case.words, &mut report.wrong);
        if let Err(error) = unbootable(machine) {
            report.wrong.push(format!("{}: {error:#}", case.name));
        }
        let zeros = must_be_zeros(machine);
        if let (true, Err(error)) = (case.early, &zeros) {
            report.wrong.push(format!("{}: {error:#}", case.name));
        }
        report.cases.push(CaseReport {
            name: case.name,
            refused: false,
            error: error.unwrap_or_default(),
            disk_all_zeros: zeros.is_ok(),
        });
    }
    Ok(())
}

/// Offers a wrong template for a machine that waits: it is refused with words that say why, it is not
/// kept, it cannot be assigned, and not a byte of the machine's disk is written.
fn offer(world: &World, case: &Refused, witness: &Machine, report: &mut BadImageReport) -> Result<()> {
    let wrong = &mut report.wrong;
    let error = match world.server.apply(&manifest::template(case.name, &case.steps)) {
        Ok(_) => {
            wrong.push(format!("{}: was taken", case.name));
            String::new()
        }
        Err(error) => said(&format!("{error:#}")),
    };
    judge(case.name, &error, case.words, wrong);
    if world.server.cli(&["get", "template", case.name]).is_ok() {
        wrong.push(format!("{}: stands in the store", case.name));
    }
    match world.server.cli(&["assign", &witness.name, "--template", case.name, "--yes"]) {
        Ok(_) => wrong.push(format!("{}: was assigned", case.name)),
        Err(error) => judge(case.name, &said(&format!("{error:#}")), &[case.name], wrong),
    }
    let disk = must_be_zeros(witness);
    match &disk {
        Ok(()) => say(format_args!("{}: refused; the whole disk of {} is zeros", case.name, witness.name)),
        Err(error) => wrong.push(format!("{}: {error:#}", case.name)),
    }
    report.cases.push(CaseReport { name: case.name, refused: true, error, disk_all_zeros: disk.is_ok() });
    Ok(())
}

/// What the command line itself said, without the lab's words on how it was called.
fn said(error: &str) -> String {
    error.split_once(": dragonfly: ").map_or(error, |(_, said)| said).to_owned()
}

fn judge(name: &str, error: &str, words: &[&str], wrong: &mut Vec<String>) {
    let said = error.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(&word.to_lowercase())).collect();
    if missing.is_empty() {
        say(format_args!("{name}: {error}"));
    } else {
        wrong.push(format!("{name}: the error does not say {missing:?}: {error}"));
    }
}

fn must_be_zeros(machine: &Machine) -> Result<()> {
    match disk::first_written(machine.disk())? {
        None => Ok(()),
        Some(at) => anyhow::bail!("the disk of {} was written: byte {at} is not zero", machine.name),
    }
}

/// Whatever was written, no firmware takes it for a system.
fn unbootable(machine: &Machine) -> Result<()> {
    let mut start = [0; 1024];
    File::open(machine.disk())?.read_exact_at(&mut start, 0)?;
    ensure!(start.iter().all(|b| *b == 0), "a disk whose image was wrong has a boot sector or a partition table");
    Ok(())
}

fn image_step(url: &str, digest: &str) -> String {
    format!(
        "- name: image\n  action: image2disk\n  with: {{url: {url}, digest: \"sha256:{digest}\"}}\n- {{name: reboot, action: reboot}}\n"
    )
}

const TRUNCATED: &str = "truncated.raw.zst";

fn truncated(image: &OsImage) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(&image.file)?;
    bytes.truncate(bytes.len() / 4);
    Ok(bytes)
}

fn publish_truncated(world: &World, image: &OsImage) -> Result<()> {
    std::fs::write(world.server.images().join(TRUNCATED), truncated(image)?)?;
    Ok(())
}

/// Assigns a template whose image is taken away before the machine asks for it.
fn assign_and_lose(world: &World, case: &Fails, machine: &Machine, image: &str) -> Result<()> {
    let file = world.server.images().join(image);
    world.server.apply(&manifest::reservation(machine))?;
    let assign = || world.server.cli(&["assign", &machine.name, "--template", case.name, "--yes"]);
    ensure!(assign().is_err(), "{}: was assigned while its image was not there", case.name);
    std::fs::write(&file, [])?;
    assign()?;
    Ok(std::fs::remove_file(file)?)
}

const GONE: &str = "nobody-made-this.raw.zst";

fn fails(image: &OsImage) -> Vec<Fails> {
    let url = format!("/images/{}", image.name());
    let cut = truncated(image).map(|bytes| hex::encode(Sha256::digest(bytes))).unwrap_or_default();
    let disk = crate::lab::machine::DISK;
    vec![
        Fails {
            name: "truncated",
            steps: image_step(&format!("/images/{TRUNCATED}"), &cut),
            words: &["truncated"],
            disk,
            early: false,
            gone: None,
        },
        Fails {
            name: "wrong-checksum",
            steps: image_step(&url, &"0".repeat(64)),
            words: &["sha256", "0000"],
            disk,
            early: false,
            gone: None,
        },
        Fails {
            name: "not-there",
            steps: image_step(&format!("/images/{GONE}"), &image.sha256),
            words: &[GONE, "404"],
            disk,
            early: true,
            gone: Some(GONE),
        },
        Fails {
            name: "disk-too-small",
            steps: image_step(&url, &image.sha256),
            words: &["small"],
            disk: 64 << 20,
            early: true,
            gone: None,
        },
    ]
}

fn refused(image: &OsImage) -> Vec<Refused> {
    let good = manifest::disk_steps(image);
    let source = manifest::source(image);
    vec![
        Refused {
            name: "unknown-action",
            steps: good.replace("action: image2disk", "action: image2disc"),
            words: &["image2disc", "image2disk", "actions[0]"],
        },
        Refused {
            name: "typo-in-step-5-of-6",
            steps: format!(
                "- {{name: table, action: partition, with: {{partitions: [{{label: root, size: rest}}]}}}}
- {{name: root, action: image2disk, with: {{{source}, target: root}}}}
- {{name: grow, action: grow, with: {{target: root}}}}
- {{name: one, action: writefile, with: {{target: root, path: /etc/one, content: x}}}}
- {{name: two, action: writefile, with: {{target: root, path: /etc/two, contents: x}}}}
- {{name: reboot, action: reboot}}
"
            ),
            words: &["actions[4]", "contents"],
        },
        Refused {
            name: "overlapping-partitions",
            steps: "- name: table
  action: partition
  with:
    partitions:
      - {label: one, start: 1MiB, size: 100MiB}
      - {label: two, start: 50MiB, size: 100MiB}
- {name: reboot, action: reboot}
"
            .into(),
            words: &["actions[0]", "partitions[1]", "overlaps partitions[0]"],
        },
        Refused {
            name: "no-digest",
            steps: format!(
                "- {{name: image, action: image2disk, with: {{url: /images/{}}}}}\n- {{name: reboot, action: reboot}}\n",
                image.name()
            ),
            words: &["actions[0]", "digest", "insecureNoDigest"],
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_command_lines_own_words_are_judged() {
        let error = "\"ip\" \"assign\" \"no-digest\": exit status: 1: dragonfly: x.yaml: line 9: no";
        assert_eq!(said(error), "x.yaml: line 9: no");
        assert_eq!(said("cannot run ip"), "cannot run ip");
    }
}
