//! `EFI_LOAD_OPTION`: what a `Boot####` variable holds (UEFI specification 2.10, 3.1.3), with the two
//! device path nodes that an entry for an installed system consists of (10.3.5.1 and 10.3.5.4).

use uuid::Uuid;

/// The entry is tried when its turn comes.
pub(crate) const ACTIVE: u32 = 1;

/// A boot entry that starts a file on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadOption {
    /// `LOAD_OPTION_ACTIVE` and its like.
    pub(crate) attributes: u32,
    /// As the firmware's menu shows it.
    pub(crate) description: String,
    /// The partition.
    pub(crate) partition: HardDrive,
    /// The program, with `\` between directories.
    pub(crate) path: String,
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HardDrive {
    /// Its number, from 1.
    pub(crate) number: u32,
    /// Its first logical block.
    pub(crate) start: u64,
    /// Its length in logical blocks.
    pub(crate) size: u64,
    /// What tells it from others.
    pub(crate) signature: Signature,
}

/// What tells a partition from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// GPT: the partition's own GUID.
    Gpt(Uuid),
    /// MBR: the disk's signature, bytes 440 to 443 of its first sector.
    Mbr(u32),
}

const END: [u8; 4] = [0x7F, 0xFF, 4, 0];
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
/// The variable with one such option must fit one EFI variable; firmware takes far less than this.
const LONGEST: usize = 1 << 16;

/// The bytes of the variable, without the attributes that efivarfs puts in front. `None`: a path or a
/// description that no variable can hold.
pub(crate) fn encode(option: &LoadOption) -> Option<Vec<u8>> {
    if option.description.contains('\0') || option.path.contains('\0') {
        return None;
    }
    let mut nodes = Vec::new();
    nodes.extend([MEDIA, HARD_DRIVE, 42, 0]);
    nodes.extend(option.partition.number.to_le_bytes());
    nodes.extend(option.partition.start.to_le_bytes());
    nodes.extend(option.partition.size.to_le_bytes());
    match option.partition.signature {
        Signature::Gpt(guid) => {
            nodes.extend(guid.to_bytes_le());
            nodes.extend([2, 2]);
        }
        Signature::Mbr(signature) => {
            nodes.extend(signature.to_le_bytes());
            nodes.extend([0; 12]);
            nodes.extend([1, 1]);
        }
    }
    let path = utf16(&option.path);
    nodes.extend([MEDIA, FILE_PATH]);
    nodes.extend(u16::try_from(4 + path.len()).ok()?.to_le_bytes());
    nodes.extend(path);
    nodes.extend(END);

    let mut bytes = Vec::new();
    bytes.extend(option.attributes.to_le_bytes());
    bytes.extend(u16::try_from(nodes.len()).ok()?.to_le_bytes());
    bytes.extend(utf16(&option.description));
    bytes.extend(nodes);
    (bytes.len() <= LONGEST).then_some(bytes)
}

/// What can be told of any entry, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) description: String,
    /// Whether its device path leads over a network interface.
    pub(crate) network: bool,
    /// The entry, where it is one of the kind that we write: a hard drive and a file.
    pub(crate) option: Option<LoadOption>,
}

/// Reads a variable. `None`: it is damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Seen> {
    let attributes = u32::from_le_bytes(*bytes.first_chunk()?);
    let length = usize::from(u16::from_le_bytes(*bytes.get(4..)?.first_chunk()?));
    let (description, used) = text(bytes.get(6..)?)?;
    let mut nodes = bytes.get(6 + used..)?.get(..length)?;
    let (mut network, mut drive, mut path, mut others) = (false, None, None, false);
    // An end, of the whole path or of one of several, ends the first path: the others are hints.
    while let Some([kind, sub, low, high]) = nodes.first_chunk().copied() {
        let size = usize::from(u16::from_le_bytes([low, high]));
        let data = nodes.get(4..size)?;
        match (kind, sub) {
            (0x7F, _) => break,
            // Messaging: MAC address, IPv4, IPv6, URI, VLAN, Wi-Fi.
            (3, 11 | 12 | 13 | 20 | 24 | 28) => network = true,
            (MEDIA, HARD_DRIVE) => drive = hard_drive(data),
            (MEDIA, FILE_PATH) => path = text(data).map(|(path, _)| path),
            _ => others = true,
        }
        nodes = nodes.get(size..)?;
    }
    let option = match (drive, path) {
        (Some(partition), Some(path)) if !others => {
            Some(LoadOption { attributes, description: description.clone(), partition, path })
        }
        _ => None,
    };
    Some(Seen { description, network, option })
}

