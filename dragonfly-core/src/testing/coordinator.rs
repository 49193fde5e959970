//! Leadership that a test gives and takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::coordinate::{Coordinator, Term};

/// One of several instances on a store; it leads what the test says. Clones are the same instance.
#[derive(Debug, Clone)]
pub struct GivenLeadership {
    instance: String,
    led: Arc<Mutex<BTreeMap<String, Term>>>,
}

impl GivenLeadership {
    /// An instance of this name that leads nothing.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), led: Arc::default() }
    }

    /// It leads this controller from now on, in this term.
    pub fn give(&self, controller: &str, term: u64) {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).insert(controller.to_owned(), Term(term));
    }

    /// It leads this controller no more.
    pub fn take(&self, controller: &str) {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).remove(controller);
    }
}

#[async_trait]
impl Coordinator for GivenLeadership {
    fn instance(&self) -> &str {
        &self.instance
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn leads(&self, controller: &str) -> Option<Term> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).get(controller).copied()
    }

    async fn run(&self, _: Vec<String>, cancel: CancellationToken) {
        cancel.cancelled().await;
    }

    fn led(&self) -> BTreeMap<String, Term> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
