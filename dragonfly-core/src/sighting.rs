//! What the boot services see and send, as facts that a program can judge and a person can read.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::Mac;
use crate::boot::{Arch, Firmware};
use crate::text::harmless;

/// The longest text that is kept of what a stranger wrote, in bytes.
const LONGEST: usize = 256;

/// Why a DISCOVER is not answered, where that is a fault with a name: what is said is what is read.
pub mod silence {
    /// Every address of the pool is taken.
    pub const POOL_EMPTY: &str = "no address is free in the pool";
    /// Only machines with a reservation are given an address there.
    pub const NO_RESERVATION: &str = "reservation: the machine has none here";
}

/// Something that the boot services saw or sent, for the machine's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The machine's card, when the packet or path names it.
    pub mac: Option<Mac>,
    /// The address it asked from, when it has one.
    pub from: Option<IpAddr>,
    /// What.
    pub seen: Seen,
}

/// Who sends a DHCP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asker {
    /// An operating system: the agent's, or an installed one.
    System,
    /// Firmware that boots from the network.
    Firmware,
    /// iPXE.
    Ipxe,
}

impl Asker {
    fn word(self) -> &'static str {
        match self {
            Self::System => "operating system",
            Self::Firmware => "firmware",
            Self::Ipxe => "iPXE",
        }
    }
}

/// What a client asks by DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpAsk {
    /// Who is there?
    Discover,
    /// This address, please.
    Request,
    /// That address is somebody else's.
    Decline,
    /// That address is needed no longer.
    Release,
    /// The rest, please: I have an address.
    Inform,
}

impl DhcpAsk {
    fn word(self) -> &'static str {
        match self {
            Self::Discover => "DISCOVER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
        }
    }
}

/// Why an agent that said hello was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Its boot token is too old.
    StaleToken,
    /// Its boot token has opened a session already.
    UsedToken,
    /// Its boot token is none of ours, or was made for another card or address.
    ForeignToken,
    /// Another agent speaks for this machine, or its identity is in conflict.
    Busy,
    /// It speaks no protocol of ours.
    Protocol,
    /// Something of ours failed.
    Other,
}

