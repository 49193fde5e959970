//! Manifests that others wrote, where they are at hand.

use std::path::Path;

use dragonfly_core::tinkerbell::{Converted, ManifestFile, Options, convert};
use serde_json::json;

use super::{machines, note, steps, templates, told};

/// The texts of these files, with the variables filled in that their authors leave to the shell.
fn texts(names: [&str; 3]) -> Option<Vec<(String, String)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../../shared/fixtures", "../../../shared/fixtures"].map(|at| dir.join(at).join("tinkerbell"));
    let Some(place) = places.iter().find(|place| place.exists()) else {
        eprintln!("stepping aside: {} is not there", places[0].display());
        return None;
    };
    let read = |name: &str| {
        let text = std::fs::read_to_string(place.join(name)).unwrap();
        let text = text
            .replace("$DISK_DEVICE", "/dev/vda")
            .replace("$TINKERBELL_CLIENT_MAC", "08:00:27:9e:f5:3a")
            .replace("$TINKERBELL_CLIENT_ARCH", "x86_64")
            .replace("$TINKERBELL_CLIENT_IP", "192.168.56.43")
            .replace("$TINKERBELL_HOST_IP", "192.168.56.4")
            .replace("$TINKERBELL_CLIENT_PLATFORM", "amd64");
        (name.to_owned(), text)
    };
    Some(names.map(read).to_vec())
}

fn converted(texts: &[(String, String)], options: &Options) -> Converted {
    let files: Vec<ManifestFile<'_>> = texts.iter().map(|(name, text)| ManifestFile { name, text }).collect();
    convert(&files, options)
}

#[test]
fn the_playground_stack_is_carried_over() {
    let Some(texts) = texts(["playground-hardware.yaml", "playground-template.yaml", "playground-workflow.yaml"])
    else {
        return;
    };
    let options = Options { urls: vec![("http://192.168.56.4:7173/".into(), "/images/".into())], ..Options::default() };
    let converted = converted(&texts, &options);
    let [machine] = machines(&converted)[..] else { panic!("{converted:#?}") };
    assert_eq!(machine.name(), "machine1");
    assert_eq!(machine.spec.macs, ["08:00:27:9e:f5:3a".parse().unwrap()]);
    let reserved = machine.spec.dhcp.as_ref().unwrap();
    assert_eq!(
        (reserved.address.to_string().as_str(), reserved.hostname.as_deref()),
        ("192.168.56.43", Some("machine1"))
    );
    assert_eq!(machine.metadata.labels["facility"], "playground");
    let [hint] = &converted.networks[..] else { panic!("{:?}", converted.networks) };
    assert_eq!(
        (hint.subnet.to_string().as_str(), hint.lease_seconds, hint.dns.len()),
        ("192.168.56.0/24", Some(86400), 2)
    );
    let [pair] = &converted.assignments[..] else { panic!("{:?}", converted.assignments) };
    assert_eq!(
        (pair.hardware.as_str(), pair.template.as_str(), pair.workflow.as_str()),
        ("machine1", "ubuntu", "playground-workflow")
    );
    assert_eq!(templates(&converted)[0].spec.timeout_seconds, Some(1800));
    let root = json!({ "disk": { "name": "vda" }, "partition": 1 });
    let shell = |line: &str| json!({ "target": root, "argv": ["/bin/sh", "-c", line], "timeoutSeconds": 180 });
    let steps = steps(&converted);
    let names: Vec<(&str, &str, Option<u64>)> = steps.iter().map(|(n, a, _, t)| (n.as_str(), a.as_str(), *t)).collect();
    assert_eq!(
        names,
        [
            ("stream ubuntu image", "image2disk", Some(600)),
            ("grow-partition", "chroot-exec", Some(180)),
            ("install openssl", "chroot-exec", Some(180)),
            ("create user", "chroot-exec", Some(180)),
            ("enable ssh", "chroot-exec", Some(180)),
            ("disable apparmor", "chroot-exec", Some(180)),
            ("write netplan", "writefile", Some(180)),
            ("kexec into os", "kexec", Some(180)),
        ]
    );
    assert_eq!(
        steps[0].2,
        json!({ "url": "/images/jammy-server-cloudimg-amd64.raw.gz", "insecureNoDigest": true, "disk": { "name": "vda" } })
    );
    assert_eq!(steps[1].2, shell("sleep 5 && growpart /dev/vda 1 && resize2fs /dev/vda1"));
    assert_eq!(steps[3].2, shell("useradd -p $(openssl passwd -1 tink) -s /bin/bash -d /home/tink/ -m -G sudo tink"));
    let netplan = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    id0:\n      match:\n        name: en*\n      dhcp4: true\n";
    assert_eq!(
        steps[6].2,
        json!({
            "target": root, "path": "/etc/netplan/config.yaml", "content": netplan, "uid": 0, "gid": 0, "mode": "0644",
            "dirMode": "0755",
        })
    );
    assert_eq!(steps[7].2, json!({ "target": root }));
    let told = told(&converted);
    for wanted in [
        "spec.interfaces[0].dhcp.arch: not needed",
        "spec.interfaces[0].dhcp.uefi: not needed",
        "spec.metadata.instance.id: not needed",
        "spec.metadata.instance.operating_system.distro: lost",
        "spec.metadata.instance.operating_system.os_slug: lost",
        "spec.metadata.instance.operating_system.version: lost",
        "spec.disks[0].device: changed",
        "spec.data.tasks[0].volumes: not needed",
        "spec.data.tasks[0].actions[0].environment.IMG_URL: changed",
        "spec.data.tasks[0].actions[7].pid: not needed",
        "spec.data.tasks[0].actions[7].volumes: not needed",
        "spec.data.tasks[0].actions[7].environment.WAIT_SECONDS: not needed",
        "spec.bootOptions.toggleAllowNetboot: not needed",
    ] {
        assert!(told.iter().any(|said| said == wanted), "{wanted}: {told:#?}");
    }
    assert!(!told.iter().any(|said| said.ends_with("refused")), "{told:#?}");
}

