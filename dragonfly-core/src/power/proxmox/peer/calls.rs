//! What each path answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::schema::{Method, Parameters};
use super::task::Job;
use super::world::{Account, Machine, World};

/// Why a call is refused: status, words, and what is wrong with which parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) words: String,
    pub(super) errors: BTreeMap<String, String>,
}

pub(super) fn refusal(status: u16, words: impl Into<String>) -> Refusal {
    Refusal { status, words: words.into(), errors: BTreeMap::new() }
}

pub(super) fn no_file(node: &str, vmid: u32) -> String {
    format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")
}

/// How long a shutdown waits unless it is told.
const SHUTDOWN: Duration = Duration::from_secs(180);
/// Settings that hold at once, also while the VM runs.
const AT_ONCE: [&str; 5] = ["description", "name", "onboot", "tags", "lock"];
/// Settings that are numbers.
const NUMBERS: [&str; 3] = ["cores", "sockets", "template"];

impl World {
    /// Carries out a call that is of the schema and comes from this account.
    pub(super) fn call(&mut self, method: &Method, account: &Account, given: &Parameters) -> Result<Value, Refusal> {
        self.settle();
        self.permit(method, account, given)?;
        if method.proxied {
            self.reach(text(given, "node"))?;
        }
        let mut errors = method.check_parameters(given);
        if self.is_old && given.contains_key("overrule-shutdown") {
            let told = "property is not defined in schema and the schema does not allow additional properties";
            errors.insert("overrule-shutdown".to_owned(), told.to_owned());
        }
        if !errors.is_empty() {
            return Err(Refusal { errors, ..refusal(400, "Parameter verification failed.") });
        }
        match &*method.path {
            "/version" => Ok(json!({ "version": "8.4.5", "release": "8.4", "repoid": "57892e8e686cb35b" })),
            "/access/permissions" => Ok(permissions(account, given)),
            "/cluster/status" => Ok(self.status()),
            "/cluster/resources" => Ok(self.resources(account, given)),
            "/nodes" => Ok(self.nodes.iter().map(|(name, online)| node(name, *online)).collect()),
            "/nodes/{node}/qemu" => Ok(self.on_node(account, text(given, "node"))),
            "/nodes/{node}/tasks/{upid}/status" => self.task_status(account, given),
            _ => self.of_vm(method, account, given),
        }
    }

    /// By the schema's `check`.
    fn permit(&self, method: &Method, account: &Account, given: &Parameters) -> Result<(), Refusal> {
        let (Some(path), Some(rights)) = (method.check[1].as_str(), method.check[2].as_array()) else { return Ok(()) };
        let path = path.replace("{vmid}", text(given, "vmid"));
        let rights: Vec<&str> = rights.iter().filter_map(Value::as_str).collect();
        let has = |right: &&str| account.may(&path, right);
        let is_any = method.check[3] == "any";
        let missing = match is_any {
            true if rights.iter().any(&has) => None,
            true => Some(rights.join("|")),
            false => rights.iter().find(|right| !has(right)).map(ToString::to_string),
        };
        missing.map_or(Ok(()), |right| Err(forbidden(&path, &right)))
    }

    fn reach(&self, node: &str) -> Result<(), Refusal> {
        match self.nodes.get(node) {
            Some(true) if !self.silent.contains(node) => Ok(()),
            Some(_) => Err(refusal(595, "No route to host")),
            None => {
                let why = "Name or service not known";
                let words = format!("hostname lookup '{node}' failed - failed to get address info for: {node}: {why}");
                Err(refusal(500, words))
            }
        }
    }

    fn status(&self) -> Value {
        let mut all = Vec::new();
        if let Some(name) = &self.cluster {
            all.push(json!({ "type": "cluster", "id": "cluster", "name": name, "version": 3,
                "nodes": self.nodes.len(), "quorate": u8::from(self.has_quorum) }));
        }
        all.extend(self.nodes.iter().enumerate().map(|(n, (name, online))| {
            json!({ "type": "node", "id": format!("node/{name}"), "name": name, "nodeid": n + 1,
                "ip": format!("192.0.2.{}", n + 1), "online": u8::from(*online), "local": u8::from(n == 0), "level": "" })
        }));
        all.into()
    }

