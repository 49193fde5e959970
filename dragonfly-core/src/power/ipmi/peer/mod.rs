//! A controller that exists in memory, for tests: cipher suites 3 and 17, and the habits of real ones.
//! `ipmitool` and `ipmipower` take it for a real one.

mod chassis;
mod storage;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Privilege;
use super::packet::{self, Message, Payload};
use super::rakp::Begin;
use super::rakp::controller::{self, Who};
use super::suite::{Keys, Suite};

pub use chassis::{Chassis, Command};
pub use storage::example_sensors;

/// What a controller is like.
#[derive(Debug, Clone)]
pub struct Personality {
    /// Cipher suites that it offers.
    pub suites: Vec<Suite>,
    /// Its only account.
    pub username: String,
    /// That account's password.
    pub password: String,
    /// What that account may do.
    pub privilege: Privilege,
    /// It answers so much later.
    pub delay: Duration,
    /// It sends each answer twice.
    pub answers_twice: bool,
    /// Asked again in the middle of a handshake, it makes a new challenge.
    pub new_challenges: bool,
    /// It says yes to commands and does nothing.
    pub lies: bool,
    /// It keeps the boot device and loses the bits beside it.
    pub forgets_flags: bool,
    /// It switches its machine and never answers that it did.
    pub silent_switch: bool,
    /// How many sessions it has room for.
    pub sessions: usize,
    /// Sensor records, each with its reading's answer.
    pub sensors: Vec<(Vec<u8>, Vec<u8>)>,
    /// Log entries.
    pub events: Vec<[u8; 16]>,
}

impl Default for Personality {
    /// Quick, honest, `admin` with `secret`.
    fn default() -> Self {
        Self {
            suites: vec![Suite::Sha1, Suite::Sha256],
            username: "admin".to_owned(),
            password: "secret".to_owned(),
            privilege: Privilege::Administrator,
            delay: Duration::ZERO,
            answers_twice: false,
            new_challenges: false,
            lies: false,
            forgets_flags: false,
            silent_switch: false,
            sessions: 4,
            sensors: example_sensors(),
            events: storage::example_events(),
        }
    }
}

/// What has come of a controller so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Sessions that were opened.
    pub opened: u32,
    /// Sessions that were closed in order.
    pub closed: u32,
    /// The most that were open at the same time.
    pub parallel: usize,
    /// Handshakes that failed for a wrong name or password.
    pub refused: u32,
    /// Commands that were carried out, in order: network function and command.
    pub commands: Vec<(u8, u8)>,
}

#[derive(Debug)]
struct Link {
    who: Who,
    keys: Option<Keys>,
    sequence: u32,
    privilege: u8,
    /// The last request and its answer: asked again with the same number, it answers and does nothing (6.12.7).
    last: Option<(Message, Vec<u8>)>,
}

#[derive(Debug)]
struct State {
    is: Personality,
    chassis: Chassis,
    links: HashMap<u32, Link>,
    next: u32,
    seen: Seen,
}

