//! The reference store keeps every promise, with room and without, and behind a box.

use std::sync::Arc;

use crate::clock::SystemClock;
use crate::store::{MemoryStore, Store};

mod plain {
    use super::*;
    crate::store_conformance!(async { MemoryStore::default() });
}

mod with_a_channel_of_two {
    use super::*;
    crate::store_conformance!(async { MemoryStore::with_bounds(Arc::new(SystemClock), 4096, 2) });
}

mod with_a_log_of_three_and_a_channel_of_two {
    use super::*;
    crate::store_conformance!(async { MemoryStore::with_bounds(Arc::new(SystemClock), 3, 2) });
}

mod without_a_log {
    use super::*;
    crate::store_conformance!(async { MemoryStore::with_bounds(Arc::new(SystemClock), 0, 16) });
}

mod boxed {
    use super::*;
    crate::store_conformance!(async { Box::new(MemoryStore::default()) as Box<dyn Store> });
}
