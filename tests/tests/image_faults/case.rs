//! Random faults, and what each of them may come to.

use std::io::Write;
use std::sync::Arc;

use crate::server::{Break, Connection, Framing, Ranges};

/// SplitMix64: a case is its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    /// A place in something so long, its edges more often than others; never behind its last byte.
    fn place(&mut self, length: usize) -> usize {
        let edges = [0, 1, 17, 18, 19, length / 2, length - 2, length - 1];
        if self.one_in(4) { self.of(&edges).min(length - 1) } else { self.below(length) }
    }
}

/// Disks of the tests: the last MiB is held back as the first one is, so there is one in between.
pub(crate) const DISK_MIB: usize = 3;

/// An image: what must be on the disk, and how it can come.
pub(crate) struct Image {
    pub(crate) raw: Vec<u8>,
    packed: Vec<(&'static str, Arc<Vec<u8>>)>,
}

impl Image {
    /// Of the disk that it is written to.
    pub(crate) fn disk_mib(&self) -> usize {
        if self.raw.len() == LARGE { 26 } else { DISK_MIB }
    }
}

/// More than all that lies between the network and the disk, and than the kernel is told of at once.
const LARGE: usize = (24 << 20) + 12_345;

/// Images that end in the first piece, at odd places behind it, and with the disk; and a large one.
pub(crate) fn images() -> Vec<Image> {
    [300_000, (1 << 20) + 777, 1_600_001, DISK_MIB << 20, LARGE].into_iter().map(image).collect()
}

fn image(length: usize) -> Image {
    let mut random = Random(length as u64);
    let mut raw = Vec::with_capacity(length);
    while raw.len() < length {
        match random.below(4) {
            0 => raw.resize(raw.len() + random.below(150_000), 0),
            1 => (0..random.below(40_000)).for_each(|_| raw.push(random.next() as u8)),
            _ => (0..random.below(9_000)).for_each(|n| write!(raw, "file {n}, ").unwrap()),
        }
    }
    raw.truncate(length);
    // Boot code and the signature that firmware looks for. The table is empty: partitions are another test's.
    raw[..446].fill(0xF4);
    raw[446..510].fill(0);
    raw[510..512].copy_from_slice(&[0x55, 0xAA]);
    // No room for our mark, so that the whole image can be compared.
    if let Some(place) = raw.get_mut(0xFF000..0x10_0000) {
        place.fill(0x77);
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&raw).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&raw).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&raw).unwrap();
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    // Without it a frame has no checksum, and only a digest sees a flipped bit.
    zstd.include_checksum(true).unwrap();
    zstd.write_all(&raw).unwrap();
    let packed = [
        ("none", raw.clone()),
        ("gzip", gzip.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("zstd", zstd.finish().unwrap()),
    ];
    Image { raw, packed: packed.map(|(name, bytes)| (name, Arc::new(bytes))).into() }
}

/// What a step is told to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Digest,
    RawDigest,
    Both,
    /// By the length and by what the packing checks itself.
    Nothing,
}

impl Judged {
    pub(crate) fn packed(self) -> bool {
        matches!(self, Self::Digest | Self::Both)
    }

    pub(crate) fn raw(self) -> bool {
        matches!(self, Self::RawDigest | Self::Both)
    }
}

/// What must come of it. A wrong disk that is called good is allowed by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    Succeed,
    Fail,
    Either,
}

/// One try.
pub(crate) struct Case {
    pub(crate) fault: &'static str,
    pub(crate) image: usize,
    pub(crate) packing: &'static str,
    /// Whether the step is told how the image is packed.
    pub(crate) told: bool,
    pub(crate) packed: Arc<Vec<u8>>,
    pub(crate) judged: Judged,
    pub(crate) gullible: bool,
    pub(crate) connections: Vec<Connection>,
    pub(crate) must: Must,
}

