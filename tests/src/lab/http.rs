//! As much HTTP/1.1 as the lab needs: one request a connection, chunked answers, bounded heads.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};

const LONGEST_LINE: u64 = 16 * 1024;
const MOST_LINES: usize = 100;

/// The head of a message: its first line and its fields, names in lower case.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }
}

/// Reads one head.
pub(crate) fn read_head(from: &mut impl BufRead) -> Result<Head> {
    let first = line(from)?;
    let mut fields = Vec::new();
    loop {
        let line = line(from)?;
        if line.is_empty() {
            return Ok(Head { first, fields });
        }
        ensure!(fields.len() < MOST_LINES, "too many header fields");
        let (name, value) = line.split_once(':').context("a header field without a colon")?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    ensure!(bytes.ends_with(b"\n"), "the connection closed, or a line is too long");
    while bytes.last().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
        bytes.pop();
    }
    Ok(String::from_utf8(bytes)?)
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// A body, chunks taken apart.
#[derive(Debug)]
pub(crate) struct Body {
    from: BufReader<TcpStream>,
    left: u64,
    chunked: bool,
    ended: bool,
}

/// Asks `GET path` with a bearer token.
pub(crate) fn get(stream: TcpStream, path: &str, token: &str, more: &[(&str, &str)]) -> Result<Answer> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    );
    for (name, value) in more {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    (&stream).write_all(request.as_bytes())?;
    let mut from = BufReader::new(stream);
    let head = read_head(&mut from)?;
    let status = head.first.split(' ').nth(1).and_then(|s| s.parse().ok()).context("not an HTTP answer")?;
    let chunked = head.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let left = if chunked { 0 } else { head.length().unwrap_or(u64::MAX) };
    Ok(Answer { status, body: Body { from, left, chunked, ended: false } })
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.chunked && !self.ended {
            self.next_chunk().map_err(std::io::Error::other)?;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if self.ended || most == 0 {
            return Ok(0);
        }
        let got = self.from.read(&mut into[..most])?;
        self.left -= got as u64;
        if self.chunked && self.left == 0 {
            line(&mut self.from).map_err(std::io::Error::other)?;
        }
        Ok(got)
    }
}

impl Body {
    fn next_chunk(&mut self) -> Result<()> {
        let size = line(&mut self.from)?;
        self.left =
            u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).context("a bad chunk size")?;
        self.ended = self.left == 0;
        Ok(())
    }

    /// All of it, up to `most` bytes.
    pub(crate) fn text(self, most: u64) -> Result<String> {
        let mut bytes = Vec::new();
        self.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            bail!("the answer is longer than {most} bytes");
        }
        Ok(String::from_utf8(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered_with(answer: &'static str) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut from = BufReader::new(stream.try_clone().unwrap());
            read_head(&mut from).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let answer = get(TcpStream::connect(address).unwrap(), "/x", "t", &[]).unwrap();
        server.join().unwrap();
        answer
    }

    #[test]
    fn bodies_are_read_whole_however_they_are_framed() {
        for (answer, status, want) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
            (
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
                404,
                "abcde",
            ),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", 200, "to the end"),
        ] {
            let got = answered_with(answer);
            assert_eq!((got.status, got.body.text(100).unwrap().as_str()), (status, want));
        }
    }

    #[test]
    fn a_body_longer_than_asked_for_is_an_error() {
        assert!(answered_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").body.text(4).is_err());
    }
}
