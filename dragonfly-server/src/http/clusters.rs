//! The clusters whose VMs are machines.

use axum::Json;
use axum::extract::State;
use dragonfly_core::engine::ClusterView;

use super::App;
use super::power::Items;
use super::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get(
        "/dragonfly/v1/clusters",
        Access::Person,
        "The Proxmox clusters whose VMs are machines: nodes, when each was looked at, and what is wrong",
        list,
    )
}

async fn list(State(app): State<App>) -> Json<Items<ClusterView>> {
    Json(Items { items: app.engine.clusters() })
}
