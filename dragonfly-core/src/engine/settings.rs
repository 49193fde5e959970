//! How an engine behaves.

use std::time::Duration;

use url::Url;

use super::Runner;
#[cfg(feature = "proxmox")]
use super::clusters::ClusterSource;
use crate::boot::Discovery;
use crate::resource::power::PowerPolicy;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done with machines that nobody has seen.
    pub discovery: Discovery,
    /// Where machines reach this server; `None` takes the address that they asked.
    pub server_url: Option<Url>,
    /// Where machines reach other instances on the same store, that hold the same keys: goes into every identity.
    pub also: Vec<Url>,
    /// Which region this instance is in: it serves that region's Networks and those without one.
    pub region: Option<String>,
    /// SHA-256 of the server's public key, 64 hex digits: goes into every identity.
    pub server_pin: String,
    /// Who carries workflows out.
    pub runner: Runner,
    /// How many attempts a workflow makes by itself.
    pub attempts: u32,
    /// How long an authorisation lasts.
    pub authorisation_life: Duration,
    /// A machine whose agent is silent for this long while it runs a workflow has failed.
    pub agent_deadline: Duration,
    /// An installed system that was told to phone home and did not within this time has not booted.
    pub boot_deadline: Duration,
    /// What is done with a machine's power when something is assigned to it and nobody says otherwise.
    pub power: PowerPolicy,
    /// How often each controller is asked whether its machine is on; one that does not answer is asked ever less often.
    pub power_period: Duration,
    /// Whether agents make an account of our own on a machine's controller where none is known (`spec.bmc`). Whoever
    /// opens a session as a machine is then given its password: for provisioning networks without strangers.
    pub bmc_accounts: bool,
    /// How many machines there may be that registered themselves and that nobody has had anything to do with
    /// ([`Hardware::is_unclaimed`](crate::resource::Hardware::is_unclaimed)): with more, new ones are refused.
    pub unclaimed: usize,
    /// The most that all agents' logs may take on the disk, in bytes: then the oldest are deleted.
    pub log_bytes: u64,
    /// Proxmox clusters whose VMs are machines.
    #[cfg(feature = "proxmox")]
    pub clusters: Vec<ClusterSource>,
    /// How often each of them is looked at; one that does not answer is asked ever less often.
    #[cfg(feature = "proxmox")]
    pub cluster_period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            discovery: Discovery::Local,
            server_url: None,
            also: Vec::new(),
            region: None,
            server_pin: String::new(),
            runner: Runner::default(),
            attempts: 3,
            authorisation_life: Duration::from_secs(24 * 3600),
            agent_deadline: Duration::from_secs(15 * 60),
            boot_deadline: Duration::from_secs(30 * 60),
            power: PowerPolicy::Cycle,
            power_period: Duration::from_secs(5 * 60),
            bmc_accounts: false,
            unclaimed: 10_000,
            log_bytes: 1 << 30,
            #[cfg(feature = "proxmox")]
            clusters: Vec::new(),
            #[cfg(feature = "proxmox")]
            cluster_period: Duration::from_secs(60),
        }
    }
}
