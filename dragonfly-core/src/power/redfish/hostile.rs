//! Services that are none, or that mean harm: whatever they say, an error comes of it and nothing else.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::resource::Resource;
use super::*;
use crate::power::PowerOff as _;

const PATIENCE: Patience =
    Patience { request: Duration::from_secs(5), task: Duration::from_millis(300), poll: Duration::from_millis(20) };

/// A server that says of a method and a path what this table has: status line and body. The first that fits counts.
async fn server(table: Vec<(&'static str, &'static str, String)>) -> (Url, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redfish://{}?tls=off", listener.local_addr().unwrap()).parse().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut first, mut line) = (String::new(), String::new());
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 2) {
                first = if first.is_empty() { std::mem::take(&mut line) } else { first };
                line.clear();
            }
            let found = table.iter().find(|(what, ..)| first.starts_with(what));
            let (status, body) = found.map_or(("404 x", ""), |(_, status, body)| (*status, &**body));
            let text =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, task)
}

async fn open(url: &Url, credential: Option<&Credential>) -> Result<Controller> {
    Redfish::new().with_patience(PATIENCE).controller(url, credential).await
}

const ROOT: &str = "GET /redfish/v1/ ";

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

#[tokio::test]
async fn what_is_no_service_is_said_to_be_none() {
    let root = |root: Value| vec![(ROOT, "200 OK", root.to_string())];
    let systems = |members: Value, more: Value| {
        let mut page = json!({ "Members": members });
        page["Members@odata.nextLink"] = more;
        let mut table = root(json!({ "Systems": link("/s") }));
        table.push(("GET /s ", "200 OK", page.to_string()));
        table
    };
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let mut circle = systems(json!([link("/s/1")]), json!("/t"));
    circle.push(("GET /t ", "200 OK", json!({ "Members": [], "Members@odata.nextLink": "/s" }).to_string()));
    let mut elsewhere = systems(json!([link("/s/1")]), Value::Null);
    elsewhere.push(("GET /s/1 ", "302 x\r\nLocation: http://198.51.100.7/", String::new()));
    let cases = [
        (vec![], "it has no /redfish/v1/"),
        (vec![(ROOT, "200 OK", "<html>".to_owned())], "cannot be read"),
        (vec![(ROOT, "200 OK", deep)], "cannot be read"),
        (vec![(ROOT, "500 x", String::new())], "refused to tell what it is: HTTP 500"),
        (root(json!([])), "its service root has no Systems"),
        (root(json!({ "Systems": link("http://198.51.100.7/s") })), "another host"),
        (root(json!({ "Systems": link("//198.51.100.7/s") })), "another host"),
        (root(json!({ "Systems": link("/nowhere") })), "refused to tell what systems it has"),
        (systems(json!([]), Value::Null), "it lists no system"),
        (systems(json!("none"), Value::Null), "it lists no system"),
        (circle, "has 100 systems"),
        (elsewhere, "another host"),
    ];
    for (table, why) in cases {
        let (url, task) = server(table.clone()).await;
        let error = open(&url, None).await.unwrap_err().to_string();
        assert!(error.contains(why), "{table:?}: {error}");
        task.abort();
    }
}

#[tokio::test]
async fn a_session_and_a_task_that_are_none() {
    let mut table = vec![
        (ROOT, "200 OK", json!({ "Systems": link("/s"), "Links": { "Sessions": link("/login") } }).to_string()),
        ("GET /s ", "200 OK", json!({ "Members": [link("/s/1")] }).to_string()),
        (
            "GET /s/1 ",
            "200 OK",
            json!({ "PowerState": "On", "Actions": { "#ComputerSystem.Reset": {
            "target": "/reset", "ResetType@Redfish.AllowableValues": [7, null, "ForceOff"] } } })
            .to_string(),
        ),
        ("POST /reset ", "202 x\r\nLocation: /task", String::new()),
        ("GET /task ", "202 x\r\nRetry-After: 0", json!({ "TaskState": 7 }).to_string()),
    ];
    let (url, task) = server(table.clone()).await;
    let control = open(&url, None).await.unwrap();
    assert_eq!(control.abilities().words(), ["on", "off", "status", "inventory"]);
    assert!(matches!(control.off().await.unwrap_err(), PowerError::TimedOut { .. }), "it never ends");
    let error = control.on().await;
    assert!(error.is_ok(), "it is on");
    task.abort();
    let who = Credential { username: "admin".to_owned(), password: "hunter2".to_owned().into() };
    // Where there are no sessions, whatever is said of them, every request has the password.
    for status in ["404 x", "405 x", "501 x"] {
        table.insert(0, ("POST /login ", status, String::new()));
        let (url, task) = server(table.clone()).await;
        open(&url, Some(&who)).await.unwrap();
        let colon = Credential { username: "a:b".to_owned(), ..who.clone() };
        let error = open(&url, Some(&colon)).await.unwrap_err();
        assert!(matches!(error, PowerError::InvalidCredential { .. }), "{error}");
        task.abort();
    }
    for (status, why) in [
        ("201 x", "a session without X-Auth-Token"),
        ("400 x", "refused to open a session: no [secret] here"),
        ("503 x", "busy: no [secret] here"),
    ] {
        table.insert(0, ("POST /login ", status, json!({ "error": { "message": "no hunter2 here" } }).to_string()));
        let (url, task) = server(table.clone()).await;
        let error = open(&url, Some(&who)).await.unwrap_err();
        assert!(error.to_string().contains(why) && !format!("{error:?}").contains("hunter2"), "{error:?}");
        task.abort();
    }
}

/// JSON of the names that the driver looks for.
fn anything() -> impl Strategy<Value = Value> {
    let names = [
        "Boot",
        "BootSourceOverrideEnabled",
        "BootSourceOverrideTarget",
        "BootSourceOverrideMode",
        "HttpBootUri",
        "BootSourceOverrideTarget@Redfish.AllowableValues",
        "PowerState",
        "Status",
        "State",
        "Reading",
        "CapacityMiB",
        "CapacityBytes",
        "MACAddress",
        "Created",
        "Id",
        "Name",
        "MediaTypes",
        "Image",
        "Inserted",
        "Temperatures",
        "Fans",
        "ProcessorSummary",
        "Count",
        "TotalCores",
        "MemorySummary",
        "TotalSystemMemoryGiB",
        "Version",
        "PredictedMediaLifeLeftPercent",
        "IndicatorLED",
        "LocationIndicatorActive",
        "@odata.id",
        "Severity",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["Once", "Disabled", "Pxe", "UefiHttp", "On", "CD", "Absent", "2024-06-11T00:13:00Z"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(prop::sample::select(names.to_vec()), inner, 0..8).prop_map(|map| {
                Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_that_it_says_breaks_the_reading(value in anything()) {
        let of = Resource(value);
        let quirks = quirks::Quirks::of(&of, &of, Some(&of));
        let said = plan::boot_said(&of);
        prop_assert!(said.is_none() || of.text(&["Boot", "BootSourceOverrideEnabled"]) != Some("Disabled"));
        let _ = plan::boot(&of, said, quirks);
        let _ = (plan::power_state(&of), plan::http_boot_said(&of), of.path(), of.is_reference());
        inventory::read_anything(&of);
        sensors::read_anything(&of);
        events::read_anything(&of);
    }
}
