//! Objects as rows of a table.

use dragonfly_core::clock::Timestamp;
use dragonfly_core::resource::Kind;
use dragonfly_core::resource::network::SERVED;
use serde_json::Value;

use super::objects::text;
use crate::view;

/// The head and the rows of a table of objects of one kind.
pub(super) fn rows(kind: Kind, objects: &[Value], wide: bool, now: Timestamp) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let count = |object: &Value, pointer: &str| match object.pointer(pointer) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    let age = |object: &Value| {
        let made = object.pointer("/metadata/creationTimestamp").cloned().unwrap_or_default();
        serde_json::from_value(made).map_or_else(|_| "-".to_owned(), |then| view::ago(now, then))
    };
    let list = |object: &Value, pointer: &str| {
        let items = object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let cells = |o: &Value| -> Vec<String> {
        let t = |p: &str| text(o, p).to_owned();
        match kind {
            Kind::TEMPLATE => vec![count(o, "/spec/actions").to_string(), t("/spec/description")],
            Kind::WORKFLOW => {
                let state = match text(o, "/status/state") {
                    "" => "Pending".to_owned(),
                    state => state.to_owned(),
                };
                let attempt = o.pointer("/status/attempt").and_then(Value::as_u64).unwrap_or(0);
                let mut cells = vec![t("/spec/hardware"), t("/spec/template"), state, attempt.to_string()];
                if wide {
                    cells.push(t("/status/message"));
                }
                cells
            }
            Kind::NETWORK => {
                let pool = match (text(o, "/spec/pool/start"), text(o, "/spec/pool/end")) {
                    ("", _) => "-".to_owned(),
                    (start, end) => format!("{start}-{end}"),
                };
                let (served, why) = served(o);
                let mut cells = vec![t("/spec/interface"), t("/spec/dhcp"), served, t("/spec/subnet"), pool];
                if wide {
                    cells.extend([t("/spec/router"), list(o, "/spec/dns"), why]);
                }
                cells
            }
            _ => vec![list(o, "/spec/keys")],
        }
    };
    let mut head = vec!["NAME"];
    head.extend(match (kind, wide) {
        (Kind::TEMPLATE, _) => vec!["ACTIONS", "DESCRIPTION"],
        (Kind::WORKFLOW, false) => vec!["MACHINE", "TEMPLATE", "STATE", "ATTEMPT"],
        (Kind::WORKFLOW, true) => vec!["MACHINE", "TEMPLATE", "STATE", "ATTEMPT", "MESSAGE"],
        (Kind::NETWORK, false) => vec!["INTERFACE", "DHCP", "SERVED", "SUBNET", "POOL"],
        (Kind::NETWORK, true) => vec!["INTERFACE", "DHCP", "SERVED", "SUBNET", "POOL", "ROUTER", "DNS", "WHY"],
        _ => vec!["KEYS"],
    });
    head.push("AGE");
    let rows = objects.iter().map(|o| {
        let mut row = vec![text(o, "/metadata/name").to_owned()];
        row.extend(cells(o));
        row.push(age(o));
        row
    });
    (head, rows.collect())
}

/// Whether the boot services answer on a Network, and why, as its status says.
pub(super) fn served(network: &Value) -> (String, String) {
    if text(network, "/spec/dhcp") == "off" {
        return ("off".to_owned(), "spec.dhcp is off".to_owned());
    }
    let conditions = network.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == SERVED);
    match found {
        None => ("-".to_owned(), "the boot services have not said yet".to_owned()),
        Some(condition) => {
            let word = if text(condition, "/status") == "True" { "yes" } else { "no" };
            (word.to_owned(), text(condition, "/message").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_network_says_whether_it_is_answered() {
        let network = |status: &str| {
            json!({
                "metadata": { "name": "lab" }, "spec": { "interface": "eth1", "dhcp": "proxy", "subnet": "10.0.0.0/24" },
                "status": { "conditions": [{ "type": "Served", "status": status, "message": "because" }] },
            })
        };
        let now = Timestamp::from_unix_seconds(0);
        let (head, table) = rows(Kind::NETWORK, &[network("True"), network("False")], true, now);
        let at = |name: &str| head.iter().position(|h| *h == name).unwrap();
        assert_eq!((table[0][at("SERVED")].as_str(), table[1][at("SERVED")].as_str()), ("yes", "no"));
        assert_eq!(table[1][at("WHY")], "because");
        assert_eq!((head.len(), table[0].len()), (10, 10));
        assert_eq!(served(&json!({ "spec": { "dhcp": "off" } })).0, "off");
        assert_eq!(served(&json!({ "spec": { "dhcp": "full" } })).0, "-");
    }
}
