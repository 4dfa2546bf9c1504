//! What the consumers and webhooks count. By kind and outcome only: how many names there are, callers decide.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sqlx::PgPool;

use crate::store::postgres::in_time;

/// Who is delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A consumer that takes leases itself.
    Consumer,
    /// A webhook.
    Webhook,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Webhook => "webhook",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Metrics of the consumers and webhooks; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct DeliveryMetrics {
    outcomes: Family<OutcomeLabel, Counter>,
    pending: Family<KindLabel, Gauge>,
    dead_letters: Family<KindLabel, Gauge>,
    lag_entries: Family<KindLabel, Gauge>,
    lag_seconds: Family<KindLabel, Gauge<f64, AtomicU64>>,
}

impl DeliveryMetrics {
    /// Registers every metric.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "deliveries",
            "What this pod did with deliveries of consumers and webhooks, by outcome",
            metrics.outcomes.clone(),
        );
        registry.register(
            "delivery_pending",
            "Deliveries that wait or are leased, of the whole deployment",
            metrics.pending.clone(),
        );
        registry.register(
            "delivery_dead_letters",
            "Deliveries that were given up, of the whole deployment",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "delivery_lag_entries",
            "Entries of the log that the slowest consumer or webhook was not given yet",
            metrics.lag_entries.clone(),
        );
        registry.register(
            "delivery_lag_seconds",
            "Age of the oldest event that waits to be delivered",
            metrics.lag_seconds.clone(),
        );
        metrics
    }

    /// Counts what was done with some deliveries.
    pub(crate) fn count(&self, kind: Kind, outcome: &'static str, deliveries: usize) {
        if deliveries > 0 {
            let label = OutcomeLabel { kind: kind.label(), outcome };
            self.outcomes.get_or_create(&label).inc_by(u64::try_from(deliveries).unwrap_or(u64::MAX));
        }
    }

    /// Looks at what waits.
    pub(crate) async fn measure(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        // What is disabled waits because somebody wants it so, or was told.
        const MEASURE: &str = "SELECT name IS NULL, sum(pending)::bigint, sum(dead)::bigint,
                coalesce(max(head.seq - position) FILTER (WHERE disabled_at IS NULL), 0),
                max(extract(epoch FROM now() - oldest)) FILTER (WHERE disabled_at IS NULL)::float8
            FROM head CROSS JOIN consumer LEFT JOIN webhook ON webhook.consumer_id = consumer.id CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE dead_at IS NULL) AS pending, count(dead_at) AS dead,
                    min(recorded_at) FILTER (WHERE dead_at IS NULL) AS oldest
                FROM delivery WHERE consumer_id = consumer.id
            ) AS waiting GROUP BY 1";
        type Measured = (bool, i64, i64, i64, Option<f64>);
        let measured: Vec<Measured> = in_time(sqlx::query_as(MEASURE).fetch_all(pool)).await?;
        for kind in [Kind::Consumer, Kind::Webhook] {
            let found = measured.iter().find(|(is_webhook, ..)| *is_webhook == (kind == Kind::Webhook));
            let (_, pending, dead, entries, seconds) = found.copied().unwrap_or_default();
            let label = KindLabel { kind: kind.label() };
            self.pending.get_or_create(&label).set(pending);
            self.dead_letters.get_or_create(&label).set(dead);
            self.lag_entries.get_or_create(&label).set(entries);
            self.lag_seconds.get_or_create(&label).set(seconds.unwrap_or_default().max(0.0));
        }
        Ok(())
    }
}
