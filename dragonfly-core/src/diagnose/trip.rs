//! One boot, summed up: how far it came.

use std::sync::Arc;
use std::time::Duration;

use crate::boot::{Asker, DhcpAsk, Ended, Firmware, Seen};
use crate::clock::Timestamp;
use crate::timeline::Entry;

/// How far one boot came. Each field is the last entry of its kind.
#[derive(Debug)]
pub(super) struct Trip<'a> {
    /// Another boot followed: whatever is missing did not come.
    over: bool,
    /// When it began.
    start: Timestamp,
    end: Timestamp,
    pub(super) firmware: Option<Firmware>,
    /// On which Network it asked last.
    pub(super) network: Option<&'a str>,
    /// Its last question for an address was not answered, on purpose.
    pub(super) unanswered: Option<&'a Entry>,
    pub(super) offered: Option<&'a Entry>,
    /// Firmware or iPXE was given a file to fetch.
    pub(super) confirmed: Option<&'a Entry>,
    /// A client that boots takes an address from another server, and should not.
    pub(super) foreign: Option<&'a Entry>,
    /// What another server offers, as far as that is known.
    pub(super) other: Option<&'a Entry>,
    pub(super) no_loader: Option<&'a Entry>,
    /// A TFTP transfer of any kind began or ended.
    pub(super) tftp: Option<&'a Entry>,
    pub(super) refused_file: Option<&'a Entry>,
    /// The last transfer over TFTP was lost.
    pub(super) lost: Option<&'a Entry>,
    /// The last transfer over HTTP broke off.
    pub(super) cut: Option<&'a Entry>,
    /// A boot program arrived whole.
    pub(super) loader: Option<&'a Entry>,
    /// iPXE has asked by DHCP.
    pub(super) ipxe: Option<&'a Entry>,
    pub(super) script: Option<&'a Entry>,
    /// A file over HTTP was asked for.
    pub(super) file: Option<&'a Entry>,
    pub(super) identity: Option<&'a Entry>,
    /// It was refused an identity for the address that it asked from.
    pub(super) outside: Option<&'a Entry>,
    /// Kernel or unified image arrived whole.
    pub(super) kernel: Option<&'a Entry>,
    /// An operating system asks for an address, after the kernel: the agent's.
    pub(super) system: Option<&'a Entry>,
    pub(super) refused: Option<&'a Entry>,
    /// The agent was welcomed.
    pub(super) greeted: Option<&'a Entry>,
}

impl<'a> Trip<'a> {
    pub(super) fn of(boot: &'a [Arc<Entry>], end: Timestamp, over: bool) -> Self {
        let mut trip = Self {
            over,
            start: boot.first().map_or(end, |first| first.time),
            end,
            firmware: None,
            network: None,
            unanswered: None,
            offered: None,
            confirmed: None,
            foreign: None,
            other: None,
            no_loader: None,
            tftp: None,
            refused_file: None,
            lost: None,
            cut: None,
            loader: None,
            ipxe: None,
            script: None,
            file: None,
            identity: None,
            outside: None,
            kernel: None,
            system: None,
            refused: None,
            greeted: None,
        };
        for entry in boot {
            trip.add(entry);
        }
        trip
    }

