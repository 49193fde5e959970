//! What a machine's controller knows, asked when somebody wants to see it.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::inventory::{Bytes, Inventory, MegabitsPerSecond};
use dragonfly_core::power::{FirmwareVersion, Operation, Outcome};
use dragonfly_core::resource::HardwareSpec;

use super::{machine, page, problem};
use crate::http::App;
use crate::http::controller::{Controller, unexpected};
use crate::http::guard::Caller;
use crate::http::parts::Hardware;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};
use crate::view;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/machines/{name}/controller/{verb}",
            Access::Page,
            "What a machine's controller knows, as a page: inventory, firmware, media",
            whole,
        )
        .get(
            "/fragments/machines/{name}/controller/{verb}",
            Access::Page,
            "The same as a part of the machine's page",
            fragment,
        )
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Inventory,
    Firmware,
    Media,
}

impl Question {
    fn read(word: &str) -> Result<Self, Problem> {
        match word {
            "inventory" => Ok(Self::Inventory),
            "firmware" => Ok(Self::Firmware),
            "media" => Ok(Self::Media),
            _ => Err(Problem::not_found(format!("`{word}` is nothing that a controller is asked here"))),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Inventory => "Hardware by its controller",
            Self::Firmware => "Firmware",
            Self::Media => "Virtual media",
        }
    }
}

#[derive(Debug)]
enum Answer {
    Inventory(Box<Hardware>),
    Firmware(Vec<FirmwareVersion>),
    Media(Option<String>),
    Failed(String),
}

#[derive(Debug, Template)]
#[template(path = "said.html")]
struct Said {
    name: String,
    question: Question,
    answer: Answer,
    facts: Vec<(&'static str, String)>,
}

impl Said {
    fn title(&self) -> &'static str {
        self.question.title()
    }
}

#[derive(Debug, Template)]
#[template(path = "controller.html")]
struct ControllerPage {
    name: String,
    display_name: String,
    address: String,
    said: Said,
}

fn size(size: &Bytes) -> String {
    view::bytes(size.0)
}

fn disk_size(size: &Bytes) -> String {
    view::disk_size(size.0)
}

fn speed(speed: &MegabitsPerSecond) -> String {
    machine::speed(speed)
}

/// The machine as a whole, in the order of interest.
fn facts(seen: &Inventory) -> Vec<(&'static str, String)> {
    let count = |count: Option<u32>| count.map(|count| count.to_string());
    let all = [
        ("Vendor", seen.system.vendor.clone()),
        ("Product", seen.system.product.clone()),
        ("Serial", seen.system.serial.clone()),
        ("UUID", seen.system.uuid.map(|uuid| uuid.to_string())),
        ("Firmware", seen.system.bios.clone()),
        ("CPU", seen.cpu.model.clone()),
        ("Sockets", count(seen.cpu.sockets)),
        ("Cores", count(seen.cpu.cores)),
        ("Threads", count(seen.cpu.threads)),
        ("Memory", seen.memory.total.map(|total| view::bytes(total.0))),
    ];
    all.into_iter().filter_map(|(word, value)| Some((word, value.filter(|v| !v.trim().is_empty())?))).collect()
}

async fn answer(app: &App, name: &str, question: Question, by: String) -> Result<Answer, Problem> {
    let controller = Controller { app: app.clone(), name: name.to_owned(), by };
    Ok(match question {
        Question::Inventory => Answer::Inventory(Box::new(controller.inventory().await?)),
        Question::Firmware => Answer::Firmware(controller.firmware().await?),
        Question::Media => match controller.carry_out(Operation::Media).await? {
            Outcome::Image(image) => Answer::Media(image),
            _ => return Err(unexpected()),
        },
    })
}

async fn ask(app: &App, name: &str, question: Question, by: String) -> Said {
    let answer = answer(app, name, question, by).await.unwrap_or_else(|refusal| Answer::Failed(refusal.detail));
    let facts = if let Answer::Inventory(hardware) = &answer { facts(&hardware.inventory) } else { Vec::new() };
    Said { name: name.to_owned(), question, answer, facts }
}

async fn whole(
    State(app): State<App>,
    Path((word, what)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let found = Question::read(&what).and_then(|question| Ok((question, app.engine.resolve(&word)?)));
    let (question, name) = match found {
        Ok(found) => found,
        Err(refusal) => return problem(&refusal, "/"),
    };
    let Some(machine) = app.engine.cache().get::<HardwareSpec>(&name) else {
        return problem(&Problem::not_found(format!("machine `{name}` does not exist")), "/");
    };
    let said = ask(&app, &name, question, caller.by).await;
    let address = machine.spec.bmc.as_ref().map(|bmc| bmc.address.to_string()).unwrap_or_default();
    let display_name = view::display_name(&machine).to_owned();
    page(StatusCode::OK, &ControllerPage { name, display_name, address, said })
}

async fn fragment(
    State(app): State<App>,
    Path((word, what)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let (question, name) = (Question::read(&what)?, app.engine.resolve(&word)?);
    // What went wrong stands where the answer would.
    Ok(page(StatusCode::OK, &ask(&app, &name, question, caller.by).await))
}
