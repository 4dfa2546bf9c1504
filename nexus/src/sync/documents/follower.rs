//! Keeps the profiles at the log: woken by the tail and by a period, it looks at its lease
//! and its position, and applies what is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::metrics::SyncMetrics;
use super::collection::{AccessDocuments, Lease, Profiles};
use crate::chain::Chain;
use crate::log::{Batch, Tail};
use crate::position::Position;
use crate::records::{load, user};

/// How often the lease is renewed and the collection's position looked at: this is how soon
/// a dropped collection is noticed.
const PERIOD: Duration = Duration::from_secs(1);

/// Entries looked at, and profiles rebuilt, in one step.
const STEP: usize = 500;

/// What the follower works with.
struct Follower {
    profiles: Profiles,
    pool: PgPool,
    tail: Tail,
    metrics: SyncMetrics,
    owner: Uuid,
    /// What the collection has applied, as stored, while this pod has the lease.
    stored: Option<Position>,
    /// What this pod has looked through; at least `stored`.
    seen: i64,
}

/// Runs until shutdown. `MongoDB` away only means that profiles are read from Postgres.
pub async fn follow(profiles: Profiles, pool: PgPool, tail: Tail, metrics: SyncMetrics, shutdown: CancellationToken) {
    let mut follower = Follower { profiles, pool, tail, metrics, owner: Uuid::new_v4(), stored: None, seen: 0 };
    let mut moved = follower.tail.subscribe();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        let lease_is_due = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = period.tick() => true,
            Ok(()) = moved.changed(), if follower.stored.is_some() => false,
        };
        let step = tokio::select! {
            step = follower.step(lease_is_due) => step,
            () = shutdown.cancelled() => return,
        };
        match step {
            Ok(()) if away => tracing::info!("the documents follow the log again"),
            Err(ref error) if !away => {
                tracing::warn!(error = %Chain(error), "the documents cannot follow the log");
            }
            _ => {}
        }
        away = step.is_err();
        if away {
            follower.stored = None;
        }
    }
}

impl Follower {
    async fn step(&mut self, lease_is_due: bool) -> Result<(), AccessDocuments> {
        if !self.tail.is_loaded() {
            return Ok(());
        }
        if lease_is_due {
            self.look().await?;
        }
        self.catch_up().await
    }

    /// Renews the lease and compares the collection's position with the log.
    async fn look(&mut self) -> Result<(), AccessDocuments> {
        if let Some(stored) = self.stored
            && self.seen > stored.seq
        {
            // Nothing in between concerned a profile; the position moves on all the same.
            self.store(Some(stored), Position { seq: self.seen, ..stored }).await?;
        }
        match self.profiles.lease(self.owner).await? {
            Lease::Elsewhere => self.stored = None,
            Lease::HeldEmpty => self.rebuild(None).await?,
            Lease::Held(stored) if stored.epoch != self.tail.epoch() => self.rebuild(Some(stored)).await?,
            Lease::Held(stored) => {
                let before = self.stored.replace(stored);
                if before != Some(stored) {
                    self.seen = stored.seq;
                }
            }
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), AccessDocuments> {
        while let Some(stored) = self.stored {
            match self.tail.read_after(self.seen, STEP).await.map_err(AccessDocuments::ReadLog)? {
                Batch::Gap { .. } => self.rebuild(Some(stored)).await?,
                Batch::Entries(entries) => {
                    let Some(newest) = entries.last().map(|entry| entry.seq) else {
                        return Ok(());
                    };
                    let changed: BTreeSet<Uuid> =
                        entries.iter().filter_map(|entry| user::id_of_subject(&entry.subject)).collect();
                    self.apply(changed.into_iter().collect(), stored, newest).await?;
                }
            }
        }
        Ok(())
    }

    async fn apply(&mut self, changed: Vec<Uuid>, stored: Position, newest: i64) -> Result<(), AccessDocuments> {
        self.seen = newest;
        if changed.is_empty() {
            return Ok(());
        }
        let read = load::profiles(&self.pool, &changed).await.map_err(AccessDocuments::LoadRecords)?;
        self.profiles.replace(&read.profiles, read.as_of).await?;
        self.store(Some(stored), Position { seq: newest, ..stored }).await
    }

    /// Makes every profile anew from the records. The position comes last: whoever finds
    /// none begins again.
    async fn rebuild(&mut self, from: Option<Position>) -> Result<(), AccessDocuments> {
        self.stored = None;
        tracing::info!("the profiles are rebuilt from the records");
        let step = i64::try_from(STEP).unwrap_or(i64::MAX);
        let (mut after, mut start, mut count) = (Uuid::nil(), None, 0);
        loop {
            let page = load::profiles_after(&self.pool, after, step).await.map_err(AccessDocuments::LoadRecords)?;
            let start = *start.get_or_insert(page.as_of);
            self.profiles.replace(&page.profiles, page.as_of).await?;
            count += page.profiles.len();
            match page.profiles.last() {
                Some(last) if page.profiles.len() == STEP => after = last.user_id,
                _ => {
                    self.store(from, start).await?;
                    break;
                }
            }
            if self.profiles.lease(self.owner).await? == Lease::Elsewhere {
                return Ok(());
            }
        }
        self.metrics.rebuilds.inc();
        tracing::info!(profiles.count = count, "the profiles were rebuilt");
        Ok(())
    }

    /// Stores the position. When it was not this pod's to move, the next look says why.
    async fn store(&mut self, from: Option<Position>, to: Position) -> Result<(), AccessDocuments> {
        if self.profiles.advance(self.owner, from, to).await? {
            self.stored = Some(to);
            self.seen = to.seq;
            self.metrics.documents_applied.set(to.seq);
        } else {
            self.stored = None;
        }
        Ok(())
    }
}
