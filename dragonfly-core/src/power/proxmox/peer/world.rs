//! What a cluster is made of, and who may do what with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use tokio::time::Instant;

use super::task::Task;
use crate::Mac;

/// Who may log in: an account (`root@pam`) or a token of one (`root@pam!name`).
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its password, or the token's secret.
    pub secret: String,
    /// What it may do: path and privilege, with all that is below the path.
    pub rights: BTreeSet<(String, String)>,
}

impl Account {
    /// One that may do these things at these paths, as `("/vms/101", "VM.Audit")`.
    pub fn new(name: &str, secret: &str, rights: &[(&str, &str)]) -> Self {
        let rights = rights.iter().map(|(path, right)| (path.to_string(), right.to_string())).collect();
        Self { name: name.to_owned(), secret: secret.to_owned(), rights }
    }

    /// One that may do everything that Dragonfly needs.
    pub fn able(name: &str, secret: &str) -> Self {
        let rights = ["VM.Audit", "VM.PowerMgmt", "VM.Config.Disk", "VM.Config.Options", "Sys.Audit"];
        Self::new(name, secret, &rights.map(|right| ("/", right)))
    }

    pub(super) fn may(&self, path: &str, right: &str) -> bool {
        self.rights.iter().any(|(at, granted)| {
            let is_below = path.strip_prefix(&**at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            granted == right && (at == "/" || is_below)
        })
    }
}

/// One VM.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The node that it is on.
    pub node: String,
    /// Its configuration, as in its file.
    pub config: BTreeMap<String, String>,
    /// What becomes of its configuration when it is stopped; `None` for what is taken out.
    pub pending: BTreeMap<String, Option<String>>,
    /// Whether it runs.
    pub is_on: bool,
    /// Whether its operating system goes when it is asked to.
    pub obeys: bool,
    /// The words with which its start fails.
    pub fails: Option<String>,
    /// Whether the cluster keeps it running (high availability): it is asked for a state, which comes later.
    pub is_kept: bool,
    pub(super) comes: Option<(Instant, bool)>,
    /// How often it was started, stopped and reset.
    pub done: Vec<&'static str>,
}

impl Machine {
    /// One that is off and has a disk, an empty CD drive and a network card, whose MAC ends with its number.
    pub fn new(vmid: u32, node: &str) -> Self {
        let [_, b, c, d] = vmid.to_be_bytes();
        let mac = Mac::new([0xbc, 0x24, 0x11, b, c, d]).to_string().to_uppercase();
        let config = [
            ("name", format!("vm{vmid}")),
            ("cores", "2".to_owned()),
            ("memory", "2048".to_owned()),
            ("scsihw", "virtio-scsi-single".to_owned()),
            ("scsi0", format!("local-lvm:vm-{vmid}-disk-0,iothread=1,size=32G")),
            ("ide2", "none,media=cdrom".to_owned()),
            ("net0", format!("virtio={mac},bridge=vmbr0,firewall=1")),
            ("boot", "order=scsi0;ide2;net0".to_owned()),
            ("smbios1", format!("uuid={}", Uuid::from_u128(u128::from(vmid) << 64 | 0xd0))),
        ];
        let config = config.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self {
            node: node.to_owned(),
            config,
            pending: BTreeMap::new(),
            is_on: false,
            obeys: true,
            fails: None,
            is_kept: false,
            comes: None,
            done: vec![],
        }
    }

    /// Changes a setting, at once.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// What it has, or will have when it is started the next time.
    pub(super) fn next(&self) -> BTreeMap<String, String> {
        let mut next = self.config.clone();
        for (key, value) in &self.pending {
            match value {
                Some(value) => drop(next.insert(key.clone(), value.clone())),
                None => drop(next.remove(key)),
            }
        }
        next
    }

    pub(super) fn start(&mut self) {
        self.config = self.next();
        self.pending.clear();
        self.is_on = true;
    }

    /// What a file of it would hash to, in as many digits as SHA-1 has.
    pub(super) fn digest(&self) -> String {
        let text = format!("{:?}{:?}", self.config, self.pending);
        hex::encode(&Sha256::digest(text)[..20])
    }
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct World {
    /// Its name; `None` for a node that is alone.
    pub cluster: Option<String>,
    /// Whether the node that answers is with the majority.
    pub has_quorum: bool,
    /// Its nodes by name, and whether they are there.
    pub nodes: BTreeMap<String, bool>,
    /// Those of them that the others see and that answer nobody.
    pub silent: BTreeSet<String>,
    /// Its VMs by number.
    pub vms: BTreeMap<u32, Machine>,
    /// Its containers.
    pub containers: BTreeSet<u32>,
    /// Who may log in.
    pub accounts: Vec<Account>,
    /// How long a task takes.
    pub task: Duration,
    /// How long it takes the cluster to bring a VM that it keeps running into the state that it was asked for.
    pub keeper: Duration,
    /// How long a task waits for another one's lock.
    pub lock: Duration,
    /// How much later it answers.
    pub delay: Duration,
    /// It has words for errors in its status lines alone, as older releases.
    pub is_terse: bool,
    /// It does not know `overrule-shutdown`, as releases before 8.1.
    pub is_old: bool,
    pub(super) tasks: Vec<Task>,
    /// The user and the CSRF token of each ticket.
    pub(super) tickets: BTreeMap<String, (String, String)>,
}

impl World {
    /// A cluster `lab` of `pve1`, `pve2` and `pve3` without VMs, with the accounts `root@pam` and
    /// `root@pam!dragonfly`, both with `secret`. Tasks take 150 ms.
    pub fn new() -> Self {
        Self {
            cluster: Some("lab".to_owned()),
            has_quorum: true,
            nodes: ["pve1", "pve2", "pve3"].map(|node| (node.to_owned(), true)).into(),
            silent: BTreeSet::new(),
            vms: BTreeMap::new(),
            containers: BTreeSet::new(),
            accounts: vec![Account::able("root@pam", "secret"), Account::able("root@pam!dragonfly", "secret")],
            task: Duration::from_millis(150),
            keeper: Duration::from_millis(600),
            lock: Duration::from_secs(10),
            delay: Duration::ZERO,
            is_terse: false,
            is_old: false,
            tasks: vec![],
            tickets: BTreeMap::new(),
        }
    }

    /// With VMs from this number on, one after the other on its nodes.
    #[must_use]
    pub fn with_vms(mut self, first: u32, count: u32) -> Self {
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        for (vmid, node) in (first..first.saturating_add(count)).zip(nodes.iter().cycle()) {
            self.vms.insert(vmid, Machine::new(vmid, node));
        }
        self
    }

    /// Every ticket ends.
    pub fn end_tickets(&mut self) {
        self.tickets.clear();
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
