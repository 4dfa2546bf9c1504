//! Partitions of the log: made ahead of the head, named after the numbers they hold. An event's idempotency key must never
//! go while the log still has the event, or the event could be published twice.

use std::ops::Range;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::chain::Chain;

/// Keys that one statement deletes. Among three million keys it takes 40 ms: the server's bound on a statement and the
/// sequencer's patience with a key are far away, on a slow disk too.
const KEYS_PER_STATEMENT: i64 = 5_000;
/// Entries that are deleted with a partition in use locked: twenty milliseconds.
const ENTRIES_PER_LOCK: i64 = 1_000;
/// Readers queue behind a waiting lock, so it gives up soon and is tried again.
const SHORT_WAIT: &str = "SET LOCAL lock_timeout = '250ms'";
/// Other joins read every key of the log for each statement that deletes some.
const LOOK_UP_KEYS: &str =
    "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)";

/// A partition holds the numbers from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// First number.
    pub start: i64,
    /// First number of the next partition.
    pub end: i64,
}

/// Why partitions could not be managed.
#[derive(Debug, thiserror::Error)]
pub enum ManagePartitions {
    /// The catalogue could not be read.
    #[error("list the partitions of the log")]
    ListPartitions(#[source] sqlx::Error),
    /// A partition could not be made.
    #[error("make a partition of the log")]
    MakePartition(#[source] sqlx::Error),
    /// A partition could not be taken out of the log.
    #[error("detach a partition of the log")]
    DetachPartition(#[source] sqlx::Error),
    /// Entries that are too old could not be deleted.
    #[error("delete entries of the log")]
    DeleteEntries(#[source] sqlx::Error),
    /// A partition could not be dropped.
    #[error("drop a partition of the log")]
    DropPartition(#[source] sqlx::Error),
}

impl Partition {
    /// The table's name; it says what it holds.
    pub fn table(&self) -> String {
        format!("log_{}_{}", self.start, self.end)
    }

    /// The table's name when it is no part of the log any more; it says whose keys are left.
    fn detached_table(&self) -> String {
        format!("{}_gone", self.table())
    }

    fn of_detached_table(name: &str) -> Option<Self> {
        Self::of_table(name.strip_suffix("_gone")?)
    }

    fn of_table(name: &str) -> Option<Self> {
        let (start, end) = name.strip_prefix("log_")?.split_once('_')?;
        Some(Self { start: start.parse().ok()?, end: end.parse().ok()? })
    }

    /// Whether the next partition is to be made: less than one whole partition is left beyond `head`.
    pub(super) fn is_short(&self, head: i64, entries: i64) -> bool {
        self.end - head <= entries
    }
}

/// Every partition, oldest first.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<Partition>, ManagePartitions> {
    const LIST: &str = "SELECT child.relname::text FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'log'::regclass";
    let names: Vec<String> =
        sqlx::query_scalar(LIST).fetch_all(connection).await.map_err(ManagePartitions::ListPartitions)?;
    let mut partitions: Vec<Partition> = names.iter().filter_map(|name| Partition::of_table(name)).collect();
    partitions.sort_by_key(|partition| partition.start);
    Ok(partitions)
}

/// The newest entry that stands at the end of its partition and is older than this; 0 when there is none.
pub(super) async fn outdated(
    connection: &mut PgConnection,
    partitions: &[Partition],
    hours_max: u32,
) -> Result<i64, ManagePartitions> {
    const FIND: &str = "SELECT coalesce(max(seq), 0) FROM log
        WHERE seq = ANY($1) AND recorded_at < now() - make_interval(secs => 3600 * $2)";
    let ends: Vec<i64> = partitions.iter().map(|partition| partition.end - 1).collect();
    let find = sqlx::query_scalar(FIND).bind(ends).bind(f64::from(hours_max));
    find.fetch_one(connection).await.map_err(ManagePartitions::ListPartitions)
}

/// Makes partitions until one whole one is free beyond the head; answers the newest.
pub async fn make_ahead(connection: &mut PgConnection, entries: i64) -> Result<Partition, ManagePartitions> {
    let head: i64 = sqlx::query_scalar("SELECT seq FROM head")
        .fetch_one(&mut *connection)
        .await
        .map_err(ManagePartitions::ListPartitions)?;
    let newest = list(connection).await?.last().copied();
    let mut newest = newest.unwrap_or(Partition { start: head + 1, end: head + 1 });
    while newest.is_short(head, entries) {
        newest = Partition { start: newest.end, end: newest.end + entries };
        make(connection, newest).await.map_err(ManagePartitions::MakePartition)?;
    }
    Ok(newest)
}

/// Made apart and then attached: that locks out neither readers nor writers of the log.
async fn make(connection: &mut PgConnection, partition: Partition) -> Result<(), sqlx::Error> {
    let Partition { start, end } = partition;
    let table = partition.table();
    let mut transaction = connection.begin().await?;
    // Safe: the name and the bounds are made of numbers.
    for statement in [
        format!("CREATE TABLE {table} (LIKE log INCLUDING DEFAULTS INCLUDING STATISTICS INCLUDING STORAGE)"),
        format!("ALTER TABLE log ATTACH PARTITION {table} FOR VALUES FROM ({start}) TO ({end})"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// Takes a partition out of the log: nobody can read its entries any more, and their keys are still known.
pub(super) async fn detach(connection: &mut PgConnection, partition: Partition) -> Result<(), ManagePartitions> {
    let (table, detached) = (partition.table(), partition.detached_table());
    let detach = async {
        let mut transaction = connection.begin().await?;
        for statement in [
            SHORT_WAIT.to_owned(),
            wait_for_vacuum(&table),
            format!("ALTER TABLE log DETACH PARTITION {table}"),
            format!("ALTER TABLE {table} RENAME TO {detached}"),
        ] {
            sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    };
    detach.await.map_err(ManagePartitions::DetachPartition)
}

/// A lock that no reader is in the way of: a vacuum of the partition is waited for with it, and not with one that keeps
/// readers away.
fn wait_for_vacuum(table: &str) -> String {
    format!("LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
}

/// Partitions that were taken out of the log, by this pod or another one, and are not dropped yet.
pub(super) async fn detached(connection: &mut PgConnection) -> Result<Vec<Partition>, ManagePartitions> {
    const LIST: &str = "SELECT relname::text FROM pg_class WHERE relkind = 'r'
        AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'log'::regclass)";
    let names: Vec<String> =
        sqlx::query_scalar(LIST).fetch_all(connection).await.map_err(ManagePartitions::ListPartitions)?;
    Ok(names.iter().filter_map(|name| Partition::of_detached_table(name)).collect())
}

/// Drops a detached partition with the idempotency keys of its events. What is done stays done when it is interrupted.
pub(super) async fn drop_with_keys(
    connection: &mut PgConnection,
    partition: Partition,
) -> Result<(), ManagePartitions> {
    let drop = async {
        let mut left = partition;
        while left.start < left.end {
            left = delete_keys(connection, left).await?;
        }
        let drop = format!("DROP TABLE {}", left.detached_table());
        sqlx::query(AssertSqlSafe(drop)).persistent(false).execute(connection).await
    };
    drop.await.map(|_| ()).map_err(ManagePartitions::DropPartition)
}

/// Deletes the keys of the first entries of a detached partition, which then has the name of what is left.
async fn delete_keys(connection: &mut PgConnection, partition: Partition) -> Result<Partition, sqlx::Error> {
    let left = Partition { start: partition.end.min(partition.start + KEYS_PER_STATEMENT), ..partition };
    let table = left.detached_table();
    let rename = format!("ALTER TABLE {} RENAME TO {table}", partition.detached_table());
    // By the number too: a pod of the version before may have let an event be published again, whose key is another row.
    let delete = format!(
        "DELETE FROM event_key USING {table} AS gone WHERE gone.seq >= $1 AND gone.seq < $2
        AND event_key.key = gone.key AND event_key.outbox_id = gone.outbox_id"
    );
    let mut transaction = connection.begin().await?;
    // First, for it may wait for a vacuum, and whoever publishes waits for the keys.
    sqlx::query(AssertSqlSafe(rename)).persistent(false).execute(&mut *transaction).await?;
    sqlx::query(LOOK_UP_KEYS).execute(&mut *transaction).await?;
    let delete = sqlx::query(AssertSqlSafe(delete)).bind(partition.start).bind(left.start);
    delete.persistent(false).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(left)
}

/// Deletes the entries of a partition before `end` that are older than this, with their keys, once the oldest of them is a
/// quarter older: a partition that takes long to fill need not be full. Answers the oldest entry that is left, if some went.
pub(super) async fn delete_outdated(
    connection: &mut PgConnection,
    partition: Partition,
    end: i64,
    hours_max: u32,
) -> Result<Option<i64>, ManagePartitions> {
    let table = partition.table();
    // A quarter: then it is done seldom, and in partitions that fill faster, which go as a whole, it is not done.
    let find = format!(
        "SELECT oldest.seq, least($1, (
            SELECT seq FROM {table} WHERE recorded_at >= now() - make_interval(secs => 3600 * $2) ORDER BY seq LIMIT 1))
        FROM (SELECT seq, recorded_at FROM {table} ORDER BY seq LIMIT 1) AS oldest
        WHERE recorded_at < now() - make_interval(secs => 4500 * $2)"
    );
    let find = sqlx::query_as(AssertSqlSafe(find)).bind(end).bind(f64::from(hours_max)).persistent(false);
    let found: Option<(i64, i64)> =
        find.fetch_optional(&mut *connection).await.map_err(ManagePartitions::ListPartitions)?;
    let Some((oldest, end)) = found.filter(|(oldest, end)| oldest < end) else { return Ok(None) };
    let mut left = oldest;
    while left < end {
        let next = end.min(left + ENTRIES_PER_LOCK);
        delete_entries(connection, &table, left..next).await.map_err(ManagePartitions::DeleteEntries)?;
        left = next;
    }
    // Whoever looks for the oldest entry passes by what is deleted and not cleared away. It may also be done later.
    let vacuum = format!("VACUUM {table}");
    if let Err(error) = sqlx::query(AssertSqlSafe(vacuum)).persistent(false).execute(connection).await {
        tracing::debug!(error = %Chain(&error), "a partition was not cleared");
    }
    Ok(Some(end))
}

/// Deletes these entries, with their keys. Both go at once, so that an event is known again as long as it can be
/// read.
async fn delete_entries(connection: &mut PgConnection, table: &str, seqs: Range<i64>) -> Result<(), sqlx::Error> {
    // From the first on: Postgres would look through those that are deleted already.
    let delete = format!(
        "WITH gone AS (DELETE FROM {table} WHERE seq >= $1 AND seq < $2 RETURNING key, outbox_id)
        DELETE FROM event_key USING gone WHERE event_key.key = gone.key AND event_key.outbox_id = gone.outbox_id"
    );
    let mut transaction = connection.begin().await?;
    // A consumer's transaction that has looked where the log goes on takes what is there: it is waited for.
    let locks = [wait_for_vacuum(table), format!("LOCK TABLE {table}")];
    for statement in [SHORT_WAIT, LOOK_UP_KEYS].map(str::to_owned).into_iter().chain(locks) {
        sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *transaction).await?;
    }
    sqlx::query(AssertSqlSafe(delete))
        .bind(seqs.start)
        .bind(seqs.end)
        .persistent(false)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_known_by_its_table() {
        let partition = Partition { start: 1, end: 25_001 };
        assert_eq!(partition.table(), "log_1_25001");
        assert_eq!(Partition::of_table(&partition.table()), Some(partition));
        assert_eq!(Partition::of_detached_table(&partition.table()), None);
        assert_eq!(partition.detached_table(), "log_1_25001_gone");
        assert_eq!(Partition::of_detached_table(&partition.detached_table()), Some(partition));
        for other in ["log", "log_1", "log_a_b", "outbox_1_2", "log_1_25001_gone"] {
            assert_eq!(Partition::of_table(other), None, "{other}");
        }
    }

    #[test]
    fn the_next_partition_is_made_one_whole_partition_ahead() {
        let newest = Partition { start: 1_001, end: 2_001 };
        assert!(!newest.is_short(1_000, 1_000));
        assert!(newest.is_short(1_001, 1_000));
    }
}
