//! What the words of a failure mean, where nothing else tells it: agents of 0.1 and what they left in the store
//! have no [`FailureKind`](crate::wire::FailureKind).

use super::Fault;
use crate::wire::Failure;

/// Words, any of which stands for the fault; the more special fault first.
const FAILURES: [(Fault, &[&str]); 5] = [
    (
        Fault::WrongClock,
        &[
            "not yet valid",
            "notvalidyet",
            "certificate has expired",
            "certificate expired",
            "invalid peer certificate: expired",
        ],
    ),
    (
        Fault::FullDisk,
        &[
            "no space left on device",
            "is too small: the image",
            "more comes than fits",
            "do not fit",
            "does not fit",
            "os error 28",
        ],
    ),
    (
        Fault::BadImage,
        &[
            "digest",
            "there is no such image",
            "the image is empty",
            "the image was replaced",
            "refuses to give the image",
            "corrupt",
            "truncated",
            "cannot be decompressed",
            "made for disks with sectors",
        ],
    ),
    (Fault::DeadAgent, &["the agent has not been heard"]),
    (
        Fault::ServerUnreachable,
        &["could not be fetched", "cannot be fetched", "connection refused", "timed out", "dns error"],
    ),
];

/// Which fault a failure tells of, if it is one of those that have a name.
pub(super) fn failure(failure: &Failure) -> Option<Fault> {
    let all: Vec<String> =
        std::iter::once(&failure.message).chain(&failure.causes).map(|text| text.to_lowercase()).collect();
    let tells = |words: &[&str]| words.iter().any(|word| all.iter().any(|text| text.contains(word)));
    FAILURES.iter().find(|(_, words)| tells(words)).map(|(fault, _)| *fault)
}

/// Which fault a line of the agent's log tells of.
pub(super) fn log_line(line: &str) -> Option<Fault> {
    if line.contains("has no driver here") {
        return Some(Fault::MissingDriver);
    }
    line.contains("has no link after").then_some(Fault::NoLink)
}
