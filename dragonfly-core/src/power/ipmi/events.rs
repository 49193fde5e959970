//! The system event log (SEL, IPMI 2.0 chapters 31 and 32).

use std::collections::VecDeque;

use super::words;
use super::{Controller, Failed};
use crate::clock::Timestamp;
use crate::power::{Health, LoggedEvent, PowerError};

const STORAGE: u8 = 0x0a;
/// The first entry, and the one that ends a list.
const FIRST: u16 = 0;
const END: u16 = 0xffff;
/// Times below this count from the controller's start (37.1): it has no clock yet.
const SINCE_START: u32 = 0x2000_0000;

/// One entry of 16 bytes.
pub(super) fn parse(record: &[u8; 16]) -> LoggedEvent {
    let id = u16::from_le_bytes([record[0], record[1]]);
    let seconds = u32::from_le_bytes([record[3], record[4], record[5], record[6]]);
    let has_time = record[2] < 0xe0 && seconds >= SINCE_START && seconds != u32::MAX;
    let at = has_time.then(|| Timestamp::from_unix_seconds(i64::from(seconds)));
    if record[2] != 0x02 {
        let message = format!("OEM record {:02x}: {}", record[2], hex::encode(&record[3..]));
        return LoggedEvent { id: id.to_string(), at, sensor: "OEM".to_owned(), message, health: Health::Unknown };
    }
    let (kind, number, direction, data) = (record[10], record[11], record[12], &record[13..]);
    let (is_over, event, offset) = (direction & 0x80 != 0, direction & 0x7f, data[0] & 0x0f);
    let known = match event {
        0x01 => words::threshold(offset),
        0x6f => words::specific(kind, offset),
        _ => None,
    };
    let (what, is_grave) = known
        .map_or_else(|| (format!("event {event:#04x}, state {offset}"), false), |(what, grave)| (what.into(), grave));
    let message = format!("{what}{} ({})", if is_over { ": over" } else { "" }, hex::encode(data));
    let health = match (known, is_over, is_grave) {
        (None, ..) => Health::Unknown,
        (_, true, _) => Health::Ok,
        (_, false, true) => Health::Critical,
        // A limit that only warns; everything else is news and not trouble.
        (_, false, false) if event == 0x01 => Health::Warning,
        (_, false, false) => Health::Ok,
    };
    LoggedEvent {
        id: id.to_string(),
        at,
        sensor: format!("{} #{number:#04x}", words::sensor_type(kind)),
        message,
        health,
    }
}

impl Controller {
    pub(super) async fn read_events(&self, most: usize) -> Result<Vec<LoggedEvent>, Failed> {
        let mut last = VecDeque::new();
        let mut id = FIRST;
        // Every number there is, once: a list that runs in a circle ends.
        for _ in 0..=u16::MAX {
            let [low, high] = id.to_le_bytes();
            let answer = match self.request(STORAGE, 0x43, &[0, 0, low, high, 0, 0xff]).await {
                // An empty log.
                Err(Failed::Code(0xcb)) if id == FIRST => break,
                answer => answer?,
            };
            let next = answer.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes));
            let (Some(next), Some(record)) = (next, answer.get(2..18).and_then(|bytes| bytes.first_chunk::<16>()))
            else {
                return Err(PowerError::Malformed { reason: "a log entry that is too short".to_owned() }.into());
            };
            last.push_back(parse(record));
            if last.len() > most {
                last.pop_front();
            }
            if next == END {
                break;
            }
            id = next;
        }
        Ok(last.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, sensor: u8, direction: u8, data: [u8; 3], seconds: u32) -> LoggedEvent {
        let [a, b, c, d] = seconds.to_le_bytes();
        parse(&[7, 0, kind, a, b, c, d, 0x20, 0, 4, sensor, 0x30, direction, data[0], data[1], data[2]])
    }

    #[test]
    fn entries_in_words() {
        let table = [
            (
                entry(2, 0x01, 0x01, [0x59, 91, 90], 1_700_000_000),
                "above its upper critical limit (595b5a)",
                Health::Critical,
            ),
            (
                entry(2, 0x01, 0x81, [0x59, 80, 90], 1_700_000_000),
                "above its upper critical limit: over (59505a)",
                Health::Ok,
            ),
            (
                entry(2, 0x04, 0x01, [0x00, 1, 2], 1_700_000_000),
                "below its lower warning limit (000102)",
                Health::Warning,
            ),
            (entry(2, 0x0c, 0x6f, [0x01, 0xff, 3], 1_700_000_000), "uncorrectable error (01ff03)", Health::Critical),
            (entry(2, 0x14, 0x6f, [0x00, 0xff, 0xff], 1_700_000_000), "power button pressed (00ffff)", Health::Ok),
            (entry(2, 0xc1, 0x70, [0x05, 0, 0], 1_700_000_000), "event 0x70, state 5 (050000)", Health::Unknown),
        ];
        for (event, message, health) in table {
            assert_eq!((&*event.message, event.health), (message, health));
            assert_eq!((&*event.id, event.at.map(Timestamp::unix_seconds)), ("7", Some(1_700_000_000)));
        }
        assert_eq!(entry(2, 0x01, 0x01, [0; 3], 77).at, None, "a controller that has just started has no clock");
        let oem = entry(0xe0, 1, 2, [3, 4, 5], 1);
        assert_eq!((oem.at, oem.health), (None, Health::Unknown));
        assert!(oem.message.starts_with("OEM record e0: "), "{}", oem.message);
    }
}
