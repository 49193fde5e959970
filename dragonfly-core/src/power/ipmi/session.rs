//! One session with a controller over UDP: retransmission, matching of answers, begin and end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::packet::{self, Message, Payload};
use super::rakp::{self, Begin, Fault};
use super::suite::{Keys, Suite};
use super::window::Window;
use super::{Failed, Login};
use crate::power::PowerError;

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Before the first repetition; each wait after it is half as long again.
    pub first: Duration,
    /// How often a request is sent before it is given up.
    pub tries: u8,
}

impl Default for Patience {
    /// Five times in 13 s: a controller that takes 4 s for each answer is waited for.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), tries: 5 }
    }
}

impl Patience {
    fn wait(self, time: u8) -> Duration {
        self.first.mul_f32(1.5f32.powi(i32::from(time)))
    }

    /// All of it.
    fn whole(self) -> Duration {
        (0..self.tries).map(|time| self.wait(time)).sum()
    }
}

/// Largest packet that is read; IPMI messages are far smaller.
const LARGEST: usize = 2048;
/// How often a handshake is begun anew after its last message was lost or mixed up.
const BEGINNINGS: u32 = 3;

fn unreachable(error: std::io::Error) -> PowerError {
    PowerError::Unreachable { source: error.into() }
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], PowerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| PowerError::Unreachable { source: error.to_string().into() })?;
    Ok(bytes)
}

/// What was heard, and in which of the tries it was asked for last.
struct Answer<T> {
    value: T,
    tries: u8,
}

