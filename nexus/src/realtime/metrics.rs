//! What the connections count.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::close::Close;
use super::delivery::Content;

/// Upper bounds of delivery times, in seconds: fine around the goal of 20 ms.
const DELIVERY_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Stands for the types that this pod does not know.
const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfType {
    r#type: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Metrics of the connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct StreamMetrics {
    connections: Gauge,
    /// Bytes that the networks of slow clients have not taken yet.
    waiting_bytes: Gauge,
    /// Events sent, once per subscription.
    deliveries: Counter,
    /// Gaps that clients were told of.
    gaps: Counter,
    /// Live connections that did not keep up and went back to the log.
    demotions: Counter,
    /// Events that such connections were not sent, for a later one says it all.
    conflated: Counter,
    /// From the stamp's transaction to the socket, for events that were new when sent: by the number of their type.
    delivery_seconds: Arc<[Histogram]>,
    closes: Family<Reason, Counter>,
}

impl StreamMetrics {
    /// Registers every metric.
    pub fn register(registry: &mut Registry, event_types: &[&str]) -> Self {
        let by_type = Family::<OfType, Histogram>::new_with_constructor(|| Histogram::new(DELIVERY_BUCKETS));
        registry.register(
            "stream_delivery_seconds",
            "Time from the stamping transaction to the socket, for live events by type",
            by_type.clone(),
        );
        let of_type = |event_type: &str| by_type.get_or_create_owned(&OfType { r#type: event_type.to_owned() });
        let delivery_seconds = event_types.iter().copied().chain([UNKNOWN]).map(of_type).collect();
        let metrics = Self {
            connections: Gauge::default(),
            waiting_bytes: Gauge::default(),
            deliveries: Counter::default(),
            gaps: Counter::default(),
            demotions: Counter::default(),
            conflated: Counter::default(),
            delivery_seconds,
            closes: Family::default(),
        };
        registry.register("stream_connections", "Open connections", metrics.connections.clone());
        registry.register(
            "stream_waiting_bytes",
            "Bytes that wait until slow clients take them",
            metrics.waiting_bytes.clone(),
        );
        registry.register("stream_deliveries", "Events sent to clients", metrics.deliveries.clone());
        registry.register("stream_gaps", "Gaps that clients were told of", metrics.gaps.clone());
        registry.register(
            "stream_demotions",
            "Live connections that did not keep up and went back to the log",
            metrics.demotions.clone(),
        );
        registry.register(
            "stream_conflated",
            "Events not sent to clients that did not keep up, since a later one of the subject says it all",
            metrics.conflated.clone(),
        );
        registry.register("stream_closes", "Connections closed by the server", metrics.closes.clone());
        metrics
    }

    /// Counts a connection for as long as the answer is held, however its task ends.
    pub(crate) fn count_connection(&self) -> Counted {
        self.connections.inc();
        Counted(self.connections.clone())
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        usize::try_from(self.connections.get()).unwrap_or(0)
    }

    /// Counts pushes that were handed to the network.
    pub(super) fn sent(&self, contents: &[Content]) {
        let now = Timestamp::now();
        for content in contents {
            match content {
                Content::Gap => {
                    self.gaps.inc();
                }
                Content::Conflated => {
                    self.conflated.inc();
                }
                Content::Missed => {
                    self.deliveries.inc();
                }
                Content::Live { stamped_at, type_number } => {
                    self.deliveries.inc();
                    // Clocks of two pods may differ a little; a negative time is none.
                    let seconds = now.duration_since(*stamped_at).as_secs_f64().max(0.0);
                    self.delivery_seconds[*type_number].observe(seconds);
                }
            }
        }
    }

    /// Counts bytes that have begun to wait, or wait no longer.
    pub(super) fn waits(&self, before: usize, after: usize) {
        if before != after {
            let bytes = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.waiting_bytes.inc_by(bytes(after) - bytes(before));
        }
    }

    /// Counts a connection that went back to the log.
    pub(super) fn demoted(&self) {
        self.demotions.inc();
    }

    pub(super) fn closed(&self, close: Close) {
        self.closes.get_or_create(&Reason { reason: close.reason() }).inc();
    }
}

/// One connection that is counted.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
