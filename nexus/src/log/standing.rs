//! How the log stands, for people who look after it: what waits for its place, since when, and which pod gives places.
//! Nothing of it decides anything.

use sqlx::PgPool;

use super::read::{ReadLog, bounded};

/// Begins the name under which a sequencer's connection is known to Postgres; its pod's name follows.
const SEQUENCER: &str = "nexus-sequencer/";

/// Longest name that Postgres keeps of a connection, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// How the log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of the newest entry.
    pub head: i64,
    /// Events that are committed and have no place yet; at most 100,000 are counted.
    pub waiting: i64,
    /// For how long the oldest of them waits, in milliseconds; 0 when none does.
    pub waiting_milliseconds: i64,
    /// Events that the log could not take. They wait for a person.
    pub refused: i64,
    /// Name of the pod that leads.
    pub leader: Option<String>,
}

// Who leads is read from the lock itself: its holder's connection carries the name of its pod, and is gone with it. A
// name that was written down somewhere would tell of a leader that is no more.
const LOOK: &str = "
WITH key AS (SELECT hashtextextended(current_schema || '.sequencer', 0) AS value)
SELECT (SELECT seq FROM head), (SELECT count(*) FROM outbox_refused),
    (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS waiting),
    coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - queued_at) * 1000, 0)
        FROM outbox ORDER BY id LIMIT 1), 0)::bigint,
    (SELECT application_name FROM key JOIN pg_locks ON locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint = (value >> 32) & 4294967295 AND objid::bigint = value & 4294967295
        JOIN pg_stat_activity USING (pid))";

/// Looks at it.
pub async fn look(pool: &PgPool) -> Result<Standing, ReadLog> {
    let (head, refused, waiting, waiting_milliseconds, holder): (i64, i64, i64, i64, Option<String>) =
        bounded(sqlx::query_as(LOOK).fetch_one(pool)).await?;
    let leader = holder.and_then(|name| name.strip_prefix(SEQUENCER).map(str::to_owned));
    Ok(Standing { head, waiting, waiting_milliseconds, refused, leader })
}

/// The name of a sequencer's connection. Of a long name its end is kept: that is where pods differ.
pub(crate) fn connection_name(pod: &str) -> String {
    let mut begin = pod.len().saturating_sub(NAME_BYTES_MAX - SEQUENCER.len());
    while !pod.is_char_boundary(begin) {
        begin += 1;
    }
    format!("{SEQUENCER}{}", &pod[begin..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_connection_is_as_long_as_postgres_keeps_and_ends_like_the_pods() {
        assert_eq!(connection_name("demo-nexus-7d9f8b6c5-abcde"), "nexus-sequencer/demo-nexus-7d9f8b6c5-abcde");
        let long = connection_name(&format!("{}-7d9f8b6c5-abcde", "é".repeat(60)));
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with("é-7d9f8b6c5-abcde"), "{long}");
        assert!(long.starts_with(SEQUENCER));
    }
}
