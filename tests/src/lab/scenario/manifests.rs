//! `--scenario tinkerbell --manifests`: somebody's own manifests of Tinkerbell, on a machine of the lab that is as they
//! say. What is carried over is run until the machine is Ready; what is not is named, and so is the step that fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::args::{self, TemplateChoice};
use crate::lab::console::say;
use crate::lab::image::{self, OsImage};
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::process::output;
use crate::lab::qemu::Bus;
use crate::lab::run::Watch;
use crate::lab::world::{GENERIC_KERNEL, Wish, World};

/// The image's name on the lab's server.
const IMAGE: &str = "cloud.raw.zst";
/// The address of the machine in the lab's network.
const ADDRESS: &str = "192.168.77.50";

pub(in crate::lab) fn manifests(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(args.image, TemplateChoice::Disk, interrupt)?;
    let texts = read(&args.manifests)?;
    let wish = Wish {
        dhcp: args.dhcp,
        // Whatever disks they are written for.
        kernel: GENERIC_KERNEL,
        keep: args.keep.as_deref(),
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    world.server.publish(&like_a_cloud_image(&image, &world.directory)?)?;
    let mut machines = world.machines(1, args.firmware, args.dhcp)?;
    let machine = machines.first_mut().context("no machine")?;

    let mut texts: Vec<(String, String)> =
        texts.into_iter().map(|(name, text)| (name, mapped(&text, &args.map, &machine.mac))).collect();
    let urls: Vec<String> = texts.iter().flat_map(|(_, text)| image_urls(text)).collect();
    let mut files = write(&world.directory, &texts)?;
    let maps = url_maps(&urls);
    let shown = world.server.cli(&words(&files, &maps, &["--dry-run", "-o", "json"]))?;
    let told: Value = serde_json::from_str(&shown).context("what would be imported")?;
    if let Some(elsewhere) = take_after(machine, &told, &texts)? {
        for (_, text) in &mut texts {
            *text = text.replace(&elsewhere, ADDRESS);
        }
        files = write(&world.directory, &texts)?;
    }
    let said = world.server.cli(&words(&files, &maps, &["--assign", "--yes"]))?;
    say(said.trim_end());
    run(args, &world, &mut machines, interrupt)
}

fn run(args: &args::Run, world: &World, machines: &mut [Machine], interrupt: &Interrupt) -> Result<()> {
    let machine = machines.first_mut().context("no machine")?;
    machine.start(&world.namespace, world.accel, &world.timeline)?;
    say(format_args!("{} ({}, {}) is on", machine.name, machine.mac, machine.hardware.firmware.word()));
    let mut watch = Watch::new(machines, false);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    while !watch.all_settled() && Instant::now() < end && !interrupt.is_set() {
        watch.step(world, machines)?;
        std::thread::sleep(Duration::from_millis(30));
    }
    interrupt.check()?;
    watch.give_up(machines);
    let machine = machines.first_mut().context("no machine")?;
    let shown = world.server.machine(&machine.name)?;
    if let Some(error) = watch.state(&machine.name).error.clone() {
        bail!("{} cannot be installed by these manifests here: {error}", machine.name);
    }
    ensure!(shown["status"]["phase"] == "Ready", "it is {}", shown["status"]["phase"]);
    machine.stop();
    let template = shown["status"]["installed"].as_str().unwrap_or_default();
    say(format_args!("{}: installed by the template {template}, its own system is up", machine.name));
    Ok(())
}

/// The texts of files, and of those in directories.
fn read(places: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for place in places {
        if !place.is_dir() {
            files.push(place.clone());
            continue;
        }
        let entries = std::fs::read_dir(place).with_context(|| place.display().to_string())?;
        let entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_one =
            |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        files.extend(entries.into_iter().filter(is_one));
    }
    files.sort();
    ensure!(!files.is_empty(), "--manifests: there are no *.yaml, *.yml or *.json");
    let one = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), text))
    };
    files.into_iter().map(one).collect()
}

/// What is to be something else is; then what Tinkerbell's playground has the shell fill in.
fn mapped(text: &str, map: &[(String, String)], mac: &str) -> String {
    let text = map.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let playground = [
        ("$TINKERBELL_CLIENT_MAC", mac),
        ("$TINKERBELL_CLIENT_IP", ADDRESS),
        ("$TINKERBELL_CLIENT_ARCH", "x86_64"),
        ("$TINKERBELL_CLIENT_PLATFORM", "amd64"),
        ("$TINKERBELL_HOST_IP", "192.168.77.1"),
        ("$DISK_DEVICE", "/dev/vda"),
    ];
    playground.into_iter().fold(text, |text, (name, value)| text.replace(name, value))
}

