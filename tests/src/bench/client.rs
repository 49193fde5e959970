//! As much HTTP/1.1 as a load needs: many requests on one connection, little work of its own.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::report::Times;
use crate::lab::namespace::Door;

/// The longest head or line that is read.
const LONGEST: usize = 1 << 20;

/// One connection that is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and not yet looked at.
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// From the servers' end: what is not for firmware is plain HTTP only there.
    pub(crate) fn inside(door: &Door, to: SocketAddr) -> Result<Self> {
        let stream = door.connect(to)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: TcpStream::from_std(stream)?, read: Vec::new() })
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        let (status, length) = self.head().await?;
        let mut body = Vec::new();
        match length {
            Some(length) => self.take(length, &mut body).await?,
            None => loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
                self.take(size, &mut body).await?;
                self.line().await?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(Answer { status, body })
    }

    /// Asks by HTTP/1.0 for an answer without an end; its lines follow.
    pub(crate) async fn follow(&mut self, path: &str, token: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:3000\r\nAuthorization: Bearer {token}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let (status, _) = self.head().await?;
        ensure!(status == 200, "{path} answers {status}");
        Ok(())
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self) -> Result<String> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.read[looked..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=looked + end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            looked = self.read.len();
            ensure!(looked < LONGEST, "a line without an end");
            self.more().await?;
        }
    }

    /// The status, and the length of the body unless it comes in chunks.
    async fn head(&mut self) -> Result<(u16, Option<usize>)> {
        let mut looked = 0;
        let end = loop {
            if let Some(at) = self.read[looked..].windows(4).position(|w| w == b"\r\n\r\n") {
                break looked + at;
            }
            looked = self.read.len().saturating_sub(3);
            ensure!(looked < LONGEST, "a head without an end");
            self.more().await?;
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("not an HTTP answer")?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = match field("content-length:") {
            Some(length) => Some(length.parse()?),
            None if field("transfer-encoding:") == Some("chunked") => None,
            None => Some(0),
        };
        Ok((status, length))
    }

    async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<()> {
        while self.read.len() < length {
            self.more().await?;
        }
        into.extend(self.read.drain(..length));
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            bail!("the connection was closed in the midst of an answer");
        }
        Ok(())
    }
}

/// A request for `path`.
pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n{token}\r\n").into_bytes()
}

/// A request that carries something.
pub(crate) fn send(method: &str, path: &str, token: &str, media: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) times: Times,
    pub(crate) seconds: f64,
}

impl Load {
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }
}

/// Sends `each` requests over every connection, each when the one before is answered; any answer but
/// 200 is an error.
pub(crate) async fn load<F>(connections: Vec<Connection>, each: usize, request: F) -> Result<Load>
where
    F: Fn(usize) -> Vec<u8> + Clone + Send + 'static,
{
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let request = request.clone();
        tasks.spawn(async move {
            let mut times = Times::default();
            for n in 0..each {
                let request = request(number * each + n);
                let begin = Instant::now();
                let answer = connection.ask(&request).await?;
                times.add(begin.elapsed());
                if answer.status != 200 {
                    let asked = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                    bail!("{asked} is answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
                }
            }
            Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(Load { times, seconds: begin.elapsed().as_secs_f64() })
}
