//! One virtual machine's command line, and which accelerator it runs on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::args::Firmware;
use super::console::say;
use super::process::Process;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Firmware's variables, to be copied for each machine.
pub(crate) const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The same with Secure Boot and the keys that boards are delivered with.
const SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd";
pub(crate) const SECURE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// How QEMU runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Virtio,
    Nvme,
    Sata,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) file: PathBuf,
    pub(crate) bus: Bus,
    pub(crate) serial: String,
}

/// A machine to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hardware {
    pub(crate) firmware: Firmware,
    pub(crate) mac: String,
    pub(crate) uuid: String,
    pub(crate) tap: String,
    pub(crate) memory_mib: u32,
    pub(crate) disks: Vec<Disk>,
    pub(crate) serial_log: PathBuf,
    pub(crate) monitor: PathBuf,
    pub(crate) vars: PathBuf,
    /// The network card, as QEMU calls it.
    pub(crate) card: &'static str,
    /// It boots from the network before its disks; from its disks alone, without.
    pub(crate) network_boot: bool,
    /// UEFI that starts only what is signed.
    pub(crate) secure_boot: bool,
    /// Further arguments, for what a scenario needs.
    pub(crate) more: Vec<String>,
}

impl Hardware {
    /// Its firmware goes through its boot order again when nothing in it boots, as most servers' does. QEMU's BIOS would
    /// stand still, and iPXE in a card's ROM asks for its script once.
    pub(crate) fn boot_again(&mut self) {
        self.more.extend(["-boot", "reboot-timeout=5000"].map(str::to_owned));
    }
}

