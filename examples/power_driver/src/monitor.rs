//! QEMU's machine protocol: a JSON object a line (QEMU, "QEMU Machine Protocol Specification").

use std::path::Path;
use std::time::Duration;

use dragonfly_core::power::{PowerError, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line that is read.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Monitor(BufReader<UnixStream>);

fn unreachable(error: std::io::Error) -> PowerError {
    PowerError::Unreachable { source: error.into() }
}

impl Monitor {
    /// Waits for the greeting, and leaves the mode in which nothing but that can be done.
    pub(crate) async fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let mut monitor = Self(BufReader::new(stream));
        if monitor.line().await?.get("QMP").is_none() {
            return Err(PowerError::NotTrusted { reason: "it does not greet as QEMU does".to_owned() });
        }
        monitor.command("qmp_capabilities").await?;
        Ok(monitor)
    }

    pub(crate) async fn command(&mut self, name: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": name }));
        self.0.get_mut().write_all(line.as_bytes()).await.map_err(unreachable)?;
        loop {
            let answer = self.line().await?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str).unwrap_or("it does not say why").to_owned();
                return Err(PowerError::Refused { what: name.to_owned(), reason });
            }
            // An event: news, and no answer.
        }
    }

    async fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let mut limited = (&mut self.0).take(LONGEST);
        let read = timeout(PATIENCE, limited.read_line(&mut line)).await;
        let length = read.map_err(|_| PowerError::TimedOut { after: PATIENCE })?.map_err(unreachable)?;
        if length == 0 {
            return Err(PowerError::Unreachable { source: "QEMU has gone".into() });
        }
        serde_json::from_str(&line).map_err(|error| PowerError::Malformed { reason: error.to_string() })
    }
}
