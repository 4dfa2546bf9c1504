//! Tokens that count no more although their time has not come. Every pod asks the table twice a second, so a revocation
//! counts everywhere within a second, whatever becomes of Redis.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::Claims;
use super::verifier::LEEWAY_SECONDS;
use crate::chain::Chain;
use crate::realtime::Hub;
use crate::store::postgres::in_time;

/// How often the table is looked at. With the time of the look it is well below the second that is promised.
const PERIOD: Duration = Duration::from_millis(500);

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
}

#[derive(Debug, Default)]
struct Known {
    /// Rows of the table, of which none is ever changed or removed.
    rows: i64,
    /// By subject the second up to which its tokens count no more.
    subjects: HashMap<String, u64>,
    token_ids: HashSet<String>,
}

impl Revocations {
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

    /// Reads the table if it has grown.
    pub(crate) async fn look(&self, pool: &PgPool, hub: &Hub) -> Result<(), sqlx::Error> {
        // The number of rows tells also of one that was committed after a later one.
        let rows: i64 = in_time(sqlx::query_scalar("SELECT count(*) FROM revocation").fetch_one(pool)).await?;
        if self.is_loaded() && rows == self.shared.known.read().unwrap_or_else(PoisonError::into_inner).rows {
            return Ok(());
        }
        let read = "SELECT subject, token_id, floor(extract(epoch FROM revoked_at))::bigint FROM revocation";
        let read: Vec<(Option<String>, Option<String>, i64)> = in_time(sqlx::query_as(read).fetch_all(pool)).await?;
        let mut known = Known { rows: i64::try_from(read.len()).unwrap_or(i64::MAX), ..Known::default() };
        for (subject, token_id, second) in read {
            let second = u64::try_from(second).unwrap_or_default();
            if let Some(subject) = subject {
                let newest = known.subjects.entry(subject).or_default();
                *newest = second.max(*newest);
            }
            known.token_ids.extend(token_id);
        }
        let mut shared = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.rows < shared.rows {
            // Another look began later and was faster.
            return Ok(());
        }
        *shared = known;
        drop(shared);
        self.shared.revision.fetch_add(1, Ordering::AcqRel);
        hub.wake_all();
        Ok(())
    }
}