    fn resources(&self, account: &Account, given: &Parameters) -> Value {
        let mut all = Vec::new();
        let kind = given.get("type").map(String::as_str);
        if matches!(kind, None | Some("vm")) {
            for (vmid, vm) in self.vms.iter().filter(|(vmid, _)| account.may(&format!("/vms/{vmid}"), "VM.Audit")) {
                let mut entry = json!({ "id": format!("qemu/{vmid}"), "type": "qemu", "vmid": vmid, "node": vm.node,
                    "template": u8::from(vm.config.contains_key("template")), "status": "unknown" });
                // Of a VM whose node is silent, only its file is known.
                if self.nodes.get(&vm.node) == Some(&true) {
                    entry["status"] = word(vm).into();
                    entry["uptime"] = (u8::from(vm.is_on) * 60).into();
                    entry["maxcpu"] = 2.into();
                    copy(&mut entry, vm, &["name", "tags", "lock"]);
                }
                all.push(entry);
            }
            all.extend(self.containers.iter().map(|vmid| {
                json!({ "id": format!("lxc/{vmid}"), "type": "lxc", "vmid": vmid, "node": "pve1", "status": "stopped" })
            }));
        }
        if matches!(kind, None | Some("node")) {
            all.extend(self.nodes.iter().map(|(name, online)| {
                json!({ "id": format!("node/{name}"), "type": "node", "node": name,
                    "status": if *online { "online" } else { "offline" } })
            }));
        }
        all.into()
    }

    fn on_node(&self, account: &Account, node: &str) -> Value {
        let all =
            self.vms.iter().filter(|(vmid, vm)| vm.node == node && account.may(&format!("/vms/{vmid}"), "VM.Audit"));
        all.map(|(vmid, vm)| {
            let mut entry = json!({ "vmid": vmid, "status": word(vm), "cpus": 2, "maxmem": 2u64 << 30 });
            copy(&mut entry, vm, &["name", "tags", "lock"]);
            entry
        })
        .collect()
    }

    fn task_status(&self, account: &Account, given: &Parameters) -> Result<Value, Refusal> {
        let node = text(given, "node");
        let task = self.tasks.iter().find(|task| task.upid == text(given, "upid"));
        let task = task.ok_or_else(|| refusal(500, "no such task"))?;
        let path = format!("/nodes/{node}");
        if task.user != account.name && !account.may(&path, "Sys.Audit") {
            return Err(forbidden(&path, "Sys.Audit"));
        }
        Ok(task.status())
    }

    fn of_vm(&mut self, method: &Method, account: &Account, given: &Parameters) -> Result<Value, Refusal> {
        let node = text(given, "node").to_owned();
        let vmid: u32 = text(given, "vmid").parse().map_err(|_| refusal(500, "no number of a VM"))?;
        let longest = given.get("timeout").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let longest = longest.unwrap_or(SHUTDOWN);
        let overrules = given.get("overrule-shutdown").is_some_and(|flag| flag == "1");
        let path = method.path.strip_prefix("/nodes/{node}/qemu/{vmid}").unwrap_or_default();
        let is_kept = self.vms.get(&vmid).is_some_and(|vm| vm.is_kept);
        // The file is read by the task.
        let job = match path {
            "/status/stop" if is_kept && overrules => {
                let errors = [("overrule-shutdown".to_owned(), "Not applicable for HA resources.".to_owned())].into();
                return Err(Refusal { errors, ..refusal(400, "Parameter verification failed.") });
            }
            "/status/start" if is_kept => Some(Job::Keep),
            "/status/stop" | "/status/shutdown" if is_kept => Some(Job::Release),
            "/status/start" => Some(Job::Start),
            "/status/stop" => Some(Job::Stop),
            "/status/shutdown" => Some(Job::Shutdown),
            _ => None,
        };
        if let Some(job) = job {
            return Ok(self.begin(job, &node, vmid, &account.name, overrules, longest).into());
        }
        let vm = self.vms.get_mut(&vmid).filter(|vm| vm.node == node);
        let vm = vm.ok_or_else(|| refusal(500, no_file(&node, vmid)))?;
        match (&*method.verb, path) {
            ("POST", "/status/reset") if !vm.is_on => Err(refusal(500, format!("VM {vmid} not running"))),
            ("POST", "/status/reset") => Ok(self.begin(Job::Reset, &node, vmid, &account.name, false, longest).into()),
            ("GET", "/status/current") => Ok(current(vmid, vm)),
            ("GET", "/pending") => Ok(pending(vm)),
            ("PUT", "/config") => write(vm, vmid, account, given).map(|()| Value::Null),
            ("GET", "/config") => Ok(config(vm, given.get("current").is_some_and(|flag| flag == "1"))),
            (verb, path) => Err(refusal(501, format!("Method '{verb} {path}' not implemented"))),
        }
    }
}

fn text<'a>(given: &'a Parameters, name: &str) -> &'a str {
    given.get(name).map(String::as_str).unwrap_or_default()
}

fn forbidden(path: &str, right: &str) -> Refusal {
    refusal(403, format!("Permission check failed ({path}, {right})"))
}

fn word(vm: &Machine) -> &'static str {
    if vm.is_on { "running" } else { "stopped" }
}

fn copy(to: &mut Value, vm: &Machine, keys: &[&str]) {
    for key in keys {
        if let Some(value) = vm.config.get(*key) {
            to[*key] = value.as_str().into();
        }
    }
}

fn node(name: &str, online: bool) -> Value {
    json!({ "node": name, "status": if online { "online" } else { "offline" }, "level": "" })
}

