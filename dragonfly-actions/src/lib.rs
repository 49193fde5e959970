//! What can be done to a machine that is being installed, one action at a time.
//!
//! The crate has two halves. [`plan`] is pure and always there: the parameters of every action, and
//! [`Catalog`](plan::Catalog), which judges a whole template before any of it runs. [`run`] (feature
//! `run`, Linux) does the work on a machine; an agent starts from [`builtin`].
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
