//! How a kernel that begins in real mode lies in memory (Linux, Documentation/arch/x86/boot.rst).
//! iPXE's `ipxe.lkrn` is one: it needs BIOS, which only real mode reaches, so that the kernel's own
//! `kexec_file_load` does not take it.

/// Where the way into real mode is copied to, and entered. Free on every PC: above what BIOS and its
/// boot sectors use, below the setup code.
pub(crate) const ENTRY: u64 = 0x7000;
/// Where the setup code lies, with its heap and stack: one segment.
const SETUP: u64 = 0x1_0000;
const SEGMENT: u64 = 0x1_0000;
/// Where the rest of the kernel lies.
const KERNEL: u64 = 0x10_0000;
/// Where the initial RAM disk lies: above any kernel that is taken, in the memory of any machine that
/// runs the agent.
const INITRD: u64 = 0x200_0000;
/// The largest kernel that is taken; iPXE has 0.3 MiB.
const LARGEST: usize = 16 << 20;
const PAGE: u64 = 4096;

/// A piece of the next kernel's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its physical address, at the start of a page.
    pub(crate) at: u64,
    /// Its length, whole pages; what `bytes` does not fill is zero.
    pub(crate) length: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Segment {
    fn new(at: u64, bytes: Vec<u8>) -> Self {
        let length = (bytes.len() as u64).next_multiple_of(PAGE).max(PAGE);
        Self { at, length, bytes }
    }
}

/// Lays out a kernel with an initial RAM disk behind the way into real mode. The error says what is
/// wrong with the kernel.
pub(crate) fn arrange(entry: &[u8], image: &[u8], initrd: &[u8]) -> Result<Vec<Segment>, String> {
    let word = |at: usize| image.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if word(0x1FE) != Some(0xAA55) || image.get(0x202..0x206) != Some(b"HdrS".as_slice()) {
        return Err("is not a Linux kernel image".to_owned());
    }
    if word(0x206).is_none_or(|version| version < 0x204) {
        return Err("is a kernel of too old a kind".to_owned());
    }
    // LOADED_HIGH: it is made to lie at 1 MiB.
    if image.get(0x211).is_none_or(|flags| flags & 1 == 0) {
        return Err("is made for low memory".to_owned());
    }
    let sectors = match image.get(0x1F1) {
        // For history's sake.
        Some(0) | None => 4,
        Some(sectors) => usize::from(*sectors),
    };
    let (Some((setup, kernel)), true) = (image.split_at_checked((sectors + 1) * 512), image.len() <= LARGEST) else {
        return Err("has a length that cannot be".to_owned());
    };
    if setup.len() > 0x8000 || kernel.is_empty() || initrd.len() > LARGEST {
        return Err("has a length that cannot be".to_owned());
    }
    let mut setup = setup.to_vec();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = setup.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    let flags = image.get(0x211).copied().unwrap_or(1);
    // type_of_loader: one without a number. loadflags: the heap may be used.
    put(0x210, &[0xFF, flags | 0x80]);
    put(0x218, &u32::try_from(INITRD).unwrap_or(0).to_le_bytes());
    put(0x21C, &u32::try_from(initrd.len()).unwrap_or(0).to_le_bytes());
    // heap_end_ptr counts from the entry: up to 0xE000 of the segment, the rest is stack.
    put(0x224, &0xDE00u16.to_le_bytes());
    // cmd_line_ptr: none.
    put(0x228, &[0; 4]);
    let entry = Segment::new(ENTRY, entry.to_vec());
    if entry.length > PAGE {
        return Err("cannot be started: the way into real mode has grown over its page".to_owned());
    }
    Ok(vec![
        entry,
        Segment { at: SETUP, length: SEGMENT, bytes: setup },
        Segment::new(KERNEL, kernel.to_vec()),
        Segment::new(INITRD, initrd.to_vec()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0u8; 6 * 512];
        image[0x1F1] = 5;
        image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[7, 2]);
        image[0x211] = 1;
        image.extend([0xAB; 5000]);
        image
    }

    #[test]
    fn a_kernel_lies_where_the_boot_protocol_says() {
        let segments = arrange(b"entry", &image(), b"#!ipxe\n").unwrap();
        let places: Vec<(u64, u64, usize)> = segments.iter().map(|s| (s.at, s.length, s.bytes.len())).collect();
        assert_eq!(
            places,
            [(0x7000, 0x1000, 5), (0x1_0000, 0x1_0000, 3072), (0x10_0000, 0x2000, 5000), (0x200_0000, 0x1000, 7)]
        );
        let setup = &segments[1].bytes;
        assert_eq!(setup[0x210..0x212], [0xFF, 0x81]);
        assert_eq!(setup[0x218..0x220], [0, 0, 0, 2, 7, 0, 0, 0]);
        assert_eq!(setup[0x224..0x226], [0, 0xDE]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_way_into_real_mode_is_assembled_for_its_place() {
        let entry = super::super::sys::real_mode_entry();
        // cli; cld.
        assert_eq!(entry[..2], [0xFA, 0xFC]);
        // The operand of lgdt points behind the code at a limit of five descriptors.
        let at = entry.windows(4).position(|w| w == [0x0F, 0x01, 0x14, 0x25]).unwrap() + 4;
        let pointer = u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as u64;
        let place = usize::try_from(pointer - ENTRY).unwrap();
        assert_eq!(entry[place..place + 2], 39u16.to_le_bytes());
        // Its last jump enters the setup code.
        assert!(entry.windows(5).any(|w| w == [0xEA, 0, 0, 0x20, 0x10]));
        assert!((entry.len() as u64) < PAGE);
    }

    #[test]
    fn what_is_no_such_kernel_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut image = image();
            image[at] = byte;
            image
        };
        for (image, want) in [
            (vec![], "not a Linux kernel"),
            (with(0x202, b'h'), "not a Linux kernel"),
            (with(0x207, 1), "too old"),
            (with(0x211, 0), "low memory"),
            (with(0x1F1, 200), "length"),
            (image()[..6 * 512].to_vec(), "length"),
        ] {
            let said = arrange(&[], &image, &[]).unwrap_err();
            assert!(said.contains(want), "{said}");
        }
    }

    proptest! {
        #[test]
        fn strangers_cannot_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200), at in 0usize..0x230, to: u8) {
            let _ = arrange(&[], &bytes, &[]);
            let mut image = image();
            image[at] = to;
            let _ = arrange(&[], &image, &[]);
        }
    }
}
