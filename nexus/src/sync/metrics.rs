//! What the caches count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::value::Tier;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

/// Metrics of the caches and of the followers that keep them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SyncMetrics {
    reads: Family<TierLabel, Counter>,
    /// Cached values that were found and refused, because the key had changed.
    pub(super) refused: Counter,
    /// Reads that could not use a cache, because the pod did not know the head of the log.
    pub(super) unconfirmed: Counter,
    /// Position that the pod's caches have applied.
    pub(super) applied: Gauge,
    /// Position that the documents in `MongoDB` have applied.
    pub(super) documents_applied: Gauge,
    /// How often a collection was rebuilt from the records.
    pub(super) rebuilds: Counter,
}

impl SyncMetrics {
    /// Registers every metric.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("cache_reads", "Reads of cached records by the tier that answered", metrics.reads.clone());
        registry.register(
            "cache_refused",
            "Cached values refused because the record had changed",
            metrics.refused.clone(),
        );
        registry.register(
            "cache_unconfirmed",
            "Reads past the caches because the head of the log was not known",
            metrics.unconfirmed.clone(),
        );
        registry.register(
            "cache_applied_position",
            "Position of the log that the caches of this pod have applied",
            metrics.applied.clone(),
        );
        registry.register(
            "documents_applied_position",
            "Position of the log that the documents in MongoDB have applied",
            metrics.documents_applied.clone(),
        );
        registry.register(
            "documents_rebuilds",
            "How often a collection of documents was rebuilt from the records",
            metrics.rebuilds.clone(),
        );
        metrics
    }

    pub(super) fn read(&self, tier: Tier) {
        self.reads.get_or_create(&TierLabel { tier: tier.as_str() }).inc();
    }
}
