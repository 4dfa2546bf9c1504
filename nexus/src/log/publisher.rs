//! The way into the log for events that belong to no other write. Whatever is published at the same moment is committed
//! together: by the sequencer itself where it leads, straight into the log, and by way of the outbox elsewhere.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::append::{AppendEvents, Appended, append_all, originals};
use super::event::NewEvent;
use super::queue::{Group, Queue};
use super::read::ReadLog;
use super::stamp::Outcome;
use super::tail::Tail;
use super::wake::Wake;
use crate::metrics::Metrics;
use crate::position::Position;

/// Groups under way at once: while one waits for its commit the next one is gathered.
const GROUPS_MAX: usize = 4;
/// No group takes this long unless the database is away; its callers are then told to come back.
const GROUP_DEADLINE: Duration = Duration::from_secs(5);

/// Where a published event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in the log.
    pub position: Position,
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
    /// The sequencer lost its connection, which it logs, and whether the events are in the log is not known.
    #[error("the sequencer lost the lead over the events")]
    LoseLead,
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

/// The way into the log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: Arc<Queue>,
}

impl Publisher {
    /// The publisher, and who commits what is published.
    pub(crate) fn new(pool: PgPool, tail: Tail, wake: Wake, metrics: Metrics) -> (Self, Groups) {
        let queue = Arc::<Queue>::default();
        let places = Arc::new(Semaphore::new(GROUPS_MAX));
        (Self { queue: Arc::clone(&queue) }, Groups { queue, places, pool, tail, wake, metrics })
    }

    /// Appends the events, all or none, in their order, and answers when they have their places.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<Published>, Publish> {
        self.queue.push(events)?.await.unwrap_or(Err(Publish::Stop))
    }

    /// How many requests wait for a commit, and how many bytes of events.
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.len()
    }
}

/// Commits and answers what is published, in groups; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
    pool: PgPool,
    tail: Tail,
    wake: Wake,
    metrics: Metrics,
}

