use std::sync::Arc;

use serde_json::Value;

use super::*;

fn record(name: &str, label: &str, version: u64) -> Record {
    let mut record =
        Record { kind: Kind::TEMPLATE, metadata: Default::default(), spec: json!({}), status: Value::Null };
    name.clone_into(&mut record.metadata.name);
    record.metadata.labels.insert("l".into(), label.into());
    record.metadata.resource_version = version.to_string();
    record
}

fn applied(name: &str, label: &str, version: u64) -> News {
    News::Change(Ok(WatchEvent::Applied(Arc::new(record(name, label, version)))))
}

fn deleted(name: &str, label: &str, version: u64) -> News {
    News::Change(Ok(WatchEvent::Deleted(Arc::new(record(name, label, version)))))
}

fn resumed(existing: Option<Existing>, since: &str) -> News {
    News::Resumed { since: since.into(), existing, read: "13".into() }
}

async fn told(news: Vec<News>) -> Vec<Value> {
    told_of("l=x", "", news).await
}

async fn told_of(labels: &str, fields: &str, news: Vec<News>) -> Vec<Value> {
    let selection = Selection::parse(labels, fields).unwrap();
    let wish = Wish { kind: Kind::TEMPLATE, selection, shape: Shape::Object, initial: true };
    let text: Vec<u8> = lines(stream::iter(news), wish).collect::<Vec<_>>().await.concat();
    text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

fn words(told: &[Value]) -> Vec<String> {
    let name = |v: &Value| v["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
    told.iter().map(|v| format!("{} {}", v["type"].as_str().unwrap(), name(v))).collect()
}

#[tokio::test]
async fn a_watch_speaks_as_kubernetes_does() {
    let told = told(vec![
        News::Page(vec![record("a", "x", 1)], "3".into()),
        News::Page(vec![record("m", "x", 5)], "3".into()),
        News::Present,
        // What the second page knew already.
        applied("m", "x", 2),
        deleted("m", "x", 4),
        applied("a", "x", 6),
        applied("b", "x", 7),
        // It no longer matches: to this client it is gone.
        applied("a", "y", 8),
        deleted("b", "x", 9),
        deleted("a", "y", 10),
        News::Bookmark,
        News::Change(Ok(WatchEvent::Snapshot(vec![]))),
        applied("c", "x", 11),
    ])
    .await;
    let want = ["ADDED a", "ADDED m", "BOOKMARK -", "MODIFIED a", "ADDED b", "DELETED a", "DELETED b", "BOOKMARK -"];
    assert_eq!(words(&told)[..8], want);
    assert_eq!(words(&told)[8..], ["ERROR -"]);
    assert_eq!(told[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(told[2]["object"]["metadata"]["resourceVersion"], "3");
    assert_eq!(told[7]["object"]["metadata"]["resourceVersion"], "10");
}

#[tokio::test]
async fn who_resumes_hears_of_what_no_longer_matches() {
    let told = told(vec![
        resumed(Some(Existing::from(["changed", "inside", "later", "out"])), "10"),
        // A store gives what has the label.
        News::Known(vec![record("inside", "x", 4), record("later", "x", 11)], "13".into()),
        applied("later", "x", 11),
        applied("changed", "y", 12),
        deleted("gone-before-it-was-looked-at", "y", 13),
        applied("inside", "y", 14),
        applied("out", "y", 15),
        applied("new", "y", 16),
        deleted("new", "y", 17),
        deleted("out", "y", 18),
    ])
    .await;
    let want = ["MODIFIED later", "DELETED changed", "DELETED gone-before-it-was-looked-at", "DELETED inside"];
    assert_eq!(words(&told), want);
}

#[tokio::test]
async fn who_waits_for_one_hears_of_no_other() {
    let told = told_of(
        "",
        "metadata.name=one",
        vec![
            resumed(None, "10"),
            News::Known(vec![record("one", "x", 4)], "12".into()),
            deleted("other", "x", 11),
            applied("another", "x", 13),
            deleted("another", "x", 14),
            deleted("one", "x", 15),
        ],
    )
    .await;
    assert_eq!(words(&told), ["DELETED one"]);
}

#[tokio::test]
async fn who_resumes_everything_hears_what_is_new_and_what_has_changed() {
    let news = vec![
        resumed(Some(Existing::from(["a", "b"])), "10"),
        applied("a", "x", 12),
        deleted("gone-before-it-was-looked-at", "y", 13),
        applied("b", "x", 14),
        applied("new", "x", 15),
        applied("new", "y", 16),
        deleted("a", "x", 17),
        applied("a", "x", 18),
    ];
    let want = ["MODIFIED a", "DELETED gone-before-it-was-looked-at", "MODIFIED b"];
    let told = told_of("", "", news).await;
    assert_eq!(words(&told)[..3], want);
    assert_eq!(words(&told)[3..], ["ADDED new", "MODIFIED new", "DELETED a", "ADDED a"]);
}
