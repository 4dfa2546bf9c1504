//! `Idempotency-Key`: the answer to a write is stored in the transaction of its effect, so a
//! repeated request gets the first answer and has no second effect, whatever failed between.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

/// Answers older than this may be dropped: a client repeats within minutes.
const KEPT_HOURS: i32 = 24;

/// Old answers dropped with each new one: more than one, so that the table shrinks again.
const DROPPED_AT_ONCE: i64 = 8;

const CLAIM: &str = "INSERT INTO idempotency (caller, key, request) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

const FIND: &str = "SELECT request, answer, outbox_id FROM idempotency WHERE caller = $1 AND key = $2";

const STORE: &str = "UPDATE idempotency SET answer = $3, outbox_id = $4 WHERE caller = $1 AND key = $2";

const DROP: &str = "DELETE FROM idempotency WHERE ctid IN (
        SELECT ctid FROM idempotency WHERE created_at < now() - make_interval(hours => $1)
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// A key of one caller for one request.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    caller: String,
    key: String,
    request: Vec<u8>,
}

/// What the key says about the request.
#[derive(Debug)]
pub enum Claim {
    /// It is the first of its kind: make the effect, then [`IdempotencyKey::store`].
    First,
    /// It was answered before.
    Answered {
        /// The answer.
        answer: String,
        /// Number of the effect's event in the outbox.
        outbox_id: i64,
    },
    /// The key was used for another request.
    Reused,
}

impl IdempotencyKey {
    /// The key of `caller` for this operation with this input.
    pub fn new(caller: &str, key: &str, operation: &str, input: &impl Serialize) -> Self {
        let input = serde_json::to_vec(input).expect("an input has only string keys, so it always serialises");
        let request = Sha256::new().chain_update(operation).chain_update("\n").chain_update(input).finalize();
        Self { caller: caller.to_owned(), key: key.to_owned(), request: request.to_vec() }
    }

    /// Claims the key, first thing in the transaction. Waits while another transaction with
    /// the same key is under way.
    pub async fn claim(&self, connection: &mut PgConnection) -> Result<Claim, sqlx::Error> {
        let claimed =
            sqlx::query(CLAIM).bind(&self.caller).bind(&self.key).bind(&self.request).execute(&mut *connection).await?;
        if claimed.rows_affected() == 1 {
            return Ok(Claim::First);
        }
        let (request, answer, outbox_id): (Vec<u8>, String, i64) =
            sqlx::query_as(FIND).bind(&self.caller).bind(&self.key).fetch_one(connection).await?;
        Ok(if request == self.request { Claim::Answered { answer, outbox_id } } else { Claim::Reused })
    }

    /// Stores the answer, last thing in the transaction; drops a few old ones.
    pub async fn store(&self, connection: &mut PgConnection, answer: &str, outbox_id: i64) -> Result<(), sqlx::Error> {
        sqlx::query(STORE)
            .bind(&self.caller)
            .bind(&self.key)
            .bind(answer)
            .bind(outbox_id)
            .execute(&mut *connection)
            .await?;
        sqlx::query(DROP).bind(KEPT_HOURS).bind(DROPPED_AT_ONCE).execute(connection).await?;
        Ok(())
    }
}