    fn add(&mut self, entry: &'a Entry) {
        let here = Some(entry);
        if matches!(entry.kind(), "machine.hello" | "machine.registered") {
            self.greeted = here;
            self.refused = None;
        }
        let Some(seen) = entry.seen() else { return };
        self.note_address(seen, entry);
        match seen {
            Seen::DhcpAsked { asker: Asker::System, .. } if self.kernel.is_some() => self.system = here,
            Seen::DhcpAsked { asker: Asker::System, .. } => {}
            Seen::DhcpAsked { asker, firmware, .. } => {
                if *asker == Asker::Ipxe {
                    self.ipxe = here;
                } else {
                    self.firmware = firmware.or(self.firmware);
                }
            }
            Seen::DhcpOffered { asker, .. } if *asker != Asker::System => self.offered = here,
            Seen::DhcpConfirmed { asker, file, .. } if *asker != Asker::System => {
                self.foreign = None;
                if file.is_some() {
                    self.confirmed = here;
                }
            }
            Seen::DhcpConfirmed { .. } if self.kernel.is_some() => self.system = here,
            Seen::DhcpForeign { asker: Asker::System, .. } if self.kernel.is_some() => self.system = here,
            Seen::DhcpForeign { asker, expected: false, .. } if *asker != Asker::System => self.foreign = here,
            // A proxy's offer is taken by taking the other's address.
            Seen::DhcpForeign { asker, expected: true, .. } if *asker != Asker::System => {
                self.confirmed = self.confirmed.or(self.offered);
            }
            Seen::DhcpOther { .. } => self.other = here,
            Seen::NoLoader { .. } => self.no_loader = here,
            Seen::TftpBegan { .. } => (self.tftp, self.lost) = (here, None),
            Seen::TftpEnded { file, ended, milliseconds, .. } => {
                (self.tftp, self.lost) = (here, None);
                match ended {
                    Ended::Whole => self.arrived(file, here),
                    Ended::Lost if self.has_begun(entry, *milliseconds) => self.lost = here,
                    Ended::Refused => self.refused_file = here,
                    Ended::Lost | Ended::ByClient | Ended::ByServer => {}
                }
            }
            Seen::Script { .. } => self.script = here,
            Seen::Identity { .. } => (self.identity, self.outside) = (here, None),
            // Firmware of a card that needs none is refused as well, and the boot goes on.
            Seen::FileBegan { .. } => (self.file, self.cut, self.refused_file) = (here, None, None),
            Seen::FileEnded { file, bytes, passed, milliseconds } => {
                if passed >= bytes {
                    self.cut = None;
                    self.arrived(file, here);
                } else if self.has_begun(entry, *milliseconds) {
                    self.cut = here;
                }
            }
            Seen::HttpRefused { path, .. } if path == Seen::IDENTITY => self.outside = here,
            Seen::HttpRefused { .. } => self.refused_file = here,
            // Whoever was welcomed before in this boot was another, or has lost its session.
            Seen::AgentRefused { refusal, .. } if refusal.is_of_token() => (self.refused, self.greeted) = (here, None),
            _ => {}
        }
    }

    /// Whether a transfer that ended so began in this boot. One of the boot before, which a reset ended, is given up
    /// when this one has long begun.
    fn has_begun(&self, ended: &Entry, milliseconds: u64) -> bool {
        ended.time.since(self.start) >= Duration::from_millis(milliseconds)
    }

    /// Whether it is given an address, as far as that is not said by what it does with it.
    fn note_address(&mut self, seen: &'a Seen, entry: &'a Entry) {
        match seen {
            Seen::DhcpAsked { network, .. } => self.network = Some(network),
            // What else is not answered is for another server, or about an address that it has.
            Seen::DhcpSilence { message: DhcpAsk::Discover, .. } => self.unanswered = Some(entry),
            Seen::DhcpOffered { .. } | Seen::DhcpConfirmed { .. } | Seen::DhcpForeign { .. } => self.unanswered = None,
            _ => {}
        }
    }

    fn arrived(&mut self, file: &str, here: Option<&'a Entry>) {
        self.refused_file = None;
        let is = |word: &str| file.contains(word);
        if is("mage.efi") || is("vmlinuz") {
            self.kernel = here;
        }
        if is(".efi") || is(".kpxe") || is(".pxe") {
            self.loader = here;
        }
    }

    /// Whether nothing more is to be expected after this entry: so long ago, or another boot followed.
    pub(super) fn waited(&self, since: &Entry, patience: u64) -> bool {
        self.over || self.end.since(since.time) >= Duration::from_secs(patience)
    }

    /// When the machine came back, if it did: how long after this entry.
    pub(super) fn came_back(&self, since: &Entry) -> Option<Duration> {
        self.over.then(|| self.end.since(since.time))
    }

    /// Which file it was told to fetch.
    pub(super) fn file_to_fetch(&self) -> Option<&'a str> {
        match self.confirmed?.seen() {
            Some(Seen::DhcpConfirmed { file, .. } | Seen::DhcpOffered { file, .. }) => file.as_deref(),
            _ => None,
        }
    }
}
