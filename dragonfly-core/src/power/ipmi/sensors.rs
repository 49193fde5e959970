//! Sensors: their records (SDR, IPMI 2.0 chapter 43) and what they measure (35.14).

use std::collections::HashSet;

use super::words;
use super::{Controller, Failed};
use crate::power::{Health, PowerError, Sensor};

/// Network functions.
const SENSOR: u8 = 0x04;
const STORAGE: u8 = 0x0a;
/// A record is read in parts: not all controllers return one whole.
const PART: usize = 16;
/// The record that ends a list.
const END: u16 = 0xffff;
/// More records than any machine has.
const MOST: usize = 2048;
/// How often a reservation may be lost in one record.
const RESERVATIONS: u32 = 5;
/// A controller's own address: sensors of others are reached over bridges that we do not cross.
const OWNER: u8 = 0x20;

/// A sensor's record, as much as is needed of it.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    name: String,
    number: u8,
    /// Another controller's, or on another unit of it.
    is_foreign: bool,
    kind: u8,
    /// Its states are thresholds, and not events of its own.
    has_thresholds: bool,
    unit: String,
    scale: Option<Scale>,
}

/// How a reading becomes a value: `(M x + B 10^b) 10^r`, through a function (36.3).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    format: Format,
    m: f64,
    b: f64,
    result: i32,
    function: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

/// A number in two's complement of so many bits.
fn signed(value: u16, bits: u32) -> i32 {
    let shift = 32 - bits;
    (i32::from(value) << shift) >> shift
}

impl Scale {
    fn parse(record: &[u8]) -> Option<Self> {
        let format = match record.get(20)? >> 6 {
            0 => Format::Unsigned,
            1 => Format::OnesComplement,
            2 => Format::TwosComplement,
            _ => return None,
        };
        let byte = |at: usize| record.get(at).copied().map(u16::from);
        let m = signed(byte(24)? | (byte(25)? & 0xc0) << 2, 10);
        let b = signed(byte(26)? | (byte(27)? & 0xc0) << 2, 10);
        let (result, exponent) = (signed(byte(29)? >> 4, 4), signed(byte(29)? & 0xf, 4));
        let function = byte(23)? as u8 & 0x7f;
        let b = f64::from(b) * 10f64.powi(exponent);
        Some(Self { format, m: f64::from(m), b, result, function })
    }

    fn value(self, reading: u8) -> Option<f64> {
        let x = match self.format {
            Format::Unsigned => f64::from(reading),
            Format::TwosComplement => f64::from(reading as i8),
            // Below zero every bit is turned over.
            Format::OnesComplement if reading & 0x80 != 0 => -f64::from(!reading),
            Format::OnesComplement => f64::from(reading),
        };
        let linear = (self.m * x + self.b) * 10f64.powi(self.result);
        let value = match self.function {
            0 => linear,
            1 => linear.ln(),
            2 => linear.log10(),
            3 => linear.log2(),
            4 => linear.exp(),
            5 => 10f64.powf(linear),
            6 => 2f64.powf(linear),
            7 => linear.recip(),
            8 => linear.powi(2),
            9 => linear.powi(3),
            10 => linear.sqrt(),
            11 => linear.cbrt(),
            // Another scale for each reading, which only its maker knows.
            _ => return None,
        };
        // Controllers measure three digits at most; what arithmetic adds to them is noise.
        value.is_finite().then(|| (value * 1000.0).round() / 1000.0)
    }
}

/// A name: type and length, then the bytes (43.15).
fn name(record: &[u8], at: usize) -> String {
    let Some(head) = record.get(at) else { return String::new() };
    let bytes = record.get(at + 1..).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(usize::from(head & 0x1f))];
    let text: String = match head >> 6 {
        // Six bits a letter, four letters in three bytes.
        2 => {
            let bits = bytes.iter().rev().fold(0u128, |all, byte| all << 8 | u128::from(*byte));
            let letters = (bytes.len().min(16) * 8) / 6;
            (0..letters).map(|n| char::from(0x20 + ((bits >> (6 * n)) & 0x3f) as u8)).collect()
        }
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.trim().to_owned()
}

/// The name of the sensor that a record is about, as it is shown.
#[cfg(any(test, feature = "testing"))]
pub(super) fn named(record: &[u8], reading: &[u8]) -> Option<String> {
    Record::parse(record).map(|record| record.read(reading).name)
}

