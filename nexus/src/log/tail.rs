//! The pod's own view of the end of the log: one per pod, read by every follower.
//! It takes nothing from a wake-up: it compares its place with the head and fills the gap itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::epoch;
use super::event::{Entry, place_of_unqueued};
use super::pages::Pages;
use super::read::{self, Batch, READ_ENTRIES_MAX, ReadLog};
use super::ring::Ring;
use super::wake::Wake;
use crate::chain::Chain;
use crate::events::Registry;
use crate::position::Position;

/// Longest time between two looks at the head: the cost of a lost wake-up.
const PERIOD: Duration = Duration::from_millis(500);
/// Entries that a new pod reads back, so that clients that moved to it find their place in memory.
const WARM_ENTRIES: i64 = 1_000;
/// How long a writer waits for its event's place. The sequencer's hand-over fits into it.
const STAMP_DEADLINE: Duration = Duration::from_secs(5);

/// The pod's view of the end of the log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tail {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    registry: Arc<Registry>,
    wake: Wake,
    /// 0 until the log was read for the first time.
    epoch: AtomicI32,
    head: watch::Sender<i64>,
    ring: RwLock<Ring>,
    pages: Pages,
}

impl Tail {
    /// A view that knows nothing yet; `run` fills it. It has every entry in the current version of its type.
    pub fn new(pool: PgPool, registry: Arc<Registry>, wake: Wake) -> Self {
        let (epoch, head) = (AtomicI32::new(0), watch::Sender::new(0));
        let shared = Shared { pool, registry, wake, epoch, head, ring: RwLock::default(), pages: Pages::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The event types.
    pub(super) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The log's epoch; 0 until the log was read for the first time.
    pub fn epoch(&self) -> i32 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// Number of the newest entry that this pod has applied.
    pub fn head(&self) -> i64 {
        *self.shared.head.borrow()
    }

    /// The newest entry that this pod has applied, as clients see it.
    pub fn position(&self) -> Position {
        // Head and epoch change with the ring locked: one never stands beside the other's successor.
        self.ring(|_| self.at(self.head()))
    }

    /// The entry's place as clients see it.
    fn at(&self, seq: i64) -> Position {
        Position { epoch: self.epoch(), seq }
    }

    /// Whether the log has been read at all.
    pub fn is_loaded(&self) -> bool {
        self.epoch() > 0
    }

    /// Entries held in memory.
    pub fn ring_entries(&self) -> usize {
        self.ring(Ring::len)
    }

    /// Wakes when the head moves.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.shared.head.subscribe()
    }

    /// Up to `limit` entries that follow `seq`: from memory when they are there, or somebody has just read them, else from
    /// Postgres.
    pub async fn read_after(&self, seq: i64, limit: usize) -> Result<Batch, ReadLog> {
        if seq >= self.head() {
            return Ok(Batch::Entries(Vec::new()));
        }
        if let Some(entries) = self.ring(|ring| ring.after(seq, limit.min(READ_ENTRIES_MAX))) {
            return Ok(Batch::Entries(entries));
        }
        let epoch = self.epoch();
        let read = |seq, limit| read::after(&self.shared.pool, self.registry(), epoch, seq, limit);
        self.shared.pages.after((epoch, seq), self.head(), limit, read).await
    }

    /// The places that events of the outbox get, in the order given. Called after their transaction was committed; wakes
    /// the sequencer.
    pub async fn await_all(&self, outbox_ids: &[i64]) -> Result<Vec<Position>, ReadLog> {
        let mut moved = self.subscribe();
        self.shared.wake.outbox_grew();
        let in_memory = async {
            loop {
                if let Some(places) = self.places_in_memory(outbox_ids) {
                    return Some(places);
                }
                moved.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(STAMP_DEADLINE, in_memory).await {
            Ok(Some(places)) => Ok(places),
            Ok(None) | Err(_) => self.places_in_log(outbox_ids).await,
        }
    }

    /// The places of events that may be long gone from memory, such as the first ones of duplicates.
    pub async fn await_old(&self, outbox_ids: &[i64]) -> Result<Vec<Position>, ReadLog> {
        let queued: Vec<i64> = outbox_ids.iter().copied().filter(|id| place_of_unqueued(*id).is_none()).collect();
        let mut queued = match self.places_in_log(&queued).await {
            Err(ReadLog::AwaitStamp) => self.await_all(&queued).await?,
            found => found?,
        }
        .into_iter();
        let place = |id: &i64| place_of_unqueued(*id).map(|seq| self.at(seq)).or_else(|| queued.next());
        outbox_ids.iter().map(place).collect::<Option<_>>().ok_or(ReadLog::AwaitStamp)
    }

    fn places_in_memory(&self, outbox_ids: &[i64]) -> Option<Vec<Position>> {
        // The epoch changes with the ring locked, so it is that of the entries.
        self.ring(|ring| outbox_ids.iter().map(|id| ring.seq_of_outbox(*id).map(|seq| self.at(seq))).collect())
    }

    async fn places_in_log(&self, outbox_ids: &[i64]) -> Result<Vec<Position>, ReadLog> {
        if outbox_ids.is_empty() {
            return Ok(Vec::new());
        }
        let stamped: HashMap<i64, Position> = read::stamped(&self.shared.pool, outbox_ids).await?.into_iter().collect();
        outbox_ids.iter().map(|id| stamped.get(id).copied().ok_or(ReadLog::AwaitStamp)).collect()
    }

    fn ring<T>(&self, look: impl FnOnce(&Ring) -> T) -> T {
        look(&self.shared.ring.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn change_ring<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        change(&mut self.shared.ring.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Follows the log until shutdown: woken by a signal and by a period, it reads what is missing.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (mut away, mut woken) = (false, true);
        while !shutdown.is_cancelled() {
            let applied = self.head();
            match self.catch_up().await {
                Ok(()) => {
                    // After an outage the followers are woken by what they missed, not by a lost wake-up.
                    if self.head() > applied && !woken && !away {
                        self.shared.wake.log_had_grown();
                    }
                    away = false;
                }
                // One line when it begins and none per period.
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(error = %Chain(&error), "the log cannot be followed");
                }
                Err(_) => {}
            }
            tokio::select! {
                wake_up = self.shared.wake.log(PERIOD) => woken = wake_up,
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn catch_up(&self) -> Result<(), ReadLog> {
        loop {
            let applied = self.head();
            let (head, batch) =
                read::head_and_after(&self.shared.pool, self.registry(), applied, READ_ENTRIES_MAX).await?;
            if head.epoch != self.epoch() {
                self.start_over(head).await?;
                continue;
            }
            if head.seq < applied {
                let known = Position { epoch: head.epoch, seq: applied };
                read::bounded(epoch::raise_if_shorter(&self.shared.pool, known)).await?;
                continue;
            }
            match batch {
                Batch::Entries(entries) => self.apply(entries),
                Batch::Gap { oldest } => self.change_ring(|_| self.jump((oldest - 1).max(self.head()))),
            }
            if self.head() >= head.seq {
                return Ok(());
            }
        }
    }

    /// Applies what this pod's sequencer has just stamped, unless something before it is missing, which is then read.
    pub(super) fn hand_over(&self, epoch: i32, entries: Vec<Arc<Entry>>) {
        let follows = self.change_ring(|ring| {
            let follows = epoch == self.epoch() && entries.first().is_some_and(|entry| entry.seq <= self.head() + 1);
            if follows {
                self.push(ring, entries);
            }
            follows
        });
        if !follows {
            self.shared.wake.read_log();
        }
    }

    /// First read, or the log was restored from a backup: begin a little before its end.
    async fn start_over(&self, head: Position) -> Result<(), ReadLog> {
        let oldest = read::oldest(&self.shared.pool).await?.unwrap_or(head.seq + 1);
        let begin = (head.seq - WARM_ENTRIES).max(oldest - 1).min(head.seq);
        // Shown at once with the epoch, so that nobody sees a head that lies behind, or entries of another epoch.
        let mut warm = Ring::default();
        let mut applied = begin;
        while applied < head.seq {
            let read = read::after(&self.shared.pool, self.registry(), head.epoch, applied, READ_ENTRIES_MAX);
            match read.await? {
                Batch::Entries(entries) => {
                    let Some(newest) = entries.last().map(|entry| entry.seq) else { break };
                    applied = newest;
                    for entry in entries {
                        warm.push(entry);
                    }
                }
                Batch::Gap { oldest } => applied = oldest - 1,
            }
        }
        self.change_ring(|ring| {
            *ring = warm;
            self.shared.epoch.store(head.epoch, Ordering::Release);
            self.jump(applied);
        });
        tracing::info!(log.epoch = head.epoch, log.seq = applied, "the log is followed");
        Ok(())
    }

    fn apply(&self, entries: Vec<Arc<Entry>>) {
        self.change_ring(|ring| self.push(ring, entries));
    }

    /// Adds entries that follow the head. Some of what was read may have been handed over meanwhile.
    fn push(&self, ring: &mut Ring, entries: Vec<Arc<Entry>>) {
        let head = self.head();
        let Some(newest) = entries.last().map(|entry| entry.seq) else { return };
        entries.into_iter().filter(|entry| entry.seq > head).for_each(|entry| ring.push(entry));
        self.jump(newest.max(head));
    }

    /// Called with the ring locked, like everything that moves the head: entries come from two sides.
    fn jump(&self, head: i64) {
        self.shared.head.send_replace(head);
    }
}
