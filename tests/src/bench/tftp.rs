//! A file by TFTP, as firmware fetches it: one block at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::net::UdpSocket;

use super::world::{CLIENT, SERVER};

const BLOCK: usize = 1468;
const PATIENCE: Duration = Duration::from_secs(2);
/// A minute, as firmware asks before it gives up: a thousand machines at once wait for their turn.
const TRIES: usize = 30;

/// Fetches `name`; returns its length.
pub(crate) async fn fetch(name: &str) -> Result<usize> {
    let socket = UdpSocket::bind((CLIENT, 0)).await?;
    let mut request = vec![0, 1];
    for word in [name, "octet", "blksize", "1468"] {
        request.extend(word.as_bytes());
        request.push(0);
    }
    let (mut to, mut said) = (SocketAddr::from((SERVER, 69)), request);
    let (mut wanted, mut length, mut failed) = (0u16, 0, 0);
    let mut buffer = [0; BLOCK + 4];
    loop {
        socket.send_to(&said, to).await?;
        let heard = loop {
            match tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await {
                Err(_) => break None,
                Ok(heard) => {
                    let (size, from) = heard?;
                    if to.port() == 69 || from == to {
                        break Some((size, from));
                    }
                }
            }
        };
        let Some((size, from)) = heard else {
            failed += 1;
            ensure!(failed < TRIES, "TFTP: no answer for {name} after {length} bytes");
            continue;
        };
        to = from;
        match &buffer[..size] {
            // The options are granted.
            [0, 6, ..] if wanted == 0 => {}
            [0, 3, high, low, data @ ..] if u16::from_be_bytes([*high, *low]) == wanted => {
                length += data.len();
                if data.len() < BLOCK {
                    socket.send_to(&[0, 4, *high, *low], to).await?;
                    return Ok(length);
                }
            }
            [0, 5, ..] => bail!("TFTP: {name} is refused: {}", String::from_utf8_lossy(&buffer[4..size])),
            // What came before comes again.
            _ => continue,
        }
        let [high, low] = wanted.to_be_bytes();
        said = vec![0, 4, high, low];
        wanted = wanted.wrapping_add(1);
    }
}
