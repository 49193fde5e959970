//! Proxmox VE (its API, version 2): `proxmox://10.0.0.2/qemu/101` is VM 101 of the cluster that 10.0.0.2 is in.
//!
//! Any node of the cluster answers for every VM; port 8006, or the one that the address names. The address says whom
//! to trust with `?tls=`, as for the other drivers that speak HTTPS: nothing for certificate authorities,
//! `sha256:HEX` for one certificate, `insecure`, or `off`.
//!
//! Numbers are given again: `?uuid=` names the VM by its SMBIOS UUID too, and one with the number and another UUID is
//! left alone. [`Found::address`] makes such an address.
//!
//! Who logs in is an API token (user `user@realm!name`, password the token's secret) or an account (user
//! `user@realm` and its password). It needs VM.Audit and VM.PowerMgmt on `/vms/ID`, for the boot device also
//! VM.Config.Disk and VM.Config.Options, and for discovery VM.Audit on `/vms` and Sys.Audit on `/`.
//!
//! [`Cluster`] finds the VMs of a cluster, and [`changes`] what has become of them.

mod answer;
mod changes;
mod client;
mod config;
mod discovery;
mod listing;
mod order;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod peer;
mod task;
mod vm;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;
use uuid::Uuid;

pub(crate) use changes::identities;
pub use changes::{Change, Known, Place, changes};
pub use config::ADOPTED;
pub use discovery::{Cluster, Found, Node, Snapshot};
pub use vm::Vm;

use client::{Client, Login};

use super::https::{Https, Roots, Trust};
use super::{Credential, PowerControl, PowerDriver, PowerError, Result};

/// The port of `pveproxy`.
const PORT: u16 = 8006;
/// Numbers of VMs (API: `pve-vmid`).
const VMIDS: std::ops::RangeInclusive<u32> = 100..=999_999_999;
/// Longer than Proxmox waits for a lock (10 s), or for another node.
const REQUEST: Duration = Duration::from_secs(35);

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    trust: Trust,
    /// `None` for the cluster itself.
    vmid: Option<u32>,
    /// The UUID that the VM must have.
    uuid: Option<Uuid>,
}

impl Address {
    fn parse(address: &Url) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidAddress { address: address.to_string(), reason };
        let like = "expected proxmox://HOST/qemu/VMID, as proxmox://10.0.0.2/qemu/101";
        let host = address.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong(like.to_owned()))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(PowerError::InvalidAddress {
                address: format!("proxmox://{host}"),
                reason: "user and password do not belong into an address; put them into a Secret".to_owned(),
            });
        }
        let vmid = match address.path().trim_end_matches('/') {
            "" => None,
            path => {
                let vmid = path.strip_prefix("/qemu/").ok_or_else(|| wrong(like.to_owned()))?;
                let number = vmid.parse().ok().filter(|number| VMIDS.contains(number));
                Some(number.ok_or_else(|| wrong(format!("`{vmid}` is no VM's number (100 to 999999999); {like}")))?)
            }
        };
        let port = address.port().unwrap_or(PORT);
        let mut parsed = Self { host: host.to_owned(), port, trust: Trust::Roots, vmid, uuid: None };
        for (key, value) in address.query_pairs() {
            match &*key {
                "tls" => parsed.trust = Trust::parse(&value, address)?,
                "uuid" => {
                    let uuid = value.parse().map_err(|_| wrong(format!("`uuid={value}` is no UUID")))?;
                    parsed.uuid = Some(uuid);
                }
                other => return Err(wrong(format!("`{other}` is not known; there are tls and uuid"))),
            }
        }
        Ok(parsed)
    }

    fn client(&self, credential: Option<&Credential>, roots: &Roots, parallel: usize) -> Result<Client> {
        let login = Login::new(credential.ok_or(PowerError::NoCredential)?)?;
        let base = format!("{}://{}:{}/", self.trust.scheme(), self.host, self.port);
        let base = base.parse().map_err(|error| PowerError::InvalidAddress {
            address: base,
            reason: format!("it makes no address of the API: {error}"),
        })?;
        Ok(Client::new(Https::pooled(base, &self.trust, roots, REQUEST, parallel)?, login))
    }
}

/// The driver for `proxmox://`.
#[derive(Debug, Clone, Default)]
pub struct Proxmox {
    roots: Roots,
}

