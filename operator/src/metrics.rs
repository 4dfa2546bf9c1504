//! What the operator counts, in Prometheus' text form. No label has more values than the code has words.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// How a visit ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok`, or the fixed reason of the error.
    pub reason: &'static str,
}

/// What was written to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// `apply`, `delete`, `status` or `event`.
    pub verb: &'static str,
    /// Kind of the object, such as `StatefulSet`.
    pub kind: &'static str,
}

/// Every metric of the operator. Clones share the same values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Visits by how they ended.
    pub visits: Family<Outcome, Counter>,
    /// Seconds that a visit took.
    pub visit_seconds: Histogram,
    /// Writes to the API server that changed something. It stands still while every layer is steady.
    pub writes: Family<Write, Counter>,
    /// Data layers that are there.
    pub layers: Gauge,
    /// Data layers that are Ready.
    pub layers_ready: Gauge,
    /// 1 while this process leads.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a visit that finds nothing to do to one that waits for every deadline of a database.
        let visit_seconds = Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let (visits, writes) = (Family::default(), Family::default());
        let (layers, layers_ready, leader) = (Gauge::default(), Gauge::default(), Gauge::default());
        let mut registry = Registry::with_prefix("azora_operator");
        registry.register("visits", "Visits by how they ended", visits.clone());
        registry.register("visit_seconds", "Seconds that a visit took", visit_seconds.clone());
        registry.register("writes", "Writes to the API server that changed something", writes.clone());
        registry.register("layers", "Data layers that are there", layers.clone());
        registry.register("layers_ready", "Data layers that are Ready", layers_ready.clone());
        registry.register("leader", "1 while this process leads", leader.clone());
        Self { registry: Arc::new(registry), visits, visit_seconds, writes, layers, layers_ready, leader }
    }
}

impl Metrics {
    /// All of them in the `OpenMetrics` text form.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