/// A controller on a UDP port; gone when this is dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// Starts one at this address, which may leave the port open.
    pub async fn start(address: SocketAddr, is: Personality) -> std::io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(address).await?);
        let address = socket.local_addr()?;
        let chassis = Chassis { lies: is.lies, forgets_flags: is.forgets_flags, ..Chassis::default() };
        let state = State { is, chassis, links: HashMap::new(), next: 0x0100, seen: Seen::default() };
        let state = Arc::new(Mutex::new(state));
        let task = tokio::spawn(serve(socket, state.clone()));
        Ok(Self { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come of it.
    pub fn seen(&self) -> Seen {
        lock(&self.state).seen.clone()
    }

    /// The machine behind it.
    pub fn chassis(&self) -> Chassis {
        lock(&self.state).chassis.clone()
    }

    /// Changes something of it.
    pub fn change(&self, change: impl FnOnce(&mut Personality, &mut Chassis)) {
        let mut state = lock(&self.state);
        let State { is, chassis, .. } = &mut *state;
        change(is, chassis);
    }

    /// Forgets every session, as controllers do that restart.
    pub fn forget_sessions(&self) {
        lock(&self.state).links.clear();
    }
}

async fn serve(socket: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 2048];
    // An error is that of an earlier answer: its client has gone.
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let (answer, delay, times) = {
            let mut state = lock(&state);
            let answer = state.answer(&buffer[..length]);
            (answer, state.is.delay, 1 + u8::from(state.is.answers_twice))
        };
        let Some(answer) = answer else { continue };
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            for _ in 0..times {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

impl State {
    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match packet.get(3..6)? {
            [0x06, ..] => ping(packet),
            // IPMI 1.5, outside of sessions: how clients ask what there is.
            [0x07, 0x00, ..] => self.outside(packet),
            [0x07, 0x06, kind] if kind & 0x3f == Payload::Ipmi as u8 => match packet::session_of(packet)? {
                0 => self.outside_plus(packet),
                session => self.inside(session, packet),
            },
            _ => {
                let (payload, bytes) = packet::open_plain(packet)?;
                self.handshake(payload, bytes)
            }
        }
    }

    fn outside(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let request = Message::parse(packet.get(14..)?)?;
        let answer = self.before_a_session(&request)?;
        let mut bytes = vec![0x06, 0x00, 0xff, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, answer.len() as u8];
        bytes.extend(answer);
        Some(bytes)
    }

    fn outside_plus(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (_, bytes) = packet::open_plain(packet)?;
        Some(packet::plain(Payload::Ipmi, &self.before_a_session(&Message::parse(bytes)?)?))
    }

    fn before_a_session(&self, request: &Message) -> Option<Vec<u8>> {
        let data = match (request.function, request.command) {
            // Authentication capabilities (22.13): IPMI 2.0, by name.
            (0x06, 0x38) => vec![0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0],
            // Cipher suites (22.15): each a record of its number and its algorithms.
            (0x06, 0x54) => {
                let record = |suite: &Suite| {
                    let [a, i, c] = suite.algorithms();
                    [0xc0, suite.id(), a, 0x40 | i, 0x80 | c]
                };
                let all: Vec<u8> = self.is.suites.iter().flat_map(record).collect();
                let from = usize::from(request.data.get(2)? & 0x3f) * 16;
                let part = all.get(from..all.len().min(from + 16)).unwrap_or_default();
                [&[0, 1], part].concat()
            }
            _ => return None,
        };
        Some(reply(request, data))
    }

    fn handshake(&mut self, payload: Payload, bytes: &[u8]) -> Option<Vec<u8>> {
        let tag = *bytes.first()?;
        let session = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
        match payload {
            Payload::OpenRequest => {
                let (_, ours, suite) = controller::read_open_request(bytes);
                let status = match suite {
                    Some(suite) if self.is.suites.contains(&suite) => 0,
                    _ => 0x11,
                };
                let status = if status == 0 && self.links.len() >= self.is.sessions { 0x01 } else { status };
                self.next += 1;
                if let (0, Some(suite)) = (status, suite) {
                    let begin = Begin { suite, privilege: Privilege::User, user: vec![], ours, challenge: [0; 16] };
                    let who = Who { begin, role: 0, theirs: self.next, challenge: random(), guid: [7; 16] };
                    self.links.insert(self.next, Link { who, keys: None, sequence: 0, privilege: 2, last: None });
                }
                let answer = controller::open_response(tag, status, ours, self.next, suite);
                Some(packet::plain(Payload::OpenResponse, &answer))
            }
            Payload::Rakp1 => {
                let link = self.links.get_mut(&session).filter(|link| link.keys.is_none())?;
                if link.who.role != 0 && self.is.new_challenges {
                    link.who.challenge = random();
                }
                link.who.begin.challenge = *bytes.get(8..)?.first_chunk()?;
                link.who.role = *bytes.get(24)?;
                let length = usize::from(*bytes.get(27)?);
                link.who.begin.user = bytes.get(28..28 + length)?.to_vec();
                let mut answer = vec![tag, 0, 0, 0];
                answer.extend(link.who.begin.ours.to_le_bytes());
                let wanted = link.who.role & 0x0f;
                if link.who.begin.user != self.is.username.as_bytes() {
                    answer[1] = 0x0d;
                } else if wanted > self.is.privilege as u8 {
                    answer[1] = 0x0a;
                }
                if answer[1] != 0 {
                    self.seen.refused += 1;
                    self.links.remove(&session);
                    return Some(packet::plain(Payload::Rakp2, &answer));
                }
                answer.extend(link.who.challenge);
                answer.extend(link.who.guid);
                answer.extend(controller::proof(&link.who, self.is.password.as_bytes()));
                Some(packet::plain(Payload::Rakp2, &answer))
            }
            Payload::Rakp3 => {
                let link = self.links.get_mut(&session).filter(|link| link.keys.is_none())?;
                let password = self.is.password.as_bytes();
                let mut answer = vec![tag, 0, 0, 0];
                answer.extend(link.who.begin.ours.to_le_bytes());
                if bytes.get(1) != Some(&0) || bytes.get(8..)? != link.who.expected(password) {
                    // It does not remember a session whose proof was wrong.
                    answer[1] = 0x0f;
                    self.seen.refused += 1;
                    self.links.remove(&session);
                    return Some(packet::plain(Payload::Rakp4, &answer));
                }
                let (code, keys) = link.who.finish(password);
                link.keys = Some(keys);
                answer.extend(code);
                self.seen.opened += 1;
                let open = self.links.values().filter(|link| link.keys.is_some()).count();
                self.seen.parallel = self.seen.parallel.max(open);
                Some(packet::plain(Payload::Rakp4, &answer))
            }
            _ => None,
        }
    }

    fn inside(&mut self, session: u32, packet: &[u8]) -> Option<Vec<u8>> {
        let link = self.links.get(&session)?;
        let (_, bytes) = packet::open(link.keys.as_ref()?, packet)?;
        let request = Message::parse(&bytes)?;
        let privilege = link.privilege;
        let known = link.last.as_ref().filter(|(last, _)| *last == request).map(|(_, answer)| answer.clone());
        let (data, closes) = match known {
            Some(answer) => (answer, false),
            None => {
                self.seen.commands.push((request.function, request.command));
                self.carry_out(session, privilege, &request)
            }
        };
        let switches = (request.function, request.command) == (0, 0x02);
        let link = self.links.get_mut(&session)?;
        link.last = Some((request.clone(), data.clone()));
        if switches && self.is.silent_switch {
            return None;
        }
        link.sequence += 1;
        let (ours, sequence) = (link.who.begin.ours, link.sequence);
        let sealed = packet::seal(link.keys.as_ref()?, ours, sequence, random(), &reply(&request, data));
        if closes {
            self.seen.closed += 1;
            self.links.remove(&session);
        }
        Some(sealed)
    }

    /// The answer with its completion code, and whether the session ends with it.
    fn carry_out(&mut self, session: u32, privilege: u8, request: &Message) -> (Vec<u8>, bool) {
        let needed = if Command::changes(request.function, request.command) { Privilege::Operator as u8 } else { 2 };
        if privilege < needed {
            return (vec![0xd4], false);
        }
        let data = match (request.function, request.command) {
            (0x06, 0x01) => vec![0, 0x20, 1, 2, 0x14, 2, 0xbf, 0x91, 0x12, 0, 0x02, 0x0f],
            (0x06, 0x3b) => match request.data.first() {
                Some(0) => vec![0, privilege],
                Some(level) if *level <= self.is.privilege as u8 => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.privilege = *level;
                    }
                    vec![0, *level]
                }
                _ => vec![0x81],
            },
            (0x06, 0x3c) => return (vec![0], true),
            (0x00, _) => self.chassis.carry_out(request),
            (0x04 | 0x0a, _) => storage::carry_out(&self.is.sensors, &self.is.events, request),
            _ => vec![0xc1],
        };
        (data, false)
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness a test's challenge is always the same one.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

fn reply(request: &Message, data: Vec<u8>) -> Vec<u8> {
    Message { function: request.function | 1, data, ..request.clone() }.to_bytes()
}

/// The pong to an ASF presence ping (ASF 2.0, 3.2.4.3).
fn ping(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.get(8)? != &0x80 {
        return None;
    }
    let mut pong = vec![0x06, 0x00, 0xff, 0x06, 0, 0, 0x11, 0xbe, 0x40, *packet.get(9)?, 0, 16];
    pong.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    Some(pong)
}
