//! Retention: drops the oldest partitions of the log, by number and by age, and deletes what is too old of one that takes
//! long to fill, never so much that fewer events stay than promised.

use std::time::Duration;

use sqlx::{Connection, PgPool};
use tokio_util::sync::CancellationToken;

use super::partitions::{self, ManagePartitions, Partition};
use super::tail::Tail;
use crate::chain::Chain;
use crate::config::RETENTION_EVENTS_FLOOR;

/// How often the log is looked through when nothing is written.
const PERIOD: Duration = Duration::from_mins(1);
/// How soon a run that failed is repeated: a reader may have been in the way of a drop.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// A run that takes longer waits on a dead connection, or has much to do; what it has not dropped, the next one does.
const RUN_DEADLINE: Duration = Duration::from_secs(10);
/// Partitions that the kept events spread over: finer ones drop sooner, and cost a table each.
const PARTITIONS_KEPT: i64 = 4;
/// Smallest partition; a table for fewer entries costs more than it saves.
const PARTITION_ENTRIES_MIN: i64 = 1_000;
/// Largest partition: its keys go in about ten seconds, and the log is never longer than promised by more. Smaller ones
/// would be more tables in a large log, each of which every reader locks.
const PARTITION_ENTRIES_MAX: i64 = 1_000_000;

/// Entries of one partition, for a log that keeps `events_min`.
pub fn partition_entries(events_min: i64) -> i64 {
    (events_min / PARTITIONS_KEPT).clamp(PARTITION_ENTRIES_MIN, PARTITION_ENTRIES_MAX)
}

/// What the log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Events that stay at least, unless they are too old.
    pub events_min: i64,
    /// Age after which events go although fewer are left.
    pub hours_max: Option<u32>,
}

/// The partitions that may go: after them `events_min` entries up to `head` are left; or they are too old, up to and
/// with the entry `outdated`, and enough is left for a client that was away for a moment.
pub fn expired(partitions: &[Partition], head: i64, events_min: i64, outdated: i64) -> Vec<Partition> {
    let may_go = |partition: &&Partition| {
        let newest = partition.end - 1;
        let left = head - newest;
        left >= events_min || (newest <= outdated && left >= RETENTION_EVENTS_FLOOR)
    };
    partitions.iter().filter(may_go).copied().collect()
}

/// The first entry of the oldest partition that stays although it may be too old: of the newest, enough for a client that
/// was away for a moment, and the last one of the partition, whose age tells when the whole may go.
fn outdated_end(oldest: Partition, head: i64) -> i64 {
    (oldest.end - 1).min(head - RETENTION_EVENTS_FLOOR + 1)
}

/// The head at which the oldest partition that stays may go by its number.
fn next_drop(partitions: &[Partition], dropped: usize, events_min: i64) -> Option<i64> {
    partitions.get(dropped).map(|oldest| oldest.end - 1 + events_min)
}

