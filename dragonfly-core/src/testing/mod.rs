//! For the tests of whoever builds on this crate: the stores' promises and fakes of everything
//! that is passed in. A fake is a small real thing with extra knobs.

mod clock;
mod coordinator;
#[cfg(feature = "redb")]
mod disk;
mod images;
mod leases;
mod limited;
mod mutations;
pub mod power;
mod recorders;
pub mod store;

pub use crate::engine::Rule;
#[cfg(feature = "redb")]
pub use crate::store::redb::MemoryDisk;
pub use clock::ManualClock;
pub use coordinator::GivenLeadership;
#[cfg(feature = "redb")]
pub use disk::{Dice, PowerCutDisk};
pub use images::{StaticImage, StaticImages};
pub use leases::MemoryLeases;
pub use limited::LimitedStore;
pub use mutations::mutations;
pub use recorders::{FakeObserver, RecordingSink};
