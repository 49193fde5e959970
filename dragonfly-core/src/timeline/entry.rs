//! One line of a timeline, and how a boot is cut out of many.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use crate::Mac;
use crate::boot::{Asker, DhcpAsk, Ended, Seen};
use crate::clock::Timestamp;
use crate::sighting::clip;

/// The longest text of an entry, in bytes.
pub(super) const LONGEST: usize = 512;
/// After so long without a word, what comes next belongs to another boot.
const PAUSE: u64 = 600;

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The boot services saw or sent it.
    Seen(Seen),
    /// The engine did it, or its agent reported it.
    Told {
        /// As an event type: `step.began`.
        kind: Cow<'static, str>,
        /// For a person.
        message: String,
    },
    /// The agent wrote it to its log.
    Logged(String),
}

/// Which part of a machine's timeline an entry belongs to: each has a bound of its own, so that a
/// machine that asks for an address all day does not push out what became of its installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Boot,
    Engine,
    Log,
}

impl What {
    pub(super) fn part(&self) -> Part {
        match self {
            Self::Seen(_) => Part::Boot,
            Self::Told { .. } => Part::Engine,
            Self::Logged(_) => Part::Log,
        }
    }

    /// The same within the bounds of an entry.
    pub(super) fn bounded(self) -> Self {
        match self {
            Self::Seen(seen) => Self::Seen(seen.bounded()),
            Self::Told { kind, mut message } => {
                clip(&mut message, LONGEST);
                Self::Told { kind, message }
            }
            Self::Logged(mut line) => {
                clip(&mut line, LONGEST);
                Self::Logged(line)
            }
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Seen(seen) => match seen {
                Seen::DhcpAsked { network, .. } => network.len(),
                Seen::DhcpOffered { file, .. } | Seen::DhcpConfirmed { file, .. } | Seen::DhcpOther { file, .. } => {
                    file.as_ref().map_or(0, String::len)
                }
                Seen::DhcpRefused { why } | Seen::DhcpSilence { why, .. } | Seen::AgentRefused { why, .. } => why.len(),
                Seen::TftpEnded { file, why, .. } => file.len() + why.len(),
                Seen::Script { fate, reason } => fate.len() + reason.len(),
                Seen::Identity { how } => how.len(),
                Seen::TftpBegan { file, .. } | Seen::FileBegan { file, .. } | Seen::FileEnded { file, .. } => {
                    file.len()
                }
                Seen::HttpRefused { path, why, .. } => path.len() + why.len(),
                Seen::DhcpForeign { .. } | Seen::NoLoader { .. } | Seen::AgentClock { .. } => 0,
            },
            Self::Told { message, .. } => message.len(),
            Self::Logged(line) => line.len(),
        }
    }
}

/// One thing that happened to a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Grows over all timelines of one run of the server.
    pub id: u64,
    /// When it happened; the last time, when it happened several times in a row.
    pub time: Timestamp,
    /// The card that it happened on, when that is known.
    pub mac: Option<Mac>,
    /// How often in a row.
    pub times: u32,
    /// What.
    pub what: What,
}

impl Entry {
    /// What it costs to keep, in bytes.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + 2 * size_of::<usize>() + self.what.text_bytes()
    }

    /// As an event type.
    pub fn kind(&self) -> &str {
        match &self.what {
            What::Seen(seen) => seen.kind(),
            What::Told { kind, .. } => kind,
            What::Logged(_) => "agent.log",
        }
    }

    /// For a person.
    pub fn message(&self) -> Cow<'_, str> {
        match &self.what {
            What::Seen(seen) => seen.to_string().into(),
            What::Told { message, .. } => message.into(),
            What::Logged(line) => line.into(),
        }
    }

    /// What the boot services saw, if it is that.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.what {
            What::Seen(seen) => Some(seen),
            What::Told { .. } | What::Logged(_) => None,
        }
    }

    /// Who asks for an address with it, if it is the first word of one that boots.
    fn opens(&self) -> Option<Asker> {
        match self.seen() {
            Some(Seen::DhcpAsked { message: DhcpAsk::Discover, asker, .. }) if *asker != Asker::System => Some(*asker),
            _ => None,
        }
    }
}

/// How far a boot has come, as far as that tells whether the next DISCOVER belongs to it.
#[derive(Debug, Default)]
struct Stage {
    /// Firmware has gone beyond questions and offers.
    firmware: bool,
    /// iPXE has an address, and no boot program has been loaded since: it asks but once, so that it starts anew
    /// when it asks again. Cards with iPXE in their ROM never ask as firmware.
    ipxe: bool,
}

