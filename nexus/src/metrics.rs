//! What Nexus counts. Labels come from fixed sets only: never a user, a subject or a path as it was asked for.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::consumers::DeliveryMetrics;
use crate::realtime::StreamMetrics;
use crate::sync::SyncMetrics;

/// Upper bounds of request times, in seconds: fine around the goal of 20 ms.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// The route as it was declared, such as `/v1/users/{id}`.
    pub route: String,
    /// HTTP status.
    pub status: u16,
}

/// How a pod came to know that another pod's sequencer had stamped a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WakeUp {
    /// `redis`, `postgres`, or `nobody` when its own look found it.
    pub by: &'static str,
}

/// Whose memory it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UnfinishedOf {
    /// `strangers`, who have shown no token, or `callers`, who have.
    pub of: &'static str,
}

/// By which bound a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Throttled {
    /// `person`, `service`, `address` or `connection`.
    pub policy: &'static str,
}

/// Everything that is counted; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Requests by route and status.
    pub requests: Family<Request, Counter>,
    /// Time to the answer's first byte, in seconds.
    pub request_seconds: Histogram,
    /// Events appended over the API.
    pub published_events: Counter,
    /// Events that were there before.
    pub duplicate_events: Counter,
    /// Events that got their place from this pod's sequencer.
    pub stamped_events: Counter,
    /// Batches that this pod's sequencer committed.
    pub stamped_batches: Counter,
    /// Those that were written while the one before was being committed.
    pub ahead_batches: Counter,
    /// Events that the log could not take and this pod's sequencer set aside.
    pub refused_events: Counter,
    /// Events that wait for their place, as Postgres last said.
    pub outbox_events: Gauge,
    /// For how long the oldest of them waits.
    pub outbox_oldest_milliseconds: Gauge,
    /// Entries that this pod has not applied yet, as Postgres last said.
    pub log_lag: Gauge,
    /// Publishing requests that wait for a commit.
    pub publish_queue_requests: Gauge,
    /// Bytes of their events.
    pub publish_queue_bytes: Gauge,
    /// Requests and commands that came too often.
    pub throttled: Family<Throttled, Counter>,
    /// Bytes of what clients have begun to send, above what each may hold.
    pub unfinished_bytes: Family<UnfinishedOf, Gauge>,
    /// What was refused because these were too many.
    pub unfinished_refused: Family<UnfinishedOf, Counter>,
    /// Wake-ups to batches that other pods stamped.
    pub wake_ups: Family<WakeUp, Counter>,
    /// Newest entry that this pod has applied.
    pub log_head: Gauge,
    /// Entries in this pod's ring.
    pub ring_entries: Gauge,
    /// 1 while this pod's sequencer leads.
    pub sequencer_leading: Gauge,
    /// 1 while Postgres answers.
    pub postgres_reachable: Gauge,
    /// Connections to Postgres that are open.
    pub postgres_connections: Gauge,
    /// The caches and the documents.
    pub sync: SyncMetrics,
    /// The connections.
    pub stream: StreamMetrics,
    /// The consumers and webhooks.
    pub deliveries: DeliveryMetrics,
}

impl Metrics {
    /// All metrics at zero, of a pod that knows these event types, by their numbers in the registry.
    pub fn new(event_types: &[&str]) -> Self {
        let mut registry = Registry::with_prefix("nexus");
        let metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(DURATION_BUCKETS),
            published_events: Counter::default(),
            duplicate_events: Counter::default(),
            stamped_events: Counter::default(),
            stamped_batches: Counter::default(),
            ahead_batches: Counter::default(),
            refused_events: Counter::default(),
            outbox_events: Gauge::default(),
            outbox_oldest_milliseconds: Gauge::default(),
            log_lag: Gauge::default(),
            publish_queue_requests: Gauge::default(),
            publish_queue_bytes: Gauge::default(),
            throttled: Family::default(),
            unfinished_bytes: Family::default(),
            unfinished_refused: Family::default(),
            wake_ups: Family::default(),
            log_head: Gauge::default(),
            ring_entries: Gauge::default(),
            sequencer_leading: Gauge::default(),
            postgres_reachable: Gauge::default(),
            postgres_connections: Gauge::default(),
            sync: SyncMetrics::register(&mut registry),
            stream: StreamMetrics::register(&mut registry, event_types),
            deliveries: DeliveryMetrics::register(&mut registry),
        };
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to the first byte of the answer",
            metrics.request_seconds.clone(),
        );
        metrics.register_log(&mut registry);
        registry.register("throttled", "Requests and commands that came too often", metrics.throttled.clone());
        registry.register(
            "unfinished_bytes",
            "Bytes of requests and messages that clients have begun to send, above 4 KiB of each",
            metrics.unfinished_bytes.clone(),
        );
        registry.register(
            "unfinished_refused",
            "Requests and messages that were refused because those were too many",
            metrics.unfinished_refused.clone(),
        );
        registry.register("postgres_reachable", "1 while Postgres answers", metrics.postgres_reachable.clone());
        registry.register("postgres_connections", "Open connections of the pool", metrics.postgres_connections.clone());
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// What happens to events on their way into the log, and how far this pod has followed it.
    fn register_log(&self, registry: &mut Registry) {
        registry.register("published_events", "Events appended over the API", self.published_events.clone());
        registry.register("duplicate_events", "Published events that were there before", self.duplicate_events.clone());
        registry.register("stamped_events", "Events stamped by this pod's sequencer", self.stamped_events.clone());
        registry.register("stamped_batches", "Batches stamped by this pod's sequencer", self.stamped_batches.clone());
        let ahead = "Batches that this pod's sequencer wrote while the one before was being committed";
        registry.register("ahead_batches", ahead, self.ahead_batches.clone());
        registry.register(
            "refused_events",
            "Events set aside in outbox_refused because the log cannot take them",
            self.refused_events.clone(),
        );
        registry.register("outbox_events", "Events that wait for their place", self.outbox_events.clone());
        registry.register(
            "outbox_oldest_milliseconds",
            "For how long the oldest event waits for its place",
            self.outbox_oldest_milliseconds.clone(),
        );
        registry.register("log_lag", "Entries that this pod has not applied yet", self.log_lag.clone());
        registry.register(
            "publish_queue_requests",
            "Publishing requests that wait for a commit",
            self.publish_queue_requests.clone(),
        );
        registry.register(
            "publish_queue_bytes",
            "Bytes of events that wait for a commit",
            self.publish_queue_bytes.clone(),
        );
        registry.register("log_wake_ups", "Wake-ups to batches of other pods", self.wake_ups.clone());
        registry.register("log_head", "Newest entry that this pod has applied", self.log_head.clone());
        registry.register("log_ring_entries", "Entries in this pod's ring", self.ring_entries.clone());
        registry.register("sequencer_leading", "1 while this pod's sequencer leads", self.sequencer_leading.clone());
    }

    /// The metrics in the `OpenMetrics` text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
