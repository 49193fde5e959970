//! What the agent reports of a machine is what the machine was given.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::smbios::{Module, memory_device};
use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::bmc::{Bmc, FACTORY_USER};
use crate::lab::console::say;
use crate::lab::image;
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::qemu::{Bus, Disk};
use crate::lab::run::Watch;
use crate::lab::world::{GENERIC_KERNEL, Wish, World};

const GIB: u64 = 1 << 30;
const MODULES: [Module; 2] = [
    Module {
        locator: "DIMM_A1",
        mib: 8192,
        speed: 2933,
        manufacturer: "Memory Works",
        serial: "4F3A21B0",
        part: "MW-8G-2933",
    },
    Module {
        locator: "DIMM_B1",
        mib: 4096,
        speed: 2666,
        manufacturer: "Other Memory",
        serial: "00C0FFEE",
        part: "OM-4G-2666",
    },
];

pub(in crate::lab) fn inventory(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 2,
        dhcp: args.dhcp,
        kernel: GENERIC_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: args.keep.is_some(),
        ..Wish::new(&image)
    };
    let world = World::build(&wish, interrupt)?;
    let bmc = Bmc::start(&world.namespace, &world.directory)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    furnish(&mut machines[0], &world)?;
    machines[1].hardware.more.extend(Bmc::arguments_of_a_dead_one());
    for machine in &mut machines {
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    let mut watch = Watch::new(&machines, false);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    interrupt.wait_until(end, || {
        watch.step(&world, &mut machines).is_err()
            || machines.iter().all(|m| watch.state(&m.name).registered || watch.state(&m.name).error.is_some())
    });
    interrupt.check()?;
    let wanted = [wanted(&machines[0], &bmc), wanted_with_a_dead_bmc()];
    for (machine, wanted) in machines.iter().zip(wanted) {
        let state = watch.state(&machine.name);
        ensure!(state.registered, "the agent of {} never registered: {:?}", machine.name, state.error);
        judge(&world, machine, &wanted)?;
    }
    Ok(())
}

/// Every value is as it was given.
fn judge(world: &World, machine: &Machine, wanted: &[(String, Value)]) -> Result<()> {
    let shown = world.server.machine(&machine.name)?;
    let seen = &shown["status"]["inventory"];
    let wrong: Vec<_> = wanted
        .iter()
        .map(|(pointer, want)| (pointer, want, find(seen, pointer).unwrap_or(&Value::Null)))
        .filter(|(_, want, got)| want != got)
        .map(|(pointer, want, got)| format!("{pointer}: {want} was given, {got} was seen"))
        .collect();
    ensure!(wrong.is_empty(), "the inventory differs:\n{}\n{seen:#}", wrong.join("\n"));
    say(format_args!("{}: all {} values are as they were given", machine.name, wanted.len()));
    Ok(())
}

fn furnish(machine: &mut Machine, world: &World) -> Result<()> {
    let sizes = [(Bus::Nvme, "NVME-SER-0042", 4 * GIB), (Bus::Sata, "SATA-SER-0007", 2 * GIB)];
    for (bus, serial, size) in sizes {
        let file = world.directory.join(format!("{serial}.raw"));
        File::create(&file)?.set_len(size)?;
        machine.hardware.disks.push(Disk { file, bus, serial: serial.into() });
    }
    let more = &mut machine.hardware.more;
    let mut add = |words: &[&str]| more.extend(words.iter().map(|w| (*w).to_owned()));
    add(&["-smp", "2,sockets=1,cores=2,threads=1"]);
    add(&["-smbios", "type=0,vendor=Lab Firmware,version=7.42"]);
    add(&["-smbios", "type=1,manufacturer=Lab Systems,product=Rack Unit 9000,serial=SYS-123-456"]);
    add(&["-smbios", "type=2,manufacturer=Lab Boards,product=Board X,serial=BRD-789"]);
    for (index, module) in MODULES.iter().enumerate() {
        let file = world.directory.join(format!("module{index}"));
        std::fs::write(&file, memory_device(0x1100 + u16::try_from(index)?, module))?;
        add(&["-smbios", &format!("file={}", file.display())]);
    }
    more.extend(Bmc::arguments());
    Ok(())
}

