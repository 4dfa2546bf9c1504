//! The sequencer: gives every event of a committed transaction its dense place in the log.
//! One leads at a time; it holds an advisory lock on the very connection that it stamps with.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::partitions::{self, ManagePartitions, Partition};
use super::wake::Wake;
use crate::metrics::Metrics;

/// Most events of one batch: one commit for many, yet short enough that a batch is never waited for long.
const BATCH_EVENTS_MAX: i64 = 1_000;
/// Longest time between two looks at the outbox: the cost of a wake-up that was lost with Redis.
const OUTBOX_PERIOD: Duration = Duration::from_millis(100);
/// How often a stand-by asks for the lead: the longest gap after a leader died.
const CANDIDATE_PERIOD: Duration = Duration::from_millis(500);
/// No step takes this long unless the connection is dead.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// The server ends the session of a leader that vanished without closing it; a living one is never idle so long.
const GHOST_SESSION_TIMEOUT: &str = "5s";

/// Why the lead was lost or not taken.
#[derive(Debug, thiserror::Error)]
pub enum LeadLog {
    /// The database could not be reached.
    #[error("connect the sequencer")]
    ConnectDatabase(#[source] sqlx::Error),
    /// Asking for the lock failed.
    #[error("take the sequencer's lock")]
    TakeLock(#[source] sqlx::Error),
    /// A statement of the stamping transaction failed; none of its events was stamped.
    #[error("stamp events")]
    StampEvents(#[source] sqlx::Error),
    /// No room could be made for further entries.
    #[error("make partitions of the log")]
    MakePartitions(#[source] ManagePartitions),
    /// The database did not answer in time.
    #[error("the database did not answer the sequencer within its deadline")]
    MissDeadline,
}

/// One pod's candidate for the lead.
#[derive(Clone, Debug)]
pub struct Sequencer {
    /// How to open the connection that holds the lock.
    pub connect: PgConnectOptions,
    /// Entries of one partition.
    pub partition_entries: i64,
    /// Wakes it and is woken by it.
    pub wake: Wake,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Sequencer {
    /// Leads whenever it can, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut away = false;
        loop {
            let lost = tokio::select! {
                lost = self.lead() => lost,
                // The connection is dropped with the future, and the lock with it.
                () = shutdown.cancelled() => break,
            };
            if self.wake.is_leading() || !away {
                let error: &dyn std::error::Error = &lost;
                tracing::warn!(error, led = self.wake.is_leading(), "the sequencer stopped and tries again");
            }
            away = true;
            self.wake.set_leading(false);
            let _ = tokio::time::timeout(CANDIDATE_PERIOD, shutdown.cancelled()).await;
        }
        self.wake.set_leading(false);
    }

    /// Waits for the lead, then stamps until something fails.
    async fn lead(&self) -> LeadLog {
        match self.lead_on_connection().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn lead_on_connection(&self) -> Result<std::convert::Infallible, LeadLog> {
        let options = self.connect.clone().options([("idle_session_timeout", GHOST_SESSION_TIMEOUT)]);
        let mut connection =
            step(async { PgConnection::connect_with(&options).await.map_err(LeadLog::ConnectDatabase) }).await?;
        while !step(take_lock(&mut connection)).await? {
            tokio::time::sleep(CANDIDATE_PERIOD).await;
        }
        let mut room = step(self.make_room(&mut connection)).await?;
        self.wake.set_leading(true);
        tracing::info!("this pod's sequencer leads");
        loop {
            let stamped = step(self.stamp(&mut connection)).await?;
            if let Some(stamped) = stamped {
                self.wake.log_grew();
                if room.is_short(stamped.head, self.partition_entries) {
                    room = step(self.make_room(&mut connection)).await?;
                }
                if stamped.count == BATCH_EVENTS_MAX {
                    continue;
                }
            }
            self.wake.outbox(OUTBOX_PERIOD).await;
        }
    }

    async fn make_room(&self, connection: &mut PgConnection) -> Result<Partition, LeadLog> {
        partitions::make_ahead(connection, self.partition_entries).await.map_err(LeadLog::MakePartitions)
    }

    /// Stamps one batch; nothing when the outbox is empty.
    async fn stamp(&self, connection: &mut PgConnection) -> Result<Option<Stamped>, LeadLog> {
        let waiting: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox)")
            .fetch_one(&mut *connection)
            .await
            .map_err(LeadLog::StampEvents)?;
        if !waiting {
            return Ok(None);
        }
        let stamped = stamp_batch(connection, self.wake.channel()).await.map_err(LeadLog::StampEvents)?;
        self.metrics.stamped_batches.inc();
        self.metrics.stamped_events.inc_by(u64::try_from(stamped.count).unwrap_or(0));
        Ok(Some(stamped))
    }
}

struct Stamped {
    head: i64,
    count: i64,
}

/// Bounds a step, so that a dead connection cannot hold the lead for ever.
async fn step<T>(work: impl Future<Output = Result<T, LeadLog>>) -> Result<T, LeadLog> {
    tokio::time::timeout(STEP_DEADLINE, work).await.unwrap_or(Err(LeadLog::MissDeadline))
}

/// The lock belongs to the session: when the connection ends, so does the lead. One lock per schema.
async fn take_lock(connection: &mut PgConnection) -> Result<bool, LeadLog> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended(current_schema || '.sequencer', 0))")
        .fetch_one(connection)
        .await
        .map_err(LeadLog::TakeLock)
}

// Rows become visible in commit order, which need not be the order of their numbers: whatever is visible now is
// stamped in the order of numbers, and a row that commits later comes later.
const STAMP: &str = "
WITH taken AS (
    DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id LIMIT $2))
    RETURNING id, key, type, subject, event
)
INSERT INTO log (seq, outbox_id, key, type, subject, event)
SELECT $1 + row_number() OVER (ORDER BY id), id, key, type, subject, event FROM taken";

/// One transaction: the head is locked first, so that even two leaders could not give one number twice.
async fn stamp_batch(connection: &mut PgConnection, channel: &str) -> Result<Stamped, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let head: i64 = sqlx::query_scalar("SELECT seq FROM head FOR UPDATE").fetch_one(&mut *transaction).await?;
    let inserted = sqlx::query(STAMP).bind(head).bind(BATCH_EVENTS_MAX).execute(&mut *transaction).await?;
    let count = i64::try_from(inserted.rows_affected()).unwrap_or(i64::MAX);
    let head = head + count;
    sqlx::query("WITH moved AS (UPDATE head SET seq = $1) SELECT pg_notify($2, '')")
        .bind(head)
        .bind(channel)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Stamped { head, count })
}
