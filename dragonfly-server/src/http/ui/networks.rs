//! The networks: a list, and a page of each, with whether it is answered.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::resource::network::{DhcpMode, NetworkSpec, SERVED};
use dragonfly_core::resource::{ConditionStatus, Kind, Network, Record, condition};

use super::{When, page, problem, written};
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/networks", Access::Page, "The networks and whether they are answered, as a page", list).get(
        "/networks/{name}",
        Access::Page,
        "One network, as a page",
        one,
    )
}

/// One network as a row.
#[derive(Debug)]
struct Row {
    name: String,
    interface: String,
    dhcp: &'static str,
    subnet: String,
    pool: String,
    served: Served,
}

/// Whether a network is answered.
#[derive(Debug)]
struct Served {
    word: &'static str,
    /// Of the style sheet.
    class: &'static str,
    why: String,
    since: Option<When>,
}

#[derive(Debug, Template)]
#[template(path = "networks.html")]
struct ListPage {
    rows: Vec<Row>,
}

#[derive(Debug, Template)]
#[template(path = "network.html")]
struct OnePage {
    row: Row,
    facts: Vec<(&'static str, String)>,
    yaml: String,
}

fn row(app: &App, network: &Network) -> Row {
    let spec = &network.spec;
    Row {
        name: network.name().to_owned(),
        interface: spec.interface.clone(),
        dhcp: mode(spec.dhcp),
        subnet: spec.subnet.to_string(),
        pool: spec.pool.map(|pool| format!("{} to {}", pool.start, pool.end)).unwrap_or_default(),
        served: served(app, network),
    }
}

fn mode(dhcp: DhcpMode) -> &'static str {
    match dhcp {
        DhcpMode::Off => "off",
        DhcpMode::Full => "full",
        DhcpMode::Reservation => "reservation",
        DhcpMode::Proxy => "proxy",
        DhcpMode::Auto => "auto",
    }
}

fn served(app: &App, network: &Network) -> Served {
    if network.spec.dhcp == DhcpMode::Off {
        return Served { word: "off", class: "unseen", why: "spec.dhcp is off".to_owned(), since: None };
    }
    let Some(told) = condition(&network.status.conditions, SERVED) else {
        let why = "the boot services have not said yet".to_owned();
        return Served { word: "not known", class: "unseen", why, since: None };
    };
    let (word, class) = match told.status {
        ConditionStatus::True => ("answered", "ready"),
        ConditionStatus::False => ("not answered", "error"),
        ConditionStatus::Unknown => ("not known", "unseen"),
    };
    let since = Some(When::at(told.last_transition_time, app.engine.now()));
    Served { word, class, why: told.message.clone(), since }
}

fn facts(spec: &NetworkSpec) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |word, value: String| facts.extend((!value.is_empty()).then_some((word, value)));
    let addresses = |all: &[std::net::Ipv4Addr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    add("Interface", spec.interface.clone());
    add("DHCP", mode(spec.dhcp).to_owned());
    add("Subnet", spec.subnet.to_string());
    add("Pool", spec.pool.map(|pool| format!("{} to {}", pool.start, pool.end)).unwrap_or_default());
    add("Router", spec.router.map(|a| a.to_string()).unwrap_or_default());
    add("DNS", addresses(&spec.dns));
    add("Domain", spec.domain.clone().unwrap_or_default());
    add("NTP", addresses(&spec.ntp));
    add("Lease", format!("{} s", spec.lease_seconds));
    add("Next server", spec.next_server.map(|a| a.to_string()).unwrap_or_default());
    add("Machines may boot the agent", if spec.provisioning { "yes" } else { "no" }.to_owned());
    facts
}

async fn list(State(app): State<App>) -> Response {
    let networks = app.engine.cache().all::<NetworkSpec>();
    page(StatusCode::OK, &ListPage { rows: networks.iter().map(|network| row(&app, network)).collect() })
}

async fn one(State(app): State<App>, Path(name): Path<String>) -> Response {
    let Some(network) = app.engine.cache().get::<NetworkSpec>(&name) else {
        // The engine says what was perhaps meant.
        let refusal = match app.engine.get(Kind::NETWORK, &name).await {
            Err(error) => Problem::from(error),
            Ok(_) => Problem::not_found("this version cannot read that network"),
        };
        return problem(&refusal, "/networks");
    };
    let yaml = written(&Record::from(&*network));
    page(StatusCode::OK, &OnePage { row: row(&app, &network), facts: facts(&network.spec), yaml })
}
