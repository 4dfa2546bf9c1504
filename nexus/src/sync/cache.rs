//! Reads a record through the caches: the pod's memory, then Redis, then the database.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use moka::Expiry;
use rand::RngExt;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::metrics::SyncMetrics;
use super::shared::Shared;
use super::value::{Held, Loaded, Tier};
use super::view::{Verdict, View};
use crate::log::Tail;
use crate::position::Position;
use crate::store::redis::Connection;

/// Memory that the pod's own tier may take.
const LOCAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Changes that a pod remembers; at about 128 bytes each this bounds them to 8 MiB.
pub(super) const CHANGES_REMEMBERED_MAX: usize = 65_536;

/// How long a pod keeps a value: between these two, by chance, so that values read at one
/// moment are not all read again at one later moment. Short beside Redis' ten minutes: then
/// an emptied Redis soon holds again what is read often, for a pod that starts.
const KEPT_SECONDS: std::ops::Range<u64> = 16..24;

/// How long it keeps the knowledge that a record does not exist. Shorter: names are made up
/// by callers, and each costs memory.
const ABSENT_KEPT_SECONDS: std::ops::Range<u64> = 4..6;

/// How long a read waits for the pod to reach the position that its caller asks for, before
/// it goes to the database. Longer than a wake-up takes, shorter than anybody notices.
const CATCH_UP_DEADLINE: Duration = Duration::from_millis(100);

/// How long a read waits for another caller's read of the same record. Beyond it something
/// is wrong with that one, and not yet with the database.
const JOIN_DEADLINE: Duration = Duration::from_secs(1);

/// An answer, and how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The record as JSON; `None` when there is no such record.
    pub body: Option<Bytes>,
    /// The record is as it was at this position of the log.
    pub as_of: Position,
    /// How long ago it was read from the database.
    pub age: Duration,
    /// Which tier answered.
    pub tier: Tier,
}

/// Why a record could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadValue {
    /// The database did not answer.
    #[error("load the record from the database")]
    LoadRecord(#[source] Arc<sqlx::Error>),
    /// The caller asks for a position that the log has not reached, or of another epoch.
    #[error("reach the position {asked}; the log is at {head}")]
    ReachPosition {
        /// What the caller asked for.
        asked: Position,
        /// Where the database is.
        head: Position,
    },
}

/// The caches of one pod; cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// What is cached is about people, and not to be printed.
impl fmt::Debug for Cache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cache").finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) local: moka::future::Cache<String, Held>,
    pub(super) shared: Shared,
    pub(super) view: RwLock<View>,
    /// The position that the view has applied, for those who wait for one.
    pub(super) applied: watch::Sender<Position>,
    pub(super) metrics: SyncMetrics,
}

struct KeptFor;

impl Expiry<String, Held> for KeptFor {
    fn expire_after_create(&self, _key: &String, held: &Held, _now: Instant) -> Option<Duration> {
        Some(held.kept_for)
    }
}

