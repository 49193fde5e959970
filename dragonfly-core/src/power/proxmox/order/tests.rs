//! What is written for a wish, and what is written back.

use proptest::prelude::*;

use super::super::config::tests::config;
use super::*;

const PXE: BootOverride = BootOverride { device: BootDevice::Pxe, persistent: false, mode: None };
const DISK: BootOverride = BootOverride { device: BootDevice::Disk, ..PXE };
const CDROM: BootOverride = BootOverride { device: BootDevice::Cdrom, ..PXE };
const DEVICES: [(&str, &str); 4] = [
    ("scsi0", "local-lvm:vm-1-disk-0"),
    ("ide2", "none,media=cdrom"),
    ("net0", "virtio=BC:24:11:00:00:01"),
    ("net1", "virtio=BC:24:11:00:00:02"),
];

fn with(more: &[(&str, &str)]) -> VmConfig {
    config(&[&DEVICES[..], more].concat())
}

/// The configuration after these settings were written.
fn after(before: &VmConfig, settings: &Settings) -> VmConfig {
    let mut lines = serde_json::Map::new();
    lines.extend(before.all().map(|(key, value)| (key.to_owned(), value.into())));
    for (key, value) in settings {
        match *key {
            "delete" => value.split(',').for_each(|key| drop(lines.remove(key))),
            "digest" => {}
            // Proxmox keeps it as lines.
            "description" => {
                lines.insert("description".to_owned(), format!("{}\n", value.trim_end()).into());
            }
            key => {
                lines.insert(key.to_owned(), value.clone().into());
            }
        }
    }
    if settings.iter().any(|(key, value)| *key == "boot" && value.starts_with("order=")) {
        lines.remove("bootdisk");
    }
    VmConfig::read(&lines.into()).unwrap()
}

#[test]
fn what_is_set_is_taken_back() {
    let table = [
        // Before; the wish; the order then.
        (vec![("boot", "order=scsi0;ide2;net0")], PXE, "order=net0;scsi0;ide2"),
        (vec![("boot", "order=scsi0;ide2;net0")], CDROM, "order=ide2;scsi0;net0"),
        (vec![("boot", "order=net0;scsi0")], PXE, "order=net0;scsi0"),
        (vec![("boot", "order=net0;scsi0")], DISK, "order=scsi0;net0"),
        // No card is in the order: all of them, by number.
        (vec![("boot", "order=scsi0"), ("description", "Rack 3\n")], PXE, "order=net0;net1;scsi0"),
        (vec![], PXE, "order=net0;net1;scsi0;ide2"),
        (vec![("boot", "dc"), ("bootdisk", "scsi0"), ("description", "a\nb\n")], PXE, "order=net0;net1;ide2;scsi0"),
        (vec![("boot", "legacy=ncd")], DISK, "order=scsi0;net0;net1;ide2"),
        // It names what is not there any more.
        (vec![("boot", "order=scsi7;scsi0;net0")], PXE, "order=net0;scsi0"),
    ];
    for (before, wish, order) in table {
        let first = with(&before);
        assert_eq!(in_force(&first), None, "{before:?}");
        assert_eq!(plan(&first, None).unwrap(), None, "nothing to take back: {before:?}");
        let settings = plan(&first, Some(wish)).unwrap().unwrap();
        assert_eq!(settings[0], ("boot", order.to_owned()), "{before:?}");
        let then = after(&first, &settings);
        let set = BootOverride { persistent: true, mode: Some(BootMode::Legacy), ..wish };
        assert_eq!(in_force(&then), Some(set), "{before:?}");
        assert_eq!(plan(&then, Some(wish)).unwrap(), None, "it is there already: {before:?}");
        // Another wish on top forgets nothing.
        let other = after(&then, &plan(&then, Some(CDROM)).unwrap().unwrap_or_default());
        for then in [then, other] {
            let back = after(&then, &plan(&then, None).unwrap().unwrap());
            let (mut wanted, mut is) = (first.clone(), back.clone());
            if before.iter().any(|(_, value)| value.contains("scsi7")) {
                (wanted, is) = (with(&[("boot", "order=scsi0;net0")]), back);
            }
            assert_eq!(is, wanted, "{before:?}");
            assert_eq!(plan(&is, None).unwrap(), None);
        }
    }
}

#[test]
fn what_others_decided_is_left_alone() {
    let first = with(&[("boot", "order=scsi0;net0"), ("description", "mine\n")]);
    let set = after(&first, &plan(&first, Some(PXE)).unwrap().unwrap());
    // Proxmox removed a device and added one: still ours; the new one is kept.
    let grown = after(&set, &vec![("boot", "order=net0;scsi0;ide3".to_owned()), ("ide3", "x,media=cdrom".to_owned())]);
    assert_eq!(in_force(&grown).unwrap().device, BootDevice::Pxe);
    let back = after(&grown, &plan(&grown, None).unwrap().unwrap());
    assert_eq!(back.get("boot"), Some("order=scsi0;net0;ide3"));
    // Somebody turned it round: their order stays, our line goes.
    let theirs = after(&set, &vec![("boot", "order=scsi0;net0".to_owned())]);
    assert_eq!(in_force(&theirs), None);
    let settings = plan(&theirs, None).unwrap().unwrap();
    assert_eq!(settings, [("description", "mine\n".to_owned())]);
    // And an override from then on comes back to theirs.
    let again = after(&theirs, &plan(&theirs, Some(PXE)).unwrap().unwrap());
    assert_eq!(after(&again, &plan(&again, None).unwrap().unwrap()).get("boot"), Some("order=scsi0;net0"));
}

