//! `bootloader`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Duration;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};
use dragonfly_core::inventory::FirmwareMode;

use super::bootentry;
use super::efi::{ACTIVE, HardDrive, LoadOption, Signature};
use super::fail::{OrFailed, because, blocking};
use super::grub;
use super::host::Host;
use super::mount::Mount;
use super::place::Place;
use super::root::{Root, places};
use crate::plan::{self, BootloaderKind, BootloaderParams, Check, FirmwareChoice, Stage, Target};
use crate::table::Table;

/// How the boot entry is called unless told.
const LABEL: &str = "Linux";
/// `grub-install` and `update-grub` take seconds; on emulated disks, minutes.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Type of the partition that holds GRUB's core image on a GPT (GRUB manual, "BIOS installation").
const BIOS_BOOT: uuid::Uuid = uuid::uuid!("21686148-6449-6e6f-744e-656564454649");
/// Where an EFI system partition is mounted unless the system's `/etc/fstab` says otherwise.
const ESP: &str = "/boot/efi";

/// Makes what was installed bootable.
#[derive(Debug, Clone)]
pub(crate) struct BootloaderAction(pub(crate) Host);

impl Action for BootloaderAction {
    const NAME: &'static str = plan::BOOTLOADER;
    const RESUME: Resume = Resume::Restart;
    type Params = BootloaderParams;

    fn check(&self, params: &BootloaderParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: BootloaderParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            cx.check_cancelled()?;
            match params.kind {
                BootloaderKind::Grub => install_grub(&host, &params, &cx),
                BootloaderKind::EfiEntry => {
                    let esp = found(&host, "esp", params.esp.as_ref(), &cx)?;
                    write_entry(&host, &params, &esp, &cx)
                }
            }
        })
        .await
    }
}

fn found(host: &Host, field: &str, target: Option<&Target>, cx: &ActionContext) -> Result<Place, ActionError> {
    match target {
        Some(target) => host.find(target, cx.permit()),
        None => because(format!("`{field}` is missing; write the partition, `{field}: {field}` for one")),
    }
}

fn install_grub(host: &Host, params: &BootloaderParams, cx: &ActionContext) -> Result<(), ActionError> {
    let firmware = match params.firmware {
        FirmwareChoice::Auto => host.firmware(),
        FirmwareChoice::Bios => FirmwareMode::Bios,
        FirmwareChoice::Uefi => FirmwareMode::Uefi,
    };
    let arch = std::env::consts::ARCH;
    let Some(platform) = grub::platform(firmware, arch) else {
        return because(format!("GRUB knows no {arch} machine with this firmware"));
    };
    let place = found(host, "root", params.root.as_ref(), cx)?;
    let mut extra = places(host, &params.mounts, cx)?;
    if firmware == FirmwareMode::Uefi
        && let Some(esp) = &params.esp
        && !extra.iter().any(|(_, path)| path == ESP)
    {
        extra.push((host.find(esp, cx.permit())?, ESP.to_owned()));
    }
    // Parents before children: `/boot` before `/boot/efi`.
    extra.sort_by_key(|(_, path)| path.matches('/').count());
    let root = Root::open(host, place, extra, cx)?;
    let installed = in_root(host, &root, platform, firmware, params, cx);
    let esp =
        [ESP, "/efi", "/boot"].iter().find(|path| is_esp(&root, path)).and_then(|path| root.mounted_at(path)).cloned();
    // The first of two errors is the cause.
    installed.and(root.close())?;
    if firmware == FirmwareMode::Uefi
        && host.firmware() == FirmwareMode::Uefi
        && let Some(esp) = esp
        && let Err(error) = write_entry(host, params, &esp, cx)
    {
        // It boots all the same: the firmware finds the removable-media path by itself.
        cx.log(format!("no boot entry was written, the firmware will search the disk: {}", chain_of(&error)));
    }
    Ok(())
}

