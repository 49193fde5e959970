//! Firmware and TPM.

use std::path::Path;

use dragonfly_core::inventory::FirmwareMode;

use super::{entries, text};

/// How this kernel was booted.
pub(crate) fn mode(sys: &Path) -> Option<FirmwareMode> {
    let firmware = sys.join("firmware");
    if !firmware.exists() {
        return None;
    }
    Some(if firmware.join("efi").exists() { FirmwareMode::Uefi } else { FirmwareMode::Bios })
}

/// The version of the first TPM.
pub(crate) fn tpm(sys: &Path) -> Option<String> {
    entries(&sys.join("class/tpm")).into_iter().find_map(|(_, path)| {
        match text(&path.join("tpm_version_major"))?.as_str() {
            "1" => Some("1.2".to_owned()),
            "2" => Some("2.0".to_owned()),
            _ => None,
        }
    })
}
