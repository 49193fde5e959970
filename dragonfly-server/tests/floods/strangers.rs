//! The floods.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::agents::{Agents, BODY};
use super::honest::{connect, message};
use super::world::{SERVER, STRANGER, Site};

/// One kind of flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// DISCOVER from invented cards, none of which accepts.
    Discover,
    /// TFTP transfers that are opened and never acknowledged, from thousands of ports.
    Tftp,
    /// A large file over HTTP, asked for by thousands who read nothing.
    Readers,
    /// Requests whose headers come byte by byte, and bodies that never end.
    Writers,
    /// Ten thousand connections that say nothing.
    Idle,
    /// Scripts of invented cards.
    Scripts,
    /// Invented machines that register, with an inventory each.
    Registrations,
    /// Agents of machines that were let in, whose logs have no end.
    Logs,
    /// The same, whose bodies have none.
    Bodies,
}

/// A flood that runs.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: JoinSet<()>,
    sent: Arc<AtomicU64>,
}

impl Running {
    /// Waits until so much was sent.
    pub(crate) async fn reaches(&self, full: u64) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while self.sent.load(Ordering::Relaxed) < full {
            assert!(std::time::Instant::now() < end, "only {} were sent", self.sent.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it; how much was sent.
    pub(crate) async fn end(mut self) -> u64 {
        self.tasks.shutdown().await;
        self.sent.load(Ordering::Relaxed)
    }
}

impl Flood {
    pub(crate) const ALL: [Self; 9] = [
        Self::Discover,
        Self::Tftp,
        Self::Readers,
        Self::Writers,
        Self::Idle,
        Self::Scripts,
        Self::Registrations,
        Self::Logs,
        Self::Bodies,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Discover => "DISCOVER from invented cards",
            Self::Tftp => "TFTP opens without an acknowledgement",
            Self::Readers => "HTTP readers that read nothing",
            Self::Writers => "HTTP writers that never finish",
            Self::Idle => "10,000 idle connections",
            Self::Scripts => "boot scripts of invented cards",
            Self::Registrations => "registrations of invented machines",
            Self::Logs => "agents' logs without an end",
            Self::Bodies => "agents' bodies of 1 MiB that never finish",
        }
    }

    /// How much it must have sent before it is in full flow.
    pub(crate) fn full(self) -> u64 {
        match self {
            Self::Idle => 10_000,
            Self::Readers | Self::Writers => 2000,
            Self::Tftp => 300,
            Self::Discover | Self::Scripts | Self::Registrations | Self::Logs => 100,
            // Several times as much as the server may hold.
            Self::Bodies => 300,
        }
    }

    pub(crate) fn start(self, site: &Site, times: usize) -> Running {
        let (mut tasks, sent) = (JoinSet::new(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&sent);
        // So many at once, each of whom waits for the answer before he goes on: the server has no rest, and what
        // it is sent fits into its queue. When more is asked for, as many packets as go.
        let patience = if times > 1 { Duration::ZERO } else { Duration::from_millis(100) };
        let large = site.large.clone();
        match self {
            Self::Discover => drop(tasks.spawn(discover(patience, count))),
            // It is not heard for long, so it does not wait for long.
            Self::Tftp => drop(tasks.spawn(tftp(patience / 50, count))),
            Self::Readers => hold(&mut tasks, 2000, count, move |_| readers(large.clone())),
            Self::Writers => hold(&mut tasks, 2000, count, writers),
            Self::Idle => hold(&mut tasks, 10_000, count, |_| async { connect(STRANGER).await.ok() }),
            Self::Scripts => {
                for n in 0..4 {
                    tasks.spawn(scripts(n, Arc::clone(&count)));
                }
            }
            Self::Registrations => {
                for n in 0..16 {
                    tasks.spawn(registrations(n, Arc::clone(&count)));
                }
            }
            Self::Logs | Self::Bodies => drop(tasks.spawn(talkers(self, count))),
        }
        Running { tasks, sent }
    }
}

fn invented(n: u64) -> String {
    let [.., a, b, c, d] = n.to_be_bytes();
    format!("02:ff:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// How many ask at once.
const AT_ONCE: u64 = 32;

/// Waits until there is an answer, whatever it says.
async fn answered(socket: &UdpSocket, patience: Duration) {
    if patience.is_zero() {
        tokio::task::yield_now().await;
    } else {
        let _ = tokio::time::timeout(patience, socket.recv(&mut [0; 2048])).await;
    }
}

async fn discover(patience: Duration, sent: Arc<AtomicU64>) {
    let socket = UdpSocket::bind((STRANGER, 67)).await.unwrap();
    for n in 0.. {
        let bytes = message(1, n as u32, &invented(n), STRANGER, None);
        let _ = socket.send_to(&bytes, (SERVER, 67)).await;
        sent.store(n + 1, Ordering::Relaxed);
        if n >= AT_ONCE {
            answered(&socket, patience).await;
        }
    }
}

async fn tftp(patience: Duration, sent: Arc<AtomicU64>) {
    let mut sockets = Vec::new();
    for _ in 0..3000 {
        sockets.push(UdpSocket::bind((STRANGER, 0)).await.unwrap());
    }
    // A window as large as can be asked for, so that the server would have to keep much.
    let requests: [&[u8]; 2] = [b"\0\x01large\0octet\0", b"\0\x01large\0octet\0blksize\x0065464\0windowsize\x0064\0"];
    for n in 0u64.. {
        let at = |n: u64| sockets.get(n as usize % sockets.len());
        let Some(socket) = at(n) else { return };
        let _ = socket.send_to(requests[n as usize % 2], (SERVER, 69)).await;
        sent.store(n + 1, Ordering::Relaxed);
        if let Some(before) = n.checked_sub(AT_ONCE).and_then(at) {
            answered(before, patience).await;
        }
    }
}

/// Keeps so many of something open, and opens another for each that is closed on us.
fn hold<F>(
    tasks: &mut JoinSet<()>,
    most: usize,
    sent: Arc<AtomicU64>,
    open: impl Fn(usize) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Option<TcpStream>> + Send + 'static,
{
    const TASKS: usize = 32;
    let open = Arc::new(open);
    for task in 0..TASKS {
        let (open, sent) = (Arc::clone(&open), Arc::clone(&sent));
        tasks.spawn(async move {
            let mut kept: Vec<TcpStream> = Vec::new();
            for n in 0.. {
                if kept.len() > most / TASKS {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let oldest = n % kept.len();
                    kept.swap_remove(oldest);
                }
                if let Some(stream) = open(task).await {
                    sent.fetch_add(1, Ordering::Relaxed);
                    kept.push(stream);
                }
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Asks for a large file with as small a window as there is, and takes nothing of it.
async fn readers(path: String) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(2048).ok()?;
    socket.bind(SocketAddr::from((STRANGER, 0))).ok()?;
    let mut stream = socket.connect(SocketAddr::from((SERVER, 3000))).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {SERVER}:3000\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    Some(stream)
}

async fn writers(task: usize) -> Option<TcpStream> {
    let mut stream = connect(STRANGER).await.ok()?;
    let opening = if task.is_multiple_of(2) {
        "GET /boot/02:00:00:00:00:01 HTTP/1.1\r\nHost: x\r\nX".to_owned()
    } else {
        // A body that was announced, as large as any route takes, and comes but for its last byte. Such a route
        // is for TLS only, which tells the server as much as it needs to refuse.
        let body = 32 * 1024 - 1;
        format!(
            "POST /boot/phone-home/x HTTP/1.1\r\nHost: {SERVER}:3000\r\nContent-Length: {}\r\n\r\n{}",
            body + 1,
            "x".repeat(body)
        )
    };
    stream.write_all(opening.as_bytes()).await.ok()?;
    Some(stream)
}

async fn scripts(task: u64, sent: Arc<AtomicU64>) {
    use tokio::io::AsyncReadExt as _;
    let mut buffer = vec![0; 8192];
    loop {
        let Ok(mut stream) = connect(STRANGER).await else { continue };
        for n in 0.. {
            let card = invented(n * 4 + task);
            let request = format!("GET /boot/{card} HTTP/1.1\r\nHost: {SERVER}:3000\r\n\r\n");
            let asked = stream.write_all(request.as_bytes()).await;
            if asked.is_err() || !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                break;
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn registrations(task: u64, sent: Arc<AtomicU64>) {
    let agents = Agents::at(STRANGER);
    // Cards that no other flood has had.
    for n in 0.. {
        if agents.hello(&invented(0x8000_0000 + n * 16 + task)).await.is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Four machines that were let in, and many who speak for each.
async fn talkers(flood: Flood, sent: Arc<AtomicU64>) {
    let agents = Agents::at(STRANGER);
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let card = invented(0xf000_0000 + n);
        let session = loop {
            if let Ok(Some(session)) = agents.hello(&card).await {
                break session;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let many = if flood == Flood::Logs { 4 } else { 100 };
        for n in 0..many {
            let (session, sent, agents) = (session.clone(), Arc::clone(&sent), agents.clone());
            tasks.spawn(async move {
                if flood == Flood::Logs {
                    logs(&agents, &session, n, &sent).await;
                } else {
                    bodies(&agents, &session, &sent).await;
                }
            });
        }
    }
    tasks.join_all().await;
}

/// Parts as large as are taken, of lines as short as there are.
async fn logs(agents: &Agents, session: &str, task: u64, sent: &AtomicU64) {
    for n in 0u64.. {
        let part = b"x\ny\n".repeat(BODY / 4);
        let _ = agents.log(session, (n * 4 + task) * BODY as u64, part).await;
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

async fn bodies(agents: &Agents, session: &str, sent: &Arc<AtomicU64>) {
    loop {
        let sent = Arc::clone(sent);
        let told = move || {
            sent.fetch_add(1, Ordering::Relaxed);
        };
        agents.log_without_end(session, told).await;
    }
}
