//! Speaking to a server: trust by fingerprint, the token by file or environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use dragonfly_core::secret::SecretString;
use reqwest::{Method, RequestBuilder, Response};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::Value;
use url::{Host, Url};

use crate::auth::TOKEN_FILE;
use crate::tls::Pinned;

/// Which server, how it is trusted, and where a token may lie.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: Url,
    pub(super) pin: Option<String>,
    pub(super) data: PathBuf,
}

/// How long a call may take that waits for hardware: longer than the server gives it.
const SLOW: Duration = Duration::from_secs(600);

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Get,
    Post,
    Put,
    Delete,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Token,
    pinned: Arc<Pinned>,
}

/// The token, or why there is none: said only when one is needed.
#[derive(Debug)]
enum Token {
    Have(SecretString),
    None(String),
}

/// The server has no such thing: its words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotThere(String);

/// The server refused, or failed: its words, and what came of each object where it tells that.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) items: Vec<Value>,
    said: String,
}

#[cfg(test)]
impl Refused {
    pub(super) fn of(status: u16, said: &str, items: Vec<Value>) -> Self {
        Self { status, items, said: said.to_owned() }
    }
}

/// Whether what was sent may have been done although there is no answer, or none that says so.
pub(super) fn may_be_done(error: &anyhow::Error) -> bool {
    let is_lost = |lost: &reqwest::Error| !lost.is_connect() && !lost.is_builder();
    error.downcast_ref::<reqwest::Error>().is_some_and(is_lost)
        || error.downcast_ref::<Refused>().is_some_and(|refused| refused.status >= 500)
        || error.is::<serde_json::Error>()
}

/// Whether an error says that there is no such thing on the server.
pub(super) fn is_not_there(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotThere>().is_some()
}

impl Client {
    pub(super) fn new(target: Target) -> anyhow::Result<Self> {
        let server = target.server;
        check_server(&server)?;
        let token = find_token(&target.data);
        let pinned = Pinned::new(target.pin);
        let tls = pinned.client_config().context("TLS cannot be set up")?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A proxy would see the token, and a redirect would carry it elsewhere.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("dragonfly/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, server, token, pinned })
    }

    pub(super) fn server(&self) -> &Url {
        &self.server
    }

    /// The certificates that the server showed, its own first.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.pinned.chain()
    }

    /// What opens the server.
    pub(super) fn token(&self) -> anyhow::Result<&SecretString> {
        match &self.token {
            Token::Have(token) => Ok(token),
            Token::None(why) => bail!("{why}"),
        }
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.request(Method::GET, url)?).await
    }

    pub(super) async fn text(&self, path: &[&str]) -> anyhow::Result<String> {
        let request = self.request(Method::GET, self.url(path)?)?;
        Ok(self.send(request.timeout(Duration::from_secs(60))).await?.text().await?)
    }

    pub(super) async fn post(&self, path: &[&str], body: &impl Serialize) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, self.url(path)?)?;
        self.json(request.json(body)).await
    }

    /// What is asked for stands in the query, and nothing in the body.
    pub(super) async fn post_with(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        self.json(self.request(Method::POST, url)?).await
    }

    /// A call that may take minutes, as those that wait for hardware do.
    pub(super) async fn slow(&self, call: Call, path: &[&str], body: Option<&Value>) -> anyhow::Result<Value> {
        let method = match call {
            Call::Get => Method::GET,
            Call::Post => Method::POST,
            Call::Put => Method::PUT,
            Call::Delete => Method::DELETE,
        };
        let mut request = self.request(method, self.url(path)?)?;
        if let Some(body) = body {
            request = request.json(body);
        } else if call == Call::Post {
            request = request.json(&serde_json::json!({}));
        }
        self.json_within(request, SLOW).await
    }

    pub(super) async fn post_text(&self, path: &[&str], body: String) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, self.url(path)?)?;
        self.json(request.header("content-type", "application/yaml").body(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        let request = self.request(Method::DELETE, self.url(path)?)?;
        self.json(request).await
    }

    /// An answer that does not end by itself.
    pub(super) async fn stream(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Response> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        self.send(self.request(Method::GET, url)?).await
    }

    /// The address of a path; each segment is escaped.
    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        // A segment that is none would leave the address of everything.
        if let Some(none) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            bail!("`{none}` is no name");
        }
        let mut url = self.server.clone();
        url.path_segments_mut().map_err(|()| anyhow!("{} cannot have a path", self.server))?.clear().extend(path);
        Ok(url)
    }

    fn request(&self, method: Method, url: Url) -> anyhow::Result<RequestBuilder> {
        Ok(self.http.request(method, url).bearer_auth(self.token()?.reveal()))
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        self.json_within(request, Duration::from_secs(60)).await
    }

    async fn json_within(&self, request: RequestBuilder, time: Duration) -> anyhow::Result<Value> {
        let response = self.send(request.timeout(time)).await?;
        let body = response.bytes().await.context("the answer broke off")?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).context("the answer is not JSON: is this a Dragonfly server?")
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unreachable(error)),
        };
        let status = response.status();
        if status.is_redirection() {
            bail!("{} wants TLS: use https:// and --pin", self.server);
        }
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(refused(status.as_u16(), &body));
        }
        Ok(response)
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let server = &self.server;
        // The address is told already, without what might stand in a query.
        let error = anyhow::Error::from(error.without_url());
        match self.pinned.seen() {
            Some(seen) => error.context(format!(
                "{server} is not trusted: its fingerprint is {seen}. Compare it with what the server prints at its \
                 start; if it is the same, give it with --pin or in DRAGONFLY_PIN"
            )),
            None => error.context(format!(
                "cannot reach {server}; is the server running there? Say where it is with --server or DRAGONFLY_SERVER"
            )),
        }
    }
}

