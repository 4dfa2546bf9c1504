//! Group commit: whatever is published at the same moment goes into the outbox in one transaction.
//! One commit then serves many callers, each of whom gets an answer only after it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::append::{AppendEvents, Appended, append_all};
use super::event::NewEvent;
use super::read::ReadLog;
use super::tail::Tail;
use crate::metrics::Metrics;

/// Requests that may wait for a transaction; more are told to come back.
const QUEUE_REQUESTS_MAX: usize = 4_096;
/// Events after which a group takes no further request: one statement stays short.
const GROUP_EVENTS_MAX: usize = 1_000;
/// Groups under way at once: while one waits for its commit the next one is gathered.
const GROUPS_MAX: usize = 4;
/// No group takes this long unless the database is away; its callers are then told to come back.
const GROUP_DEADLINE: Duration = Duration::from_secs(5);

/// Where a published event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its number in the log.
    pub seq: i64,
    /// Whether an event with this source and id was there before.
    pub duplicate: bool,
}

/// Why events were not published, or not known to be. All are safe to repeat: publishing is idempotent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Publish {
    /// More requests wait than the queue holds.
    #[error("the publish queue is full")]
    FillQueue,
    /// The transaction failed, or its outcome is not known.
    #[error("append events")]
    AppendEvents(#[source] Arc<AppendEvents>),
    /// The events are durable, their places not known yet.
    #[error("wait for the places of events")]
    AwaitPlaces(#[source] Arc<ReadLog>),
    /// The database did not answer in time.
    #[error("the database did not answer the publisher within its deadline")]
    MissDeadline,
    /// Nexus is shutting down.
    #[error("the publisher has stopped")]
    Stop,
}

struct Request {
    events: Vec<NewEvent>,
    reply: oneshot::Sender<Result<Vec<Published>, Publish>>,
}

/// The way into the log for events that belong to no other write; cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Request>,
}

/// The other end of the queue.
#[derive(Debug)]
pub(crate) struct Groups {
    queue: mpsc::Receiver<Request>,
    pool: PgPool,
    tail: Tail,
    metrics: Metrics,
}

impl Publisher {
    /// The publisher, and the groups that its task is to run.
    pub(crate) fn new(pool: PgPool, tail: Tail, metrics: Metrics) -> (Self, Groups) {
        let (sender, queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
        (Self { queue: sender }, Groups { queue, pool, tail, metrics })
    }

    /// Appends the events, all or none, in their order, and answers when they have their places.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<Published>, Publish> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Request { events, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Publish::FillQueue,
            mpsc::error::TrySendError::Closed(_) => Publish::Stop,
        })?;
        answer.await.unwrap_or(Err(Publish::Stop))
    }
}

impl Groups {
    /// Gathers and commits groups until shutdown; what is queued then is still committed.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(GROUPS_MAX));
        loop {
            // First a free place, then the requests: while all places are taken, the next group grows.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let first = tokio::select! {
                biased;
                first = self.queue.recv() => first,
                () = shutdown.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            let Some(first) = first else { break };
            let group = self.gather(first);
            tokio::spawn(commit(group, self.pool.clone(), self.tail.clone(), self.metrics.clone(), place));
        }
        // Every place free again means that every group was answered.
        let _ = places.acquire_many(u32::try_from(GROUPS_MAX).unwrap_or(u32::MAX)).await;
    }

    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut events = first.events.len();
        let mut group = vec![first];
        while events < GROUP_EVENTS_MAX {
            let Ok(next) = self.queue.try_recv() else { break };
            events += next.events.len();
            group.push(next);
        }
        group
    }
}

async fn commit(group: Vec<Request>, pool: PgPool, tail: Tail, metrics: Metrics, place: OwnedSemaphorePermit) {
    let mut events = Vec::new();
    let mut replies = Vec::with_capacity(group.len());
    for request in group {
        replies.push((request.events.len(), request.reply));
        events.extend(request.events);
    }
    let appended = match tokio::time::timeout(GROUP_DEADLINE, append_group(&pool, &events)).await {
        Ok(appended) => appended.map_err(|error| Publish::AppendEvents(Arc::new(error))),
        Err(_) => Err(Publish::MissDeadline),
    };
    // The place is free as soon as the commit is over: waiting for the stamp costs the database nothing.
    drop(place);
    let published = match appended {
        Ok(appended) => find_places(&tail, &appended).await.map_err(|error| Publish::AwaitPlaces(Arc::new(error))),
        Err(error) => Err(error),
    };
    if let Ok(published) = &published {
        let fresh = published.iter().filter(|published| !published.duplicate).count();
        metrics.published_events.inc_by(fresh as u64);
        metrics.duplicate_events.inc_by((published.len() - fresh) as u64);
    }
    let mut answered = 0;
    for (count, reply) in replies {
        let answer = published.clone().map(|all| all[answered..answered + count].to_vec());
        answered += count;
        // Nobody waits any more when the client has left.
        let _ = reply.send(answer);
    }
}

async fn append_group(pool: &PgPool, events: &[NewEvent]) -> Result<Vec<Appended>, AppendEvents> {
    let mut connection = pool.acquire().await.map_err(AppendEvents::InsertOutbox)?;
    append_in_transaction(&mut connection, events).await
}

async fn append_in_transaction(
    connection: &mut PgConnection,
    events: &[NewEvent],
) -> Result<Vec<Appended>, AppendEvents> {
    let mut transaction = connection.begin().await.map_err(AppendEvents::InsertOutbox)?;
    let appended = append_all(&mut transaction, events).await?;
    transaction.commit().await.map_err(AppendEvents::InsertOutbox)?;
    Ok(appended)
}

async fn find_places(tail: &Tail, appended: &[Appended]) -> Result<Vec<Published>, ReadLog> {
    let ids = |duplicate: bool| -> Vec<i64> {
        appended.iter().filter(|one| one.duplicate == duplicate).map(|one| one.outbox_id).collect()
    };
    let (fresh, old) = (ids(false), ids(true));
    let mut fresh = tail.await_all(&fresh).await?.into_iter();
    let mut old = if old.is_empty() { Vec::new() } else { tail.await_old(&old).await? }.into_iter();
    let place = |one: &Appended| {
        let seq = if one.duplicate { old.next() } else { fresh.next() };
        seq.map(|seq| Published { seq, duplicate: one.duplicate }).ok_or(ReadLog::AwaitStamp)
    };
    appended.iter().map(place).collect()
}
