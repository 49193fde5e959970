//! What kind of client sent a message: an ordinary one, firmware that wants a boot loader, or iPXE.

use dragonfly_core::boot::{Arch, Firmware};
use uuid::Uuid;

use super::packet::{Packet, option};

/// A client, by what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Wants an address and nothing else: a kernel, an installed system, a BMC.
    Plain,
    /// Firmware: PXE or UEFI HTTP Boot.
    Firmware(Platform),
    /// iPXE, from a boot loader or out of a card's ROM.
    Ipxe {
        /// What it runs on.
        platform: Platform,
        /// Whether it can fetch by HTTP. One that cannot is given one that can.
        http: bool,
    },
}

/// What a boot program must be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// How it is loaded.
    pub firmware: Firmware,
    /// Its instruction set; `None` for one that we have no loader for.
    pub arch: Option<Arch>,
}

impl Platform {
    const BIOS: Self = Self { firmware: Firmware::Bios, arch: Some(Arch::X86_64) };

    /// From the list of processor architectures (RFC 4578 section 2.1 and IANA's registry).
    fn from_code(code: u16) -> Option<Self> {
        let (firmware, arch) = match code {
            0 => (Firmware::Bios, Some(Arch::X86_64)),
            // UEFI with 32 bits: known, but no loader.
            6 => (Firmware::Uefi, None),
            // RFC 4578 names 7 for EBC; firmware means x86-64 by it, as by 9.
            7 | 9 => (Firmware::Uefi, Some(Arch::X86_64)),
            11 => (Firmware::Uefi, Some(Arch::Aarch64)),
            15 | 16 => (Firmware::UefiHttp, Some(Arch::X86_64)),
            19 => (Firmware::UefiHttp, Some(Arch::Aarch64)),
            _ => return None,
        };
        Some(Self { firmware, arch })
    }
}

impl Client {
    /// Reads it from options 60, 77, 93 and 175.
    pub fn of(packet: &Packet) -> Self {
        let class = packet.option(option::VENDOR_CLASS).unwrap_or_default();
        let (pxe, http) = (class.starts_with(b"PXEClient"), class.starts_with(b"HTTPClient"));
        let encapsulated = packet.option(option::IPXE);
        let ipxe = encapsulated.is_some() || user_class_is_ipxe(packet);
        // Some firmware drops option 60 from its REQUEST, some iPXE in ROM never sends it.
        if !(pxe || http || ipxe || packet.option(option::CLIENT_ARCH).is_some()) {
            return Self::Plain;
        }
        let said = packet.option(option::CLIENT_ARCH).is_some() || class.windows(5).any(|w| w == b"Arch:");
        let mut platform = match arch_codes(packet, class).find_map(Platform::from_code) {
            Some(platform) => platform,
            // It named only what we do not know: no loader of ours would run.
            None if said => Platform { firmware: Firmware::Uefi, arch: None },
            // The oldest ROMs name nothing.
            None => Platform::BIOS,
        };
        if http {
            platform.firmware = Firmware::UefiHttp;
        }
        if ipxe {
            Self::Ipxe { platform, http: encapsulated.is_none_or(|data| ipxe_has(data, IPXE_HTTP)) }
        } else {
            Self::Firmware(platform)
        }
    }

    /// Whether it wants to boot.
    pub fn boots(self) -> bool {
        self != Self::Plain
    }

    /// What it runs on, if it wants to boot.
    pub fn platform(self) -> Option<Platform> {
        match self {
            Self::Plain => None,
            Self::Firmware(platform) | Self::Ipxe { platform, .. } => Some(platform),
        }
    }
}

/// Feature "HTTP" in iPXE's encapsulated options.
const IPXE_HTTP: u8 = 19;

/// User class `iPXE`: as one string, or as RFC 3004's list of length and text.
fn user_class_is_ipxe(packet: &Packet) -> bool {
    packet.option(option::USER_CLASS).is_some_and(|class| class == b"iPXE" || class == b"\x04iPXE")
}