impl Stage {
    fn take(&mut self, entry: &Entry) {
        let opening = match entry.seen() {
            Some(Seen::DhcpAsked { asker, .. } | Seen::DhcpOffered { asker, .. }) => *asker == Asker::Firmware,
            Some(Seen::DhcpSilence { .. } | Seen::NoLoader { .. } | Seen::DhcpOther { .. }) => true,
            _ => false,
        };
        self.firmware |= !opening;
        match entry.seen() {
            Some(Seen::DhcpConfirmed { asker: Asker::Ipxe, .. } | Seen::DhcpForeign { asker: Asker::Ipxe, .. }) => {
                self.ipxe = true;
            }
            Some(Seen::TftpEnded { ended: Ended::Whole, .. }) => self.ipxe = false,
            Some(Seen::FileEnded { file, .. }) if file.ends_with(".efi") => self.ipxe = false,
            Some(Seen::Script { .. } | Seen::Identity { .. } | Seen::DhcpAsked { asker: Asker::System, .. }) => {
                self.ipxe = true;
            }
            _ => {}
        }
    }

    fn is_over_with(&self, asker: Asker) -> bool {
        match asker {
            Asker::Firmware => self.firmware,
            Asker::Ipxe => self.ipxe,
            Asker::System => false,
        }
    }
}

/// A timeline cut where the firmware began anew, the oldest boot first. The first may lack its beginning.
pub fn boots(entries: &[Arc<Entry>]) -> Vec<&[Arc<Entry>]> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut stage = Stage::default();
    let mut before: Option<&Entry> = None;
    for (at, entry) in entries.iter().enumerate() {
        // Firmware repeats its question until it is answered: that is one boot. One that comes back after
        // more than questions and offers has begun anew.
        let paused = before.is_some_and(|before| entry.time.since(before.time).as_secs() > PAUSE);
        if at > from
            && let Some(asker) = entry.opens()
            && (paused || stage.is_over_with(asker))
        {
            out.extend(entries.get(from..at));
            (from, stage) = (at, Stage::default());
        }
        stage.take(entry);
        before = Some(entry);
    }
    out.extend(entries.get(from..).filter(|rest| !rest.is_empty()));
    out
}

/// Whether it may happen to a machine that is off: what people do to it, and what follows from that alone.
fn needs_no_machine(entry: &Entry) -> bool {
    const DEEDS: [&str; 25] = [
        "object.applied",
        "object.deleted",
        "workflow.assigned",
        "workflow.retried",
        "workflow.aborted",
        "machine.protected",
        "machine.held",
        "machine.released",
        "machine.denied",
        "machine.found",
        "machine.moved",
        "machine.renamed",
        "machine.gone",
        "machine.back",
        "machine.overdue",
        "machine.settled",
        "machine.error",
        "workflow.failed",
        // A controller answers for a machine that is off, and a cluster for a VM.
        "power.controller",
        "power.done",
        "power.failed",
        "power.changed",
        "cluster.doubled",
        "machine.doubled",
        "machine.distinct",
    ];
    matches!(&entry.what, What::Told { kind, .. } if DEEDS.contains(&kind.as_ref()))
}

/// An entry as it is shown: with its words, and the seconds since its boot began.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// As [`Entry::id`].
    pub id: u64,
    /// As [`Entry::time`].
    pub time: Timestamp,
    /// Counts the boots that the timeline holds, from 1; 0 for what was done before the first.
    pub boot: usize,
    /// Seconds since that boot began; 0 before the first.
    pub seconds: f64,
    /// As [`Entry::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// As [`Entry::mac`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// As [`Entry::times`].
    pub times: u32,
    /// As [`Entry::message`].
    pub message: String,
    /// As [`Entry::seen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Seen>,
}

