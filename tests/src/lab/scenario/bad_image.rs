//! Images and templates that are wrong: each ends in an error that names the cause.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::lab::args::{self, FirmwareChoice, ImageChoice, TemplateChoice};
use crate::lab::console::say;
use crate::lab::image::{self, OsImage};
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::manifest;
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
}

pub(in crate::lab) fn bad_image(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let fails = fails(&image);
    let wish = Wish {
        machines: fails.len(),
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        capture: args.keep.is_some(),
    };
    let world = World::build(&wish, interrupt)?;
    publish_truncated(&world, &image)?;
    let mut machines = world.machines(fails.len(), FirmwareChoice::Bios, args.dhcp)?;
    let mut wrong = Vec::new();
    for case in refused(&image) {
        match world.server.apply(&manifest::template(case.name, &case.steps)) {
            Ok(_) => wrong.push(format!("{}: was taken", case.name)),
            Err(error) => judge(case.name, &format!("{error:#}"), case.words, &mut wrong),
        }
        if world.server.cli(&["get", "template", case.name]).is_ok() {
            wrong.push(format!("{}: stands in the store", case.name));
        }
    }
    for (case, machine) in fails.iter().zip(&mut machines) {
        world.server.apply(&manifest::template(case.name, &case.steps))?;
        File::options().write(true).open(machine.disk())?.set_len(case.disk)?;
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    follow(args, &world, &fails, &mut machines, &mut wrong, interrupt)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    say("every wrong image and template ended in an error that names its cause");
    Ok(())
}

fn follow(
    args: &args::Run,
    world: &World,
    fails: &[Fails],
    machines: &mut [Machine],
    wrong: &mut Vec<String>,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut watch = Watch::new(machines, false);
    let mut assigned = vec![false; fails.len()];
    let end = Instant::now() + Duration::from_secs(args.timeout);
    let mut trouble = None;
    interrupt.wait_until(end, || {
        if let Err(error) = watch.step(world, machines) {
            trouble = Some(error);
            return true;
        }
        for ((case, machine), assigned) in fails.iter().zip(&*machines).zip(&mut assigned) {
            if watch.state(&machine.name).registered && !*assigned {
                *assigned = true;
                if let Err(error) = world.server.cli(&["assign", &machine.name, "--template", case.name, "--yes"]) {
                    watch.fail(&machine.name, format!("{error:#}"));
                }
            }
        }
        machines.iter().all(|m| watch.state(&m.name).error.is_some() || watch.state(&m.name).ready)
    });
    interrupt.check()?;
    if let Some(error) = trouble {
        return Err(error);
    }
    for (case, machine) in fails.iter().zip(machines) {
        machine.stop();
        match &watch.state(&machine.name).error {
            None => wrong.push(format!("{}: no error", case.name)),
            Some(error) => judge(case.name, error, case.words, wrong),
        }
        if let Err(error) = unbootable(machine) {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    Ok(())
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
        },
        Fails { name: "wrong-checksum", steps: image_step(&url, &"0".repeat(64)), words: &["sha256", "0000"], disk },
        Fails {
            name: "not-there",
            steps: image_step("/images/nobody-made-this.raw.zst", &image.sha256),
            words: &["nobody-made-this.raw.zst", "404"],
            disk,
        },
        Fails { name: "disk-too-small", steps: image_step(&url, &image.sha256), words: &["small"], disk: 64 << 20 },
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
