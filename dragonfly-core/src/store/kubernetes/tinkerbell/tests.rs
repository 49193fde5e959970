//! The lens on fixed objects, and its promises on any.
