//! As much of an HTTP/1.1 server as a simulated service needs.

use std::io::Result;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

/// Longer than any request.
const LONGEST: usize = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) path: String,
    /// Without the question mark, as it was sent.
    pub(super) query: String,
    headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Ask {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body: Some(body), ..Self::default() }
    }

    /// A no, in the words of the protocol.
    pub(super) fn error(status: u16, id: &str, message: &str) -> Self {
        let info = serde_json::json!([{
            "@odata.type": "#Message.v1_1_1.Message", "MessageId": format!("Base.1.8.{id}"), "Message": message,
            "Severity": "Critical", "Resolution": "None.",
        }]);
        let body = serde_json::json!({ "error": {
            "code": format!("Base.1.8.{id}"), "message": message, "@Message.ExtendedInfo": info } });
        Self { status, body: Some(body), ..Self::default() }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The next request of a connection; `None` at its end.
pub(super) async fn ask(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> Result<Option<Ask>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let (path, query) = match words.next().unwrap_or_default() {
        target if target.contains('?') => target.split_once('?').unwrap_or_default(),
        target => (target, ""),
    };
    let mut ask = Ask { method, path: path.to_owned(), query: query.to_owned(), ..Ask::default() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            ask.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    let length = ask.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; usize::min(length, LONGEST)];
    stream.read_exact(&mut body).await?;
    ask.body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(ask))
}

pub(super) async fn reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> Result<()> {
    let body = reply.body.map(|body| body.to_string()).unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} x\r\nOData-Version: 4.0\r\nCache-Control: no-store\r\n", reply.status);
    for (name, value) in reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.status != 204 {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(&body);
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}
