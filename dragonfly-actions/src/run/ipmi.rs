//! The machine's own management controller, asked from inside: Linux' IPMI device.
//!
//! What is asked and what an answer means is pure; [`Device`] alone touches the machine. Section
//! numbers are those of the IPMI specification 2.0.

mod account;
#[cfg(test)]
mod fake;
mod users;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dragonfly_core::Mac;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sys;

pub use account::{AccountError, Made, make_account};
pub use users::users;

/// The longest answer there is, as Linux counts: `IPMI_MAX_MSG_LENGTH`.
const LONGEST: usize = 272;
/// Channels that may be networks; 0 is the bus between controllers, 12 and up stand for themselves (6.3).
const CHANNELS: std::ops::RangeInclusive<u8> = 1..=11;

/// Who asks a controller and brings its answer, completion code first.
pub type Ask<'a> = &'a mut dyn FnMut(&Request) -> Result<Vec<u8>, IpmiError>;

/// A command.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Which group of commands.
    pub netfn: u8,
    /// Which of the group.
    pub command: u8,
    /// What goes with it.
    pub data: Vec<u8>,
}

// By hand: Set User Password carries one.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown.field("netfn", &self.netfn).field("command", &self.command);
        if (self.netfn, self.command) == (0x06, 0x47) {
            return shown.finish_non_exhaustive();
        }
        shown.field("data", &self.data).finish()
    }
}

/// Why a controller's answer is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpmiError {
    /// It does not answer in time, or not at all.
    #[error("the management controller does not answer")]
    Silent,
    /// It answers that it will not.
    #[error("the management controller refuses with completion code {0:#04x}")]
    Refused(u8),
    /// It answers something that is shorter than the specification says.
    #[error("the management controller's answer is cut off")]
    Short,
    /// The device cannot be spoken to.
    #[error("the IPMI device: {0}")]
    Device(#[from] io::Error),
}

/// A controller's place on the network; what it does not say is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lan {
    /// Which of its channels that is.
    pub channel: Option<u8>,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Its hardware address.
    pub mac: Option<Mac>,
}

/// Get Channel Info (22.24).
fn channel_info(channel: u8) -> Request {
    Request { netfn: 0x06, command: 0x42, data: vec![channel & 0x0f] }
}

/// Get LAN Configuration Parameters (23.2): one parameter, its first set and block.
fn lan_parameter(channel: u8, parameter: u8) -> Request {
    Request { netfn: 0x0c, command: 0x02, data: vec![channel & 0x0f, parameter, 0, 0] }
}

/// What follows the completion code.
fn content(answer: &[u8]) -> Result<&[u8], IpmiError> {
    match answer.split_first() {
        None => Err(IpmiError::Short),
        Some((0, rest)) => Ok(rest),
        // The controller or, for it, the kernel's driver has waited in vain (5.2).
        Some((0xc3 | 0xff, _)) => Err(IpmiError::Silent),
        Some((code, _)) => Err(IpmiError::Refused(*code)),
    }
}

/// Whether a channel is a network: 802.3 or another LAN (table 6-3).
fn is_lan(answer: &[u8]) -> Result<bool, IpmiError> {
    // Channel, then medium.
    let medium = content(answer)?.get(1).ok_or(IpmiError::Short)? & 0x7f;
    Ok(matches!(medium, 4 | 6))
}

/// A LAN parameter of a known length, behind its revision.
fn parameter<const N: usize>(answer: &[u8]) -> Result<[u8; N], IpmiError> {
    let bytes = content(answer)?.get(1..1 + N).ok_or(IpmiError::Short)?;
    bytes.try_into().map_err(|_| IpmiError::Short)
}

/// Parameter 3 (table 23-4); a controller that has none says 0.0.0.0.
fn address(answer: &[u8]) -> Result<Option<Ipv4Addr>, IpmiError> {
    let address = Ipv4Addr::from(parameter::<4>(answer)?);
    Ok(Some(address).filter(|a| !a.is_unspecified() && !a.is_broadcast()))
}

/// Parameter 5 (table 23-4).
fn mac(answer: &[u8]) -> Result<Option<Mac>, IpmiError> {
    let octets = parameter::<6>(answer)?;
    Ok(Some(Mac::new(octets)).filter(|mac| mac.is_unicast() && octets != [0; 6]))
}

