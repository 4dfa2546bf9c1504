//! The sequencer: gives every event of a committed transaction its dense place in the log.
//! One leads at a time; it holds an advisory lock on the very connection that it stamps with.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use std::{iter, mem};

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::ahead::Second;
use super::epoch;
use super::partitions::{self, ManagePartitions, Partition};
use super::publisher::Groups;
use super::queue::Group;
use super::stamp::{self, Committed, Stamper};
use super::tail::Tail;
use super::wake::Wake;
use crate::chain::Chain;
use crate::metrics::Metrics;
use crate::position::Position;
use crate::traces::Traces;

/// Longest time between two looks at the outbox: the cost of a wake-up that was lost with Redis.
const OUTBOX_PERIOD: Duration = Duration::from_millis(100);
/// How often a stand-by asks for the lead: the longest gap after a leader died.
const CANDIDATE_PERIOD: Duration = Duration::from_millis(500);
/// No step takes this long unless the connection is dead.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// The server ends the session of a leader that vanished without closing it; a living one is never idle so long.
const GHOST_SESSION_TIMEOUT: &str = "5s";
/// How long a batch waits for a lock, such as the key of an event that another transaction is about to publish. Longer
/// than retention ever holds one, shorter than a writer's patience: everything that is published waits behind it.
const LOCK_TIMEOUT: &str = "1s";
/// The server ends a transaction that its leader has left open before the lead is another one's, who needs its places.
const OPEN_TRANSACTION_TIMEOUT: &str = "2s";

/// Why the lead was lost or not taken.
#[derive(Debug, thiserror::Error)]
pub enum LeadLog {
    /// The database could not be reached.
    #[error("connect the sequencer")]
    ConnectDatabase(#[source] sqlx::Error),
    /// Asking for the lock failed.
    #[error("take the sequencer's lock")]
    TakeLock(#[source] sqlx::Error),
    /// Whether the log has become another one could not be told.
    #[error("raise the log's epoch")]
    RaiseEpoch(#[source] sqlx::Error),
    /// The stamping statement failed: none of its events was stamped, unless the connection was lost over it.
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
    /// What is published at this pod.
    pub(crate) groups: Groups,
    /// Is handed what was stamped, so that it need not read it.
    pub tail: Tail,
    /// Where it counts.
    pub metrics: Metrics,
    /// Is told of what was stamped.
    pub traces: Traces,
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
                let led = self.wake.is_leading();
                tracing::warn!(error = %Chain(&lost), led, "the sequencer stopped and tries again");
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
        let options = self.options().options([("idle_session_timeout", GHOST_SESSION_TIMEOUT)]);
        let mut connection = connect(&options).await?;
        while !step(take_lock(&mut connection)).await? {
            tokio::time::sleep(CANDIDATE_PERIOD).await;
        }
        // Before it gives a place a second time.
        let known = self.tail.position();
        let raise = async { epoch::raise_if_shorter(&mut connection, known).await.map_err(LeadLog::RaiseEpoch) };
        step(raise).await?;
        let room = step(self.make_room(&mut connection)).await?;
        let mut leader = Leader { room, head: None, stamper: Stamper::default(), second: Second::default() };
        self.wake.set_leading(true);
        tracing::info!("this pod's sequencer leads");
        let (mut left, mut group, mut before) = (VecDeque::new(), Group::default(), Batch::default());
        loop {
            if group.is_empty() {
                group = left.pop_front().unwrap_or_default();
            }
            if group.is_empty() {
                group = self.groups.take();
                if self.goes_ahead(&mut leader, &group).await {
                    (connection, left) = self
                        .stamp_ahead(connection, &mut leader, mem::take(&mut group), mem::take(&mut before))
                        .await?;
                    continue;
                }
            }
            if group.is_empty() {
                self.tell(mem::take(&mut before)).await;
            }
            // What waits is sent first. While Postgres works at it, this pod tells of the batch before.
            let next = self.stamp(&mut connection, &mut leader, &mut group);
            let (batch, ()) = tokio::join!(biased; next, self.tell(before));
            before = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    for group in iter::once(group).chain(left) {
                        self.groups.answer_unknown(group).await;
                    }
                    return Err(error);
                }
            };
            if before.head.is_none() && left.is_empty() && !leader.stamper.is_looking() {
                self.tell(mem::take(&mut before)).await;
                self.wait_for_work().await;
            }
        }
    }

    /// Waits until something was published here or committed to the outbox, at most for a period.
    async fn wait_for_work(&self) {
        tokio::select! {
            () = self.groups.grew() => {}
            () = self.wake.outbox(OUTBOX_PERIOD) => {}
        }
    }

    /// How its connections are opened.
    pub(super) fn options(&self) -> PgConnectOptions {
        let settings =
            [("lock_timeout", LOCK_TIMEOUT), ("idle_in_transaction_session_timeout", OPEN_TRANSACTION_TIMEOUT)];
        self.connect.clone().options(settings)
    }

