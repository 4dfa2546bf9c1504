//! Deliveries that were given up. They block nothing any more, and stay until somebody redrives or deletes them.

use sqlx::{PgConnection, PgPool};

use super::delivery::Delivery;
use super::store::Consumer;
use crate::store::postgres::in_time;

/// Gives up what was leased for the last time and not heard of since.
pub(super) async fn bury(connection: &mut PgConnection, consumer: &Consumer, retry: &[i32]) -> Result<(), sqlx::Error> {
    // The lease stays: who has handled the event after all may still acknowledge it.
    const BURY: &str = "UPDATE delivery SET dead_at = now(), leased_until = NULL,
            last_error = CASE WHEN lease IS NULL THEN last_error ELSE 'the lease ended' END
        WHERE consumer_id = $1 AND dead_at IS NULL AND due_at <= statement_timestamp()
            AND attempts > cardinality($2::integer[])";
    sqlx::query(BURY).bind(consumer.id).bind(retry).execute(connection).await?;
    Ok(())
}

/// Up to `limit` dead letters after the entry `after`, the oldest first. Only what its owner may see now.
pub async fn list(
    pool: &PgPool,
    consumer: &Consumer,
    after: i64,
    limit: i64,
    retry: &[i32],
) -> Result<Vec<Delivery>, sqlx::Error> {
    const LIST: &str = "SELECT * FROM delivery WHERE consumer_id = $1 AND dead_at IS NOT NULL AND seq > $3
            AND (gap_from IS NOT NULL OR delivery_visible($2, audience))
        ORDER BY seq LIMIT $4";
    let look = async {
        let mut connection = pool.acquire().await?;
        bury(&mut connection, consumer, retry).await?;
        let list = sqlx::query_as(LIST).bind(consumer.id).bind(&consumer.settings.person).bind(after).bind(limit);
        list.fetch_all(&mut *connection).await
    };
    in_time(look).await
}

/// Makes dead letters due at once, with all attempts before them: these entries, or all. How many there were.
pub async fn redrive(
    pool: &PgPool,
    consumer: &Consumer,
    seqs: Option<&[i64]>,
    retry: &[i32],
) -> Result<u64, sqlx::Error> {
    const REDRIVE: &str = "UPDATE delivery SET dead_at = NULL, attempts = 0, lease = NULL, due_at = now()
        WHERE consumer_id = $1 AND dead_at IS NOT NULL AND ($2::bigint[] IS NULL OR seq = ANY ($2))";
    let redrive = async {
        let mut connection = pool.acquire().await?;
        bury(&mut connection, consumer, retry).await?;
        sqlx::query(REDRIVE).bind(consumer.id).bind(seqs).execute(&mut *connection).await
    };
    Ok(in_time(redrive).await?.rows_affected())
}

/// Forgets dead letters: these entries, or all. How many there were.
pub async fn delete(pool: &PgPool, consumer: &Consumer, seqs: Option<&[i64]>) -> Result<u64, sqlx::Error> {
    const DELETE: &str = "DELETE FROM delivery
        WHERE consumer_id = $1 AND dead_at IS NOT NULL AND ($2::bigint[] IS NULL OR seq = ANY ($2))";
    let delete = sqlx::query(DELETE).bind(consumer.id).bind(seqs);
    Ok(in_time(delete.execute(pool)).await?.rows_affected())
}
