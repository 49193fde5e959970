//! What agents say: hello, work, report, log.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use dragonfly_core::wire::{Ask, BmcAccountReport, Heard, Hello, Orders, Report, Welcome};
use serde::Deserialize;

use super::App;
use super::extract::{Asked, Input, Whole};
use super::guard::Shown;
use super::problem::Problem;
use super::route::{Access, Routes};
use crate::listen::Connection;

/// The largest hello: the largest inventory that is kept ([`Inventory`](dragonfly_core::inventory::Inventory)) is a third
/// of a megabyte as JSON.
const HELLO: usize = 512 * 1024;
/// The largest report: of a failure its message and 16 causes are kept, 4 KiB each.
const REPORT: usize = 128 * 1024;
/// The largest question for work: a number.
const ASK: usize = 4 * 1024;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .at_most(HELLO)
        .post("/dragonfly/v1/agent/hello", Access::BootToken, "An agent says what machine it runs on", hello)
        .at_most(ASK)
        .post("/dragonfly/v1/agent/work", Access::Agent, "An agent asks for work; waits up to 30 s", work)
        .at_most(REPORT)
        .post("/dragonfly/v1/agent/report", Access::Agent, "An agent says how far it has come", report)
        .post("/dragonfly/v1/agent/log", Access::Agent, "An agent ships its log, as text from an offset on", log)
        .at_most(REPORT)
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
    Input(hello, ..): Input<Hello>,
) -> Result<Json<Welcome>, Problem> {
    Ok(Json(app.engine.hello(token.reveal(), hello, about.peer.ip()).await?))
}

async fn work(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Input(ask, body): Input<Ask>,
) -> Result<Json<Orders>, Problem> {
    // It may wait for long, and has a number.
    drop(body);
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
    Input(report, ..): Input<Report>,
) -> Result<Json<Heard>, Problem> {
    Ok(Json(app.engine.report(session.reveal(), report).await?))
}

async fn bmc_account(
    State(app): State<App>,
    Extension(Shown(session)): Extension<Shown>,
    Input(report, ..): Input<BmcAccountReport>,
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

#[cfg(test)]
mod tests {
    use dragonfly_core::inventory::Inventory;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_machine_fits_into_a_hello() {
        let disk = |n| {
            json!({
                "name": format!("nvme{n}n1"), "size": 15_360_950_534_144_u64, "sector": 512,
                "model": "SAMSUNG MZWLR15THALA-00007", "serial": format!("S6EXNE0R{n:06}"),
                "wwn": format!("eui.3658453{n:018}00000001"), "bus": "nvme", "rotational": false,
                "removable": false, "wearPercent": 3, "blank": false, "signatures": ["gpt", "linux_raid_member"],
            })
        };
        let nic = |n: usize| {
            json!({
                "name": format!("enp129s0f{n}np0"), "mac": format!("b8:ce:f6:00:00:{n:02x}"), "driver": "mlx5_core",
                "link": true, "speed": 100_000, "addresses": ["10.100.100.100/24", "fe80::bace:f6ff:fe00:1/64"],
                "lldp": { "chassis": "b8:ce:f6:11:22:33", "port": "Ethernet1/17", "system": format!("leaf-{n}.example.org") },
            })
        };
        let pci = |n| {
            let address = format!("0000:{:02x}:{:02x}.0", n / 32, n % 32);
            json!({ "address": address, "id": "10de:2330", "class": "0302", "driver": "nvidia" })
        };
        let module = |n| {
            json!({
                "locator": format!("P1-DIMM{n}"), "size": 68_719_476_736_u64, "speedMts": 4800, "manufacturer": "Samsung",
                "partNumber": "M321R8GA0BB0-CQKZJ", "serial": format!("80CE012322{n:08}"),
            })
        };
        let inventory = json!({
            "disks": (0..256).map(disk).collect::<Vec<_>>(),
            "nics": (0..256).map(nic).collect::<Vec<_>>(),
            "pci": (0..1024).map(pci).collect::<Vec<_>>(),
            "memory": { "modules": (0..512).map(module).collect::<Vec<_>>() },
        });
        let inventory: Inventory = serde_json::from_value(inventory).unwrap();
        assert_eq!((inventory.disks.len(), inventory.memory.modules.len()), (256, 512));
        let bytes = serde_json::to_vec(&inventory).unwrap().len();
        // It does not fit into a quarter of a megabyte; beside it stand anchors and a few words.
        assert!((256 << 10..HELLO - (128 << 10)).contains(&bytes), "{bytes}");
    }
}
