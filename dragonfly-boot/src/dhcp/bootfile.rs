//! Which file a machine is told to load first.

use dragonfly_core::Mac;
use dragonfly_core::boot::{Arch, Decision, Fate, Firmware};

use super::client::{Client, Platform};
use crate::files::LOCAL_LOADER;
use crate::{Base, Loaders};

/// The boot file for a client: a name for TFTP, or a URL. `None` when it wants none, or when there
/// is none that its processor runs.
///
/// PXE firmware is given iPXE whatever the fate: a machine that is to boot its disk still has to be
/// told so, and a refused PXE offer costs it minutes.
pub fn boot_file(
    client: Client,
    mac: Mac,
    decision: &Decision,
    unified_kernel: bool,
    loaders: &Loaders,
    base: &Base,
) -> Option<String> {
    let platform = match client {
        Client::Plain => return None,
        Client::Ipxe { http: true, .. } => return Some(base.script(mac)),
        // It would fetch the next loader by TFTP, whatever it was loaded by.
        Client::Ipxe { platform: Platform { firmware: Firmware::UefiHttp, arch }, .. } => {
            Platform { firmware: Firmware::Uefi, arch }
        }
        Client::Ipxe { platform, .. } | Client::Firmware(platform) => platform,
    };
    let to_disk = loaders.local && matches!(decision.fate, Fate::Local | Fate::Hold);
    let to_agent =
        unified_kernel && loaders.unified_kernel && matches!(decision.fate, Fate::Discover | Fate::Image { .. });
    match (platform.firmware, platform.arch?) {
        // A BIOS that is handed a UEFI program hangs: these two never mix.
        (Firmware::Bios, _) => Some(loaders.bios.to_owned()),
        (Firmware::Uefi, Arch::X86_64) => Some(loaders.uefi.to_owned()),
        (Firmware::Uefi, Arch::Aarch64) => Some(loaders.arm64.to_owned()),
        (Firmware::UefiHttp, Arch::X86_64) if to_disk => Some(base.file(LOCAL_LOADER)),
        (Firmware::UefiHttp, Arch::X86_64) if to_agent => Some(base.unified_kernel(mac)),
        (Firmware::UefiHttp, Arch::X86_64) => Some(base.file(loaders.uefi_http)),
        (Firmware::UefiHttp, Arch::Aarch64) => Some(base.file(loaders.arm64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_firmware_gets_what_it_can_run() {
        let base = Base::at("10.0.0.1:3000".parse().unwrap());
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let all = Loaders { unified_kernel: true, local: true, ..Loaders::default() };
        let none = Loaders::default();
        let ask = |client, fate, unified, loaders: &Loaders| {
            let reason = String::new();
            let decision = Decision { fate, reason, machine: None, address: None, hostname: None, console: None };
            boot_file(client, mac, &decision, unified, loaders, &base)
        };
        let on = |firmware, arch| Client::Firmware(Platform { firmware, arch });
        let x86 = Some(Arch::X86_64);
        let (bios, uefi) = (on(Firmware::Bios, x86), on(Firmware::Uefi, x86));
        let (http, arm) = (on(Firmware::UefiHttp, x86), Some(Arch::Aarch64));
        let script = "http://10.0.0.1:3000/boot/02:00:00:00:00:01";
        let uki = "http://10.0.0.1:3000/boot/02:00:00:00:00:01/mage.efi";
        let platform = Platform { firmware: Firmware::Bios, arch: x86 };
        let image = || Fate::Image { workflow: "w".into() };
        let table = [
            (Client::Plain, Fate::Discover, true, &all, None),
            (bios, Fate::Discover, true, &all, Some("undionly.kpxe")),
            (bios, Fate::Local, true, &all, Some("undionly.kpxe")),
            (uefi, Fate::Hold, true, &all, Some("snponly.efi")),
            (on(Firmware::Uefi, arm), Fate::Discover, true, &all, Some("ipxe-arm64.efi")),
            (on(Firmware::Uefi, None), Fate::Discover, true, &all, None),
            (http, Fate::Discover, true, &all, Some(uki)),
            (http, image(), true, &all, Some(uki)),
            (http, image(), false, &all, Some("http://10.0.0.1:3000/boot/files/ipxe.efi")),
            (http, image(), true, &none, Some("http://10.0.0.1:3000/boot/files/ipxe.efi")),
            (http, Fate::Local, true, &all, Some("http://10.0.0.1:3000/boot/files/local.efi")),
            (http, Fate::Local, true, &none, Some("http://10.0.0.1:3000/boot/files/ipxe.efi")),
            (on(Firmware::UefiHttp, arm), image(), true, &all, Some("http://10.0.0.1:3000/boot/files/ipxe-arm64.efi")),
            (Client::Ipxe { platform, http: true }, Fate::Local, true, &all, Some(script)),
            (Client::Ipxe { platform, http: false }, Fate::Local, true, &all, Some("undionly.kpxe")),
        ];
        for (client, fate, unified, loaders, want) in table {
            let got = ask(client, fate.clone(), unified, loaders);
            assert_eq!(got.as_deref(), want, "{client:?} {fate:?} {unified}");
        }
    }
}