fn hard_drive(data: &[u8]) -> Option<HardDrive> {
    let number = u32::from_le_bytes(*data.first_chunk()?);
    let start = u64::from_le_bytes(*data.get(4..)?.first_chunk()?);
    let size = u64::from_le_bytes(*data.get(12..)?.first_chunk()?);
    let raw: [u8; 16] = *data.get(20..)?.first_chunk()?;
    let signature = match data.get(36..38)? {
        [2, 2] => Signature::Gpt(Uuid::from_bytes_le(raw)),
        [1, 1] => Signature::Mbr(u32::from_le_bytes(*raw.first_chunk()?)),
        _ => return None,
    };
    Some(HardDrive { number, start, size, signature })
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// UTF-16 up to its null, and how many bytes that takes.
fn text(bytes: &[u8]) -> Option<(String, usize)> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let end = units.iter().position(|unit| *unit == 0)?;
    Some((String::from_utf16_lossy(&units[..end]), (end + 1) * 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn debian() -> LoadOption {
        LoadOption {
            attributes: ACTIVE,
            description: "debian".into(),
            partition: HardDrive {
                number: 1,
                start: 2048,
                size: 0x10_0000,
                signature: Signature::Gpt("c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap()),
            },
            path: r"\EFI\debian\shimx64.efi".into(),
        }
    }

    /// What the specification's tables say, byte for byte.
    #[test]
    fn writes_the_layout_of_the_specification() {
        let bytes = encode(&debian()).unwrap();
        let mut want = Vec::new();
        want.extend([1, 0, 0, 0]);
        want.extend([0x62, 0]);
        want.extend(b"d\0e\0b\0i\0a\0n\0\0\0");
        want.extend([4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0]);
        want.extend([0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
        want.extend([2, 2]);
        want.extend([4, 4, 0x34, 0]);
        want.extend(br"\EFI\debian\shimx64.efi".iter().flat_map(|b| [*b, 0]));
        want.extend([0, 0]);
        want.extend([0x7F, 0xFF, 4, 0]);
        assert_eq!(bytes, want);
    }

    #[test]
    fn tells_the_network_from_the_rest() {
        let entry = |nodes: &[u8]| {
            let mut bytes = vec![1, 0, 0, 0];
            bytes.extend(u16::try_from(nodes.len()).unwrap().to_le_bytes());
            bytes.extend(b"x\0\0\0");
            bytes.extend(nodes);
            decode(&bytes)
        };
        // As OVMF has it: PciRoot / Pci / MAC / IPv4 / end.
        let mut pxe = vec![2, 1, 12, 0, 0xD0, 0x41, 3, 0x0A, 0, 0, 0, 0, 1, 1, 6, 0, 0, 3];
        pxe.extend([3, 11, 37, 0]);
        pxe.extend([0; 33]);
        pxe.extend(END);
        let seen = entry(&pxe).unwrap();
        assert!(seen.network && seen.option.is_none());
        let shell = [4, 7, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 0xFF, 4, 0];
        assert!(!entry(&shell).unwrap().network);
        assert_eq!(entry(&[4, 1, 3, 0]), None, "a node shorter than its header");
        assert_eq!(entry(&[4, 1, 99, 0]), None, "a node longer than the path");
        assert_eq!(decode(&[1, 0, 0, 0, 4, 0, 65, 0]), None, "a description without an end");
        let mbr = LoadOption {
            partition: HardDrive { signature: Signature::Mbr(0xDEAD_BEEF), ..debian().partition },
            ..debian()
        };
        assert_eq!(decode(&encode(&mbr).unwrap()).unwrap().option, Some(mbr));
        assert_eq!(encode(&LoadOption { path: "x".repeat(40_000), ..debian() }), None);
        assert_eq!(encode(&LoadOption { description: "a\0b".into(), ..debian() }), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(attributes: u32, description in "[^\0]{0,40}", number: u32, start: u64, size: u64, guid: u128, path in "[^\0]{0,80}") {
            let option = LoadOption {
                attributes,
                description: description.clone(),
                partition: HardDrive { number, start, size, signature: Signature::Gpt(Uuid::from_u128(guid)) },
                path,
            };
            let seen = decode(&encode(&option).unwrap()).unwrap();
            prop_assert_eq!(seen, Seen { description, network: false, option: Some(option) });
        }

        #[test]
        fn strangers_cannot_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..120, flip in 0usize..120, to: u8) {
            let _ = decode(&bytes);
            let mut bytes = encode(&debian()).unwrap();
            if let Some(byte) = bytes.get_mut(flip) {
                *byte = to;
            }
            let _ = decode(&bytes);
            bytes.truncate(cut);
            let _ = decode(&bytes);
        }
    }
}
