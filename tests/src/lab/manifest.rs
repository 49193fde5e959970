//! What the lab applies through the real command line.

use super::args::Dhcp;
use super::image::OsImage;
use super::machine::Machine;

/// The network on which machines are provisioned.
pub(crate) fn network(dhcp: Dhcp) -> String {
    format!(
        "apiVersion: dragonfly.computer/v1
kind: Network
metadata:
  name: lab
spec:
  interface: br0
  dhcp: {}
  allowFull: true
  subnet: 192.168.77.0/24
  pool:
    start: 192.168.77.100
    end: 192.168.77.199
",
        dhcp.word()
    )
}

/// A machine that is known before it first boots, with a fixed address.
pub(crate) fn reservation(machine: &Machine) -> String {
    format!(
        "apiVersion: dragonfly.computer/v1
kind: Hardware
metadata:
  name: {}
spec:
  displayName: {}
  macs: [\"{}\"]
  dhcp:
    address: 192.168.77.{}
    hostname: lab-{}
",
        machine.name.to_lowercase(),
        machine.name,
        machine.mac,
        10 + machine.index,
        machine.index + 1
    )
}

/// A template of these steps; each line of `steps` is indented as it stands below `actions:`.
pub(crate) fn template(name: &str, steps: &str) -> String {
    let steps: String = steps.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: dragonfly.computer/v1
kind: Template
metadata:
  name: {name}
spec:
  description: made by the lab
  values:
    nonce: unset
  actions:
{steps}"
    )
}

/// Where an image is and what it must be.
pub(crate) fn source(image: &OsImage) -> String {
    format!("url: /images/{}, digest: \"sha256:{}\"", image.name(), image.sha256)
}

const NONCE: &str = r#"- name: nonce
  action: writefile
  with:
    target: {label: dflyroot}
    path: /etc/dragonfly-nonce
    content: "{{ values.nonce }}"
    mode: "0644"
- name: phone-home
  action: writefile
  with:
    target: {label: dflyroot}
    path: /etc/dragonfly-phone-home
    content: "{{ phoneHome }}"
    mode: "0600"
"#;

/// A whole-disk image, its last partition grown.
pub(crate) fn disk_steps(image: &OsImage) -> String {
    format!(
        "- name: image
  action: image2disk
  with: {{{}}}
{NONCE}- name: grow
  action: grow
- name: reboot
  action: reboot
",
        source(image)
    )
}

/// A partition table, a root file system streamed into it, a boot loader installed from inside it.
pub(crate) fn partition_steps(image: &OsImage) -> String {
    format!(
        "- name: table
  action: partition
  with:
    partitions:
      - {{label: bios, size: 1MiB, type: bios-boot}}
      - {{label: esp, size: 64MiB, type: esp}}
      - {{label: dflyroot, size: rest, type: linux-root-x86-64}}
- name: esp
  action: format
  with: {{target: esp, filesystem: vfat, label: ESP}}
- name: root
  action: image2disk
  with: {{{}, target: dflyroot}}
- name: grow
  action: grow
  with: {{target: dflyroot}}
{NONCE}- name: bootloader
  action: bootloader
  with: {{kind: grub, root: dflyroot, esp: esp}}
- name: reboot
  action: reboot
",
        source(image)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn steps_stand_below_actions() {
        let image = OsImage {
            file: PathBuf::from("/c/small-disk.raw.zst"),
            raw: PathBuf::new(),
            sha256: "00ff".into(),
            bytes: 1,
            raw_bytes: 2,
        };
        let text = template("lab", &disk_steps(&image));
        assert!(text.contains("\n  actions:\n    - name: image\n      action: image2disk\n"), "{text}");
        assert!(text.contains("with: {url: /images/small-disk.raw.zst, digest: \"sha256:00ff\"}"), "{text}");
        assert!(text.contains("content: \"{{ values.nonce }}\""), "{text}");
    }
}
