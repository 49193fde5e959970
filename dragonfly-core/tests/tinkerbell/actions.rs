//! Each action of Tinkerbell, and each that there is none of here.

use dragonfly_core::tinkerbell::{ManifestFile, Options, Outcome, convert};
use serde_json::json;

use super::{note, of, refused, stack, steps, templates, told};

fn part() -> serde_json::Value {
    json!({ "disk": { "name": "sda" }, "partition": 1 })
}

#[test]
fn image2disk_with_every_setting() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let converted = of(&stack(&format!(
        "- name: image
  image: registry:5000/x/image2disk:v2@sha256:00
  timeout: 9
  environment:
    IMG_URL: http://h/i.raw.zst
    DEST_DISK: /dev/sda
    COMPRESSED: true
    CHECKSUM: {digest}
    RETRY_ENABLED: true
    RETRY_DURATION_MINUTES: 5
    PROGRESS_INTERVAL_SECONDS: 1
    TEXT_LOGGING: true
    SPEED: 11
- name: into a partition
  image: image2disk
  environment: {{IMG_URL: http://h/root.raw, DEST_DISK: /dev/sda1}}"
    )));
    let steps = steps(&converted);
    assert_eq!(steps[0].2, json!({ "url": "http://h/i.raw.zst", "digest": digest, "disk": { "name": "sda" } }));
    assert_eq!(steps[0].3, Some(9));
    let with = json!({ "url": "http://h/root.raw", "compression": "none", "insecureNoDigest": true, "target": part() });
    assert_eq!(steps[1].2, with);
    let at = |name: &str| format!("spec.data.tasks[0].actions[0].environment.{name}");
    for name in ["RETRY_ENABLED", "RETRY_DURATION_MINUTES", "PROGRESS_INTERVAL_SECONDS", "TEXT_LOGGING"] {
        assert_eq!(note(&converted, &at(name)).outcome, Outcome::NotNeeded, "{name}");
    }
    assert_eq!(note(&converted, &at("SPEED")).outcome, Outcome::Lost);
    let said = note(&converted, "spec.data.tasks[0].actions[1].environment.IMG_URL");
    assert!(said.said.contains("insecureNoDigest: true"), "{said}");
    assert_eq!((said.document, said.line), (3, 17), "{said}");
}

#[test]
fn urls_and_images_are_mapped() {
    let text = stack(
        "- name: image
  image: ghcr.io/us/writer:v3
  environment: {IMG_URL: \"http://10.1.1.11:8080/a/b.raw\", DEST_DISK: /dev/sda}
- name: leave
  image: ghcr.io/us/leaver
  environment: {}",
    );
    let options = Options {
        images: vec![("ghcr.io/us/writer".into(), "image2disk".into()), ("leaver".into(), "x/reboot:1".into())],
        urls: vec![("http://10.1.1.11:8080/".into(), "/images/".into())],
    };
    let converted = convert(&[ManifestFile { name: "f.yaml", text: &text }], &options);
    let steps = steps(&converted);
    assert_eq!(steps[0].2["url"], "/images/a/b.raw");
    assert_eq!(steps[1].1, "reboot");
    assert!(note(&converted, "spec.data.tasks[0].actions[0].image").said.contains("is read as `image2disk`"));
    refused(&of(&text), "spec.data.tasks[0].actions[0].image", "`ghcr.io/us/writer:v3` is not native");
}

#[test]
fn writefile_keeps_text_and_modes_as_they_stand() {
    let converted = of(&stack(
        "- name: seed
  image: writefile
  environment:
    DEST_DISK: /dev/disk/by-label/ROOT
    FS_TYPE: ext4
    DEST_PATH: /etc/x
    CONTENTS: |
      ## template: jinja
      {{`{{ v1.hostname }}`}} {% if x %}
    UID: 1000
    GID: 0100
    MODE: 0640
    DIRMODE: 755
    HEGEL_URLS: http://h",
    ));
    let steps = steps(&converted);
    let content = "## template: jinja\n{{ '{{' }} v1.hostname }} {{ '{%' }} if x %}{{ '\\n' }}";
    assert_eq!(
        steps[0].2,
        json!({
            "target": { "label": "ROOT" }, "path": "/etc/x", "content": content, "uid": 1000, "gid": 100, "mode": "0640",
            "dirMode": "0755",
        })
    );
    let at = |name: &str| format!("spec.data.tasks[0].actions[0].environment.{name}");
    assert_eq!(note(&converted, &at("FS_TYPE")).outcome, Outcome::NotNeeded);
    assert_eq!(note(&converted, &at("HEGEL_URLS")).outcome, Outcome::Lost);
}

#[test]
fn cexec_is_a_command_or_several() {
    let converted = of(&stack(
        "- name: shell
  image: cexec
  timeout: 700
  environment: {BLOCK_DEVICE: /dev/sda1, FS_TYPE: ext4, CHROOT: y, DEFAULT_INTERPRETER: /bin/sh -c, CMD_LINE: a b; c, UPDATE_RESOLV_CONF: true, PROXY: \"http://p\"}
- name: plain
  image: cexec
  environment: {BLOCK_DEVICE: /dev/sda1, CHROOT: y, CMD_LINE: /bin/a -b; /bin/c}",
    ));
    let steps = steps(&converted);
    assert_eq!(
        steps[0].2,
        json!({
            "target": part(), "argv": ["/bin/sh", "-c", "a b; c"], "network": true, "timeoutSeconds": 700,
            "env": { "PROXY": "http://p" },
        })
    );
    assert_eq!((steps[1].0.as_str(), &steps[1].2["argv"]), ("plain 1", &json!(["/bin/a", "-b"])));
    assert_eq!((steps[2].0.as_str(), &steps[2].2["argv"]), ("plain 2", &json!(["/bin/c"])));
    let beside = of(&stack("- {name: a, image: cexec, environment: {BLOCK_DEVICE: /dev/sda1, CMD_LINE: x}}"));
    refused(&beside, "spec.data.tasks[0].actions[0].environment.CHROOT", "beside the installed system");
}

#[test]
fn grub2disk_and_ways_to_leave() {
    let converted = of(&stack(
        "- {name: bios, image: grub2disk, environment: {GRUB_INSTALL_PATH: /dev/sda1, GRUB_DISK: /dev/sdb, FS_TYPE: ext4}}
- {name: efi, image: grub2disk, environment: {GRUB_INSTALL_PATH: /dev/sda2, GRUB_DISK: /dev/sda, MODE: efi, EFI_PARTITION: /dev/sda1, BOOTLOADER_ID: ubuntu}}
- {name: go, image: kexec, pid: host, environment: {BLOCK_DEVICE: /dev/sda1, FS_TYPE: ext4, KERNEL_PATH: vmlinuz, INITRD_PATH: /initrd, CMD_LINE: root=/dev/sda1 ro, GRUBCFG_PATH: boot/g.cfg}}",
    ));
    let steps = steps(&converted);
    assert_eq!(steps[0].2, json!({ "kind": "grub", "firmware": "bios", "root": part() }));
    let sda2 = json!({ "disk": { "name": "sda" }, "partition": 2 });
    assert_eq!(
        steps[1].2,
        json!({ "kind": "grub", "firmware": "uefi", "root": sda2, "esp": part(), "label": "ubuntu" })
    );
    assert_eq!(
        steps[2].2,
        json!({ "target": part(), "kernel": "/vmlinuz", "initrd": "/initrd", "cmdline": "root=/dev/sda1 ro" })
    );
    let at = |action: u8, name: &str| format!("spec.data.tasks[0].actions[{action}].environment.{name}");
    assert_eq!(note(&converted, &at(0, "GRUB_DISK")).outcome, Outcome::Lost);
    assert_eq!(note(&converted, &at(2, "GRUBCFG_PATH")).outcome, Outcome::Changed);
    for (image, action) in [("x/reboot:1", "reboot"), ("poweroff", "poweroff")] {
        let converted = of(&stack(&format!("- {{name: leave, image: {image}}}")));
        assert_eq!(super::steps(&converted)[0].1, action);
    }
    let first = of(&stack("- {name: leave, image: reboot}\n- {name: on, image: poweroff}"));
    refused(&first, "spec.data.tasks", "`leave` leaves the machine, and other actions follow it");
    let bare = of(&stack("- {name: k, image: kexec, environment: {BLOCK_DEVICE: /dev/sda1, KERNEL_PATH: /k}}"));
    refused(&bare, "spec.data.tasks[0].actions[0].environment.CMD_LINE", "a kernel given by path needs one");
    let own = of(&stack("- {name: k, image: waitdaemon, environment: {IMAGE: a/waitdaemon}}"));
    refused(&own, "spec.data.tasks[0].actions[0].environment.IMAGE", "waits for itself");
}

#[test]
fn rootio_makes_what_the_metadata_say() {
    let storage = "  metadata:
    instance:
      storage:
        disks:
          - device: /dev/sda
            wipe_table: true
            partitions:
              - {label: BIOS, number: 1, size: 4096}
              - {label: SWAP, number: 2, size: 3993600}
              - {label: ROOT, number: 3, size: 0}
        filesystems:
          - mount: {device: /dev/sda3, format: ext4, point: /, create: {options: [-L, ROOT, -q]}}
          - mount: {device: /dev/sda2, format: swap, point: none}
";
    let actions = "- {name: parts, image: rootio, command: [partition], environment: {MIRROR_HOST: h, METADATA_SERVICE_PORT: 50061}}
- {name: fs, image: rootio, command: [format]}
- {name: up, image: rootio, command: [mount]}";
    let text = stack(actions).replacen("  disks: [", &format!("{storage}  disks: ["), 1);
    let converted = of(&text);
    let made = steps(&converted);
    assert_eq!(
        made[0].2,
        json!({ "disk": { "name": "sda" }, "table": "gpt", "partitions": [
            { "label": "BIOS", "type": "bios-boot", "size": "2097152" },
            { "label": "SWAP", "type": "swap", "size": "2044723200" },
            { "label": "ROOT", "type": "linux", "size": "rest" },
        ] })
    );
    let on = |number| json!({ "disk": { "name": "sda" }, "partition": number });
    assert_eq!(made[1].2, json!({ "target": on(3), "filesystem": "ext4", "label": "ROOT", "options": ["-q"] }));
    assert_eq!(made[2].2, json!({ "target": on(2), "filesystem": "swap" }));
    assert_eq!(made.len(), 3, "mounting is no step");
    assert_eq!(note(&converted, "spec.data.tasks[0].actions[2].command").outcome, Outcome::NotNeeded);
    let none = of(&stack(actions));
    refused(&none, "spec.data.tasks[0].actions[0].command", "no spec.metadata.instance.storage");
    for (from, to, words) in [
        ("number: 2", "number: 4", "do not count from 1"),
        ("format: ext4", "format: ext3", "`ext3` on /dev/sda3 is not made"),
        ("device: /dev/sda3", "device: /dev/sda", "a partition is formatted"),
        ("- device: /dev/sda", "- device: /dev/disk/by-id/x", "names a disk by a link"),
    ] {
        let converted = of(&text.replacen(from, to, 1));
        assert!(
            converted.notes.iter().any(|note| note.outcome == Outcome::Refused && note.said.contains(words)),
            "{words}"
        );
        assert!(templates(&converted).is_empty(), "{words}");
    }
    refused(
        &of(&stack("- {name: w, image: rootio, command: [wipe]}").replacen(
            "  disks: [",
            &format!("{storage}  disks: ["),
            1,
        )),
        "spec.data.tasks[0].actions[0].command",
        "rootio `wipe` is not native",
    );
}

#[test]
fn what_is_not_native_is_named_before_a_machine_sees_it() {
    for (image, words) in [
        ("quay.io/tinkerbell/actions/archive2disk:v1", "unpack the archive into an image"),
        ("oci2disk", "put the image on a web server"),
        ("qemuimg2disk:latest", "qemu-img convert -O raw"),
        ("slurp", "not copied to a server"),
        ("syslinux", "GRUB"),
        ("alpine:latest", "--map-image says which of them an image is"),
        ("", "names no image"),
    ] {
        let converted = of(&stack(&format!(
            "- {{name: ok, image: writefile, environment: {{DEST_DISK: /dev/sda1, DEST_PATH: /a, UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755}}}}
- {{name: a, image: \"{image}\", environment: {{REGISTRY_PASSWORD: geheim}}}}"
        )));
        refused(&converted, "spec.data.tasks[0].actions[1].image", words);
        assert!(templates(&converted).is_empty() && converted.assignments.is_empty(), "{image}");
        assert!(!format!("{:?}", converted.notes).contains("geheim"), "{image}");
    }
}

#[test]
fn what_is_wrong_with_an_action_is_named_where_it_stands() {
    let file = "DEST_PATH: /a, UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755";
    let table = [
        (
            "image: image2disk, environment: {IMG_URL: \"http://u:geheim@h/x\", DEST_DISK: /dev/sda}",
            "IMG_URL",
            "a password does not belong",
        ),
        (
            "image: image2disk, environment: {IMG_URL: \"ftp://h/x\", DEST_DISK: /dev/sda}",
            "IMG_URL",
            "`ftp:` cannot be fetched",
        ),
        (
            "image: image2disk, environment: {IMG_URL: \"http://$HOST/x\", DEST_DISK: /dev/sda}",
            "IMG_URL",
            "was not filled in",
        ),
        ("image: image2disk, environment: {DEST_DISK: /dev/sda}", "IMG_URL", "is not set"),
        ("image: image2disk, environment: {IMG_URL: \"http://h/x\"}", "DEST_DISK", "is not set"),
        (
            "image: writefile, environment: {DEST_DISK: /dev/sda, DEST_PATH: /a, UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755}",
            "DEST_DISK",
            "is a whole disk",
        ),
        (
            "image: writefile, environment: {DEST_DISK: /dev/sda1, DEST_PATH: a/b, UID: 0, GID: 0, MODE: 0644, DIRMODE: 0755}",
            "DEST_PATH",
            "not the absolute path",
        ),
        (
            "image: writefile, environment: {DEST_DISK: /dev/sda1, DEST_PATH: /a, UID: me, GID: 0, MODE: 0644, DIRMODE: 0755}",
            "UID",
            "not a number",
        ),
        (
            "image: writefile, environment: {DEST_DISK: /dev/sda1, DEST_PATH: /a, UID: 0, GID: 0, MODE: 0999, DIRMODE: 0755}",
            "MODE",
            "not a file mode",
        ),
        (
            "image: writefile, environment: {DEST_DISK: /dev/sda1, DEST_PATH: /a, UID: 0, GID: 0, DIRMODE: 0755}",
            "MODE",
            "is not set",
        ),
        ("image: kexec, environment: {FS_TYPE: ext4}", "BLOCK_DEVICE", "is not set"),
        (
            "image: grub2disk, environment: {GRUB_INSTALL_PATH: /dev/sda1, GRUB_DISK: /dev/sda, MODE: floppy}",
            "MODE",
            "`floppy` is not known",
        ),
    ];
    for (action, name, words) in table {
        let converted = of(&stack(&format!("- {{name: a, {action}}}")));
        refused(&converted, &format!("spec.data.tasks[0].actions[0].environment.{name}"), words);
        assert!(!format!("{:?}", converted.notes).contains("geheim"), "{action}");
    }
    let converted = of(&stack(&format!(
        "- name: a
  image: writefile
  on-failure: [echo]
  retries: 3
  command: [x]
  timeout: 0
  environment: {{DEST_DISK: /dev/sda1, {file}}}
- name: a
  image: writefile
  timeout: soon
  environment: {{DEST_DISK: /dev/sda1, {file}}}"
    )));
    let told = told(&converted);
    for wanted in [
        "actions[0].on-failure: lost",
        "actions[0].retries: lost",
        "actions[0].command: lost",
        "actions[1].name: changed",
        "actions[1].timeout: refused",
    ] {
        assert!(told.contains(&format!("spec.data.tasks[0].{wanted}")), "{wanted}: {told:#?}");
    }
}
