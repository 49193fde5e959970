//! The store's promises, and what it does in bad weather, on real API servers: that of custom resources of a current
//! Kubernetes, and the whole one of the oldest that is supported.
//!
//! They run where `DRAGONFLY_TEST_KUBERNETES` is set and `.ci/kubernetes` has built the servers (`.ci/full kubernetes`
//! does both).

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod elections;
mod faults;
mod kinds;
mod secrets;
mod servers;
#[cfg(feature = "tinkerbell")]
mod tinkerbell;

use servers::{Server, fresh};

mod current {
    use super::*;
    dragonfly_core::store_conformance!(fresh(Server::Crds));
}

mod oldest {
    use super::*;
    dragonfly_core::store_conformance!(fresh(Server::Whole));
}