/// QEMU's arguments. Never `-kernel`: the only way in is the network card or a disk.
pub(crate) fn arguments(hardware: &Hardware, accel: Accel) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| list.extend(words.iter().map(|w| (*w).to_owned()));
    match accel {
        Accel::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        Accel::Tcg => add(&["-accel", "tcg", "-cpu", "max"]),
    }
    // Firmware with Secure Boot keeps its variables to itself, in system management mode.
    let chipset = if hardware.secure_boot { "q35,smm=on" } else { "q35" };
    add(&["-machine", chipset, "-nodefaults", "-no-user-config", "-display", "none"]);
    add(&["-m", &hardware.memory_mib.to_string(), "-uuid", &hardware.uuid]);
    add(&["-chardev", &format!("file,id=serial,path={}", hardware.serial_log.display()), "-serial", "chardev:serial"]);
    add(&["-qmp", &format!("unix:{},server=on,wait=off", hardware.monitor.display())]);
    add(&["-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no", hardware.tap)]);
    // Without its ROM the card is driven by the firmware's own stack, as most cards in racks are.
    let rom = if hardware.firmware == Firmware::Bios { "" } else { ",romfile=" };
    let first = if hardware.network_boot { ",bootindex=1" } else { "" };
    add(&["-device", &format!("{},id=card,netdev=net,mac={}{first}{rom}", hardware.card, hardware.mac)]);
    if !hardware.network_boot {
        // Else firmware tries what has no place in the order after all that has one.
        add(&["-boot", "strict=on"]);
    }
    add(&["-device", "virtio-rng-pci"]);
    if hardware.disks.iter().any(|d| d.bus == Bus::Sata) {
        add(&["-device", "ich9-ahci,id=sata"]);
    }
    for (index, disk) in hardware.disks.iter().enumerate() {
        let id = format!("disk{index}");
        // What the guest has flushed is in the host's memory, which outlives QEMU.
        add(&["-drive", &format!("if=none,id={id},format=raw,cache=unsafe,file={}", disk.file.display())]);
        let device = match disk.bus {
            Bus::Virtio => "virtio-blk-pci".to_owned(),
            Bus::Nvme => "nvme".to_owned(),
            Bus::Sata => format!("ide-hd,bus=sata.{index}"),
        };
        add(&["-device", &format!("{device},drive={id},serial={},bootindex={}", disk.serial, index + 2)]);
    }
    if hardware.firmware != Firmware::Bios {
        let code = if hardware.secure_boot { SECURE_CODE } else { CODE };
        if hardware.secure_boot {
            add(&["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        add(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        add(&["-drive", &format!("if=pflash,format=raw,file={}", hardware.vars.display())]);
    }
    if hardware.firmware == Firmware::UefiHttp {
        for version in ["IPv4", "IPv6"] {
            add(&["-fw_cfg", &format!("name=opt/org.tianocore/{version}PXESupport,string=n")]);
        }
    }
    list.extend(hardware.more.iter().cloned());
    list
}

/// Which accelerator works here. A device file proves nothing: on some hosts guests hang on it, so a
/// real system is booted, with a time limit.
pub(crate) fn probe(bootable: &Path, cache: &Path, scratch: &Path) -> Result<Accel> {
    match std::env::var("DRAGONFLY_LAB_ACCEL").as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        Ok(other) => bail!("DRAGONFLY_LAB_ACCEL is `{other}`; write kvm or tcg"),
        Err(_) => {}
    }
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = cache.join(format!("kvm-{}", boot.trim()));
    if let Ok(word) = std::fs::read_to_string(&note) {
        return Ok(if word == "works" { Accel::Kvm } else { Accel::Tcg });
    }
    say("trying KVM by booting a system on it (at most 12 s)");
    let serial = scratch.join("kvm-probe.serial");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "512", "-nodefaults", "-display", "none"])
        .args(["-snapshot", "-serial", &format!("file:{}", serial.display())])
        .args(["-drive", &format!("if=virtio,format=raw,file={}", bootable.display())]);
    let mut guest = Process::start("qemu", command, &scratch.join("kvm-probe.log"))?;
    let end = Instant::now() + Duration::from_secs(12);
    let mut works = false;
    while !works && Instant::now() < end && guest.ended()?.is_none() {
        std::thread::sleep(Duration::from_millis(100));
        let said = std::fs::read(&serial).unwrap_or_default();
        works = said.windows(11).any(|w| w == b"lab: Debian");
    }
    guest.kill();
    std::fs::write(&note, if works { "works" } else { "hangs" })?;
    if !works {
        say("KVM is there, but a system does not boot on it: emulating instead");
    }
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware(firmware: Firmware, bus: Bus) -> Hardware {
        Hardware {
            firmware,
            mac: "52:54:00:77:00:01".into(),
            uuid: "u".into(),
            tap: "tap0".into(),
            memory_mib: 1024,
            disks: vec![Disk { file: "/d.raw".into(), bus, serial: "S1".into() }],
            serial_log: "/s.log".into(),
            monitor: "/m.sock".into(),
            vars: "/v.fd".into(),
            card: "virtio-net-pci",
            network_boot: true,
            secure_boot: false,
            more: vec!["-smbios".into(), "type=1".into()],
        }
    }

    #[test]
    fn the_network_card_comes_first_and_nothing_goes_round_it() {
        for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiHttp] {
            let line = arguments(&hardware(firmware, Bus::Virtio), Accel::Tcg).join(" ");
            assert!(!line.contains("-kernel") && !line.contains("-initrd"), "{line}");
            assert!(line.contains("mac=52:54:00:77:00:01,bootindex=1"), "{line}");
            assert!(line.contains("virtio-blk-pci,drive=disk0,serial=S1,bootindex=2"), "{line}");
            assert_eq!(line.contains("pflash"), firmware != Firmware::Bios, "{line}");
            assert_eq!(line.contains(",romfile="), firmware != Firmware::Bios, "{line}");
            assert_eq!(line.contains("IPv4PXESupport,string=n"), firmware == Firmware::UefiHttp, "{line}");
            assert!(line.ends_with("-smbios type=1"), "{line}");
        }
    }

    #[test]
    fn a_machine_that_is_to_boot_from_its_disk_does_not_try_the_network() {
        let off = Hardware { network_boot: false, ..hardware(Firmware::Uefi, Bus::Virtio) };
        let mut again = off.clone();
        again.boot_again();
        assert!(arguments(&again, Accel::Tcg).join(" ").ends_with("-boot reboot-timeout=5000"));
        let line = arguments(&off, Accel::Tcg).join(" ");
        assert!(line.contains("mac=52:54:00:77:00:01,romfile=") && line.contains("-boot strict=on"), "{line}");
    }

    #[test]
    fn disks_sit_on_the_bus_they_were_given() {
        for (bus, want) in [(Bus::Nvme, "nvme,drive=disk0,serial=S1"), (Bus::Sata, "ide-hd,bus=sata.0,drive=disk0")] {
            let line = arguments(&hardware(Firmware::Bios, bus), Accel::Kvm).join(" ");
            assert!(line.contains(want), "{line}");
        }
    }
}