impl Refusal {
    /// Whether it is the boot token that is not good.
    pub fn is_of_token(self) -> bool {
        matches!(self, Self::StaleToken | Self::UsedToken | Self::ForeignToken)
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The client has all of it.
    Whole,
    /// The client ended it, perhaps on purpose: UEFI asks for a size that way.
    ByClient,
    /// The client does not answer any more.
    Lost,
    /// It was not begun: no such file, or not for this client.
    Refused,
    /// The server ended it: its limit, its own fault, or its stop.
    ByServer,
}

/// What was seen or sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "seen")]
#[non_exhaustive]
pub enum Seen {
    /// A DHCP message of a client.
    DhcpAsked {
        /// Which message.
        message: DhcpAsk,
        /// Who sent it.
        asker: Asker,
        /// How it loads a program, when it boots.
        firmware: Option<Firmware>,
        /// Its instruction set, when it boots and we know it.
        arch: Option<Arch>,
        /// On which Network.
        network: String,
    },
    /// We offered.
    DhcpOffered {
        /// To whom.
        asker: Asker,
        /// Which address; `None` from a proxy.
        address: Option<Ipv4Addr>,
        /// Which boot file, by name for TFTP or as a URL.
        file: Option<String>,
    },
    /// We confirmed.
    DhcpConfirmed {
        /// To whom.
        asker: Asker,
        /// Which address; `None` from a proxy.
        address: Option<Ipv4Addr>,
        /// Which boot file, by name for TFTP or as a URL.
        file: Option<String>,
    },
    /// We refused the address that was asked for.
    DhcpRefused {
        /// Why.
        why: String,
    },
    /// We did not answer.
    DhcpSilence {
        /// To what.
        message: DhcpAsk,
        /// Why not.
        why: String,
    },
    /// The client takes an address from another server.
    DhcpForeign {
        /// Who asks.
        asker: Asker,
        /// The other server.
        server: Ipv4Addr,
        /// The address that the client takes.
        address: Option<Ipv4Addr>,
        /// We are a proxy there: addresses are to come from the other.
        expected: bool,
    },
    /// What another server offers it, as we asked that server in the client's name, or as we overheard.
    DhcpOther {
        /// The other server.
        server: Ipv4Addr,
        /// The address that it offers.
        address: Option<Ipv4Addr>,
        /// The boot file that it names.
        file: Option<String>,
        /// Where that file is.
        from: Option<Ipv4Addr>,
    },
    /// It wants to boot and there is no program for it.
    NoLoader {
        /// How it loads a program.
        firmware: Option<Firmware>,
        /// Its instruction set, if we know it at all.
        arch: Option<Arch>,
    },
    /// A TFTP transfer began.
    TftpBegan {
        /// Of which file.
        file: String,
        /// Its size.
        bytes: u64,
        /// Bytes a block.
        block: u16,
        /// Blocks between two acknowledgements.
        window: u16,
    },
    /// A TFTP transfer ended.
    TftpEnded {
        /// Of which file.
        file: String,
        /// Its size, when it was opened.
        bytes: u64,
        /// How much of it the client has acknowledged.
        passed: u64,
        /// Bytes a block.
        block: u16,
        /// How long it took.
        milliseconds: u64,
        /// How it ended.
        ended: Ended,
        /// More on that.
        why: String,
    },
    /// A boot script was served.
    Script {
        /// The fate, in one word.
        fate: String,
        /// Why that.
        reason: String,
    },
    /// An identity for the agent was served.
    Identity {
        /// As an archive, or inside what.
        how: String,
    },
    /// A file over HTTP, begun.
    FileBegan {
        /// Which: a boot file's name, or `/images/...`.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// A file over HTTP, ended.
    FileEnded {
        /// Which: a boot file's name, or `/images/...`.
        file: String,
        /// How much was to be sent.
        bytes: u64,
        /// How much was sent.
        passed: u64,
        /// How long it took.
        milliseconds: u64,
    },
    /// An agent said hello and was refused.
    AgentRefused {
        /// What is wrong, for a program.
        refusal: Refusal,
        /// For a person.
        why: String,
    },
    /// How far the machine's own clock was from ours when its agent began; the agent sets it.
    AgentClock {
        /// Its time less ours.
        offset_seconds: i64,
    },
    /// Something was asked over HTTP and refused.
    HttpRefused {
        /// What.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Why.
        why: String,
    },
}

impl Seen {
    /// The path of an identity that is refused because of the address that it is asked from. Other refusals of one name
    /// the card too.
    pub const IDENTITY: &str = "identity";