/// An error with its causes, in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn in_root(
    host: &Host,
    root: &Root,
    platform: &str,
    firmware: FirmwareMode,
    params: &BootloaderParams,
    cx: &ActionContext,
) -> Result<(), ActionError> {
    let on = root.place().name();
    // Written into the directory that its partition will hide, GRUB would not find its own files.
    if let Some(why) = root.left_out(&["/boot"]) {
        return because(format!("GRUB cannot be installed into {on}: {why}, or name the partition with `mounts`"));
    }
    let Some((name, program)) = root.program(&["grub-install", "grub2-install"])? else {
        let what = format!(
            "the system on {on} has no GRUB (no grub-install): build the image with it (Debian: grub-pc or \
             grub-efi-amd64; Fedora: grub2-tools), write an image that boots by itself, or use `kind: efi-entry`"
        );
        return because(root.with_left_out(what, &["/usr"]));
    };
    // Debian and Fedora differ in more than the program's name.
    let (modules, directory) =
        (format!("/usr/lib/grub/{platform}"), if name == "grub2-install" { "grub2" } else { "grub" });
    if !root.has(&modules) {
        let package = match platform {
            "i386-pc" => "Debian: grub-pc-bin; Fedora: grub2-pc-modules",
            "arm64-efi" => "Debian: grub-efi-arm64-bin; Fedora: grub2-efi-aa64-modules",
            _ => "Debian: grub-efi-amd64-bin; Fedora: grub2-efi-x64-modules",
        };
        let what = format!(
            "the system on {on} has no GRUB for this firmware ({modules} is missing): build the image with it ({package})"
        );
        return because(root.with_left_out(what, &["/usr"]));
    }
    if firmware == FirmwareMode::Bios {
        check_room(host, root)?;
    }
    let program = program.arg(format!("--target={platform}")).limit(TIMEOUT);
    match firmware {
        FirmwareMode::Bios => program.arg(root.disk_node().into_os_string()).succeed(cx)?,
        FirmwareMode::Uefi => {
            let Some(esp) = [ESP, "/efi", "/boot"].iter().find(|path| is_esp(root, path)) else {
                let what = "GRUB for UEFI needs the EFI system partition: name it with `esp`, or give the system an \
                            /etc/fstab that mounts it at /boot/efi";
                return because(root.with_left_out(what, &[ESP, "/efi"]));
            };
            program.arg(format!("--efi-directory={esp}")).arg("--removable").arg("--no-nvram").succeed(cx)?;
            check_efi(root, esp)?;
        }
    }
    if firmware == FirmwareMode::Bios {
        check_bios(root, directory)?;
    }
    root.name_partitions()?;
    configure(root, directory, params, cx)?;
    match bootentry::find(root, None) {
        Ok(entry) if kernel_path(root, &entry.kernel).is_some() => {
            cx.log(format!("GRUB will boot `{}`: {} {}", entry.title, entry.kernel, entry.cmdline));
            Ok(())
        }
        Ok(entry) => because(format!(
            "{} boots {}, which is not in the installed system: install a kernel into the image",
            entry.from, entry.kernel
        )),
        // Ours reads less than GRUB does.
        Err(error) => {
            cx.log(format!("what GRUB will boot could not be told: {error}"));
            Ok(())
        }
    }
}

/// A GPT leaves no room behind its first sector: GRUB's core image needs a partition.
fn check_room(host: &Host, root: &Root) -> Result<(), ActionError> {
    let mut disk = host.open_disk(&root.place().disk, false)?;
    match disk.table()? {
        Some(Table::Gpt(table)) if !table.partitions.iter().any(|p| p.type_guid == BIOS_BOOT) => because(format!(
            "{} has a GPT without a partition for GRUB, which BIOS needs: add one of 1 MiB to the `partition` step, \
             `{{type: bios-boot, size: 1MiB}}`",
            disk.name
        )),
        _ => Ok(()),
    }
}

/// `/boot` may itself be the EFI system partition, or a partition of another kind.
fn is_esp(root: &Root, path: &str) -> bool {
    let kind = root.mounted_at(path).map(|place| place.holds.as_ref().map(|holds| holds.kind));
    kind.is_some_and(|kind| path != "/boot" || kind == Some("vfat"))
}

/// A kernel as a configuration names it: from the root, or from a `/boot` of its own.
pub(crate) fn kernel_path(root: &Root, path: &str) -> Option<std::path::PathBuf> {
    let file = |path: &str| root.resolve(path).ok().filter(|path| path.is_file());
    file(path).or_else(|| file(&format!("/boot/{}", path.trim_start_matches('/'))))
}

/// `grub-install` has been seen to succeed and to write nothing; what firmware will read is looked at.
fn check_bios(root: &Root, directory: &str) -> Result<(), ActionError> {
    let core = format!("/boot/{directory}/i386-pc/core.img");
    let size = root.resolve(&core).ok().and_then(|path| fs::metadata(path).ok()).map_or(0, |meta| meta.len());
    if size == 0 {
        return because(format!("grub-install ended well, but {core} is not there"));
    }
    let node = root.disk_node();
    let mut sector = [0u8; 512];
    File::open(&node)
        .and_then(|mut disk| disk.read_exact(&mut sector))
        .or_failed(|| format!("{} could not be read", node.display()))?;
    if !sector.windows(4).any(|bytes| bytes == b"GRUB") {
        return because(format!("grub-install ended well, but the first sector of {} is not GRUB's", node.display()));
    }
    Ok(())
}

