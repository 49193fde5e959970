//! What may come in by which way: plain HTTP is for firmware, names are ours.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::App;
use super::problem::Problem;
use crate::listen::Connection;

/// Refuses foreign host names and sends plain HTTP to TLS where it must be.
pub(crate) async fn admit(State(app): State<App>, about: Connection, request: Request, next: Next) -> Response {
    if is_for_firmware(request.uri().path()) {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    if !is_ours(&host, &app.names) {
        let detail = format!(
            "this server does not answer to the name `{}`; use its address, or add the name with --names",
            host.chars().take(100).collect::<String>()
        );
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    if !about.tls && !about.peer.ip().is_loopback() {
        return match secure(&host, request.uri()) {
            Some(target) => Redirect::permanent(&target).into_response(),
            None => Problem::bad_request("only TLS here: use https").into_response(),
        };
    }
    next.run(request).await
}

/// Firmware speaks plain HTTP and by whatever name it was given; these routes look at no cookie.
fn is_for_firmware(path: &str) -> bool {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    under("/boot") || under("/images") || path == "/healthz" || path == "/readyz"
}

fn secure(host: &str, uri: &Uri) -> Option<String> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    // Built from parts that were parsed, so that no header can be smuggled into the answer.
    Uri::builder().scheme("https").authority(host).path_and_query(path).build().ok().map(|uri| uri.to_string())
}

/// Whether a Host header names this server.
///
/// DNS rebinding needs a *name* that an attacker can point at us; an address in the header cannot be
/// rebound, so any is taken, also one that stands before a port forward.
fn is_ours(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_its_own_names_only() {
        let names = ["rack.example".to_owned()];
        for good in ["127.0.0.1:3000", "10.0.0.1", "[::1]:3000", "localhost:3000", "LOCALHOST", "Rack.Example:3000"] {
            assert!(is_ours(good, &names), "{good}");
        }
        for bad in
            ["evil.example", "evil.example:3000", "", "rack.example.evil.example", "a b", "127.0.0.1.evil.example"]
        {
            assert!(!is_ours(bad, &names), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_firmware() {
        for open in ["/boot/52:54:00:00:00:01", "/boot", "/images/a/b", "/healthz", "/readyz"] {
            assert!(is_for_firmware(open), "{open}");
        }
        for closed in ["/", "/bootx", "/dragonfly/v1/agent/hello", "/healthz/x", "/login", "/metrics"] {
            assert!(!is_for_firmware(closed), "{closed}");
        }
    }

    #[test]
    fn redirects_to_the_same_place_with_tls() {
        let target = secure("10.0.0.1:3000", &"/machines/a?b=c".parse().unwrap());
        assert_eq!(target.as_deref(), Some("https://10.0.0.1:3000/machines/a?b=c"));
    }
}
