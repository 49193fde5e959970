//! `--scenario tinkerbell`: a machine, a template and a workflow as Tinkerbell has them, imported and assigned by one
//! command; the machine is installed by them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::console::say;
use crate::lab::disk;
use crate::lab::image::{self, OsImage};
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::run::Watch;
use crate::lab::world::{CLOUD_KERNEL, Wish, World};

/// Where the manifests say that the image is; the command is told where it lies.
const ELSEWHERE: &str = "http://10.1.1.11:8080/";

pub(in crate::lab) fn tinkerbell(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 1,
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    let machine = machines.first_mut().context("no machine")?;
    let file = world.directory.join("tinkerbell.yaml");
    std::fs::write(&file, manifests(machine, &image))?;
    let (file, url) = (file.display().to_string(), format!("{ELSEWHERE}=/images/"));
    let words = ["import", "tinkerbell", "-f", &file, "--map-url", &url];
    let shown = world.server.cli(&[&words[..], &["--dry-run", "-o", "yaml"]].concat())?;
    say(shown.trim_end());
    ensure!(!shown.contains("kind: Workflow"), "a Workflow is made by assigning, not by importing");
    let said = world.server.cli(&[&words[..], &["--assign", "--yes"]].concat())?;
    say(said.trim_end());
    machine.start(&world.namespace, world.accel, &world.timeline)?;
    say(format_args!("{} ({}, {}) is on", machine.name, machine.mac, machine.hardware.firmware.word()));
    // The events name it as the manifest does.
    let mut watch = Watch::new(&machines, false);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    while !watch.all_settled() && Instant::now() < end && !interrupt.is_set() {
        watch.step(&world, &mut machines)?;
        std::thread::sleep(Duration::from_millis(30));
    }
    interrupt.check()?;
    watch.give_up(&machines);
    let machine = machines.first_mut().context("no machine")?;
    if let Some(error) = watch.state(&machine.name).error.clone() {
        anyhow::bail!("{}: {error}", machine.name);
    }
    let shown = world.server.machine(&machine.name)?;
    ensure!(shown["status"]["phase"] == "Ready", "it is {}", shown["status"]["phase"]);
    ensure!(shown["status"]["installed"] == "lab-debian", "it carries {}", shown["status"]["installed"]);
    ensure!(shown["spec"]["dhcp"]["hostname"] == "tink-1", "its reservation is {}", shown["spec"]["dhcp"]);
    machine.stop();
    // Tinkerbell has no action that grows a disk.
    disk::check_written(machine.disk(), &machine.nonce)?;
    say(format_args!("{}: installed by Tinkerbell's manifests, its own system is up", machine.name));
    Ok(())
}

fn manifests(machine: &Machine, image: &OsImage) -> String {
    format!(
        r#"apiVersion: tinkerbell.org/v1alpha1
kind: Hardware
metadata: {{ name: {name}, namespace: tink-system }}
spec:
  disks: [{{ device: /dev/vda }}]
  interfaces:
    - dhcp:
        arch: x86_64
        mac: {mac}
        hostname: tink-1
        lease_time: 86400
        ip: {{ address: 192.168.77.50, netmask: 255.255.255.0 }}
      netboot: {{ allowPXE: true, allowWorkflow: true }}
---
apiVersion: tinkerbell.org/v1alpha1
kind: Template
metadata: {{ name: lab-debian, namespace: tink-system }}
spec:
  data: |
    version: "0.1"
    name: lab-debian
    global_timeout: 1800
    tasks:
      - name: install
        worker: "{{{{.device_1}}}}"
        volumes: [/dev:/dev]
        actions:
          - name: stream-image
            image: quay.io/tinkerbell/actions/image2disk:latest
            timeout: 600
            environment:
              DEST_DISK: {{{{ index .Hardware.Disks 0 }}}}
              IMG_URL: {ELSEWHERE}{image}
              COMPRESSED: true
          - name: write-nonce
            image: quay.io/tinkerbell/actions/writefile:latest
            timeout: 90
            environment:
              DEST_DISK: {{{{ formatPartition (index .Hardware.Disks 0) 3 }}}}
              FS_TYPE: ext4
              DEST_PATH: /etc/dragonfly-nonce
              CONTENTS: "{nonce}"
              UID: 0
              GID: 0
              MODE: 0644
              DIRMODE: 0755
          - name: leave
            image: ghcr.io/jacobweinstock/waitdaemon:latest
            timeout: 90
            pid: host
            environment:
              IMAGE: quay.io/tinkerbell/actions/reboot:latest
              WAIT_SECONDS: 5
---
apiVersion: tinkerbell.org/v1alpha1
kind: Workflow
metadata: {{ name: wf-1, namespace: tink-system }}
spec:
  templateRef: lab-debian
  hardwareRef: {name}
  hardwareMap: {{ device_1: "{mac}" }}
"#,
        name = machine.name.to_lowercase(),
        mac = machine.mac,
        image = image.name(),
        nonce = machine.nonce,
    )
}