/// A timeline as it is shown.
pub fn lines(entries: &[Arc<Entry>]) -> Vec<Line> {
    let before = entries.iter().take_while(|entry| needs_no_machine(entry)).count();
    let (before, since) = entries.split_at(before);
    let numbered = boots(since).into_iter().enumerate().map(|(index, boot)| (index + 1, boot));
    std::iter::once((0, before))
        .chain(numbered)
        .flat_map(|(number, boot)| {
            let begun = boot.first().map(|first| first.time).filter(|_| number > 0);
            boot.iter().map(move |entry| Line {
                id: entry.id,
                time: entry.time,
                boot: number,
                seconds: begun.map_or(0.0, |begun| entry.time.since(begun).as_secs_f64()),
                kind: entry.kind().to_owned(),
                mac: entry.mac,
                times: entry.times,
                message: entry.message().into_owned(),
                facts: entry.seen().cloned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, second: i64, what: What) -> Arc<Entry> {
        Arc::new(Entry { id, time: Timestamp::from_unix_seconds(second), mac: None, times: 1, what })
    }

    fn asks(asker: Asker) -> What {
        let message = DhcpAsk::Discover;
        What::Seen(Seen::DhcpAsked { message, asker, firmware: None, arch: None, network: "lab".into() })
    }

    #[test]
    fn a_card_with_ipxe_in_its_rom_begins_anew_when_ipxe_asks_again() {
        let given = |asker| What::Seen(Seen::DhcpConfirmed { asker, address: None, file: None });
        let script = || What::Seen(Seen::Script { fate: "discover".into(), reason: "new".into() });
        let loaded = What::Seen(Seen::TftpEnded {
            file: "undionly.kpxe".into(),
            bytes: 1,
            passed: 1,
            block: 512,
            milliseconds: 1,
            ended: Ended::Whole,
            why: String::new(),
        });
        let all = [
            // One that knows no HTTP loads another.
            entry(1, 0, asks(Asker::Ipxe)),
            entry(2, 0, given(Asker::Ipxe)),
            entry(3, 1, loaded),
            entry(4, 2, asks(Asker::Ipxe)),
            entry(5, 2, given(Asker::Ipxe)),
            entry(6, 3, script()),
            entry(7, 80, asks(Asker::Ipxe)),
            entry(8, 80, asks(Asker::Ipxe)),
            entry(9, 81, given(Asker::Ipxe)),
            entry(10, 90, asks(Asker::Ipxe)),
        ];
        let sizes: Vec<_> = boots(&all).iter().map(|boot| boot.len()).collect();
        assert_eq!(sizes, [6, 3, 1]);
    }

    #[test]
    fn a_boot_begins_when_firmware_comes_back_not_when_it_asks_again() {
        let offer = What::Seen(Seen::DhcpOffered { asker: Asker::Firmware, address: None, file: None });
        let confirmed = What::Seen(Seen::DhcpConfirmed { asker: Asker::Firmware, address: None, file: None });
        let all = [
            entry(1, 0, asks(Asker::Firmware)),
            entry(2, 4, asks(Asker::Firmware)),
            entry(3, 4, offer),
            entry(4, 5, confirmed),
            entry(5, 6, asks(Asker::Ipxe)),
            entry(6, 60, asks(Asker::Firmware)),
            entry(7, 9000, asks(Asker::Firmware)),
        ];
        let sizes: Vec<_> = boots(&all).iter().map(|boot| boot.len()).collect();
        assert_eq!(sizes, [5, 1, 1]);
        let lines = lines(&all);
        let placed: Vec<_> = lines.iter().map(|line| (line.boot, line.seconds as u64)).collect();
        assert_eq!(placed, [(1, 0), (1, 4), (1, 4), (1, 5), (1, 6), (2, 0), (3, 0)]);
        assert!(boots(&[]).is_empty());
    }

    #[test]
    fn what_a_person_did_before_the_first_boot_is_in_no_boot() {
        let told = |kind: &'static str| What::Told { kind: kind.into(), message: String::new() };
        let all = [
            entry(1, 0, told("object.applied")),
            entry(2, 60, told("workflow.assigned")),
            entry(3, 100, asks(Asker::Firmware)),
            entry(4, 101, told("machine.registered")),
            entry(5, 160, told("machine.protected")),
            entry(6, 900, asks(Asker::Firmware)),
        ];
        let placed =
            |all: &[Arc<Entry>]| -> Vec<_> { lines(all).iter().map(|line| (line.boot, line.seconds as u64)).collect() };
        assert_eq!(placed(&all), [(0, 0), (0, 0), (1, 0), (1, 1), (1, 60), (2, 0)]);
        assert_eq!(placed(&all[..2]), [(0, 0), (0, 0)]);
        // One whose controller was set and switched has not booted before it is heard itself.
        let power = [
            entry(1, 0, told("power.controller")),
            entry(2, 1, told("power.changed")),
            entry(3, 2, told("power.failed")),
            entry(4, 3, told("power.done")),
            entry(5, 40, asks(Asker::Firmware)),
            entry(6, 50, told("power.changed")),
        ];
        assert_eq!(placed(&power), [(0, 0), (0, 0), (0, 0), (0, 0), (1, 0), (1, 10)]);
        // A machine that is at work when the server starts has booted.
        assert_eq!(placed(&[entry(1, 0, told("step.began"))]), [(1, 0)]);
    }
}