fn check_efi(root: &Root, esp: &str) -> Result<(), ActionError> {
    let path = format!("{esp}{}", grub::removable_path(std::env::consts::ARCH));
    let mut magic = [0u8; 2];
    let read = root.resolve(&path).ok().and_then(|path| File::open(path).ok()?.read_exact(&mut magic).ok());
    // Every EFI program is a PE file, which begins like one of DOS.
    if read.is_none() || &magic != b"MZ" {
        return because(format!("grub-install ended well, but {path} is not there or is no EFI program"));
    }
    Ok(())
}

fn configure(root: &Root, directory: &str, params: &BootloaderParams, cx: &ActionContext) -> Result<(), ActionError> {
    let config = format!("/boot/{directory}/grub.cfg");
    // Images that were made small lack what these programs read: there they cannot work.
    let usable = ["grub", "grub2"].iter().any(|name| root.has(&format!("/usr/share/{name}/grub-mkconfig_lib")));
    let first = |names: &[&str]| if usable { root.program(names) } else { Ok(None) };
    if let Some((_, program)) = first(&["update-grub"])? {
        program.limit(TIMEOUT).succeed(cx)?;
    } else if let Some((_, program)) = first(&["grub-mkconfig", "grub2-mkconfig"])? {
        program.arg("-o").arg(config.clone()).limit(TIMEOUT).succeed(cx)?;
    } else {
        write_minimal(root, &config, params)?;
        cx.log(format!("{config} was written for the newest kernel: the system has no grub-mkconfig that works"));
    }
    if root.has(&config) { Ok(()) } else { because(format!("{config} was not made")) }
}

fn write_minimal(root: &Root, config: &str, params: &BootloaderParams) -> Result<(), ActionError> {
    let names = bootentry::Files::names(root, "/boot");
    let Some(kernel) = grub::newest(&names) else {
        return because("the installed system has no kernel in /boot: install one into the image");
    };
    let uuid = |place: &Place| place.holds.as_ref().and_then(|holds| holds.uuid.clone());
    let of_root = uuid(root.place());
    let (of_boot, path) = match root.mounted_at("/boot") {
        Some(boot) => (uuid(boot), ""),
        None => (of_root.clone(), "/boot"),
    };
    let (Some(of_root), Some(of_boot)) = (of_root, of_boot) else {
        return because("the file system has no UUID, which the kernel would find it by: format it anew");
    };
    let text = grub::minimal(&kernel, (&of_boot, path), &of_root, &params.arguments);
    let (directory, name) = config.rsplit_once('/').unwrap_or(("/", config));
    let at = root.resolve(directory).or_failed(|| format!("{directory} of the installed system cannot be reached"))?;
    // Beside its place and moved there: a link of that name is replaced, not followed.
    let fresh = at.join(format!(".{name}-{}", uuid::Uuid::new_v4().simple()));
    File::create_new(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&fresh, at.join(name)))
        .or_failed(|| format!("{config} could not be written"))
}

fn write_entry(host: &Host, params: &BootloaderParams, esp: &Place, cx: &ActionContext) -> Result<(), ActionError> {
    let arch = std::env::consts::ARCH;
    let path = params.path.as_deref().unwrap_or(grub::removable_path(arch)).replace('\\', "/");
    // Before the disk: a machine without boot entries is told so.
    let variables = host.variables()?;
    let mount = Mount::partition(host, esp, false)?;
    let there = mount.path().join(path.trim_start_matches('/')).is_file();
    mount.unmount()?;
    if !there {
        return because(format!(
            "{} has no {path}; give the boot loader's place on the EFI system partition with `path`",
            esp.name()
        ));
    }
    let mut disk = host.open_disk(&esp.disk, false)?;
    let signature = match disk.table()? {
        Some(Table::Mbr(table)) => Signature::Mbr(table.signature),
        _ => Signature::Gpt(esp.partition.uuid),
    };
    let option = LoadOption {
        attributes: ACTIVE,
        description: params.label.clone().unwrap_or_else(|| LABEL.to_owned()),
        partition: HardDrive {
            number: esp.partition.number,
            start: esp.partition.first_lba,
            size: esp.partition.sectors,
            signature,
        },
        path: path.replace('/', "\\"),
    };
    let written = variables.put_entry(&option, params.first)?;
    let order: Vec<String> = written.order.iter().map(|n| format!("{n:04X}")).collect();
    cx.log(format!("boot entry Boot{:04X} `{}`, order {}", written.number, option.description, order.join(" ")));
    Ok(())
}