fn refused(status: u16, body: &[u8]) -> anyhow::Error {
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = body.get_mut("items").map(Value::take);
    // A problem's `detail`, or `message` in Kubernetes' shapes.
    let said =
        ["detail", "message", "title"].into_iter().find_map(|field| body.get(field)?.as_str()).unwrap_or_default();
    match status {
        401 => anyhow!(
            "the server does not take this token; the right one is in the file {TOKEN_FILE} of its data directory: \
             name it with DRAGONFLY_TOKEN_FILE, or run as a user who may read it"
        ),
        404 if !said.is_empty() => anyhow::Error::new(NotThere(said.to_owned())),
        _ => {
            let silent = || format!("the server answered {status} and did not say why");
            let said = if said.is_empty() { silent() } else { said.to_owned() };
            let items = if let Some(Value::Array(items)) = items { items } else { Vec::new() };
            anyhow::Error::new(Refused { status, items, said })
        }
    }
}

fn check_server(server: &Url) -> anyhow::Result<()> {
    let local = match server.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => bail!("--server {server}: write http://127.0.0.1:3000 or https://HOST:3000"),
    };
    match server.scheme() {
        "https" => Ok(()),
        "http" if local => Ok(()),
        "http" => bail!("--server {server}: the token may leave this machine only over TLS; use https:// and --pin"),
        other => bail!("--server {server}: `{other}` is not spoken; use https://"),
    }
}

fn find_token(data: &Path) -> Token {
    match std::env::var_os("DRAGONFLY_TOKEN").map(|token| token.into_string().unwrap_or_else(|_| NOT_TEXT.to_owned())) {
        Some(token) if !token.trim().is_empty() => return token_in(&token, "DRAGONFLY_TOKEN"),
        _ => {}
    }
    let named = std::env::var_os("DRAGONFLY_TOKEN_FILE").map(PathBuf::from);
    let path = named.unwrap_or_else(|| data.join(TOKEN_FILE));
    match std::fs::read_to_string(&path) {
        Ok(token) => token_in(&token, &path.display().to_string()),
        Err(error) => Token::None(format!(
            "no token: {} cannot be read ({error}); set DRAGONFLY_TOKEN_FILE to the server's {TOKEN_FILE}, \
             --data to its data directory, or DRAGONFLY_TOKEN to the token",
            path.display()
        )),
    }
}

/// What stands for a value that is not even text: it is none of a token's characters.
const NOT_TEXT: &str = "\u{fffd}";

/// The token in a text, without the blanks around it. What is wrong with it is told, never the text.
fn token_in(text: &str, place: &str) -> Token {
    let token = text.trim();
    let lines = token.lines().count();
    let wrong = if token.is_empty() {
        "is empty".to_owned()
    } else if lines > 1 {
        format!("has {lines} lines")
    } else if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        "has blanks or other characters in it that no token has".to_owned()
    } else {
        return Token::Have(token.to_owned().into());
    };
    Token::None(format!("no token: {place} {wrong}; it is the one line of the server's {TOKEN_FILE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_leaves_only_over_tls_or_to_this_machine() {
        for good in ["http://127.0.0.1:3000", "http://localhost:1", "http://[::1]:3000", "https://rack.example"] {
            assert!(check_server(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1:3000", "http://rack.example", "ftp://127.0.0.1", "file:///x"] {
            assert!(check_server(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_address_is_that_of_everything() {
        let server = "http://127.0.0.1:1".parse().unwrap();
        let client = Client::new(Target { server, pin: None, data: "/nowhere".into() }).unwrap();
        assert_eq!(client.url(&["apis", "db-1"]).unwrap().path(), "/apis/db-1");
        for none in ["", ".", ".."] {
            assert!(client.url(&["apis", none]).unwrap_err().to_string().contains("is no name"), "{none:?}");
        }
    }

    #[test]
    fn a_token_is_one_word_and_what_is_none_is_not_shown() {
        for text in ["token-1", "token-1\n", " token-1\r\n\n"] {
            assert!(matches!(token_in(text, "f"), Token::Have(token) if token.reveal() == "token-1"), "{text:?}");
        }
        let table = [
            ("\n", "f is empty"),
            ("hunter2\nhunter3\n", "f has 2 lines"),
            ("hunter2 hunter3", "f has blanks"),
            ("hunter2\0", "f has blanks or other"),
            ("h\u{e4}nter", "f has blanks or other"),
            (NOT_TEXT, "f has blanks or other"),
        ];
        for (text, wanted) in table {
            let Token::None(said) = token_in(text, "f") else { panic!("{text:?}") };
            assert!(said.contains(wanted) && !said.contains("nter"), "{said}");
        }
    }

    #[test]
    fn says_what_the_server_said() {
        let said = |body: &str| refused(422, body.as_bytes()).to_string();
        assert_eq!(said(r#"{"status":422,"title":"t","detail":"d"}"#), "d");
        assert_eq!(said(r#"{"kind":"Status","message":"m","code":422,"status":"Failure"}"#), "m");
        assert!(said("gibberish").contains("422"));
    }
}
