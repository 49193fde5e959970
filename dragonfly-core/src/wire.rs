//! What the agent and the server say to each other, as JSON over TLS.
//!
//! Unknown fields are ignored on both sides. A message of a released version never changes its
//! meaning: `tests/wire_v1.rs` holds golden files, and when one of them fails the file is right.
//!
//! ```text
//! POST /dragonfly/v1/agent/hello   Authorization: Bearer <token>    Hello  -> Welcome
//! POST /dragonfly/v1/agent/work    Authorization: Bearer <session>  Ask    -> Orders   (waits up to 30 s)
//! POST /dragonfly/v1/agent/report  Authorization: Bearer <session>  Report -> Heard
//! POST /dragonfly/v1/agent/log     Authorization: Bearer <session>  text, ?offset=N -> 204
//! POST /dragonfly/v1/agent/bmc-account  Authorization: Bearer <session>  BmcAccountReport -> Heard
//! ```
//!
//! A hello without a boot token that is good for its card (none, a guess, another card's, one of more than ten minutes ago) is
//! answered 403, in the same words for all of them; one whose token was used, 403; one for whose machine another agent speaks,
//! 409. After a 403 an agent asks for a new identity. The other routes answer 401 where the session has ended: an agent then says
//! hello again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::Mac;
use crate::action::{Permit, Progress};
use crate::clock::Timestamp;
use crate::few::few;
use crate::inventory::Inventory;
use crate::resource::hardware::{Anchors, ExistingOs};
use crate::secret::SecretString;
use crate::workflow::StepEvent;

/// The oldest protocol that this code speaks.
pub const MIN: u32 = 1;
/// The newest protocol that this code speaks.
pub const CURRENT: u32 = 1;

/// The protocols one side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

impl Versions {
    /// What this code speaks.
    pub const OURS: Self = Self { min: MIN, max: CURRENT };

    /// The newest that both speak.
    pub fn pick(self, other: Self) -> Option<u32> {
        let best = self.max.min(other.max);
        (best >= self.min && best >= other.min).then_some(best)
    }
}

/// `/dragonfly/identity.json` in the agent's RAM disk: read once, then unlinked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Where the server speaks TLS: `https://192.168.77.1:3000`.
    pub server: Url,
    /// Where other instances of it do, with the same key: asked in turn when one does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Url>,
    /// SHA-256 of the server's public key (SubjectPublicKeyInfo), 64 hex digits. Nothing else is trusted.
    pub pin: String,
    /// Opens one session; ten minutes.
    #[serde(serialize_with = "crate::secret::expose")]
    pub token: SecretString,
    /// The card that the machine booted from.
    pub mac: Mac,
    /// The server's time when it was made.
    pub time: Timestamp,
}

/// The agent says what machine it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The protocols the agent speaks.
    pub protocol: Versions,
    /// The agent's version.
    pub agent: String,
    /// One per boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Uuid,
    /// The card that the machine booted from.
    pub mac: Mac,
    /// What tells it from other machines; placeholders included, the server judges.
    pub anchors: Anchors,
    /// What the agent saw.
    pub inventory: Inventory,
    /// An operating system on its disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_os: Option<ExistingOs>,
    /// Seconds from the kernel's start to this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// The machine's own clock less the server's, in seconds, before the agent set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_seconds: Option<i64>,
}

/// The server says who the machine is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The protocol to speak from here on.
    pub protocol: u32,
    /// The machine's name.
    pub machine: String,
    /// The same with capitals.
    pub display_name: String,
    /// Opens everything else in this session.
    #[serde(serialize_with = "crate::secret::expose")]
    pub session: SecretString,
    /// The server's time.
    pub time: Timestamp,
    /// How often the agent is to be heard, in seconds.
    pub heartbeat_seconds: u32,
    /// The account that the agent is to make on the machine's own management controller; absent where it is to leave
    /// that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_account: Option<BmcAccount>,
}

/// An account on a machine's own management controller: administrator of its LAN channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BmcAccount {
    /// User name, 16 bytes at most.
    pub username: String,
    /// Password, 16 bytes at most. The agent takes it out of everything that it shows, logs or reports.
    #[serde(serialize_with = "crate::secret::expose")]
    pub password: SecretString,
}

/// What came of [`Welcome::bmc_account`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BmcAccountReport {
    /// As in the account.
    pub username: String,
    /// Which slot of the controller's user table has it now; absent when none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
    /// Whether the controller has confirmed the password. One that cannot test passwords confirms none.
    #[serde(default)]
    pub verified: bool,
    /// Why there is no account; absent when there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The agent asks for work; also its sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// How long the server may wait for something to do, in seconds; 30 at most.
    #[serde(default)]
    pub wait_seconds: u32,
}

