//! Partitions of the log: made ahead of the head, named after the numbers they hold.

use std::ops::Range;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Keys that one statement deletes. Among three million keys it takes 40 ms: the server's bound on a statement and the
/// sequencer's patience with a key are far away, on a slow disk too.
const KEYS_PER_STATEMENT: i64 = 5_000;

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
    /// A partition could not be dropped.
    #[error("drop a partition of the log")]
    DropPartition(#[source] sqlx::Error),
}

impl Partition {
    /// The table's name; it says what it holds.
    pub fn table(&self) -> String {
        format!("log_{}_{}", self.start, self.end)
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

/// Drops a partition with the idempotency keys of its events.
pub async fn drop_with_keys(connection: &mut PgConnection, partition: Partition) -> Result<(), ManagePartitions> {
    let table = partition.table();
    let drop = async {
        // Keys first, and apart: dropping locks the whole log, and must be over in an instant.
        let mut start = partition.start;
        while start < partition.end {
            let end = partition.end.min(start + KEYS_PER_STATEMENT);
            delete_keys(connection, &table, start..end).await?;
            start = end;
        }
        let mut transaction = connection.begin().await?;
        // Readers queue behind a waiting drop, so it gives up soon and is tried again.
        sqlx::query("SET LOCAL lock_timeout = '250ms'").execute(&mut *transaction).await?;
        sqlx::query(AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    drop.await.map_err(ManagePartitions::DropPartition)
}

/// Deletes the keys of these entries of a partition. They stay deleted when what follows fails.
async fn delete_keys(connection: &mut PgConnection, table: &str, entries: Range<i64>) -> Result<(), sqlx::Error> {
    // Other joins read every key of the log for each statement.
    const JOIN: &str = "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)";
    let delete = format!(
        "DELETE FROM event_key USING {table} AS gone
        WHERE gone.seq >= $1 AND gone.seq < $2 AND event_key.key = gone.key"
    );
    let mut transaction = connection.begin().await?;
    sqlx::query(JOIN).execute(&mut *transaction).await?;
    let delete = sqlx::query(AssertSqlSafe(delete)).bind(entries.start).bind(entries.end);
    delete.execute(&mut *transaction).await?;
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
        for other in ["log", "log_1", "log_a_b", "outbox_1_2"] {
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
