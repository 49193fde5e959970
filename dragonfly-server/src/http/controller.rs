//! The machine that a route names, whose controller is to be asked.

use axum::Extension;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use dragonfly_core::power::{Operation, Outcome};

use super::App;
use super::guard::Caller;
use super::problem::Problem;

/// A machine's controller, and who asks it.
pub(super) struct Controller {
    pub(super) app: App,
    /// As the route has it.
    pub(super) name: String,
    pub(super) by: String,
}

impl Controller {
    /// Carries an operation out to its end, also when whoever asked has gone: half an operation helps nobody.
    pub(super) async fn carry_out(&self, operation: Operation) -> Result<Outcome, Problem> {
        let (engine, name, by) = (self.app.engine.clone(), self.name.clone(), self.by.clone());
        let done = tokio::spawn(async move { engine.power(&name, operation, &by).await }).await;
        Ok(done.map_err(|error| Problem::internal(&error))??)
    }
}

/// From a route with `{name}` that a person calls.
impl FromRequestParts<App> for Controller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let name = Path::from_request_parts(parts, app).await;
        let Path(name) = name.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        let caller = Extension::<Caller>::from_request_parts(parts, app).await;
        let Extension(caller) = caller.map_err(|error| Problem::internal(&error))?;
        Ok(Self { app: app.clone(), name, by: caller.by })
    }
}

pub(super) fn unexpected() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "its controller answered something else than it was asked")
}
