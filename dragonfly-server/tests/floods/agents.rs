//! What an agent says over TLS: hello, and its log. An honest one's and a stranger's are the same.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dragonfly_core::wire::{Hello, Identity, Welcome};
use futures_util::stream;
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::{Value, json};

use super::world::SERVER;

/// What the server takes in one body.
pub(crate) const BODY: usize = 1024 * 1024;
const IDENTITY: &[u8] = b"dragonfly/identity.json";

/// Agents behind one address. A clone has the same connections.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    web: Client,
}

impl Agents {
    pub(crate) fn at(address: Ipv4Addr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whose key it is is tried elsewhere.
        let web = Client::builder().local_address(IpAddr::from(address)).tls_danger_accept_invalid_certs(true);
        let web = web.no_proxy().pool_max_idle_per_host(64).timeout(Duration::from_secs(20)).build();
        Self { web: web.unwrap() }
    }

    /// What a boot of the machine with this card would be given.
    async fn identity(&self, card: &str) -> Option<Identity> {
        let archive = self.web.get(format!("http://{SERVER}:3000/boot/{card}/identity")).send().await.ok()?;
        let archive = archive.error_for_status().ok()?.bytes().await.ok()?;
        let name = archive.windows(IDENTITY.len()).position(|part| part == IDENTITY)?;
        let begin = name + archive.get(name..)?.iter().position(|byte| *byte == b'{')?;
        serde_json::Deserializer::from_slice(archive.get(begin..)?).into_iter().next()?.ok()
    }

    /// Says hello for the machine with this card. Its session; nothing if it is asked to come again later; an error
    /// if it is refused, or there is no answer.
    pub(crate) async fn hello(&self, card: &str) -> Result<Option<String>, String> {
        let identity = self.identity(card).await.ok_or("no identity")?;
        let request = self.post("hello", identity.token.reveal()).json(&hello(card));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        match answer.status() {
            StatusCode::OK => {
                let welcome: Welcome = answer.json().await.map_err(|error| error.to_string())?;
                Ok(Some(welcome.session.reveal().to_owned()))
            }
            StatusCode::TOO_MANY_REQUESTS => Ok(None),
            other => Err(other.to_string()),
        }
    }

    /// Sends a part of a log.
    pub(crate) async fn log(&self, session: &str, offset: u64, part: Vec<u8>) -> Option<Response> {
        self.post(&format!("log?offset={offset}"), session).body(part).send().await.ok()
    }

    /// Sends all of a part of a log but its last byte, and waits for what the server says to that.
    pub(crate) async fn log_without_end(&self, session: &str, sent: impl FnOnce() + Send + 'static) {
        let (parts, mut told) = (BODY / 4096, Some(sent));
        let body = stream::unfold(0, move |n| {
            let told = (n == parts).then(|| told.take()).flatten();
            async move {
                if let Some(told) = told {
                    told();
                    std::future::pending::<()>().await;
                }
                let bytes = if n + 1 == parts { 4095 } else { 4096 };
                Some((Ok::<_, std::io::Error>(vec![b'x'; bytes]), n + 1))
            }
        });
        let _ = self.post("log?offset=0", session).body(Body::wrap_stream(body)).send().await;
    }

    fn post(&self, what: &str, bearer: &str) -> reqwest::RequestBuilder {
        self.web.post(format!("https://{SERVER}:3000/dragonfly/v1/agent/{what}")).bearer_auth(bearer)
    }
}

/// What the agent of a server with four disks says.
fn hello(card: &str) -> Hello {
    let number = card.replace(':', "");
    let disk = |n: u32| json!({ "name": format!("nvme{n}n1"), "size": 1920383410176_u64, "serial": format!("S64GNE{number}{n}"), "bus": "nvme", "blank": true });
    let device = |n: u32| json!({ "address": format!("0000:{n:02x}:00.0"), "id": "8086:10fb", "class": "020000" });
    let value: Value = json!({
        "protocol": { "min": 1, "max": 1 },
        "agent": "test",
        // Who asks again is the same agent.
        "bootId": uuid::Uuid::from_u128(u128::from_str_radix(&number, 16).unwrap()),
        "mac": card,
        "anchors": { "macs": [card], "serial": format!("S5{number}"), "product": "SYS-121H-TNR" },
        "inventory": {
            "system": { "vendor": "Supermicro", "product": "SYS-121H-TNR", "serial": format!("S5{number}") },
            "cpu": { "model": "Some CPU", "cores": 32, "threads": 64 },
            "memory": { "total": 274877906944_u64 },
            "disks": (0..4).map(disk).collect::<Vec<_>>(),
            "nics": [{ "name": "eno1", "mac": card, "driver": "ixgbe", "link": true }],
            "pci": (0..64).map(device).collect::<Vec<_>>(),
        },
    });
    serde_json::from_value(value).unwrap()
}
