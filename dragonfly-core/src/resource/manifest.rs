//! The strict door.
