//! What a call on the engine can answer instead of a result.

use crate::action::Problem;
use crate::lifecycle::IllegalPhase;
use crate::power::PowerError;
use crate::resource::DecodeError;
use crate::resource::manifest::ManifestError;
use crate::secret::SealError;
use crate::store::StoreError;
use crate::workflow::IllegalRun;

/// Why a call on the engine failed, by what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no such object or machine.
    #[error("{what} does not exist{}", after_semicolon(hint))]
    NotFound {
        /// Which.
        what: String,
        /// What was perhaps meant, or how to see what there is; may be empty.
        hint: String,
    },
    /// What was given is wrong. Nothing has been changed.
    #[error("{}", told(.0))]
    Invalid(Vec<Problem>),
    /// The text is not a manifest. Nothing has been changed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It cannot be done to this object as it is now.
    #[error("{why}")]
    Illegal {
        /// Why not, and what can be done instead.
        why: String,
    },
    /// The machine is protected.
    #[error("{machine} is protected; take the protection back first: dragonfly protect {machine} --off")]
    Protected {
        /// Which machine.
        machine: String,
    },
    /// Something on the machine would be lost and nobody said that it may be.
    #[error("{machine} carries data: {what}; say which disks may be overwritten, or all")]
    WouldDestroy {
        /// Which machine.
        machine: String,
        /// What is on it.
        what: String,
    },
    /// The caller did not prove who it is, or its proof has ended.
    #[error("not authenticated: {why}")]
    Unauthenticated {
        /// What is wrong with the proof.
        why: &'static str,
    },
    /// A hello came without a boot token that is good for the card that it names. Why is for us: whoever asks is told
    /// the same of all of them, known card or not.
    #[error("refused: {why}")]
    Unproven {
        /// What is wrong with the token.
        why: &'static str,
    },
    /// The caller is known and may not do this.
    #[error("refused: {why}")]
    Forbidden {
        /// Why.
        why: String,
    },
    /// Another agent speaks for this machine, or its identity is in conflict.
    #[error("{why}")]
    Busy {
        /// Which, and what a person can do.
        why: String,
    },
    /// More new machines than the server takes, or takes at a time.
    #[error("{why}; ask again in {} s", wait.as_secs_f64().ceil())]
    TooMany {
        /// Of what.
        why: String,
        /// When to ask again.
        wait: std::time::Duration,
    },
    /// The agent and this server have no protocol in common.
    #[error("the agent speaks protocols {min} to {max}, this server {} to {}", crate::wire::MIN, crate::wire::CURRENT)]
    Protocol {
        /// The agent's oldest.
        min: u32,
        /// The agent's newest.
        max: u32,
    },
    /// A machine's controller did not do what it was asked.
    #[error("`{operation}` of {machine} was not done")]
    Power {
        /// Whose.
        machine: String,
        /// What was asked.
        operation: &'static str,
        /// Why not.
        #[source]
        source: PowerError,
    },
    /// A secret cannot be sealed or opened.
    #[error("a secret cannot be read or written")]
    Seal(#[from] SealError),
    /// A log cannot be written or read.
    #[error("the log of {machine} cannot be written or read")]
    Log {
        /// Whose.
        machine: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl EngineError {
    /// Whether it is the store that is away, and not one object that is wrong.
    pub(super) fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable { .. }))
    }
}

fn after_semicolon(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("{}: {}", p.path, p.problem)).collect::<Vec<_>>().join("\n")
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { key } => Self::NotFound { what: key.to_string(), hint: String::new() },
            other => Self::Store(other),
        }
    }
}

impl From<DecodeError> for EngineError {
    fn from(error: DecodeError) -> Self {
        Self::Store(StoreError::Decode(error))
    }
}

impl From<IllegalPhase> for EngineError {
    fn from(error: IllegalPhase) -> Self {
        Self::Illegal { why: error.to_string() }
    }
}

impl From<IllegalRun> for EngineError {
    fn from(error: IllegalRun) -> Self {
        Self::Illegal { why: error.to_string() }
    }
}
