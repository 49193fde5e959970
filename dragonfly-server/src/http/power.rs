//! Machines' power and their controllers.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use dragonfly_core::engine::{BmcRequest, BmcTested};
use dragonfly_core::power::{BootDevice, BootMode, BootOverride, LoggedEvent, Operation, Outcome, PowerState, Sensor};
use serde::{Deserialize, Serialize};

use super::controller::{Controller, unexpected};
use super::extract::{Asked, Input};
use super::problem::Problem;
use super::route::{Access, Routes};

/// The most entries of a controller's event log that are read at one time.
const MOST_EVENTS: usize = 1000;

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    routes
        .get("/dragonfly/v1/machines/{name}/power", Person, "Ask its controller whether it is on", status)
        .post(
            "/dragonfly/v1/machines/{name}/power",
            Person,
            "Switch it: on, off, soft, cycle, reset, network-boot; answers when that is done",
            switch,
        )
        .get(
            "/dragonfly/v1/machines/{name}/boot-device",
            Person,
            "What it boots from, says its controller",
            boot_device,
        )
        .put("/dragonfly/v1/machines/{name}/boot-device", Person, "Set what it boots from", set_boot_device)
        .delete(
            "/dragonfly/v1/machines/{name}/boot-device",
            Person,
            "Let its firmware boot as it likes",
            clear_boot_device,
        )
        .post("/dragonfly/v1/machines/{name}/identify", Person, "Light its lamp for a while, or put it out", identify)
        .put("/dragonfly/v1/machines/{name}/bmc", Person, "Say where its controller is and who logs in", set_bmc)
        .delete("/dragonfly/v1/machines/{name}/bmc", Person, "It has no controller any more", remove_bmc)
        .post(
            "/dragonfly/v1/machines/{name}/bmc/account",
            Person,
            "Let its agent make an account on its controller again, after that was taken away",
            allow_account,
        )
        .post("/dragonfly/v1/machines/{name}/bmc/test", Person, "Log in to its controller, see what it can do", test)
        .get("/dragonfly/v1/machines/{name}/bmc/sensors", Person, "What its controller measures", sensors)
        .get("/dragonfly/v1/machines/{name}/bmc/events", Person, "The end of its controller's event log", events)
}

/// What a person can have done, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Switch {
    On,
    Off,
    Soft,
    Cycle,
    Reset,
    NetworkBoot,
}

impl Switch {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::On => Operation::On,
            Self::Off => Operation::Off,
            Self::Soft => Operation::SoftOff,
            Self::Cycle => Operation::Cycle,
            Self::Reset => Operation::Reset,
            Self::NetworkBoot => Operation::NetworkBoot(None),
        }
    }
}

#[derive(Debug, Serialize)]
struct Power {
    power: PowerState,
}

async fn status(controller: Controller) -> Result<Json<Power>, Problem> {
    match controller.carry_out(Operation::Status).await? {
        Outcome::State(power) => Ok(Json(Power { power })),
        _ => Err(unexpected()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    operation: Switch,
}

#[derive(Debug, Serialize)]
struct Done {
    operation: &'static str,
    /// Whether that was seen. A controller that cannot tell was told, and nobody knows more.
    seen: bool,
}

async fn switch(controller: Controller, Input(Wanted { operation }, ..): Input<Wanted>) -> Result<Json<Done>, Problem> {
    let operation = operation.operation();
    let word = operation.word();
    let outcome = controller.carry_out(operation).await?;
    Ok(Json(Done { operation: word, seen: outcome == Outcome::Done }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Boots {
    /// What is set; null when firmware boots as it likes, or over HTTP.
    boot: Option<BootOverride>,
    /// The address that it boots from over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
}

fn boots(outcome: Outcome) -> Result<Json<Boots>, Problem> {
    match outcome {
        Outcome::Boot(boot) => Ok(Json(Boots { boot, uri: None })),
        Outcome::Image(uri) => Ok(Json(Boots { boot: None, uri })),
        _ => Err(unexpected()),
    }
}

async fn boot_device(controller: Controller) -> Result<Json<Boots>, Problem> {
    boots(controller.carry_out(Operation::NextBoot).await?)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BootWanted {
    device: BootDevice,
    #[serde(default)]
    persistent: bool,
    #[serde(default)]
    mode: Option<BootMode>,
}

async fn set_boot_device(
    controller: Controller,
    Input(BootWanted { device, persistent, mode }, ..): Input<BootWanted>,
) -> Result<Json<Boots>, Problem> {
    let boot = BootOverride { device, persistent, mode };
    boots(controller.carry_out(Operation::SetNextBoot(Some(boot))).await?)
}

async fn clear_boot_device(controller: Controller) -> Result<Json<Boots>, Problem> {
    boots(controller.carry_out(Operation::SetNextBoot(None)).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lamp {
    /// How long it is lit; 0 puts it out.
    #[serde(default = "quarter")]
    seconds: u8,
}

fn quarter() -> u8 {
    15
}

async fn identify(controller: Controller, Input(Lamp { seconds }, ..): Input<Lamp>) -> Result<StatusCode, Problem> {
    let lit = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    controller.carry_out(Operation::Identify(lit)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_bmc(controller: Controller, Input(request, ..): Input<BmcRequest>) -> Result<StatusCode, Problem> {
    let Controller { app, name, by } = controller;
    app.engine.set_bmc(&name, request, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_bmc(controller: Controller) -> Result<StatusCode, Problem> {
    let Controller { app, name, by } = controller;
    app.engine.remove_bmc(&name, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn allow_account(controller: Controller) -> Result<StatusCode, Problem> {
    let Controller { app, name, by } = controller;
    app.engine.allow_bmc_account(&name, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn test(controller: Controller) -> Result<Json<BmcTested>, Problem> {
    Ok(Json(controller.app.engine.test_bmc(&controller.name, &controller.by).await?))
}

#[derive(Debug, Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

async fn sensors(controller: Controller) -> Result<Json<Items<Sensor>>, Problem> {
    match controller.carry_out(Operation::Sensors).await? {
        Outcome::Sensors(items) => Ok(Json(Items { items })),
        _ => Err(unexpected()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Most {
    #[serde(default)]
    limit: Option<usize>,
}

async fn events(
    controller: Controller,
    Asked(Most { limit }): Asked<Most>,
) -> Result<Json<Items<LoggedEvent>>, Problem> {
    let most = limit.unwrap_or(50).clamp(1, MOST_EVENTS);
    match controller.carry_out(Operation::Events(most)).await? {
        Outcome::Events(items) => Ok(Json(Items { items })),
        _ => Err(unexpected()),
    }
}
