//! Images over plain HTTP/1.1, by a client that believes anything: nothing but the digest stands behind it.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use dragonfly_core::action::{ImageError, ImageSource, ImageStream};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use url::Url;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Gullible;

struct Body {
    stream: BufReader<TcpStream>,
    framing: Framing,
}

enum Framing {
    Length(u64),
    /// What is left of the chunk.
    Chunked(u64),
    Close,
    Ended,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Body {
    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(4096).read_line(&mut line).await?;
        line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| bad("a line is cut"))
    }

    async fn part(&mut self, most: u64) -> io::Result<Bytes> {
        let mut part = vec![0; usize::try_from(most).unwrap_or(usize::MAX).min(16 << 10)];
        let length = self.stream.read(&mut part).await?;
        part.truncate(length);
        Ok(part.into())
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match self.framing {
            Framing::Ended | Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let part = self.part(left).await?;
                self.framing = Framing::Length(left - part.len() as u64);
                if part.is_empty() { Err(cut()) } else { Ok(Some(part)) }
            }
            Framing::Close => Ok(Some(self.part(u64::MAX).await?).filter(|part| !part.is_empty())),
            Framing::Chunked(left) => {
                let left = match left {
                    0 => u64::from_str_radix(&self.line().await?, 16).map_err(|_| bad("no length of a chunk"))?,
                    left => left,
                };
                if left == 0 {
                    self.line().await?;
                    self.framing = Framing::Ended;
                    return Ok(None);
                }
                let part = self.part(left).await?;
                if part.is_empty() {
                    return Err(cut());
                }
                let left = left - part.len() as u64;
                if left == 0 {
                    self.line().await?;
                }
                self.framing = Framing::Chunked(left);
                Ok(Some(part))
            }
        }
    }
}

/// A response's header.
struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    etag: Option<String>,
    /// That of Content-Range.
    total: Option<u64>,
}

async fn head(body: &mut Body) -> io::Result<Head> {
    let first = body.line().await?;
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| bad("this is not HTTP"))?;
    let mut head = Head { status, length: None, chunked: false, etag: None, total: None };
    loop {
        let line = body.line().await?;
        let Some((name, value)) = line.split_once(": ") else { return Ok(head) };
        match name {
            "Content-Length" => head.length = Some(value.parse().map_err(|_| bad("no length"))?),
            "Transfer-Encoding" => head.chunked = true,
            "ETag" => head.etag = Some(value.to_owned()),
            "Content-Range" => head.total = value.split_once('/').and_then(|(_, total)| total.parse().ok()),
            _ => {}
        }
    }
}

impl Gullible {
    async fn ask(url: &Url, offset: u64) -> io::Result<(Head, Body)> {
        let address = url.socket_addrs(|| None)?[0];
        let mut stream = TcpStream::connect(address).await?;
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n", url.path());
        if offset > 0 {
            request += &format!("Range: bytes={offset}-\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut body = Body { stream: BufReader::new(stream), framing: Framing::Close };
        let head = head(&mut body).await?;
        body.framing = match (head.chunked, head.length) {
            (true, _) => Framing::Chunked(0),
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        };
        Ok((head, body))
    }
}

#[async_trait]
impl ImageSource for Gullible {
    async fn open(&self, url: &Url, offset: u64, _: Option<&str>) -> Result<ImageStream, ImageError> {
        let shown = url.to_string();
        let io = |source: dragonfly_core::Source| ImageError::Io { url: shown.clone(), source };
        let (head, body) = Self::ask(url, offset).await.map_err(|error| io(error.into()))?;
        let total = match head.status {
            200 => head.length.filter(|_| offset == 0),
            206 => head.total,
            status @ (404 | 410) => return Err(ImageError::NotFound { url: shown, status }),
            416 => return Err(ImageError::Changed { url: shown }),
            500.. => return Err(io("the server is broken".into())),
            status => return Err(ImageError::Refused { url: shown, status }),
        };
        let bytes = stream::unfold(Some(body), move |body| {
            let shown = shown.clone();
            async move {
                let mut body = body?;
                match body.next().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(body))),
                    Ok(None) => None,
                    Err(error) => Some((Err(ImageError::Io { url: shown, source: error.into() }), None)),
                }
            }
        });
        Ok(ImageStream { bytes: bytes.boxed(), total, validator: head.etag })
    }
}
