//! Sensors and log of a simulated controller.

use super::super::packet::Message;

fn full(id: u16, number: u8, kind: u8, unit: u8, m: u8, name: &str) -> Vec<u8> {
    let mut record = id.to_le_bytes().to_vec();
    record.extend([0x51, 0x01, 0, 0x20, 0, number, 7, 1, 0x7f, 0x68, kind, 0x01]);
    record.resize(20, 0);
    record.extend([0, unit, 0, 0, m, 0, 0, 0, 0, 0]);
    record.resize(47, 0);
    record.push(0xc0 | name.len() as u8);
    record.extend(name.bytes());
    record[4] = (record.len() - 5) as u8;
    record
}

/// A temperature of 42 degrees, a fan that stands still below its limit, and one that is not fitted.
pub fn example_sensors() -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![
        (full(1, 0x30, 0x01, 1, 1, "CPU1 Temp"), vec![42, 0xc0, 0xc0, 0]),
        (full(2, 0x40, 0x04, 18, 75, "FAN1"), vec![0, 0xc0, 0xc6, 0]),
        (full(3, 0x41, 0x04, 18, 75, "FAN2"), vec![0, 0xe0, 0xc0, 0]),
    ]
}

pub(super) fn example_events() -> Vec<[u8; 16]> {
    vec![
        [1, 0, 2, 0x00, 0xf1, 0x53, 0x65, 0x20, 0, 4, 0x14, 0x50, 0x6f, 0, 0xff, 0xff],
        [2, 0, 2, 0x40, 0xf1, 0x53, 0x65, 0x20, 0, 4, 0x0c, 0x60, 0x6f, 1, 0xff, 3],
        [3, 0, 2, 0x80, 0xf1, 0x53, 0x65, 0x20, 0, 4, 0x04, 0x40, 0x01, 0x52, 0, 20],
    ]
}

pub(super) fn carry_out(sensors: &[(Vec<u8>, Vec<u8>)], events: &[[u8; 16]], request: &Message) -> Vec<u8> {
    let count = |n: usize| (n as u16).to_le_bytes();
    match (request.function, request.command, &request.data[..]) {
        (0x04, 0x2d, [number]) => {
            let reading = sensors.iter().find(|(record, _)| record.get(7) == Some(number));
            reading.map_or_else(|| vec![0xcb], |(_, answer)| [&[0], &answer[..]].concat())
        }
        // Repository: what it holds, a reservation, a part of a record.
        (0x0a, 0x20, _) => [&[0, 0x51], &count(sensors.len())[..], &[0; 10], &[0x22]].concat(),
        (0x0a, 0x22, _) => vec![0, 1, 0],
        (0x0a, 0x23, [_, _, low, high, offset, length]) => {
            let id = u16::from_le_bytes([*low, *high]);
            let at = sensors.iter().position(|(record, _)| id == 0 || record[..2] == id.to_le_bytes());
            let Some(at) = at else { return vec![0xcb] };
            let next = sensors.get(at + 1).map_or([0xff; 2], |(record, _)| [record[0], record[1]]);
            let record = &sensors[at].0;
            // As many controllers, it returns only so much at once.
            if *length > 32 {
                return vec![0xca];
            }
            let from = usize::from(*offset).min(record.len());
            let to = (from + usize::from(*length)).min(record.len());
            [&[0], &next[..], &record[from..to]].concat()
        }
        // Log: what it holds, an entry.
        (0x0a, 0x40, _) => [&[0, 0x51], &count(events.len())[..], &[0xff, 0xff], &[0; 8], &[0x02]].concat(),
        (0x0a, 0x42, _) => vec![0, 1, 0],
        (0x0a, 0x43, [_, _, low, high, ..]) => {
            let id = u16::from_le_bytes([*low, *high]);
            let at = match id {
                0 => Some(0),
                0xffff => events.len().checked_sub(1),
                id => events.iter().position(|event| event[..2] == id.to_le_bytes()),
            };
            let Some(event) = at.and_then(|at| events.get(at)) else { return vec![0xcb] };
            let next = at.and_then(|at| events.get(at + 1)).map_or([0xff; 2], |event| [event[0], event[1]]);
            [&[0], &next[..], &event[..]].concat()
        }
        _ => vec![0xc1],
    }
}
