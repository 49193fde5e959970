//! What `dragonfly install --kubernetes` grants is what servers of mode `swarm` use: all of it, and nothing is refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{Served, dragonfly, said};
use crate::servers::{Cluster, PATIENCE, Server};

/// Who the servers are.
const ACCOUNT: &str = "system:serviceaccount:dragonfly:dragonfly";

const NETWORK: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: nowhere }
spec: { interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24 }
";

/// Beside it.
const REST: &str = "---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: small }
spec: { actions: [{ name: leave, action: reboot }] }
---
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: bmc }
spec: { data: { username: root, password: first-password } }
---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-1 }
spec: { macs: ['52:54:00:ab:cd:01'] }
";

/// A machine and its workflow as another server knew them.
const SEEN: &str = "
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: seen }
spec: { macs: ['52:54:00:ab:cd:17'] }
status: { phase: Ready, installed: small, workflow: seen-1 }
---
apiVersion: dragonfly.computer/v1
kind: Workflow
metadata: { name: seen-1 }
spec: { hardware: seen, template: small, content: { actions: [{ name: r, action: reboot }] } }
status: { state: Succeeded, attempt: 2, authorisationGeneration: 2 }
";

/// A token for the servers' account.
async fn token(cluster: &Cluster) -> String {
    let wanted = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 },
    });
    let path = "/api/v1/namespaces/dragonfly/serviceaccounts/dragonfly/token";
    cluster.ask("POST", path, Some(&wanted)).await["status"]["token"].as_str().unwrap().to_owned()
}

/// What may be done to what: `group/resource verb`.
type Rights = BTreeSet<String>;

fn right(group: &str, resource: &str, verb: &str) -> String {
    format!("{group}/{resource} {verb}")
}

/// What the roles grant that the account is bound to.
async fn granted(cluster: &Cluster) -> Rights {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let mut rights = Rights::new();
    for path in
        [format!("{rbac}/clusterroles/dragonfly:dragonfly"), format!("{rbac}/namespaces/dragonfly/roles/dragonfly")]
    {
        let role = cluster.ask("GET", &path, None).await;
        for rule in role["rules"].as_array().unwrap() {
            let words = |field: &str| {
                let all = rule[field].as_array().unwrap().clone();
                all.into_iter().map(|word| word.as_str().unwrap().to_owned())
            };
            for (group, resource) in
                words("apiGroups").flat_map(|group| words("resources").map(move |r| (group.clone(), r)))
            {
                rights.extend(words("verbs").map(|verb| right(&group, &resource, &verb)));
            }
        }
    }
    rights
}

/// What the account did, and what it was refused for want of a right.
fn used(cluster: &Cluster) -> (Rights, Vec<Value>) {
    let (mut rights, mut refused) = (Rights::new(), Vec::new());
    for event in cluster.audited() {
        if event["user"]["username"] != ACCOUNT {
            continue;
        }
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(event);
            continue;
        }
        let Some(about) = event.get("objectRef") else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (resource, part) = (text(&about["resource"]), text(&about["subresource"]));
        let resource = if part.is_empty() { resource } else { format!("{resource}/{part}") };
        rights.insert(right(&text(&about["apiGroup"]), &resource, &text(&event["verb"])));
    }
    (rights, refused)
}

