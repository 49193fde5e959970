//! What may come in by which way: plain HTTP is for firmware, names are ours.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::App;
use super::problem::Problem;
use crate::listen::Connection;

/// Refuses foreign host names and sends plain HTTP to TLS where it must be.
pub(crate) async fn admit(State(app): State<App>, about: Connection, mut request: Request, next: Next) -> Response {
    let firmware = is_for_firmware(request.uri().path());
    let host = match asked(request.uri(), request.headers()) {
        Ok(Some(host)) => host,
        Ok(None) if firmware => return next.run(request).await,
        Ok(None) => return Problem::bad_request("the request has no Host header").into_response(),
        Err(problem) => return Problem::bad_request(problem).into_response(),
    };
    // Whoever looks at it later sees what was judged here.
    if let Ok(host) = HeaderValue::try_from(&host) {
        request.headers_mut().insert(header::HOST, host);
    }
    if firmware {
        return next.run(request).await;
    }
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

/// Which host was asked (RFC 9112 section 3.2): what the request's target says counts more than the one Host header.
fn asked(target: &Uri, headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err("the request has more than one Host header");
    }
    let header = header.map(|value| value.to_str().map_err(|_| "the Host header names no host")).transpose()?;
    let host = match target.authority() {
        Some(authority) => Some(authority.as_str()),
        None => header,
    };
    match host {
        // A user name has no place in it, and what stands before it is easily taken for the host.
        Some(host) if host.contains('@') => Err("the host that the request names has a user name in it"),
        host => Ok(host.map(str::to_owned)),
    }
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
    fn the_target_counts_more_than_the_one_header() {
        let hosts = |all: &[&'static str]| {
            all.iter().map(|host| (header::HOST, HeaderValue::from_static(host))).collect::<HeaderMap>()
        };
        let here = Ok(Some("127.0.0.1:3000".to_owned()));
        for (target, headers, want) in [
            ("/", &["127.0.0.1:3000"][..], here.clone()),
            ("/", &[], Ok(None)),
            ("/", &[""], Ok(Some(String::new()))),
            ("http://127.0.0.1:3000/", &["evil.example"], here.clone()),
            ("http://127.0.0.1:3000/", &[], here),
            ("http://evil.example/", &["127.0.0.1:3000"], Ok(Some("evil.example".to_owned()))),
        ] {
            assert_eq!(asked(&target.parse().unwrap(), &hosts(headers)), want, "{target} {headers:?}");
        }
        for (target, headers) in [
            ("/", &["127.0.0.1", "127.0.0.1"][..]),
            ("/", &["127.0.0.1", "evil.example"]),
            ("http://127.0.0.1/", &["127.0.0.1", "127.0.0.1"]),
            ("/", &["evil.example@127.0.0.1"]),
            ("http://evil.example@127.0.0.1/", &["127.0.0.1"]),
        ] {
            assert!(asked(&target.parse().unwrap(), &hosts(headers)).is_err(), "{target} {headers:?}");
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
