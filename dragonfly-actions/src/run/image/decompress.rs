//! Unpacks. Several members or frames in a row are one image; a truncated one, or anything behind
//! the last, is an error.

use std::io::{self, BufRead, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::plan::Compression;

/// Memory that an .xz may ask for: `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// The largest zstd window, as a power of two: what `zstd --ultra -22` uses, 128 MiB.
const ZSTD_WINDOW: u32 = 27;
/// How many bytes are looked at to tell how something is packed.
pub(crate) const PREFIX: usize = 18;

/// How something that begins like this is packed.
pub(crate) fn sniff(prefix: &[u8]) -> Compression {
    let skippable = prefix.len() >= 4 && (0x50..=0x5F).contains(&prefix[0]) && prefix[1..4] == [0x2A, 0x4D, 0x18];
    if prefix.starts_with(&[0x1F, 0x8B, 0x08]) {
        Compression::Gzip
    } else if prefix.starts_with(&[0xFD, b'7', b'z', b'X', b'Z', 0x00]) {
        Compression::Xz
    } else if prefix.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) || skippable {
        Compression::Zstd
    } else if prefix.starts_with(b"BZh")
        && matches!(prefix.get(3), Some(b'1'..=b'9'))
        // A block, or the end of an empty stream.
        && matches!(prefix.get(4..10), Some([0x31, 0x41, 0x59, 0x26, 0x53, 0x59] | [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]))
    {
        Compression::Bzip2
    } else {
        Compression::None
    }
}

/// How long the image will be, when its first bytes tell.
pub(crate) fn announced(kind: Compression, prefix: &[u8], total: Option<u64>) -> Option<u64> {
    match kind {
        Compression::None => total,
        // Only of the first frame; there may be more.
        Compression::Zstd => zstd::zstd_safe::get_frame_content_size(prefix).ok().flatten(),
        _ => None,
    }
}

/// A reader of the unpacked bytes.
pub(crate) fn unpack<'a, R: BufRead + 'a>(kind: Compression, packed: R) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match kind {
        Compression::None | Compression::Auto => Box::new(packed),
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(io::Error::other)?;
            Box::new(XzDecoder::new_stream(packed, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pack(kind: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match kind {
            Compression::Gzip => {
                let mut to = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
                to.write_all(bytes).unwrap();
                to.finish().unwrap();
            }
            Compression::Bzip2 => {
                let mut to = bzip2::write::BzEncoder::new(&mut packed, bzip2::Compression::fast());
                to.write_all(bytes).unwrap();
                to.finish().unwrap();
            }
            Compression::Xz => {
                let mut to = liblzma::write::XzEncoder::new(&mut packed, 1);
                to.write_all(bytes).unwrap();
                to.finish().unwrap();
            }
            Compression::Zstd => packed = zstd::encode_all(bytes, 1).unwrap(),
            _ => packed = bytes.to_vec(),
        }
        packed
    }

    /// All of it, through the check that nothing lies behind.
    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let kind = sniff(packed);
        let mut rest = packed;
        let mut all = Vec::new();
        unpack(kind, &mut rest)?.read_to_end(&mut all)?;
        if rest.is_empty() { Ok(all) } else { Err(io::Error::other("something lies behind")) }
    }

    const KINDS: [Compression; 4] = [Compression::Gzip, Compression::Bzip2, Compression::Xz, Compression::Zstd];

    #[test]
    fn every_format_is_found_and_read() {
        let bytes: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for kind in KINDS {
            let packed = pack(kind, &bytes);
            assert_eq!(sniff(&packed), kind);
            assert!(read(&packed).unwrap() == bytes, "{kind:?}");
            let twice = [&packed[..], &packed[..]].concat();
            assert_eq!(read(&twice).unwrap().len(), bytes.len() * 2, "{kind:?} in two members");
            let empty = pack(kind, b"");
            assert_eq!(sniff(&empty), kind);
            assert!(read(&empty).unwrap().is_empty(), "{kind:?}");
        }
        assert_eq!(sniff(b"BZh9 is how this text begins"), Compression::None);
        assert_eq!(sniff(b""), Compression::None);
    }

    #[test]
    fn truncated_images_and_what_lies_behind_are_errors() {
        let bytes: Vec<u8> = (0..30_000u32).flat_map(u32::to_le_bytes).collect();
        for kind in KINDS {
            let packed = pack(kind, &bytes);
            for cut in [packed.len() - 1, packed.len() - 5, packed.len() / 2, 11] {
                assert!(read(&packed[..cut]).is_err(), "{kind:?} cut at {cut} of {}", packed.len());
            }
            for behind in [&b"x"[..], b"garbage behind the image", &[0u8; 1], &[0u8; 7], &[0x1F]] {
                assert!(read(&[&packed[..], behind].concat()).is_err(), "{kind:?} with {behind:?} behind");
            }
            let second = [&packed[..], &packed[..packed.len() / 2]].concat();
            assert!(read(&second).is_err(), "{kind:?} with half a second member");
            for at in [12, packed.len() / 2, packed.len() - 3] {
                let mut bad = packed.clone();
                bad[at] ^= 0x10;
                // zstd frames need not carry a checksum: only the digest catches all of it.
                let harmed = read(&bad);
                assert!(kind == Compression::Zstd || harmed.is_err(), "{kind:?} with a flipped bit at {at}");
            }
        }
    }
}