/// The first network channel that has an address; else the first network channel.
///
/// # Errors
/// What kept the controller from telling anything. A channel that it refuses to speak of is not there;
/// its silence ends the asking, and what it has told before that stands.
pub fn lan(ask: Ask<'_>) -> Result<Lan, IpmiError> {
    let mut first = None;
    for channel in CHANNELS {
        let seen = match ask(&channel_info(channel)).and_then(|answer| is_lan(&answer)) {
            Ok(true) => lan_of(channel, ask),
            Ok(false) | Err(IpmiError::Refused(_) | IpmiError::Short) => continue,
            Err(error) => Err(error),
        };
        match seen {
            Ok(lan) if lan.address.is_some() => return Ok(lan),
            Ok(lan) => first = first.or(Some(lan)),
            Err(error) => return first.ok_or(error),
        }
    }
    Ok(first.unwrap_or_default())
}

fn lan_of(channel: u8, ask: Ask<'_>) -> Result<Lan, IpmiError> {
    let mut get = |number| match ask(&lan_parameter(channel, number)) {
        Err(IpmiError::Refused(_) | IpmiError::Short) => Ok(None),
        other => other.map(Some),
    };
    // A parameter that makes no sense is absent; the other one may.
    let address = get(3)?.and_then(|answer| address(&answer).ok().flatten());
    let mac = get(5)?.and_then(|answer| mac(&answer).ok().flatten());
    Ok(Lan { channel: Some(channel), address, mac })
}

/// An open IPMI device.
#[derive(Debug)]
pub struct Device {
    file: File,
    asked: i64,
}