/// Where actions that stream an image have it from.
fn image_urls(text: &str) -> Vec<String> {
    let urls = text.lines().filter_map(|line| line.trim_start().strip_prefix("IMG_URL:"));
    let urls = urls.map(|url| url.trim().trim_matches(|quote| quote == '"' || quote == '\'').to_owned());
    urls.filter(|url| url.starts_with("http://") || url.starts_with("https://")).collect()
}

fn url_maps(urls: &[String]) -> Vec<String> {
    urls.iter().map(|url| format!("{url}=/images/{IMAGE}")).collect()
}

fn write(directory: &Path, texts: &[(String, String)]) -> Result<String> {
    let place = directory.join("manifests");
    std::fs::create_dir_all(&place)?;
    for (name, text) in texts {
        std::fs::write(place.join(name), text)?;
    }
    Ok(place.display().to_string())
}

fn words<'a>(files: &'a str, maps: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let maps = maps.iter().flat_map(|map| ["--map-url", map.as_str()]);
    ["import", "tinkerbell", "-f", files].into_iter().chain(maps).chain(more.iter().copied()).collect()
}

/// Makes the lab's machine the one that the first Workflow is for: its name, its card, its kind of disk. Gives the
/// address that they reserve, if it is none of the lab's network.
fn take_after(machine: &mut Machine, told: &Value, texts: &[(String, String)]) -> Result<Option<String>> {
    let notes = told["notes"].as_array().into_iter().flatten();
    let notes: Vec<String> = notes.map(|note| format!("  {note}")).collect();
    let pair = told["assignments"].as_array().and_then(|all| all.first());
    let Some(name) = pair.and_then(|pair| pair["hardware"].as_str()) else {
        bail!("these manifests install nothing:\n{}", notes.join("\n"));
    };
    let items = told["items"].as_array().context("no objects")?;
    let is_it = |item: &&Value| item["kind"] == "Hardware" && item["metadata"]["name"] == name;
    let hardware = items.iter().find(is_it).with_context(|| format!("no Hardware {name}"))?;
    let mac = hardware["spec"]["macs"][0].as_str().with_context(|| format!("Hardware {name} has no MAC"))?;
    name.clone_into(&mut machine.name);
    mac.clone_into(&mut machine.mac);
    mac.clone_into(&mut machine.hardware.mac);
    // They place no nonce.
    machine.nonce = String::new();
    let all: String = texts.iter().map(|(_, text)| text.as_str()).collect();
    if let Some(disk) = machine.hardware.disks.first_mut() {
        disk.bus = bus(&all);
    }
    let address = hardware["spec"]["dhcp"]["address"].as_str();
    Ok(address.filter(|address| !address.starts_with("192.168.77.")).map(str::to_owned))
}

/// The disk that Linux calls as the manifests do.
fn bus(text: &str) -> Bus {
    let buses = [("/dev/nvme", Bus::Nvme), ("/dev/sd", Bus::Sata)];
    buses.into_iter().find(|(name, _)| text.contains(name)).map_or(Bus::Virtio, |(_, bus)| bus)
}

/// The image with its root file system in partition 1, where cloud images have theirs. Nothing in it goes by numbers.
fn like_a_cloud_image(image: &OsImage, directory: &Path) -> Result<PathBuf> {
    let (raw, packed) = (directory.join("cloud.raw"), directory.join(IMAGE));
    output(Command::new("cp").arg("--sparse=always").arg(&image.raw).arg(&raw))?;
    output(Command::new("sgdisk").arg("--transpose=1:3").arg(&raw))?;
    output(Command::new("zstd").args(["-q", "-f", "-1", "-T0"]).arg(&raw).arg("-o").arg(&packed))?;
    std::fs::remove_file(&raw)?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_is_here() {
        let map = [("/dev/sda".to_owned(), "/dev/vda".to_owned())];
        let text = "  device: /dev/sda\n  IMG_URL: \"http://$TINKERBELL_HOST_IP:7173/a.raw.gz\"\n  mac: $TINKERBELL_CLIENT_MAC\n";
        let text = mapped(text, &map, "52:54:00:77:00:01");
        assert!(text.contains("device: /dev/vda\n") && text.contains("mac: 52:54:00:77:00:01\n"), "{text}");
        assert_eq!(image_urls(&text), ["http://192.168.77.1:7173/a.raw.gz"]);
        for (device, want) in [("/dev/nvme0n1", Bus::Nvme), ("/dev/sda", Bus::Sata), ("/dev/vda", Bus::Virtio)] {
            assert_eq!(bus(&format!("- device: {device}")), want);
        }
        assert_eq!(image_urls("IMG_URL: {{ .url }}\n# IMG_URL: http://x/\n"), [""; 0]);
        let maps = url_maps(&image_urls(&text));
        assert_eq!(
            words("m", &maps, &["--dry-run"]),
            [
                "import",
                "tinkerbell",
                "-f",
                "m",
                "--map-url",
                "http://192.168.77.1:7173/a.raw.gz=/images/cloud.raw.zst",
                "--dry-run"
            ]
        );
    }
}
