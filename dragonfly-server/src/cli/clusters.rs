//! `get clusters`: the Proxmox clusters whose VMs are machines.

use anyhow::bail;
use dragonfly_core::clock::{Clock as _, SystemClock, Timestamp};
use serde_json::{Value, json};

use super::args::Format;
use super::client::Client;
use super::objects::text;
use super::output::Out;
use crate::view::ago;

/// Whether a person means clusters, which are no objects of the store.
pub(super) fn are_meant(word: &str) -> bool {
    ["clusters", "cluster"].iter().any(|name| word.eq_ignore_ascii_case(name))
}

pub(super) async fn get(
    client: &Client,
    out: &Out,
    names: &[String],
    selector: Option<&str>,
    format: Format,
) -> anyhow::Result<()> {
    if selector.is_some() {
        bail!("clusters have no labels; give their names, or none for all");
    }
    let found = client.get(&["dragonfly", "v1", "clusters"], &[]).await?;
    let all = found.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|cluster| text(cluster, "/name") == **name)) {
        bail!("no cluster that answers is called `{unknown}`");
    }
    let all: Vec<Value> = all
        .into_iter()
        .filter(|cluster| names.is_empty() || names.iter().any(|name| text(cluster, "/name") == name))
        .collect();
    match format {
        Format::Json => out.json(&json!({ "items": all }))?,
        Format::Yaml => out.yaml(&json!({ "items": all }))?,
        Format::Name => all.iter().try_for_each(|cluster| out.line(&format!("cluster/{}", called(cluster))))?,
        Format::Table | Format::Wide if all.is_empty() => {
            out.line("No clusters: name them in the configuration file, [[proxmox]] with address and secret.")?;
        }
        Format::Table | Format::Wide => {
            let now = SystemClock.now();
            let rows: Vec<Vec<String>> = all.iter().map(|cluster| row(cluster, now)).collect();
            out.table(&["CLUSTER", "NODES", "VMS", "POLLED", "ANSWERED", "STATE"], &rows)?;
        }
    }
    Ok(())
}

/// Its name; of one that has not answered yet, its address.
fn called(cluster: &Value) -> &str {
    match text(cluster, "/name") {
        "" => text(cluster, "/address"),
        name => name,
    }
}

fn row(cluster: &Value, now: Timestamp) -> Vec<String> {
    let nodes = cluster.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let node = |node: &Value| {
        let is_online = node.get("online").and_then(Value::as_bool).unwrap_or_default();
        format!("{}{}", text(node, "/name"), if is_online { "" } else { " (offline)" })
    };
    let since = |field| match cluster.get(field).and_then(|at| serde_json::from_value::<Timestamp>(at.clone()).ok()) {
        Some(then) => ago(now, then),
        None => "never".to_owned(),
    };
    let gaps = cluster.get("gaps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let state = match (text(cluster, "/failure"), text(cluster, "/polledAt"), gaps.first()) {
        ("", "", _) => "not looked at yet".to_owned(),
        ("", _, None) => "followed".to_owned(),
        ("", _, Some(gap)) => format!("followed; VMs may be missing: {}", gap.as_str().unwrap_or_default()),
        (failure, ..) => failure.to_owned(),
    };
    vec![
        called(cluster).to_owned(),
        nodes.iter().map(node).collect::<Vec<_>>().join(", "),
        cluster.get("vms").and_then(Value::as_u64).unwrap_or_default().to_string(),
        since("polledAt"),
        since("answeredAt"),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_a_row() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_000_000 - seconds).to_string();
        let cells = |cluster: Value| row(&cluster, now).join("|");
        let new = json!({ "address": "proxmox://10.0.0.2", "name": null, "nodes": [], "vms": 0, "gaps": [] });
        assert_eq!(cells(new), "proxmox://10.0.0.2||0|never|never|not looked at yet");
        let nodes = json!([{ "name": "a", "online": true }, { "name": "b", "online": false }]);
        let mut good =
            json!({ "name": "lab", "nodes": nodes, "vms": 7, "gaps": [], "polledAt": at(5), "answeredAt": at(5) });
        assert_eq!(cells(good.clone()), "lab|a, b (offline)|7|5s|5s|followed");
        good["gaps"] = json!(["no right on /vms"]);
        assert!(cells(good.clone()).ends_with("VMs may be missing: no right on /vms"));
        good["failure"] = json!("no route to host");
        good["polledAt"] = json!(at(2));
        assert_eq!(cells(good), "lab|a, b (offline)|7|2s|5s|no route to host");
    }
}
