//! `crds` and `install`: what a Kubernetes cluster needs before a server can keep its state there.

use std::time::Duration;

use clap::Args;
use dragonfly_core::resource::{GROUP, Kind, schema};
use dragonfly_core::store::KubernetesStore;
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::kubernetes::tinkerbell::{TINKERBELL_BMC_GROUP, TINKERBELL_GROUP};
use serde_json::{Value, json};

use super::output::{self, Out};
use crate::config::{self, TINKERBELL};
use crate::yaml::to_yaml;

/// How long a definition may take until it is served.
const ESTABLISHED: Duration = Duration::from_secs(60);
/// What every object of an installation is called.
const NAME: &str = "dragonfly";

/// Where to, and what.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// Into the Kubernetes cluster of KUBECONFIG or ~/.kube/config
    #[arg(long, required = true)]
    kubernetes: bool,
    /// Backend of the server: kubernetes; or tinkerbell, for a cluster that runs Tinkerbell, which stays as it is
    #[arg(long, value_name = "STORE", default_value = "kubernetes", value_parser = ["kubernetes", TINKERBELL])]
    backend: String,
    /// Namespace of the server and its Secrets [default: dragonfly; with --backend tinkerbell: tinkerbell]
    #[arg(long, env = "DRAGONFLY_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// Container image with the dragonfly command; without, no server is started in the cluster
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Print what would be applied, as YAML
    #[arg(long)]
    dry_run: bool,
}

/// Prints the definitions.
pub(super) fn crds(out: &Out) -> anyhow::Result<()> {
    Ok(out.raw(&documents(&schema::crds()))?)
}

/// Applies everything, or prints it.
pub(super) async fn install(out: &Out, args: InstallArgs) -> anyhow::Result<()> {
    let InstallArgs { kubernetes: _, backend, namespace, image, dry_run } = args;
    let namespace = namespace.unwrap_or_else(|| config::namespace_of(&backend).to_owned());
    let definitions = definitions(&backend);
    let rest = objects(&namespace, &backend, image.as_deref());
    if dry_run {
        out.raw(&documents(&[definitions, rest].concat()))?;
        return Ok(());
    }
    let tinkerbell = backend == TINKERBELL;
    let options = ConnectOptions { namespace: namespace.clone(), tinkerbell, ..ConnectOptions::default() };
    let store = KubernetesStore::connect(options).await?;
    output::note(&format!("installing into {}, namespace {namespace}", store.server()));
    for object in definitions.iter().chain(&rest) {
        let now = store.apply(object).await?;
        let text = |pointer: &str| now.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        out.line(&format!("{} {}  applied", text("/kind"), text("/metadata/name")))?;
    }
    for definition in &definitions {
        store.established(definition, ESTABLISHED).await?;
    }
    output::note("every definition is established");
    match image {
        Some(_) => output::note(&format!("kubectl --namespace {namespace} rollout status deployment/{NAME}")),
        None => output::note(&format!(
            "no server was started in the cluster (--image starts one); anywhere: dragonfly --backend {backend}"
        )),
    }
    Ok(())
}

/// The definitions of those kinds that are ours.
fn definitions(backend: &str) -> Vec<Value> {
    let is_ours = |kind: &Kind| *kind != Kind::SECRET && (backend != TINKERBELL || *kind == Kind::NETWORK);
    Kind::ALL.into_iter().filter(is_ours).map(|kind| schema::crd(kind, GROUP)).collect()
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(to_yaml).collect::<Vec<_>>().join("---\n")
}

/// A DNS label, as Kubernetes wants it (RFC 1123).
fn namespace(text: &str) -> Result<String, String> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) || text.starts_with('-') || text.ends_with('-') {
        return Err("a namespace has 1 to 63 lower-case letters, digits and `-`, and no `-` at its ends".to_owned());
    }
    Ok(text.to_owned())
}

/// What stands beside the definitions: as little leave as a server needs, and the server.
fn objects(namespace: &str, backend: &str, image: Option<&str>) -> Vec<Value> {
    let verbs = ["get", "list", "watch", "create", "patch", "delete"];
    let is_tinkerbell = backend == TINKERBELL;
    let is_ours = |kind: &Kind| *kind != Kind::SECRET && (!is_tinkerbell || *kind == Kind::NETWORK);
    let kinds = Kind::ALL.into_iter().filter(is_ours);
    // A template has no status.
    let statuses = kinds.clone().filter(|kind| *kind != Kind::TEMPLATE).map(|kind| format!("{}/status", kind.plural));
    let kinds = kinds.map(|kind| kind.plural);
    let rbac = "rbac.authorization.k8s.io";
    let v1 = format!("{rbac}/v1");
    let labels = json!({ "app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": NAME });
    let inside = json!({ "name": NAME, "namespace": namespace, "labels": labels });
    let outside = json!({ "name": format!("{NAME}:{namespace}"), "labels": labels });
    let account = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": namespace }]);
    let mut inner = vec![
        json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": verbs }),
        // Who leads what among several servers.
        json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"] }),
    ];
    if is_tinkerbell {
        // Never their status: that is their controllers' to write.
        let theirs = [Kind::HARDWARE, Kind::TEMPLATE, Kind::WORKFLOW].map(|kind| kind.plural);
        inner.push(json!({ "apiGroups": [TINKERBELL_GROUP], "resources": theirs, "verbs": verbs }));
        let look = ["get", "list"];
        inner.push(json!({ "apiGroups": [TINKERBELL_BMC_GROUP], "resources": ["machines"], "verbs": look }));
    }
    let mut all = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside }),
        json!({
            "apiVersion": v1,
            "kind": "ClusterRole",
            "metadata": outside,
            "rules": [
                { "apiGroups": [GROUP], "resources": kinds.collect::<Vec<_>>(), "verbs": verbs },
                { "apiGroups": [GROUP], "resources": statuses.collect::<Vec<_>>(), "verbs": ["patch"] },
            ],
        }),
        json!({
            "apiVersion": v1,
            "kind": "ClusterRoleBinding",
            "metadata": outside,
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": outside["name"] },
            "subjects": account,
        }),
        json!({
            "apiVersion": v1,
            "kind": "Role",
            "metadata": inside,
            "rules": inner,
        }),
        json!({
            "apiVersion": v1,
            "kind": "RoleBinding",
            "metadata": inside,
            "roleRef": { "apiGroup": rbac, "kind": "Role", "name": NAME },
            "subjects": account,
        }),
    ];
    if let Some(image) = image {
        all.extend(server(namespace, backend, image, &inside));
    }
    all
}