/// What the agent is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "order")]
#[non_exhaustive]
pub enum Orders {
    /// Ask again.
    Wait {
        /// Why there is nothing to do, for the console.
        reason: String,
    },
    /// Run this.
    Execute(Box<Work>),
    /// Boot the machine's own disk; nothing on it is to change.
    BootLocal {
        /// Why, for the console.
        reason: String,
    },
    /// Leave through firmware and ask again from there.
    Reboot {
        /// Why, for the console.
        reason: String,
    },
}

/// One attempt of one workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Its name.
    pub workflow: String,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// What may be destroyed.
    pub permit: Permit,
    /// Every step, rendered for this machine.
    pub steps: Vec<WorkStep>,
    /// The secrets that stand in `steps`. The agent takes them out of everything that it shows, logs or
    /// reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "crate::secret::expose_all")]
    pub secrets: Vec<SecretString>,
}

/// One step of an attempt.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkStep {
    /// As in the template.
    pub name: String,
    /// Which action.
    pub action: String,
    /// Its parameters. May hold secrets: never logged, never written to a disk that is not the target.
    pub with: Value,
    /// How long it may take, in seconds.
    pub timeout_seconds: u64,
    /// It was done in an earlier attempt: verify, and skip it if it still holds.
    #[serde(default)]
    pub done_before: bool,
}

// By hand: the parameters may hold secrets.
impl std::fmt::Debug for WorkStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkStep").field("name", &self.name).field("action", &self.action).finish_non_exhaustive()
    }
}

/// The agent says how far it has come. `(workflow, attempt, step, generation)` names the try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which workflow.
    pub workflow: String,
    /// Which attempt.
    pub attempt: u32,
    /// Under which authorisation.
    pub generation: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: ReportKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "report")]
#[non_exhaustive]
pub enum ReportKind {
    /// The agent has planned every step and begins. Nothing is destroyed before this is acknowledged.
    Began,
    /// Something about one step.
    Step {
        /// Its place in the list, from 0.
        index: usize,
        /// What.
        event: StepEvent,
        /// How much is done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<Progress>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// The steps do not make a plan; nothing has been done.
    Refused {
        /// Why.
        failure: Failure,
    },
    /// Every step is done up to the one that leaves. The agent leaves only when this is acknowledged.
    HandOver,
}

/// An error that travels: read after a crash, by another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What failed and what to do, for a person.
    pub message: String,
    /// The causes, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<256, _, _>")]
    pub causes: Vec<String>,
    /// What it is, for programs; absent where it has no name, and from agents that do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureKind>,
}

/// What a failure is, whatever its words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The image's digest is not the template's.
    ImageDigest,
    /// There is no such image at its URL.
    ImageMissing,
    /// The image's server refuses to give it.
    ImageRefused,
    /// The image is not one that can be used here: damaged, empty, replaced meanwhile, of another sector size.
    ImageUnfit,
    /// It is larger than the place that it is for.
    TooLarge,
    /// A file system has no room left.
    NoSpace,
    /// A certificate is not valid at this time.
    CertificateTime,
    /// What was to be fetched is out of reach.
    Unreachable,
    /// The agent has not been heard for too long.
    AgentSilent,
    /// The machine restarts in the middle of its attempts.
    Restarts,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl FailureKind {
    /// What an error is, from its own type or from those behind it; the nearest that knows decides.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| (*error).source()).find_map(Self::of_one)
    }

    fn of_one(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        use crate::action::{ActionError, ImageError};
        if let Some(error) = error.downcast_ref::<ActionError>() {
            return error.kind();
        }
        if let Some(error) = error.downcast_ref::<ImageError>() {
            return Some(match error {
                ImageError::NotFound { .. } => Self::ImageMissing,
                ImageError::Refused { .. } => Self::ImageRefused,
                ImageError::Changed { .. } => Self::ImageUnfit,
                ImageError::Untimely { .. } => Self::CertificateTime,
                ImageError::NoRange { .. } | ImageError::Io { .. } => Self::Unreachable,
            });
        }
        let io = error.downcast_ref::<std::io::Error>()?;
        matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            .then_some(Self::NoSpace)
    }
}

impl Failure {
    /// An error and its causes.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |e| e.source()).map(ToString::to_string).collect();
        Self { message: error.to_string(), causes, kind: FailureKind::of(error) }
    }

    /// A failure without a cause behind it.
    pub fn message(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), kind: None }
    }

    /// The same, of this kind.
    #[must_use]
    pub fn of_kind(self, kind: FailureKind) -> Self {
        Self { kind: Some(kind), ..self }
    }
}

/// The server has made the report durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "heard")]
#[non_exhaustive]
pub enum Heard {
    /// Go on.
    GoOn,
    /// Stop: called off, or no longer authorised.
    Stop {
        /// Why.
        reason: String,
    },
}

/// An error answer: RFC 9457 problem+json, as far as an agent reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// One line.
    pub title: String,
    /// What happened and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whatever else the server says.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}
