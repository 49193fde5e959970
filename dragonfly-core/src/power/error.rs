//! What can go wrong with a controller, by meaning.

use std::time::Duration;

use super::PowerState;
use crate::Source;

/// Why a controller did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PowerError {
    /// Nobody answers for the address's scheme.
    #[error("there is no power driver for `{scheme}://`; there are: {known}")]
    NoDriver {
        /// The scheme.
        scheme: String,
        /// The schemes that there are drivers for, joined by commas.
        known: String,
    },
    /// The address cannot be used.
    #[error("`{address}` is no address of a controller: {reason}")]
    InvalidAddress {
        /// The address.
        address: String,
        /// What is wrong with it, and how it should look.
        reason: String,
    },
    /// The address of an image cannot be used. Nothing was sent.
    #[error("`{address}` cannot be used as an image: {reason}")]
    InvalidImage {
        /// The address, without what may open something.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The controller wants a name and a password, and none are known.
    #[error("no user and password are known for this controller; name a Secret in spec.bmc.secretRef")]
    NoCredential,
    /// The user or password can be none of this kind of controller's.
    #[error("the user or password cannot be right: {reason}")]
    InvalidCredential {
        /// What is wrong with it; never the password.
        reason: String,
    },
    /// The certificate authorities that should vouch for controllers cannot be used.
    #[error("the certificate authorities for controllers cannot be read: {reason}")]
    InvalidRoots {
        /// What is wrong with them, and with which.
        reason: String,
    },
    /// The controller refused the user or the password. Trying again may lock the account.
    #[error("the controller refused the user or the password")]
    Unauthorised,
    /// The controller let the account in to change its password, and to nothing else.
    #[error("the controller wants this account's password to be changed before it does anything")]
    PasswordChangeRequired,
    /// The account may not do this.
    #[error("the account may not {what} on this controller; it needs more rights")]
    Forbidden {
        /// What was asked for.
        what: String,
    },
    /// What answered is not the controller that was expected.
    #[error("what answers is not the expected controller: {reason}")]
    NotTrusted {
        /// What gave it away.
        reason: String,
    },
    /// It could not be reached at all.
    #[error("the controller cannot be reached")]
    Unreachable {
        /// Why.
        #[source]
        source: Source,
    },
    /// It did not answer in time.
    #[error("the controller did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// It has no room for another session, or is at work.
    #[error("the controller is busy: {reason}")]
    Busy {
        /// Its words.
        reason: String,
    },
    /// It understood, and will not.
    #[error("the controller refused to {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its words.
        reason: String,
    },
    /// It said yes, and did not do it.
    #[error("the controller accepted the command, but the machine is {found} and not {wanted} after {} s", .after.as_secs())]
    NotDone {
        /// What should be.
        wanted: PowerState,
        /// What is.
        found: PowerState,
        /// How long it was given.
        after: Duration,
    },
    /// What was asked for is nothing that this controller can do. Nothing was sent.
    #[error("this controller cannot do `{what}`; it can: {can}")]
    NotAble {
        /// What was asked for.
        what: &'static str,
        /// What it can do, joined by commas.
        can: String,
    },
    /// It was not asked, for it has refused this user and password before, and a further try may lock the account.
    #[error(
        "the controller refused this user and password {times} times and is not asked again, so that the account is not \
         locked; put the right ones into the Secret"
    )]
    LockedOut {
        /// How often.
        times: u32,
    },
    /// While it waited for its turn, what it was for came to an end. Nothing was sent.
    #[error("it is not wanted any more")]
    Withdrawn,
    /// It said something that its protocol does not know.
    #[error("the controller's answer cannot be understood: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

impl PowerError {
    /// Whether the same call may go well a moment later. Never after a refused password: a third wrong one
    /// locks many accounts.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy { .. } | Self::Malformed { .. })
    }
}