/// The server: on a node's own network, since machines that boot ask by broadcast.
fn server(namespace: &str, backend: &str, image: &str, metadata: &Value) -> [Value; 2] {
    let port = config::PORT;
    let selector = json!({ "app.kubernetes.io/name": NAME });
    let probe =
        |path: &str| json!({ "httpGet": { "path": path, "port": port }, "periodSeconds": 10, "timeoutSeconds": 20 });
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let container = json!({
        "name": NAME,
        "image": image,
        "env": [
            variable("DRAGONFLY_BACKEND", backend),
            variable("DRAGONFLY_NAMESPACE", namespace),
            variable("DRAGONFLY_DATA", config::DATA_DIR),
        ],
        "ports": [{ "name": "https", "containerPort": port, "protocol": "TCP" }],
        "readinessProbe": probe("/readyz"),
        "livenessProbe": probe("/healthz"),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_RAW"] },
        },
        "volumeMounts": [{ "name": "data", "mountPath": config::DATA_DIR }],
    });
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": selector,
                "ports": [{ "name": "https", "port": port, "targetPort": port, "protocol": "TCP" }],
            },
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                // Two cannot have the same ports of one node.
                "strategy": { "type": "Recreate" },
                "selector": { "matchLabels": selector },
                "template": {
                    "metadata": { "labels": selector },
                    "spec": {
                        "serviceAccountName": NAME,
                        "hostNetwork": true,
                        "dnsPolicy": "ClusterFirstWithHostNet",
                        "containers": [container],
                        // Boot files, images, leases and logs are the node's.
                        "volumes": [{
                            "name": "data",
                            "hostPath": { "path": config::DATA_DIR, "type": "DirectoryOrCreate" },
                        }],
                    },
                },
            },
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_do_what_the_store_does_and_no_more() {
        let all = objects("rack", "kubernetes", None);
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
        let rules = &of("ClusterRole")["rules"];
        assert_eq!(rules[0]["resources"], json!(["hardware", "templates", "workflows", "networks"]));
        assert_eq!(rules[0]["apiGroups"], json!([GROUP]));
        assert_eq!(rules[1]["resources"], json!(["hardware/status", "workflows/status", "networks/status"]));
        assert_eq!(rules[1]["verbs"], json!(["patch"]));
        assert!(!rules.to_string().contains("secrets") && !rules.to_string().contains('*'), "{rules}");
        assert_eq!(of("Role")["metadata"]["namespace"], "rack");
        assert!(all.iter().all(|object| object["kind"] != "Deployment"));
        assert_eq!(objects("rack", "kubernetes", Some("registry/dragonfly:1")).len(), all.len() + 2);
    }

    #[test]
    fn in_tinkerbells_cluster_a_server_may_also_what_its_objects_need() {
        let all = objects("tinkerbell", TINKERBELL, Some("registry/dragonfly:1"));
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(of("ClusterRole")["rules"][0]["resources"], json!(["networks"]));
        let rules = of("Role")["rules"].as_array().unwrap();
        let rule = |group: &str| rules.iter().find(|rule| rule["apiGroups"] == json!([group])).unwrap();
        assert_eq!(rule(TINKERBELL_GROUP)["resources"], json!(["hardware", "templates", "workflows"]));
        assert_eq!(rule(TINKERBELL_BMC_GROUP)["verbs"], json!(["get", "list"]));
        assert!(!json!(rules).to_string().contains("/status"), "{rules:?}");
        let variables = &of("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(variables[0], json!({ "name": "DRAGONFLY_BACKEND", "value": "tinkerbell" }));
        let names: Vec<Value> = definitions(TINKERBELL).iter().map(|crd| crd["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["networks.dragonfly.computer"]);
        assert_eq!(definitions("kubernetes"), schema::crds());
    }

    #[test]
    fn definitions_are_yaml_that_every_version_reads_alike() {
        let text = documents(&schema::crds());
        // YAML 1.1 takes a bare one for a boolean.
        let dhcp = text.split("\"off\"").count();
        assert!(dhcp > 1 && !text.lines().any(|line| line.trim() == "- off" || line.trim() == "- on"), "{text}");
        assert_eq!(text.matches("kind: CustomResourceDefinition").count(), 4);
    }

    #[test]
    fn a_namespace_is_a_dns_label() {
        for (text, fits) in
            [("dragonfly", true), ("a-1", true), ("", false), ("A", false), ("-a", false), ("a/b", false)]
        {
            assert_eq!(namespace(text).is_ok(), fits, "{text}");
        }
    }
}