/// Devices and settings of every kind, sense or not.
fn any_config() -> impl Strategy<Value = VmConfig> {
    let device = prop::sample::subsequence(
        vec!["scsi0", "scsi1", "virtio0", "ide2", "sata0", "net0", "net1", "net12", "hostpci0", "efidisk0"],
        0..=10,
    );
    let word = prop::sample::select(vec![
        "order=",
        "legacy=",
        "scsi0",
        "net0",
        "net1",
        "ide2",
        ";",
        ",",
        " ",
        "c",
        "d",
        "n",
        "x",
        "\n",
        "-->",
        "<!-- dragonfly-boot set=net0;scsi0 -->\n",
        "<!-- dragonfly-boot ",
        "boot=order=scsi0;net0",
        "bootdisk=scsi0",
        "set=",
        "\u{fffd}",
        "Rack 3",
    ]);
    let text = prop::option::of(prop::collection::vec(word, 0..9).prop_map(|words| words.concat()));
    (device, text.clone(), text.clone(), text, any::<[bool; 10]>()).prop_map(|(devices, boot, disk, words, cds)| {
        let mut lines = serde_json::Map::new();
        for (device, is_cd) in devices.into_iter().zip(cds) {
            let value = if is_cd { "none,media=cdrom" } else { "local:vm-1-disk-0" };
            lines.insert(device.to_owned(), value.into());
        }
        for (key, value) in [("boot", boot), ("bootdisk", disk), ("description", words)] {
            lines.extend(value.map(|value| (key.to_owned(), value.into())));
        }
        VmConfig::read(&lines.into()).unwrap()
    })
}

fn without_ours(config: &VmConfig) -> String {
    let text = config.get("description").unwrap_or_default();
    let lines: Vec<&str> = text.split('\n').filter(|line| !line.starts_with(BEGIN)).collect();
    lines.join("\n").trim_end().to_owned()
}

proptest! {
    #[test]
    fn whatever_stands_there_only_what_is_ours_is_written(config in any_config(), kind in 0..3usize) {
        let wish = [PXE, DISK, CDROM][kind];
        for wish in [Some(wish), None] {
            let Ok(Some(settings)) = plan(&config, wish) else { continue };
            for (key, value) in &settings {
                prop_assert!(["boot", "bootdisk", "description", "delete", "digest"].contains(key), "{key}={value}");
                if *key == "delete" {
                    prop_assert!(value.split(',').all(|key| ["boot", "description"].contains(&key)), "{value}");
                }
            }
            let then = after(&config, &settings);
            prop_assert_eq!(without_ours(&then), without_ours(&config));
            let Some(wish) = wish else {
                prop_assert_eq!(in_force(&then), None);
                continue;
            };
            prop_assert_eq!(in_force(&then).map(|set| set.device), Some(wish.device));
            prop_assert!(order_now(&then).iter().all(|device| config.get(device).is_some()), "{:?}", settings);
            prop_assert_eq!(plan(&then, Some(wish)).unwrap(), None);
            // One of nobody's lines before, and all is as it was; but for devices that never were.
            if Memory::read(&config).is_none() {
                let back = after(&then, &plan(&then, None).unwrap().unwrap());
                let there = |order: Vec<String>| -> Vec<String> {
                    order.into_iter().filter(|device| config.get(device).is_some()).collect()
                };
                prop_assert_eq!(there(order_now(&back)), there(order_now(&config)));
            }
        }
    }
}

#[test]
fn a_line_that_was_tampered_with_writes_nothing_back() {
    for line in [
        "<!-- dragonfly-boot set=net0;scsi0 boot=order=scsi0&delete=scsi0 -->",
        "<!-- dragonfly-boot -->",
        "<!-- dragonfly-boot set= boot=cdn -->",
        "<!-- dragonfly-boot set=net0;scsi0 boot=cdn",
    ] {
        let config = with(&[("boot", "order=net0;scsi0"), ("description", line)]);
        let settings = plan(&config, None).unwrap().unwrap_or_default();
        assert!(settings.iter().all(|(_, value)| !value.contains('&')), "{line}: {settings:?}");
    }
}

#[test]
fn refusals_say_why() {
    let bios = BootOverride { device: BootDevice::Bios, ..PXE };
    let uefi = BootOverride { mode: Some(BootMode::Uefi), ..PXE };
    let legacy = BootOverride { mode: Some(BootMode::Legacy), ..PXE };
    let long = "x".repeat(8150);
    for (lines, wish, why) in [
        (vec![("scsi0", "a:b")], PXE, "refused to boot from pxe: the VM has no network card"),
        (vec![("net0", "virtio=BC:24:11:00:00:01")], DISK, "refused to boot from disk: the VM has no disk"),
        (vec![("ide2", "a:vm-1-cloudinit,media=cdrom")], CDROM, "the VM has no CD drive"),
        (DEVICES.to_vec(), bios, "cannot be asked for the firmware's setup pages"),
        (DEVICES.to_vec(), uefi, "firmware is SeaBIOS, which boots legacy; set its `bios` to ovmf"),
        ([&DEVICES[..], &[("bios", "ovmf")]].concat(), legacy, "set its `bios` to seabios"),
        ([&DEVICES[..], &[("description", &long)]].concat(), PXE, "has no room"),
    ] {
        let error = plan(&config(&lines), Some(wish)).unwrap_err().to_string();
        assert!(error.contains(why), "{lines:?}: {error}");
    }
    let settings = plan(&with(&[("bios", "ovmf"), ("digest", "0a1b")]), Some(uefi)).unwrap().unwrap();
    assert_eq!(settings.last(), Some(&("digest", "0a1b".to_owned())), "others are not written over");
}
