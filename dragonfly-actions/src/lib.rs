//! What can be done to a machine that is being installed, one action at a time.
//!
//! The crate has two halves. [`plan`] is pure and always there: the parameters of every action, and
//! [`Catalog`](plan::Catalog), which judges a whole template before any of it runs. [`run`] (feature
//! `run`, Linux) does the work on a machine; an agent starts from [`builtin`].
//!
//! ```
//! use dragonfly_actions::plan::Catalog;
//! use dragonfly_core::action::TemplateChecker;
//! use dragonfly_core::resource::TemplateSpec;
//!
//! let template: TemplateSpec = serde_json::from_value(serde_json::json!({ "actions": [
//!     { "name": "table", "action": "partition", "with": {
//!         "disk": { "nvme": true, "smallest": true },
//!         "partitions": [
//!             { "label": "esp", "type": "esp", "size": "512MiB" },
//!             { "label": "root", "size": "rest" },
//!         ] } },
//!     { "name": "root", "action": "image2disk", "with": {
//!         "url": "/images/debian-root.raw.zst", "target": "root",
//!         "digest": format!("sha256:{}", "ab".repeat(32)) } },
//!     { "name": "name", "action": "writefile", "with": {
//!         "target": "rot", "path": "/etc/hostname", "content": "{{ machine.name }}", "mode": "0644" } },
//!     { "name": "go", "action": "reboot" },
//! ]}))?;
//! let problems: Vec<String> =
//!     Catalog::builtin().check(&template).into_iter().map(|p| format!("{}: {}", p.path, p.problem)).collect();
//! assert_eq!(problems, ["actions[2].with.target: no step makes a partition `rot`; there are: esp, root"]);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Beside them stand the readers that both use and that others may want: [`probe`] says what is on
//! a disk, [`table`] reads and writes partition tables. Both take bytes and give values.

pub mod plan;
pub mod probe;
#[cfg(all(feature = "run", target_os = "linux"))]
pub mod run;
pub mod table;

pub use plan::is_hand_over;

/// Every action of this crate, on the machine that the program runs on.
#[cfg(all(feature = "run", target_os = "linux"))]
pub fn builtin() -> dragonfly_core::action::Actions {
    run::builtin_on(run::Host::default())
}