impl Case {
    fn new(random: &mut Random, images: &[Image]) -> Self {
        let image = if random.one_in(20) { 4 } else { random.of(&[0, 0, 1, 1, 2, 2, 3]) };
        let (packing, packed) = images[image].packed[random.below(5)].clone();
        let judged = random.of(&[Judged::Digest, Judged::Both, Judged::RawDigest, Judged::Nothing]);
        Self {
            fault: "",
            image,
            packing,
            // What begins wrongly and bears no digest is written as it comes: then it has to be told.
            told: packing != "none" && (judged == Judged::Nothing || random.one_in(2)),
            packed,
            judged,
            gullible: judged != Judged::Nothing && random.one_in(3),
            connections: Vec::new(),
            must: Must::Either,
        }
    }

    /// For faults that nothing but a digest can see, in an image packed like this.
    fn needs_a_digest(&mut self, needs: bool) {
        if needs && self.judged == Judged::Nothing {
            self.judged = Judged::Digest;
        }
    }
}

/// Connections that break, at any place and in any way.
pub(crate) fn cuts(random: &mut Random, images: &[Image]) -> Case {
    let mut case = Case::new(random, images);
    case.fault = "cuts";
    let mut whole = Connection::new(case.packed.clone());
    whole.framing = random.of(&[Framing::Length, Framing::Length, Framing::Chunked, Framing::Close]);
    whole.ranges = random.of(&[Ranges::Honoured, Ranges::Honoured, Ranges::Ignored]);
    whole.etag = random.of(&[Some("\"one\""), Some("W/\"one\""), None]);
    // An image of which only its end tells that it is whole.
    case.needs_a_digest(whole.framing == Framing::Close && case.packing == "none");
    let mut stalls = random.one_in(4);
    for _ in 0..=random.below(6) {
        let how = match random.below(8) {
            0 if std::mem::take(&mut stalls) => Break::Stall,
            0 | 1 => Break::InHead,
            2..=4 => Break::Reset,
            _ => Break::Close,
        };
        case.connections.push(whole.clone().cut(random.place(case.packed.len()), how));
    }
    let provable = whole.etag.is_some() || case.judged != Judged::Nothing;
    if whole.framing != Framing::Close && provable && !(case.gullible && whole.ranges == Ranges::Ignored) {
        case.must = Must::Succeed;
    }
    case.connections.push(whole);
    case
}

