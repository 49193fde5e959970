//! An HTTP server on loopback that misbehaves exactly as told, connection by connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// By closing, which is also what a break looks like.
    Close,
}

/// What is made of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranges {
    Honoured,
    /// The whole body with 200.
    Ignored,
    /// 206 and the range that was asked for, and then the body from its start.
    Lied,
    /// Another range, and said so.
    Off(i64),
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Close,
    Reset,
    /// Says nothing more until the client gives up.
    Stall,
    /// In the middle of the header.
    InHead,
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) body: Arc<Vec<u8>>,
    pub(crate) status: Option<u16>,
    pub(crate) framing: Framing,
    pub(crate) ranges: Ranges,
    pub(crate) etag: Option<&'static str>,
    /// Added to the length that is told.
    pub(crate) length: i64,
    /// Added to the total of Content-Range.
    pub(crate) total: i64,
    /// After so many bytes of what this connection would send.
    pub(crate) cut: Option<(usize, Break)>,
    /// Something that is not HTTP.
    pub(crate) garbage: bool,
}

impl Connection {
    pub(crate) fn new(body: Arc<Vec<u8>>) -> Self {
        Self {
            body,
            status: None,
            framing: Framing::Length,
            ranges: Ranges::Honoured,
            etag: Some("\"one\""),
            length: 0,
            total: 0,
            cut: None,
            garbage: false,
        }
    }

    pub(crate) fn cut(mut self, after: usize, how: Break) -> Self {
        self.cut = Some((after, how));
        self
    }
}

/// What is served at a path: these connections, and the last of them ever after.
type Served = (String, Vec<Connection>, usize);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    served: Arc<Mutex<Served>>,
}

impl Server {
    /// `silent` is told how much time must pass while a client waits for a silent connection.
    pub(crate) fn start(silent: UnboundedSender<Duration>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(Mutex::new(Served::default()));
        let script = served.clone();
        // Ends with the process: it waits for connections.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is what these tests are about.
                let _ = answer(&stream, &script, &silent);
            }
        });
        Self { address, served }
    }

    pub(crate) fn serve(&self, path: &str, connections: Vec<Connection>) {
        *self.served.lock().unwrap() = (path.to_owned(), connections, 0);
    }

    /// How many connections there were to what is served now.
    pub(crate) fn connections(&self) -> usize {
        self.served.lock().unwrap().2
    }
}

fn answer(mut stream: &TcpStream, script: &Mutex<Served>, silent: &UnboundedSender<Duration>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut head = Vec::new();
    // The last line feed is left unread: closing with something unread resets the connection.
    while !head.ends_with(b"\r\n\r") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let connection = {
        let mut served = script.lock().unwrap();
        if !head.starts_with(&format!("GET {} ", served.0)) {
            return Ok(());
        }
        served.2 += 1;
        let at = (served.2 - 1).min(served.1.len() - 1);
        served.1[at].clone()
    };
    if !matches!(connection.cut, Some((_, Break::Reset))) {
        stream.read_exact(&mut [0])?;
    }
    let fields = || head.lines().filter_map(|line| line.split_once(':'));
    let field = |name: &str| fields().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    let asked = field("Range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let if_range = field("If-Range");
    // RFC 9110 13.1.5: another content is sent whole.
    let asked = asked.filter(|_| if_range.is_none_or(|tag| Some(tag) == connection.etag));
    send(stream, &connection, asked)?;
    if let Some((_, Break::Stall)) = connection.cut {
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        while matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            if silent.send(Duration::from_secs(61)).is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn send(mut stream: &TcpStream, connection: &Connection, asked: Option<usize>) -> io::Result<()> {
    if connection.garbage {
        return stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    }
    if let Some(status) = connection.status {
        return write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 2\r\nLocation: /\r\n\r\nno");
    }
    let body = &connection.body[..];
    let mut head = String::new();
    let bytes = match (asked, connection.ranges) {
        (None, _) | (_, Ranges::Ignored) => {
            head += "HTTP/1.1 200 OK\r\n";
            body
        }
        (Some(from), _) if from >= body.len() => {
            return write!(stream, "HTTP/1.1 416 No\r\nContent-Range: bytes */{}\r\n\r\n", body.len());
        }
        (Some(from), ranges) => {
            let off = if let Ranges::Off(off) = ranges { off } else { 0 };
            let from = (from as i64 + off).clamp(0, body.len() as i64 - 1) as usize;
            let total = body.len() as i64 + connection.total;
            head += &format!("HTTP/1.1 206 Part\r\nContent-Range: bytes {from}-{}/{total}\r\n", body.len() - 1);
            if ranges == Ranges::Lied { body } else { &body[from..] }
        }
    };
    if let Some(etag) = connection.etag {
        head += &format!("ETag: {etag}\r\n");
    }
    match connection.framing {
        Framing::Length => head += &format!("Content-Length: {}\r\n", bytes.len() as i64 + connection.length),
        Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
        Framing::Close => {}
    }
    head += "Connection: close\r\n\r\n";
    if let Some((_, Break::InHead)) = connection.cut {
        return stream.write_all(&head.as_bytes()[..head.len() / 2]);
    }
    stream.write_all(head.as_bytes())?;
    let whole = connection.cut.is_none_or(|(after, _)| after >= bytes.len());
    let bytes = connection.cut.map_or(bytes, |(after, _)| &bytes[..after.min(bytes.len())]);
    if connection.framing != Framing::Chunked {
        return stream.write_all(bytes);
    }
    let mut parts = bytes.chunks(30_011).peekable();
    while let Some(part) = parts.next() {
        // A break comes in the middle of a chunk.
        let told = part.len() + usize::from(!whole && parts.peek().is_none());
        write!(stream, "{told:x}\r\n")?;
        stream.write_all(part)?;
        if told == part.len() {
            stream.write_all(b"\r\n")?;
        }
    }
    if whole { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
}