/// Everything that a server is asked to do which it does by the store.
fn work(one: &Served, directory: &Path) {
    let all = [NETWORK, REST].concat();
    one.done(&["apply", "-f", "-"], &all);
    let changed = all
        .replace("first-password", "other-password")
        .replace("[{ name: leave", "[{ name: on")
        .replace("10.9.0.0", "10.8.0.0")
        .replace("macs:", "displayName: Db-1, macs:");
    one.done(&["apply", "-f", "-"], &changed);
    let file = directory.join("seen.yaml");
    std::fs::write(&file, SEEN).unwrap();
    one.done(&["import", file.to_str().unwrap()], "");
    let labelled = SEEN.rsplit("---\n").next().unwrap().replace("name: seen-1", "name: seen-1, labels: { a: b }");
    let (labelled, _) = labelled.split_once("status:").unwrap();
    one.done(&["apply", "-f", "-"], labelled);
    one.done(&["reimage", "seen", "--yes"], "");
    one.done(&["abort", "seen"], "");
    one.done(&["hold", "seen", "--reason", "a fan"], "");
    one.done(&["release", "seen"], "");
    one.done(&["assign", "seen", "--template", "small", "--overwrite", "all", "--yes"], "");
    one.done(&["abort", "seen"], "");
    one.done(&["protect", "db-1"], "");
    one.done(&["protect", "db-1", "--off"], "");
    assert!(one.done(&["get", "machines"], "").contains("seen"));
    assert!(one.done(&["export"], "").contains("seen-1"));
    for (kind, name) in
        [("workflow", "seen-1"), ("hardware", "db-1"), ("template", "small"), ("network", "nowhere"), ("secret", "bmc")]
    {
        one.done(&["delete", kind, name], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_granted_is_what_is_used() {
    if !Server::Whole.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Server::Whole)).await.unwrap();
    let administrator = cluster.options().kubeconfig.unwrap();
    // The roles that every cluster has come first.
    cluster.ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin", None).await;
    said(&mut dragonfly(&["install", "--kubernetes"], &administrator));
    let rights = granted(&cluster).await;
    let account = cluster.kubeconfig_of("account", &token(&cluster).await);

    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str| Served::start(name, &directory.path().join(name), &account);
    let (mut first, mut second) = (start("first"), start("second"));
    first.until("it listens", |one| one.address().is_some());
    second.until("it listens", |one| one.address().is_some());
    work(&first, directory.path());
    // The other has heard of it.
    second.until("it sees the other's work", |one| one.done(&["get", "machines"], "").contains("seen"));
    first.until("one of two leads", |one| one.leads("sweep") || second.leads("sweep"));
    let (leader, other) = if first.leads("sweep") { (&mut first, &mut second) } else { (&mut second, &mut first) };
    let began = Instant::now();
    leader.kill();
    other.until("it leads when the other is dead", |one| one.leads("sweep"));
    eprintln!("a server leads {:.1} s after the leader was killed", began.elapsed().as_secs_f64());
    other.done(&["hold", "seen"], "");
    other.done(&["apply", "-f", "-"], NETWORK);
    let noted = |one: &Served| one.done(&["get", "network", "nowhere", "-o", "json"], "").contains("conditions");
    other.until("it notes that it cannot serve this network", noted);

    let (used, refused) = used(&cluster);
    assert!(refused.is_empty(), "refused: {refused:#?}");
    let unused: Vec<_> = rights.difference(&used).collect();
    let beyond: Vec<_> = used.difference(&rights).collect();
    assert!(
        unused.is_empty() && beyond.is_empty(),
        "granted and not used: {unused:?}; used and not granted: {beyond:?}"
    );
    narrow(&account).await;
}

/// What nobody granted is refused.
async fn narrow(kubeconfig: &Path) {
    let file = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    for (method, path) in [
        ("GET", "/api/v1/secrets"),
        ("GET", "/api/v1/namespaces/kube-system/secrets"),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/dragonfly/leases/dragonfly-sweep"),
        ("DELETE", "/apis/dragonfly.computer/v1/hardware"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
        ("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hardware.dragonfly.computer"),
    ] {
        let request = http::Request::builder().method(method).uri(path).body(Vec::new()).unwrap();
        match client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{method} {path}: {status:?}"),
            other => panic!("{method} {path}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_a_cluster_that_is_away() {
    if !Server::Whole.is_here() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Server::Whole)).await.unwrap();
    let administrator = cluster.options().kubeconfig.unwrap();
    cluster.ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin", None).await;
    said(&mut dragonfly(&["install", "--kubernetes"], &administrator));
    let account = cluster.kubeconfig_of("account", &token(&cluster).await);
    cluster.kill_api();
    let directory = tempfile::tempdir().unwrap();
    let mut server = Served::start("early", &directory.path().join("early"), &account);
    server.until("it says that it waits", |one| one.log().contains("the cluster is away: nothing is served until"));
    assert!(server.log().contains("cannot be reached"), "{}", server.log());
    assert_eq!(server.address(), None);
    cluster.start_api();
    server.until("it listens", |one| one.address().is_some());
    server.until("it is ready", |one| one.readiness().is_some_and(|says| says["ready"] == true));
    // And one that is to stop meanwhile stops.
    cluster.kill_api();
    let mut waiting = Served::start("waiting", &directory.path().join("waiting"), &account);
    waiting.until("it says that it waits", |one| one.log().contains("the cluster is away"));
    waiting.terminate();
    let begin = Instant::now();
    while !waiting.has_ended() {
        assert!(begin.elapsed() < PATIENCE, "{}", waiting.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert!(waiting.log().contains("stopped before the store was open"), "{}", waiting.log());
}
