//! What agents say: hello, work, report, log.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use dragonfly_core::resource::MAX_OBJECT_BYTES;
use dragonfly_core::wire::{Ask, BmcAccountReport, Heard, Hello, Orders, Report, Welcome};
use serde::Deserialize;

use super::App;
use super::extract::{Asked, Input, Whole};
use super::guard::Shown;
use super::problem::Problem;
use super::route::{Access, Routes};
use crate::listen::Connection;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/dragonfly/v1/agent/hello", Access::BootToken, "An agent says what machine it runs on", hello)
        .post("/dragonfly/v1/agent/work", Access::Agent, "An agent asks for work; waits up to 30 s", work)
        .post("/dragonfly/v1/agent/report", Access::Agent, "An agent says how far it has come", report)
        .post("/dragonfly/v1/agent/log", Access::Agent, "An agent ships its log, as text from an offset on", log)
        .post(
            "/dragonfly/v1/agent/bmc-account",
            Access::Agent,
            "An agent says what came of the account that it was to make on its machine's controller",
            bmc_account,
        )
        .get("/boot/phone-home/{capability}", Access::Open, "An installed system says that it is up", phone_home)
        .post("/boot/phone-home/{capability}", Access::Open, "The same, as cloud-init says it", phone_home)
}

/// What is sent along, as cloud-init does with host keys, is not read.
async fn phone_home(State(app): State<App>, Path(capability): Path<String>) -> Result<StatusCode, Problem> {
    app.engine.phone_home(&capability).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn hello(
    State(app): State<App>,
    about: Connection,
    Extension(Shown(token)): Extension<Shown>,
    Input(hello): Input<Hello>,
) -> Result<Json<Welcome>, Problem> {
    Ok(Json(app.engine.hello(token.reveal(), hello, about.peer.ip()).await?))
}

async fn work(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Input(ask): Input<Ask>,
) -> Result<Json<Orders>, Problem> {
    // A long wait ends with the server: the agent asks its successor.
    tokio::select! {
        orders = app.engine.work(session.reveal(), ask) => Ok(Json(orders?)),
        () = app.stop.cancelled() => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping; ask again"))
        }
    }
}

async fn report(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Input(report): Input<Report>,
) -> Result<Json<Heard>, Problem> {
    Ok(Json(app.engine.report(session.reveal(), report).await?))
}

async fn bmc_account(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Input(report): Input<BmcAccountReport>,
) -> Result<Json<Heard>, Problem> {
    Ok(Json(app.engine.bmc_account(session.reveal(), report).await?))
}

#[derive(Debug, Deserialize)]
struct Offset {
    offset: u64,
}

async fn log(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Asked(Offset { offset }): Asked<Offset>,
    Whole(bytes): Whole,
) -> Result<StatusCode, Problem> {
    app.engine.log(session.reveal(), offset, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

const _: () = assert!(super::BODY_LIMIT >= MAX_OBJECT_BYTES, "an agent's inventory fits into a body");
