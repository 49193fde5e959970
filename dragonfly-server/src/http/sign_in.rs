//! Signing a browser in and out.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::App;
use super::extract::{Asked, Whole};
use super::guard::{self, Caller};
use super::problem::Problem;
use super::route::{Access, Routes};
use crate::auth::{COOKIE, LINK_LIFE, SESSION_LIFE};
use crate::listen::Connection;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/login", Access::Open, "The sign-in page; `?once=` is a one-time link", page)
        .post("/login", Access::Open, "Sign a browser in with the token", sign_in)
        .post("/logout", Access::Page, "Sign a browser out", sign_out)
        .post("/dragonfly/v1/login-link", Access::Person, "A one-time sign-in link, as a path", link)
}

#[derive(Debug, Template)]
#[template(path = "login.html")]
struct LoginPage {
    problem: Option<&'static str>,
}

#[derive(Debug, Template)]
#[template(path = "signed_in.html")]
struct SignedInPage;

#[derive(Debug, Default, Deserialize)]
struct Once {
    once: Option<String>,
}

async fn page(
    State(app): State<App>,
    about: Connection,
    method: Method,
    headers: HeaderMap,
    Asked(Once { once }): Asked<Once>,
) -> Response {
    match once {
        // Whoever only looks what is there, as a chat program does for a preview, neither uses a link up nor learns
        // whether it holds.
        Some(_) if method == Method::HEAD => login_page(StatusCode::OK, None),
        Some(token) if app.auth.use_link(&token) => {
            tracing::info!(peer = %about.peer.ip(), "a browser signed in by a link");
            signed_in(&app, about)
        }
        Some(_) => {
            tracing::warn!(peer = %about.peer.ip(), "a sign-in link was refused");
            let problem =
                "This link has been used or is too old. Paste the token, or ask for a new link: dragonfly login";
            login_page(StatusCode::UNAUTHORIZED, Some(problem))
        }
        None if guard::cookie(&headers).is_some_and(|c| app.auth.is_session(c)) => Redirect::to("/").into_response(),
        None => login_page(StatusCode::OK, None),
    }
}

async fn sign_in(State(app): State<App>, about: Connection, headers: HeaderMap, Whole(body): Whole) -> Response {
    // A foreign page must not be able to sign a browser in as somebody else.
    if !guard::same_origin(&headers) {
        return login_page(StatusCode::FORBIDDEN, Some("Sign in from this page."));
    }
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    if token.is_some_and(|(_, token)| app.auth.is_admin(token.trim())) {
        tracing::info!(peer = %about.peer.ip(), "a browser signed in by the token");
        return signed_in(&app, about);
    }
    tracing::warn!(peer = %about.peer.ip(), "a sign-in was refused");
    login_page(
        StatusCode::UNAUTHORIZED,
        Some("This is not the token. It is in the file admin.token of the server's data directory."),
    )
}

fn login_page(status: StatusCode, problem: Option<&'static str>) -> Response {
    super::ui::page(status, &LoginPage { problem })
}

/// A page and not a redirect: a browser that came by a link from elsewhere does not send a Strict
/// cookie along a redirect, but does when our own page leads it on.
fn signed_in(app: &App, about: Connection) -> Response {
    let Some(session) = app.auth.new_session() else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers").into_response();
    };
    let mut response = super::ui::page(StatusCode::OK, &SignedInPage);
    set_cookie(&mut response, session.reveal(), SESSION_LIFE.as_secs(), about.tls);
    response
}

fn set_cookie(response: &mut Response, value: &str, seconds: u64, tls: bool) {
    let secure = if tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    // Our own characters only: it is always a legal header.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

async fn sign_out(State(app): State<App>, about: Connection, headers: HeaderMap) -> Response {
    let cookie = guard::cookie(&headers).unwrap_or_default().to_owned();
    let auth = Arc::clone(&app.auth);
    let ended = tokio::task::spawn_blocking(move || auth.end_session(&cookie)).await;
    let mut response = match ended.unwrap_or_else(|error| Err(error.into())) {
        Ok(()) => Redirect::to("/login").into_response(),
        Err(error) => {
            tracing::error!(%error, "a browser was signed out, and this could not be written down");
            let words = "You are signed out, but the server could not write that down (its log says why): if it is started \
                         again within 12 hours, a copy of your cookie is good again. A new admin.token signs everybody out.";
            login_page(StatusCode::INTERNAL_SERVER_ERROR, Some(words))
        }
    };
    set_cookie(&mut response, "", 0, about.tls);
    response
}

async fn link(State(app): State<App>, Extension(caller): Extension<Caller>) -> Result<Json<Value>, Problem> {
    let token = app.auth.new_link();
    let token =
        token.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers"))?;
    tracing::info!(by = caller.by, "made a sign-in link");
    Ok(Json(json!({ "path": format!("/login?once={}", token.reveal()), "seconds": LINK_LIFE.as_secs() })))
}
