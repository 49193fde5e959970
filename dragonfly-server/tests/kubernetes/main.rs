//! Servers on a real Kubernetes API server (the oldest that is supported) and its etcd: with the rights that
//! `dragonfly install --kubernetes` grants and no others, killed, and while the cluster is away.
//!
//! They run where `DRAGONFLY_TEST_KUBERNETES` is set and `.ci/kubernetes` has built the API server (`.ci/full kubernetes`
//! does both).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail by panicking")]

mod rights;
mod server;
#[allow(dead_code, reason = "the store's own tests use all of it")]
#[path = "../../../dragonfly-core/tests/kubernetes/servers.rs"]
mod servers;
