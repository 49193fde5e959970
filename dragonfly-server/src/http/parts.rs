//! What a machine's controller knows of its parts, and what it gives the machine to boot from.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use dragonfly_core::inventory::{Difference, Inventory};
use dragonfly_core::power::{FirmwareVersion, Operation, Outcome};
use dragonfly_core::resource::HardwareSpec;
use serde::{Deserialize, Serialize};
use url::Url;

use super::App;
use super::extract::Input;
use super::guard::Caller;
use super::power::{Items, carry_out, unexpected};
use super::problem::Problem;
use super::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    routes
        .get("/dragonfly/v1/machines/{name}/bmc/media", Person, "What is in its controller's virtual drive", media)
        .put(
            "/dragonfly/v1/machines/{name}/bmc/media",
            Person,
            "Put an image into its controller's virtual drive",
            insert,
        )
        .delete(
            "/dragonfly/v1/machines/{name}/bmc/media",
            Person,
            "Take the image out of its controller's virtual drive",
            eject,
        )
        .get(
            "/dragonfly/v1/machines/{name}/http-boot",
            Person,
            "The address that it boots from over HTTP, says its controller",
            http_boot,
        )
        .put(
            "/dragonfly/v1/machines/{name}/http-boot",
            Person,
            "Boot it from this address over UEFI HTTP at its next boot",
            set_http_boot,
        )
        .delete("/dragonfly/v1/machines/{name}/http-boot", Person, "Do not boot it over HTTP", clear_http_boot)
        .get(
            "/dragonfly/v1/machines/{name}/bmc/inventory",
            Person,
            "Its hardware as its controller tells it, and where its agent saw something else",
            inventory,
        )
        .get("/dragonfly/v1/machines/{name}/bmc/firmware", Person, "Its parts' firmware versions", firmware)
}

#[derive(Debug, Serialize)]
struct Medium {
    /// As the controller writes it; null when its drive is empty.
    image: Option<String>,
}

fn medium(outcome: Outcome) -> Result<Json<Medium>, Problem> {
    match outcome {
        Outcome::Image(image) => Ok(Json(Medium { image })),
        Outcome::Done => Ok(Json(Medium { image: None })),
        _ => Err(unexpected()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Insert {
    image: Url,
}

async fn media(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Medium>, Problem> {
    medium(carry_out(&app, name, Operation::Media, caller.by).await?)
}

async fn insert(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(Insert { image }): Input<Insert>,
) -> Result<Json<Medium>, Problem> {
    medium(carry_out(&app, name, Operation::InsertMedia(image), caller.by).await?)
}

async fn eject(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Medium>, Problem> {
    medium(carry_out(&app, name, Operation::EjectMedia, caller.by).await?)
}

#[derive(Debug, Serialize)]
struct Booted {
    /// As the controller writes it; null when it does not boot over HTTP.
    uri: Option<String>,
}

fn booted(outcome: Outcome) -> Result<Json<Booted>, Problem> {
    match outcome {
        Outcome::Image(uri) => Ok(Json(Booted { uri })),
        _ => Err(unexpected()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootFrom {
    uri: Url,
}

async fn http_boot(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Booted>, Problem> {
    booted(carry_out(&app, name, Operation::HttpBoot, caller.by).await?)
}

async fn set_http_boot(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(BootFrom { uri }): Input<BootFrom>,
) -> Result<Json<Booted>, Problem> {
    booted(carry_out(&app, name, Operation::SetHttpBoot(Some(uri)), caller.by).await?)
}

async fn clear_http_boot(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Booted>, Problem> {
    booted(carry_out(&app, name, Operation::SetHttpBoot(None), caller.by).await?)
}

/// A machine's hardware by its controller's words.
#[derive(Debug, Serialize)]
pub(super) struct Hardware {
    pub(super) inventory: Inventory,
    /// Where its agent saw something else.
    pub(super) differences: Vec<Difference>,
}

/// Asks a machine's controller, and lays its answer beside what the agent saw.
pub(super) async fn ask_inventory(app: &App, name: String, by: String) -> Result<Hardware, Problem> {
    let machine = app.engine.resolve(&name)?;
    let Outcome::Inventory(inventory) = carry_out(app, name, Operation::Inventory, by).await? else {
        return Err(unexpected());
    };
    let seen = app.engine.cache().get::<HardwareSpec>(&machine).and_then(|machine| machine.status.inventory.clone());
    let differences = seen.map(|seen| inventory.differences(&seen)).unwrap_or_default();
    Ok(Hardware { inventory: *inventory, differences })
}

async fn inventory(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Hardware>, Problem> {
    Ok(Json(ask_inventory(&app, name, caller.by).await?))
}

/// Asks a machine's controller.
pub(super) async fn ask_firmware(app: &App, name: String, by: String) -> Result<Vec<FirmwareVersion>, Problem> {
    match carry_out(app, name, Operation::Firmware, by).await? {
        Outcome::Firmware(items) => Ok(items),
        _ => Err(unexpected()),
    }
}

async fn firmware(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Items<FirmwareVersion>>, Problem> {
    Ok(Json(Items { items: ask_firmware(&app, name, caller.by).await? }))
}