impl Record {
    /// Full and compact records; everything else is no sensor that can be read.
    fn parse(record: &[u8]) -> Option<Self> {
        let is_full = match record.get(3)? {
            0x01 => true,
            0x02 => false,
            _ => return None,
        };
        let [owner, unit, number] = *record.get(5..8)?.first_chunk::<3>()?;
        let units = record.get(20..23)?;
        let percent = if units[0] & 1 == 1 { "%" } else { "" };
        let unit_words = format!("{percent}{}", words::unit(units[1]));
        Some(Self {
            name: name(record, if is_full { 47 } else { 31 }),
            number,
            is_foreign: owner != OWNER || unit & 0x03 != 0,
            kind: *record.get(12)?,
            has_thresholds: *record.get(13)? == 0x01,
            unit: unit_words,
            scale: if is_full { Scale::parse(record) } else { None },
        })
    }

    /// A reading, put together with what the record says of it.
    fn read(self, answer: &[u8]) -> Sensor {
        // Bit 5: there is no reading; bit 6: it is not measured at all.
        let reading = match answer {
            [reading, flags, ..] if flags & 0x20 == 0 && flags & 0x40 != 0 => Some(*reading),
            _ => None,
        };
        let states = answer.get(2).copied().unwrap_or_default();
        let health = match reading {
            Some(_) if !self.has_thresholds => Health::Unknown,
            Some(_) if states & 0b11_0110 != 0 => Health::Critical,
            Some(_) if states & 0b00_1001 != 0 => Health::Warning,
            Some(_) => Health::Ok,
            None => Health::Unknown,
        };
        let scale = self.scale.filter(|_| self.has_thresholds);
        Sensor {
            name: self.name,
            kind: words::sensor_type(self.kind),
            value: reading.and_then(|reading| scale?.value(reading)),
            unit: if scale.is_some() { self.unit } else { String::new() },
            health,
        }
    }
}

impl Controller {
    pub(super) async fn read_sensors(&self) -> Result<Vec<Sensor>, Failed> {
        let (mut sensors, mut seen) = (Vec::new(), HashSet::new());
        let mut reservation = self.reserve().await?;
        let mut id = 0;
        while id != END && sensors.len() < MOST {
            if !seen.insert(id) {
                return Err(PowerError::Malformed { reason: "its list of sensors never ends".to_owned() }.into());
            }
            let (next, record) = match self.record(&mut reservation, id).await {
                // A repository without records.
                Err(Failed::Code(0xcb)) if id == 0 => break,
                found => found?,
            };
            if let Some(record) = Record::parse(&record) {
                let answer = match record.is_foreign {
                    true => Vec::new(),
                    // A sensor that is not there now has no value; that is no reason to lose the others.
                    false => match self.request(SENSOR, 0x2d, &[record.number]).await {
                        Ok(answer) => answer,
                        Err(Failed::Code(_)) => Vec::new(),
                        Err(failed) => return Err(failed),
                    },
                };
                sensors.push(record.read(&answer));
            }
            id = next;
        }
        Ok(sensors)
    }

    async fn reserve(&self) -> Result<[u8; 2], Failed> {
        let answer = self.request(STORAGE, 0x22, &[]).await?;
        let reserved = answer.first_chunk::<2>().copied();
        reserved.ok_or_else(|| PowerError::Malformed { reason: "a reservation without number".to_owned() }.into())
    }

