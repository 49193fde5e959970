//! What tests the whole house: the lab, and helpers that journeys share.

pub mod lab;
