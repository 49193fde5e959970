//! Memorable names.
