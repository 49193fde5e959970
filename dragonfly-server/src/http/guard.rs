//! Who may come in: judged per route, before any handler runs.

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use dragonfly_core::engine::EngineError;
use dragonfly_core::secret::SecretString;

use super::App;
use super::extract::Largest;
use super::problem::Problem;
use super::route::Access;
use crate::auth::{COOKIE, ImageLink};

/// How much is read of a hello without a boot token, in bytes: enough to learn which machine it names.
const STRANGERS_HELLO: usize = 32 * 1024;

/// Who a person is, for handlers and the record of what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For the record: who did it.
    pub(crate) by: String,
}

/// What an agent showed, for handlers that pass it on to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Shown(pub(crate) SecretString);

/// Lets a request through to its handler, or answers it.
pub(crate) async fn admit(
    State((app, access)): State<(App, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Response> {
    match access {
        Access::Open => {}
        Access::Person | Access::Page => match person(&app, &request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(refusal) => return Err(refuse(access, &request, refusal)),
        },
        Access::BootToken => {
            // Without one it goes on to the engine all the same, which refuses it and notes for which machine.
            let shown = bearer(request.headers()).unwrap_or_default().to_owned();
            if !app.engine.is_boot_token(&shown) {
                DefaultBodyLimit::max(STRANGERS_HELLO).apply(&mut request);
                request.extensions_mut().insert(Largest(STRANGERS_HELLO));
            }
            request.extensions_mut().insert(Shown(shown.into()));
        }
        Access::Agent => {
            let shown = bearer(request.headers()).ok_or_else(|| agent_needs("its session"))?.to_owned();
            app.engine.session_machine(&shown).await.map_err(|e| Problem::from(e).into_response())?;
            request.extensions_mut().insert(Shown(shown.into()));
        }
        Access::Image => {
            let uri = request.uri();
            let link = app.auth.judge(uri.path(), uri.query().unwrap_or_default());
            // A transfer may take longer than its link holds: beside an agent's session an old one opens its image still. The
            // session alone opens none: whoever may register a machine has one, and a run's links are its own machine's.
            let agent = match bearer(request.headers()).map(str::to_owned) {
                Some(shown) if link == ImageLink::Over => match app.engine.session_machine(&shown).await {
                    Ok(_) => true,
                    Err(EngineError::Unauthenticated { .. }) => false,
                    // Not that it may not, but that this cannot be known now: an agent comes again.
                    Err(error) => return Err(Problem::from(error).into_response()),
                },
                _ => false,
            };
            if link != ImageLink::Holds && !agent {
                person(&app, &request).map_err(|refusal| refuse(access, &request, refusal))?;
            }
        }
    }
    Ok(next.run(request).await)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Nobody,
    Agent,
    CrossSite,
}

fn refuse(access: Access, request: &Request, refusal: Refusal) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    match refusal {
        Refusal::Nobody if access == Access::Page && safe => Redirect::to("/login").into_response(),
        Refusal::Nobody => Problem::unauthenticated().into_response(),
        Refusal::Agent => {
            Problem::new(StatusCode::FORBIDDEN, "an agent's session opens the agent's own routes only").into_response()
        }
        Refusal::CrossSite => Problem::new(
            StatusCode::FORBIDDEN,
            "a browser may change something only from this server's own pages; programs use the token as a bearer",
        )
        .into_response(),
    }
}

fn agent_needs(what: &str) -> Response {
    let mut problem = Problem::unauthenticated();
    problem.detail = format!("an agent shows {what} as `Authorization: Bearer ...`");
    problem.into_response()
}

fn person(app: &App, request: &Request) -> Result<Caller, Refusal> {
    let headers = request.headers();
    // A bearer that does not hold is never made good by a cookie beside it.
    if let Some(token) = bearer(headers) {
        if app.auth.is_admin(token) {
            return Ok(Caller { by: "admin".to_owned() });
        }
        let agent = app.engine.is_session(token);
        return Err(if agent { Refusal::Agent } else { Refusal::Nobody });
    }
    let Some(cookie) = cookie(headers) else { return Err(Refusal::Nobody) };
    if !app.auth.is_session(cookie) {
        return Err(Refusal::Nobody);
    }
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe && !same_origin(headers) {
        return Err(Refusal::CrossSite);
    }
    Ok(Caller { by: "admin (browser)".to_owned() })
}

/// The bearer token, if one is shown.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The session cookie, if one is shown.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// Whether a request that changes something comes from a page of this very server.
///
/// Browsers say so in `Sec-Fetch-Site`; older ones send `Origin`, whose host and port must then be
/// those that were asked. A request with neither is refused.
pub(crate) fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (header::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[test]
    fn only_our_own_pages_may_change_something() {
        let table: &[(&[(&'static str, &str)], bool)] = &[
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://127.0.0.1:3000"), ("host", "127.0.0.1:3000")], true),
            (&[("origin", "http://127.0.0.1:3001"), ("host", "127.0.0.1:3000")], false),
            (&[("origin", "https://evil.example"), ("host", "127.0.0.1:3000")], false),
            (&[("origin", "null"), ("host", "127.0.0.1:3000")], false),
            (&[("host", "127.0.0.1:3000")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")], false),
        ];
        for (pairs, want) in table {
            assert_eq!(same_origin(&headers(pairs)), *want, "{pairs:?}");
        }
    }

    #[test]
    fn finds_the_cookie_among_others() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; dragonfly_session=x.y; c=d")])), Some("x.y"));
        assert_eq!(cookie(&headers(&[("cookie", "xdragonfly_session=x")])), None);
    }

    #[test]
    fn reads_a_bearer() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
    }
}