fn ipxe_has(mut rest: &[u8], feature: u8) -> bool {
    let mut listed = false;
    while let [code, length, tail @ ..] = rest {
        if *code == 255 {
            break;
        }
        let Some((data, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
        if *code == feature {
            return data.iter().any(|b| *b != 0);
        }
        // Features have numbers from 16 on; an option without any says nothing about them.
        listed |= (16..=47).contains(code);
        rest = tail;
    }
    !listed
}

/// Option 93's list; else the one in `PXEClient:Arch:00007:UNDI:003016`, where some firmware has it
/// alone.
fn arch_codes<'a>(packet: &'a Packet, class: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
    let listed = packet.option(option::CLIENT_ARCH).unwrap_or_default();
    let listed = listed.chunks_exact(2).map(|pair| pair.iter().fold(0, |code, byte| code << 8 | u16::from(*byte)));
    let named = std::str::from_utf8(class)
        .ok()
        .and_then(|text| text.split_once("Arch:"))
        .and_then(|(_, rest)| rest.split(':').next())
        .and_then(|digits| digits.parse().ok());
    listed.chain(named)
}

/// The machine's SMBIOS UUID, from option 97 (type 0, RFC 4578 section 2.3). It travels as SMBIOS
/// stores it: the first three fields little-endian.
pub(crate) fn smbios_uuid(packet: &Packet) -> Option<Uuid> {
    match packet.option(option::CLIENT_UUID) {
        Some([0, uuid @ ..]) => <[u8; 16]>::try_from(uuid).ok().map(Uuid::from_bytes_le),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::bytes;
    use super::*;

    fn of(options: &[(u8, &[u8])]) -> Client {
        let mut all: Vec<(u8, &[u8])> = vec![(53, &[1])];
        all.extend(options);
        Client::of(&Packet::decode(&bytes(&all)).unwrap())
    }

    const fn on(firmware: Firmware, arch: Option<Arch>) -> Client {
        Client::Firmware(Platform { firmware, arch })
    }

    #[test]
    fn clients_are_told_apart() {
        const X86: Option<Arch> = Some(Arch::X86_64);
        const ARM: Option<Arch> = Some(Arch::Aarch64);
        let bios = Platform::BIOS;
        let uefi = Platform { firmware: Firmware::Uefi, arch: X86 };
        let pxe: &[u8] = b"PXEClient";
        type Row<'a> = (&'a [(u8, &'a [u8])], Client);
        let table: [Row<'_>; 21] = [
            (&[], Client::Plain),
            (&[(60, b"udhcp 1.36")], Client::Plain),
            (&[(77, b"other")], Client::Plain),
            (&[(60, pxe), (93, &[0, 0])], on(Firmware::Bios, X86)),
            (&[(60, pxe), (93, &[0, 6])], on(Firmware::Uefi, None)),
            (&[(60, pxe), (93, &[0, 7])], on(Firmware::Uefi, X86)),
            (&[(60, pxe), (93, &[0, 9])], on(Firmware::Uefi, X86)),
            (&[(60, pxe), (93, &[0, 11])], on(Firmware::Uefi, ARM)),
            (&[(60, b"HTTPClient"), (93, &[0, 15])], on(Firmware::UefiHttp, X86)),
            (&[(60, b"HTTPClient:Arch:00016"), (93, &[0, 16])], on(Firmware::UefiHttp, X86)),
            (&[(60, b"HTTPClient"), (93, &[0, 19])], on(Firmware::UefiHttp, ARM)),
            (&[(60, b"HTTPClient"), (93, &[0, 7])], on(Firmware::UefiHttp, X86)),
            // A list whose first entry says nothing to us.
            (&[(60, pxe), (93, &[0, 99, 0, 7])], on(Firmware::Uefi, X86)),
            (&[(60, pxe), (93, &[0, 99])], on(Firmware::Uefi, None)),
            (&[(60, b"PXEClient:Arch:00011:UNDI:003000")], on(Firmware::Uefi, ARM)),
            (&[(60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[7])], on(Firmware::Uefi, X86)),
            (&[(60, pxe)], on(Firmware::Bios, X86)),
            // Option 60 dropped.
            (&[(93, &[0, 7])], on(Firmware::Uefi, X86)),
            (&[(77, b"iPXE")], Client::Ipxe { platform: bios, http: true }),
            (&[(175, &[19, 1, 1, 36, 1, 1]), (93, &[0, 7])], Client::Ipxe { platform: uefi, http: true }),
            (&[(175, &[33, 1, 1]), (77, b"\x04iPXE")], Client::Ipxe { platform: bios, http: false }),
        ];
        for (options, want) in table {
            assert_eq!(of(options), want, "{options:?}");
        }
    }

    #[test]
    fn the_uuid_is_read_as_smbios_writes_it() {
        let id = [0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 8, 9, 10, 11, 12, 13, 14, 15];
        let uuid = |data: &[u8]| smbios_uuid(&Packet::decode(&bytes(&[(53, &[1]), (97, data)])).unwrap());
        assert_eq!(uuid(&id).unwrap().to_string(), "00112233-4455-6677-0809-0a0b0c0d0e0f");
        assert_eq!(uuid(&id[..16]), None);
        assert_eq!(uuid(&[1; 17]), None);
    }
}