    /// One record, and the number of the next one.
    async fn record(&self, reservation: &mut [u8; 2], id: u16) -> Result<(u16, Vec<u8>), Failed> {
        let mut lost = 0;
        'whole: loop {
            let (mut record, mut next, mut length) = (Vec::new(), END, 5);
            while record.len() < length {
                let part = (length - record.len()).min(PART);
                let [low, high] = id.to_le_bytes();
                let ask = [reservation[0], reservation[1], low, high, record.len() as u8, part as u8];
                let answer = match self.request(STORAGE, 0x23, &ask).await {
                    Err(Failed::Code(0xc5)) if lost < RESERVATIONS => {
                        lost += 1;
                        *reservation = self.reserve().await?;
                        continue 'whole;
                    }
                    answer => answer?,
                };
                let Some((follows, bytes)) = answer.split_first_chunk::<2>().filter(|(_, bytes)| !bytes.is_empty())
                else {
                    return Err(PowerError::Malformed { reason: "an empty part of a sensor record".to_owned() }.into());
                };
                next = u16::from_le_bytes(*follows);
                record.extend(bytes);
                if let (5, Some(rest)) = (length, record.get(4)) {
                    length += usize::from(*rest);
                }
            }
            return Ok((next, record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A full record: a temperature, with everything that is read of it.
    fn full(units: [u8; 3], function: u8, m: u16, b: u16, exponents: u8, name: &[u8]) -> Vec<u8> {
        let mut record = vec![1, 0, 0x51, 0x01, 0, 0x20, 0, 0x30, 7, 1, 0x7f, 0x68, 0x01, 0x01];
        record.resize(20, 0);
        record.extend(units);
        let high = |value: u16| (value >> 2) as u8 & 0xc0;
        record.extend([function, m as u8, high(m), b as u8, high(b), 0, exponents]);
        record.resize(47, 0);
        record.push(0xc0 | name.len() as u8);
        record.extend(name);
        record[4] = (record.len() - 5) as u8;
        record
    }

    /// Units, function, M, B, exponents, reading, value, unit.
    type Case = ([u8; 3], u8, u16, u16, u8, u8, Option<f64>, &'static str);

    #[test]
    fn readings_become_values() {
        let two = |value: i16| value as u16 & 0x3ff;
        let table: [Case; 9] = [
            ([0, 1, 0], 0, 1, 0, 0, 42, Some(42.0), "degrees C"),
            ([0x80, 1, 0], 0, 1, 0, 0, 0xf6, Some(-10.0), "degrees C"),
            ([0x40, 1, 0], 0, 1, 0, 0, 0xf5, Some(-10.0), "degrees C"),
            ([0, 18, 0], 0, 75, 0, 0, 80, Some(6000.0), "RPM"),
            ([0, 4, 0], 0, 59, 0, 0xd0, 206, Some(12.154), "Volts"),
            ([0, 6, 0], 0, 4, two(-10), 0x01, 50, Some(100.0), "Watts"),
            ([1, 0, 0], 0, 1, 0, 0, 33, Some(33.0), "%"),
            ([0, 1, 0], 8, 1, 0, 0, 5, Some(25.0), "degrees C"),
            ([0xc0, 1, 0], 0, 1, 0, 0, 5, None, ""),
        ];
        for (units, function, m, b, exponents, reading, value, unit) in table {
            let record = Record::parse(&full(units, function, m, b, exponents, b"CPU1 Temp")).unwrap();
            let sensor = record.read(&[reading, 0x40, 0]);
            assert_eq!((sensor.value, &*sensor.unit), (value, unit), "{units:?} {reading}");
            assert_eq!((&*sensor.name, &*sensor.kind), ("CPU1 Temp", "Temperature"));
        }
    }

    #[test]
    fn states_are_health() {
        let record = Record::parse(&full([0, 1, 0], 0, 1, 0, 0, b"T")).unwrap();
        for (answer, value, health) in [
            (&[42, 0x40, 0x00][..], Some(42.0), Health::Ok),
            (&[42, 0xc0, 0x08], Some(42.0), Health::Warning),
            (&[42, 0xc0, 0x18], Some(42.0), Health::Critical),
            (&[42, 0xc0, 0x04], Some(42.0), Health::Critical),
            // No reading; not measured; no answer.
            (&[42, 0x60, 0x00], None, Health::Unknown),
            (&[42, 0x00, 0x00], None, Health::Unknown),
            (&[], None, Health::Unknown),
        ] {
            let sensor = record.clone().read(answer);
            assert_eq!((sensor.value, sensor.health), (value, health), "{answer:?}");
        }
    }

    #[test]
    fn names_of_every_kind() {
        let packed = [&[0; 47][..], &[0x80 | 3, 0x29, 0xdc, 0xa6]].concat();
        assert_eq!(name(&packed, 47), "IPMI");
        assert_eq!(name(&[0xc4, b'F', b'a', b'n', 0], 0), "Fan");
        assert_eq!(name(&[0xdf, b'F'], 0), "F");
        assert_eq!(name(&[], 0), "");
    }

    proptest! {
        #[test]
        fn any_record_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), answer in prop::collection::vec(any::<u8>(), 0..5)) {
            if let Some(record) = Record::parse(&bytes) {
                let sensor = record.read(&answer);
                prop_assert!(!sensor.name.contains(char::is_control));
            }
        }
    }
}
