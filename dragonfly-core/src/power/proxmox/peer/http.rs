//! HTTP/1.1, as much of it as clients of an API speak (RFC 9112).

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest head and the longest body.
const LONGEST: usize = 64 << 10;

#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The next one; `None` when the client has gone.
    pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let Some(first) = line(stream).await? else { return Ok(None) };
        let mut parts = first.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1")) = (parts.next(), parts.next(), parts.next()) else {
            return Err(io::Error::other(format!("no request: {first}")));
        };
        let mut request = Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() };
        let mut length = first.len();
        loop {
            let line = line(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            length += line.len();
            if length > LONGEST {
                return Err(io::Error::other("a head that is too long"));
            }
            match line.split_once(':') {
                _ if line.is_empty() => break,
                Some((name, value)) => request.headers.push((name.to_lowercase(), value.trim().to_owned())),
                None => return Err(io::Error::other(format!("no header: {line}"))),
            }
        }
        if let Some(length) = request.header("content-length") {
            let length: usize = length.parse().map_err(io::Error::other)?;
            if length > LONGEST {
                return Err(io::Error::other("a body that is too long"));
            }
            request.body = vec![0; length];
            stream.read_exact(&mut request.body).await?;
        }
        Ok(Some(request))
    }
}

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    match stream.take(LONGEST as u64).read_line(&mut line).await? {
        0 => Ok(None),
        _ => Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned())),
    }
}

/// An answer in JSON, with the words of its status line.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    reason: &str,
    body: &str,
) -> io::Result<()> {
    let reason: String = reason.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).collect();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nServer: pve-api-daemon/3.0\r\nContent-Type: application/json;charset=UTF-8\r\n\
         Cache-Control: max-age=0\r\nContent-Length: {}\r\n\r\n",
        reason.trim(),
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
    stream.flush().await
}
