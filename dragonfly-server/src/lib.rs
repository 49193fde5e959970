//! The reference server of Dragonfly: what [`dragonfly_core::engine::Engine`] can do, over HTTP, as
//! web pages and as a command line.
//!
//! ```text
//!            first byte 22: TLS
//!   port ----------------------------> guard per route -> handler -> engine
//!            else plain: firmware,
//!            health, this machine
//! ```
//!
//! [`http::app`] gives the routes as an axum [`Router`](axum::Router) that others can mount and tests
//! can call without a socket; [`serve::serve`] joins them with the store, the boot services and one
//! port; [`cli`] is the command line.

pub mod auth;
pub mod backend;
pub mod boot;
pub mod cli;
pub mod config;
mod crowd;
mod files;
pub mod http;
pub mod images;
pub mod kubernetes;
mod leases;
pub mod listen;
mod log;
pub mod mage_build;
pub mod metrics;
mod networks;
pub mod serve;
mod signals;
mod stall;
pub mod tls;
pub mod view;
mod yaml;

pub use http::app;
