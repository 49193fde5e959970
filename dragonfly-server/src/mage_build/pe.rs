//! Adding sections to a PE/COFF image (Microsoft PE format), as a unified kernel image is made from
//! its stub.

use anyhow::{Context, Result, bail};

/// Where a section's bytes begin in the file.
pub(super) type Offset = u64;

/// The image with more sections behind its own, in order; and where each one's bytes begin.
pub(super) fn add_sections(image: &[u8], sections: &[(&str, &[u8])]) -> Result<(Vec<u8>, Vec<Offset>)> {
    let mut out = image.to_vec();
    let coff = read_u32(image, 0x3c)? as usize + 4;
    if image.get(..2) != Some(b"MZ") || image.get(coff - 4..coff) != Some(b"PE\0\0") {
        bail!("it is not a PE image");
    }
    let count = usize::from(read_u16(image, coff + 2)?);
    let optional = coff + 20;
    let table = optional + usize::from(read_u16(image, coff + 16)?);
    if read_u16(image, optional)? != 0x20b {
        bail!("it is not a 64-bit PE image");
    }
    let section_alignment = read_u32(image, optional + 32)?.max(1);
    let file_alignment = read_u32(image, optional + 36)?.max(1);
    let headers_end = read_u32(image, optional + 60)? as usize;
    if table + (count + sections.len()) * 40 > headers_end {
        bail!("its headers have no room for {} more sections", sections.len());
    }
    let mut address = 0u32;
    for n in 0..count {
        let at = table + n * 40;
        let end = read_u32(image, at + 12)?.checked_add(read_u32(image, at + 8)?).context("a section has no end")?;
        address = address.max(end);
    }
    let mut offsets = Vec::new();
    for (n, (name, bytes)) in sections.iter().enumerate() {
        address = align(address, section_alignment)?;
        let offset = align(u32::try_from(out.len())?, file_alignment)?;
        out.resize(offset as usize, 0);
        out.extend_from_slice(bytes);
        let size = u32::try_from(bytes.len())?;
        out.resize(align(u32::try_from(out.len())?, file_alignment)? as usize, 0);
        let raw = u32::try_from(out.len())? - offset;
        let mut header = [0u8; 40];
        let name = name.as_bytes();
        header
            .get_mut(..name.len())
            .filter(|_| name.len() <= 8)
            .context("a section's name has more than 8 letters")?
            .copy_from_slice(name);
        header[8..12].copy_from_slice(&size.to_le_bytes());
        header[12..16].copy_from_slice(&address.to_le_bytes());
        header[16..20].copy_from_slice(&raw.to_le_bytes());
        header[20..24].copy_from_slice(&offset.to_le_bytes());
        // Initialised data that is read.
        header[36..40].copy_from_slice(&0x4000_0040u32.to_le_bytes());
        let at = table + (count + n) * 40;
        out.get_mut(at..at + 40).context("its headers are cut")?.copy_from_slice(&header);
        address = address.checked_add(size).context("it becomes too large")?;
        offsets.push(u64::from(offset));
    }
    let total = u16::try_from(count + sections.len())?;
    write(&mut out, coff + 2, &total.to_le_bytes())?;
    write(&mut out, optional + 56, &align(address, section_alignment)?.to_le_bytes())?;
    // The checksum is not looked at for boot images; zero says that there is none.
    write(&mut out, optional + 64, &[0; 4])?;
    Ok((out, offsets))
}

fn align(n: u32, to: u32) -> Result<u32> {
    n.checked_next_multiple_of(to).context("it becomes too large")
}

fn read_u16(image: &[u8], at: usize) -> Result<u16> {
    let bytes = image.get(at..at + 2).and_then(|b| b.try_into().ok()).context("it is cut")?;
    Ok(u16::from_le_bytes(bytes))
}

fn read_u32(image: &[u8], at: usize) -> Result<u32> {
    let bytes = image.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok()).context("it is cut")?;
    Ok(u32::from_le_bytes(bytes))
}

fn write(image: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    image.get_mut(at..at + bytes.len()).context("it is cut")?.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

    #[test]
    fn objdump_sees_the_sections_where_they_are_said_to_be() {
        let stub = std::fs::read(STUB).unwrap();
        let (image, offsets) = add_sections(&stub, &[(".cmdline", b"quiet"), (".initrd", &[7; 10_000])]).unwrap();
        assert_eq!(&image[offsets[0] as usize..][..5], b"quiet");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.efi");
        std::fs::write(&path, &image).unwrap();
        let output = std::process::Command::new("objdump").arg("-h").arg(&path).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|l| l.contains(".initrd")).unwrap();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(u64::from_str_radix(words[5], 16).unwrap(), offsets[1], "{line}");
        assert_eq!(usize::from_str_radix(words[2], 16).unwrap(), 10_000, "{line}");
    }

    #[test]
    fn a_cut_image_is_an_error() {
        let stub = std::fs::read(STUB).unwrap();
        for cut in [0, 1, 63, 64, 100, 200, 300, 400] {
            assert!(add_sections(&stub[..cut], &[(".x", b"y")]).is_err(), "{cut}");
        }
        assert!(add_sections(&stub, &[(".much-too-long", b"y")]).is_err());
        assert!(add_sections(&[0xff; 4096], &[(".x", b"y")]).is_err());
    }
}
