//! What happened, as Kubernetes' core events: what `kubectl describe` and `kubectl get events` show.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dragonfly_core::event::Event;
use dragonfly_core::resource::{API_VERSION, HardwareSpec, Kind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::App;
use super::super::extract::Asked;
use super::super::problem::Problem;
use super::super::route::{Access, Routes};
use super::query::Query;
use super::select::field_terms;
use super::shape::{Shape, event_table};
use super::status::Refused;

/// Where the events of objects without a namespace are.
const NAMESPACE: &str = "default";

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    routes
        .get("/api/v1/events", Person, "What happened, as Kubernetes' events", events)
        .get("/api/v1/namespaces", Person, "Namespaces: none", namespaces)
        .get("/api/v1/namespaces/{name}/events", Person, "What happened, as Kubernetes' events", events_within)
}

async fn namespaces(headers: HeaderMap, Asked(query): Asked<Query>) -> Result<Response, Refused> {
    let shape = Shape::wanted(&headers, query.include_object.as_deref())?;
    no_watch(&query)?;
    let metadata = json!({ "resourceVersion": "0" });
    if matches!(shape, Shape::Table(..)) {
        return Ok(Json(event_table(shape, metadata, &[])).into_response());
    }
    Ok(Json(json!({ "kind": "NamespaceList", "apiVersion": "v1", "metadata": metadata, "items": [] })).into_response())
}

fn no_watch(query: &Query) -> Result<(), Problem> {
    if query.is_watch() {
        let detail = "these are listed and not watched; /dragonfly/v1/events streams what happens";
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail));
    }
    Ok(())
}

async fn events_within(
    State(app): State<App>,
    axum::extract::Path(name): axum::extract::Path<String>,
    headers: HeaderMap,
    Asked(query): Asked<Query>,
) -> Result<Response, Refused> {
    list(&app, Some(&name), &headers, &query)
}

async fn events(State(app): State<App>, headers: HeaderMap, Asked(query): Asked<Query>) -> Result<Response, Refused> {
    list(&app, None, &headers, &query)
}

fn list(app: &App, namespace: Option<&str>, headers: &HeaderMap, query: &Query) -> Result<Response, Refused> {
    const FIELDS: [&str; 9] = [
        "involvedObject.name",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "metadata.name",
        "metadata.namespace",
        "reason",
        "type",
    ];
    let shape = Shape::wanted(headers, query.include_object.as_deref())?;
    no_watch(query)?;
    let terms = field_terms(query.fields())?;
    if let Some((field, ..)) = terms.iter().find(|(field, ..)| !FIELDS.contains(&field.as_str())) {
        let detail = format!("fieldSelector: events are not selected by `{field}`; there are: {}", FIELDS.join(", "));
        return Err(Problem::bad_request(detail).into());
    }
    // From the first that is still kept.
    let kept = app.engine.events().subscribe(Some(0));
    let mut uids: HashMap<String, Option<Uuid>> = HashMap::new();
    let mut uid = |machine: &str| {
        let found = || app.engine.cache().get::<HardwareSpec>(machine).and_then(|m| m.metadata.uid);
        *uids.entry(machine.to_owned()).or_insert_with(found)
    };
    let all = kept.replay.iter().map(|event| shown(event, app.meters.run(), &mut uid));
    let items: Vec<Value> = all
        .filter(|_| namespace.is_none_or(|wanted| wanted == NAMESPACE))
        .filter(|event| {
            terms.iter().all(|(field, equal, wanted)| {
                let pointer = format!("/{}", field.replace('.', "/"));
                let value = event.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
                (value == wanted) == *equal
            })
        })
        .collect();
    let metadata = json!({ "resourceVersion": kept.newest.to_string() });
    if matches!(shape, Shape::Table(..)) {
        return Ok(Json(event_table(shape, metadata, &items)).into_response());
    }
    Ok(Json(json!({ "kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": items })).into_response())
}

/// One of our events in the shape of core/v1 `Event`.
fn shown(event: &Event, run: u64, uid: &mut impl FnMut(&str) -> Option<Uuid>) -> Value {
    let (kind, name) = match (&event.machine, &event.workflow) {
        (Some(machine), _) => (Kind::HARDWARE.name, machine.as_str()),
        (None, Some(run)) => (Kind::WORKFLOW.name, run.as_str()),
        (None, None) => ("", ""),
    };
    let mut involved = json!({ "kind": kind, "name": name, "apiVersion": API_VERSION });
    if let Some(uid) = event.machine.as_deref().and_then(uid) {
        involved["uid"] = uid.to_string().into();
    }
    let source = "dragonfly";
    json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {
            "name": format!("{}.{run:x}.{:x}", if name.is_empty() { source } else { name }, event.id),
            "namespace": NAMESPACE, "creationTimestamp": event.time, "resourceVersion": event.id.to_string(),
        },
        "involvedObject": involved,
        "reason": reason(&event.kind), "message": event.message, "type": severity(&event.kind),
        "source": { "component": source }, "reportingComponent": source, "reportingInstance": "",
        "firstTimestamp": event.time, "lastTimestamp": event.time, "eventTime": null, "count": 1,
    })
}

/// `machine.registered` as Kubernetes writes reasons: `MachineRegistered`.
fn reason(kind: &str) -> String {
    let words = kind.split(['.', '-', '_']);
    words
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

fn severity(kind: &str) -> &'static str {
    let last = kind.rsplit('.').next().unwrap_or_default();
    let bad = ["conflict", "refused", "error", "failed", "overdue", "silent", "held", "doubled", "aborted"];
    if bad.contains(&last) { "Warning" } else { "Normal" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_kubernetes_words() {
        assert_eq!(reason("machine.registered"), "MachineRegistered");
        assert_eq!(reason("power.controller"), "PowerController");
        assert_eq!((severity("machine.registered"), severity("machine.error")), ("Normal", "Warning"));
    }
}
