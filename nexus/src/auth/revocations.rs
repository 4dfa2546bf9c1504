//! Tokens that count no more although their time has not come. Every pod asks the table twice a second, so a revocation
//! counts everywhere within a second, whatever becomes of Redis.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Claims;
use super::verifier::LEEWAY_SECONDS;
use crate::chain::Chain;
use crate::realtime::Hub;
use crate::store::postgres::in_time;

/// How often the table is looked at. With the time of the look it is well below the second that is promised.
const PERIOD: Duration = Duration::from_millis(500);

/// How long a revocation is kept after its end, in seconds: clocks differ, and a token counts a little beyond its end.
const KEPT_BEYOND_SECONDS: i32 = 60;

/// What was revoked; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Grows with every change; zero before the table was read.
    revision: AtomicU64,
    known: RwLock<Known>,
    /// Longest life of a token, if it is bounded.
    token_seconds_max: Option<u32>,
    /// Held while the table is looked at: what is found later was there later.
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// How many rows the table had and a digest of their ids. None is ever changed.
    rows: (i64, i64),
    /// By subject the second up to which its tokens count no more.
    subjects: HashMap<String, u64>,
    token_ids: HashSet<String>,
}

impl Revocations {
    /// Those of tokens that live no longer than this, if that is known.
    pub(super) fn of_tokens(token_seconds_max: Option<u32>) -> Self {
        Self { shared: Arc::new(Shared { token_seconds_max, ..Shared::default() }) }
    }

    /// Whether the table was read at all.
    pub fn is_loaded(&self) -> bool {
        self.revision() > 0
    }

    /// Grows with every change: who has seen this one need not look again.
    pub(crate) fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Whether the token counts no more. One that does not say when it was issued counts no more once its subject was
    /// revoked.
    pub fn concern(&self, claims: &Claims) -> bool {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = claims.jti.as_ref().is_some_and(|id| known.token_ids.contains(id));
        let by_subject = known.subjects.get(&claims.sub);
        // The issuer's clock may be ahead of the database's.
        let before = |revoked: &u64| claims.iat.is_none_or(|issued| issued <= revoked + LEEWAY_SECONDS);
        by_id || by_subject.is_some_and(before)
    }

    /// Follows the table until shutdown, and wakes the connections for what is new.
    pub(crate) async fn follow(self, pool: PgPool, hub: Hub, shutdown: CancellationToken) {
        loop {
            // The tail tells people that Postgres is away, once for all.
            if let Err(error) = self.look(&pool, &hub).await {
                tracing::debug!(error = %Chain(&error), "the revocations cannot be read");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Reads the table if it has changed, and removes what has come to its end.
    pub(crate) async fn look(&self, pool: &PgPool, hub: &Hub) -> Result<(), sqlx::Error> {
        // The digest tells also of a row that came while another went, or was committed after a later one.
        const LOOK: &str = "SELECT count(*), coalesce(bit_xor(hashint8extended(id, 0)), 0),
                coalesce(bool_or(coalesce(ends_at, revoked_at + make_interval(secs => $1)) < now() - make_interval(secs => $2)), false)
            FROM revocation";
        const REMOVE: &str = "DELETE FROM revocation
            WHERE coalesce(ends_at, revoked_at + make_interval(secs => $1)) < now() - make_interval(secs => $2)";
        let _alone = self.shared.looking.lock().await;
        let life = self.shared.token_seconds_max.map(f64::from);
        let look = sqlx::query_as(LOOK).bind(life).bind(f64::from(KEPT_BEYOND_SECONDS));
        let (count, digest, ended): (i64, i64, bool) = in_time(look.fetch_one(pool)).await?;
        if ended {
            // Every pod finds them; the first one removes them.
            let remove = sqlx::query(REMOVE).bind(life).bind(f64::from(KEPT_BEYOND_SECONDS));
            let removed = in_time(remove.execute(pool)).await?.rows_affected();
            tracing::debug!(removed, "revocations have come to their end");
        }
        if self.is_loaded() && !ended && self.known(|known| known.rows == (count, digest)) {
            return Ok(());
        }
        let known = read(pool).await?;
        if self.is_loaded() && self.known(|before| before.include(&known)) {
            // Nothing is new, so nobody need look.
            self.replace(known);
            return Ok(());
        }
        self.replace(known);
        self.shared.revision.fetch_add(1, Ordering::AcqRel);
        hub.wake_all();
        Ok(())
    }

    fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.shared.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, known: Known) {
        *self.shared.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Known {
    /// Whether everything that `other` revokes is revoked here.
    fn include(&self, other: &Self) -> bool {
        let has_subject =
            |(subject, second): (&String, &u64)| self.subjects.get(subject).is_some_and(|own| own >= second);
        other.subjects.iter().all(has_subject) && other.token_ids.is_subset(&self.token_ids)
    }
}

async fn read(pool: &PgPool) -> Result<Known, sqlx::Error> {
    const READ: &str = "SELECT subject, token_id, floor(extract(epoch FROM revoked_at))::bigint,
            count(*) OVER (), bit_xor(hashint8extended(id, 0)) OVER () FROM revocation";
    type Row = (Option<String>, Option<String>, i64, i64, i64);
    let rows: Vec<Row> = in_time(sqlx::query_as(READ).fetch_all(pool)).await?;
    let mut known = Known::default();
    for (subject, token_id, second, count, digest) in rows {
        known.rows = (count, digest);
        let second = u64::try_from(second).unwrap_or_default();
        if let Some(subject) = subject {
            let newest = known.subjects.entry(subject).or_default();
            *newest = second.max(*newest);
        }
        known.token_ids.extend(token_id);
    }
    Ok(known)
}
