//! Clients of Kubernetes beside a server of ours that has no Kubernetes anywhere: `kubectl` of two ages, kube-rs and
//! the Python client take it for one. And everything that a server keeps, moved to another.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail by panicking")]

mod kubectl;
mod python;
mod rust;
mod site;
mod transfer;
