//! The machine's own network: which card, its link, its address.

pub mod card;
pub mod dhcp;
pub mod lldp;

use std::process::Command;

/// Runs one `ip` command of busybox.
pub(crate) fn ip(args: &[&str]) -> std::io::Result<()> {
    let output = Command::new("/bin/busybox").arg("ip").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(200).collect::<String>();
    Err(std::io::Error::other(format!("ip {}: {said}", args.join(" "))))
}

/// Lets frames to group addresses through.
pub(crate) fn listen_to_groups(interface: &str) {
    let _ = Command::new("/bin/busybox").args(["ifconfig", interface, "allmulti"]).output();
}