impl Device {
    /// Opens `/dev/ipmi0` or what it is called.
    ///
    /// # Errors
    /// `Device`: it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, IpmiError> {
        Ok(Self { file: File::options().read(true).write(true).open(path)?, asked: 0 })
    }

    /// Sends a command and gives its answer, completion code first. Waits no longer than `patience`.
    ///
    /// # Errors
    /// `Silent` when no answer came in that time; `Device` when the kernel would not take the command.
    pub fn ask(&mut self, request: &Request, patience: Duration) -> Result<Vec<u8>, IpmiError> {
        let end = Instant::now() + patience;
        self.asked += 1;
        sys::ipmi_send(&self.file, self.asked, request.netfn, request.command, &request.data)?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) => return Err(IpmiError::Silent),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(IpmiError::Device(error.into())),
            }
            let mut answer = vec![0; LONGEST];
            match sys::ipmi_receive(&self.file, &mut answer) {
                // One that comes after its time answers an earlier command.
                Ok(Some((number, length))) if number == self.asked => {
                    answer.truncate(length);
                    return Ok(answer);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if left.is_zero() {
                return Err(IpmiError::Silent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = Result<Vec<u8>, IpmiError>;

    /// A controller by what it answers, and what it was asked.
    fn look(mut answers: impl FnMut(u8, u8, &[u8]) -> Answer) -> (Result<Lan, IpmiError>, usize) {
        let mut asked = 0;
        let lan = lan(&mut |request: &Request| {
            asked += 1;
            answers(request.netfn, request.command, &request.data)
        });
        (lan, asked)
    }

    const CHANNEL_INFO: (u8, u8) = (0x06, 0x42);
    const LAN_PARAMETER: (u8, u8) = (0x0c, 0x02);
    const NO_CHANNEL: u8 = 0xcc;

    fn info(channel: u8, medium: u8) -> Answer {
        Ok(vec![0, channel, medium, 1, 0x80, 0xf2, 0x1b, 0, 0, 0])
    }

    #[test]
    fn commands_as_the_specification_writes_them() {
        let table = [
            (channel_info(1), (0x06, 0x42, vec![1])),
            (lan_parameter(1, 3), (0x0c, 0x02, vec![1, 3, 0, 0])),
            (lan_parameter(8, 5), (0x0c, 0x02, vec![8, 5, 0, 0])),
        ];
        for (request, (netfn, command, data)) in table {
            assert_eq!(request, Request { netfn, command, data });
        }
    }

    #[test]
    fn answers_byte_by_byte() {
        let ip = |bytes: &[u8]| address(bytes).ok().flatten();
        assert_eq!(ip(&[0, 0x11, 10, 1, 2, 3]), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(ip(&[0, 0x11, 10, 1, 2, 3, 9, 9]), Some(Ipv4Addr::new(10, 1, 2, 3)), "more than was promised");
        assert_eq!(ip(&[0, 0x11, 0, 0, 0, 0]), None, "it has none");
        assert_eq!(ip(&[0, 0x11, 255, 255, 255, 255]), None);
        let hardware = |bytes: &[u8]| mac(bytes).ok().flatten().map(|m| m.to_string());
        assert_eq!(hardware(&[0, 0x11, 0x3c, 0xec, 0xef, 1, 2, 3]).as_deref(), Some("3c:ec:ef:01:02:03"));
        assert_eq!(hardware(&[0, 0x11, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(hardware(&[0, 0x11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        for short in [&[][..], &[0], &[0, 0x11], &[0, 0x11, 10, 1, 2]] {
            assert!(matches!(address(short), Err(IpmiError::Short)), "{short:?}");
        }
        assert!(matches!(address(&[0x80]), Err(IpmiError::Refused(0x80))));
        assert!(matches!(address(&[0xc3]), Err(IpmiError::Silent)));
        // 802.3, other LAN, serial, system interface; the highest bit is reserved.
        for (medium, want) in [(4, true), (6, true), (0x84, true), (5, false), (0x0c, false)] {
            assert_eq!(is_lan(&[0, 1, medium]).ok(), Some(want), "{medium:#x}");
        }
    }

    #[test]
    fn the_first_network_with_an_address_is_told() {
        // 1 is a network without an address, 2 a serial line, 8 the network in use.
        let (lan, asked) = look(|netfn, command, data| match ((netfn, command), data) {
            (CHANNEL_INFO, [1]) => info(1, 4),
            (CHANNEL_INFO, [2]) => info(2, 5),
            (CHANNEL_INFO, [8]) => info(8, 4),
            (LAN_PARAMETER, [1, 3, ..]) => Ok(vec![0, 0x11, 0, 0, 0, 0]),
            (LAN_PARAMETER, [1, 5, ..]) => Ok(vec![0, 0x11, 2, 0, 0, 0, 0, 1]),
            (LAN_PARAMETER, [8, 3, ..]) => Ok(vec![0, 0x11, 192, 0, 2, 8]),
            (LAN_PARAMETER, [8, 5, ..]) => Ok(vec![0, 0x11, 2, 0, 0, 0, 0, 8]),
            _ => Ok(vec![NO_CHANNEL]),
        });
        let want = Lan {
            channel: Some(8),
            address: Some(Ipv4Addr::new(192, 0, 2, 8)),
            mac: Some(Mac::new([2, 0, 0, 0, 0, 8])),
        };
        assert_eq!(lan.ok(), Some(want));
        assert_eq!(asked, 8 + 4, "channels 1 to 8, and two parameters of two of them");
    }

    #[test]
    fn what_it_does_not_say_is_absent() {
        let one = |address: Answer, hardware: Answer| {
            let (mut address, mut hardware) = (Some(address), Some(hardware));
            look(move |netfn, command, data| match ((netfn, command), data) {
                (CHANNEL_INFO, [1]) => info(1, 4),
                (LAN_PARAMETER, [1, 3, ..]) => address.take().unwrap(),
                (LAN_PARAMETER, [1, 5, ..]) => hardware.take().unwrap(),
                _ => Ok(vec![NO_CHANNEL]),
            })
            .0
            .ok()
        };
        let mac = Some(Mac::new([2, 0, 0, 0, 0, 1]));
        let hardware = || Ok(vec![0, 0x11, 2, 0, 0, 0, 0, 1]);
        assert_eq!(one(Ok(vec![0x80]), hardware()), Some(Lan { channel: Some(1), address: None, mac }));
        assert_eq!(one(Ok(vec![0, 0x11, 10]), hardware()), Some(Lan { channel: Some(1), address: None, mac }));
        let address = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(one(Ok(vec![0, 0x11, 10, 0, 0, 1]), Ok(vec![])), Some(Lan { channel: Some(1), address, mac: None }));
    }

    #[test]
    fn a_controller_that_is_no_use() {
        // It knows no Get Channel Info, or has no network.
        let (lan, asked) = look(|_, _, _| Ok(vec![0xc1]));
        assert_eq!((lan.ok(), asked), (Some(Lan::default()), 11));
        // A dead one is not asked eleven times.
        let (lan, asked) = look(|_, _, _| Err(IpmiError::Silent));
        assert!(matches!(lan, Err(IpmiError::Silent)));
        assert_eq!(asked, 1);
        // One that dies on the way: what it said before stands.
        let (lan, _) = look(|netfn, command, data| match ((netfn, command), data) {
            (CHANNEL_INFO, [1]) => info(1, 4),
            (LAN_PARAMETER, [1, 5, ..]) => Ok(vec![0, 0x11, 2, 0, 0, 0, 0, 1]),
            (LAN_PARAMETER, _) => Ok(vec![0x80]),
            _ => Err(IpmiError::Silent),
        });
        assert_eq!(lan.ok(), Some(Lan { channel: Some(1), address: None, mac: Some(Mac::new([2, 0, 0, 0, 0, 1])) }));
    }

    #[test]
    fn what_is_no_ipmi_device_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut device = Device::open(file.path()).unwrap();
        let asked = device.ask(&channel_info(1), Duration::from_secs(1));
        assert!(matches!(asked, Err(IpmiError::Device(_))), "{asked:?}");
        assert!(matches!(Device::open(Path::new("/dev/nothing")), Err(IpmiError::Device(_))));
    }
}
