//! `[[proxmox]]`: the clusters whose VMs are machines.

use dragonfly_core::engine::ClusterSource;
use dragonfly_core::name;
use dragonfly_core::power::PowerError;
use dragonfly_core::power::proxmox::Proxmox;
use url::Url;

use super::ConfigError;

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Its address is none of a cluster.
    #[error(transparent)]
    Address(PowerError),
    /// Its address stands in another entry too.
    #[error("{0} stands there twice; one node of each cluster is enough")]
    Twice(Url),
    /// No Secret can have this name.
    #[error("`{0}` cannot be the name of a Secret; write the name of one with the keys `username` and `password`")]
    Secret(String),
}

pub(super) fn check(clusters: &[ClusterSource]) -> Result<(), ConfigError> {
    for (index, cluster) in clusters.iter().enumerate() {
        let others = clusters.get(..index).unwrap_or_default();
        check_one(cluster, others).map_err(|source| ConfigError::Cluster { number: index + 1, source })?;
    }
    Ok(())
}

fn check_one(cluster: &ClusterSource, others: &[ClusterSource]) -> Result<(), ClusterError> {
    let ClusterSource { address, secret } = cluster;
    Proxmox::default().check_cluster(address).map_err(ClusterError::Address)?;
    if others.iter().any(|other| other.address == *address) {
        return Err(ClusterError::Twice(address.clone()));
    }
    name::check(secret).map_err(|_| ClusterError::Secret(secret.clone()))
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{causes, read};

    #[test]
    fn clusters_are_read_and_judged() {
        let entry =
            |address: &str, secret: &str| format!("[[proxmox]]\naddress = \"{address}\"\nsecret = \"{secret}\"\n");
        let good =
            [entry("proxmox://10.0.0.2?tls=insecure", "pve"), entry("proxmox://pve9.example:443", "pve")].concat();
        let clusters = read(&good).unwrap().settle().unwrap().clusters;
        assert_eq!((clusters.len(), clusters[1].address.host_str()), (2, Some("pve9.example")));
        for (text, want) in [
            (entry("https://10.0.0.2:8006", "pve"), "entry 1 of [[proxmox]] is not right: "),
            (entry("proxmox://10.0.0.2/qemu/101", "pve"), "it names a VM"),
            (entry("proxmox://root:hunter2@10.0.0.2", "pve"), "do not belong into an address"),
            (entry("proxmox://10.0.0.2?tls=maybe", "pve"), "`tls=maybe` is not known"),
            (
                [good.as_str(), &entry("proxmox://pve9.example:443", "b")].concat(),
                "entry 3 of [[proxmox]] is not right: proxmox://pve9.example:443 stands there twice",
            ),
            (entry("proxmox://10.0.0.2", "Not A Name"), "cannot be the name of a Secret"),
        ] {
            let error = read(&text).unwrap().settle().unwrap_err();
            assert!(causes(&error).contains(want), "{text}: {}", causes(&error));
            assert!(!causes(&error).contains("hunter2"));
        }
        let error = read("[[proxmox]]\naddress = \"proxmox://10.0.0.2\"").unwrap_err();
        assert!(causes(&error).contains("secret"), "{}", causes(&error));
        let error = read(&entry("10.0.0.2", "pve")).unwrap_err();
        assert!(causes(&error).contains("address = "), "{}", causes(&error));
    }
}