/// A controller that never answers is there by the firmware's word, and says nothing of itself: null is a
/// value that is absent.
fn wanted_with_a_dead_bmc() -> Vec<(String, Value)> {
    [
        ("bmc.interface", json!("KCS")),
        ("bmc.address", Value::Null),
        ("bmc.mac", Value::Null),
        ("bmc.users", Value::Null),
    ]
    .map(|(pointer, value)| (pointer.to_owned(), value))
    .into()
}

/// Where in the inventory, and what must stand there.
fn wanted(machine: &Machine, bmc: &Bmc) -> Vec<(String, Value)> {
    let mut list: Vec<(String, Value)> = vec![
        ("system.vendor".into(), json!("Lab Systems")),
        ("system.product".into(), json!("Rack Unit 9000")),
        ("system.serial".into(), json!("SYS-123-456")),
        ("system.uuid".into(), json!(machine.hardware.uuid)),
        ("system.boardSerial".into(), json!("BRD-789")),
        ("cpu.sockets".into(), json!(1)),
        ("cpu.cores".into(), json!(2)),
        ("cpu.threads".into(), json!(2)),
        ("cpu.arch".into(), json!("x86_64")),
        ("firmware".into(), json!(if machine.hardware.firmware == args::Firmware::Bios { "bios" } else { "uefi" })),
        ("bmc.interface".into(), json!("KCS")),
        ("bmc.ipmiVersion".into(), json!("2.0")),
        ("bmc.address".into(), json!(bmc.address)),
        ("bmc.mac".into(), json!(bmc.mac)),
        (format!("bmc.users[name={FACTORY_USER}].slot"), json!(2)),
        (format!("bmc.users[name={FACTORY_USER}].privilege"), json!("administrator")),
    ];
    for module in &MODULES {
        let at = |field: &str| format!("memory.modules[locator={}].{field}", module.locator);
        list.push((at("size"), json!(u64::from(module.mib) << 20)));
        list.push((at("speedMts"), json!(module.speed)));
        list.push((at("manufacturer"), json!(module.manufacturer)));
        list.push((at("serial"), json!(module.serial)));
        list.push((at("partNumber"), json!(module.part)));
    }
    for disk in &machine.hardware.disks {
        let at = |field: &str| format!("disks[serial={}].{field}", disk.serial);
        let bus = match disk.bus {
            Bus::Virtio => "virtio",
            Bus::Nvme => "nvme",
            Bus::Sata => "sata",
        };
        list.push((at("bus"), json!(bus)));
        list.push((at("blank"), json!(true)));
        // QEMU's NVMe disks are as good as new; others do not say.
        list.push((at("wearPercent"), if disk.bus == Bus::Nvme { json!(0) } else { Value::Null }));
        list.push((at("size"), json!(std::fs::metadata(&disk.file).map_or(0, |m| m.len()))));
    }
    list.push((format!("nics[mac={}].driver", machine.mac), json!("virtio_net")));
    list.push((format!("nics[mac={}].link", machine.mac), json!(true)));
    list
}

/// `memory.modules[locator=DIMM_A1].size` in a JSON value.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match part.split_once('[') {
        None => value.get(part),
        Some((list, choice)) => {
            let (key, want) = choice.strip_suffix(']')?.split_once('=')?;
            value.get(list)?.as_array()?.iter().find(|item| item[key] == want)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_what_they_belong_to() {
        let seen = json!({"a": {"list": [{"k": "x", "v": 1}, {"k": "y", "v": 2}]}});
        assert_eq!(find(&seen, "a.list[k=y].v"), Some(&json!(2)));
        assert_eq!(find(&seen, "a.list[k=z].v"), None);
        assert_eq!(find(&seen, "a.b"), None);
    }
}