fn permissions(account: &Account, given: &Parameters) -> Value {
    let at = given.get("path").map_or("/", String::as_str);
    let rights: BTreeSet<&String> = account.rights.iter().map(|(_, right)| right).collect();
    let granted = rights.into_iter().filter(|right| account.may(at, right));
    let granted: Map<String, Value> = granted.map(|right| (right.clone(), 1.into())).collect();
    json!({ at: granted })
}

fn current(vmid: u32, vm: &Machine) -> Value {
    let mut status = json!({ "vmid": vmid, "status": word(vm), "qmpstatus": word(vm), "ha": { "managed": 0 },
        "cpus": 2, "maxmem": 2u64 << 30, "uptime": u8::from(vm.is_on) * 60 });
    copy(&mut status, vm, &["name", "tags", "lock"]);
    status
}

fn value(key: &str, text: &str) -> Value {
    match text.parse::<u64>() {
        Ok(number) if NUMBERS.contains(&key) => number.into(),
        // It is kept as comments, a line each.
        _ if key == "description" => format!("{}\n", text.trim_end_matches('\n')).into(),
        _ => text.into(),
    }
}

fn config(vm: &Machine, is_current: bool) -> Value {
    let all = if is_current { vm.config.clone() } else { vm.next() };
    let mut config: Map<String, Value> = all.iter().map(|(key, text)| (key.clone(), value(key, text))).collect();
    config.insert("digest".to_owned(), vm.digest().into());
    config.into()
}

fn pending(vm: &Machine) -> Value {
    let keys: BTreeSet<&String> = vm.config.keys().chain(vm.pending.keys()).collect();
    let entry = |key: &String| {
        let mut entry = json!({ "key": key });
        if let Some(value) = vm.config.get(key) {
            entry["value"] = value.as_str().into();
        }
        match vm.pending.get(key) {
            Some(Some(value)) => entry["pending"] = value.as_str().into(),
            Some(None) => entry["delete"] = 1.into(),
            None => {}
        }
        entry
    };
    keys.into_iter().map(entry).collect()
}

/// The right that changing a setting needs; of others than these nobody here has it.
fn right_for(key: &str) -> &'static str {
    match key {
        "boot" | "bootdisk" => "VM.Config.Disk",
        "description" | "name" | "tags" | "onboot" | "bios" => "VM.Config.Options",
        _ => "VM.Config.HWType",
    }
}

fn write(vm: &mut Machine, vmid: u32, account: &Account, given: &Parameters) -> Result<(), Refusal> {
    let list = |text: &str| -> Vec<String> {
        text.split([',', ';', ' ']).filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect()
    };
    let delete = list(text(given, "delete"));
    let set: Vec<(&String, &String)> =
        given.iter().filter(|(key, _)| !["node", "vmid", "digest", "delete"].contains(&key.as_str())).collect();
    let path = format!("/vms/{vmid}");
    for key in delete.iter().chain(set.iter().map(|(key, _)| *key)) {
        let right = right_for(key);
        if !account.may(&path, right) {
            return Err(forbidden(&path, right));
        }
    }
    if given.get("digest").is_some_and(|digest| *digest != vm.digest()) {
        return Err(refusal(500, "checksum mismatch (file change by other user?)"));
    }
    if let Some(lock) = vm.config.get("lock") {
        return Err(refusal(500, format!("VM is locked ({lock})")));
    }
    if let Some((key, _)) = set.iter().find(|(key, _)| delete.contains(key)) {
        let told = format!("you can't use '-{key}' and -delete {key}' at the same time");
        return Err(Refusal {
            errors: [("delete".to_owned(), told)].into(),
            ..refusal(400, "Parameter verification failed.")
        });
    }
    if let Some(order) = text(given, "boot").strip_prefix("order=") {
        let next = vm.next();
        if let Some(device) = list(order).iter().find(|device| !next.contains_key(*device) || delete.contains(device)) {
            return Err(refusal(500, format!("invalid bootorder: device '{device}' does not exist'")));
        }
        if next.contains_key("bootdisk") {
            change(vm, "bootdisk", None);
        }
    }
    for key in &delete {
        if vm.next().contains_key(key) {
            change(vm, key, None);
        }
    }
    for (key, value) in set {
        change(vm, key, Some(value.clone()));
    }
    Ok(())
}

fn change(vm: &mut Machine, key: &str, value: Option<String>) {
    if vm.is_on && !AT_ONCE.contains(&key) {
        // What is as it was is not pending.
        if vm.config.get(key) == value.as_ref() {
            vm.pending.remove(key);
        } else {
            vm.pending.insert(key.to_owned(), value);
        }
        return;
    }
    match value {
        Some(value) => drop(vm.config.insert(key.to_owned(), value)),
        None => drop(vm.config.remove(key)),
    }
}