    async fn make_room(&self, connection: &mut PgConnection) -> Result<Partition, LeadLog> {
        partitions::make_ahead(connection, self.partition_entries).await.map_err(LeadLog::MakePartitions)
    }

    /// Makes room after the head where it is short, then stamps a batch of the outbox, and the group if that is all of it.
    /// Takes the group when it is in the batch, or handed on to be committed apart.
    async fn stamp(&self, connection: &mut PgConnection, by: &mut Leader, group: &mut Group) -> Result<Batch, LeadLog> {
        if by.head.is_some_and(|head| by.room.is_short(head.seq, self.partition_entries)) {
            by.room = step(self.make_room(connection)).await?;
        }
        let begun = SystemTime::now();
        let batch = by.stamper.stamp(connection, self.wake.channel(), group.events());
        match step(async { batch.await.map_err(LeadLog::StampEvents) }).await {
            Ok(committed) => {
                let head = committed.head(group);
                by.head = head.or(by.head);
                let group = if committed.answers(group.events()) { mem::take(group) } else { Group::default() };
                Ok(Batch { head, committed: Some((committed, begun)), group })
            }
            // The connection lives, and nothing was stamped: neither a group nor an event may hold up all others.
            Err(LeadLog::StampEvents(sqlx::Error::Database(refusal)))
                if (!group.is_empty() && !by.stamper.is_looking()) || stamp::is_of_an_event(&*refusal) =>
            {
                if !group.is_empty() && !by.stamper.is_looking() {
                    tracing::debug!(error = %Chain(&*refusal), "a group is committed by way of the outbox");
                    self.groups.commit_apart(mem::take(group));
                }
                if stamp::is_of_an_event(&*refusal) {
                    self.narrow(connection, by, &*refusal).await?;
                }
                Ok(Batch::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Looks for the event of the outbox that the log cannot take, and sets it aside once it is found.
    async fn narrow(
        &self,
        connection: &mut PgConnection,
        by: &mut Leader,
        refusal: &dyn DatabaseError,
    ) -> Result<(), LeadLog> {
        let narrowed = async { by.stamper.narrow(connection, refusal).await.map_err(LeadLog::StampEvents) };
        if let Some((id, event_type)) = step(narrowed).await? {
            self.metrics.refused_events.inc();
            tracing::error!(
                outbox.id = id,
                event.r#type = event_type,
                error = %Chain(refusal),
                "the log cannot take an event; it waits in the table outbox_refused"
            );
        }
        Ok(())
    }

    /// Tells this pod, the others and the publishers what became of a batch.
    pub(super) async fn tell(&self, batch: Batch) {
        let Some((committed, begun)) = batch.committed else { return };
        let stamped = committed.read(self.tail.registry(), batch.group.events());
        if !stamped.entries.is_empty() {
            self.metrics.stamped_batches.inc();
            self.metrics.stamped_events.inc_by(stamped.entries.len() as u64);
            self.traces.stamped(&stamped.entries, begun);
            self.tail.hand_over(stamped.epoch, stamped.entries);
            self.wake.log_grew();
        }
        self.groups.answer_stamped(batch.group, stamped.outcomes).await;
    }
}

/// What a leader keeps from one batch to the next.
pub(super) struct Leader {
    /// The newest partition of the log.
    pub(super) room: Partition,
    /// Where the log ended last; nothing when that is not known.
    pub(super) head: Option<Position>,
    pub(super) stamper: Stamper,
    pub(super) second: Second,
}

/// A batch that was committed, and of which nobody has been told yet.
#[derive(Default)]
pub(super) struct Batch {
    /// Where the log ends with it; nothing when it did not grow.
    pub(super) head: Option<Position>,
    /// What Postgres answered, and when it was asked; nothing when it refused.
    pub(super) committed: Option<(Committed, SystemTime)>,
    /// The group in it, whose publishers wait.
    pub(super) group: Group,
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LeadLog> {
    step(async { PgConnection::connect_with(options).await.map_err(LeadLog::ConnectDatabase) }).await
}

/// Bounds a step, so that a dead connection cannot hold the lead for ever.
pub(super) async fn step<T>(work: impl Future<Output = Result<T, LeadLog>>) -> Result<T, LeadLog> {
    tokio::time::timeout(STEP_DEADLINE, work).await.unwrap_or(Err(LeadLog::MissDeadline))
}

/// The lock belongs to the session: when the connection ends, so does the lead. One lock per schema.
async fn take_lock(connection: &mut PgConnection) -> Result<bool, LeadLog> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended(current_schema || '.sequencer', 0))")
        .fetch_one(connection)
        .await
        .map_err(LeadLog::TakeLock)
}