/// Servers that send something else, or say something untrue.
pub(crate) fn corruptions(random: &mut Random, images: &[Image]) -> Case {
    let mut case = Case::new(random, images);
    let right = case.packed.clone();
    let length = right.len();
    let raw = case.packing == "none";
    let mut wrong = (*right).clone();
    let first = Connection::new(right.clone()).cut(1 + random.below(length - 1), Break::Close);
    let whole = Connection::new(right.clone());
    let mut then = whole.clone();
    // Whether the bytes are others than those that were asked for.
    let mut harmed = false;
    match random.below(18) {
        0 | 1 => {
            case.fault = "flipped bits";
            case.needs_a_digest(raw);
            for _ in 0..=random.below(3) {
                wrong[random.place(length)] ^= 1 << random.below(8);
            }
            harmed = wrong != *right;
            case.connections = if random.one_in(2) { vec![] } else { vec![first] };
            // What the first connection brings is harmed as well.
            let wrong = Arc::new(std::mem::take(&mut wrong));
            case.connections.iter_mut().for_each(|c| c.body = wrong.clone());
            then.body = wrong;
        }
        2 => {
            case.fault = "flipped after the break";
            case.needs_a_digest(raw);
            let at = first.cut.map_or(0, |(at, _)| at);
            wrong[at + random.below(length - at)] ^= 1 << random.below(8);
            harmed = true;
            then.body = Arc::new(std::mem::take(&mut wrong));
            case.connections = vec![first];
        }
        3 => {
            case.fault = "truncated file";
            case.needs_a_digest(raw);
            wrong.truncate(random.place(length));
            then.body = Arc::new(std::mem::take(&mut wrong));
            case.must = Must::Fail;
        }
        4 => {
            case.fault = "truncated, old length told";
            let left = random.place(length);
            wrong.truncate(left);
            then.body = Arc::new(std::mem::take(&mut wrong));
            then.length = (length - left) as i64;
            then.ranges = random.of(&[Ranges::Honoured, Ranges::Ignored]);
            // Who takes the whole for the rest gets some length together.
            case.must = if case.gullible && then.ranges == Ranges::Ignored { Must::Either } else { Must::Fail };
        }
        5 => {
            case.fault = "told too long";
            then.length = random.of(&[1, 2, 100, 1 << 20, 1 << 40]);
            case.must = Must::Fail;
        }
        6 => {
            case.fault = "told too short";
            case.needs_a_digest(raw);
            then.length = -(1 + random.below(length) as i64);
            case.must = Must::Fail;
        }
        7 => {
            case.fault = "closes for good";
            let how = random.of(&[Break::Close, Break::Reset, Break::InHead]);
            then = whole.cut(0, how);
            case.connections = vec![first];
            case.must = Must::Fail;
        }
        8 => {
            case.fault = "whole body called the rest";
            case.needs_a_digest(true);
            then.ranges = Ranges::Lied;
            case.connections = vec![first];
            case.must = Must::Fail;
        }
        9 => {
            case.fault = "another range";
            then.ranges = Ranges::Off(random.of(&[-1, 1, -4096, 4096, -1_000_000, 7]));
            case.connections = vec![first];
        }
        10 | 11 => {
            case.fault = "replaced, another tag";
            let others = &images[(case.image + 1) % images.len()].packed;
            let other = others.iter().find(|(name, _)| *name == case.packing);
            then.body = other.unwrap().1.clone();
            then.etag = random.of(&[Some("\"two\""), Some("W/\"one\""), None]);
            then.ranges = random.of(&[Ranges::Honoured, Ranges::Ignored]);
            case.connections = vec![first];
            case.must = Must::Fail;
        }
        12 => {
            case.fault = "replaced, the same tag";
            case.needs_a_digest(true);
            wrong.iter_mut().for_each(|byte| *byte ^= 0x55);
            then.body = Arc::new(std::mem::take(&mut wrong));
            then.ranges = random.of(&[Ranges::Honoured, Ranges::Lied]);
            case.connections = vec![first];
            case.must = Must::Fail;
        }
        13 => {
            case.fault = "something behind";
            case.needs_a_digest(raw);
            let byte = random.of(&[0, 0x1F, b'x']);
            wrong.resize(length + 1 + random.below(5000), byte);
            harmed = true;
            then.body = Arc::new(std::mem::take(&mut wrong));
        }
        14 => {
            case.fault = "blocks in another order, or twice";
            case.needs_a_digest(true);
            let (from, to) = (random.below(length - 1000), random.below(length - 1000));
            if random.one_in(2) {
                let block = wrong[from..from + 1000].to_vec();
                wrong.splice(to..to, block);
            } else {
                (0..1000).for_each(|n| wrong.swap(from + n, to + n));
            }
            harmed = wrong != *right;
            then.body = Arc::new(std::mem::take(&mut wrong));
        }
        15 => {
            case.fault = "a status";
            then.status = Some(random.of(&[204, 302, 400, 403, 404, 410, 416, 500, 503]));
            case.connections = if random.one_in(2) { vec![] } else { vec![first] };
            case.must = Must::Fail;
        }
        16 => {
            case.fault = "another total";
            then.total = random.of(&[-1, 1, 4096, 1 << 40]);
            case.connections = vec![first];
            case.must = Must::Fail;
        }
        _ => {
            case.fault = "not HTTP";
            then.garbage = true;
            case.connections = if random.one_in(2) { vec![] } else { vec![first] };
            case.must = Must::Fail;
        }
    }
    if harmed && (case.judged.packed() || (raw && case.judged.raw())) {
        case.must = Must::Fail;
    }
    case.connections.push(then);
    case
}
