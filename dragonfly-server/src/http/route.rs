//! The one way to add a route: with the word who may use it.
//!
//! A route cannot be added without an [`Access`], so none is open by oversight; the table that comes
//! out is what the tests go through and what the OpenAPI document is made from.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use http::Method;

use super::extract::Largest;
use super::{App, BODY_LIMIT, guard};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// A person: the admin token or a browser's session.
    Person,
    /// The same; a browser without a session is sent to sign in.
    Page,
    /// An agent that holds the token of its boot. The engine judges it.
    BootToken,
    /// An agent with a session.
    Agent,
    /// A signed link, an agent with a session, or a person.
    Image,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, as axum writes it: `/machines/{name}`.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// The largest body that it takes, in bytes.
    pub body: usize,
    /// What it does, in one line.
    pub about: &'static str,
}

/// The largest body that a route takes, by who may use it: what anybody can send is small.
fn body_limit(method: &Method, access: Access) -> usize {
    match (method, access) {
        (&Method::GET, _) => 0,
        // What Kubernetes' clients say beside it.
        (&Method::DELETE, Access::Person) => 64 * 1024,
        (&Method::DELETE, _) => 0,
        (_, Access::Open) => 4 * 1024,
        (_, Access::Page) => 64 * 1024,
        (_, Access::Person | Access::BootToken | Access::Agent | Access::Image) => BODY_LIMIT,
    }
}

/// Routes being added.
#[derive(Debug)]
pub(crate) struct Routes {
    app: App,
    router: Router<App>,
    table: Vec<Route>,
    /// Of the next route.
    at_most: Option<usize>,
}

impl Routes {
    pub(crate) fn new(app: App) -> Self {
        Self { app, router: Router::new(), table: Vec::new(), at_most: None }
    }

    /// The next route takes bodies of so many bytes, where its access would let it take more.
    pub(crate) fn at_most(self, bytes: usize) -> Self {
        Self { at_most: Some(bytes), ..self }
    }

    pub(crate) fn get<H, T>(self, path: &'static str, access: Access, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add((Method::GET, MethodFilter::GET), path, access, about, handler)
    }

    pub(crate) fn post<H, T>(self, path: &'static str, access: Access, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add((Method::POST, MethodFilter::POST), path, access, about, handler)
    }

    pub(crate) fn put<H, T>(self, path: &'static str, access: Access, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add((Method::PUT, MethodFilter::PUT), path, access, about, handler)
    }

    pub(crate) fn patch<H, T>(self, path: &'static str, access: Access, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add((Method::PATCH, MethodFilter::PATCH), path, access, about, handler)
    }

    pub(crate) fn delete<H, T>(self, path: &'static str, access: Access, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.add((Method::DELETE, MethodFilter::DELETE), path, access, about, handler)
    }

    fn add<H, T>(
        mut self,
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        access: Access,
        about: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let body = body_limit(&method, access).min(self.at_most.take().unwrap_or(usize::MAX));
        let guarded = on(filter, handler)
            .route_layer(from_fn_with_state((self.app.clone(), access), guard::admit))
            .route_layer(DefaultBodyLimit::max(body))
            .route_layer(Extension(Largest(body)));
        self.router = self.router.route(path, guarded);
        self.table.push(Route { method, path, access, body, about });
        self
    }

    pub(crate) fn done(self) -> (Router<App>, Vec<Route>) {
        (self.router, self.table)
    }
}
