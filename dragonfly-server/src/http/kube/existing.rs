//! Which objects exist, in eight bytes for each: fifty clients that follow a hundred thousand machines are to cost
//! megabytes.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use dragonfly_core::cache::Cache;
use dragonfly_core::resource::Kind;

/// The names of objects. Two names may be taken for one, once in some hundred million: a client is told then that an
/// object has changed which is new to it.
#[derive(Debug, Default)]
pub(super) struct Existing {
    names: HashSet<u64>,
    hasher: RandomState,
}

impl Existing {
    /// What is there of a kind.
    pub(super) fn of(cache: &Cache, kind: Kind) -> Self {
        let mut existing = Self::default();
        cache.each_name(kind, |name| existing.insert(name));
        existing
    }

    fn insert(&mut self, name: &str) {
        self.names.insert(self.hasher.hash_one(name));
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(&self.hasher.hash_one(name))
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.names.remove(&self.hasher.hash_one(name));
    }
}

#[cfg(test)]
impl<const N: usize> From<[&str; N]> for Existing {
    fn from(names: [&str; N]) -> Self {
        let mut existing = Self::default();
        names.into_iter().for_each(|name| existing.insert(name));
        existing
    }
}
