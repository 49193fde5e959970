//! Everything that is read from a controller, for fuzzers: whatever comes is understood or refused.

use super::control::DeviceId;
use super::packet::{self, Message, Payload};
use super::rakp::Begin;
use super::suite::{Keys, Suite};
use super::{Privilege, events, sensors};

/// Reads bytes as each thing that a controller may send: packets outside of sessions and in them, every message of the
/// handshake, records of sensors and of the event log.
///
/// # Panics
/// When something that was read is not as it must be: a text that could act on a terminal, a packet that does not
/// open again.
pub fn read_anything(bytes: &[u8]) {
    let _ = (packet::session_of(bytes), Message::parse(bytes), DeviceId::parse(bytes));
    let payload = packet::open_plain(bytes).map_or(bytes, |(_, payload)| payload);
    for suite in [Suite::Sha1, Suite::Sha256] {
        let begin =
            Begin { suite, privilege: Privilege::Administrator, user: b"admin".to_vec(), ours: 1, challenge: [7; 16] };
        let _ = begin.opened(payload);
        if let Ok(proven) = begin.proven(payload, 2, b"secret") {
            let _ = begin.keys(payload, 2, &proven);
        }
        let keys = Keys::derive(suite, b"a session integrity key");
        let _ = packet::open(&keys, bytes);
        // Past the seal, for nobody finds a key by chance.
        let sealed = packet::seal(&keys, 2, 3, [9; 16], bytes);
        let opened = packet::open(&keys, &sealed).map(|(_, inside)| inside);
        assert_eq!(opened.as_deref(), Some(bytes), "what was sealed is opened");
        let _ = packet::open_plain(&packet::plain(Payload::OpenResponse, bytes));
    }
    if let Some((reading, record)) = bytes.split_first_chunk::<4>() {
        let name = sensors::named(record, reading);
        assert!(!name.is_some_and(|name| name.contains(char::is_control)), "a sensor's name");
    }
    if let Some(record) = bytes.first_chunk::<16>() {
        let event = events::parse(record);
        assert!(!event.message.contains(char::is_control) && !event.sensor.contains(char::is_control), "an event");
    }
}