/// Sends until something comes that fits, be it an answer to an earlier try.
async fn exchange<T>(
    socket: &UdpSocket,
    patience: Patience,
    mut build: impl FnMut(u8) -> Result<Vec<u8>, PowerError>,
    mut accept: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Answer<T>, PowerError> {
    let mut buffer = [0; LARGEST];
    for time in 0..patience.tries {
        socket.send(&build(time)?).await.map_err(unreachable)?;
        let end = Instant::now() + patience.wait(time);
        while let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await {
            let length = received.map_err(unreachable)?;
            if let Some(value) = accept(&buffer[..length]) {
                return Ok(Answer { value, tries: time + 1 });
            }
        }
    }
    Err(PowerError::TimedOut { after: patience.whole() })
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    socket: UdpSocket,
    keys: Keys,
    suite: Suite,
    ours: u32,
    theirs: u32,
    patience: Patience,
    /// Of our packets.
    sequence: u32,
    /// Of our requests; six bits.
    number: u8,
    /// Of the controller's packets.
    window: Window,
}

impl Session {
    /// Logs in, with the best cipher suite of these that the controller offers.
    pub(crate) async fn open(
        address: SocketAddr,
        login: &Login,
        suites: &[Suite],
        patience: Patience,
    ) -> Result<Self, PowerError> {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let mut refused = None;
        for suite in suites {
            // A new socket each: late packets of one handshake do not reach the next.
            let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
            socket.connect(address).await.map_err(unreachable)?;
            match Self::with_suite(socket, login, *suite, patience).await {
                Err(Stop::Fault(fault)) if fault.is_about_the_suite() => refused = Some(fault),
                Err(stop) => return Err(stop.into_error(login)),
                Ok(mut session) => {
                    session.raise(login).await?;
                    return Ok(session);
                }
            }
        }
        let offered: Vec<String> = suites.iter().map(|suite| suite.id().to_string()).collect();
        let why = match refused {
            Some(Fault::Status(status)) => rakp::words(status),
            _ => "it chose other algorithms than were asked for",
        };
        let what = format!("open a session with cipher suite {}", offered.join(" or "));
        Err(PowerError::Refused { what, reason: why.to_owned() })
    }

    async fn with_suite(socket: UdpSocket, login: &Login, suite: Suite, patience: Patience) -> Result<Self, Stop> {
        let mut patience = patience;
        let mut begun = 1;
        loop {
            match Self::handshake(&socket, login, suite, patience).await {
                Ok((begin, theirs, keys)) => {
                    return Ok(Self {
                        socket,
                        keys,
                        suite,
                        ours: begin.ours,
                        theirs,
                        patience,
                        sequence: 0,
                        number: 0,
                        window: Window::default(),
                    });
                }
                Err(Stop::Mixed(_)) if begun < BEGINNINGS => {
                    begun += 1;
                    // It is slow: asked again, it makes a new challenge, and an answer to the old one is wrong then.
                    patience.first *= 3;
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    async fn handshake(
        socket: &UdpSocket,
        login: &Login,
        suite: Suite,
        patience: Patience,
    ) -> Result<(Begin, u32, Keys), Stop> {
        let challenge = random()?;
        // Zero is no session.
        let ours = u32::from_le_bytes(random()?) | 1;
        let user = login.username.clone().into_bytes();
        let begin = Begin { suite, privilege: login.privilege, user, ours, challenge };
        let password = login.password.reveal().as_bytes();

        let asked = |time| Ok(packet::plain(Payload::OpenRequest, &begin.open_request(time)));
        let answer = exchange(socket, patience, asked, |p| carried(p, Payload::OpenResponse, 0)).await?;
        let theirs = begin.opened(&answer.value).map_err(Stop::Fault)?;

        let asked = |time| Ok(packet::plain(Payload::Rakp1, &begin.rakp1(0x40 + time, theirs)));
        let second = exchange(socket, patience, asked, |p| carried(p, Payload::Rakp2, 0x40)).await?;
        let repeated = second.tries > 1;
        let proven = begin.proven(&second.value, theirs, password).map_err(Stop::Fault)?;

        let asked = |time| Ok(packet::plain(Payload::Rakp3, &Begin::rakp3(0x80 + time, theirs, &proven)));
        let fourth = match exchange(socket, patience, asked, |p| carried(p, Payload::Rakp4, 0x80)).await {
            // Whoever has answered it forgets the half-open session, and answers no repetition.
            Err(PowerError::TimedOut { after }) => return Err(Stop::Mixed(PowerError::TimedOut { after })),
            other => other?,
        };
        match begin.keys(&fourth.value, theirs, &proven) {
            Ok(keys) => Ok((begin, theirs, keys)),
            // It proved that it knows the password, and so do we: only its challenge can be another one.
            Err(Fault::Status(0x02 | 0x08 | 0x0f)) if repeated || fourth.tries > 1 => {
                Err(Stop::Mixed(PowerError::Busy { reason: "it mixes up the messages of a handshake".to_owned() }))
            }
            Err(fault) => Err(Stop::Fault(fault)),
        }
    }

    /// A session begins with the rights of a user; what it may at most was agreed before.
    async fn raise(&mut self, login: &Login) -> Result<(), PowerError> {
        let level = login.privilege;
        match self.request(0x06, 0x3b, &[level as u8]).await {
            Ok(_) => Ok(()),
            Err(Failed::Code(0x80..=0x82 | 0xd4)) => {
                Err(PowerError::Forbidden { what: format!("work with the privilege {level}") })
            }
            Err(failed) => Err(failed.because("raise the session's privilege")),
        }
    }

    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// One command; the data of its answer, without the completion code.
    pub(crate) async fn request(&mut self, function: u8, command: u8, data: &[u8]) -> Result<Vec<u8>, Failed> {
        self.number = (self.number + 1) & 0x3f;
        let message = Message { function, command, number: self.number, data: data.to_vec() }.to_bytes();
        let Self { socket, keys, ours, theirs, patience, sequence, number, window, .. } = self;
        let answer = exchange(
            socket,
            *patience,
            |_| {
                // Each packet has a number of its own, a repetition too; zero is never one.
                *sequence = sequence.checked_add(1).unwrap_or(1);
                Ok(packet::seal(keys, *theirs, *sequence, random()?, &message))
            },
            |bytes| {
                if packet::session_of(bytes)? != *ours {
                    return None;
                }
                let (came, bytes) = packet::open(keys, bytes)?;
                let answer = Message::parse(&bytes)?;
                let fits = (answer.function, answer.command, answer.number) == (function | 1, command, *number);
                (window.take(came) && fits).then_some(answer.data)
            },
        );
        match answer.await?.value.split_first() {
            Some((0, data)) => Ok(data.to_vec()),
            Some((code, _)) => Err(Failed::Code(*code)),
            None => Err(PowerError::Malformed { reason: "an answer without completion code".to_owned() }.into()),
        }
    }

    /// Says good-bye: controllers have few sessions, and keep one that nobody closed for a minute.
    pub(crate) async fn close(mut self) -> Result<(), PowerError> {
        // It may be gone already; nobody waits long for that.
        self.patience.tries = self.patience.tries.min(2);
        let theirs = self.theirs.to_le_bytes();
        self.request(0x06, 0x3c, &theirs).await.map(drop).map_err(|failed| failed.because("close the session"))
    }
}

/// Why there is no session.
enum Stop {
    Fault(Fault),
    /// The handshake came apart, and may be begun anew.
    Mixed(PowerError),
    Error(PowerError),
}

impl From<PowerError> for Stop {
    fn from(error: PowerError) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    fn into_error(self, login: &Login) -> PowerError {
        match self {
            Self::Error(error) | Self::Mixed(error) => error,
            Self::Fault(Fault::Password | Fault::Status(0x0d..=0x0f)) => PowerError::Unauthorised,
            Self::Fault(Fault::Status(0x09 | 0x0a)) => {
                PowerError::Forbidden { what: format!("work with the privilege {}", login.privilege) }
            }
            Self::Fault(Fault::Status(status @ (0x01 | 0x0b))) => {
                PowerError::Busy { reason: rakp::words(status).to_owned() }
            }
            Self::Fault(Fault::Status(status)) => {
                PowerError::Refused { what: "open a session".to_owned(), reason: rakp::words(status).to_owned() }
            }
            Self::Fault(Fault::OtherSuite) => PowerError::Malformed { reason: "it changed the algorithms".to_owned() },
            Self::Fault(Fault::Malformed(reason)) => PowerError::Malformed { reason: reason.to_owned() },
        }
    }
}

/// What a packet of the handshake carries, if it answers any of the tries, whose tags begin here.
fn carried(bytes: &[u8], wanted: Payload, first: u8) -> Option<Vec<u8>> {
    let (payload, bytes) = packet::open_plain(bytes)?;
    let tag = *bytes.first()?;
    (payload == wanted && (first..first + 0x40).contains(&tag)).then(|| bytes.to_vec())
}
