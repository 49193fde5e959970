//! What Tinkerbell adds.

use std::net::Ipv4Addr;

use super::{Group, exactly, format, text};

pub(super) const ALL: Group = &[
    ("formatPartition", |b, v| {
        let [device, number] = exactly(v)?;
        let number = format::shown(number, b)?;
        b.text(partition_of(text(device)?, &number))
    }),
    ("netmaskToPrefixLength", |b, v| {
        let mask = text(&exactly::<1>(v)?[0])?;
        let length = prefix_length(mask).ok_or_else(|| format!("`{mask}` is not a netmask"))?;
        b.text(length.to_string())
    }),
];

/// The device of a partition: `nvme0n1p1`, `sda1`, `/dev/disk/by-id/x-part1`.
fn partition_of(device: &str, number: &str) -> String {
    let between = match device {
        _ if device.starts_with("/dev/disk/") => "-part",
        _ if device.ends_with(|c: char| c.is_ascii_digit()) => "p",
        _ => "",
    };
    format!("{device}{between}{number}")
}

/// 24 for 255.255.255.0.
pub(in crate::tinkerbell) fn prefix_length(mask: &str) -> Option<u8> {
    let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let length = bits.leading_ones();
    (bits.checked_shl(length).unwrap_or(0) == 0).then_some(())?;
    u8::try_from(length).ok()
}
