//! What is counted, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dragonfly_core::Mac;
use dragonfly_core::boot::{BootError, BootObserver, BootProvider, BootRequest, Decision, Sighting};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::Engine;
use dragonfly_core::resource::{Kind, Record, WorkflowSpec};
use dragonfly_core::store::{self, Key, Page, Part, Selector, Store, WatchEvent, When};
use dragonfly_core::wire::Identity;
use dragonfly_core::workflow::RunState;
use futures_util::stream::BoxStream;

use crate::view;

/// Upper bounds of the histogram of store latencies, in seconds.
const BOUNDS: [f64; 8] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// The counters of one server.
#[derive(Debug)]
pub struct Meters {
    /// Tells this run of the server from others.
    run: u64,
    decisions: Mutex<BTreeMap<&'static str, u64>>,
    sightings: Mutex<BTreeMap<&'static str, u64>>,
    store: Mutex<BTreeMap<(&'static str, bool), Histogram>>,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, bucket) in BOUNDS.iter().zip(&mut self.buckets) {
            if seconds <= *bound {
                *bucket += 1;
            }
        }
        self.count += 1;
        self.sum += seconds;
    }
}

fn count(counters: &Mutex<BTreeMap<&'static str, u64>>, what: &'static str) {
    *counters.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
}

impl Meters {
    /// Nothing counted yet; `started` names this run of the server.
    pub fn new(started: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            run: u64::try_from(started.unix_millis()).unwrap_or_default(),
            decisions: Mutex::default(),
            sightings: Mutex::default(),
            store: Mutex::default(),
        })
    }

    /// A number that no other run of the server has.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self, engine: &Engine) -> String {
        let mut out = String::new();
        let mut phases: BTreeMap<&str, u64> =
            ["Unseen", "Registered", "Assigned", "Provisioning", "Ready", "Error", "Held"].map(|p| (p, 0)).into();
        for (phase, machines) in engine.cache().phases() {
            phases.insert(view::phase_word(phase), machines as u64);
        }
        family(&mut out, "dragonfly_machines", "gauge", "Machines by phase.", "phase", &phases);

        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut ended, mut seconds) = (0u64, 0.0);
        for workflow in engine.cache().pieces::<WorkflowSpec>().flatten() {
            let status = &workflow.status;
            *states.entry(state_word(status.state)).or_default() += 1;
            if let (RunState::Succeeded, Some(from), Some(to)) = (status.state, status.started_at, status.ended_at) {
                ended += 1;
                seconds += to.since(from).as_secs_f64();
            }
        }
        family(&mut out, "dragonfly_workflows", "gauge", "Stored workflows by state.", "state", &states);
        out.push_str("# HELP dragonfly_workflow_duration_seconds Time from first step to hand-over of stored workflows that succeeded.\n");
        out.push_str("# TYPE dragonfly_workflow_duration_seconds summary\n");
        // Writing to a String does not fail.
        let _ = writeln!(out, "dragonfly_workflow_duration_seconds_sum {seconds}");
        let _ = writeln!(out, "dragonfly_workflow_duration_seconds_count {ended}");

        let read = |c: &Mutex<BTreeMap<&'static str, u64>>| c.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (decisions, sightings) = (read(&self.decisions), read(&self.sightings));
        family(&mut out, "dragonfly_boot_decisions_total", "counter", "Boot decisions by fate.", "fate", &decisions);
        let help = "What the boot services saw and sent: DHCP, TFTP, scripts.";
        family(&mut out, "dragonfly_boot_events_total", "counter", help, "type", &sightings);
        self.render_store(&mut out);
        out
    }

    fn render_store(&self, out: &mut String) {
        out.push_str(
            "# HELP dragonfly_store_seconds Time of calls on the store.\n# TYPE dragonfly_store_seconds histogram\n",
        );
        for ((call, ok), histogram) in self.store.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = format!("call=\"{call}\",ok=\"{ok}\"");
            for (bound, bucket) in BOUNDS.iter().zip(histogram.buckets) {
                let _ = writeln!(out, "dragonfly_store_seconds_bucket{{{labels},le=\"{bound}\"}} {bucket}");
            }
            let Histogram { count, sum, .. } = histogram;
            let _ = writeln!(out, "dragonfly_store_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "dragonfly_store_seconds_sum{{{labels}}} {sum}");
            let _ = writeln!(out, "dragonfly_store_seconds_count{{{labels}}} {count}");
        }
    }
}

fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Pending => "Pending",
        RunState::Running => "Running",
        RunState::Succeeded => "Succeeded",
        RunState::Failed => "Failed",
        RunState::Aborted => "Aborted",
        RunState::Held => "Held",
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, label: &str, values: &BTreeMap<&str, u64>) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (value, count) in values {
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
    }
}

/// The engine as boot services see it, counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Who decides.
    pub engine: Engine,
    /// Who counts.
    pub meters: Arc<Meters>,
}

#[async_trait]
impl BootProvider for Counted {
    async fn decide(&self, request: &BootRequest) -> Result<Decision, BootError> {
        let decision = self.engine.decide(request).await?;
        count(&self.meters.decisions, decision.fate.word());
        Ok(decision)
    }

    async fn identity(&self, request: &BootRequest) -> Result<Option<Identity>, BootError> {
        self.engine.identity(request).await
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<Mac> {
        self.engine.reserved_for(address)
    }
}

impl BootObserver for Counted {
    fn saw(&self, sighting: Sighting) {
        count(&self.meters.sightings, sighting.seen.kind());
        self.engine.saw(sighting);
    }
}

/// A store whose calls are timed.
pub struct Timed {
    inner: Arc<dyn Store>,
    meters: Arc<Meters>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Timed {
    /// Times the calls on a store.
    pub fn new(inner: Arc<dyn Store>, meters: Arc<Meters>) -> Self {
        Self { inner, meters }
    }

    async fn time<T>(&self, call: &'static str, work: impl Future<Output = store::Result<T>>) -> store::Result<T> {
        let begun = Instant::now();
        let done = work.await;
        let mut histograms = self.meters.store.lock().unwrap_or_else(PoisonError::into_inner);
        histograms.entry((call, done.is_ok())).or_default().add(begun.elapsed());
        done
    }
}

#[async_trait]
impl Store for Timed {
    async fn get(&self, key: &Key) -> store::Result<Option<Record>> {
        self.time("get", self.inner.get(key)).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> store::Result<Page> {
        self.time("list", self.inner.list(kind, selector, limit, from)).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> store::Result<Record> {
        self.time("put", self.inner.put(record, part, when)).await
    }

    async fn delete(&self, key: &Key, version: &str) -> store::Result<()> {
        self.time("delete", self.inner.delete(key, version)).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, store::Result<WatchEvent>> {
        self.inner.watch(kind, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_is_not_slower() {
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_millis(3));
        histogram.add(Duration::from_secs(3));
        assert_eq!(histogram.buckets, [0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(histogram.count, 2);
    }
}
