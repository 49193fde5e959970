//! Errors and threads: how blocking work is joined to the rest.

use std::fmt::Display;

use dragonfly_core::Source;
use dragonfly_core::action::ActionError;

/// Names what failed.
pub(crate) trait OrFailed<T> {
    /// With the thing that failed, its place, and what a person can do.
    fn or_failed<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, ActionError>;
}

impl<T, E: Into<Source>> OrFailed<T> for Result<T, E> {
    fn or_failed<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, ActionError> {
        self.map_err(|error| ActionError::failed(what(), error))
    }
}

/// A failure that is its own cause.
pub(crate) fn because<T>(what: impl Display) -> Result<T, ActionError> {
    Err(ActionError::because(what.to_string()))
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ActionError> + Send + 'static,
) -> Result<T, ActionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ActionError::failed("a worker thread died; this is a defect of the agent", error)),
    }
}
