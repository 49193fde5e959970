//! What can be asked for.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures this server beside others, in network namespaces of its own
#[derive(Debug, Parser)]
#[command(name = "bench-peers")]
pub(crate) struct Bench {
    /// What is measured
    #[arg(value_enum)]
    pub(crate) what: What,
    /// Write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// How many machines the store holds, one measurement for each number
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [100, 10_000, 100_000])]
    pub(crate) sizes: Vec<usize>,
    /// How many times ours and the peers take turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) runs: usize,
    /// How many machines go from their first packet to Ready at once; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) machines: usize,
    /// With `store`: also the Kubernetes API server that this file leads to; definitions are made there for the time
    #[arg(long, value_name = "KUBECONFIG")]
    pub(crate) kubernetes: Option<PathBuf>,
    /// With `store`: also Kubernetes, of this program (.ci/kubernetes builds one) and an etcd started for the time
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubernetes")]
    pub(crate) kube_apiserver: Option<PathBuf>,
    /// Measure this server instead of building one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) dragonfly: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Boot scripts a second, beside nginx with a static file of the same size
    Http,
    /// Start, memory, pages, DHCP, watches with many machines; many machines from power-on to Ready
    Fleet,
    /// 500 management controllers at once, beside a loop over ipmitool
    Power,
    /// The embedded store, beside SQLite with the same promises and Kubernetes as it is
    Store,
}