impl Groups {
    /// Commits by way of the outbox whatever the sequencer does not take, because it leads elsewhere. Ends with
    /// shutdown; what is queued then is still committed.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut leading = self.wake.leading();
        while !shutdown.is_cancelled() {
            // First a free place, then the requests: while all places are taken, the next group grows.
            let place = self.place().await;
            let leads = *leading.borrow_and_update();
            let group = if leads { Group::default() } else { self.queue.take() };
            if !group.is_empty() {
                tokio::spawn(self.clone().commit(group, place));
                continue;
            }
            drop(place);
            tokio::select! {
                () = self.queue.grew(), if !leads => {}
                _ = leading.changed() => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.queue.close();
        loop {
            let place = self.place().await;
            let rest = self.queue.take();
            if rest.is_empty() {
                break;
            }
            tokio::spawn(self.clone().commit(rest, place));
        }
        // Every place free again means that every group was committed.
        let _ = self.places.acquire_many(u32::try_from(GROUPS_MAX).unwrap_or(u32::MAX)).await;
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// What waits, for the sequencer of this pod while it leads.
    pub(super) fn take(&self) -> Group {
        self.queue.take()
    }

    /// The same, once so many events wait.
    pub(super) fn take_large(&self, events_min: usize) -> Group {
        self.queue.take_large(events_min)
    }

    /// Waits until something may wait to be taken.
    pub(super) async fn grew(&self) {
        self.queue.grew().await;
    }

    /// Answers a group that the sequencer has put into the log.
    pub(super) async fn answer_stamped(&self, group: Group, outcomes: Vec<Outcome>) {
        let places = outcomes.iter().map(|outcome| match outcome {
            Outcome::Stamped(position) => Some(Place::Known(*position)),
            Outcome::Duplicate => None,
        });
        if let Some(places) = places.collect() {
            return self.answer(group, Ok(places)).await;
        }
        // The sequencer does not wait while the first events of duplicates are looked up.
        let groups = self.clone();
        tokio::spawn(async move {
            let places = in_time(groups.find_originals(group.events(), &outcomes)).await;
            groups.answer(group, places).await;
        });
    }

    async fn find_originals(&self, events: &[NewEvent], outcomes: &[Outcome]) -> Result<Vec<Place>, AppendEvents> {
        let duplicates = events.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Duplicate);
        let keys: Vec<Uuid> = duplicates.map(|(event, _)| event.key).collect();
        let mut connection = self.pool.acquire().await.map_err(AppendEvents::InsertOutbox)?;
        let mut originals = originals(&mut connection, &keys).await?.into_iter();
        let place = |outcome: &Outcome| match outcome {
            Outcome::Stamped(position) => Some(Place::Known(*position)),
            Outcome::Duplicate => originals.next().map(Place::OfOriginal),
        };
        outcomes.iter().map(place).collect::<Option<_>>().ok_or(AppendEvents::FindOriginal)
    }

    /// Answers a group of which the sequencer does not know whether it was stamped.
    pub(super) async fn answer_unknown(&self, group: Group) {
        self.answer(group, Err(Publish::LoseLead)).await;
    }

    /// Takes a group that the database refused to stamp: an event in it cannot be stored, or its key is held by a
    /// transaction that is still open. By way of the outbox each request is tried, and fails, apart from the others.
    pub(super) fn commit_apart(&self, group: Group) {
        let groups = self.clone();
        tokio::spawn(async move {
            for request in group.apart() {
                let place = groups.place().await;
                tokio::spawn(groups.clone().commit(request, place));
            }
        });
    }

    async fn commit(self, group: Group, place: OwnedSemaphorePermit) {
        let appended = in_time(append_group(&self.pool, group.events())).await;
        // The place is free as soon as the commit is over: waiting for the stamp costs the database nothing.
        drop(place);
        let places = match appended {
            Ok(appended) => self.await_places(&appended).await.map_err(not_placed),
            Err(error) => Err(error),
        };
        self.answer(group, places).await;
    }

    async fn await_places(&self, appended: &[Appended]) -> Result<Vec<Place>, ReadLog> {
        let fresh: Vec<i64> = appended.iter().filter(|one| !one.duplicate).map(|one| one.outbox_id).collect();
        let mut fresh = self.tail.await_all(&fresh).await?.into_iter();
        let place = |one: &Appended| {
            let original = one.duplicate.then_some(Place::OfOriginal(one.outbox_id));
            original.or_else(|| fresh.next().map(Place::Known))
        };
        appended.iter().map(place).collect::<Option<_>>().ok_or(ReadLog::AwaitStamp)
    }

    async fn answer(&self, group: Group, places: Result<Vec<Place>, Publish>) {
        let published = match places {
            Ok(places) => self.published(&places).await.map_err(not_placed),
            Err(error) => Err(error),
        };
        if let Ok(published) = &published {
            let fresh = published.iter().filter(|published| !published.duplicate).count();
            self.metrics.published_events.inc_by(fresh as u64);
            self.metrics.duplicate_events.inc_by((published.len() - fresh) as u64);
        }
        group.answer(&published);
    }

    async fn published(&self, places: &[Place]) -> Result<Vec<Published>, ReadLog> {
        let originals = places.iter().filter_map(|place| match place {
            Place::OfOriginal(outbox_id) => Some(*outbox_id),
            Place::Known(_) => None,
        });
        let originals: Vec<i64> = originals.collect();
        let originals = if originals.is_empty() { Vec::new() } else { self.tail.await_old(&originals).await? };
        let mut originals = originals.into_iter();
        let published = |place: &Place| match place {
            Place::Known(position) => Some(Published { position: *position, duplicate: false }),
            Place::OfOriginal(_) => originals.next().map(|position| Published { position, duplicate: true }),
        };
        places.iter().map(published).collect::<Option<_>>().ok_or(ReadLog::AwaitStamp)
    }
}

/// Where an event of a group stands.
enum Place {
    /// In the log.
    Known(Position),
    /// Where the first event with its source and id does, which has this number in the outbox.
    OfOriginal(i64),
}

fn not_placed(error: ReadLog) -> Publish {
    Publish::AwaitPlaces(Arc::new(error))
}

/// Bounds what is asked of the database: a connection that leads nowhere would be held for ever.
async fn in_time<T>(work: impl Future<Output = Result<T, AppendEvents>>) -> Result<T, Publish> {
    match tokio::time::timeout(GROUP_DEADLINE, work).await {
        Ok(done) => done.map_err(|error| Publish::AppendEvents(Arc::new(error))),
        Err(_) => Err(Publish::MissDeadline),
    }
}

/// One statement, which is a transaction by itself, unless duplicates have to be looked up after it.
async fn append_group(pool: &PgPool, events: &[NewEvent]) -> Result<Vec<Appended>, AppendEvents> {
    let mut connection = pool.acquire().await.map_err(AppendEvents::InsertOutbox)?;
    append_all(&mut connection, events).await
}
