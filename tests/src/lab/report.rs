//! What a run came to, for programs.

use serde::Serialize;

use super::stages::Stage;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machines: Vec<MachineReport>,
    pub(crate) host: Host,
    pub(crate) server: ServerReport,
}

#[derive(Debug, Serialize)]
pub(crate) struct MachineReport {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) firmware: &'static str,
    pub(crate) ready: bool,
    pub(crate) error: Option<String>,
    pub(crate) stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) kvm: bool,
    pub(crate) cores: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct ServerReport {
    /// The most memory that the server had.
    pub(crate) max_rss_bytes: u64,
    /// Bytes that left over the bridge; nearly all of them are HTTP.
    pub(crate) http_bytes_sent: u64,
}

/// What became of each wrong image and template.
#[derive(Debug, Default, Serialize)]
pub(crate) struct BadImageReport {
    pub(crate) cases: Vec<CaseReport>,
    /// What is not as it must be; empty when all is well.
    pub(crate) wrong: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) name: &'static str,
    /// Refused as it stands, before any machine heard of it; else it failed on the machine.
    pub(crate) refused: bool,
    pub(crate) error: String,
    /// The whole disk of the machine that it was meant for, compared with zeros afterwards.
    pub(crate) disk_all_zeros: bool,
}

/// What `dragonfly why` made of each injected fault.
#[derive(Debug, Serialize)]
pub(crate) struct WhyReport {
    pub(crate) rows: Vec<WhyRow>,
}

/// One injected fault.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhyRow {
    pub(crate) fault: &'static str,
    pub(crate) machine: String,
    pub(crate) firmware: &'static str,
    /// From the fault to its name.
    pub(crate) seconds: f64,
    pub(crate) says: String,
    pub(crate) evidence: Vec<String>,
    pub(crate) next: String,
    /// What else it was taken for; must be empty.
    pub(crate) others: Vec<String>,
    pub(crate) others_said: Vec<Vec<String>>,
    /// What became of the machine when the fault had been mended.
    pub(crate) afterwards: &'static str,
    pub(crate) error: Option<String>,
}