    /// What it is, as an event type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DhcpAsked { message, .. } => match message {
                DhcpAsk::Discover => "dhcp.discover",
                DhcpAsk::Request => "dhcp.request",
                DhcpAsk::Decline => "dhcp.decline",
                DhcpAsk::Release => "dhcp.release",
                DhcpAsk::Inform => "dhcp.inform",
            },
            Self::DhcpOffered { .. } => "dhcp.offer",
            Self::DhcpConfirmed { .. } => "dhcp.ack",
            Self::DhcpRefused { .. } => "dhcp.nak",
            Self::DhcpSilence { .. } => "dhcp.silence",
            Self::DhcpForeign { .. } => "dhcp.foreign",
            Self::DhcpOther { .. } => "dhcp.other",
            Self::NoLoader { .. } => "dhcp.noloader",
            Self::TftpBegan { .. } => "tftp.begin",
            Self::TftpEnded { ended, .. } => match ended {
                Ended::Whole => "tftp.done",
                Ended::ByClient => "tftp.aborted",
                Ended::Refused => "tftp.refused",
                Ended::Lost | Ended::ByServer => "tftp.failed",
            },
            Self::Script { .. } => "boot.script",
            Self::Identity { .. } => "boot.identity",
            Self::FileBegan { .. } => "boot.file",
            Self::FileEnded { bytes, passed, .. } if passed >= bytes => "boot.done",
            Self::FileEnded { .. } => "boot.cut",
            Self::HttpRefused { .. } => "boot.refused",
            Self::AgentRefused { .. } => "agent.refused",
            Self::AgentClock { .. } => "agent.clock",
        }
    }

    /// The same with every text harmless and cut to a bound: names and paths come from strangers.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::DhcpAsked { network: text, .. }
            | Self::DhcpRefused { why: text }
            | Self::DhcpSilence { why: text, .. }
            | Self::AgentRefused { why: text, .. }
            | Self::TftpBegan { file: text, .. }
            | Self::Identity { how: text }
            | Self::FileBegan { file: text, .. }
            | Self::FileEnded { file: text, .. } => tidy(text),
            Self::TftpEnded { file, why, .. } => {
                tidy(file);
                tidy(why);
            }
            Self::Script { fate, reason } => {
                tidy(fate);
                tidy(reason);
            }
            Self::HttpRefused { path, why, .. } => {
                tidy(path);
                tidy(why);
            }
            Self::DhcpOffered { file, .. } | Self::DhcpConfirmed { file, .. } | Self::DhcpOther { file, .. } => {
                if let Some(file) = file {
                    tidy(file);
                }
            }
            Self::DhcpForeign { .. } | Self::NoLoader { .. } | Self::AgentClock { .. } => {}
        }
        self
    }
}

/// A stranger's text within its bound, in one line, of characters that are only seen.
fn tidy(text: &mut String) {
    if let Cow::Owned(changed) = harmless(text) {
        *text = changed;
    }
    clip(text, LONGEST);
}

/// Cuts a text to at most so many bytes, between two characters.
pub(crate) fn clip(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text.shrink_to_fit();
}

/// How a platform is called.
fn platform(firmware: Option<Firmware>, arch: Option<Arch>) -> String {
    let firmware = match firmware {
        Some(Firmware::Bios) => "BIOS",
        Some(Firmware::Uefi) => "UEFI",
        Some(Firmware::UefiHttp) => "UEFI HTTP Boot",
        None => return String::new(),
    };
    let arch = match arch {
        Some(Arch::X86_64) => "x86-64",
        Some(Arch::Aarch64) => "arm64",
        None => "an architecture without a loader",
    };
    format!(" ({firmware}, {arch})")
}