impl Cache {
    /// Empty caches. They serve nothing before [`Cache::follow`] runs.
    pub fn new(redis: Connection, redis_prefix: &str, metrics: SyncMetrics) -> Self {
        let local = moka::future::Cache::builder()
            .max_capacity(LOCAL_BYTES_MAX)
            .weigher(|key: &String, held: &Held| held.weight(key))
            .expire_after(KeptFor)
            .build();
        let nothing = View::new(0, Changes::starting_at(0, CHANGES_REMEMBERED_MAX));
        let inner = Inner {
            local,
            shared: Shared::new(redis, redis_prefix),
            view: RwLock::new(nothing),
            applied: watch::Sender::new(Position { epoch: 0, seq: 0 }),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Follows the log until shutdown: applies changes, and confirms that none is missing.
    pub async fn follow(self, tail: Tail, pool: PgPool, shutdown: CancellationToken) {
        super::follower::run(&self.inner, &tail, &pool, &shutdown).await;
    }

    /// Reads the record `key`, which is its subject in the log. With `at_least` the answer
    /// holds every change up to that position. `load` reads the database.
    pub async fn read<L, F>(&self, key: &str, at_least: Option<Position>, load: L) -> Result<Reading, ReadValue>
    where
        L: Fn() -> F,
        F: Future<Output = Result<Loaded, sqlx::Error>>,
    {
        let reading = match self.inner.through_caches(key, at_least, &load).await? {
            Some(reading) => reading,
            None => from_database(&load).await?,
        };
        self.inner.metrics.read(reading.tier);
        match at_least {
            Some(asked) if !reading.as_of.includes(asked) => {
                Err(ReadValue::ReachPosition { asked, head: reading.as_of })
            }
            _ => Ok(reading),
        }
    }
}

impl Inner {
    /// `None` when the caches cannot answer as freshly as they must.
    async fn through_caches<L, F>(
        &self,
        key: &str,
        at_least: Option<Position>,
        load: &L,
    ) -> Result<Option<Reading>, ReadValue>
    where
        L: Fn() -> F,
        F: Future<Output = Result<Loaded, sqlx::Error>>,
    {
        if let Some(asked) = at_least
            && !self.reaches(asked).await
        {
            return Ok(None);
        }
        if !self.is_confirmed() {
            self.metrics.unconfirmed.inc();
            return Ok(None);
        }
        if let Some(held) = self.local.get(key).await {
            if let Some(reading) = self.judged(key, held, Tier::Local) {
                return Ok(Some(reading));
            }
            self.local.invalidate(key).await;
        }
        self.fetch_once(key, load).await
    }

    /// Asks Redis and then the database, once for all who ask at the same time.
    async fn fetch_once<L, F>(&self, key: &str, load: &L) -> Result<Option<Reading>, ReadValue>
    where
        L: Fn() -> F,
        F: Future<Output = Result<Loaded, sqlx::Error>>,
    {
        let leads = AtomicBool::new(false);
        let from_shared = AtomicBool::new(false);
        let from_database = AtomicBool::new(false);
        let fetch = async {
            leads.store(true, Ordering::Relaxed);
            let epoch = self.lock_view().epoch();
            if let Some(held) = self.shared.get(epoch, key).await
                && let Some(reading) = self.judged(key, held.clone(), Tier::Shared)
            {
                from_shared.store(true, Ordering::Relaxed);
                return Ok(Held { kept_for: kept_for(reading.body.is_some()), ..held });
            }
            let held = hold(load().await?);
            from_database.store(true, Ordering::Relaxed);
            self.shared.fill(key, &held).await;
            Ok::<Held, sqlx::Error>(held)
        };
        let mut fetched = pin!(self.local.try_get_with_by_ref(key, fetch));
        let held = match timeout(JOIN_DEADLINE, &mut fetched).await {
            Ok(held) => held,
            Err(_late) if leads.load(Ordering::Relaxed) => fetched.await,
            Err(_late) => return Ok(None),
        };
        let held = held.map_err(ReadValue::LoadRecord)?;
        if from_database.load(Ordering::Relaxed) {
            // Read for this very caller, after it asked: current whatever has changed since.
            let as_of = held.as_of;
            return Ok(Some(reading(held, as_of, Tier::Database)));
        }
        let tier = if from_shared.load(Ordering::Relaxed) { Tier::Shared } else { Tier::Local };
        // Another caller's read may have begun before a change that this pod has applied.
        Ok(self.judged(key, held, tier))
    }

    /// The value as an answer, if it may be served now.
    fn judged(&self, key: &str, held: Held, tier: Tier) -> Option<Reading> {
        let verdict = self.lock_view().judge(key, held.as_of, Instant::now());
        match verdict {
            Verdict::Serve(position) => Some(reading(held, position, tier)),
            Verdict::Changed => {
                self.metrics.refused.inc();
                None
            }
            Verdict::Unconfirmed => None,
        }
    }

    fn is_confirmed(&self) -> bool {
        self.lock_view().is_confirmed(Instant::now())
    }

    /// Waits shortly for this pod to have applied `asked`.
    async fn reaches(&self, asked: Position) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.includes(asked));
        matches!(timeout(CATCH_UP_DEADLINE, reached).await, Ok(Ok(_)))
    }

    fn lock_view(&self) -> std::sync::RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view and tells those who wait.
    pub(super) fn change_view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut view);
        let applied = Position { epoch: view.epoch(), seq: view.changes().applied() };
        drop(view);
        self.metrics.applied.set(applied.seq);
        self.applied.send_replace(applied);
        result
    }
}

async fn from_database<L, F>(load: &L) -> Result<Reading, ReadValue>
where
    L: Fn() -> F,
    F: Future<Output = Result<Loaded, sqlx::Error>>,
{
    let loaded = load().await.map_err(|error| ReadValue::LoadRecord(Arc::new(error)))?;
    Ok(Reading { body: loaded.body, as_of: loaded.as_of, age: Duration::ZERO, tier: Tier::Database })
}

fn reading(held: Held, as_of: Position, tier: Tier) -> Reading {
    let age = Timestamp::now().duration_since(held.read_at);
    Reading { body: held.body, as_of, age: Duration::try_from(age).unwrap_or_default(), tier }
}

fn hold(loaded: Loaded) -> Held {
    let kept_for = kept_for(loaded.body.is_some());
    Held { body: loaded.body, as_of: loaded.as_of, read_at: Timestamp::now(), kept_for }
}

fn kept_for(exists: bool) -> Duration {
    let seconds = if exists { KEPT_SECONDS } else { ABSENT_KEPT_SECONDS };
    let milliseconds = seconds.start * 1_000..seconds.end * 1_000;
    Duration::from_millis(rand::rng().random_range(milliseconds))
}
