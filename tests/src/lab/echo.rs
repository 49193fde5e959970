//! Hears from the installed systems.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::events::{Fact, Timeline};
use super::http::read_head;

/// Where installed systems say what they were given; the echo service of the images knows it.
pub(crate) const AT: &str = "192.168.77.1:8099";
const LONGEST: u64 = 4096;

/// What an installed system says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Echo {
    pub(crate) mac: String,
    pub(crate) nonce: String,
    /// Size of its root file system.
    #[serde(rename = "rootKib")]
    pub(crate) root_kib: u64,
    /// What its first boot called it: new if it was installed anew.
    #[serde(rename = "machineId")]
    pub(crate) machine_id: String,
}

/// Serves until the process ends; the listener is already in the lab's namespace.
pub(crate) fn serve(listener: TcpListener, timeline: Timeline) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let timeline = timeline.clone();
            std::thread::spawn(move || {
                if let Ok(echo) = hear(&stream) {
                    timeline.add(Fact::Echo(echo));
                }
            });
        }
    });
}

fn hear(mut stream: &TcpStream) -> Result<Echo> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let said = read(stream);
    let answer = match &said {
        Ok(_) => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
        Err(_) => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    };
    stream.write_all(answer.as_bytes())?;
    said
}

fn read(stream: &TcpStream) -> Result<Echo> {
    let mut from = BufReader::new(stream);
    let head = read_head(&mut from)?;
    if !head.first.starts_with("POST /echo ") {
        bail!("not an echo: {}", head.first);
    }
    let length = head.length().context("no length")?;
    ensure!(length <= LONGEST, "too long");
    let mut body = String::new();
    from.take(length).read_to_string(&mut body)?;
    Ok(serde_json::from_str(&body)?)
}
