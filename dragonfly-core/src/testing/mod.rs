//! For the tests of whoever builds on this crate: the stores' promises and fakes of everything
//! that is passed in. A fake is a small real thing with extra knobs.

mod clock;
pub mod store;

pub use clock::ManualClock;