fn given(address: Option<Ipv4Addr>, file: Option<&str>) -> String {
    let address = address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    file.map_or_else(|| address.clone(), |file| format!("{address}, {file}"))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |milliseconds: &u64| *milliseconds as f64 / 1000.0;
        match self {
            Self::DhcpAsked { message, asker, firmware, arch, network } => {
                write!(f, "{}{} asks on {network}: {}", asker.word(), platform(*firmware, *arch), message.word())
            }
            Self::DhcpOffered { address, file, .. } => write!(f, "{} offered", given(*address, file.as_deref())),
            Self::DhcpConfirmed { address, file, .. } => write!(f, "{} given", given(*address, file.as_deref())),
            Self::DhcpRefused { why } => write!(f, "address refused: {why}"),
            Self::DhcpSilence { message, why } => write!(f, "{} not answered: {why}", message.word()),
            Self::DhcpForeign { asker, server, address, expected } => {
                let address = address.map_or_else(|| "an address".to_owned(), |address| address.to_string());
                let note = if *expected { "as it should: we are a proxy here" } else { "not from us" };
                write!(f, "{} takes {address} from the DHCP server {server} ({note})", asker.word())
            }
            Self::DhcpOther { server, address, file, from } => {
                write!(f, "the DHCP server {server} offers it {}", given(*address, file.as_deref()))?;
                match from {
                    Some(from) if file.is_some() => write!(f, " from {from}"),
                    _ if file.is_none() => f.write_str(" and no boot file"),
                    _ => Ok(()),
                }
            }
            Self::NoLoader { firmware, arch } => {
                write!(f, "no boot loader for this firmware{}", platform(*firmware, *arch))
            }
            Self::TftpBegan { file, bytes, block, window } => {
                write!(f, "{file}, {bytes} bytes, in blocks of {block}, {window} at a time")
            }
            Self::TftpEnded { file, bytes, passed, milliseconds, ended, why, .. } => match ended {
                Ended::Whole => write!(f, "{file}, {bytes} bytes in {:.2} s", seconds(milliseconds)),
                Ended::ByClient if *passed == 0 => write!(f, "{file}: asked for its size, {bytes} bytes"),
                Ended::ByClient => write!(f, "{file}: the client ended it after {passed} of {bytes} bytes: {why}"),
                Ended::Lost => write!(
                    f,
                    "{file}: no answer any more after {passed} of {bytes} bytes and {:.1} s",
                    seconds(milliseconds)
                ),
                Ended::Refused => write!(f, "{file}: {why}"),
                Ended::ByServer => write!(f, "{file}: ended after {passed} of {bytes} bytes: {why}"),
            },
            Self::Script { fate, reason } => write!(f, "{fate}: {reason}"),
            Self::Identity { how } => f.write_str(how),
            Self::FileBegan { file, bytes } => write!(f, "{file}, {bytes} bytes"),
            Self::FileEnded { file, bytes, passed, milliseconds } if passed >= bytes => {
                write!(f, "{file}, {bytes} bytes in {:.2} s", seconds(milliseconds))
            }
            Self::FileEnded { file, bytes, passed, milliseconds } => {
                write!(f, "{file}: broken off after {passed} of {bytes} bytes and {:.1} s", seconds(milliseconds))
            }
            Self::HttpRefused { path, status, why } => write!(f, "{path}: {status} {why}"),
            Self::AgentRefused { why, .. } => write!(f, "its agent was refused: {why}"),
            Self::AgentClock { offset_seconds } => {
                let word = if *offset_seconds < 0 { "behind" } else { "ahead of" };
                write!(f, "its clock was {} s {word} ours; its agent has set it", offset_seconds.unsigned_abs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_strangers_are_bounded_between_characters() {
        let seen = Seen::FileBegan { file: "\u{e9}".repeat(4000), bytes: 1 }.bounded();
        let Seen::FileBegan { file, .. } = seen else { panic!("another kind") };
        assert_eq!((file.len(), file.capacity()), (LONGEST, LONGEST));
        let mut text = format!("a{}", "\u{e9}".repeat(200));
        clip(&mut text, LONGEST);
        assert_eq!(text.len(), 255);
    }

    #[test]
    fn how_a_transfer_ended_is_told_by_kind_and_words() {
        let end = |ended, passed| Seen::TftpEnded {
            file: "snponly.efi".into(),
            bytes: 1000,
            passed,
            block: 512,
            milliseconds: 1500,
            ended,
            why: "because".into(),
        };
        let table = [
            (end(Ended::Whole, 1000), "tftp.done", "1000 bytes in 1.50 s"),
            (end(Ended::ByClient, 0), "tftp.aborted", "asked for its size"),
            (end(Ended::ByClient, 512), "tftp.aborted", "after 512 of 1000"),
            (end(Ended::Lost, 512), "tftp.failed", "no answer any more after 512"),
            (end(Ended::Refused, 0), "tftp.refused", "because"),
            (end(Ended::ByServer, 0), "tftp.failed", "because"),
        ];
        for (seen, kind, words) in table {
            assert_eq!(seen.kind(), kind);
            assert!(seen.to_string().contains(words), "{seen}");
        }
    }
}
