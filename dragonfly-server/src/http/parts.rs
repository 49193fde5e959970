//! What a machine's controller knows of its parts, and what it gives the machine to boot from.

use axum::Json;
use dragonfly_core::inventory::{Difference, Inventory};
use dragonfly_core::power::{FirmwareVersion, Operation, Outcome};
use dragonfly_core::resource::HardwareSpec;
use serde::{Deserialize, Serialize};
use url::Url;

use super::controller::{Controller, unexpected};
use super::extract::Input;
use super::power::Items;
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

async fn media(controller: Controller) -> Result<Json<Medium>, Problem> {
    medium(controller.carry_out(Operation::Media).await?)
}

async fn insert(controller: Controller, Input(Insert { image }, ..): Input<Insert>) -> Result<Json<Medium>, Problem> {
    medium(controller.carry_out(Operation::InsertMedia(image)).await?)
}

async fn eject(controller: Controller) -> Result<Json<Medium>, Problem> {
    medium(controller.carry_out(Operation::EjectMedia).await?)
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

async fn http_boot(controller: Controller) -> Result<Json<Booted>, Problem> {
    booted(controller.carry_out(Operation::HttpBoot).await?)
}

async fn set_http_boot(
    controller: Controller,
    Input(BootFrom { uri }, ..): Input<BootFrom>,
) -> Result<Json<Booted>, Problem> {
    booted(controller.carry_out(Operation::SetHttpBoot(Some(uri))).await?)
}

async fn clear_http_boot(controller: Controller) -> Result<Json<Booted>, Problem> {
    booted(controller.carry_out(Operation::SetHttpBoot(None)).await?)
}

/// A machine's hardware by its controller's words.
#[derive(Debug, Serialize)]
pub(super) struct Hardware {
    pub(super) inventory: Inventory,
    /// Where its agent saw something else.
    pub(super) differences: Vec<Difference>,
}

impl Controller {
    /// What it tells of the machine's hardware, beside what the agent saw.
    pub(super) async fn inventory(&self) -> Result<Hardware, Problem> {
        let machine = self.app.engine.resolve(&self.name)?;
        let Outcome::Inventory(inventory) = self.carry_out(Operation::Inventory).await? else {
            return Err(unexpected());
        };
        let machine = self.app.engine.cache().get::<HardwareSpec>(&machine);
        let seen = machine.and_then(|machine| machine.status.inventory.clone());
        let differences = seen.map(|seen| inventory.differences(&seen)).unwrap_or_default();
        Ok(Hardware { inventory: *inventory, differences })
    }

    /// What it tells of the versions of firmware.
    pub(super) async fn firmware(&self) -> Result<Vec<FirmwareVersion>, Problem> {
        match self.carry_out(Operation::Firmware).await? {
            Outcome::Firmware(items) => Ok(items),
            _ => Err(unexpected()),
        }
    }
}

async fn inventory(controller: Controller) -> Result<Json<Hardware>, Problem> {
    Ok(Json(controller.inventory().await?))
}

async fn firmware(controller: Controller) -> Result<Json<Items<FirmwareVersion>>, Problem> {
    Ok(Json(Items { items: controller.firmware().await? }))
}
