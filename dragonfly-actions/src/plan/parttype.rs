//! Partition types by name.

use uuid::Uuid;

use super::given::Word;

/// What a partition is for: one name, or a GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionType {
    /// GPT partition type GUID (UEFI 2.10, 5.3.3; Discoverable Partitions Specification).
    pub guid: Uuid,
    /// MBR partition type; `None` when a GUID was given, for which MBR has no number.
    pub mbr: Option<u8>,
}

/// Name, MBR type, GPT type.
const KNOWN: [(&str, u8, Uuid); 15] = [
    ("linux", 0x83, Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4)),
    ("esp", 0xef, Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b)),
    // An MBR needs none: GRUB lies in the gap before the first partition.
    ("bios-boot", 0xda, Uuid::from_u128(0x21686148_6449_6e6f_744e_656564454649)),
    ("linux-root-x86-64", 0x83, Uuid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709)),
    ("linux-root-arm64", 0x83, Uuid::from_u128(0xb921b045_1df0_41c3_af44_4c6f280d3fae)),
    ("linux-home", 0x83, Uuid::from_u128(0x933ac7e1_2eb4_4f13_b844_0e14e2aef915)),
    ("linux-srv", 0x83, Uuid::from_u128(0x3b8f8425_20e0_4f3b_907f_1a25a76f98e8)),
    ("linux-var", 0x83, Uuid::from_u128(0x4d21b016_b534_45c2_a9fb_5c16e091fd2d)),
    ("xbootldr", 0xea, Uuid::from_u128(0xbc13c2ff_59e6_4262_a352_b275fd6f7172)),
    ("swap", 0x82, Uuid::from_u128(0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f)),
    ("lvm", 0x8e, Uuid::from_u128(0xe6d6d379_f507_44c2_a23c_238f2a3df928)),
    ("raid", 0xfd, Uuid::from_u128(0xa19d880f_05fc_4d3b_a006_743f0f84911e)),
    ("msr", 0x0c, Uuid::from_u128(0xe3c9e316_0b5c_4db8_817d_f92df00215ae)),
    ("basic-data", 0x07, Uuid::from_u128(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7)),
    ("fat32", 0x0c, Uuid::from_u128(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7)),
];

impl PartitionType {
    /// A type by its name.
    pub fn named(name: &str) -> Option<Self> {
        KNOWN.iter().find(|(known, ..)| *known == name).map(|&(_, mbr, guid)| Self { guid, mbr: Some(mbr) })
    }

    /// Its name, or the GUID where it has none.
    pub fn name(&self) -> String {
        KNOWN
            .iter()
            .find(|(_, _, guid)| *guid == self.guid)
            .map_or_else(|| self.guid.to_string(), |(name, ..)| (*name).to_owned())
    }
}

impl Default for PartitionType {
    fn default() -> Self {
        let (_, mbr, guid) = KNOWN[0];
        Self { guid, mbr: Some(mbr) }
    }
}

impl Word for PartitionType {
    const WHAT: &'static str = "a partition type such as linux, esp or a GUID";

    fn from_text(text: &str) -> Result<Self, String> {
        if let Some(named) = Self::named(text) {
            return Ok(named);
        }
        if let Ok(guid) = Uuid::try_parse(text) {
            return Ok(Self { guid, mbr: None });
        }
        let names: Vec<_> = KNOWN.iter().map(|(name, ..)| *name).collect();
        Err(format!("`{text}` is not a partition type; write one of {}, or a GUID", names.join(", ")))
    }
}
