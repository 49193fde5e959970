//! The clusters whose VMs are machines.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{CLUSTER_LABEL, ClusterView};
use url::form_urlencoded;

use super::{When, page};
use crate::http::App;
use crate::http::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/clusters", Access::Page, "The Proxmox clusters whose VMs are machines, as a page", list)
}

/// One cluster as a row.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    address: String,
    /// The search for its machines.
    href: String,
    state: &'static str,
    /// Of the style sheet.
    class: &'static str,
    /// Why it is in that state.
    words: Vec<String>,
    /// Names, and whether they are online.
    nodes: Vec<(String, bool)>,
    vms: usize,
    polled: Option<When>,
    answered: Option<When>,
}

#[derive(Debug, Template)]
#[template(path = "clusters.html")]
struct ListPage {
    rows: Vec<Row>,
}

fn row(view: ClusterView, now: Timestamp) -> Row {
    let name = view.name.unwrap_or_default();
    let search: String = form_urlencoded::byte_serialize(format!("{CLUSTER_LABEL}={name}").as_bytes()).collect();
    let (state, class, words) = match (view.failure, view.polled_at) {
        (Some(failure), _) => ("cannot be followed", "error", vec![failure]),
        (None, None) => ("not looked at yet", "unseen", Vec::new()),
        (None, Some(_)) if view.gaps.is_empty() => ("followed", "ready", Vec::new()),
        (None, Some(_)) => ("VMs may be missing", "provisioning", view.gaps),
    };
    Row {
        name,
        address: view.address.map(|address| address.to_string()).unwrap_or_default(),
        href: format!("/?q={search}"),
        state,
        class,
        words,
        nodes: view.nodes.into_iter().map(|node| (node.name, node.online)).collect(),
        vms: view.vms,
        polled: view.polled_at.map(|at| When::at(at, now)),
        answered: view.answered_at.map(|at| When::at(at, now)),
    }
}

async fn list(State(app): State<App>) -> Response {
    let now = app.engine.now();
    page(StatusCode::OK, &ListPage { rows: app.engine.clusters().into_iter().map(|view| row(view, now)).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_says_in_which_state_it_is() {
        let at = Timestamp::from_unix_seconds(100);
        let state = |view: ClusterView| {
            let row = row(view, at);
            (row.state, row.words)
        };
        assert_eq!(state(ClusterView::default()), ("not looked at yet", vec![]));
        let good = ClusterView { name: Some("lab".into()), polled_at: Some(at), ..ClusterView::default() };
        assert_eq!(state(good.clone()), ("followed", vec![]));
        let gap = ClusterView { gaps: vec!["no right".into()], ..good.clone() };
        assert_eq!(state(gap.clone()), ("VMs may be missing", vec!["no right".to_owned()]));
        let failed = ClusterView { failure: Some("no route".into()), ..gap };
        assert_eq!(state(failed), ("cannot be followed", vec!["no route".to_owned()]));
        assert_eq!(row(good, at).href, "/?q=dragonfly.computer%2Fproxmox-cluster%3Dlab");
    }
}
