//! Keeps the consumers ahead of retention: in every period, and whenever the log has grown by much, it takes what each may
//! be given. Nobody waits for it: whoever leases takes from the log first.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::fill::{Asker, fill};
use super::metrics::DeliveryMetrics;
use crate::chain::Chain;
use crate::config::ConsumersConfig;
use crate::log::Tail;
use crate::store::postgres::in_time;

/// Time between two looks. The smallest log keeps what is written in that time at any rate that is measured.
const PERIOD: Duration = Duration::from_secs(1);
/// Growth of the log that is looked at at once: less than what any log keeps.
const GROWTH_ENTRIES: i64 = 500;
/// Looks between two measurements of what waits, which count rows.
const LOOKS_PER_MEASUREMENT: u32 = 10;

/// Runs until shutdown.
pub(crate) async fn follow(
    (pool, tail): (PgPool, Tail),
    bounds: ConsumersConfig,
    metrics: DeliveryMetrics,
    shutdown: CancellationToken,
) {
    let mut moved = tail.subscribe();
    let (mut away, mut looks) = (false, 0);
    loop {
        let look = async {
            fill_all(&pool, &bounds).await?;
            if looks % LOOKS_PER_MEASUREMENT == 0 {
                metrics.measure(&pool).await?;
            }
            Ok::<(), sqlx::Error>(())
        };
        match look.await {
            Ok(()) => away = false,
            // One line when it begins and none per period.
            Err(error) if !away => {
                away = true;
                tracing::warn!(error = %Chain(&error), "the consumers cannot follow the log");
            }
            Err(_) => {}
        }
        looks = looks.wrapping_add(1);
        let next = *moved.borrow_and_update() + GROWTH_ENTRIES;
        tokio::select! {
            _ = tokio::time::timeout(PERIOD, moved.wait_for(|head| *head >= next)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// A consumer that fails does not keep the others from being given theirs.
async fn fill_all(pool: &PgPool, bounds: &ConsumersConfig) -> Result<(), sqlx::Error> {
    const BEHIND: &str = "SELECT id FROM consumer CROSS JOIN head WHERE name IS NOT NULL AND position < head.seq";
    let behind: Vec<i64> = in_time(sqlx::query_scalar(BEHIND).fetch_all(pool)).await?;
    let mut outcome = Ok(());
    for id in behind {
        if let Err(error) = fill(pool, id, bounds, Asker::Follower).await {
            outcome = Err(error);
        }
    }
    outcome
}
