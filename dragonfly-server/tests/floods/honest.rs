//! A machine that boots: what it asks, and how long the answers took. It asks again as firmware does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::agents::Agents;
use super::world::{HONEST, SERVER, Site};

/// How long it waits before it asks again, and how often it asks. Firmware waits longer.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 5;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// The card of honest machine number `n`.
pub(crate) fn card(n: usize) -> String {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    format!("52:54:00:00:{high:02x}:{low:02x}")
}

/// How long each kind of answer took, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    dhcp: Vec<Option<f64>>,
    tftp: Vec<Option<f64>>,
    script: Vec<Option<f64>>,
    hello: Vec<Option<f64>>,
}

impl Figures {
    fn kinds(&self) -> [(&'static str, &Vec<Option<f64>>); 4] {
        [
            ("DHCP lease", &self.dhcp),
            ("TFTP first block", &self.tftp),
            ("boot script", &self.script),
            ("agent's hello", &self.hello),
        ]
    }

    /// What got no answer.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let missing = |all: &Vec<Option<f64>>| all.iter().filter(|one| one.is_none()).count();
        let told =
            |(what, all): (&str, &Vec<_>)| format!("{what}: {} of {} without an answer", missing(all), all.len());
        self.kinds().into_iter().filter(|(_, all)| missing(all) > 0).map(told).collect()
    }

    pub(crate) fn report(&self) -> Value {
        let one = |all: &Vec<Option<f64>>| {
            let mut times: Vec<f64> = all.iter().flatten().copied().collect();
            times.sort_by(f64::total_cmp);
            let part = |p: f64| times.get(((times.len() as f64 * p) as usize).min(times.len().saturating_sub(1)));
            json!({ "asked": all.len(), "answered": times.len(), "p50": part(0.5), "p99": part(0.99), "max": times.last() })
        };
        self.kinds()
            .into_iter()
            .map(|(what, all)| (what.to_owned(), one(all)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Boots one machine after the other.
pub(crate) async fn boot_often(site: &Site, rounds: usize) -> Figures {
    let _ = site;
    let mut figures = Figures::default();
    let relay = UdpSocket::bind((HONEST, 67)).await.unwrap();
    for n in 0..rounds {
        let timed = async |ok: bool, begun: Instant| ok.then(|| begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        let ok = lease(&relay, n).await;
        figures.dhcp.push(timed(ok, begun).await);
        let begun = Instant::now();
        let ok = first_block().await;
        figures.tftp.push(timed(ok, begun).await);
        let begun = Instant::now();
        let ok = script(n).await;
        figures.script.push(timed(ok, begun).await);
        let begun = Instant::now();
        let ok = hello().await;
        figures.hello.push(timed(ok, begun).await);
    }
    figures
}

/// DISCOVER, OFFER, REQUEST, ACK, again from the start when there is no answer.
async fn lease(relay: &UdpSocket, n: usize) -> bool {
    for attempt in 0..TRIES {
        let xid = (n * 10 + attempt + 1) as u32 | 0x4000_0000;
        let Some(offer) = ask(relay, &message(1, xid, &card(n), HONEST, None), xid).await else { continue };
        // Firmware looks around before it accepts.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let xid = xid | 0x2000_0000;
        if let Some(given) = ask(relay, &message(3, xid, &card(n), HONEST, Some(offer.1)), xid).await
            && given == (5, offer.1)
        {
            return true;
        }
    }
    false
}

/// Kind and address of the answer with this number.
async fn ask(relay: &UdpSocket, message: &[u8], xid: u32) -> Option<(u8, Ipv4Addr)> {
    relay.send_to(message, (SERVER, 67)).await.unwrap();
    let mut buffer = [0; 1500];
    let heard = async {
        loop {
            let (length, _) = relay.recv_from(&mut buffer).await.unwrap();
            let bytes = &buffer[..length];
            if length > 243
                && bytes[4..8] == xid.to_be_bytes()
                && let Some(kind) = kind(&bytes[240..])
            {
                return (kind, Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]));
            }
        }
    };
    timeout(PATIENCE, heard).await.ok()
}

/// What kind of message these options make it.
fn kind(mut options: &[u8]) -> Option<u8> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [53, 1, kind, ..] => return Some(*kind),
            [_, length, rest @ ..] => options = rest.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

/// A client's message as a relay passes it on.
pub(crate) fn message(kind: u8, xid: u32, card: &str, relay: Ipv4Addr, asked: Option<Ipv4Addr>) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[24..28].copy_from_slice(&relay.octets());
    for (byte, text) in bytes[28..34].iter_mut().zip(card.split(':')) {
        *byte = u8::from_str_radix(text, 16).unwrap();
    }
    bytes.extend(COOKIE);
    bytes.extend([53, 1, kind]);
    if let Some(asked) = asked {
        bytes.extend([50, 4]);
        bytes.extend(asked.octets());
        bytes.extend([54, 4]);
        bytes.extend(SERVER.octets());
    }
    bytes.extend([60, 32]);
    bytes.extend(b"PXEClient:Arch:00007:UNDI:003016");
    bytes.extend([93, 2, 0, 7, 94, 3, 1, 3, 16, 255]);
    bytes
}

async fn first_block() -> bool {
    let socket = UdpSocket::bind((HONEST, 0)).await.unwrap();
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        socket.send_to(b"\0\x01snponly.efi\0octet\0", (SERVER, 69)).await.unwrap();
        if let Ok(Ok((length, from))) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await
            && length == 516
            && buffer[..4] == [0, 3, 0, 1]
        {
            // Enough: an honest client that has changed its mind.
            let _ = socket.send_to(b"\0\x05\0\0enough\0", from).await;
            return true;
        }
    }
    false
}

async fn script(n: usize) -> bool {
    for _ in 0..TRIES {
        let asked = async {
            let mut web = Web::connect().await?;
            web.script(&card(n)).await
        };
        if timeout(PATIENCE * 2, asked).await.is_ok_and(|asked| asked.is_ok()) {
            return true;
        }
    }
    false
}

/// From a new identity to a session, with connections of its own: an agent that has just started on a machine that
/// nobody has seen yet.
async fn hello() -> bool {
    static MACHINES: AtomicUsize = AtomicUsize::new(1000);
    let card = card(MACHINES.fetch_add(1, Ordering::Relaxed));
    for _ in 0..TRIES {
        let agents = Agents::at(HONEST);
        if let Ok(Ok(Some(_))) = timeout(PATIENCE * 2, agents.hello(&card)).await {
            return true;
        }
    }
    false
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Web {
    stream: TcpStream,
}

impl Web {
    pub(crate) async fn open(_: &Site) -> std::io::Result<Self> {
        Self::connect().await
    }

    async fn connect() -> std::io::Result<Self> {
        Ok(Self { stream: connect(HONEST).await? })
    }

    /// The boot script of a card; an error when it is none.
    pub(crate) async fn script(&mut self, card: &str) -> std::io::Result<()> {
        let request = format!("GET /boot/{card} HTTP/1.1\r\nHost: {SERVER}:3000\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let got = self.stream.read(&mut buffer).await?;
            if got == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            read.extend_from_slice(&buffer[..got]);
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                let good = head.starts_with("HTTP/1.1 200") && body.starts_with("#!ipxe\n");
                return if good { Ok(()) } else { Err(std::io::Error::other(head.to_owned())) };
            }
        }
    }
}

/// A connection to the server from one of the addresses at this end.
pub(crate) async fn connect(from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(SocketAddr::from((SERVER, 3000))).await
}
