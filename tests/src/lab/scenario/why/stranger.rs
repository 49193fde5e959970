//! Clients that are no machine of the lab's: one of a foreign architecture, and one that speaks for another.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use dragonfly_core::Mac;
use dragonfly_core::inventory::Inventory;
use serde_json::{Value, json};

use crate::lab::http;
use crate::lab::namespace::Door;
use crate::lab::process::output;

/// UEFI on 64-bit RISC-V (option 93, as IANA numbers them).
const ARCHITECTURE: [u8; 2] = [0, 27];

/// Broadcasts a DISCOVER of firmware that boots from the network, on an architecture without a boot program.
pub(super) fn discover(door: &Door, mac: Mac) -> Result<()> {
    let socket = door.udp("0.0.0.0:68")?;
    socket.set_broadcast(true)?;
    let sent = socket.send_to(&message(mac), "192.168.77.255:67").context("the DISCOVER is not sent")?;
    ensure!(sent > 0, "an empty DISCOVER");
    Ok(())
}

fn message(mac: Mac) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    // A request on Ethernet, to be answered by broadcast.
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(b"why?");
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&mac.octets());
    bytes.extend([99, 130, 83, 99]);
    let mut option = |code: u8, value: &[u8]| {
        bytes.extend([code, value.len() as u8]);
        bytes.extend(value);
    };
    option(53, &[1]);
    option(55, &[1, 3, 66, 67]);
    option(60, b"PXEClient:Arch:00027:UNDI:003000");
    option(93, &ARCHITECTURE);
    option(94, &[1, 3, 0]);
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Takes an identity for this card and says hello with it, as somebody else's agent would.
pub(super) fn hello(door: &Door, server: SocketAddr, mac: &str, directory: &Path) -> Result<()> {
    let answer = http::get(door.connect(server)?, &format!("/boot/{mac}/identity"), "", &[])?;
    ensure!(answer.status == 200, "the server gives no identity: {}", answer.status);
    let mut archive = Vec::new();
    answer.body.take(1 << 20).read_to_end(&mut archive)?;
    let identity = identity_in(&archive).context("an identity archive without an identity")?;
    let said = |name: &str| identity[name].as_str().map(str::to_owned).with_context(|| format!("no `{name}`"));
    let hello = json!({
        "protocol": {"min": 1, "max": 1},
        "agent": "a stranger's",
        "bootId": "6c6f7374-0000-4000-8000-000000000000",
        "mac": mac,
        "anchors": {"macs": [mac]},
        "inventory": Inventory::default(),
    });
    // Neither the token nor what is said stands in the command line.
    let (head, body) = (directory.join("hello.head"), directory.join("hello.json"));
    std::fs::write(&head, format!("Authorization: Bearer {}\nContent-Type: application/json\n", said("token")?))?;
    std::fs::write(&body, hello.to_string())?;
    let url = format!("{}/dragonfly/v1/agent/hello", said("server")?.trim_end_matches('/'));
    let mut curl = door.command("curl");
    curl.args(["-sS", "--insecure", "--fail-with-body", "--max-time", "10", "-H"])
        .arg(format!("@{}", head.display()))
        .arg("--data-binary")
        .arg(format!("@{}", body.display()))
        .arg(url);
    let answer = output(&mut curl);
    std::fs::remove_file(&head)?;
    std::fs::remove_file(&body)?;
    answer.context("the stranger's hello was refused").map(drop)
}

/// The identity is the one JSON object in its archive.
fn identity_in(archive: &[u8]) -> Option<Value> {
    let starts = (0..archive.len()).filter(|at| archive[*at] == b'{');
    starts
        .filter_map(|at| serde_json::Deserializer::from_slice(&archive[at..]).into_iter::<Value>().next()?.ok())
        .find(|value| value.get("token").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_found_between_other_bytes() {
        let archive = b"070701{x\0\0{\"token\":\"t\",\"server\":\"https://x\"}\0\0TRAILER!!!";
        assert_eq!(identity_in(archive).unwrap()["token"], "t");
        assert!(identity_in(b"{\"a\":1}").is_none());
    }

    #[test]
    fn the_discover_names_its_card_and_architecture() {
        let bytes = message("02:00:00:00:00:07".parse().unwrap());
        assert_eq!(bytes[28..34], [2, 0, 0, 0, 0, 7]);
        assert!(bytes.windows(4).any(|part| part == [93, 2, 0, 27]));
        assert!(bytes.len() >= 300);
    }
}