impl Proxmox {
    /// Trusting also what the certificate authorities in a PEM file's text vouch for, as `/etc/pve/pve-root-ca.pem`.
    pub fn with_roots(self, pem: &str) -> Result<Self> {
        Ok(Self { roots: self.roots.with_pem(pem)? })
    }

    /// One VM; logs in and looks for it at the first call.
    pub fn vm(&self, address: &Url, credential: Option<&Credential>) -> Result<Vm> {
        let parsed = Address::parse(address)?;
        let vmid = parsed.vmid.ok_or_else(|| no_vm(address))?;
        Ok(Vm::new(parsed.client(credential, &self.roots, 1)?, vmid, parsed.uuid))
    }

    /// Whether an address is one of a cluster, as `proxmox://10.0.0.2`: what is wrong with it, without asking anybody.
    pub fn check_cluster(&self, address: &Url) -> Result<()> {
        if address.scheme() != self.scheme() {
            let reason = "expected proxmox://HOST, as proxmox://10.0.0.2".to_owned();
            return Err(PowerError::InvalidAddress { address: address.to_string(), reason });
        }
        match Address::parse(address)? {
            Address { vmid: None, uuid: None, .. } => Ok(()),
            _ => Err(PowerError::InvalidAddress {
                address: address.to_string(),
                reason: "it names a VM; a cluster is proxmox://HOST, as proxmox://10.0.0.2".to_owned(),
            }),
        }
    }

    /// The cluster at an address, as `proxmox://10.0.0.2`; a VM's address stands for its cluster too. Nothing is sent
    /// yet.
    pub fn cluster(&self, address: &Url, credential: Option<&Credential>) -> Result<Cluster> {
        let client = Address::parse(address)?.client(credential, &self.roots, discovery::PARALLEL)?;
        Ok(Cluster::new(client))
    }
}

fn no_vm(address: &Url) -> PowerError {
    let reason = "it names no VM; expected proxmox://HOST/qemu/VMID, as proxmox://10.0.0.2/qemu/101".to_owned();
    PowerError::InvalidAddress { address: address.to_string(), reason }
}

#[async_trait]
impl PowerDriver for Proxmox {
    fn scheme(&self) -> &'static str {
        "proxmox"
    }

    /// A cluster serves many machines at a time; each VM has a lock of its own there.
    fn calls_a_host(&self) -> usize {
        4
    }

    fn check(&self, address: &Url) -> Result<()> {
        Address::parse(address)?.vmid.map(drop).ok_or_else(|| no_vm(address))
    }

    fn with_authorities(&self, pem: &str) -> Result<Option<Arc<dyn PowerDriver>>> {
        Ok(Some(Arc::new(self.clone().with_roots(pem)?)))
    }

    async fn open(&self, address: &Url, credential: Option<&Credential>) -> Result<Arc<dyn PowerControl>> {
        Ok(Arc::new(self.vm(address, credential)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| Address::parse(&text.parse().unwrap());
        let plain = Address { host: "10.0.0.2".into(), port: 8006, trust: Trust::Roots, vmid: Some(101), uuid: None };
        assert_eq!(parse("proxmox://10.0.0.2/qemu/101").unwrap(), plain);
        let uuid = Some(Uuid::from_u128(7));
        let other =
            Address { host: "[fd00::2]".into(), port: 443, trust: Trust::Insecure, vmid: Some(999_999_999), uuid };
        let text = "proxmox://[fd00::2]:443/qemu/999999999/?tls=insecure&uuid=00000000-0000-0000-0000-000000000007";
        assert_eq!(parse(text).unwrap(), other);
        assert_eq!(parse("proxmox://pve1.example").unwrap().vmid, None);
        for (text, why) in [
            ("proxmox:///qemu/101", "expected proxmox://HOST/qemu/VMID"),
            ("proxmox://a/lxc/101", "expected proxmox://HOST/qemu/VMID"),
            ("proxmox://a/qemu/99", "`99` is no VM's number"),
            ("proxmox://a/qemu/1000000000", "is no VM's number"),
            ("proxmox://a/qemu/101/config", "`101/config` is no VM's number"),
            ("proxmox://a/qemu/101?node=pve1", "`node` is not known; there are tls and uuid"),
            ("proxmox://a/qemu/101?uuid=7z", "`uuid=7z` is no UUID"),
            ("proxmox://a/qemu/101?tls=yes", "`tls=yes` is not known"),
            ("proxmox://root:hunter2@a/qemu/101", "do not belong into an address"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = Proxmox::default().check(&"proxmox://a".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("it names no VM"), "{error}");
    }
}