/// Looks through the log when the next partition may go, and in every period, until shutdown.
pub(crate) async fn run(pool: PgPool, tail: Tail, keep: Keep, shutdown: CancellationToken) {
    let step = partition_entries(keep.events_min);
    let mut head = tail.subscribe();
    loop {
        // Before the run: what is written meanwhile counts.
        let grown = *head.borrow() + step;
        let (period, next) = match tokio::time::timeout(RUN_DEADLINE, drop_expired(&pool, keep)).await {
            Ok(Ok(next)) => (PERIOD, next.unwrap_or(grown)),
            Ok(Err(error)) => {
                tracing::debug!(error = %Chain(&error), "old events stay for now");
                (RETRY_PERIOD, grown)
            }
            Err(_) => {
                tracing::debug!("old events stay for now: the database did not answer");
                (RETRY_PERIOD, grown)
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(period, head.wait_for(|head| *head >= next)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One pod at a time; the others find nothing left to do. Answers the head at which there is more to do, where it knows.
async fn drop_expired(pool: &PgPool, keep: Keep) -> Result<Option<i64>, ManagePartitions> {
    const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema || '.retention', 0))";
    let list_failed = ManagePartitions::ListPartitions;
    // The lock's connection is another than the one that drops: each drop is a transaction of its own.
    let mut lock = pool.begin().await.map_err(list_failed)?;
    let alone: bool = sqlx::query_scalar(LOCK).fetch_one(&mut *lock).await.map_err(list_failed)?;
    if !alone {
        return Ok(None);
    }
    let mut connection = pool.acquire().await.map_err(list_failed)?;
    connection.ping().await.map_err(list_failed)?;
    // A run before this one was interrupted, perhaps on another pod.
    for partition in partitions::detached(&mut connection).await? {
        partitions::drop_with_keys(&mut connection, partition).await?;
    }
    let head: i64 =
        sqlx::query_scalar("SELECT seq FROM head").fetch_one(&mut *connection).await.map_err(list_failed)?;
    let partitions = partitions::list(&mut connection).await?;
    let outdated = match keep.hours_max {
        Some(hours_max) => partitions::outdated(&mut connection, &partitions, hours_max).await?,
        None => 0,
    };
    let expired = expired(&partitions, head, keep.events_min, outdated);
    for &partition in &expired {
        partitions::detach(&mut connection, partition).await?;
        tracing::info!(log.oldest = partition.end, "retention took a partition out of the log");
        partitions::drop_with_keys(&mut connection, partition).await?;
    }
    if let (Some(hours_max), Some(&oldest)) = (keep.hours_max, partitions.get(expired.len())) {
        let end = outdated_end(oldest, head);
        if let Some(oldest) = partitions::delete_outdated(&mut connection, oldest, end, hours_max).await? {
            tracing::info!(log.oldest = oldest, "retention deleted the events of the log that are too old");
        }
    }
    Ok(next_drop(&partitions, expired.len(), keep.events_min))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn enough_events_always_stay(
            sizes in prop::collection::vec(1..5_000_i64, 1..20),
            head in 0..60_000_i64,
            events_min in 1_000..20_000_i64,
            outdated in 0..60_000_i64,
        ) {
            let mut end = 1;
            let partitions: Vec<Partition> = sizes.iter().map(|size| {
                let start = end;
                end += size;
                Partition { start, end }
            }).collect();
            let dropped = expired(&partitions, head, events_min, outdated);
            let newest_dropped = dropped.last().map_or(0, |partition| partition.end - 1);
            let left = head - newest_dropped;
            prop_assert!(dropped.is_empty() || left >= events_min || (newest_dropped <= outdated && left >= 1_000));
            prop_assert_eq!(&dropped[..], &partitions[..dropped.len()], "only the oldest go");
        }
    }

    #[test]
    fn a_partition_goes_as_soon_as_it_may() {
        let partitions = [Partition { start: 1, end: 1_001 }, Partition { start: 1_001, end: 2_001 }];
        assert_eq!(expired(&partitions, 1_999, 1_000, 0), []);
        assert_eq!(expired(&partitions, 2_000, 1_000, 0), partitions[..1]);
        assert_eq!(expired(&partitions, 3_000, 1_000, 0), partitions);
        for (head, next) in [(1_999, 2_000), (2_000, 3_000), (2_999, 3_000)] {
            let gone = expired(&partitions, head, 1_000, 0).len();
            assert_eq!(next_drop(&partitions, gone, 1_000), Some(next), "at {head}");
        }
        assert_eq!(next_drop(&partitions, 2, 1_000), None);
    }

    #[test]
    fn what_is_too_old_goes_before_its_number_makes_it_go_and_a_thousand_stay() {
        let partitions = [Partition { start: 1, end: 1_001 }, Partition { start: 1_001, end: 2_001 }];
        assert_eq!(expired(&partitions, 3_000, 9_000, 999), []);
        assert_eq!(expired(&partitions, 3_000, 9_000, 1_000), partitions[..1]);
        assert_eq!(expired(&partitions, 3_000, 9_000, 2_000), partitions);
        assert_eq!(expired(&partitions, 2_999, 9_000, 2_000), partitions[..1]);
    }

    #[test]
    fn of_what_is_too_old_the_last_entry_of_a_partition_and_a_thousand_stay() {
        let oldest = Partition { start: 1, end: 25_001 };
        let ends = [0, 1_000, 1_001, 3_000, 26_000, 90_000].map(|head| outdated_end(oldest, head));
        assert_eq!(ends, [-999, 1, 2, 2_001, 25_000, 25_000]);
    }

    #[test]
    fn no_partition_is_too_small_to_be_worth_a_table_or_too_large_to_go_soon() {
        let sizes = [1_000, 100_000, 4_000_000, i64::MAX].map(partition_entries);
        assert_eq!(sizes, [1_000, 25_000, 1_000_000, 1_000_000]);
    }
}
