//! `512MiB`, `10GB`, `25%`, `rest`.

use super::given::Word;

/// How large something is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// This many bytes.
    Bytes(u64),
    /// This share of the disk, 1 to 100.
    Percent(u8),
    /// What the others leave.
    Rest,
}

impl Word for Size {
    const WHAT: &'static str = "a size such as 512MiB, 10GB, 25% or rest";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "rest" {
            return Ok(Self::Rest);
        }
        let wrong = || format!("`{text}` is not a size; write 512MiB, 10GB, 25% or rest");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start();
        if unit == "%" {
            return match u8::try_from(number) {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("`{text}` is not between 1% and 100%")),
            };
        }
        let factor: u64 = match unit {
            "" | "B" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            "TiB" | "T" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Self::Bytes).ok_or_else(|| format!("`{text}` is larger than any disk"))
    }
}

/// A quantity of bytes for a person: exact in a binary unit where it is one, else with one decimal.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, factor) in UNITS {
        if bytes >= factor {
            let tenths = (u128::from(bytes) * 10 / u128::from(factor)) as u64;
            return match (bytes.is_multiple_of(factor), tenths % 10) {
                (true, _) => format!("{} {unit}", bytes / factor),
                (false, tenth) => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("512MiB", Ok(Size::Bytes(512 << 20))),
            ("512M", Ok(Size::Bytes(512 << 20))),
            ("10GB", Ok(Size::Bytes(10_000_000_000))),
            ("10 GiB", Ok(Size::Bytes(10 << 30))),
            ("4096", Ok(Size::Bytes(4096))),
            ("rest", Ok(Size::Rest)),
            ("25%", Ok(Size::Percent(25))),
            ("0%", Err("between 1% and 100%")),
            ("101%", Err("between 1% and 100%")),
            ("", Err("not a size")),
            ("ten", Err("not a size")),
            ("10 apples", Err("not a size")),
            ("-1", Err("not a size")),
            ("1.5GiB", Err("not a size")),
            ("99999999TiB", Err("larger than any disk")),
            ("99999999999999999999999", Err("not a size")),
            ("5é", Err("not a size")),
        ];
        for (text, want) in table {
            match (Size::from_text(text), want) {
                (Ok(size), Ok(want)) => assert_eq!(size, want, "{text}"),
                (Err(said), Err(want)) => assert!(said.contains(want), "{text}: {said}"),
                (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
            }
        }
    }

    #[test]
    fn tells_sizes_to_people() {
        assert_eq!(human(512), "512 bytes");
        assert_eq!(human(1 << 30), "1 GiB");
        assert_eq!(human((3 << 30) / 2), "1.5 GiB");
        assert_eq!(human(480_103_981_056), "447.1 GiB");
        assert_eq!(human(u64::MAX), "16777215.9 TiB");
    }
}