#[test]
fn the_playground_reboots_an_arm_machine_and_names_what_the_shell_should_fill_in() {
    let Some(texts) = texts(["playground-hardware.yaml", "playground-template.yaml", "playground-workflow.yaml"])
    else {
        return;
    };
    let arm: Vec<_> = texts.iter().map(|(name, text)| (name.clone(), text.replace("x86_64", "aarch64"))).collect();
    let converted_arm = converted(&arm, &Options::default());
    let last = steps(&converted_arm).pop().unwrap();
    assert_eq!((last.0.as_str(), last.1.as_str(), last.2), ("reboot into os", "reboot", json!({})));

    let raw: Vec<_> =
        texts.iter().map(|(name, text)| (name.clone(), text.replace("08:00:27:9e:f5:3a", "$CLIENT_MAC"))).collect();
    let converted = converted(&raw, &Options::default());
    assert!(machines(&converted).is_empty());
    let said = note(&converted, "spec.interfaces[0].dhcp.mac");
    assert!(said.to_string().contains("`$CLIENT_MAC` is a variable that was not filled in"), "{said}");
    assert_eq!((said.file.as_str(), said.line), ("playground-hardware.yaml", 26), "{said}");
}

#[test]
fn the_end_to_end_data_are_carried_over() {
    let Some(texts) = texts(["tink-01-hardware.yaml", "tink-01-template.yaml", "tink-01-workflow.yaml"]) else {
        return;
    };
    let converted = converted(&texts, &Options::default());
    let [machine] = machines(&converted)[..] else { panic!("{converted:#?}") };
    assert_eq!((machine.name(), machine.metadata.labels["manufacturer"].as_str()), ("sm01", "supermicro"));
    let [hint] = &converted.networks[..] else { panic!("{:?}", converted.networks) };
    assert_eq!(hint.router, Some("172.16.10.1".parse().unwrap()));
    // No hardwareRef: its worker says which machine it is for.
    let [pair] = &converted.assignments[..] else { panic!("{:?}", converted.notes) };
    assert_eq!((pair.hardware.as_str(), pair.template.as_str()), ("sm01", "debian"));
    let steps = steps(&converted);
    let actions: Vec<&str> = steps.iter().map(|step| step.1.as_str()).collect();
    assert_eq!(actions, ["image2disk", "writefile", "writefile", "kexec"]);
    assert_eq!(
        steps[0].2,
        json!({
            "url": "http://10.1.1.11:8080/debian-10-openstack-amd64.raw.gz", "insecureNoDigest": true,
            "disk": { "name": "nvme0n1" },
        })
    );
    let root = json!({ "disk": { "name": "nvme0n1" }, "partition": 1 });
    assert_eq!(
        steps[2].2,
        json!({
            "target": root, "path": "/etc/cloud/ds-identify.cfg", "content": "datasource: Ec2\n", "uid": 0, "gid": 0,
            "mode": "0600", "dirMode": "0700",
        })
    );
    assert!(steps[1].2["content"].as_str().unwrap().contains("sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]"));
    assert_eq!(steps[3].2, json!({ "target": root }));
    let told = told(&converted);
    let storage = "spec.metadata.instance.storage.disks[0]";
    for wanted in [format!("{storage}.device: changed"), format!("{storage}.wipe_table: changed")] {
        assert!(told.contains(&wanted), "{wanted}: {told:#?}");
    }
    assert!(!told.iter().any(|said| said.ends_with("refused")), "{told:#?}");
}
