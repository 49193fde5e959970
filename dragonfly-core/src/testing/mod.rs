//! For the tests of whoever builds on this crate: the stores' promises and fakes of everything
//! that is passed in. A fake is a small real thing with extra knobs.

mod clock;
#[cfg(feature = "redb")]
mod disk;
mod images;
mod limited;
mod mutations;
pub mod power;
mod recorders;
pub mod store;

pub use crate::engine::Rule;
#[cfg(feature = "redb")]
pub use crate::store::redb::MemoryDisk;
pub use clock::ManualClock;
#[cfg(feature = "redb")]
pub use disk::{Dice, PowerCutDisk};
pub use images::{StaticImage, StaticImages};
pub use limited::LimitedStore;
pub use mutations::mutations;
pub use recorders::{FakeObserver, RecordingSink};
